"""Which processes are launchers, by their command lines; and whether a process is still the one that was noted."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from taoprofiles.system import processes
from taoprofiles.system.processes import Process
from tests.support.engine import until
from tests.support.home import require

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("line", "container"),
    [
        (f"docker exec -it {ID} unet train", ID),
        (f"docker exec -i {ID} unet train", ID),
        (f"/usr/bin/docker exec -it {ID} bash", ID),
        (f"podman exec -it {ID} bash", ID),
        (f"docker exec {ID}", ID),
        (f"docker run {ID}", None),
        (f"docker exec -it {ID[:12]} bash", None),
        (f"docker exec -it {ID.upper()} bash", None),
        ("docker exec -it name bash", None),
        ("docker exec -it", None),
        ("docker exec", None),
        ("docker", None),
        (f"echo exec -it {ID}", None),
        ("", None),
    ],
)
def test_docker_exec(line: str, container: str | None) -> None:
    assert Process(1, 0, line.split(" ")).container == container


@contextmanager
def python(script: str = "", **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a script in another process, which then goes on until the end of the block."""
    words = [sys.executable, "-c", f"{script}\nprint(flush=True); input()"]
    with subprocess.Popen(words, stdin=-1, stdout=-1, env=environ or None) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_what_scan_finds() -> None:
    """A process that calls itself tao, also with bytes that are no text."""
    names = [b"tao", b"/x/\xfftao/tao", b"vi"]
    started = [subprocess.Popen([name, "100"], executable="/bin/sleep") for name in names]
    try:
        until(lambda: all(processes.has_command_line(process.pid) for process in started), "they run")
        by_pid = {process.pid: process for process in processes.scan()}
        assert [process.pid in by_pid for process in started] == [True, True, False]
        assert by_pid[started[0].pid].uid == os.getuid()
        assert by_pid[started[0].pid].argv == ["tao", "100"]
    finally:
        for process in started:
            process.kill()
            process.wait(20)


def test_the_start_of_a_process() -> None:
    assert processes.start_time(os.getpid()) is not None
    with python() as process:
        start = processes.start_time(process.pid)
        assert start is not None
        assert start >= (processes.start_time(os.getpid()) or 0)
        assert processes.alive(process.pid, start)
        assert not processes.alive(process.pid, start + 1), "a later process of the same pid"
        assert processes.parent(process.pid) == os.getpid()
        process.kill()
        # A zombie does no work any more: nobody has waited for it yet.
        until(lambda: processes.start_time(process.pid) is None, "it has ended")
        assert not processes.alive(process.pid, start)
    assert processes.start_time(process.pid) is None
    assert processes.parent(process.pid) is None
    assert processes.environment(process.pid) == {}


def test_a_name_that_looks_like_the_end_of_its_field() -> None:
    """The name of a program stands in brackets in /proc/PID/stat, and may have brackets and blanks in it."""
    with python("import ctypes; ctypes.CDLL(None).prctl(15, b') R 1 1 (', 0, 0, 0)") as process:
        assert processes.parent(process.pid) == os.getpid()
        assert (processes.start_time(process.pid) or 0) > 1


def test_with_variable() -> None:
    environ = {"PATH": os.environ["PATH"], "TAOPROF_TEST_MARK": "a=b", "XTAOPROF_TEST_MARK": "no"}
    with python(**environ) as process, python(XTAOPROF_TEST_MARK="no"):
        assert processes.environment(process.pid) == environ
        assert list(processes.with_variable(os.getuid(), "TAOPROF_TEST_MARK")) == [(process.pid, "a=b")]
        assert list(processes.with_variable(os.getuid() + 1, "TAOPROF_TEST_MARK")) == []


@pytest.mark.parametrize("is_old", [False, True], ids=["Python", "a Python built with old headers"])
def test_a_pidfd_can_be_read_when_its_process_has_ended(is_old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_old:
        monkeypatch.delattr(os, "pidfd_open")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        descriptor = processes.open_pidfd(process.pid)
        assert descriptor is not None
        assert not os.get_inheritable(descriptor)
        assert select.select([descriptor], [], [], 0)[0] == []
        process.kill()
        assert select.select([descriptor], [], [], 30)[0] == [descriptor]
        os.close(descriptor)
    assert processes.open_pidfd(process.pid) is None, "it is gone"


def test_host_id() -> None:
    here = processes.host_id()
    name, machine, boot, namespace = here.split(" ")
    assert name == os.uname().nodename
    assert namespace.isdigit()
    assert not processes.rebooted(here, here)
    require(machine != "-", "there is no machine id here")
    assert processes.rebooted(f"{name} {machine} another {namespace}", here)
    assert processes.rebooted(f"{name} {machine} another 5", here)
    assert not processes.rebooted(f"{name} another another {namespace}", here), "that is another host"
    assert not processes.rebooted(f"other {machine} another {namespace}", here), "perhaps a copy of the machine"
    assert not processes.rebooted(f"{name} {machine} {boot} 5", here), "another container on the same boot"


@pytest.mark.parametrize("noted", ["", "x", "a - b 5", "a b c", "a b c d e"])
def test_a_place_that_tells_too_little_is_not_before_a_reboot(noted: str) -> None:
    assert not processes.rebooted(noted, "a - c 5")


def test_the_containers_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With control groups of version 1, a container in a container has both in its path."""
    outer, inner = ID, ID[::-1]
    groups = {1: "/system.slice/docker.service", 5: f"/docker/{outer}", 6: f"/docker/{outer}/docker/{inner}"}
    texts = {f"/proc/{pid}/cgroup": f"4:pids:{path}\n1:cpu:{path}\n" for pid, path in groups.items()}
    texts |= {f"/proc/{pid}/comm": "dockerd\n" if pid == 1 else "sh\n" for pid in groups}
    monkeypatch.setattr(processes, "pids", lambda: groups)
    monkeypatch.setattr(processes, "_read", lambda path: texts[path].encode())
    monkeypatch.setattr(processes, "_owner", lambda pid: 0)
    monkeypatch.setattr(processes, "start_time", lambda pid: pid)
    assert processes.container_starts() == {outer: 5, inner: 6}
