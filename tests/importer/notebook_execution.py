"""What really running a notebook leaves behind: its cells in a real IPython shell, in a scratch home.

Only for the notebooks that stand in these tests: they may do as they like. One process loads IPython, which takes long,
and forks for each notebook.
"""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

MOUNTS = (".tao_mounts.json", ".tlt_mounts.json")


class Outcome(NamedTuple):
    """What is there when the last cell has run."""

    mapping: Any
    """The value of the mounts file that the launcher would take; None for none."""
    environ: dict[str, str]
    """The variables that the cells set or changed."""
    errors: list[str]
    """What the cells raised, by the names of the exceptions."""


class Execution(NamedTuple):
    home: Path
    folder: Path
    """The folder of the notebook."""
    cells: list[str]
    outcome: Outcome


def execute(root: Path, notebooks: dict[str, list[str]]) -> dict[str, Execution]:
    """Run the cells of notebooks, each in its own process, home and folder; ``{HOME}`` in a cell is the home."""
    from tests.support.home import require  # which the child does not have

    require(find_spec("IPython"), "IPython is not installed")
    jobs = {}
    for number, (name, cells) in enumerate(notebooks.items()):
        home = root.resolve() / f"{number:03d}"
        jobs[name] = home, home / "nb/net", [cell.replace("{HOME}", str(home)) for cell in cells]
        jobs[name][1].mkdir(parents=True)
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "IPYTHONDIR": f"{root}/.ipython"}
    done = subprocess.run(
        [sys.executable, "-I", "-B", __file__],
        input=json.dumps(list(jobs.values()), default=str),
        env={**environ, "HOME": str(root)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [Outcome(*answer_text) for answer_text in json.loads(done.stdout)]
    return {name: Execution(*job, outcome) for (name, job), outcome in zip(jobs.items(), outcomes, strict=True)}


# Inside of the child process


def _main() -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config, colors="nocolor")
    shell.showtraceback = shell.showsyntaxerror = lambda *_, **__: None  # nobody reads them
    os.environ.pop("IPYTHONDIR")
    # What IPython and the cells load or compile at its first use is inherited by all.
    shell.run_cell("import json, pathlib, tempfile, subprocess, shutil, glob", store_history=False)
    shell.reset()
    shell.transform_cell("%env A=1\nx = !y\n!z\nif x:\n    for y in (1, [2], {3: f'{4}'}):\n        z?")
    for name in ("cd", "env", "set_env", "run", "system"):
        shell.find_line_magic(name)
    gc.freeze()
    print(json.dumps([_forked(shell, *job) for job in json.load(sys.stdin)]))


def _forked(shell: Any, home: str, folder: str, sources: list[str]) -> list[Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer_text = json.dumps(_run(shell, home, folder, sources))
            with os.fdopen(writing, "w") as answer:
                answer.write(answer_text)
        except BaseException:
            traceback.print_exc()
        os._exit(0)  # whatever the cells have left behind
    os.close(writing)
    with os.fdopen(reading) as answer:
        answer_text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(answer_text)


def _run(shell: Any, home: str, folder: str, sources: list[str]) -> list[Any]:
    os.chdir(folder)
    os.environ.update(HOME=home, USER="ana")
    before = dict(os.environ)
    errors = []
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for source in sources:
            result = shell.run_cell(source, store_history=False)
            error = result.error_before_exec or result.error_in_exec
            errors += [] if error is None else [type(error).__name__]
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    texts = [Path(home, name).read_text() for name in MOUNTS if Path(home, name).exists()]
    try:
        mapping = json.loads(texts[0]) if texts else None
    except ValueError:
        mapping = "not JSON"
    return [mapping, changed, errors]


if __name__ == "__main__":
    _main()
