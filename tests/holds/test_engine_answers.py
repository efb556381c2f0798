"""Engines that hang, lie, break or have others' containers: bounded, correct, and what could not be seen is told."""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from taoprofiles.holds import manage
from taoprofiles.holds.hold import HeldError
from taoprofiles.holds.records import HoldRecords
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch
from taoprofiles.switching.switch import SwitchResult
from taoprofiles.system.engine import Engine, EngineError
from tests.support.commands import CommandResult, call, one_clear_error
from tests.support.engine import until
from tests.support.home import ALL
from tests.support.sandbox import FakeEngine, Sandbox, answer, kill_run, mounts_of
from tests.support.stand_ins import driver
from tests.support.stand_ins import gpus as gpus_of_machine

LONGEST = 20.0  # an engine that hangs does so for 30 s
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
ERROR = b'HTTP/1.0 500 Oops\r\n\r\n{"message": "out of order"}'
Serve = Callable[[FakeEngine, socket.socket], None]


def use(sandbox: Sandbox, name: str = "b") -> SwitchResult:
    """Switch in this process."""
    return switch.switch_profile(sandbox.context, name)


def hanging(first: bytes = b"") -> Serve:
    """Answer that much, and then no more."""

    def serve(engine: FakeEngine, connection: socket.socket) -> None:
        connection.sendall(first)
        engine.over.wait(30)

    return serve


def endless(first: bytes, more: bytes) -> Serve:
    def serve(engine: FakeEngine, connection: socket.socket) -> None:
        connection.sendall(first)
        while not engine.over.is_set():
            connection.sendall(more)

    return serve


def slowly(engine: FakeEngine, connection: socket.socket) -> None:
    """Answer a byte at a time: each one comes soon, the whole never does."""
    for byte in HEAD + b"[" + b" " * 100 + b"]":
        connection.sendall(bytes([byte]))
        if engine.over.wait(0.5):
            return


# What a switch does under each

FAULTS: dict[str, Serve | bytes] = {
    "hangs on connect": hanging(),
    "hangs after the headers": hanging(HEAD),
    "hangs in its headers": hanging(HEAD[:20]),
    "hangs in its answer": hanging(HEAD + b'[{"Id": "ab'),
    "a byte at a time": slowly,
    "an endless answer": endless(HEAD, b" " * 65536),
    "endless headers": endless(b"HTTP/1.0 200 OK\r\n", b"X-Y: z\r\n" * 8192),
    "garbage": os.urandom(512),
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "status 500": ERROR,
    "status 403": b"HTTP/1.0 403 Forbidden\r\n\r\n",
    "status that is none": b"HTTP/1.0 abc\r\n\r\n[]",
    "headers alone": HEAD,
    "not JSON": HEAD + b"<html>proxy</html>",
    "half of its answer": HEAD + b'[{"Id": "ab',
    "JSON nested too deeply": HEAD + b"[" * 100_000 + b"]" * 100_000,
    "an object": HEAD + b'{"message": "hello"}',
    "null": HEAD + b"null",
    "text": HEAD + b'"containers"',
}


def breaks(engine: FakeEngine, fault: str, path: str = "/") -> None:
    """Make the engine answer so whatever is asked below ``path``."""
    serve = FAULTS[fault]
    if isinstance(serve, bytes):
        engine.rules[path] = lambda connection: connection.sendall(serve)
    else:
        engine.rules[path] = lambda connection: serve(engine, connection)


SOME_FAULTS = list(FAULTS) if ALL else ["hangs on connect", "garbage", "status 500", "an object", "hangs in its answer"]


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the engine's timeout in this process, to test more in less time."""
    monkeypatch.setattr(Engine.__init__, "__defaults__", (0.3, None))


def check_switched(done: CommandResult, engine: FakeEngine) -> None:
    """Check that it switched, since nothing that can be seen is in the way, and said what it could not look at."""
    assert (done.status, done.out) == (0, "switched from 'a' to 'b'\n"), done.err
    (warning,) = [line for line in done.err.splitlines() if line]
    assert warning.startswith(f"taoprof: warning: cannot query the container engine at {engine.address}: ")
    assert warning.isprintable()


@pytest.mark.parametrize("how", SOME_FAULTS)
@pytest.mark.usefixtures("short_timeout")
def test_commands_with_a_broken_engine(sandbox: Sandbox, fake_engine: FakeEngine, how: str) -> None:
    """It switches soon; a launcher that can be seen holds all the same."""
    breaks(fake_engine, how)
    began = time.monotonic()
    check_switched(call(sandbox, "use", "b"), fake_engine)
    done = call(sandbox, "status")
    assert (done.status, fake_engine.address in done.err) == (0, True)
    _, process = sandbox.plain()
    assert [holder["pid"] for holder in sandbox.refused_here("a")] == [process.pid]
    assert time.monotonic() - began < LONGEST


def test_the_real_time_limit_with_a_broken_engine(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    breaks(fake_engine, "an endless answer")
    began = time.monotonic()
    done = sandbox.run("use", "b")
    assert time.monotonic() - began < LONGEST
    check_switched(CommandResult(done.returncode, done.stdout, done.stderr), fake_engine)


def test_no_engine(sandbox: Sandbox) -> None:
    """There is nothing to warn of where there is none; whatever else DOCKER_HOST names is no reason not to switch."""
    (sandbox.folder / "file").touch()
    with socket.socket(socket.AF_UNIX) as server, socket.create_server(("127.0.0.1", 0)) as tcp_server:
        server.bind(str(sandbox.folder / "stale"))
        port = tcp_server.getsockname()[1]
    folder = sandbox.folder
    for address, warning in {
        **dict.fromkeys((f"unix://{folder}/none", f"unix://{folder}/none/none", f"unix://{folder}/file/none"), ""),
        **dict.fromkeys((f"unix://{folder}/stale", f"tcp://127.0.0.1:{port}"), "connection refused"),
        "unix://": "invalid argument",
        f"unix://{folder}/{'x' * 108}": "path too long",
        **dict.fromkeys(("what", "unix:", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:x"), None),
        "npipe:////./pipe/docker": "has a scheme that taoprof does not support",
    }.items():
        switch.switch_profile(sandbox.context, "a")
        done = call(sandbox, "use", "b", environ={"DOCKER_HOST": address})
        assert (done.status, "Traceback" in done.err) == (0, False), (address, done.err)
        assert warning is None or warning in done.err, address
        assert warning != "" or done.err == "", address


def test_no_engine_at_an_address_that_no_file_can_have(sandbox: Sandbox) -> None:
    with pytest.raises(EngineError) as raised:
        Engine({}, address="unix:///a\0b").containers()  # of a damaged hold record
    assert raised.value.absent


@pytest.mark.parametrize(
    "address", ["unix:///\ud800", "tcp://\ud800:1", "tcp://h:²", "ssh://\ud800", "ssh://a\0b"], ids=ascii
)
def test_a_hold_record_with_an_address_that_is_none(sandbox: Sandbox, address: str) -> None:
    hold_id = json.loads(sandbox.run("hold", "--reason", "x", "--json", check=True).stdout)["data"]["id"]
    path = sandbox.records / f"{hold_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "kind": "run", "engine": address}))
    done = call(sandbox, "status")
    assert done.status == 0
    assert "is not an address" in done.err
    assert hold_id in done.out, "what cannot be asked about counts as alive"


@pytest.fixture
def denied_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that this user may not ask; simulated, since root may ask each one."""

    def connect(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("taoprofiles.system.engine.Engine._connect", connect)


@pytest.mark.usefixtures("denied_engine")
def test_an_engine_without_permission(sandbox: Sandbox) -> None:
    (warning,) = switch.switch_profile(sandbox.context, "b").unchecked
    assert ": permission denied" in warning


@pytest.fixture
def killed_run(sandbox: Sandbox, denied_engine: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose process is gone, and an engine that this user may not ask."""
    tao, run = sandbox.in_run("b")
    kill_run(tao, run)
    monkeypatch.setattr("taoprofiles.system.processes.container_starts", lambda: None)
    (record,) = HoldRecords(sandbox.context).all()
    return record.id


OLD, NEW = "0f" * 32, "1e" * 32


@pytest.mark.parametrize(
    ("container", "starts", "is_held"),
    [
        (None, None, True),
        (None, {}, False),
        (None, {OLD: 5}, False),
        (None, {OLD: 5, NEW: 1 << 40}, True),
        (OLD, {OLD: 5}, True),
        (OLD, {NEW: 1 << 40}, False),
        (OLD, None, True),
    ],
)
def test_a_killed_run_where_the_engine_may_not_be_asked(
    sandbox: Sandbox, killed_run: str, monkeypatch: pytest.MonkeyPatch, *,
    container: str | None, starts: dict[str, int] | None, is_held: bool,
) -> None:  # fmt: skip
    """It ends when the processes of this machine show that it has no container, also one that was never recorded."""
    record = HoldRecords(sandbox.context).get(killed_run)
    assert record is not None
    record.container = container
    HoldRecords(sandbox.context).write(record)
    monkeypatch.setattr("taoprofiles.system.processes.container_starts", lambda: starts)
    done = call(sandbox, "--json", "status")
    assert [hold["id"] for hold in done.envelope["data"]["holds"]] == [killed_run] * is_held
    is_unproved = is_held and not (container and starts)
    assert (f"taoprof release {killed_run}" in str(done.envelope["messages"])) == is_unproved
    assert [run.status for run in HoldRecords(sandbox.context).ended_runs()] == [None] * (not is_held)


def test_release_ends_a_hold_without_a_process(sandbox: Sandbox, killed_run: str) -> None:
    """The engine cannot say whether the run has a container: only 'release' ends the hold."""
    for words, status in ((["stop", killed_run], 2), (["uninstall", "--yes"], 5)):
        done = call(sandbox, *words)
        assert (done.status, f"taoprof release {killed_run}" in done.err.splitlines()[-1]) == (status, True)
    done = call(sandbox, "release", killed_run)
    one_clear_error(done, 2)
    assert f"the process of training {killed_run} has ended, but a container of it may still be running" in done.err
    assert call(sandbox, "release", killed_run, "--yes").out == f"hold {killed_run} released\n"
    assert (sandbox.holds(), list(sandbox.records.iterdir())) == ([], [])
    assert [run.id for run in HoldRecords(sandbox.context).ended_runs()] == [killed_run]
    assert call(sandbox, "uninstall", "--yes").status == 0


def test_an_engine_by_tcp(sandbox: Sandbox) -> None:
    with FakeEngine(sandbox.folder, tcp=True) as engine:
        engine.container(1, mounts_of(sandbox, "a"))
        sandbox.context = Context({**sandbox.environ, **engine.environ})
        assert [holder["phase"] for holder in sandbox.refused_here("b")] == ["bound"]
        engine.containers.clear()
        assert use(sandbox).unchecked == []


CONTAINER_ID = "ab" * 32


LISTS: list[object] = [
    [1, None, "x", []],
    [{}],
    [{"Id": 5}],
    *([{"Id": CONTAINER_ID, "Mounts": mounts}] for mounts in ("x", 7, ["x", 5, None])),
    [{"Id": CONTAINER_ID, "Mounts": [{"Type": "bind", "Source": 5, "Destination": []}]}],
    [{"Id": CONTAINER_ID, "Mounts": [{"Type": "bind", "Source": ["x"], "Destination": "y"}]}],
    [{"Id": "../../images/x\r\n", "Mounts": [{"Type": "bind", "Source": "/x", "Destination": "y"}]}],
]
CONTAINERS: list[dict[str, Any]] = [
    *({"Config": config} for config in ([1], {"Env": 5}, {"Env": [5, None]}, {"User": 5})),
    *({"HostConfig": config} for config in ([1], {"DeviceRequests": 5}, {"DeviceRequests": [5, None]})),
    {"Created": "yesterday"},
    {"Image": 5},
]


def test_answers_of_the_wrong_shape(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    """A container may count or not, but nothing breaks."""
    names = itertools.cycle("ba")
    for listed in LISTS:
        fake_engine.rules["/containers/json"] = lambda connection, listed=listed: answer(connection, listed)
        use(sandbox, next(names))
    fake_engine.rules.clear()
    container = fake_engine.container(1, mounts_of(sandbox, "a"))
    whole = dict(fake_engine.containers[container])
    for wrong in CONTAINERS:
        switch.switch_profile(sandbox.context, "a")
        fake_engine.containers[container] = {**whole, **wrong}
        try:
            use(sandbox)
        except HeldError as error:
            assert [holder["container"] for holder in error.more["holders"]] == [container], wrong


@pytest.mark.usefixtures("short_timeout")
def test_many_containers_that_cannot_be_inspected(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    """The list comes, what each of them is does not: the time for all of them is bounded, and all of them count."""
    ids = [fake_engine.container(n, mounts_of(sandbox, "a")) for n in range(1, 100)]
    for container in ids:
        breaks(fake_engine, "hangs on connect", f"/containers/{container}/")
    began = time.monotonic()
    holders = sandbox.refused_here("b")
    seconds = time.monotonic() - began
    assert {holder["container"] for holder in holders} == set(ids)
    assert seconds < 20, f"{seconds:.1f} s with a patience of 0.3 s"


# Whose containers count


def test_a_launchers_container_holds(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    container = fake_engine.container(1, mounts_of(sandbox, "a"), image="nvcr.io/x:1")
    (holder,) = sandbox.refused_here("b")
    assert (holder["container"], holder["phase"], holder["kind"], holder["image"], holder["profile"]) == (
        *(container, "bound", "found", "nvcr.io/x:1"),
        "a",
    )
    assert use(sandbox, "a").changed is False
    fake_engine.containers.clear()
    assert use(sandbox).changed


TAO = "nvcr.io/nvidia/tao/tao-toolkit:6.26.3-pyt"


@pytest.mark.parametrize(
    ("about", "is_ours"),
    [
        ({}, True),
        ({"count": 0}, False),
        ({"count": 2}, False),
        ({"count": None}, False),
        # Podman keeps no requests for GPUs.
        ({"count": None, "env": ["TAO_CLIENT_TYPE=launcher"]}, True),
        ({"count": None, "config_image": TAO}, True),
        ({"env": ["TAOPROF_RUN=zzzzz"]}, False),
        *(({"user": user}, True) for user in ("1234", "1234:1234", "", "0")),
        *(({"user": user}, False) for user in ("4321", "4321:1234")),
    ],
    ids=str,
)
def test_whose_container_counts(
    sandbox: Sandbox, fake_engine: FakeEngine, about: dict[str, Any], is_ours: bool
) -> None:
    """A plain launcher's, of this user."""
    sandbox.context.uid = 1234
    container = fake_engine.container(1, mounts_of(sandbox, "a"), **about)
    if "config_image" in about:
        fake_engine.containers[container]["Config"]["Image"] = about["config_image"]
    if is_ours:
        assert [holder["container"] for holder in sandbox.refused_here("b")] == [container]
    else:
        assert use(sandbox).changed


def test_a_container_with_more_or_fewer_mounts(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    (source,) = mounts_of(sandbox, "a")
    fake_engine.container(1, {source: "/elsewhere"})
    fake_engine.container(2, {"/other": "/workspace/tao-experiments"})
    fake_engine.container(3, {})
    assert use(sandbox).changed
    switch.switch_profile(sandbox.context, "a")
    fake_engine.container(4, {**mounts_of(sandbox, "a"), "/home/x/.cache": "/cache"})
    assert len(sandbox.refused_here("b")) == 1, "one folder more, by the launcher's own doing, and it is still ours"


def test_other_peoples_containers_block_nothing_and_are_shown(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    """With their GPUs, and without the names of their files and images."""
    mounts = {"/home/eva/secret-project": "/workspace/tao-experiments"}
    theirs = fake_engine.container(7, mounts, image="eva/private:1", user="65534:65534")
    env = ["CUDA_VISIBLE_DEVICES=0,1", "TAOPROF_RUN=other", "SECRET=secret-value"]
    fake_engine.container(6, mounts, count=0, env=env)
    fake_engine.container(5, mounts, count=0)
    done = sandbox.run("use", "b")
    assert (done.returncode, done.stderr) == (0, "")
    done = sandbox.run("status")
    assert "secret" not in done.stdout + done.stderr
    assert "private" not in done.stdout + done.stderr
    assert f"{theirs[:6]}     all" in done.stdout
    others = sandbox.json("status")["data"]["others"]
    assert [(other["user"], other["gpus"]) for other in others] == [("nobody", "all"), ("", ["0", "1"])]


@pytest.mark.parametrize(("count", "gpus"), [("2", "2,3"), ("3", "0,2,3")])
def test_gpus_that_another_user_has_reserved_are_taken_last(
    sandbox: Sandbox, fake_engine: FakeEngine, count: str, gpus: str
) -> None:
    fake_engine.container(6, {"/home/eva/x": "/data"}, env=["CUDA_VISIBLE_DEVICES=0,1"])
    driver(sandbox, gpus_of_machine(4))
    done = sandbox.run("run", "b", "--gpus", count, "--json", "--", "true")
    assert ",".join(json.loads(done.stdout)["data"]["gpus"]) == gpus, done.stderr


# Runs and their containers


def bound_run(sandbox: Sandbox, fake_engine: FakeEngine, *options: str) -> tuple[str, str]:
    """Start a run with a container, and kill every process of it; return the hold's id and the container."""
    tao, run = sandbox.in_run("b", *options)
    (hold,) = manage.active_holds(sandbox.context).holds
    fake_engine.container(5, mounts_of(sandbox, "b"))  # someone else's of the same project, not tagged
    container = fake_engine.container(6, mounts_of(sandbox, "b"), env=[f"TAOPROF_RUN={hold.id}"])
    until(fake_engine.listeners, "the run listens")
    fake_engine.event("start", container)
    record = sandbox.records / f"{hold.id}.json"
    until(lambda: json.loads(record.read_text())["container"] == container, "the run has noted its container")
    until(lambda: not list(sandbox.records.glob(".taoprof-*")), "the record is written")
    del fake_engine.containers[next(iter(fake_engine.containers))]
    kill_run(tao, run)
    return hold.id, container


def test_a_container_with_a_run_tag_belongs_to_its_run(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    hold_id, container = bound_run(sandbox, fake_engine)
    (hold,) = manage.active_holds(sandbox.context).holds
    assert (hold.id, hold.kind, hold.container, hold.phase) == (hold_id, "run", container, "bound")
    assert use(sandbox).changed, "it does not need the mapping file"
    sandbox.run("stop", hold_id, check=True)
    assert [path for path in fake_engine.asked if "/stop" in path] == [f"/containers/{container}/stop?t=10"]
    with FakeEngine(sandbox.folder) as other:  # DOCKER_HOST was set for the run, and is not in this shell
        assert sandbox.run("stop", hold_id, environ=other.environ).stdout.endswith(f"{container[:6]} stopped\n")
        assert not any("/stop" in path for path in other.asked)
    breaks(fake_engine, "status 500", f"/containers/{container}/stop")
    one_clear_error(sandbox.run("stop", hold_id), 1)
    fake_engine.containers.clear()
    assert manage.active_holds(sandbox.context).holds == []
    assert list(sandbox.records.iterdir()) == []


@pytest.mark.usefixtures("short_timeout")
def test_a_run_whose_death_cannot_be_proved_counts(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    hold_id, container = bound_run(sandbox, fake_engine, "--shared")
    path = sandbox.records / f"{hold_id}.json"
    record = json.loads(path.read_text())

    def assert_held(reason: str) -> None:
        assert hold_id in [holder["id"] for holder in sandbox.refused_here("a")], reason
        assert hold_id in [hold.id for hold in manage.active_holds(sandbox.context).holds], reason
        fake_engine.rules.clear()

    for how in SOME_FAULTS:
        breaks(fake_engine, how)
        assert_held(how)
    # With live-restore containers go on while dockerd is down, and its socket is away for that time.
    aside = fake_engine.path.rename(fake_engine.path.with_name("aside"))
    assert_held("its engine restarts")
    aside.rename(fake_engine.path)
    own = sandbox.context
    with FakeEngine(sandbox.folder) as other:
        sandbox.context = Context({**sandbox.environ, **other.environ})
        assert_held("DOCKER_HOST was set for the run, and is not in the shell of the switch")
    sandbox.context = own
    path.write_text(json.dumps({**record, "container": None, "phase": "pending"}))
    breaks(fake_engine, "status 500")
    assert_held("it may have started a container since it was recorded")
    breaks(fake_engine, "status 500", f"/containers/{container}/")
    assert_held("the list comes, and whose the container is does not")
    name, machine, _, namespace = record["place"].split(" ")
    path.write_text(json.dumps({**record, "place": f"{name} {machine} another-boot {namespace}"}))
    assert_held("the container is on a remote engine, and its client was rebooted")
    path.write_text(json.dumps(record))
    fake_engine.containers.clear()
    assert use(sandbox, "a").changed
