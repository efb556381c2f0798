"""Switches that wait: each is served once, in the order in which they came, and none is lost when others are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.holds.queue import EVERYTHING, Request
from taoprofiles.system import processes
from tests.support.commands import Terminal
from tests.support.engine import until
from tests.support.guard_process import GuardProcess
from tests.support.home import ALL
from tests.support.sandbox import Sandbox
from tests.support.stand_ins import driver, gpus, gpus_in

WAITERS = 24 if ALL else 12


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    sandbox.profile("c")
    return sandbox


def tickets(sandbox: Sandbox) -> list[str]:
    folder = sandbox.state / "queue"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def waiter(sandbox: Sandbox, name: str, *options: str) -> subprocess.Popen[str]:
    """Start a switch that waits, and give it time to stand in the queue."""
    process = sandbox.start(
        sandbox.taoprof, "use", name, "--wait", *options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    until(lambda: any(ticket.endswith(f"-{process.pid}") for ticket in tickets(sandbox)), "it has its ticket")
    return process


def held(sandbox: Sandbox) -> str:
    hold_id: str = sandbox.json("hold", "--reason", "a demo")["data"]["id"]
    return hold_id


def served(sandbox: Sandbox) -> list[int]:
    """Return the pids of those who switched, the first one first."""
    entries = sandbox.json("history", "--all")["data"]["entries"][::-1]
    return [int(entry["by"].rpartition("pid ")[2]) for entry in entries if entry["action"] == "use"]


def test_waiters_are_served_in_order(sandbox: Sandbox) -> None:
    hold_id = held(sandbox)
    before = len(served(sandbox))
    waiters = [waiter(sandbox, "bc"[number % 2]) for number in range(WAITERS)]
    assert all(process.poll() is None for process in waiters)
    middle = WAITERS // 2
    killed = {*waiters[3::9], *waiters[middle - 1 : middle + 2]}
    for process in killed:
        process.kill()
        process.wait(20)
    sandbox.run("release", hold_id, check=True)
    rest = [process for process in waiters if process not in killed]
    assert [process.wait(40) for process in rest] == [0] * len(rest)
    # Every one of them is in the history once, where it changed the file: neighbours may want the same profile.
    names = {process.pid: "bc"[number % 2] for number, process in enumerate(waiters)}
    expected, now = [], "a"
    for process in rest:
        if names[process.pid] != now:
            expected.append(process.pid)
            now = names[process.pid]
    assert served(sandbox)[before:] == expected
    assert tickets(sandbox) == []


def test_waiting_names_the_holder_and_switches_at_once(sandbox: Sandbox) -> None:
    tao, process = sandbox.plain()
    waiting, second = waiter(sandbox, "b"), waiter(sandbox, "b")
    assert waiting.stderr is not None
    line = waiting.stderr.readline()
    assert line.startswith("taoprof: waiting for ")
    assert f"pid {process.pid}" in line
    assert second.stderr is not None
    assert second.stderr.readline() == "taoprof: waiting: 1 other command is ahead in the queue\n"
    tao.end()
    process.wait(20)
    assert (waiting.wait(10), second.wait(10)) == (0, 0)
    assert waiting.stderr.read() == "", "it says it once"


@pytest.mark.parametrize("how", ["over", "process"])
def test_a_hold_that_ends_is_noticed_soon(sandbox: Sandbox, how: str) -> None:
    sleeper = sandbox.start("sleep", "1000")
    options = ["--for", "0.5"] if how == "over" else ["--pid", str(sleeper.pid)]
    sandbox.run("hold", "--reason", "x", *options, check=True)
    waiting = waiter(sandbox, "b")
    sleeper.kill()
    sleeper.wait(20)
    assert waiting.wait(10) == 0, "half a second until it looks, and the switch itself"


def test_a_wait_has_an_end(sandbox: Sandbox) -> None:
    assert sandbox.run("use", "b", "--wait", "0").returncode == 0
    held(sandbox)
    assert sandbox.run("use", "c", "--wait", "0").returncode == 5
    began = time.monotonic()
    done = sandbox.run("use", "c", "--wait", "1")
    assert time.monotonic() - began >= 1
    assert (done.returncode, "a demo" in done.stderr) == (5, True)
    assert "error: gave up waiting after 1 s: cannot switch to 'c': 'b' is held" in done.stderr
    assert tickets(sandbox) == []
    waiter(sandbox, "c")
    done = sandbox.run("use", "c", "--wait", "0.1")
    assert "error: gave up waiting after 0 s: 1 other command is ahead in the queue" in done.stderr
    assert done.returncode == 5
    assert len(tickets(sandbox)) == 1
    assert sandbox.run("current").stdout == "b\n"


def test_ctrl_c_leaves_the_queue(sandbox: Sandbox) -> None:
    held(sandbox)
    with Terminal([sandbox.taoprof, "use", "b", "--wait"], environ=sandbox.environ, cwd=sandbox.root) as terminal:
        terminal.wait_for("waiting for a demo")
        assert len(tickets(sandbox)) == 1
        terminal.send("\x03")
        status, output = terminal.finish()
    assert status == -signal.SIGINT, "as a shell tells it: 130"
    assert b"Traceback" not in output
    assert tickets(sandbox) == []


def test_a_stopped_waiter_blocks_nobody(sandbox: Sandbox) -> None:
    hold_id = held(sandbox)
    first, second = waiter(sandbox, "b"), waiter(sandbox, "c")
    first.send_signal(signal.SIGSTOP)
    until(lambda: processes.is_stopped(first.pid), "it is stopped")
    sandbox.run("release", hold_id, check=True)
    assert second.wait(20) == 0
    first.send_signal(signal.SIGCONT)
    assert first.wait(20) == 0
    assert sandbox.run("current").stdout == "b\n"
    assert tickets(sandbox) == []


def test_a_switch_that_cannot_be_leaves_the_queue(sandbox: Sandbox) -> None:
    assert sandbox.run("use", "none", "--wait").returncode == 4
    assert tickets(sandbox) == []
    hold_id = held(sandbox)
    first, second = waiter(sandbox, "b"), waiter(sandbox, "c")
    (sandbox.profiles / "b.toml").unlink()
    sandbox.run("release", hold_id, check=True)
    assert first.wait(20) == 4
    assert second.wait(20) == 0


# The queue of runs


def queue(sandbox: Sandbox) -> list[dict[str, Any]]:
    commands: list[dict[str, Any]] = sandbox.json("status")["data"]["queue"]
    return commands


class QueuedRun:
    """A ``taoprof run --wait`` whose command keeps its mounts file, notes its start, and ends when the test lets it."""

    def __init__(self, sandbox: Sandbox, number: int, *options: str) -> None:
        self.mounts, self._gate = sandbox.root / f"mounts-{number}", sandbox.root / f"gate-{number}"
        os.mkfifo(self._gate)
        script = f"cp $LAUNCHER_MOUNTS {self.mounts}; echo {number} >>~/log; read x <{self._gate}"
        words = ("run", "a", *options, "--wait", "--", "sh", "-c", script)
        self.process = sandbox.start(sandbox.taoprof, *words, stdout=-3, stderr=-3)

    def end(self) -> None:
        self._gate.write_text("end\n")
        assert self.process.wait(20) == 0


def started(sandbox: Sandbox) -> list[int]:
    """Return the numbers of the runs that have started, sorted."""
    log = sandbox.root / "log"
    return sorted(map(int, log.read_text().split())) if log.exists() else []


def until_started(sandbox: Sandbox, *numbers: int) -> None:
    until(lambda: started(sandbox) == sorted(numbers), f"{numbers} have started, and no others")


def until_queued(sandbox: Sandbox, count: int) -> None:
    def is_announced() -> bool:
        waiting = queue(sandbox)
        return len(waiting) == count and all(command["waits_for"] for command in waiting)

    until(is_announced, f"{count} commands wait")


WANTED = ("1", "1", "1", "0,", "1", "1,", "2", "GPU-0,", "1", "1")
STEPS = ((0, [2]), (1, [4]), (2, [3]), (4, [5]), (3, []), (5, [6]), (6, [7, 8]), (7, [9]), (8, []), (9, []))
"""The run that ends, and those that start then: run 6 needs both GPUs, and nobody overtakes it."""


def test_ten_runs_on_two_gpus_start_in_order_and_once(sandbox: Sandbox) -> None:
    """Also while a guard is killed and another one started."""
    driver(sandbox, gpus(2))
    runs: list[QueuedRun] = []
    for number, wanted in enumerate(WANTED):
        runs.append(QueuedRun(sandbox, number, "--gpus", wanted))
        if number < 2:
            until_started(sandbox, *range(len(runs)))
        else:
            until_queued(sandbox, len(runs) - 2)
    waiting = queue(sandbox)
    assert [command["pid"] for command in waiting] == [run.process.pid for run in runs[2:]]
    assert [command["gpus"] for command in waiting] == [1, ["0"], 1, ["1"], 2, ["0"], 1, 1]
    ids = [command["id"] for command in waiting]
    assert waiting[0]["waits_for"] == [hold["id"] for hold in sandbox.holds()]
    assert [command["waits_for"] for command in waiting[1:3]] == [ids[:1], ids[:1]]
    assert "waiting, in this order:" in sandbox.run("status").stdout
    expected = [0, 1]
    guard = GuardProcess(sandbox).__enter__()
    for ended, starting in STEPS:
        if ended == 4:  # a guard has no part in it
            guard.process.kill()
            guard.__exit__()
            guard = GuardProcess(sandbox).__enter__()
        runs[ended].end()
        expected += starting
        until_started(sandbox, *expected)
        until_queued(sandbox, len(runs) - len(expected))
    assert [gpus_in(run.mounts.read_text()) for run in runs] == ["0", "1", "0", "0", "1", "1", "0,1", "GPU-0", "1", "0"]
    assert tickets(sandbox) == []
    guard.__exit__()


def test_a_run_waits_only_behind_those_that_need_the_same(sandbox: Sandbox) -> None:
    first = QueuedRun(sandbox, 0, "--gpus", "1,")
    until_started(sandbox, 0)
    second = QueuedRun(sandbox, 1, "--gpus", "1,")
    until_queued(sandbox, 1)
    for number, options in ((2, ("--gpus", "0,")), (3, ())):
        other = QueuedRun(sandbox, number, *options)
        until_started(sandbox, 0, *range(2, number + 1))
        other.end()
    held(sandbox)
    switch = waiter(sandbox, "b")
    until_queued(sandbox, 2)
    (sandbox.state / "queue" / tickets(sandbox)[0]).write_bytes(b"no ticket")
    third = QueuedRun(sandbox, 4, "--gpus", "0,")
    until(lambda: len(tickets(sandbox)) == 3, "a ticket that cannot be read may need everything")
    sandbox.run("stop", "wait1", check=True)
    assert second.process.wait(20) == -signal.SIGTERM
    until_started(sandbox, 0, 2, 3, 4)
    third.end()
    first.end()
    assert switch.poll() is None
    assert sandbox.run("stop", queue(sandbox)[0]["id"], check=True).stdout == "wait2: left the queue\n"
    assert switch.wait(20) == -signal.SIGTERM
    assert queue(sandbox) == []


NAMES = st.lists(st.sampled_from("0123"), min_size=1, max_size=3, unique=True)
REQUESTS = st.builds(
    Request,
    st.none(),
    st.just([]),
    mapping=st.booleans(),
    results=st.lists(st.sampled_from(["/r", "/r/x", "/s"]), max_size=2),
    gpus=st.none() | st.just("all") | st.integers(1, 3) | NAMES,
    host_id=st.just("lab 1 2 3"),
)


@given(REQUESTS, REQUESTS)
def test_what_must_follow(later: Request, earlier: Request) -> None:
    everything = EVERYTHING._replace(host_id="lab 1 2 3")
    assert later.must_follow(everything) == bool(later.mapping or later.results or later.gpus)
    if not isinstance(later.gpus, int) and not isinstance(earlier.gpus, int):
        assert later.must_follow(earlier) == earlier.must_follow(later)
    if later.must_follow(earlier):
        assert (later.mapping and earlier.mapping) or later.results or (later.gpus and earlier.gpus)
    elsewhere = earlier._replace(host_id="lab 4 5 6")
    assert later.must_follow(elsewhere) == later._replace(gpus=None).must_follow(earlier)
