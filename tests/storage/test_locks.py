"""The one lock: ours and filelock's are the same, whoever waits is told for whom, and a dead holder holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

import taoprofiles
from taoprofiles.errors import BusyError, TaoprofError
from taoprofiles.storage import locks
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock, _is_waited_for
from taoprofiles.switching import switch
from tests.support.commands import call
from tests.support.engine import until
from tests.support.home import Home

HOLDERS = {
    "ours": "from taoprofiles.storage.locks import Lock as L",
    "filelock": "from filelock import FileLock as L",
    "ours, after waiting": "from taoprofiles.storage.locks import Lock as L; L.try_acquire = lambda self: False",
}


@contextmanager
def held(path: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock in another process, until the end of the block or of the process."""
    script = f"import sys\n{HOLDERS[how]}\nwith L(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("holder", list(HOLDERS))
def test_excluded(home: Home, holder: str) -> None:
    path = home.state / "lock"
    with held(path, holder) as process:
        assert not Lock(str(path)).try_acquire()
        named = None if holder == "filelock" else f"pid {process.pid} on "
        with pytest.raises(BusyError, match=named), Lock(str(path), 0.05):
            raise AssertionError("two hold the lock")
        with pytest.raises(Timeout), FileLock(path, timeout=0.05):
            raise AssertionError("two hold the lock")
    with Lock(str(path), 5), pytest.raises(Timeout), FileLock(path, timeout=0.05):
        raise AssertionError("two hold the lock")


@pytest.mark.parametrize("holder", ["ours", "filelock"])
def test_waiter_gets_it_from_a_dead_holder(home: Home, holder: str) -> None:
    """The holder is killed while we wait: the kernel gives the lock to us."""
    home.profile("a")
    with held(home.state / "lock", holder) as process:
        words = [home.taoprof, "use", "a"]
        with subprocess.Popen(words, env=home.environ, stdout=subprocess.PIPE, text=True) as waiter:
            until(lambda: _has_open(waiter.pid, home.state / "lock"), "somebody waits for the lock")
            assert waiter.poll() is None
            process.kill()
            out, _ = waiter.communicate(timeout=30)
    assert (waiter.returncode, out) == (0, "switched to 'a'\n")


def test_busy_names_the_holder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.profile("a")
    defaults = switch.switch_profile.__kwdefaults__
    assert defaults["timeout"] == DEFAULT_TIMEOUT == 10
    monkeypatch.setitem(defaults, "timeout", 0.5)
    with held(home.state / "lock", "ours") as process:
        began = time.monotonic()
        done = call(home, "use", "a", "--json")
        assert time.monotonic() - began >= 0.5
        assert done.status == 7
        error = done.envelope["error"]
        assert (error["code"], error["status"]) == ("busy", 7)
        assert f"pid {process.pid} on {os.uname().nodename}" in error["message"]
        assert "has held it for 0.5 s" in error["message"]
        assert not home.mapping_file.exists()
        assert home.run("list").returncode == home.run("current").returncode == 0, "looking needs no lock"
    home.run("use", "a", check=True)


def test_a_program_that_switches_in_a_loop_does_not_starve_those_that_wait(tmp_path: Path) -> None:
    """It releases and acquires the lock without a pause, which is faster than any program that looks now and then."""
    lock = Lock(str(tmp_path / "lock"))
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        stack.enter_context(lock)
        waiter = pool.submit(_taken, str(tmp_path / "lock"))
        until(lambda: _is_waited_for(os.stat(tmp_path / "lock")), "somebody waits for the lock")
        lock.release()
        turns = 0
        while not waiter.done():
            with lock:
                turns += 1
        assert turns < 50, "as often as it looks itself"


def test_a_waiting_command_goes_on_waiting_while_others_get_the_lock(tmp_path: Path) -> None:
    """However many are before it: only a holder that keeps the lock for the whole timeout is an error."""
    path = tmp_path / "lock"
    with held(path, "ours"):
        lock = Lock(str(path), timeout=3 * locks._PAUSE)
        for pid in range(4):
            path.write_text(f"pid {pid} on another host\n")
            for _ in range(3):
                lock._check_timeout()
        with pytest.raises(BusyError, match="pid 3 on another host"), lock:
            raise AssertionError("two hold the lock")


def test_api_raises_busy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.profile("a")
    monkeypatch.setenv("HOME", str(home.root))
    for name in ("TAOPROF_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with held(home.state / "lock", "ours"), pytest.raises(taoprofiles.BusyError):
        taoprofiles.switch("a", timeout=0.05)
    assert taoprofiles.switch("a").changed


def test_reading_waits_for_nobody(home: Home) -> None:
    home.profiles_named("a")
    with held(home.state / "lock", "ours"):
        for line in ("list", "current", "status", "history", "show a"):
            home.run(*line.split(), check=True)  # whoever waits for the lock ends with status 7


def test_lock_note_is_overwritten(home: Home) -> None:
    path = home.state / "lock"
    path.parent.mkdir(parents=True)
    path.write_text("pid 4194304 on a-host-with-a-very-long-name.example.org and more of the same\n")
    with Lock(str(path)):
        assert path.read_text().strip() == f"pid {os.getpid()} on {os.uname().nodename}"


def test_lock_whose_file_was_removed_excludes_nobody(home: Home) -> None:
    """The state folder is removed while a lock is held: the next one makes its own, and is not fooled by the old."""
    path = home.state / "lock"
    with Lock(str(path)):
        path.unlink()
        with Lock(str(path), 0.5):
            assert not Lock(str(path)).try_acquire()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_lock_whose_file_goes_away_while_we_wait_is_not_waited_for(home: Home, is_there: bool) -> None:
    """The state folder is deleted, or another is in its place: what its lock's holder does is in nobody's way."""
    path = home.state / "lock"
    with held(path, "ours"), ThreadPoolExecutor() as pool:
        waiter = pool.submit(_taken, str(path))
        until(lambda: _has_open(os.getpid(), path), "somebody waits for the lock")
        home.state.rename(home.root / "deleted")
        if is_there:
            home.state.mkdir(exist_ok=True)
        assert waiter.result(5)


def _taken(path: str) -> bool:
    with Lock(path, 30):
        return True


def test_lock_that_is_a_link_is_not_followed(home: Home, tmp_path: Path) -> None:
    home.profile("a")
    target = tmp_path / "precious"
    target.write_text("precious")
    home.state.mkdir(parents=True)
    (home.state / "lock").symlink_to(target)
    done = home.run("use", "a")
    assert done.returncode in (1, 3)
    assert done.stderr.startswith("taoprof: error: cannot open the lock ")
    assert target.read_text() == "precious"


def _has_open(pid: int, path: Path) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == str(path) for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def test_the_time_for_which_a_process_is_stopped_does_not_count(tmp_path: Path) -> None:
    """Ctrl-Z, a suspended laptop, a frozen virtual machine: the holder has released the lock, or stood still too."""
    script = "import sys; from taoprofiles.storage.locks import Lock\nwith Lock(sys.argv[1], 0.5): print('held')"
    with held(tmp_path / "lock", "ours") as holder:
        words = [sys.executable, "-c", script, str(tmp_path / "lock")]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as waiter:
            until(lambda: _has_open(waiter.pid, tmp_path / "lock"), "it waits for the lock")
            waiter.send_signal(signal.SIGSTOP)
            time.sleep(0.6)
            holder.kill()
            waiter.send_signal(signal.SIGCONT)
            assert waiter.communicate(timeout=30)[0] == "held\n"


def test_a_folder_that_cannot_be_listed_does_not_prove_that_no_guard_is_alive(tmp_path: Path) -> None:
    assert not locks.any_held(str(tmp_path / "absent"))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TaoprofError):
        locks.any_held(str(tmp_path / "loop"))
