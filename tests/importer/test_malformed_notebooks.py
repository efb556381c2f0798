"""Strangers' notebooks, however they are made: read in bounded time and memory, and nothing of them is run.

``TAOPROF_TEST_NOTEBOOKS=100000`` is the long version, ``TAOPROF_TEST_SEED`` the first of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.importer.malformed_notebooks import SECONDS, SPECIAL
from tests.importer.notebooks import write
from tests.support.commands import call, can_be_shown, one_clear_error
from tests.support.home import ALL, Home
from tests.support.notebooks import notebook

NOTEBOOKS = int(os.environ.get("TAOPROF_TEST_NOTEBOOKS", 2000 if ALL else 200))
FIRST = int(os.environ.get("TAOPROF_TEST_SEED", "0"))
ROOT = Path(__file__).parents[2]
MEGABYTES = 300


def read_all(what: list[int] | list[str], folder: Path, *, share: float = 1) -> None:
    """Read them in a process of its own, and check what came of each."""
    (folder / "canary.txt").write_text("untouched")
    (folder / "canary.py").write_text(f"open({str(folder / 'imported')!r}, 'w')")
    before = sorted(path.name for path in folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "tests.importer.malformed_notebooks", str(folder), str(share)],
        input="".join(f"{json.dumps(case)}\n" for case in what),
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(what), f"ended in {what[len(outcomes)]!r}: {done.returncode} {done.stderr[-3000:]}"
    for case, outcome, seconds, megabytes, problem, events in outcomes:
        assert problem == "", (case, problem)
        assert events == [], (case, "reading it did more than reading")
        assert seconds < SECONDS, (case, outcome)
        assert megabytes < MEGABYTES, (case, outcome)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (folder / "canary.txt").read_text() == "untouched"


@pytest.mark.timeout(900)
def test_notebooks_from_a_grammar(tmp_path: Path) -> None:
    read_all(list(range(FIRST, FIRST + NOTEBOOKS)), tmp_path, share=1 if ALL else 0.1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_special_cases(tmp_path: Path) -> None:
    read_all(list(SPECIAL), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "surrogates",
        "a NUL",
        "odd line ends",
        "UTF-16",
        "nested JSON",
    ]
    + (["dollars"] if ALL else [])
    + [name for name in SPECIAL if name.startswith("a mapping that is")],
)
def test_import_reports_one_clear_error(home: Home, name: str) -> None:
    """Whatever stands in the file, it reaches the terminal as printable text, or as JSON that can be read."""
    content = SPECIAL[name]()
    file = home.root / ("x.ipynb")
    file.write_bytes(content)
    done = call(home, "import", str(file), "--set", "LOCAL_DATA_DIR=/d")
    one_clear_error(done, done.status)
    done = call(home, "import", str(file))
    if done.status:
        one_clear_error(done, done.status)
    assert all(can_be_shown(line) for line in [*done.out.splitlines(), *done.err.splitlines()])
    assert call(home, "import", str(file), "--force", "--json").envelope["ok"] is (done.status == 0)


def test_what_is_printed_of_a_notebook_is_printable(home: Home) -> None:
    evil = "\x1b[31m\x1b]0;title\x07\u202e"
    file = home.root / "x.ipynb"
    file.write_bytes(
        notebook([
            f"%env A={evil}FIXME\n%env {evil}=x\nimport os",
            f'tao_configs = {{"Mounts": [{{"source": os.environ["A"], "destination": "/x{evil}"}}, '
            f'{{"source": "{evil}", "destination": "/y"}}]}}',
            write(),
        ])
    )  # fmt: skip
    for words in (["import", str(file)], ["import", str(file), "--set", "A=/a"]):
        done = call(home, *words)
        assert all(can_be_shown(line) for line in [*done.out.splitlines(), *done.err.splitlines()]), done
