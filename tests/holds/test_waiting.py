"""Switches that wait: each is served once, in the order in which they came, and none is lost when others are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Terminal
from tests.support.engine import until
from tests.support.home import ALL
from tests.support.sandbox import Sandbox

WAITERS = 64 if ALL else 12


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
    waiting = waiter(sandbox, "b")
    assert waiting.stderr is not None
    line = waiting.stderr.readline()
    assert line.startswith("taoprof: waiting for ")
    assert f"pid {process.pid}" in line
    second = waiter(sandbox, "b")
    assert second.stderr is not None
    assert second.stderr.readline() == "taoprof: waiting behind 1 other\n"
    tao.end()
    process.wait(20)
    ended = time.monotonic()
    assert waiting.wait(20) == 0
    assert time.monotonic() - ended < 10
    assert second.wait(20) == 0
    assert waiting.stderr.read() == "", "it says it once"


@pytest.mark.parametrize("how", ["released", "over", "process"])
def test_a_hold_that_ends_is_noticed_soon(sandbox: Sandbox, how: str) -> None:
    sleeper = sandbox.start("sleep", "1000")
    options = {"released": [], "over": ["--for", "1.5"], "process": ["--pid", str(sleeper.pid)]}[how]
    hold = sandbox.json("hold", "--reason", "x", *options)["data"]
    waiting = waiter(sandbox, "b")
    if how == "released":
        sandbox.run("release", hold["id"], check=True)
    elif how == "process":
        sleeper.kill()
        sleeper.wait(20)
    else:
        until(lambda: time.time() >= hold["until"], "its time is over")
    ended = time.monotonic()
    assert waiting.wait(20) == 0
    assert time.monotonic() - ended < 10, "half a second until it looks, and the switch itself"


def test_a_wait_has_an_end(sandbox: Sandbox) -> None:
    held(sandbox)
    began = time.monotonic()
    done = sandbox.run("use", "b", "--wait", "1")
    assert time.monotonic() - began >= 1
    assert done.returncode == 5
    assert "a demo" in done.stderr
    assert tickets(sandbox) == []
    assert sandbox.run("current").stdout == "a\n"


def test_a_wait_behind_others_has_an_end(sandbox: Sandbox) -> None:
    held(sandbox)
    waiter(sandbox, "b")
    done = sandbox.run("use", "b", "--wait", "1")
    assert done.returncode == 5
    assert "1 other" in done.stderr
    assert len(tickets(sandbox)) == 1


def test_a_wait_of_no_time(sandbox: Sandbox) -> None:
    assert sandbox.run("use", "b", "--wait", "0").returncode == 0
    held(sandbox)
    assert sandbox.run("use", "c", "--wait", "0").returncode == 5


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


def test_a_killed_waiter_blocks_nobody(sandbox: Sandbox) -> None:
    """The next one goes on, although nobody has taken the dead one's ticket away."""
    hold_id = held(sandbox)
    first, second = waiter(sandbox, "b"), waiter(sandbox, "c")
    first.kill()
    first.wait(20)
    assert len(tickets(sandbox)) == 2 or second.poll() is None
    sandbox.run("release", hold_id, check=True)
    assert second.wait(20) == 0
    assert sandbox.run("current").stdout == "c\n"
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


@pytest.mark.skipif(not ALL, reason="takes seconds of nothing: TAOPROF_TEST_ALL=1, as in CI")
def test_waiting_takes_hardly_any_time_of_the_processor(sandbox: Sandbox) -> None:
    held(sandbox)
    waiting = waiter(sandbox, "b")
    assert waiting.stderr is not None
    waiting.stderr.readline()

    def used() -> float:
        fields = Path(f"/proc/{waiting.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    seconds = 6 if ALL else 2
    before, end = used(), time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, "some time has passed", seconds=seconds + 5)
    assert used() - before < 0.1 * seconds


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
