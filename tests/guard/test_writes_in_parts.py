"""What a program writes in parts is stored whole, whatever is switched or restored between the parts."""

from __future__ import annotations

import errno
import fcntl
import os
import time

import pytest

from taoprofiles.storage import atomic
from taoprofiles.switching import switch
from taoprofiles.system import processes
from tests.support.engine import until
from tests.support.guard_process import GuardProcess, kept
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


@pytest.mark.parametrize("words", [("use", "b"), ("undo",), ()])
def test_a_file_that_is_replaced_between_the_parts(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    program = ("python3", "-c", SLOWLY, sandbox.mapping_file, *(part.decode() for part in PARTS), "0.2")
    writer = sandbox.start(*program, stdout=-1)
    assert writer.stdout is not None
    writer.stdout.readline()
    if not words:  # by the guard
        with GuardProcess(sandbox) as guard:
            writer.wait(20)
            until(lambda: kept(sandbox, WHOLE), "it is stored", details=guard.log_text)
    else:
        done = sandbox.run(*words)
        writer.wait(20)
        assert (done.returncode, "warning" in done.stderr) == (0, False)
        assert kept(sandbox, WHOLE)


def test_a_writer_that_does_not_end_is_named(sandbox: Sandbox) -> None:
    with sandbox.mapping_file.open("wb", 0) as file:
        file.write(PARTS[0])
        done = sandbox.run("use", "b", check=True)
        assert "another program is still writing the replaced file" in done.stderr
        assert kept(sandbox, PARTS[0])
        sandbox.run("use", "a", check=True)
        file.write(PARTS[1])
    sandbox.run("use", "b", check=True)
    assert kept(sandbox, WHOLE)
    assert list(sandbox.root.glob(".taoprof-*")) == []


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
    stores = "the next 'use' or 'undo', or the guard, stores what it writes from now on"
    expected = [f"another program may still be writing the replaced file: {stores}"]
    assert switch.switch_profile(sandbox.context, "b").unchecked == (expected if age == 0 else [])


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some FUSE file systems: there is only a copy of the file that is replaced."""
    monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    monkeypatch.setattr(atomic, "_try_link", lambda *_: False)


@pytest.mark.usefixtures("without_links")
def test_without_hard_links_a_write_at_the_last_moment_is_stored(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace
    sandbox.mapping_file.write_bytes(PARTS[0])

    def writes_before(source: str, target: str) -> None:
        if target == sandbox.context.mapping_file:
            with sandbox.mapping_file.open("ab") as file:
                file.write(PARTS[1])
        real(source, target)

    monkeypatch.setattr(os, "replace", writes_before)
    switch.switch_profile(sandbox.context, "b")
    assert kept(sandbox, WHOLE)


@pytest.mark.usefixtures("without_links")
def test_without_hard_links_a_writer_that_does_not_end_is_lost_and_that_is_said(sandbox: Sandbox) -> None:
    with sandbox.mapping_file.open("wb", 0) as file:
        file.write(PARTS[0])
        warnings = switch.switch_profile(sandbox.context, "b").unchecked
    assert warnings == ["another program is still writing the replaced file: what it writes from now on is lost"]
    assert kept(sandbox, PARTS[0])
    assert list(sandbox.root.glob(".taoprof-*")) == []


def test_a_guard_that_is_killed_between_the_parts(sandbox: Sandbox) -> None:
    """The next guard, or the next command, finds the replaced file."""
    with GuardProcess(sandbox) as guard:
        guard.hold()
        with (sandbox.root / "fresh").open("wb", 0) as file:
            (sandbox.root / "fresh").rename(sandbox.mapping_file)
            file.write(PARTS[0])
            guard.until_logged(": restored")
            guard.process.kill()
            guard.process.wait()
            file.write(PARTS[1])
    sandbox.run("use", "a", check=True)
    assert kept(sandbox, WHOLE)
    assert list(sandbox.root.glob(".taoprof-*")) == []


def test_a_swapped_symlink_is_followed(sandbox: Sandbox) -> None:
    """The program writes into the file behind a symlink that the guard swaps back meanwhile."""
    other = sandbox.root / "other.json"
    with GuardProcess(sandbox) as guard:
        guard.hold()
        with other.open("wb", 0) as file:
            file.write(PARTS[0])
            (sandbox.root / "fresh").symlink_to("other.json")
            (sandbox.root / "fresh").rename(sandbox.mapping_file)
            guard.until_logged(": restored")
            time.sleep(0.3)
            file.write(PARTS[1])
        other.unlink()
        until(lambda: kept(sandbox, WHOLE), "it is stored", details=guard.log_text)


@pytest.fixture
def writing(sandbox: Sandbox) -> int:
    """Return a descriptor of a program that has written the first part of a file which is then replaced."""
    fd = os.open(sandbox.mapping_file, os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
    os.write(fd, PARTS[0])
    switch.switch_profile(sandbox.context, "b")
    return fd


def test_a_writer_that_ends_while_the_guard_looks(
    sandbox: Sandbox, writing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = processes.is_being_written

    def ends_just_before(fd: int) -> bool | None:
        os.write(writing, PARTS[1])
        os.close(writing)
        return real(fd)

    monkeypatch.setattr(processes, "is_being_written", ends_just_before)
    switch.recover(sandbox.context)
    assert kept(sandbox, WHOLE)


def test_without_leases_a_file_is_followed_for_a_minute_after_the_last_write(
    sandbox: Sandbox, writing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = os.fstat(writing).st_mtime
    without_leases(monkeypatch)
    for seconds in (0, 1, 30, 59):
        monkeypatch.setattr(switch.time, "time", lambda seconds=seconds: now + seconds)
        assert switch.recover(sandbox.context)[1] < switch.NEVER
    os.write(writing, PARTS[1])
    now = os.fstat(writing).st_mtime
    os.close(writing)
    assert switch.recover(sandbox.context)[0]
    assert kept(sandbox, WHOLE)
    monkeypatch.setattr(switch.time, "time", lambda: now + 70)
    assert switch.recover(sandbox.context)[1] == switch.NEVER
    assert list(sandbox.root.glob(".taoprof-*")) == []
