"""What a program writes in parts is stored whole, whatever is switched or restored between the parts."""

from __future__ import annotations

import errno
import fcntl
import os
import time

import pytest

from taoprofiles.guard import overwrites
from taoprofiles.guard.overwrites import Overwrites
from taoprofiles.storage import atomic
from taoprofiles.storage.journal import History
from taoprofiles.switching import switch
from taoprofiles.system import processes
from tests.support.engine import until
from tests.support.guard_process import GuardProcess, held, is_sealed
from tests.support.sandbox import Sandbox

PARTS = b'{"Mounts": [], "first": "part", ', b'"second": "part"}'
WHOLE = b"".join(PARTS)

SLOWLY = """
import sys, time
with open(sys.argv[1], "wb", 0) as file:
    file.write(sys.argv[2].encode())
    print(flush=True)
    time.sleep(float(sys.argv[4]))
    file.write(sys.argv[3].encode())
"""


def stored(sandbox: Sandbox, content: bytes) -> bool:
    return History(sandbox.context).has_content(content)


@pytest.mark.parametrize("words", [("use", "b"), ("undo",), ()])
def test_a_file_that_is_replaced_between_the_parts(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    program = ("python3", "-c", SLOWLY, sandbox.mapping_file, *(part.decode() for part in PARTS), "0.2")
    writer = sandbox.start(*program, stdout=-1)
    assert writer.stdout is not None
    writer.stdout.readline()
    if not words:  # by the guard
        with GuardProcess(sandbox) as guard:
            writer.wait(20)
            until(lambda: stored(sandbox, WHOLE), "it is stored", details=guard.log_text)
    else:
        done = sandbox.run(*words)
        writer.wait(20)
        assert (done.returncode, "warning" in done.stderr) == (0, False)
        assert stored(sandbox, WHOLE)


def test_a_writer_that_does_not_end_is_named(sandbox: Sandbox) -> None:
    with sandbox.mapping_file.open("wb", 0) as file:
        file.write(PARTS[0])
        done = sandbox.run("use", "b", check=True)
    assert "another program is still writing the replaced file" in done.stderr
    assert stored(sandbox, PARTS[0])


def without_leases(patch: pytest.MonkeyPatch) -> None:
    """As on NFS and FUSE."""
    real = fcntl.fcntl

    def refuses(fd: int, command: int, *arguments: int) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, command, *arguments)

    patch.setattr(fcntl, "fcntl", refuses)


@pytest.mark.parametrize("age", [0, 60])
def test_where_the_kernel_cannot_tell_a_fresh_file_may_be_unfinished(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, age: int
) -> None:
    without_leases(monkeypatch)
    sandbox.mapping_file.write_bytes(PARTS[0])
    os.utime(sandbox.mapping_file, (time.time() - age,) * 2)
    expected = ["another program may still be writing the replaced file: what it writes from now on is lost"]
    assert switch.switch_profile(sandbox.context, "b").unchecked == (expected if age == 0 else [])


def test_without_hard_links_a_write_at_the_last_moment_is_stored(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some FUSE file systems: there is only a copy of the file that is replaced."""
    real = os.replace
    sandbox.mapping_file.write_bytes(PARTS[0])

    def writes_before(source: str, target: str) -> None:
        if target == sandbox.context.mapping_file:
            with sandbox.mapping_file.open("ab") as file:
                file.write(PARTS[1])
        real(source, target)

    monkeypatch.setattr(atomic, "_try_link", lambda *_: False)
    monkeypatch.setattr(os, "replace", writes_before)
    switch.switch_profile(sandbox.context, "b")
    assert stored(sandbox, WHOLE)


def test_a_swapped_symlink_is_followed(sandbox: Sandbox) -> None:
    """The program writes into the file behind a symlink that the guard swaps back meanwhile."""
    other = sandbox.root / "other.json"
    with GuardProcess(sandbox) as guard:
        held(sandbox)
        until(lambda: is_sealed(sandbox.mapping_file), "it is sealed", details=guard.log_text)
        with other.open("wb", 0) as file:
            file.write(PARTS[0])
            (sandbox.root / "fresh").symlink_to("other.json")
            (sandbox.root / "fresh").rename(sandbox.mapping_file)
            guard.until_logged(": restored")
            time.sleep(0.3)
            file.write(PARTS[1])
        other.unlink()
        until(lambda: stored(sandbox, WHOLE), "it is stored", details=guard.log_text)


@pytest.fixture
def replaced_file(sandbox: Sandbox) -> tuple[Overwrites, int, int]:
    """Return a handler of overwrites that follows a replaced file, and descriptors of the file to write and to read."""
    path = sandbox.folder / "replaced"
    path.write_bytes(PARTS[0])
    History(sandbox.context).record_external_change(PARTS[0])
    handler = Overwrites(sandbox.context, 5)
    writing, reading = os.open(path, os.O_WRONLY | os.O_APPEND), os.open(path, os.O_RDONLY)
    handler._watch_replaced([reading])
    return handler, writing, reading


def test_a_writer_that_ends_while_the_guard_looks(
    sandbox: Sandbox, replaced_file: tuple[Overwrites, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, writing, _ = replaced_file
    real = processes.is_being_written

    def ends_just_before(fd: int) -> bool | None:
        os.write(writing, PARTS[1])
        os.close(writing)
        return real(fd)

    monkeypatch.setattr(processes, "is_being_written", ends_just_before)
    handler.collect_late_writes()
    assert stored(sandbox, WHOLE)


def test_without_leases_a_file_is_followed_for_a_minute(
    sandbox: Sandbox, replaced_file: tuple[Overwrites, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, writing, _ = replaced_file
    now = time.monotonic()
    without_leases(monkeypatch)
    for seconds in (0, 1, 30, 59):
        monkeypatch.setattr(overwrites.time, "monotonic", lambda seconds=seconds: now + seconds)
        assert handler.collect_late_writes() < overwrites.NEVER
    os.write(writing, PARTS[1])
    os.close(writing)
    handler.collect_late_writes()
    assert stored(sandbox, WHOLE)
    monkeypatch.setattr(overwrites.time, "monotonic", lambda: now + 61)
    assert handler.collect_late_writes() == overwrites.NEVER
