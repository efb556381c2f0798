"""Two hosts on one home: namespaces play the other one. Its holds count until it says otherwise or its lease runs out.

This host is the process of the tests. What an old look has seen is kept by host, so it must stay one and the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.holds import liveness
from taoprofiles.holds.hold import HeldError, Hold
from taoprofiles.holds.records import HoldRecords
from taoprofiles.runs.start import RunOptions, prepare
from taoprofiles.storage.locks import Lock
from taoprofiles.switching import switch
from taoprofiles.system import processes
from tests.support.commands import call
from tests.support.engine import until
from tests.support.home import require
from tests.support.sandbox import Sandbox

LEASE, BEAT = 1.5, 0.2
NAME = "host-a"
ELSEWHERE = f"{NAME} 0123456789abcdef0123456789abcdef 11111111-2222-3333-4444-555555555555 4026531836"

HOST = f"""
import socket, sys
from taoprofiles.cli.main import main
from taoprofiles.holds import liveness
from taoprofiles.runs import run
socket.sethostname({NAME!r})
liveness.LEASE, liveness.HEARTBEAT, run.HEARTBEAT = {LEASE}, {BEAT}, {BEAT}
main()
"""
SPACES = ("--uts", "--pid", "--net", "--mount", "--fork", "--mount-proc", "--kill-child")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setattr(liveness, "LEASE", LEASE)
    with Sandbox(tmp_path) as sandbox:
        yield sandbox.profiles_named("a", "b")


@pytest.fixture
def spaces() -> str:
    unshare = shutil.which("unshare")
    require(os.geteuid() == 0 and unshare, "namespaces need root and unshare")
    assert unshare is not None
    tried = subprocess.run([unshare, *SPACES, "true"], capture_output=True, text=True, timeout=20)
    require(tried.returncode == 0, f"no namespaces here: {tried.stderr}")
    return unshare


def on_a(sandbox: Sandbox, spaces: str, *words: str, script: str = "", **options: Any) -> subprocess.Popen[str]:
    """Run a command on host A; with ``script`` that is run in a shell there, and taoprof is "$@"."""
    shell = ("sh", "-c", script, "sh") if script else ()
    return sandbox.start(spaces, *SPACES, *shell, sys.executable, "-c", HOST, *words, **options)


def hold_on_a(sandbox: Sandbox, spaces: str, *options: str) -> subprocess.Popen[str]:
    """Hold the file on A, and let A go on afterwards."""
    script = 'sleep 1000 & "$@" --pid $! && exec sleep 1000' if options == ("--pid",) else '"$@" && exec sleep 1000'
    words = ("hold", "--reason", "a demo on A", *(options if options != ("--pid",) else ()))
    host = on_a(sandbox, spaces, *words, script=script, stdout=subprocess.PIPE)
    assert host.stdout is not None
    assert "held" in host.stdout.readline()
    return host


def run_on_a(sandbox: Sandbox, spaces: str, *options: str) -> tuple[Any, subprocess.Popen[str]]:
    tao = sandbox.new_tao()
    host = on_a(sandbox, spaces, "run", *options, "--", "tao", "model", "unet", "evaluate", environ=tao.environ)
    tao.pid()
    return tao, host


def switches(sandbox: Sandbox, name: str) -> bool:
    try:
        switch.switch_profile(sandbox.context, name)
    except HeldError:
        return False
    return True


def sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, "some time has passed", seconds=seconds + 5)


def vanish(host: subprocess.Popen[str]) -> float:
    """Switch the host off, without a word; return the time."""
    host.kill()
    host.wait(20)
    return time.monotonic()


def test_a_run_on_another_host(sandbox: Sandbox, spaces: str) -> None:
    tao, host = run_on_a(sandbox, spaces, "b", "--shared")
    (holder,) = sandbox.refused_here("a")
    assert (holder["host"], holder["kind"]) == (NAME, "run")
    assert f"on {NAME}" in call(sandbox, "use", "a").err
    done = call(sandbox, "stop", holder["id"])
    assert (done.status, "stop it there" in done.err) == (2, True)
    assert switch.switch_profile(sandbox.context, "b").changed is False, "the same mapping is no conflict"
    sleep(1.5 * LEASE)
    sandbox.refused_here("a")  # it is renewed for as long as it runs
    tao.end(4)
    assert host.wait(20) == 4
    assert switches(sandbox, "a"), "it said otherwise"


def test_another_host_vanishes(sandbox: Sandbox, spaces: str) -> None:
    _, host = run_on_a(sandbox, spaces, "b", "--shared")
    sandbox.refused_here("a")
    gone = vanish(host)
    sandbox.refused_here("a")
    here = HOST.replace(f"socket.sethostname({NAME!r})", "")
    words = [sys.executable, "-c", here, "use", "a", "--wait", "30"]
    done = subprocess.run(words, env=sandbox.environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, f"on {NAME}" in done.stderr) == (0, True), done.stderr
    assert time.monotonic() - gone > LEASE - 1.1, "its last heartbeat was at most that old"
    assert sandbox.holds() == []
    left = {path.suffix for path in sandbox.records.iterdir()}
    assert left == {".json", ".claim"}, "it may only be cut off: its files are its own host's to take away"


@pytest.mark.parametrize("options", [("--pid",), ()], ids=["while a process lives", "until released"])
def test_a_manual_hold_on_another_host_has_no_lease(sandbox: Sandbox, spaces: str, options: tuple[str, ...]) -> None:
    """Nothing of taoprofiles runs there that could renew it, and its process goes on all the same."""
    host = hold_on_a(sandbox, spaces, *options)
    (holder,) = sandbox.refused_here("b")
    assert (holder["host"], holder["reason"]) == (NAME, "a demo on A")
    vanish(host)
    sleep(LEASE * 1.3)
    sandbox.refused_here("b")
    assert call(sandbox, "release", holder["id"]).status == 0
    assert switches(sandbox, "b"), "who knows that it has ended lets go of it by its id"


def test_an_isolated_run_on_another_host(sandbox: Sandbox, spaces: str) -> None:
    words = ("--", "tao", "model", "unet", "train", "-r", "/workspace/tao-experiments/x")
    tao = sandbox.new_tao()
    on_a(sandbox, spaces, "run", "b", *words, environ=tao.environ)
    tao.pid()
    assert switches(sandbox, "b"), "it has a file of its own"
    done = sandbox.run("run", "b", "--", "true", *words[2:])
    assert (done.returncode, f"on {NAME}" in done.stderr) == (5, True), "the results folder is on both hosts"


# Records of a host that is far away


def write_remote_record(sandbox: Sandbox, **fields: Any) -> tuple[Hold, Path]:
    """Write a record as another host would; return it and the file whose time is the heartbeat."""
    about = {"kind": "run", "shared": True, "digest": "x", "place": ELSEWHERE, "host": NAME, "pid": 1, "user": "ana"}
    hold = Hold(**{**about, "since": time.time(), "command": ["tao"], **fields})
    with Lock(sandbox.context.lock):
        os.close(HoldRecords(sandbox.context).create(hold))
    return hold, sandbox.records / f"{hold.id}.claim"


@pytest.mark.parametrize("offset", [-400 * 86400.0, 400 * 86400.0], ids=["past", "future"])
def test_clocks_of_hosts_are_not_compared(sandbox: Sandbox, offset: float) -> None:
    """The lease begins with the first observation, however old the heartbeat is; a dry run deletes nothing."""
    hold, claim = write_remote_record(sandbox)
    os.utime(claim, (time.time() + offset,) * 2)
    sandbox.refused_here("b")
    sleep(LEASE * 0.6)
    os.utime(claim, (time.time() + offset - 1000,) * 2)  # the other host's clock was set back: a heartbeat like any
    sandbox.refused_here("b")
    sleep(LEASE * 0.6)
    sandbox.refused_here("b")
    until(lambda: not sandbox.would_be_refused("b"), "the lease has run out", seconds=LEASE)
    assert (sandbox.records / f"{hold.id}.json").exists()


def test_gpus_of_another_machine_are_others(sandbox: Sandbox) -> None:
    """GPU 0 over there is not GPU 0 here."""
    write_remote_record(sandbox, gpus=["0", "1"], shared=False)
    run = prepare(sandbox.context, "a", ["true"], options=RunOptions(gpus="0,1"))
    os.close(run.liveness_fd)


def test_gpus_are_those_of_all_containers_on_a_machine(sandbox: Sandbox) -> None:
    """Two process namespaces of one boot, as of two development containers, see the same GPUs."""
    name, machine, boot, _ = processes.host_id().split(" ")
    write_remote_record(sandbox, gpus=["0", "1"], shared=False, place=f"{name} {machine} {boot} 5")
    with pytest.raises(HeldError):
        prepare(sandbox.context, "a", ["true"], options=RunOptions(gpus="1,"))


def test_a_damaged_heartbeat_cache_is_replaced(sandbox: Sandbox) -> None:
    write_remote_record(sandbox)
    sandbox.refused_here("b")
    (cache,) = (sandbox.state / "cache").glob("seen-*.json")
    for content in (b"", b"{", b"[]", b'{"x": 5}', json.dumps({"x": ["a"]}).encode(), b'{"a": [1, "b"], "c": [2, 3]}'):
        cache.write_bytes(content)
        sandbox.refused_here("b")
