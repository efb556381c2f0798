"""What ``stop`` does with commands that do not end on SIGTERM: those of runs are killed, others are left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taoprofiles.holds.records import HoldRecords
from taoprofiles.runs import lookup
from tests.support.commands import CommandResult, call, one_clear_error
from tests.support.engine import until
from tests.support.sandbox import FakeEngine, Sandbox, gone, mounts_of

STUBBORN = "import os, signal as s; s.signal(s.SIGTERM, s.SIG_IGN); s.signal(s.SIGHUP, s.SIG_IGN); "
"""The beginning of a Python program that ignores SIGTERM."""


@pytest.fixture(autouse=True)
def hook(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file into which ``on_end`` writes the exit status of each run."""
    path, file = sandbox.profiles / "b.toml", sandbox.root / "hook"
    path.write_text(f"on_end = 'echo $TAOPROF_STATUS $TAOPROF_OUTCOME >>{file}'\n" + path.read_text())
    monkeypatch.setattr(lookup, "STOP_TIMEOUT", 0.3)
    return file


def start(sandbox: Sandbox, *options: str, program: str = STUBBORN) -> tuple[str, int, subprocess.Popen[str]]:
    """Start a run of a Python program; return its id, the pid of the program and the process that started the run."""
    file = sandbox.root / "pid"
    program = f"{program}print('epoch 1', flush=True); open('{file}', 'w').write(str(os.getpid())); s.pause()"
    words = ("run", "b", *options, "--", sys.executable, "-c", program)
    run = sandbox.start(sandbox.taoprof, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pid = int(until(lambda: file.exists() and file.read_text(), "the command runs"))
    (hold,) = sandbox.holds()
    return hold["id"], pid, run


def stop(sandbox: Sandbox, run: str) -> CommandResult:
    return call(sandbox, "stop", run, "--yes")


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_command_that_ignores_sigterm_is_killed(sandbox: Sandbox, hook: Path, options: tuple[str, ...]) -> None:
    run, pid, process = start(sandbox, *options)
    done = stop(sandbox, run)
    assert (done.status, done.out) == (0, f"run {run}: killed, because it was still running 0.3 s after SIGTERM\n")
    assert gone(pid)
    assert process.wait(20) == (0 if options else 137)
    waited = sandbox.run("wait", run)
    assert (waited.returncode, waited.stdout) == (137, f"{run}: exit status 137\n")
    until(hook.exists, "on_end has run")
    assert hook.read_text() == "137 failed\n"
    assert sandbox.run("logs", run).stdout == "epoch 1\n"
    assert [sandbox.holds(), list(sandbox.records.iterdir())] == [[], []]


def test_a_command_that_ends_on_sigterm_is_waited_for(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "STOP_TIMEOUT", 60)
    obedient = "import os, sys, signal as s; s.signal(s.SIGTERM, lambda *_: sys.exit(5)); "
    run, pid, process = start(sandbox, program=obedient)
    assert stop(sandbox, run).out == f"run {run}: stopped\n"
    assert (process.wait(20), gone(pid)) == (5, True), "its parent has looked at its exit status"


def test_what_a_command_leaves_behind_is_killed_too(sandbox: Sandbox, hook: Path) -> None:
    """The command itself ends on SIGTERM; its child ignores it, and writes to the results on and on."""
    child = "import subprocess; subprocess.Popen(['sleep', '1000']); s.signal(s.SIGTERM, s.SIG_DFL); "
    run, _, process = start(sandbox, program=STUBBORN + child)
    assert "killed" in stop(sandbox, run).out
    assert process.wait(20) == 143
    assert sandbox.run("wait", run).returncode == 143
    assert sandbox.holds() == []


def test_a_run_that_the_command_has_started_is_killed_too(sandbox: Sandbox, hook: Path) -> None:
    """Its own taoprof records its end, as for every run."""
    inner, ready = sandbox.root / "inner.py", sandbox.root / "ready"
    inner.write_text(f"{STUBBORN}open('{ready}', 'w').close(); s.pause()")
    words = [str(sandbox.taoprof), "run", "b", "--", sys.executable, str(inner)]
    run, _, process = start(sandbox, program=f"import os, signal as s, subprocess; subprocess.Popen({words}); ")
    until(ready.exists, "the other run's command runs")
    (other,) = {hold["id"] for hold in sandbox.holds()} - {run}
    assert stop(sandbox, run).out == f"run {run}: killed, because it was still running 0.3 s after SIGTERM\n"
    process.wait(20)
    assert sandbox.holds() == []
    assert sandbox.run("wait", other).stdout == f"{other}: exit status 137\n"


def test_a_script_whose_container_has_ended_is_stopped(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    """It may start the next one. The record has the last one until then."""
    run, pid, process = start(sandbox, program="import os, signal as s; ")
    record = HoldRecords(sandbox.context).get(run)
    record.container, record.phase = "ab" * 32, "bound"
    HoldRecords(sandbox.context).write(record)
    done = stop(sandbox, run)
    assert (done.status, done.out, gone(pid)) == (0, f"run {run}: stopped\n", True), done
    process.wait(20)


def test_a_container_that_was_being_started_is_stopped_too(
    sandbox: Sandbox, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docker command of a container that has not started yet does not end on SIGTERM."""
    run, _, process = start(sandbox)
    send, records = lookup._send_signal, HoldRecords(sandbox.context)

    def start_and_send(pids: list[int], number: signal.Signals) -> None:
        if not fake_engine.containers:
            container = fake_engine.container(1, mounts_of(sandbox, "b"), env=[f"TAOPROF_RUN={run}"])
            fake_engine.event("start", container)
            until(lambda: (record := records.get(run)) and record.container, "the run has noted its container")
        send(pids, number)

    monkeypatch.setattr(lookup, "_send_signal", start_and_send)
    done = stop(sandbox, run)
    (container,) = fake_engine.containers
    assert done.out.endswith(
        f"killed, because it was still running 0.3 s after SIGTERM, container {container[:6]} stopped\n"
    )
    assert f"/containers/{container}/stop?t=10" in fake_engine.asked
    process.wait(20)


def test_a_process_that_survives_sigkill_is_an_error(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "KILL_TIMEOUT", 0.3)
    run, pid, process = start(sandbox)
    with monkeypatch.context() as patch:
        # As if it waited for a file server; and many processes get the signal, so that the time is over meanwhile.
        patch.setattr(lookup, "_send_signal", lambda *_: time.sleep(0.4))
        done = stop(sandbox, run)
        one_clear_error(done, 1)
        assert f"run {run} is still running after SIGKILL: pid {pid}" in done.err
    assert stop(sandbox, run).status == 0
    process.wait(20)


def test_work_that_taoprofiles_did_not_start_is_not_killed(sandbox: Sandbox) -> None:
    program = sandbox.tao.read_text()
    sandbox.tao.write_text(program.replace("place =", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nplace =", 1))
    _, process = sandbox.plain()
    done = stop(sandbox, f"p{process.pid}")
    assert done.out == f"found p{process.pid}: sent SIGTERM to its processes\n"
    assert process.poll() is None


def test_a_command_that_stops_its_own_run_does_not_wait_for_itself(sandbox: Sandbox) -> None:
    script = f"trap 'exit 7' TERM; {sandbox.taoprof} stop $TAOPROF_RUN; echo goes on"
    run = sandbox.start(sandbox.taoprof, "run", "b", "--", "sh", "-c", script, stdout=subprocess.PIPE, stderr=-3)
    out, _ = run.communicate(timeout=20)
    assert (run.returncode, "sent SIGTERM to its processes" in out, "goes on" in out) == (7, True, False)
