"""Switches that wait: each is served once, in the order in which they came, and none is lost when others are killed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.system import processes
from tests.support.commands import Terminal
from tests.support.engine import until
from tests.support.home import ALL
from tests.support.sandbox import Sandbox

WAITERS = 24 if ALL else 12


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path) as sandbox:
        yield sandbox.profiles_named("a", "b", "c")


def tickets(sandbox: Sandbox) -> list[str]:
    folder = sandbox.state / "queue/use"
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


def test_a_run_waits_for_its_results_folder(sandbox: Sandbox) -> None:
    words = ("tao", "model", "unet", "train", "-r", "/workspace/tao-experiments/x")
    tao, run = sandbox.in_run("a", command=words)
    second_tao = sandbox.new_tao()
    second = sandbox.start(
        *(sandbox.taoprof, "run", "a", "--wait", "--", *words), environ=second_tao.environ, stderr=subprocess.PIPE
    )
    assert second.stderr is not None
    assert f"pid {run.pid}" in second.stderr.readline()
    tao.end()
    second_tao.pid()
    second_tao.end(4)
    assert second.wait(20) == 4
