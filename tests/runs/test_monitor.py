"""The exit status of a task by the engine's events, however they come: in pieces, twice, out of order, or invalid."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from taoprofiles.holds import manage
from taoprofiles.holds.hold import ContainerTask, HeldError, Hold
from taoprofiles.holds.queue import Request, wait_until_free
from taoprofiles.runs.run import Monitor
from taoprofiles.switching import switch
from tests.support.engine import until
from tests.support.home import write_program
from tests.support.sandbox import FakeEngine, Sandbox, answer, mounts_of


class Watched:
    """A monitor in this process."""

    def __init__(self, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[str] = []
        self.tasks: list[list[str]] = []
        self.ended: list[str] = []
        self.faults: list[object] = []
        monkeypatch.setattr(threading, "excepthook", self.faults.append)
        self.environ, self.hold = fake_engine.environ, Hold(id="abcde", task=None)
        self.monitor = Monitor(self)
        self.monitor.start()
        assert self.monitor.listening.wait(5)

    def container_started(self, facts: dict[str, Any]) -> None:
        self.started.append(facts["Id"])

    def task_started(self, container: ContainerTask) -> None:
        self.tasks.append(container.command)

    def container_ended(self, container: ContainerTask) -> None:
        self.ended.append(container.id)

    def tick(self) -> None:
        pass

    def status(self, seconds: float = 3) -> int | None:
        """Wait until the container is over, or the watch is; return the exit status of its task."""
        over = lambda: self.faults or any(task.is_over for task in self.monitor.containers)  # noqa: E731
        until(over, "the container is over", seconds=seconds, details=lambda: self.monitor.problem)
        assert self.faults == []
        (container,) = self.monitor.containers
        return container.status


@pytest.fixture
def tagged(fake_engine: FakeEngine) -> str:
    return fake_engine.container(1, {"/x": "/y"}, env=["TAOPROF_RUN=abcde"])


@pytest.fixture
def watched(fake_engine: FakeEngine, tagged: str, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(fake_engine, monkeypatch)


def send_events_of_a_task(fake_engine: FakeEngine, container: str, status: int) -> None:
    for action in ("create", "start", "exec_create: /bin/bash", "exec_start: /bin/bash"):
        fake_engine.event(action, container)
    fake_engine.event("exec_die", container, exitCode=str(status))
    fake_engine.event("die", container, exitCode="137")
    fake_engine.event("destroy", container)


@pytest.mark.parametrize("tear", [1, 7, 1 << 20])
def test_events_in_pieces(fake_engine: FakeEngine, watched: Watched, tagged: str, tear: int) -> None:
    fake_engine.tear = tear
    send_events_of_a_task(fake_engine, fake_engine.container(2, {"/x": "/y"}), 9)
    send_events_of_a_task(fake_engine, tagged, 3)
    assert watched.status() == 3
    until(lambda: watched.ended, "its end is reported")
    assert (watched.started, watched.tasks, watched.ended) == ([tagged], [["/bin/bash"]], [tagged])


STREAMS = {
    # A shell that is opened in it while it trains, or a health check, is not the task.
    "another exec": "0: start | exec_start: detectnet_v2, execID=aa | exec_start: bash, execID=bb"
    " | exec_die, execID=aa, exitCode=0 | exec_die, execID=bb, exitCode=137 | die, exitCode=137",
    # As Podman 4.3.1 sends them over its Docker API: it has other names for some, and each has an exit code.
    "Podman": "3: create, containerExitCode=0 | init, containerExitCode=0 | start, containerExitCode=0"
    " | exec, containerExitCode=0 | exec_died, containerExitCode=3 | die, containerExitCode=0, exitCode=0"
    " | remove, containerExitCode=0",
    # docker exec failed before it reached the engine, as for want of a terminal.
    "no task": "None: start | die, exitCode=0 | destroy",
    # With CI_PROJECT_DIR the launcher uses docker run (run_container_on_ci): there is no exec, only die.
    "docker run": "3: start | die, exitCode=3 | destroy",
    # By a minute, while a training of hours goes on.
    "a clock set back": "3: start | exec_die, stamp=-60000000000, exitCode=3 | die, stamp=-59999999990",
    "one time": "3: start, stamp=0 | exec_die, stamp=0, exitCode=3 | die, stamp=0",
    # Two containers' events are stamped first and sent then, so one may overtake the other.
    "not in order": "3: start, stamp=0 | exec_start: x, stamp=10 | die of another, stamp=50"
    " | exec_die, stamp=40, exitCode=3 | die, stamp=60",
}
"""The status of a task, and the events of its container with their attributes; stamps are in nanoseconds from now."""


@pytest.mark.parametrize("name", STREAMS)
def test_the_status_of_the_task(fake_engine: FakeEngine, watched: Watched, tagged: str, name: str) -> None:
    (status, _, events), now = STREAMS[name].partition(": "), time.time_ns()
    watched.monitor._task = "" if name == "docker run" else None
    other = fake_engine.container(2, {"/x": "/y"})
    for event in events.split(" | "):
        action, *words = event.split(", ")
        attributes: dict[str, Any] = dict(word.split("=") for word in words)
        if "stamp" in attributes:
            attributes["stamp"] = now + int(attributes["stamp"])
        container = other if action == "die of another" else tagged
        fake_engine.event(action.removesuffix(" of another"), container, **attributes)
    assert str(watched.status()) == status


@pytest.mark.parametrize("when", ["before the start", "after the start", "after exec_die"])
def test_a_stream_that_breaks_and_comes_back(fake_engine: FakeEngine, watched: Watched, tagged: str, when: str) -> None:
    """Events of the break are replayed, and none counts twice."""

    def broken() -> None:
        before = fake_engine.listeners()
        fake_engine.cut()
        if when == "before the start":
            return  # the events come while nobody listens
        until(lambda: fake_engine.listeners() > before, "it listens again")

    if when == "before the start":
        broken()
    fake_engine.event("start", tagged)
    if when == "after the start":
        broken()
    fake_engine.event("exec_start: x", tagged)
    fake_engine.event("exec_die", tagged, exitCode="3")
    if when == "after exec_die":
        broken()
    fake_engine.event("die", tagged, exitCode="137")
    assert watched.status() == 3
    until(lambda: watched.ended, "its end is reported")
    assert (watched.started, watched.tasks, watched.ended) == ([tagged], [["x"]], [tagged])


def test_the_last_of_several_tasks_counts_once(fake_engine: FakeEngine, watched: Watched, tagged: str) -> None:
    fake_engine.event("start", tagged)
    for status in ("3", "0"):
        fake_engine.event("exec_start: x", tagged)
        fake_engine.event("exec_die", tagged, exitCode=status)
    until(lambda: [task.status for task in watched.monitor.containers] == [0], "the second one is seen")
    before = fake_engine.listeners()
    fake_engine.cut()
    until(lambda: fake_engine.listeners() > before, "it listens again")
    fake_engine.event("die", tagged)
    assert watched.status() == 0, "the first one's end, told again, came too late to count"


INVALID = b"""
null
[]
{}
not JSON
{"id": 5, "timeNano": 5}
{"id": "x", "timeNano": "soon"}
{"id": "x", "timeNano": 5, "Action": "start", "Actor": [1]}
{"id": "x", "timeNano": 5, "Action": 7, "Actor": {"Attributes": 5}}
"""


def test_invalid_events_and_containers_do_not_end_the_monitor(
    fake_engine: FakeEngine, watched: Watched, tagged: str
) -> None:
    for line in INVALID.splitlines(keepends=True):
        fake_engine.raw_event(line)
    for number, facts in enumerate(([], {}, {"Config": 5}, {"Config": {"Env": 5}}, None), 2):
        odd = fake_engine.container(number, {})
        fake_engine.rules[f"/containers/{odd}/"] = lambda connection, facts=facts: answer(connection, facts)
        fake_engine.event("start", odd)
    send_events_of_a_task(fake_engine, tagged, 3)
    assert watched.status() == 3


# Runs


def with_container(sandbox: Sandbox, fake_engine: FakeEngine, mounts: str) -> tuple[Any, Any, str]:
    """Start a run, and a container with its tag and the mounts of the profile ``mounts``."""
    tao, run = sandbox.in_run("b")
    (hold,) = manage.active_holds(sandbox.context).holds
    container = fake_engine.container(1, mounts_of(sandbox, mounts), env=[f"TAOPROF_RUN={hold.id}"])
    until(fake_engine.listeners, "the run listens")
    return tao, run, container


@pytest.mark.parametrize("status", [0, 3])
def test_the_exit_status_is_the_engines(sandbox: Sandbox, fake_engine: FakeEngine, status: int) -> None:
    tao, run, container = with_container(sandbox, fake_engine, "b")
    send_events_of_a_task(fake_engine, container, status)
    until(lambda: any(container in path for path in fake_engine.asked), "the run has asked for its container")
    del fake_engine.containers[container]
    tao.end()
    out, _ = run.communicate(timeout=20)
    assert run.returncode == status, out
    assert json.loads(sandbox.run("history", "--json").stdout)["data"]["runs"][0]["status"] == status


@pytest.mark.parametrize(
    ("tasks", "status", "message"),
    [
        ([None], 1, "the task did not start: container 200000 ended without it. The launcher always exits with 0"),
        ([0, None], 1, "the task did not start: container 300000"),
        ([3, 0], 3, ""),
        ([0, 0], 0, ""),
    ],
)
def test_no_run_succeeds_whose_tasks_did_not(
    sandbox: Sandbox, fake_engine: FakeEngine, tasks: list[int | None], status: int, message: str
) -> None:
    """A script may start several; the launcher exits with 0 after each of them."""
    tao, run, first = with_container(sandbox, fake_engine, "b")
    env = fake_engine.containers.pop(first)["Config"]["Env"]
    for number, task in enumerate(tasks, 2):
        container = fake_engine.container(number, mounts_of(sandbox, "b"), env=env)
        for action in ("start", *(() if task is None else ("exec_create: x", "exec_start: x"))):
            fake_engine.event(action, container)
        if task is not None:
            fake_engine.event("exec_die", container, exitCode=str(task))
        fake_engine.event("die", container, exitCode="0")
        until(lambda container=container: any(container in path for path in fake_engine.asked), "it is inspected")
    fake_engine.containers.clear()
    tao.end()
    out, _ = run.communicate(timeout=20)
    assert run.returncode == status, out
    assert message in out


def test_a_run_with_a_broken_engine(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    """The start does not wait for long; a success that cannot be seen counts as failed, and it says so."""
    fake_engine.rules["/"] = lambda connection: connection.sendall(b"garbage")
    tao, run = sandbox.in_run("b")
    tao.end()
    out, _ = run.communicate(timeout=20)
    assert run.returncode == 1, out
    assert "cannot determine whether the task succeeded" in out
    assert "Traceback" not in out


def test_differences_of_the_container_are_reported_at_once(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    tao, run, container = with_container(sandbox, fake_engine, "a")
    fake_engine.event("start", container)
    message = run.stdout.readline()
    assert "none of the profile's folders is mounted" in message
    assert container[:6] in message
    fake_engine.event("exec_die", container, exitCode="0")
    fake_engine.event("die", container)
    del fake_engine.containers[container]
    tao.end()
    assert run.wait(20) == 0


def test_a_container_that_is_reported_late_is_held(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    """The docker command may be gone before the engine reports the container that it started."""
    note = sandbox.root / "note"
    script = f"echo $$ $TAOPROF_RUN >{note}.new\nmv {note}.new {note}\nexit 1"
    write_program(sandbox.tao.with_name("docker"), script)
    run = sandbox.start(sandbox.taoprof, "run", "a", "--image", "i", "--", "t")
    until(note.exists, "docker is started")
    pid, tag = note.read_text().split()
    until(lambda: not sandbox.root.joinpath(f"/proc/{pid}").exists(), "the docker command has ended")
    container = fake_engine.container(1, {}, env=[f"TAOPROF_RUN={tag}"], labels={"taoprofiles.run": tag})
    fake_engine.event("start", container)
    assert run.wait(20) == 1
    (hold,) = sandbox.holds()
    assert (hold["id"], hold["container"], hold["phase"]) == (tag, container, "bound")


def test_waiting_for_a_container_asks_the_engine_twice_a_second(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    fake_engine.container(1, mounts_of(sandbox, "a"))
    attempt: Callable[[object], object] = lambda _: switch.switch_profile(sandbox.context, "b")  # noqa: E731
    with pytest.raises(HeldError):
        wait_until_free(sandbox.context, Request("b", []), attempt, seconds=1.2, say=lambda text: None)
    lists = [path for path in fake_engine.asked if path.startswith("/containers/json")]
    assert 2 <= len(lists) <= 4, "once at first, and then each half second"
