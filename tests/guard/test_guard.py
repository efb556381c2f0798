"""The guard as a process: it seals what is held, undoes what others write, and keeps everything that they wrote."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.guard.daemon import Daemon
from taoprofiles.guard.guard import Guard, Options, RateLimiter, should_seal
from taoprofiles.guard.watcher import MappingWatcher
from taoprofiles.holds import manage
from taoprofiles.holds.hold import Hold, blocking_holds
from taoprofiles.storage.journal import History
from taoprofiles.storage.paths import Context
from taoprofiles.switching.switch import NEVER
from tests.support.commands import call
from tests.support.engine import until
from tests.support.guard_process import FOREIGN, GuardProcess, held, is_sealed, kept, replaced
from tests.support.home import Home, find_command
from tests.support.sandbox import Sandbox, kill


def test_sealed_while_held_and_for_no_moment_longer(sandbox: Sandbox) -> None:
    sandbox.mapping_file.chmod(0o640)
    assert sandbox.json("status")["data"]["guard"] is None
    assert "guard         not running. To protect the file: taoprof service install" in sandbox.run("status").stdout
    with GuardProcess(sandbox) as guard:
        assert sandbox.mapping_file.stat().st_mode & 0o777 == 0o640
        hold = guard.hold()
        assert sandbox.mapping_file.stat().st_mode & 0o777 == 0o440
        until(lambda: "watching 'a': in use and read-only: a test" in guard.status, "it tells who holds")
        assert re.search(r", since \d\d:\d\d, ", guard.status), "not for how long: it is shown until the next look"
        status = sandbox.json("status")["data"]["guard"]
        assert (status["pid"], status["is_sealed"], status["problem"]) == (guard.process.pid, True, None)
        manage.release(sandbox.context, hold)
        guard.until_unsealed()
        assert sandbox.mapping_file.stat().st_mode & 0o777 == 0o640
        until(lambda: guard.status == "watching 'a': not in use", "it tells that nothing holds")


def test_a_run_that_could_not_start_is_in_no_history(sandbox: Sandbox) -> None:
    """A guard ends the hold of a dead run at once: the record goes before the lock that proves the run alive."""
    with GuardProcess(sandbox):
        for options in ((), ("--detach",)) * 3:
            refused = sandbox.run("run", "a", *options, "--", "no-such-command")
            assert (refused.returncode, "command not found" in refused.stderr) == (127, True)
    assert "no-such-command" not in sandbox.run("history").stdout


@pytest.fixture
def manager(sandbox: Sandbox) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(sandbox.root.parent / "notify"))
        yield manager


@pytest.fixture
def daemon(sandbox: Sandbox, manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A guard in this process, which watches no folders."""
    monkeypatch.setattr(logging.getLogger("taoprofiles.guard"), "handlers", [])
    daemon = Daemon(Context({**sandbox.environ, "NOTIFY_SOCKET": manager.getsockname()}), Options())
    monkeypatch.setattr(daemon._watcher, "arm", lambda: None)
    yield daemon
    signal.set_wakeup_fd(-1)
    daemon._guard.end()


def test_the_end_of_work_during_a_check_causes_one_more_check(
    sandbox: Sandbox, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check has just found it active, so that nothing else would say that it ended until the next tick."""
    tao, process = sandbox.plain()
    check, checks = Guard.check, []

    def check_and_end(guard: Guard, *words: object) -> None:
        check(guard, *words)  # type: ignore[arg-type]
        checks.append(len(guard.holds))
        tao.end()
        process.wait(10)

    monkeypatch.setattr(Guard, "check", check_and_end)
    daemon._step({"changed"})
    events = daemon._wait()
    assert "ended" in events
    daemon._step(events)
    assert "ended" not in daemon._queue.take()
    assert checks == [1, 0]


def test_a_status_that_a_busy_manager_did_not_receive_is_sent_again(
    daemon: Daemon, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue has few entries, and many events fill it: the status would be wrong until the next tick."""
    check, checks = Guard.check, []
    monkeypatch.setattr(Guard, "check", lambda *words: checks.append(check(*words)))
    while daemon._notifier.notify(WATCHDOG="1"):
        pass
    daemon._step({"changed"})
    with pytest.raises(BlockingIOError):
        while message := manager.recv(100):
            assert message == b"WATCHDOG=1"
    daemon._step(daemon._wait())
    assert manager.recv(100).endswith(b"STATUS=watching 'a': not in use")
    assert len(checks) == 1, "no tick was needed"
    assert daemon._next_report == NEVER


def test_it_watches_the_file_to_which_the_mapping_file_leads_now(sandbox: Sandbox) -> None:
    """Also if that is in the same folder as before: else a change of it would be seen at the next tick."""
    for name in ("one", "other"):
        (sandbox.root / name).write_bytes(sandbox.mapping_file.read_bytes())
    watcher = MappingWatcher(sandbox.context, mock.Mock())
    try:
        for name in ("one", "other"):
            sandbox.mapping_file.unlink()
            sandbox.mapping_file.symlink_to(name)
            assert not watcher.is_current()
            watcher.arm()
            assert watcher.is_current()
    finally:
        watcher._disarm()


@pytest.mark.parametrize("who", ["plain", "run --shared"])
def test_it_sees_a_launcher_start_and_end(sandbox: Sandbox, who: str) -> None:
    """A run with a mounts file of its own seals nothing."""
    with GuardProcess(sandbox) as guard:
        own, own_process = sandbox.in_run("b")
        line = "watching 'a': not in use; 1 run has its own mounts file"
        until(lambda: guard.status == line, "it has seen the run", details=lambda: guard.status)
        assert not is_sealed(sandbox.mapping_file)
        own.end()
        own_process.wait(20)
        tao, process = sandbox.plain() if who == "plain" else sandbox.in_run("a", "--shared")
        if who == "plain":
            tao.reads()  # no watch tells that a process starts; that it opens the file does
        guard.until_sealed()
        tao.end()
        guard.until_unsealed()
        process.wait(20)


def test_a_foreign_write_while_held_is_undone_stored_and_reported(sandbox: Sandbox) -> None:
    before = sandbox.mapping_file.read_bytes()
    with GuardProcess(sandbox) as guard:
        hold = guard.hold()
        replaced(sandbox)
        guard.until_logged(": restored")
        assert sandbox.mapping_file.read_bytes() == before
        assert kept(sandbox, FOREIGN)
        guard.until_sealed()
        assert "guard" not in sandbox.run("current").stderr, "it is in a prompt"
        listed = sandbox.run("list").stderr
        assert "taoprof: guard: " in listed and ": restored" in listed
        assert sandbox.run("list").stderr == "", "it is said once"
        entries = sandbox.json("history")["data"]["entries"]
        assert [entry["action"] for entry in entries[:2]] == ["restore", "found"]
        manage.release(sandbox.context, hold)
        sandbox.run("undo", guard.log_text().split("taoprof undo ")[1].split()[0], check=True)
        assert sandbox.mapping_file.read_bytes() == FOREIGN
    assert sandbox.mapping_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("is_before_its_start", [False, True])
def test_a_foreign_write_while_free_is_kept_and_stays(sandbox: Sandbox, is_before_its_start: bool) -> None:
    if is_before_its_start:
        replaced(sandbox)
    with GuardProcess(sandbox) as guard:
        if not is_before_its_start:
            replaced(sandbox)
        guard.until_logged("while it was not in use")
        assert sandbox.mapping_file.read_bytes() == FOREIGN
        assert kept(sandbox, FOREIGN)
        assert sandbox.json("current")["data"]["state"] == "unmanaged"
        sandbox.run("use", "b", check=True)
        until(lambda: guard.status == "watching 'b': not in use", "it follows the switch")


LIMITS = {
    (): (5, "it was overwritten more than 5 times in a minute"),
    ("--restores", "0"): (0, "the guard runs with --restores 0"),
}


@pytest.mark.parametrize("options", LIMITS, ids=" ".join)
@pytest.mark.parametrize("what", ["other contents", "the same content", "removals"])
def test_never_more_than_the_limit_in_a_minute(sandbox: Sandbox, options: tuple[str, ...], what: str) -> None:
    before, (limit, why) = sandbox.mapping_file.read_bytes(), LIMITS[options]
    content = None if what == "removals" else FOREIGN
    with GuardProcess(sandbox, options=options) as guard:
        guard.hold()
        for number in range(1, limit + 3):
            if content is None:
                sandbox.mapping_file.unlink(missing_ok=True)
            else:
                content = b'{"Mounts": [], "number": %d}' % number if what == "other contents" else content
                replaced(sandbox, content)
                until(lambda content=content: kept(sandbox, content), "it is kept", details=guard.log_text)
            if number <= limit:  # two writes during one restore would count as one overwrite
                until(lambda number=number: guard.log_text().count(": restored") == number, "it is restored")
                assert sandbox.mapping_file.read_bytes() == before
        guard.until_logged(f"not restored, because {why}")
        assert guard.log_text().count(": restored") == limit
        assert sandbox.content() == content
        assert content is None or not is_sealed(sandbox.mapping_file), "what nobody needs is not sealed"


def test_sigterm_unseals_and_ends_soon(sandbox: Sandbox) -> None:
    with GuardProcess(sandbox) as guard:
        guard.hold()
        begun = time.monotonic()
        guard.process.terminate()
        assert guard.process.wait(10) == 0
        assert time.monotonic() - begun < 5
        assert not is_sealed(sandbox.mapping_file)
        assert guard.has_notified("STOPPING=1")


@pytest.mark.parametrize("mender", ["list", "current", "taoprofd --unseal", "a new guard"])
def test_a_killed_guard_leaves_nothing_sealed_for_good(sandbox: Sandbox, mender: str) -> None:
    with GuardProcess(sandbox) as guard:
        hold = guard.hold()
        kill(guard.process.pid)
        guard.process.wait()
    assert is_sealed(sandbox.mapping_file)
    if mender == "a new guard":
        manage.release(sandbox.context, hold)
        with GuardProcess(sandbox):
            assert not is_sealed(sandbox.mapping_file)
    else:
        program = find_command("taoprofd" if mender.startswith("taoprofd") else "taoprof")
        subprocess.run([program, mender.split()[-1]], env=sandbox.environ, check=True)
    assert sandbox.mapping_file.stat().st_mode & 0o777 == 0o600


def test_a_restore_that_was_interrupted_is_made_good(sandbox: Sandbox) -> None:
    """The lines of a restore are in the history, and its guard was killed before it had replaced the file."""
    before, history = sandbox.mapping_file.read_bytes(), History(sandbox.context)
    held(sandbox)
    replaced(sandbox)
    digests = history.store_content(before), history.store_content(FOREIGN)
    about = {"target": "mapping", "before": digests[0], "after": digests[1], "profile": None}
    back = {"target": "mapping", "before": digests[1], "after": digests[0], "profile": "a"}
    history._append([{"action": "found", **about}, {"action": "restore", **back}], done=False)
    with GuardProcess(sandbox) as guard:
        until(lambda: sandbox.mapping_file.read_bytes() == before, "it is put back", details=guard.log_text)
        assert sandbox.run("current").stdout == "a\n"


def test_a_switch_is_not_hindered_by_the_seal(sandbox: Sandbox) -> None:
    """A hold that was let go of, or that needs the same mapping, does not forbid; the file's mode stays what it was."""
    with GuardProcess(sandbox) as guard:
        hold = guard.hold()
        sandbox.run("use", "b", "--release", hold, check=True)
        until(lambda: guard.status == "watching 'b': not in use", "it follows")
        assert sandbox.mapping_file.stat().st_mode & 0o777 == 0o600


def test_one_guard_at_a_time(sandbox: Sandbox) -> None:
    with GuardProcess(sandbox) as guard:
        second = subprocess.run(
            [find_command("taoprofd")], env=sandbox.environ, capture_output=True, text=True, timeout=20, check=False
        )
        assert second.returncode == 8
        assert f"pid {guard.process.pid}" in second.stderr


def test_it_can_be_told_not_to_seal(sandbox: Sandbox) -> None:
    before = sandbox.mapping_file.read_bytes()
    with GuardProcess(sandbox, options=("--no-seal",)) as guard:
        held(sandbox)
        until(lambda: "in use: a test" in guard.status, "it sees the hold", details=lambda: guard.status)
        assert not is_sealed(sandbox.mapping_file)
        replaced(sandbox)
        guard.until_logged(": restored")
        assert sandbox.mapping_file.read_bytes() == before


def test_a_plain_launcher_that_waits_for_its_image_finds_the_mapping_that_it_started_with(sandbox: Sandbox) -> None:
    """The trap: a notebook overwrites the file while another one's image is pulled, and its launcher reads it after."""
    before = sandbox.mapping_file.read_text()
    with GuardProcess(sandbox) as guard:
        tao, process = sandbox.plain()
        sandbox.mapping_file.read_bytes()  # the hint: somebody opens the file
        guard.until_sealed()
        with pytest.raises(PermissionError) if os.geteuid() else pytest.MonkeyPatch.context():
            sandbox.mapping_file.write_bytes(FOREIGN)
        until(lambda: sandbox.mapping_file.read_text() == before, "the mapping is back", details=guard.log_text)
        assert tao.reads() == before
        tao.end()
        process.wait(20)


@pytest.mark.parametrize("systemctl", ["echo LoadState=not-found; echo ActiveState=inactive", None])
def test_a_guard_without_systemd_can_be_stopped_and_its_log_read(home: Home, systemctl: str | None) -> None:
    programs = home.root / "bin"
    programs.mkdir()
    for name, script in {"systemctl": systemctl, "journalctl": systemctl and "true"}.items():
        if script is not None:
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
    environ = {"PATH": str(programs)}
    assert "the guard has logged nothing" in call(home, "service", "logs", environ=environ).err
    (home.root / ".taoprofd.log").write_text("first\nlast\n")
    assert call(home, "service", "logs", environ=environ).out == "first\nlast\n"
    with GuardProcess(home) as guard:
        for action in ("stop", "uninstall"):
            done = call(home, "service", action, environ=environ)
            assert done.err.endswith(f"to stop the guard that was started without systemd: kill {guard.process.pid}\n")


# Properties of its decisions

HOLDS = st.lists(
    st.builds(Hold, shared=st.booleans(), released=st.booleans(), digest=st.sampled_from(["here", "other"])), max_size=5
)


@given(HOLDS)
def test_sealed_is_what_somebody_needs_and_nobody_needs_otherwise(holds: list[Hold]) -> None:
    needing = [hold for hold in holds if hold.shared and not hold.released]
    assert should_seal(holds, "here") == (bool(needing) and all(hold.digest == "here" for hold in needing))
    assert not (should_seal(holds, "here") and blocking_holds(holds, "here"))


@given(st.integers(0, 10), st.lists(st.floats(0, 30), max_size=100))
def test_never_more_than_the_limit_in_any_minute(times: int, gaps: list[float]) -> None:
    limit, now, tried, allowed = RateLimiter(times), 0.0, [], []
    for gap in gaps:
        now += gap
        granted = limit.allows(now)
        assert granted == (sum(now - moment < 60 for moment in tried) < times)
        limit.count(now)
        tried.append(now)
        allowed += [now] if granted else []
        assert sum(now - moment < 60 for moment in allowed) <= times
