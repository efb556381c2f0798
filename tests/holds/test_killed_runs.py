"""How a run ended whose own process was killed: what its engine still knows, asked by whoever ends its record."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import Any

import pytest

from taoprofiles.holds.hold import Hold, new_hold
from taoprofiles.holds.records import HoldRecords
from taoprofiles.system import processes
from tests.support.engine import until
from tests.support.guard_process import GuardProcess
from tests.support.sandbox import FakeEngine, Sandbox, mounts_of

SINCE = time.time() - 1000
TASK = "a" * 64
Event = tuple[str, dict[str, str]]


def killed_run(sandbox: Sandbox, **fields: Any) -> Hold:
    """Record a run of which no process is left."""
    start = {
        "task": None,
        "pid": 1,
        "start": 1,
        "since": SINCE,
        "profile": "a",
        "engine": sandbox.environ["DOCKER_HOST"],
    }
    hold = new_hold(sandbox.context, "run", **{**start, **fields})
    os.close(HoldRecords(sandbox.context).create(hold))
    return hold


def tell(engine: FakeEngine, container: str, *events: Event, ago: float = 100) -> int:
    """Let events happen that many seconds ago, and return the time stamp of the last one."""
    for number, (action, attributes) in enumerate(events, 1):
        stamp = time.time_ns() - int(ago * 1e9) + number
        engine.event(action, container, stamp=stamp, **attributes)
    return stamp


def ended(sandbox: Sandbox, run: Hold) -> Hold | None:
    """Return the run as it was recorded at its end, None while it is active."""
    if run.id in [hold["id"] for hold in sandbox.holds()]:
        return None
    (recorded,) = [ended for ended in HoldRecords(sandbox.context).ended_runs() if ended.id == run.id]
    return recorded


START: Event = ("start", {})
EXEC: Event = ("exec_start: dino train", {"execID": TASK})
OTHER: list[Event] = [("exec_start: bash", {"execID": "bb"}), ("exec_die", {"execID": "bb", "exitCode": "2"})]
ENDS: dict[str, tuple[list[Event], int | None]] = {
    "its task ended": ([START, EXEC, ("exec_die", {"execID": TASK, "exitCode": "3"}), ("die", {"exitCode": "137"})], 3),
    "somebody looked into it": ([START, EXEC, *OTHER, ("exec_die", {"execID": TASK, "exitCode": "0"}), ("die", {})], 0),
    "its task did not start": ([START, ("die", {"exitCode": "0"})], None),
    "the first events are lost": ([*OTHER, ("exec_die", {"execID": TASK, "exitCode": "9"}), ("die", {})], 9),
    "all events are lost": ([], None),
    "of a container without the launcher": ([START, *OTHER, ("die", {"exitCode": "4"}), ("destroy", {})], 4),
}
TASKS = {"the first events are lost": TASK, "all events are lost": TASK, "of a container without the launcher": ""}


@pytest.mark.parametrize("case", ENDS)
def test_the_exit_status_is_that_of_the_task(sandbox: Sandbox, fake_engine: FakeEngine, case: str) -> None:
    events, status = ENDS[case]
    container = fake_engine.container(1, mounts_of(sandbox, "a"))
    del fake_engine.containers[container]
    run = killed_run(sandbox, container=container, task=TASKS.get(case))
    last = tell(fake_engine, container, *events) / 1e9 if events else 0.0
    recorded = ended(sandbox, run)
    assert recorded is not None
    assert recorded.status == status
    assert abs(recorded.ended - (last or time.time())) < 5, "when it ended, not when somebody looked"
    assert sandbox.run("wait", run.id).returncode == (1 if status is None else status)
    assert f"exit {'unknown' if status is None else status}: " in sandbox.run("history", "--all").stdout


def test_stopping_a_container_leaves_its_end_to_the_run_that_records_it(
    sandbox: Sandbox, fake_engine: FakeEngine
) -> None:
    container = fake_engine.container(1, mounts_of(sandbox, "a"))
    with subprocess.Popen(["sleep", "60"]) as process:  # without the run tag, as 'taoprof run' itself
        started = processes.start_time(process.pid)
        run = killed_run(sandbox, container=container, task="", pid=process.pid, start=started)
        sandbox.run("stop", run.id, check=True)
        assert f"/containers/{container}/stop?t=10" in fake_engine.asked
        assert process.poll() is None
        process.kill()


def test_an_exit_status_that_the_engine_has_not_reported_yet_is_waited_for(
    sandbox: Sandbox, fake_engine: FakeEngine
) -> None:
    container = f"{7:064x}"
    run = killed_run(sandbox, container=container, task=TASK)
    tell(fake_engine, container, START, EXEC, ("die", {"exitCode": "137"}), ago=0)
    assert ended(sandbox, run) is None
    fake_engine.event("exec_die", container, execID=TASK, exitCode="5")
    recorded = ended(sandbox, run)
    assert recorded is not None
    assert recorded.status == 5
    silent = killed_run(sandbox, container=container, task=TASK)
    fake_engine.rules["/events"] = socket.socket.close
    assert ended(sandbox, silent) is None, "an engine that does not answer proves nothing"


def test_an_idle_container_is_stopped_that_no_launcher_is_left_to_stop(
    sandbox: Sandbox, fake_engine: FakeEngine
) -> None:
    """As with a SIGKILL of the launcher: its docker exec goes on, and the container's shell afterwards."""
    run = killed_run(sandbox, mounts=[list(pair) for pair in mounts_of(sandbox, "a").items()])
    container = fake_engine.container(1, mounts_of(sandbox, "a"), env=[f"TAOPROF_RUN={run.id}"])
    fake_engine.containers[container]["ExecIDs"] = [TASK]
    assert ended(sandbox, run) is None
    recorded = HoldRecords(sandbox.context).get(run.id)
    assert recorded is not None
    assert (recorded.container, recorded.phase) == (container, "bound"), "for when it is gone"
    HoldRecords(sandbox.context).write(Hold(**{**recorded.as_dict(), "task": TASK}))
    tell(fake_engine, container, START, EXEC)
    assert ended(sandbox, run) is None
    with GuardProcess(sandbox):
        fake_engine.containers[container]["ExecIDs"] = None
        fake_engine.event("exec_die", container, execID=TASK, exitCode="6")
        until(lambda: f"/containers/{container}/kill" in fake_engine.asked, "the guard stops it")
        until(lambda: ended(sandbox, run), "it has ended")
    over = ended(sandbox, run)
    assert over is not None
    assert over.status == 6
