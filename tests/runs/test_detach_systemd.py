"""Detached runs under a real systemd: in a unit of their own where the user lingers, and without one where not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Terminal
from tests.support.engine import until
from tests.support.systemd import UID, USER, Machine, Owner

pytestmark = pytest.mark.systemd

SCRIPT = "trap 'echo stopping; exit 9' TERM; echo group $(id -G) $MINE; while :; do sleep 0.05; done"


def group_of(owner: Owner, pid: int) -> str:
    return owner.machine.root("cat", f"/proc/{pid}/cgroup").stdout


def start(owner: Owner) -> tuple[str, int]:
    """Start a run on a terminal, close the terminal, and return the id of the run and its pid."""
    words = owner.machine.command("bash", "--norc", "-i", PS1="$ ", MINE="of the shell")
    with Terminal(words, environ={"PATH": "/usr/bin:/bin:/usr/sbin"}, cwd=Path("/")) as terminal:
        terminal.wait_for("$ ")
        terminal.send(f'taoprof run a --detach -- sh -c "{SCRIPT.replace("$", chr(92) + "$")}"\n')
        shown = terminal.wait_for("\r\n$ ", timeout=60)
    run = re.findall(r"(?m)^([2-9a-z]{5})\r?$", shown)[-1]
    (hold,) = owner.json("status")["data"]["holds"]
    assert hold["id"] == run
    return run, hold["pid"]


def test_a_run_outlives_its_login_and_can_be_followed_and_stopped_from_the_next(owner: Owner) -> None:
    owner.profiles("a")
    run, pid = start(owner)
    unit = f"taoprof-run-{run}.scope"
    assert f"/{unit}\n" in group_of(owner, pid)
    assert owner.systemctl("is-active", unit) == "active\n"
    assert f"taoprof run a ({run})" in owner.systemctl("status", unit)
    follower = owner.starts("taoprof", "logs", "-f", run)
    follower.until_logged("of the shell")
    owner.taoprof("stop", run)
    follower.until_logged("stopping")
    assert owner.taoprof("wait", run, check=False).returncode == 9
    assert follower.process.wait(20) == 0
    until(lambda: owner.systemctl("is-active", unit, check=False) == "inactive\n", "the unit is gone")
    assert owner.holds() == []
    assert [ended["status"] for ended in owner.json("history")["data"]["runs"]] == [9]


def test_a_run_that_ignores_sigterm_is_killed_and_its_end_recorded(owner: Owner) -> None:
    owner.profiles("a")
    program = "trap 'echo ignored' TERM; echo ready; while :; do sleep 0.05; done"
    run = owner.taoprof("run", "a", "--detach", "--", "sh", "-c", program).stdout.strip()
    owner.starts("taoprof", "logs", "-f", run).until_logged("ready")
    done = owner.taoprof("stop", run)
    assert done.stdout == f"run {run}: killed, because it was still running 10 s after SIGTERM\n"
    assert owner.taoprof("wait", run, check=False).returncode == 137
    assert owner.taoprof("logs", "-n", "1", run).stdout == "ignored\n"
    unit = f"taoprof-run-{run}.scope"
    until(lambda: owner.systemctl("is-active", unit, check=False) == "inactive\n", "the unit is gone")
    assert owner.holds() == []


def test_a_run_is_not_ended_with_the_session_that_started_it(owner: Owner) -> None:
    """As with KillUserProcesses=yes: everything in the control group of the login is killed."""
    owner.profiles("a")
    machine, unit = owner.machine, "login-of-ana.service"
    inside = machine.command("sh", "-c", "taoprof run a --detach -- sh -c 'echo one; exec sleep 1000' >id; sleep 1000")
    as_user = inside[inside.index("--") + 1 :]
    assert machine.root("systemd-run", f"--unit={unit}", *as_user).returncode == 0
    until(lambda: (owner.home / "id").exists() and (owner.home / "id").read_text(), "the run is started")
    run = (owner.home / "id").read_text().strip()
    assert machine.root("systemctl", "kill", "--signal=SIGKILL", "--kill-who=all", unit).returncode == 0
    until(lambda: machine.root("systemctl", "is-active", unit).stdout != "active\n", "the login is over")
    machine.root("systemctl", "reset-failed", unit)
    assert owner.holds() == [run]
    owner.systemctl("stop", f"taoprof-run-{run}.scope")
    assert owner.taoprof("wait", run, check=False).returncode == 143
    assert owner.taoprof("logs", run).stdout == "one\n"
    assert owner.holds() == []


@pytest.fixture
def not_lingering(machine: Machine, owner: Owner) -> Iterator[Owner]:
    """A user whose manager ends with the last login."""
    owner.profiles("a")
    machine.root("loginctl", "disable-linger", USER)
    # logind was seen to forget the user, and to leave the manager that it had started.
    machine.root("systemctl", "stop", f"user@{UID}.service")
    bus = f"/run/user/{UID}/bus"
    until(lambda: machine.root("test", "-S", bus).returncode != 0, "the user manager is gone")
    yield owner
    machine.root("loginctl", "enable-linger", USER)
    until(lambda: machine.root("test", "-S", bus).returncode == 0, "the user manager is up")


def test_without_lingering_a_run_has_a_session_of_its_own(not_lingering: Owner) -> None:
    owner = not_lingering
    done = owner.taoprof("run", "a", "--detach", "--json", "--", "true")
    assert '"unit": null' in done.stdout
    assert "loginctl enable-linger" in done.stdout
    run, pid = start(owner)
    assert "taoprof-run" not in group_of(owner, pid)
    owner.taoprof("stop", run)
    assert owner.taoprof("wait", run, check=False).returncode == 9
    assert owner.taoprof("logs", "-n", "1", run).stdout == "stopping\n"
    assert owner.holds() == []
