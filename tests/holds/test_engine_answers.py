"""Engines that hang, lie, break or have others' containers: bounded, correct, and what could not be seen is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taoprofiles.errors import HeldError
from taoprofiles.holds import manage
from taoprofiles.holds.waiting import wait_until_free
from taoprofiles.runs.monitor import Monitor
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch
from taoprofiles.switching.switch import Switch
from taoprofiles.system.engine import Engine
from tests.support.commands import Answer, call, one_clear_error
from tests.support.engine import until
from tests.support.home import ALL
from tests.support.sandbox import FakeEngine, Sandbox, answer, gone, mounts_of

LONGEST = 20.0  # an engine that hangs does so for 30 s
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@pytest.fixture
def engine(sandbox: Sandbox) -> Iterator[FakeEngine]:
    with FakeEngine(sandbox.folder) as made:
        yield made


def context(sandbox: Sandbox, engine: FakeEngine, uid: int | None = None) -> Context:
    made = Context({**sandbox.environ, **engine.environ})
    made.uid = made.uid if uid is None else uid
    return made


def use(sandbox: Sandbox, engine: FakeEngine, name: str = "b", uid: int | None = None) -> Switch:
    """Switch in this process."""
    return switch.use(context(sandbox, engine, uid), name)


def refused(sandbox: Sandbox, engine: FakeEngine, name: str = "b", uid: int | None = None) -> list[dict[str, Any]]:
    before = sandbox.mapping_file.read_bytes()
    with pytest.raises(HeldError) as caught:
        use(sandbox, engine, name, uid)
    assert sandbox.mapping_file.read_bytes() == before
    return caught.value.holders


def hanging(engine: FakeEngine, first: bytes = b"") -> Callable[[socket.socket], None]:
    """Answer that much, and then no more."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(first)
        engine.over.wait(30)

    return serve


def endless(engine: FakeEngine, first: bytes, more: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.sendall(first)
        while not engine.over.is_set():
            connection.sendall(more)

    return serve


def slowly(engine: FakeEngine, content: bytes) -> Callable[[socket.socket], None]:
    """Answer a byte at a time: each one comes soon, the whole never does."""

    def serve(connection: socket.socket) -> None:
        for at in range(len(content)):
            connection.sendall(content[at : at + 1])
            if engine.over.wait(0.5):
                return

    return serve


def answering(content: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(content)


# What a switch does under each

FAULTS: dict[str, Callable[[FakeEngine], Callable[[socket.socket], None]]] = {
    "hangs on connect": hanging,
    "hangs after the headers": lambda engine: hanging(engine, HEAD),
    "hangs in its headers": lambda engine: hanging(engine, HEAD[:20]),
    "hangs in its answer": lambda engine: hanging(engine, HEAD + b'[{"Id": "ab'),
    "a byte at a time": lambda engine: slowly(engine, HEAD + b"[" + b" " * 100 + b"]"),
    "an endless answer": lambda engine: endless(engine, HEAD, b" " * 65536),
    "endless headers": lambda engine: endless(engine, b"HTTP/1.0 200 OK\r\n", b"X-Y: z\r\n" * 8192),
    "garbage": lambda engine: answering(os.urandom(512)),
    "nothing": lambda engine: answering(b""),
    "another protocol": lambda engine: answering(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "status 500": lambda engine: answering(b'HTTP/1.0 500 Oops\r\n\r\n{"message": "out of order"}'),
    "status 403": lambda engine: answering(b"HTTP/1.0 403 Forbidden\r\n\r\n"),
    "status that is none": lambda engine: answering(b"HTTP/1.0 abc\r\n\r\n[]"),
    "headers alone": lambda engine: answering(HEAD),
    "not JSON": lambda engine: answering(HEAD + b"<html>proxy</html>"),
    "half of its answer": lambda engine: answering(HEAD + b'[{"Id": "ab'),
    "JSON nested too deeply": lambda engine: answering(HEAD + b"[" * 100_000 + b"]" * 100_000),
    "an object": lambda engine: answering(HEAD + b'{"message": "hello"}'),
    "null": lambda engine: answering(HEAD + b"null"),
    "text": lambda engine: answering(HEAD + b'"containers"'),
}


SOME_FAULTS = list(FAULTS) if ALL else ["hangs on connect", "garbage", "status 500", "an object", "hangs in its answer"]


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the engine's timeout in this process, to test more in less time."""
    monkeypatch.setattr(Engine.__init__, "__defaults__", (0.3, None))


def switched_with_a_warning(done: Answer, engine: FakeEngine) -> None:
    assert done.status == 0, done.err
    assert done.out == "switched to 'b' (before: 'a')\n"
    (warning,) = [line for line in done.err.splitlines() if line]
    assert warning.startswith(f"taoprof: warning: the container engine at {engine.address} could not be asked: ")
    assert warning.isprintable()


@pytest.mark.parametrize("how", SOME_FAULTS)
@pytest.mark.usefixtures("short_timeout")
def test_a_switch_with_a_broken_engine(sandbox: Sandbox, engine: FakeEngine, how: str) -> None:
    """Nothing that can be seen is in the way: it switches, soon, and tells what it could not look at."""
    engine.rules["/"] = FAULTS[how](engine)
    began = time.monotonic()
    done = call(sandbox, "use", "b", environ=engine.environ)
    assert time.monotonic() - began < LONGEST
    switched_with_a_warning(done, engine)


@pytest.mark.parametrize("how", FAULTS if ALL else ["an endless answer"])
def test_the_command_with_a_broken_engine(sandbox: Sandbox, engine: FakeEngine, how: str) -> None:
    engine.rules["/"] = FAULTS[how](engine)
    began = time.monotonic()
    done = sandbox.run("use", "b", environ=engine.environ)
    assert time.monotonic() - began < LONGEST
    switched_with_a_warning(Answer(done.returncode, done.stdout, done.stderr), engine)


@pytest.mark.parametrize("how", ["hangs on connect", "garbage"] if ALL else ["garbage"])
def test_a_launcher_holds_although_the_engine_is_broken(sandbox: Sandbox, engine: FakeEngine, how: str) -> None:
    engine.rules["/"] = FAULTS[how](engine)
    _, process = sandbox.plain()
    began = time.monotonic()
    done = sandbox.run("use", "b", "--json", environ=engine.environ)
    assert time.monotonic() - began < LONGEST
    assert done.returncode == 5
    assert [holder["pid"] for holder in json.loads(done.stdout)["error"]["holders"]] == [process.pid]


@pytest.mark.usefixtures("short_timeout")
def test_status_with_a_hanging_engine(sandbox: Sandbox, engine: FakeEngine) -> None:
    engine.rules["/"] = hanging(engine)
    began = time.monotonic()
    done = call(sandbox, "status", environ=engine.environ)
    assert time.monotonic() - began < LONGEST
    assert done.status == 0
    assert engine.address in done.err


@pytest.mark.parametrize("where", ["no file", "no folder", "a file in its way"])
def test_no_engine(sandbox: Sandbox, where: str) -> None:
    (sandbox.folder / "file").touch()
    path = {"no file": "none", "no folder": "none/none", "a file in its way": "file/none"}[where]
    done = sandbox.run("use", "b", environ={"DOCKER_HOST": f"unix://{sandbox.folder}/{path}"})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_an_engine_that_is_not_running(sandbox: Sandbox, kind: str) -> None:
    if kind == "unix":
        address = f"unix://{sandbox.folder / 'stale'}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(sandbox.folder / "stale"))
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    done = sandbox.run("use", "b", environ={"DOCKER_HOST": address})
    assert done.returncode == 0
    assert "connection refused" in done.stderr


def test_an_engine_without_permission(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played, since root may ask every one."""

    def connect(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("taoprofiles.system.engine.Engine._connect", connect)
    (told,) = switch.use(sandbox.context, "b").unseen
    assert "this user may not ask it (permission denied)" in told


@pytest.mark.parametrize(
    "address", ["what", "unix:", "unix://", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "npipe:////./pipe/docker"]
)
def test_an_invalid_address(sandbox: Sandbox, address: str) -> None:
    done = sandbox.run("use", "b", environ={"DOCKER_HOST": address})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_by_tcp(sandbox: Sandbox) -> None:
    with FakeEngine(sandbox.folder, tcp=True) as engine:
        engine.container(1, mounts_of(sandbox, "a"))
        assert [holder["phase"] for holder in refused(sandbox, engine)] == ["bound"]
        engine.containers.clear()
        assert use(sandbox, engine).unseen == []


CONTAINER_ID = "ab" * 32


@pytest.mark.parametrize(
    "listed",
    [
        [1, None, "x", []],
        [{}],
        [{"Id": 5}],
        [{"Id": CONTAINER_ID, "Mounts": "x"}],
        [{"Id": CONTAINER_ID, "Mounts": 7}],
        [{"Id": CONTAINER_ID, "Mounts": ["x", 5, None]}],
        [{"Id": CONTAINER_ID, "Mounts": [{"Type": "bind", "Source": 5, "Destination": []}]}],
        [{"Id": CONTAINER_ID, "Mounts": [{"Type": "bind", "Source": ["x"], "Destination": "y"}]}],
        [{"Id": "../../images/x\r\n", "Mounts": [{"Type": "bind", "Source": "/x", "Destination": "y"}]}],
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_list_of_the_wrong_shape(sandbox: Sandbox, engine: FakeEngine, listed: object) -> None:
    engine.rules["/containers/json"] = lambda connection: answer(connection, listed)
    use(sandbox, engine)


@pytest.mark.parametrize(
    "wrong",
    [
        {"Config": [1]},
        {"Config": {"Env": 5}},
        {"Config": {"Env": [5, None]}},
        {"Config": {"User": 5}},
        {"HostConfig": [1]},
        {"HostConfig": {"DeviceRequests": 5}},
        {"HostConfig": {"DeviceRequests": [5, None]}},
        {"Created": "yesterday"},
        {"Image": 5},
    ],
    ids=json.dumps,
)
def test_a_container_of_the_wrong_shape(sandbox: Sandbox, engine: FakeEngine, wrong: dict[str, Any]) -> None:
    """It may count or not, but nothing breaks."""
    container = engine.container(1, mounts_of(sandbox, "a"))
    engine.containers[container].update(wrong)
    try:
        use(sandbox, engine)
    except HeldError as error:
        assert [holder["container"] for holder in error.holders] == [container]


@pytest.mark.usefixtures("short_timeout")
def test_many_containers_that_cannot_be_inspected(sandbox: Sandbox, engine: FakeEngine) -> None:
    """The list comes, what each of them is does not: the time for all of them is bounded, and all of them count."""
    ids = [engine.container(n, mounts_of(sandbox, "a")) for n in range(1, 100)]
    for container in ids:
        engine.rules[f"/containers/{container}/"] = hanging(engine)
    began = time.monotonic()
    holders = refused(sandbox, engine)
    seconds = time.monotonic() - began
    assert {holder["container"] for holder in holders} == set(ids)
    assert seconds < 20, f"{seconds:.1f} s with a patience of 0.3 s"


# Whose containers count


@pytest.mark.parametrize("sign", ["environment", "image"])
def test_a_launchers_container_on_an_engine_that_keeps_no_gpu_requests(
    sandbox: Sandbox, engine: FakeEngine, sign: str
) -> None:
    """Podman."""
    env = ["TAO_CLIENT_TYPE=launcher"] if sign == "environment" else []
    container = engine.container(1, mounts_of(sandbox, "a"), count=None, env=env)
    if sign == "image":
        engine.containers[container]["Config"]["Image"] = "nvcr.io/nvidia/tao/tao-toolkit:6.26.3-pyt"
    (holder,) = refused(sandbox, engine)
    assert holder["container"] == container


def test_a_launchers_container_holds(sandbox: Sandbox, engine: FakeEngine) -> None:
    container = engine.container(1, mounts_of(sandbox, "a"), image="nvcr.io/x:1")
    (holder,) = refused(sandbox, engine)
    assert (holder["container"], holder["phase"], holder["kind"], holder["image"], holder["profile"]) == (
        *(container, "bound", "found", "nvcr.io/x:1"),
        "a",
    )
    assert use(sandbox, engine, "a").changed is False
    engine.containers.clear()
    assert use(sandbox, engine).changed


def test_a_container_of_an_older_mapping_holds_that_one(sandbox: Sandbox, engine: FakeEngine) -> None:
    """It was started before a switch that somebody forced: it needs the mapping of then."""
    switch.use(sandbox.context, "b")
    engine.container(1, mounts_of(sandbox, "a"))
    sandbox.profile("c")
    (holder,) = refused(sandbox, engine, "c")
    assert holder["profile"] == "a"
    assert use(sandbox, engine, "a").changed, "that is just what it needs"


@pytest.mark.parametrize(
    "about",
    [{"count": 0}, {"count": 2}, {"count": None}, {"env": ["TAOPROF_RUN=zzzzz"]}],
    ids=["no GPU", "two GPUs", "no request", "of a run that is not ours"],
)
def test_a_container_that_is_not_a_plain_launchers(sandbox: Sandbox, engine: FakeEngine, about: dict[str, Any]) -> None:
    engine.container(1, mounts_of(sandbox, "a"), **about)
    assert use(sandbox, engine).changed


def test_a_container_with_more_or_fewer_mounts(sandbox: Sandbox, engine: FakeEngine) -> None:
    (source,) = mounts_of(sandbox, "a")
    engine.container(1, {source: "/elsewhere"})
    engine.container(2, {"/other": "/workspace/tao-experiments"})
    engine.container(3, {})
    assert use(sandbox, engine).changed
    switch.use(sandbox.context, "a")
    engine.container(4, {**mounts_of(sandbox, "a"), "/home/x/.cache": "/cache"})
    assert len(refused(sandbox, engine)) == 1, "one folder more, by the launcher's own doing, and it is still ours"


@pytest.mark.parametrize(("user", "ours"), [("1234", True), ("1234:1234", True), ("", True), ("4321", False),
                                            ("4321:1234", False), ("0", True)])  # fmt: skip
def test_the_user_in_a_container(sandbox: Sandbox, engine: FakeEngine, user: str, ours: bool) -> None:
    engine.container(1, mounts_of(sandbox, "a"), user=user)
    if ours:
        assert len(refused(sandbox, engine, uid=1234)) == 1
    else:
        assert use(sandbox, engine, uid=1234).changed


def test_other_peoples_containers_are_not_named(sandbox: Sandbox, engine: FakeEngine) -> None:
    theirs = engine.container(7, {"/home/eva/secret-project": "/workspace/tao-experiments"}, image="eva/private:1")
    engine.container(8, mounts_of(sandbox, "a"))
    told = [sandbox.run(*words, environ=engine.environ) for words in (("use", "b"), ("status",))]
    assert told[0].returncode == 5
    for done in told:
        text = done.stdout + done.stderr
        assert not any(secret in text for secret in ("eva", theirs[:6], "secret-project"))
    assert not any(theirs in path for path in engine.asked), "it was not even looked at"


# Runs and their containers


def bound_run(sandbox: Sandbox, engine: FakeEngine, *options: str) -> tuple[str, str]:
    """Start a run with a container, and kill every process of it; give the hold's id and the container."""
    tao, run = sandbox.in_run("b", *options, environ=engine.environ)
    (hold,) = manage.active_holds(context(sandbox, engine)).holds
    engine.container(5, mounts_of(sandbox, "b"))  # someone else's of the same project, not tagged
    container = engine.container(6, mounts_of(sandbox, "b"), env=[f"TAOPROF_RUN={hold.id}"])
    until(engine.listeners, "the run listens")
    engine.event("start", container)
    record = sandbox.records / f"{hold.id}.json"
    until(lambda: json.loads(record.read_text())["container"] == container, "the run has noted its container")
    del engine.containers[next(iter(engine.containers))]
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(20)
    until(lambda: gone(tao.pid()), "all are gone")
    return hold.id, container


def test_a_container_with_a_run_tag_belongs_to_its_run(sandbox: Sandbox, engine: FakeEngine) -> None:
    hold_id, container = bound_run(sandbox, engine)
    (hold,) = manage.active_holds(context(sandbox, engine)).holds
    assert (hold.id, hold.kind, hold.container, hold.phase) == (hold_id, "run", container, "bound")
    assert use(sandbox, engine).changed, "it does not need the shared file"
    engine.containers.clear()
    assert manage.active_holds(context(sandbox, engine)).holds == []
    assert list(sandbox.records.iterdir()) == []


@pytest.mark.parametrize("how", SOME_FAULTS)
@pytest.mark.usefixtures("short_timeout")
def test_a_run_whose_death_cannot_be_proved_counts(sandbox: Sandbox, engine: FakeEngine, how: str) -> None:
    hold_id, _ = bound_run(sandbox, engine, "--shared")
    engine.rules["/"] = FAULTS[how](engine)
    assert [holder["id"] for holder in refused(sandbox, engine, "a")] == [hold_id]
    assert [hold.id for hold in manage.active_holds(context(sandbox, engine)).holds] == [hold_id]
    engine.rules.clear()
    engine.containers.clear()
    assert use(sandbox, engine, "a").changed


@pytest.mark.usefixtures("short_timeout")
def test_a_pending_run_whose_container_cannot_be_seen_counts(sandbox: Sandbox, engine: FakeEngine) -> None:
    engine.rules["/"] = answering(b"HTTP/1.0 500 Oops\r\n\r\n{}")
    _, run = sandbox.in_run("b", "--shared", environ=engine.environ)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(20)
    assert len(refused(sandbox, engine, "a")) == 1, "it may have started a container in the meantime"
    engine.rules.clear()
    assert use(sandbox, engine, "a").changed


def test_a_run_counts_whose_container_cannot_be_inspected(sandbox: Sandbox, engine: FakeEngine) -> None:
    """The list comes, and the question whose the container is finds no answer: the record stays."""
    hold_id, container = bound_run(sandbox, engine, "--shared")
    path = sandbox.records / f"{hold_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "container": None, "phase": "pending"}))
    engine.rules[f"/containers/{container}/"] = answering(b"HTTP/1.0 500 Oops\r\n\r\n{}")
    refused(sandbox, engine, "a")
    engine.rules.clear()
    assert [holder["id"] for holder in refused(sandbox, engine, "a")] == [hold_id]


def test_a_bound_run_counts_while_its_engine_restarts(sandbox: Sandbox, engine: FakeEngine) -> None:
    """With live-restore containers go on while dockerd is down, and its socket is away for that time."""
    hold_id, _ = bound_run(sandbox, engine, "--shared")
    aside = engine.path.rename(engine.path.with_name("aside"))
    assert [holder["id"] for holder in refused(sandbox, engine, "a")] == [hold_id]
    aside.rename(engine.path)
    assert [holder["id"] for holder in refused(sandbox, engine, "a")] == [hold_id]


def test_a_bound_run_is_searched_on_its_own_engine(sandbox: Sandbox, engine: FakeEngine) -> None:
    """DOCKER_HOST was set for the run, and is not in the shell of the switch."""
    hold_id, _ = bound_run(sandbox, engine, "--shared")
    with FakeEngine(sandbox.folder) as other:
        assert [holder["id"] for holder in refused(sandbox, other, "a")] == [hold_id]


def test_a_container_on_a_remote_engine_outlives_the_reboot_of_its_client(sandbox: Sandbox, engine: FakeEngine) -> None:
    hold_id, _ = bound_run(sandbox, engine, "--shared")
    path = sandbox.records / f"{hold_id}.json"
    record = json.loads(path.read_text())
    name, machine, _, namespace = record["place"].split(" ")
    path.write_text(json.dumps({**record, "place": f"{name} {machine} another-boot {namespace}"}))
    assert len(refused(sandbox, engine, "a")) == 1


def test_stop_asks_the_engine_for_the_runs_container_alone(sandbox: Sandbox, engine: FakeEngine) -> None:
    hold_id, container = bound_run(sandbox, engine)
    sandbox.run("stop", hold_id, check=True, environ=engine.environ)
    assert [path for path in engine.asked if "/stop" in path] == [f"/containers/{container}/stop?t=10"]
    engine.rules[f"/containers/{container}/stop"] = answering(b"HTTP/1.0 500 Oops\r\n\r\n{}")
    one_clear_error(sandbox.run("stop", hold_id, environ=engine.environ), 1)


# The stream of events


class Watched:
    """A monitor in this process."""

    def __init__(self, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.appeared: list[dict[str, Any]] = []
        self.ticks = 0
        self.faults: list[object] = []
        monkeypatch.setattr(threading, "excepthook", self.faults.append)
        self.monitor = Monitor(engine.environ, "abcde", appeared=self.appeared.append, tick=self._tick)
        self.monitor.start()
        assert self.monitor.listening.wait(5)

    def _tick(self) -> None:
        self.ticks += 1

    def wait_for_exit(self, seconds: float = 3) -> None:
        """Wait until the container is over, or the watch is."""
        over = lambda: self.faults or any(one.over for one in self.monitor.containers)  # noqa: E731
        until(over, "the container is over", seconds=seconds, details=lambda: self.monitor.problem)
        assert self.faults == []

    def status(self) -> int | None:
        (container,) = self.monitor.containers
        return container.status


@pytest.fixture
def tagged(engine: FakeEngine) -> str:
    return engine.container(1, {"/x": "/y"}, env=["TAOPROF_RUN=abcde"])


@pytest.fixture
def watched(engine: FakeEngine, tagged: str, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(engine, monkeypatch)


def send_events_of_a_task(engine: FakeEngine, container: str, status: int) -> None:
    for action in ("create", "start", "exec_create: /bin/bash", "exec_start: /bin/bash"):
        engine.event(action, container)
    engine.event("exec_die", container, exitCode=str(status))
    engine.event("die", container, exitCode="137")
    engine.event("destroy", container)


@pytest.mark.parametrize("tear", [1, 7, 1 << 20])
def test_events_in_pieces(engine: FakeEngine, watched: Watched, tagged: str, tear: int) -> None:
    engine.tear = tear
    other = engine.container(2, {"/x": "/y"})
    send_events_of_a_task(engine, other, 9)
    send_events_of_a_task(engine, tagged, 3)
    watched.wait_for_exit()
    assert watched.status() == 3
    assert [seen["Id"] for seen in watched.appeared] == [tagged]


def test_waiting_for_a_container_asks_the_engine_twice_a_second(sandbox: Sandbox, engine: FakeEngine) -> None:
    engine.container(1, mounts_of(sandbox, "a"))
    before = len(engine.asked)
    with pytest.raises(HeldError):
        wait_until_free(
            context(sandbox, engine), "use", lambda: use(sandbox, engine), seconds=1.2, say=lambda text: None
        )
    lists = [path for path in engine.asked[before:] if path.startswith("/containers/json")]
    assert 2 <= len(lists) <= 4, "once at first, and then each half second"


STREAMS: dict[str, tuple[int, list[tuple[str, dict[str, Any]]]]] = {
    # A shell that is opened in it while it trains, or a health check, is not the task.
    "another exec": (
        0,
        [
            ("start", {}),
            ("exec_start: detectnet_v2", {"execID": "aa"}),
            ("exec_start: bash", {"execID": "bb"}),
            ("exec_die", {"execID": "aa", "exitCode": "0"}),
            ("exec_die", {"execID": "bb", "exitCode": "137"}),
            ("die", {"exitCode": "137"}),
        ],
    ),
    # As Podman 4.3.1 sends them over its Docker API: it has other names for some, and each has an exit code.
    "Podman": (
        3,
        [
            *((action, {"containerExitCode": "0"}) for action in ("create", "init", "start", "exec")),
            ("exec_died", {"containerExitCode": "3"}),
            ("die", {"containerExitCode": "0", "exitCode": "0"}),
            ("remove", {"containerExitCode": "0"}),
        ],
    ),
    # With CI_PROJECT_DIR the launcher uses docker run (run_container_on_ci): there is no exec, only die.
    "docker run": (0, [("start", {}), ("die", {"exitCode": "0"}), ("destroy", {})]),
    # By a minute, while a training of hours goes on.
    "a clock set back": (
        3,
        [("start", {}), ("exec_die", {"stamp": -60 * 10**9, "exitCode": "3"}), ("die", {"stamp": 10 - 60 * 10**9})],
    ),
    "one time": (3, [("start", {"stamp": 0}), ("exec_die", {"stamp": 0, "exitCode": "3"}), ("die", {"stamp": 0})]),
}
"""Events of a run's container, and the status of its task; stamps are in nanoseconds from now."""


@pytest.mark.parametrize("name", STREAMS)
def test_the_status_of_the_task(engine: FakeEngine, watched: Watched, tagged: str, name: str) -> None:
    (status, events), now = STREAMS[name], time.time_ns()
    for action, about in events:
        engine.event(action, tagged, **{**about, **({"stamp": now + about["stamp"]} if "stamp" in about else {})})
    watched.wait_for_exit()
    assert [(container.status, container.over) for container in watched.monitor.containers] == [(status, True)]


@pytest.mark.parametrize("when", ["before the start", "after the start", "after exec_die"])
def test_a_stream_that_breaks_and_comes_back(engine: FakeEngine, watched: Watched, tagged: str, when: str) -> None:
    """Events of the break are replayed, and none counts twice."""

    def broken() -> None:
        before = engine.listeners()
        engine.cut()
        if when == "before the start":
            return  # the events come while nobody listens
        until(lambda: engine.listeners() > before, "it listens again")

    if when == "before the start":
        broken()
    engine.event("start", tagged)
    if when == "after the start":
        broken()
    engine.event("exec_start: x", tagged)
    engine.event("exec_die", tagged, exitCode="3")
    if when == "after exec_die":
        broken()
    engine.event("die", tagged, exitCode="137")
    watched.wait_for_exit()
    (container,) = watched.monitor.containers
    assert (container.status, container.over) == (3, True)
    assert len(watched.appeared) == 1


def test_the_last_of_several_tasks_counts_once(engine: FakeEngine, watched: Watched, tagged: str) -> None:
    engine.event("start", tagged)
    for status in ("3", "0"):
        engine.event("exec_start: x", tagged)
        engine.event("exec_die", tagged, exitCode=status)
    until(lambda: watched.monitor.containers and watched.status() == 0, "the second one is seen")
    before = engine.listeners()
    engine.cut()
    until(lambda: engine.listeners() > before, "it listens again")
    engine.event("die", tagged)
    watched.wait_for_exit()
    assert watched.status() == 0, "the first one's end, told again, came too late to count"


def test_events_that_are_not_in_order(engine: FakeEngine, watched: Watched, tagged: str) -> None:
    """Two containers' events are stamped first and sent then, so one may overtake the other."""
    now = time.time_ns()
    other = engine.container(2, {"/x": "/y"})
    engine.event("start", tagged, stamp=now)
    engine.event("exec_start: x", tagged, stamp=now + 10)
    engine.event("die", other, stamp=now + 50)
    engine.event("exec_die", tagged, stamp=now + 40, exitCode="3")
    engine.event("die", tagged, stamp=now + 60)
    watched.wait_for_exit()
    assert watched.status() == 3


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b"not JSON\n",
        b'{"id": 5, "timeNano": 5}\n',
        b'{"id": "x", "timeNano": "soon"}\n',
        b'{"id": "x", "timeNano": 5, "Action": "start", "Actor": [1]}\n',
        b'{"id": "x", "timeNano": 5, "Action": 7, "Actor": {"Attributes": 5}}\n',
    ],
)
def test_an_invalid_event_does_not_end_the_monitor(
    engine: FakeEngine, watched: Watched, tagged: str, line: bytes
) -> None:
    engine.raw_event(line)
    send_events_of_a_task(engine, tagged, 3)
    watched.wait_for_exit()
    assert watched.status() == 3


@pytest.mark.parametrize("seen", [[], {}, {"Config": 5}, {"Config": {"Env": 5}}, None], ids=json.dumps)
def test_an_invalid_answer_about_a_container_does_not_end_the_monitor(
    engine: FakeEngine, watched: Watched, tagged: str, seen: object
) -> None:
    odd = engine.container(2, {})
    engine.rules[f"/containers/{odd}/"] = lambda connection: answer(connection, seen)
    engine.event("start", odd)
    send_events_of_a_task(engine, tagged, 3)
    watched.wait_for_exit()
    assert watched.status() == 3


@pytest.mark.parametrize("how", ["hangs on connect", "garbage", "nothing"] if ALL else ["garbage"])
def test_a_run_with_a_broken_engine(sandbox: Sandbox, engine: FakeEngine, how: str) -> None:
    """The start does not wait for long; a success that cannot be seen counts as failed, and it says so."""
    engine.rules["/"] = FAULTS[how](engine)
    tao, run = sandbox.in_run("b", environ=engine.environ)
    tao.end()
    out, _ = run.communicate(timeout=20)
    assert run.returncode == 1, out
    assert "the exit status of the task is unknown" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("status", [0, 3])
def test_the_exit_status_is_the_engines(sandbox: Sandbox, engine: FakeEngine, status: int) -> None:
    tao, run = sandbox.in_run("b", environ=engine.environ)
    (hold,) = manage.active_holds(context(sandbox, engine)).holds
    container = engine.container(1, mounts_of(sandbox, "b"), env=[f"TAOPROF_RUN={hold.id}"])
    send_events_of_a_task(engine, container, status)
    until(lambda: any(container in path for path in engine.asked), "the run has asked for its container")
    del engine.containers[container]
    tao.end()
    out, _ = run.communicate(timeout=20)
    assert run.returncode == status, out
    assert json.loads(sandbox.run("history", "--json").stdout)["data"]["runs"][0]["status"] == status


def test_differences_of_the_container_are_reported_at_once(sandbox: Sandbox, engine: FakeEngine) -> None:
    tao, run = sandbox.in_run("b", environ=engine.environ)
    (hold,) = manage.active_holds(context(sandbox, engine)).holds
    container = engine.container(1, mounts_of(sandbox, "a"), env=[f"TAOPROF_RUN={hold.id}"])
    until(engine.listeners, "the run listens")
    engine.event("start", container)
    assert run.stdout is not None
    told = run.stdout.readline()
    assert "none of the profile's folders is mounted" in told
    assert container[:6] in told
    engine.event("exec_die", container, exitCode="0")
    engine.event("die", container)
    del engine.containers[container]
    tao.end()
    assert run.wait(20) == 0
