"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"^### (Add .*?)\n(.*?)(?=^### Add |\Z)", PAGE, re.M | re.S))

CODE = r"\s*```\w*\n(?P<code>.*?)^```$"
STEP = re.compile(
    r"In\s`(?P<file>[^`]+)`,\sreplace\s`(?P<old>[^`]+)`\swith\s`(?P<new>[^`]+)`"
    rf"|(?:In\s`(?P<where>[^`]+)`,\s)?(?P<side>above|below)\s`(?P<anchor>[^`]+)`:{CODE}"
    rf"|At\sthe\send\sof\s`(?P<end>[^`]+)`:{CODE.replace('code', 'tail')}"
    rf"|Create\s`(?P<create>[^`]+)`:{CODE.replace('code', 'content')}"
    r"|```sh\n(?P<commands>.*?)^```$",
    re.M | re.S | re.I,
)


def follow(text: str, folder: Path) -> list[str]:
    """Make the changes that a recipe names, in their order; return its commands."""
    commands: list[str] = []
    file = ""
    for step in STEP.finditer(text):
        if step["old"]:
            file = step["file"]
            edit(folder / file, step["old"], step["new"])
        elif step["anchor"]:
            file = step["where"] or file  # "below …" without a file is in the one before
            content = (folder / file).read_text()
            (line,) = [line for line in content.splitlines(keepends=True) if step["anchor"] in line]
            edit(folder / file, line, step["code"] + line if step["side"] == "above" else line + step["code"])
        elif step["end"]:
            with (folder / step["end"]).open("a") as end:
                end.write(f"\n\n{step['tail']}")
        elif step["create"]:
            (folder / step["create"]).write_text(step["content"])
        else:
            commands += step["commands"].splitlines()
    return commands


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert content.count(old) == 1, f"{old!r} is {content.count(old)} times in {path}"
    path.write_text(content.replace(old, new))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    for name in ("taoprofiles", "tests", "docs", "service"):
        ignored = shutil.ignore_patterns("__pycache__", "images")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def run(copy: Path, command: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(copy)}
    # One process, without the plugins' own: the recipe's tests are a few.
    words = command.replace(".venv/bin/python", sys.executable).replace(
        "-m pytest", "-m pytest -n0 -p no:cacheprovider"
    )
    return subprocess.run(words, shell=True, cwd=copy, env=environ, capture_output=True, text=True, timeout=250)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(copy: Path, name: str) -> None:
    commands = follow(RECIPES[name], copy)
    assert commands
    for command in commands:
        done = run(copy, command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout or "100%" in done.stdout
    files = [
        word for step in STEP.finditer(RECIPES[name]) for word in (step["file"], step["where"], step["create"]) if word
    ]
    code = [name for name in files if name.endswith(".py")]
    lint = subprocess.run([sys.executable, "-m", "ruff", "check", *code], cwd=copy, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout


def test_a_step_that_is_left_out_is_noticed(copy: Path) -> None:
    """The recipes would be worth nothing if their tests passed without them."""
    recipe = RECIPES["Add a finding"]
    commands = follow(recipe[: recipe.index("In `docs/reference/checks.md`")], copy)
    assert commands == []
    done = run(copy, ".venv/bin/python -m pytest tests/rules/test_findings.py -k section")
    assert done.returncode == 1, done.stdout
    assert "dst-system" in done.stdout
