"""The guard where the machine lets it down: it goes on as well as it can, says so, and recovers by itself."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from socket import socket

import pytest

from taoprofiles.holds import manage
from tests.support.engine import until
from tests.support.guard_process import FOREIGN, GuardProcess, is_sealed, kept, replaced
from tests.support.home import ALL, find_command, forked, require
from tests.support.sandbox import FakeEngine, Sandbox, answer, mounts_of

pytestmark = pytest.mark.skipif(not ALL, reason="takes half a minute: TAOPROF_TEST_ALL=1, as in CI")

OFTEN = {"WATCHDOG_USEC": "1000000"}
"""Half a second between two ticks."""

CLOCK = """\
import os, time
real = time.time
def shifted():
    with open(os.environ["CLOCK"]) as file:
        return real() + float(file.read() or 0)  # empty while the test writes it
time.time = shifted
"""


FAILING = """\
import os
real = os.listdir
def listdir(path="."):
    if path == "/proc" and os.path.exists(os.environ["FAIL"]):
        raise OSError(23, "Too many open files in system")
    return real(path)
os.listdir = listdir
"""


def overwrite_is_undone(sandbox: Sandbox, guard: GuardProcess, content: bytes, *, seconds: float = 30) -> None:
    """Replace the file, and wait until that is undone, stored, and the file sealed again."""
    before = sandbox.mapping_file.read_bytes()
    replaced(sandbox, content)

    def is_right() -> bool:
        return (
            kept(sandbox, content) and sandbox.mapping_file.read_bytes() == before and is_sealed(sandbox.mapping_file)
        )

    until(is_right, "it is put back, kept and sealed", seconds=seconds, details=guard.log_text)


def problem_is_reported(sandbox: Sandbox, guard: GuardProcess, text: str) -> None:
    """Check that the service manager and 'taoprof status' report a problem."""
    until(lambda: text in guard.status, f"its status has '{text}'", details=lambda: guard.status)
    until(
        lambda: text in (problem(sandbox) or ""), f"taoprof status has '{text}'", details=lambda: str(problem(sandbox))
    )
    assert text in sandbox.run("status").stdout


def problem_is_gone(sandbox: Sandbox, guard: GuardProcess, text: str) -> None:
    until(lambda: text not in guard.status, f"its status has no '{text}'", details=lambda: guard.status)
    until(lambda: not problem(sandbox), "taoprof status has no problem", details=lambda: str(problem(sandbox)))


def problem(sandbox: Sandbox) -> str | None:
    text: str | None = sandbox.json("status")["data"]["guard"]["problem"]
    return text


def ends_soon(guard: GuardProcess) -> None:
    begun = time.monotonic()
    guard.process.terminate()
    assert guard.process.wait(10) == 0
    assert time.monotonic() - begun < 5


def with_own_mounts(folder: Path, act: Callable[[Sandbox], None]) -> None:
    """Do it in a process of its own that may mount what it likes, on a home that is a small file system in memory."""
    require(os.geteuid() == 0, "only root may mount")

    def mount_and_act() -> int:
        private = ctypes.CDLL(None, use_errno=True).unshare(0x20000)  # CLONE_NEWNS
        assert private == 0, os.strerror(ctypes.get_errno())
        mount("--make-rprivate", "/")
        with Sandbox(folder) as sandbox:
            mount("-t", "tmpfs", "-o", "size=400k", "none", sandbox.root)
            act(sandbox.profiles_named("a", "b"))
        return 0

    done = forked(mount_and_act, dict(os.environ), folder)
    assert done.returncode == 0, done.stderr.decode()


def mount(*words: str | Path) -> None:
    subprocess.run([find_command("mount"), *words], check=True)


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_without_watches_it_looks_often(sandbox: Sandbox, limit: str) -> None:
    """Missing watches are reported once, cost nothing more at each retry, and are used when there are some."""
    path = f"/proc/sys/user/{limit}"
    apart = (find_command("unshare"), "--user", "--map-root-user")
    require(subprocess.run([*apart, "true"], check=False).returncode == 0, "no user namespaces here")
    with GuardProcess(
        sandbox, environ=OFTEN, prefix=(*apart, "sh", "-c", f'echo 0 > {path}; exec "$@"', "sh")
    ) as guard:
        guard.until_logged("inotify is not available")
        problem_is_reported(sandbox, guard, "polling without watches")
        guard.hold()
        overwrite_is_undone(sandbox, guard, FOREIGN)
        first = open_files_and_threads(guard)
        for number in range(5):
            wait_for_look(guard)
            overwrite_is_undone(sandbox, guard, b"foreign %d" % number) if number < 3 else None
        assert guard.log_text().count("inotify is not available") == 1
        until(lambda: open_files_and_threads(guard) <= first, "nothing piles up")
        target = ("--user", "--target", str(guard.process.pid))
        enter = [find_command("nsenter"), *target, "sh", "-c", f"echo 500 > {path}"]
        subprocess.run(enter, check=True)
        guard.until_logged("inotify is available again")
        problem_is_gone(sandbox, guard, "without watches")
        overwrite_is_undone(sandbox, guard, b"seen by a watch")


def open_files_and_threads(guard: GuardProcess) -> tuple[int, int]:
    folder = Path(f"/proc/{guard.process.pid}")
    return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))


def wait_for_look(guard: GuardProcess) -> None:
    before = guard.known()["looked"]
    until(lambda: guard.known()["looked"] > before, "it looks again")


def test_a_full_disk(tmp_path: Path) -> None:
    """An overwrite that cannot be stored is not undone, so that it is not lost; both happen when there is room."""

    def act(sandbox: Sandbox) -> None:
        before = sandbox.mapping_file.read_bytes()
        with GuardProcess(sandbox) as guard:
            guard.hold()
            filler = sandbox.root / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(b"x" * 4096)
            sandbox.mapping_file.write_bytes(FOREIGN)  # in the room that the mapping had
            guard.until_logged("no space left on device")
            problem_is_reported(sandbox, guard, "no space left on device")
            assert sandbox.mapping_file.read_bytes() == FOREIGN
            filler.unlink()
            until(lambda: sandbox.mapping_file.read_bytes() == before, "it is put back", details=guard.log_text)
            assert kept(sandbox, FOREIGN)
            guard.until_sealed()
            problem_is_gone(sandbox, guard, "no space left on device")

    with_own_mounts(tmp_path, act)


def test_a_home_that_is_read_only_for_a_while(tmp_path: Path) -> None:
    """Problems are reported; files are written when that is possible again."""

    def act(sandbox: Sandbox) -> None:
        before = sandbox.mapping_file.read_bytes()
        still = tmp_path / "still-writable"
        still.mkdir()
        mount("--bind", sandbox.root, still)
        with GuardProcess(sandbox) as guard:
            guard.hold()
            mount("--bind", sandbox.root, sandbox.root)
            read_only = [find_command("mount"), "-o", "remount,bind,ro", sandbox.root]
            until(lambda: subprocess.run(read_only).returncode == 0, "the guard has no file open for writing")
            (still / ".tao_mounts.json").write_bytes(FOREIGN)
            guard.until_logged("read-only file system")
            until(lambda: "read-only file system" in guard.status, "its status has it", details=lambda: guard.status)
            assert sandbox.run("status").returncode == 0
            assert sandbox.mapping_file.read_bytes() == FOREIGN
            subprocess.run([find_command("umount"), sandbox.root], check=True)
            until(lambda: sandbox.mapping_file.read_bytes() == before, "it is put back", details=guard.log_text)
            assert kept(sandbox, FOREIGN)
            problem_is_gone(sandbox, guard, "read-only file system")
            overwrite_is_undone(sandbox, guard, b"afterwards")

    with_own_mounts(tmp_path, act)


def test_a_search_for_processes_that_fails(sandbox: Sandbox) -> None:
    """As with a full table of open files: it is reported and repeated, and the guard stays."""
    fail = sandbox.folder / "fail"
    (sandbox.folder / "sitecustomize.py").write_text(FAILING)
    with GuardProcess(sandbox, environ={"PYTHONPATH": str(sandbox.folder), "FAIL": str(fail), **OFTEN}) as guard:
        guard.hold()
        fail.touch()
        sandbox.mapping_file.read_bytes()  # a launcher may have started
        guard.until_logged("too many open files")
        until(lambda: "too many open files" in guard.status, "its status has it", details=lambda: guard.status)
        guard.wait_for_loops(3)
        assert guard.log_text().count("too many open files") == 1
        fail.unlink()
        problem_is_gone(sandbox, guard, "too many open files")
        overwrite_is_undone(sandbox, guard, FOREIGN)


def test_more_processes_than_descriptors(sandbox: Sandbox) -> None:
    """Each of 40 holds ends with a process, and the guard may have 64 descriptors."""
    sleeping = [sandbox.start("sleep", "1000") for _ in range(40)]
    for process in sleeping:
        manage.hold(sandbox.context, None, reason="a test", pid=process.pid)
    with GuardProcess(sandbox, environ=OFTEN, prefix=(find_command("prlimit"), "--nofile=64")) as guard:
        guard.until_sealed()
        overwrite_is_undone(sandbox, guard, FOREIGN)
        assert open_files_and_threads(guard)[0] < 40
        for process in sleeping:
            process.kill()
            process.wait()
        guard.until_unsealed()


@pytest.mark.parametrize("folder", ["root", "state"])
def test_the_guard_stops_when_its_home_is_moved_away(sandbox: Sandbox, folder: str) -> None:
    """It makes nothing at the old place; the service manager starts it again, and it goes on when the home is back."""
    with GuardProcess(sandbox, environ=OFTEN) as guard:
        guard.hold()
        path = getattr(sandbox, folder)
        path.rename(sandbox.folder / "away")
        assert guard.process.wait(10) != 0
        guard.until_logged("moved, deleted or unmounted")
        assert not path.exists()
        if folder == "state":  # the holds are gone with it
            assert sandbox.mapping_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("shift", [3600, -3600])
def test_clock_change_does_not_end_a_hold(sandbox: Sandbox, shift: int) -> None:
    """A hold lasts as long as was said, by the time that passes; and no clock makes the guard look without end."""
    clock = sandbox.folder / "clock"
    clock.write_text("0")
    (sandbox.folder / "sitecustomize.py").write_text(CLOCK)
    environ = {"PYTHONPATH": str(sandbox.folder), "CLOCK": str(clock)}
    with GuardProcess(sandbox, environ=environ) as guard:
        begun = time.monotonic()
        guard.hold(seconds=3)
        clock.write_text(str(shift))
        overwrite_is_undone(sandbox, guard, FOREIGN)
        looks, before = set(), time.monotonic()
        while time.monotonic() < before + 1:
            looks.add(guard.known()["looked"])
            time.sleep(0.005)
        assert is_sealed(sandbox.mapping_file)
        assert len(looks) < 8
        guard.until_unsealed()
        assert time.monotonic() - begun > 2.9


def test_a_suspended_guard_makes_up_for_it(sandbox: Sandbox) -> None:
    """Also if more happens meanwhile than the kernel has room for."""
    before, other = sandbox.mapping_file.read_bytes(), sandbox.root / "other"
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    require(room <= 1 << 20, "the kernel's queue is too long to be filled")
    other.touch()
    with GuardProcess(sandbox) as guard:
        guard.hold()
        wait_until_idle(guard)
        guard.process.send_signal(signal.SIGSTOP)
        for _ in range(room // 2 + 10):  # each other one: the kernel makes one of two that are the same
            os.utime(other)
            os.utime(sandbox.root / ".config/taoprofiles/profiles/a.toml")
            os.utime(sandbox.mapping_file)
        replaced(sandbox)
        guard.process.send_signal(signal.SIGCONT)
        until(lambda: sandbox.mapping_file.read_bytes() == before, "it is put back", details=guard.log_text)
        assert kept(sandbox, FOREIGN)
        overwrite_is_undone(sandbox, guard, b"afterwards")


def wait_until_idle(guard: GuardProcess) -> None:
    """Wait until it has not looked for a while: then it is not in the middle of anything."""
    until(lambda: time.time() - guard.known()["looked"] > 0.3, "it is idle")


def hangs(engine: FakeEngine) -> Callable[[socket], None]:
    return lambda _: engine.over.wait(20) and None


def refuses(_: FakeEngine) -> Callable[[socket], None]:
    return lambda connection: answer(connection, {"message": "no"}, status="500 Internal Server Error")


@pytest.mark.parametrize(("how", "message"), [(hangs, "no response within"), (refuses, "HTTP status 500")])
def test_an_engine_that_is_of_no_use_hinders_nothing(
    sandbox: Sandbox, how: Callable[[FakeEngine], Callable[[socket], None]], message: str
) -> None:
    """Nobody waits for it: restores are as fast as ever, and so is the end."""
    with FakeEngine(sandbox.folder) as engine:
        engine.rules[""] = how(engine)
        with GuardProcess(sandbox, environ=engine.environ) as guard:
            guard.until_logged(message)
            guard.hold()
            for number in range(3):
                overwrite_is_undone(sandbox, guard, b"foreign %d" % number)
            assert sandbox.run("status", environ=engine.environ).returncode == 0
            ends_soon(guard)
        assert not is_sealed(sandbox.mapping_file)
        engine.over.set()


def test_it_ends_at_once_while_it_begins(sandbox: Sandbox) -> None:
    """Also if the engine that it asks first does not answer."""
    with FakeEngine(sandbox.folder) as engine:
        engine.rules[""] = hangs(engine)
        guard = GuardProcess(sandbox, environ=engine.environ)
        try:
            until(lambda: engine.asked, "it asks the engine")
            ends_soon(guard)
        finally:
            guard.__exit__()
            engine.over.set()


def test_an_engine_that_comes_late_goes_away_and_returns(sandbox: Sandbox) -> None:
    """A container that was there holds while it is there to be seen; what happened meanwhile is found out."""
    address = {"DOCKER_HOST": f"unix://{sandbox.folder}/engine-0"}
    with GuardProcess(sandbox, environ=address) as guard:
        assert not is_sealed(sandbox.mapping_file)
        with FakeEngine(sandbox.folder) as engine:
            engine.container(1, mounts_of(sandbox, "a"))
            guard.until_sealed()
            overwrite_is_undone(sandbox, guard, FOREIGN)
        overwrite_is_undone(sandbox, guard, b"without an engine") if is_sealed(sandbox.mapping_file) else None
        engine.path.unlink()
        with FakeEngine(sandbox.folder) as engine:
            number = engine.container(2, mounts_of(sandbox, "a"))
            guard.until_sealed()
            overwrite_is_undone(sandbox, guard, b"afterwards")
            del engine.containers[number]
            engine.event("die", number)
            guard.until_unsealed()
