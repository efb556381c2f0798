"""Where the symptom is the launcher's, the reference shows its very words: the real launcher is broken in that way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.home import Home
from tests.support.launchers import Launcher
from tests.support.profile_cases import CASES

pytestmark = pytest.mark.launchers

PAGE = (Path(__file__).parents[2] / "docs/reference/checks.md").read_text()
SECTIONS = dict(re.findall(r"^### ([a-z0-9-]+)\n\n```\n(.*?)^```$", PAGE, re.M | re.S))
LOUD = (
    "json-parse", "file-shape: a key", "file-shape: no Mounts", "file-shape: a mount", "file-shape: a variable",
    "opts-shape: null", "opts-shape: a limit", "shm-unit", "opt-unknown-for-version", "src-missing",
    "placeholder: a source", "src-missing: a variable", "src-missing: Windows",
)  # fmt: skip


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher("6.26.3")
    yield launcher
    launcher.end()


def pattern(line: str) -> str:
    """Return what a documented line stands for: other paths, other numbers."""
    text = re.escape(line.rpartition("docker.errors.")[2].removeprefix("json.decoder."))
    text = re.sub(r"/(?:home/ana|path/to)(?:\\.|[^ '])*", ".+", text)
    return re.sub(r"(?<=line |lumn |char )\d+", r"\\d+", text.replace("\\ ", " "))


@pytest.mark.parametrize("name", LOUD)
def test_the_launchers_own_words(home: Home, launcher: Launcher, name: str) -> None:
    CASES[name][0](home)
    (home.root / ".docker").mkdir()
    (home.root / ".docker/config.json").write_text('{"auths": {"nvcr.io": {}}}')
    launcher.ask(home.environ, str(home.root), ["model", "detectnet_v2", "train"])
    kind, message = launcher.answer()["raised"]
    last_line = f"{kind}: {message!r}" if kind == "KeyError" else f"{kind}: {message}"  # as a traceback ends
    documented = [
        line for line in SECTIONS[name.partition(":")[0]].splitlines() if line.startswith(("json.", "docker.", kind))
    ]
    assert any(re.match(pattern(line), last_line) for line in documented), last_line
