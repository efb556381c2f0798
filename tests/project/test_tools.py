"""Types, lint and layout of the code, checked by the tools themselves with the settings in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.home import find_command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("mypy",), marks=pytest.mark.slow, id="mypy"),
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
    ],
    ids=" ".join,
)
def test_tool_has_no_complaint(words: tuple[str, ...]) -> None:
    done = subprocess.run([find_command(words[0]), *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_loads_nothing_else() -> None:
    """``taoprof current`` runs at every shell prompt, and begins with this import."""
    code = "import sys; before = set(sys.modules); import taoprofiles; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['__future__', 'taoprofiles']"


def test_hot_commands_load_no_library() -> None:
    """What each heavy import costs stands in docs/explanation/speed.md; a switch and a list must not pay it."""
    heavy = {"pydantic", "filelock", "tomlkit", "tomli_w", "tomllib", "dataclasses", "pathlib", "subprocess"}
    heavy |= {"yaml", "shlex", "hashlib", "csv", *(f"taoprofiles.{m}" for m in ("export.plan", "launcher.simulation"))}
    code = (
        "import sys\n"
        "for m in list(sys.modules):\n"
        "    if m in {'pathlib', 'dataclasses', 'subprocess'}: del sys.modules[m]\n"
        "import taoprofiles.cli.dispatch, taoprofiles.cli.commands.switch, taoprofiles.cli.commands.show\n"
        "import taoprofiles.cli.status\n"
        "print(' '.join(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    if done.returncode:  # an editable install is found by site alone
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert heavy & set(done.stdout.split()) == set()
