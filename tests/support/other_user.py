"""A home of somebody who is not root, and commands run as that user: root may read and write everything."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import CommandResult
from tests.support.home import Home

BECOME = """
import os, sys
from taoprofiles.cli import main
uid, warm, *words = sys.argv[1:]
# Every module is loaded while it can be: the interpreter may stand where only root can read.
import difflib, pwd, pydantic, tomlkit, tomli_w, filelock
environ, here, kept = dict(os.environ), os.getcwd(), [os.dup(1), os.dup(2)]
os.environ["HOME"] = warm
os.chdir(warm)
null = os.open(os.devnull, os.O_RDWR)
for fd in (1, 2):
    os.dup2(null, fd)
for line in (["new", "a"], ["use", "a"], ["use", "a", "--mkdir"], ["use", "nosuch"], ["show", "a"], ["list"], words):
    try:
        main.run(list(line))
    except SystemExit:
        pass
sys.stdout.flush()
for fd, old in zip((1, 2), kept):
    os.dup2(old, fd)
os.chdir(here)
os.environ.clear()
os.environ.update(environ)
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(*[int(uid)] * 3)
    os.setresuid(*[int(uid)] * 3)
sys.exit(main.run(words))
"""
UNKNOWN = 54_321
"""A user id that no password database has."""


@pytest.fixture
def theirs() -> Iterator[Home]:
    """A home of somebody who is not root, where they can reach it."""
    with tempfile.TemporaryDirectory(prefix="taoprof-test-") as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "home").mkdir()
        (top / "warm").mkdir()
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


def as_them(home: Home, *words: str, environ: dict[str, str] | None = None, cwd: Path | None = None) -> CommandResult:
    done = subprocess.run(
        [sys.executable, "-c", BECOME, str(UNKNOWN), str(home.root.parent / "warm"), *words],
        env=home.environ if environ is None else environ,
        cwd=cwd or home.root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)
