"""A home of somebody who is not root, and commands run as that user: root may read and write everything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taoprofiles.cli import main
from tests.support.commands import CommandResult
from tests.support.home import Home, forked

UNKNOWN = 54_321
"""A user id that no password database has."""


@pytest.fixture
def theirs() -> Iterator[Home]:
    """A home of somebody who is not root, where they can reach it."""
    with tempfile.TemporaryDirectory(prefix="taoprof-test-") as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "home").mkdir()
        home = Home(top / "home")
        home.profile("a")
        give(home)
        yield home
        for path in (p for p in [home.root, *home.root.rglob("*")] if p.is_dir()):
            path.chmod(0o700)


def give(home: Home) -> None:
    if os.geteuid() == 0:
        for path in [home.root, *home.root.rglob("*")]:
            os.chown(path, UNKNOWN, UNKNOWN, follow_symlinks=False)


def as_them(home: Home, *words: str, environ: dict[str, str] | None = None) -> CommandResult:
    """Run a command as them, with all its modules loaded: the interpreter may stand where only root can read."""
    return do_as_them(home, lambda: main.run(list(words)), environ)


def do_as_them(home: Home, do: Callable[[], int], environ: dict[str, str] | None = None) -> CommandResult:
    """Do something else as them; the exit status is what it returns."""

    def become_and_run() -> int:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(*[UNKNOWN] * 3)
            os.setresuid(*[UNKNOWN] * 3)
        return do()

    done = forked(become_and_run, home.environ if environ is None else environ, home.root)
    return CommandResult(done.returncode, done.stdout.decode(), done.stderr.decode())
