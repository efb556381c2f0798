"""Runs any command with one of its system calls failing or its last: in a fork that strace attaches to.

The fork has everything loaded that the command needs, and waits until strace is there: what is counted are the
command's own calls, and a run takes a tenth of a second. Only calls on files in the home are hit.
"""

from __future__ import annotations

import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.system import processes
from tests.support.home import Home, require, run_in_fork

if TYPE_CHECKING:
    import pytest

STEP = int(os.environ.get("TAOPROF_TEST_FAULT_STEP", "15"))
"""Of all injections every so many are tried, always others: TAOPROF_TEST_FAULT_STEP=1 tries all."""

FAILURES = {
    "openat": ("EIO", "EACCES", "EMFILE", "ENOSPC"),
    "read": ("EIO",),
    "pread64": ("EIO",),
    "getdents64": ("EIO",),
    "newfstatat": ("EIO", "EACCES"),
    "write": ("ENOSPC", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"),
    "fsync": ("ENOSPC", "EIO"),
    "ftruncate": ("EIO", "ENOSPC"),
    "truncate": ("EIO", "EACCES"),
    "rename": ("ENOSPC", "EIO", "EACCES"),
    "renameat2": ("ENOSPC", "EIO", "EACCES"),
    "link": ("ENOSPC", "EIO", "EACCES"),
    "linkat": ("ENOSPC", "EIO", "EACCES", "EPERM", "EXDEV"),
    "symlink": ("ENOSPC", "EIO", "EACCES"),
    "mkdir": ("ENOSPC", "EIO", "EACCES"),
    "unlink": ("EIO", "EACCES"),
    "rmdir": ("EIO", "EACCES"),
    "chmod": ("EIO", "EACCES"),
    "fchmod": ("EIO", "EACCES"),
    "fchown": ("EIO", "EPERM"),
    "flock": ("EIO", "ENOLCK"),
    "utimensat": ("EIO", "EACCES"),
}
"""What can fail, and how. A reading call is never full, and a new file is what ENOSPC is for."""

READS = ("read", "pread64", "getdents64", "newfstatat")


class Point(NamedTuple):
    """The ``number``-th ``call`` of a command."""

    call: str
    number: int
    line: str

    @property
    def injections(self) -> list[str]:
        errors = FAILURES[self.call]
        is_reading = self.call in READS or (self.call == "openat" and "O_CREAT" not in self.line)
        errors = tuple(error for error in errors if not (is_reading and error == "ENOSPC"))
        opens_to_read = self.call == "openat" and "O_WRONLY" not in self.line and "O_RDWR" not in self.line
        kill = [] if is_reading and (self.call != "openat" or opens_to_read) else ["signal=SIGKILL"]
        return [*(f"error={error}" for error in errors), *kill]


class Ended(NamedTuple):
    status: int
    out: str
    err: str
    log: list[str]


def points(home: Home, do: Callable[[], int]) -> Iterator[Point]:
    """Run it unhurt and give the calls on files in the home."""
    ended = run(home, do)
    assert ended.status == 0, ended
    counts: Counter[str] = Counter()
    for line in ended.log:
        match = re.match(r"(\w+)\(", line)
        if match and match[1] in FAILURES:
            counts[match[1]] += 1
            if _is_in(home, line):
                yield Point(match[1], counts[match[1]], line)


def run(home: Home, do: Callable[[], int], injection: str | None = None) -> Ended:
    """Call ``do`` in a fork with the home's environment, under strace, and return what came of it."""
    require(shutil.which("strace"), "strace is not installed")
    log = home.root.with_name(home.root.name + ".strace")
    ready, go = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            os.close(go)
            _child(home, do, ready, out.fileno(), err.fileno())
        os.close(ready)
        inject = ["-e", f"inject={injection}"] if injection else []
        words = ["strace", "-y", "-o", str(log), "-e", f"trace={','.join(FAILURES)}", *inject, "-p", str(pid)]
        tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        assert "attached" in line, line
        os.close(go)  # the end of the file is what it waits for
        status = _wait(pid)
        tracer.communicate(timeout=20)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return Ended(status, *texts, log.read_text(errors="replace").splitlines())


def _wait(pid: int) -> int:
    """Return the exit status of the fork; one that does not end within 20 s is killed, and has the status -1."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


def was_hit(ended: Ended, point: Point, home: Home) -> bool:
    """Check whether the call that was hit is that one, on a file in the home."""
    hit = [line for line in ended.log if "(INJECTED)" in line]
    if not hit and ended.status == -9:
        hit = [line for line in ended.log if line.startswith(point.call)][-1:]
    return any(line.startswith(point.call) and _is_in(home, line) for line in hit)


def _is_in(home: Home, line: str) -> bool:
    return str(home.root) in re.sub(r"AT_FDCWD<.*?>", "", line)


def _child(home: Home, do: Callable[[], int], ready: int, out: int, err: int) -> None:
    def prepare_and_do() -> int:
        processes.scan = list  # they only read, and how often depends on what else the machine is doing
        processes.with_variable = lambda *_: iter(())
        account = pwd.getpwuid(os.getuid())
        pwd.getpwuid = lambda _: pwd.struct_passwd([*account[:5], str(home.root), account[6]])
        poller = select.poll()
        poller.register(ready, select.POLLIN)
        poller.poll(20_000)
        return do()

    run_in_fork(prepare_and_do, home.environ, home.root, out, err)


def run_next(home: Home, *commands: list[str]) -> str:
    """Run commands that must work after any fault; return what is wrong with the first that fails, or ""."""
    for words in commands:
        done = home.run(*words)
        if done.returncode != 0 or "Traceback" in done.stderr:
            return f"{words}: {done.returncode} {done.stderr}"
    return ""


def copied(home: Home, to: Path) -> Home:
    shutil.copytree(home.root, to, symlinks=True)
    copy = Home(to)
    lock = copy.state / "lock"
    os.utime(lock, (time.time() - 60, time.time() - 120))  # nobody has just waited for it, and reading leaves it so
    copy.environ |= {name: value for name, value in home.environ.items() if name not in copy.environ or name == "PATH"}
    return copy


def fail_calls(monkeypatch: pytest.MonkeyPatch, code: int, is_hit: Callable[..., bool], *names: str) -> None:
    """Make functions of ``os`` fail with an error number for the arguments that ``is_hit`` selects, in this process."""

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: object, *arguments: object, **options: object) -> Any:
            if is_hit(str(path), *arguments):
                raise OSError(code, os.strerror(code), path)
            return real(path, *arguments, **options)

        return call

    for name in names:
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
