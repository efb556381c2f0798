"""What all tests share: a scratch home, the real command run in it, and parts of the machine that may be missing."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Self

import pytest

import taoprofiles
from taoprofiles.cli import main
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch

ALL = os.environ.get("TAOPROF_TEST_ALL") == "1"
"""Set in CI: a missing part is a failure."""


def require(present: object, why: str) -> None:
    """Skip the test if a part of the machine is missing; in CI fail."""
    if not present:
        (pytest.fail if ALL else pytest.skip)(why)


def write_program(path: Path, script: str) -> Path:
    """Write a program, a script for sh unless it names another interpreter, and its folder; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def find_command(name: str) -> str:
    """Find a command beside the running Python, where pip puts it, or on PATH."""
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    require(path, f"the command '{name}' is not installed")
    assert path is not None
    return path


for module in pkgutil.walk_packages(taoprofiles.__path__, "taoprofiles."):
    if not module.name.startswith(("taoprofiles.__main__", "taoprofiles.jupyter")):
        importlib.import_module(module.name)  # here once, and not in each fork of Home.run

_started: set[tuple[str, ...]] = set()
"""The commands that have been started as a person does, by this process of the tests."""

LAUNCHERS = Path(__file__).parents[2] / ".launchers"


def launcher_python(version: str) -> Path:
    """Return the Python of an installed launcher's environment: ``.ci/run`` makes one for each in ``.launchers``."""
    python = LAUNCHERS / version / "bin/python"
    require(python.exists(), f"the launcher {version} is not installed in {LAUNCHERS / version}")
    return python


class OtherUser(Context):
    """The context of another user than the one who runs the tests: the user's ids can be set."""

    gid = 0
    groups: list[int] = []  # noqa: RUF012 - replaced, never changed


class Home:
    """A scratch home: runs the real command in it and reads what is there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.taoprof = find_command("taoprof")
        self.mapping_file = root / ".tao_mounts.json"
        self.profiles = root / ".config/taoprofiles/profiles"
        self.state = root / ".local/state/taoprofiles"
        self.environ = {
            "HOME": str(root),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "USER": "ana",
            "DOCKER_HOST": "unix:///nowhere/docker.sock",  # no engine, whatever this machine has
        }
        self.context = Context(self.environ)

    def run(
        self, *arguments: str, check: bool = False, errors: str = "backslashreplace", **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in a process of its own, forked from this one; in CI each is once started anew.

        ``errors`` is for output that is not UTF-8. Unlike in subprocess's own text mode, carriage returns are kept.
        """
        options.setdefault("cwd", self.root)
        environ = {**self.environ, **options.pop("environ", {})}  # type: ignore[dict-item]
        is_known = arguments[:1] in _started or not ALL
        _started.add(arguments[:1])
        if is_known and set(options) == {"cwd"}:
            words = (self.taoprof, *arguments)
            done = forked(lambda: main.run(list(arguments)), environ, options["cwd"], words)
        else:
            done = subprocess.run([self.taoprof, *arguments], env=environ, capture_output=True, timeout=60, **options)  # type: ignore[call-overload]
        done.stdout, done.stderr = (output.decode("utf-8", errors) for output in (done.stdout, done.stderr))
        if check:
            assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def json(self, *arguments: str, **options: object) -> dict:
        """Run with ``--json`` and give the envelope."""
        return json.loads(self.run(*arguments, "--json", **options).stdout)

    def holds(self) -> list[dict]:
        """Return the holds in force, as the command reports them."""
        return self.json("status")["data"]["holds"]

    def profile(self, name: str, text: str | None = None) -> Path:
        """Write a profile's file by hand: ``text``, or a small custom one with one mount of its own folder."""
        folder = self.root / "projects" / name
        folder.mkdir(parents=True, exist_ok=True)
        if text is None:
            text = (
                'schema = 1\nlayout = "custom"\n[[mounts]]\n'
                f'source = "{folder}"\ndestination = "/workspace/tao-experiments"\n'
            )
        self.profiles.mkdir(parents=True, exist_ok=True)
        path = self.profiles / f"{name}.toml"
        path.write_text(text)
        return path

    def profiles_named(self, *names: str) -> Self:
        """Write the profiles and make the first one active, the others having been so before."""
        for name in names:
            self.profile(name)
        for name in (*names[1:], names[0]):
            switch.switch_profile(self.context, name)  # in this process: a command takes longer
        return self

    def mapping(self) -> dict:
        return json.loads(self.mapping_file.read_bytes())

    def content(self) -> bytes | None:
        """Return the content of the mapping file, None if there is none."""
        return self.mapping_file.read_bytes() if self.mapping_file.exists() else None

    def tree(self) -> dict[str, tuple]:
        """Everything in the home, for "nothing was changed"; the lock aside, and the folders made to hold it."""
        tree = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.name == "lock" or "/cache" in name or self.state.is_relative_to(path):
                continue
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            tree[name] = (status.st_mode, status.st_uid, content, os.readlink(path) if path.is_symlink() else None)
        return tree


def run_in_fork(do: Callable[[], int], environ: dict[str, str], cwd: object, out: int, err: int) -> NoReturn:
    """Be, in a forked process, one of its own: with these variables, folder and streams. ``do`` returns its status."""
    status = 70
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for fd, stream in enumerate((nothing, out, err)):
            os.dup2(stream, fd)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = (
            os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False) for fd in (1, 2)
        )
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(str(cwd))
        status = do()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def forked(
    do: Callable[[], int], environ: dict[str, str], cwd: object, words: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Do what the command ``words`` does, without the tenth of a second that Python and its imports take to start."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            run_in_fork(do, environ, cwd, out.fileno(), err.fileno())
        _, ended = os.waitpid(pid, 0)
        outputs = []
        for file in (out, err):
            file.seek(0)
            outputs.append(file.read())
    return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(ended), *outputs)
