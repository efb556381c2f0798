"""The service under a real user manager: installed from the wheel, stopped, killed and hung, with nothing lost."""

from __future__ import annotations

import configparser
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.system.systemd import quoted
from tests.support.engine import Engine, until
from tests.support.guard_process import is_sealed
from tests.support.home import require
from tests.support.systemd_machine import UID, Machine
from tests.support.systemd_owner import CARELESS, UNIT, Owner

pytestmark = pytest.mark.systemd

ODD = ["with space", "100% %n", "dol$lar $HOME ${HOME}", "quo'te\"d", "back\\slash", "a;b", "größe"]


@pytest.fixture
def guarded(owner: Owner) -> Owner:
    return owner.guarded()


# Installed and taken away


def test_install_makes_it_active_now_and_at_each_login(owner: Owner) -> None:
    done = owner.taoprof("service", "install")
    assert done.stdout.splitlines() == [
        "written: ~/.config/systemd/user/taoprofd.service",
        "enabled: it starts at each login",
        "started",
    ]
    seen = owner.show("LoadState", "ActiveState", "UnitFileState", "Type", "StatusText", "FragmentPath")
    assert seen == {
        "LoadState": "loaded",
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "Type": "notify",
        "StatusText": "watching no file: not in use",
        "FragmentPath": str(owner.unit),
    }
    assert os.readlink(owner.unit.parent / f"default.target.wants/{UNIT}") == str(owner.unit)
    assert "@" not in owner.unit.read_text().replace("@system-service", "").replace("@…@", "")


def test_a_second_install_changes_nothing(owner: Owner) -> None:
    owner.taoprof("service", "install")
    before = owner.pid, owner.unit.stat().st_mtime_ns
    assert owner.taoprof("service", "install").stdout == "already installed and up to date\n"
    assert owner.json("service", "install")["data"]["done"] == []
    assert (owner.pid, owner.unit.stat().st_mtime_ns) == before


def test_an_old_unit_is_upgraded_and_the_service_started_anew(owner: Owner) -> None:
    owner.taoprof("service", "install")
    text, pid = owner.unit.read_text(), owner.pid
    owner.write(owner.unit, text.replace("WatchdogSec=60", "WatchdogSec=50"))
    owner.systemctl("daemon-reload")
    done = owner.json("service", "install")["data"]["done"]
    assert done == ["updated: ~/.config/systemd/user/taoprofd.service", "restarted"]
    assert owner.unit.read_text() == text
    assert owner.show("ActiveState", "WatchdogUSec") == {"ActiveState": "active", "WatchdogUSec": "1min"}
    assert owner.pid != pid


def test_systemd_has_nothing_to_say_against_the_unit(owner: Owner) -> None:
    """A misspelt key is told of on stderr alone: the exit status is 0."""
    owner.taoprof("service", "install")
    verified = owner.machine.user("systemd-analyze", "--user", "verify", str(owner.unit))
    assert (verified.stdout, verified.stderr) == ("", "")
    owner.write(owner.unit, owner.unit.read_text().replace("UMask=", "UMsk="))
    assert "UMsk" in owner.machine.user("systemd-analyze", "--user", "verify", str(owner.unit)).stderr


def test_start_stop_status_and_logs(guarded: Owner) -> None:
    assert guarded.taoprof("service", "stop").stdout == "stopped\n"
    assert guarded.json("service", "status")["data"]["service"]["state"] == "inactive (dead)"
    assert guarded.taoprof("service", "start").stdout == "started\n"
    seen = guarded.json("service", "status")["data"]["service"]
    assert seen == {
        "installed": True,
        "enabled": True,
        "state": "active (running)",
        "pid": guarded.pid,
        "restarts": 0,
        "text": "watching 'a': not in use",
        "unit": str(guarded.unit),
        "lingers": True,
        "guard": {
            "pid": guarded.pid,
            "version": seen["guard"]["version"],
            "line": "watching 'a': not in use",
            "problem": None,
        },
    }
    text = guarded.taoprof("service", "status").stdout
    assert f"active (running), pid {guarded.pid}, starts at login, keeps running after logout" in text
    begun = "guards ~/.tao_mounts.json"
    guarded.until_said(begun)
    assert begun in guarded.taoprof("service", "logs").stdout
    assert f" taoprofd[{guarded.pid}]: " in guarded.taoprof("service", "logs").stdout
    assert any(begun in line for line in guarded.json("service", "logs")["data"]["log"])


def test_a_stopped_service_leaves_no_seal(guarded: Owner) -> None:
    hold = guarded.hold()
    begun = time.monotonic()
    guarded.taoprof("service", "stop")
    assert time.monotonic() - begun < 5
    assert not is_sealed(guarded.mapping_file)
    guarded.taoprof("service", "start")
    assert is_sealed(guarded.mapping_file), "READY=1 comes after the first look"
    assert guarded.holds() == [hold]


def test_uninstall_leaves_nothing(owner: Owner) -> None:
    """Not a folder either; but the lock, which every command makes."""
    before = owner.tree()
    owner.taoprof("service", "install")
    owner.taoprof("service", "uninstall")
    assert owner.show("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
    left = owner.tree().keys() - before.keys()
    state = ".local/state/taoprofiles"
    assert left <= {".config", ".local", ".local/state", state, f"{state}/lock"}
    assert owner.taoprof("service", "uninstall").stdout == "not installed\n"
    assert owner.taoprof("service", "start", check=False).returncode == 4


def test_uninstall_while_held_unseals_and_keeps_the_hold(guarded: Owner) -> None:
    hold = guarded.hold()
    guarded.taoprof("service", "uninstall")
    assert not is_sealed(guarded.mapping_file)
    assert guarded.holds() == [hold]
    assert not (guarded.state / "guard").exists()
    assert not (guarded.home / ".config/systemd").exists()


def test_uninstall_although_the_unit_was_removed_by_hand(guarded: Owner) -> None:
    guarded.unit.unlink()
    assert guarded.taoprof("service", "uninstall").returncode == 0
    guarded.systemctl("daemon-reload")
    assert guarded.show("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
    assert not (guarded.home / ".config/systemd").exists()


def test_a_masked_unit_is_told_of_and_stays_masked(owner: Owner) -> None:
    """The user who masked it wants it off."""
    owner.systemctl("mask", UNIT)
    done = owner.taoprof("service", "install", check=False)
    assert done.returncode not in (0, 2, 70)
    assert os.readlink(owner.unit) == "/dev/null"


def test_without_a_user_manager_it_says_what_to_do_and_writes_nothing(machine: Machine) -> None:
    """As after a plain su: no login, no manager."""
    home, uid = machine.folder / "eva", UID + 1
    assert machine.root("useradd", "--uid", str(uid), "--home-dir", str(home), "--create-home", "eva").returncode == 0
    try:
        before = sorted(home.rglob("*"))
        as_eva = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups", "env", "-i", f"--chdir={home}")
        environ = (f"HOME={home}", "USER=eva", "LANG=C.UTF-8", "PATH=/usr/bin:/bin")
        taoprof = (*as_eva, *environ, str(machine.folder / "venv/bin/taoprof"), "service")
        for action in ("install", "uninstall", "start", "stop", "status"):
            done = machine.root(*taoprof, action)
            assert (done.returncode, done.stdout) == (1, ""), action
            assert done.stderr.startswith("taoprof: error: there is no systemd user manager here (")
            assert "hint: to start the guard without systemd, " in done.stderr
            assert "(taoprofd " in done.stderr
        told = json.loads(machine.root(*taoprof, "install", "--json").stdout)
        assert told["error"]["code"] == "no-user-manager"
        assert sorted(home.rglob("*")) == before
    finally:
        machine.root("userdel", "--remove", "eva")


@pytest.mark.parametrize("name", ODD)
def test_any_name_of_the_environment_s_folder(owner: Owner, name: str) -> None:
    link = owner.machine.folder / name
    link.symlink_to("venv")
    try:
        python = str(link / "bin/python3")
        done = owner.machine.user(python, "-m", "taoprofiles", "service", "install", check=False)
        assert done.returncode == 0, (done.stderr, quoted(python))
        assert owner.show("ActiveState")["ActiveState"] == "active"
        words = (owner.machine.root("cat", f"/proc/{owner.pid}/cmdline").stdout).split("\0")
        assert words[:-1] == [python, "-P", "-m", "taoprofiles.guard.daemon"]
        owner.systemctl("stop", UNIT)
        assert owner.show("Result")["Result"] == "success", "ExecStopPost has run too"
        verified = owner.machine.user("systemd-analyze", "--user", "verify", str(owner.unit))
        assert verified.stderr == ""
    finally:
        link.unlink()


@pytest.mark.parametrize("name", ODD)
def test_any_value_of_the_variables_that_it_carries(owner: Owner, name: str) -> None:
    """A guard of another home than the one that the installer meant would guard nothing."""
    moved = owner.write(owner.home / name / "README", "").parent
    owner.taoprof("service", "install", TAOPROF_HOME=str(moved))
    environ = owner.machine.root("cat", f"/proc/{owner.pid}/environ").stdout.split("\0")
    assert f"TAOPROF_HOME={moved}" in environ
    assert owner.json("status", TAOPROF_HOME=str(moved))["data"]["guard"]["pid"] == owner.pid


@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME"])
def test_the_manager_s_own_folder_counts_and_not_the_shell_s(owner: Owner, variable: str) -> None:
    """A variable that only the shell has does not tell where the manager looks for units."""
    elsewhere = owner.write(owner.home / "elsewhere/README", "").parent
    owner.taoprof("service", "install", **{variable: str(elsewhere)})
    assert owner.show("ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}
    assert f"{variable}={elsewhere}" in owner.machine.root("cat", f"/proc/{owner.pid}/environ").stdout.split("\0")


# Restarted, killed, hung, logged out


def test_restarted_in_the_middle_of_a_hold(guarded: Owner) -> None:
    hold, before, pid = guarded.hold(), guarded.mapping_file.read_bytes(), guarded.pid
    guarded.systemctl("restart", UNIT)
    assert guarded.pid != pid
    assert is_sealed(guarded.mapping_file)
    assert (guarded.holds(), guarded.mapping_file.read_bytes()) == ([hold], before)
    guarded.taoprof("release", hold, "--yes")
    guarded.until_unsealed()


def test_killed_it_is_started_anew_and_the_file_is_writable_in_between(guarded: Owner) -> None:
    hold, before, pid = guarded.hold(), guarded.mapping_file.read_bytes(), guarded.pid
    guarded.systemctl("kill", "--signal=SIGKILL", "--kill-whom=main", UNIT)
    guarded.until_another(pid)
    guarded.until_sealed()
    assert guarded.show("NRestarts", "Result") == {"NRestarts": "1", "Result": "success"}
    assert (guarded.holds(), guarded.mapping_file.read_bytes()) == ([hold], before)
    _, _, after = guarded.journal().partition("code=killed, status=9/KILL")
    off, on = "the mapping file is writable again", "the mapping file is read-only while it is held"
    assert off in after.partition(on)[0], after
    assert guarded.json("service", "status")["data"]["service"]["restarts"] == 1


def test_a_loop_that_stands_still_is_ended_and_started_anew(guarded: Owner) -> None:
    guarded.write(guarded.unit.with_name(f"{UNIT}.d") / "watchdog.conf", "[Service]\nWatchdogSec=2\n")
    guarded.systemctl("daemon-reload")
    guarded.systemctl("restart", UNIT)
    hold, pid = guarded.hold(), guarded.pid
    guarded.systemctl("kill", "--signal=SIGSTOP", "--kill-whom=main", UNIT)
    guarded.until_another(pid)
    guarded.until_sealed()
    assert "Watchdog timeout (limit 2s)" in guarded.journal()
    assert guarded.holds() == [hold]


def test_a_guard_that_works_is_not_ended_by_the_watchdog(guarded: Owner) -> None:
    """Its ticks adapt to the time that it is given."""
    guarded.write(guarded.unit.with_name(f"{UNIT}.d") / "watchdog.conf", "[Service]\nWatchdogSec=500ms\n")
    guarded.systemctl("daemon-reload")
    guarded.systemctl("restart", UNIT)
    end = time.monotonic() + 2
    until(lambda: time.monotonic() > end, "four times the limit have passed")
    assert guarded.show("NRestarts", "ActiveState") == {"NRestarts": "0", "ActiveState": "active"}


def test_a_second_guard_ends_with_8_and_the_service_is_not_tried_again(guarded: Owner) -> None:
    second = guarded.machine.user("taoprofd", check=False)
    assert second.returncode == 8
    assert f"pid {guarded.pid}" in second.stderr
    guarded.systemctl("stop", UNIT)
    first = guarded.starts("taoprofd")
    first.until_said("guards ~/.tao_mounts.json")
    done = guarded.taoprof("service", "start", check=False)
    assert done.returncode == 1
    assert guarded.show("ActiveState", "NRestarts", "ExecMainStatus") == {
        "ActiveState": "failed",
        "NRestarts": "0",
        "ExecMainStatus": "8",
    }
    pid = guarded.json("status")["data"]["guard"]["pid"]
    guarded.machine.user("kill", str(pid))
    assert first.process.wait(10) == 0
    guarded.taoprof("service", "start")


def test_a_guard_that_cannot_start_is_tried_for_ever(guarded: Owner) -> None:
    """More often than the five times after which systemd gives up by itself."""
    guarded.write(guarded.unit.with_name(f"{UNIT}.d") / "fast.conf", "[Service]\nRestartSec=10ms\n")
    claim = guarded.state / "guard"
    guarded.systemctl("stop", UNIT)
    guarded.systemctl("daemon-reload")
    claim.rename(claim.with_name("away"))
    guarded.write(claim, "not a folder")
    guarded.systemctl("start", "--no-block", UNIT)
    until(lambda: int(guarded.show("NRestarts")["NRestarts"]) > 6, "it is tried again", details=guarded.journal)
    claim.unlink()
    until(lambda: guarded.show("ActiveState")["ActiveState"] == "active", "it has started", details=guarded.journal)


def test_the_options_are_in_the_unit_and_stay_when_it_is_updated(guarded: Owner) -> None:
    guarded.hold()
    assert guarded.json("service", "install", "--no-seal", "--restores", "0")["data"]["done"][1:] == ["restarted"]
    guarded.until_unsealed()
    assert " --no-seal --restores=0\n" in guarded.unit.read_text()
    assert guarded.json("service", "install")["data"]["done"] == []
    assert "guard-outdated" not in guarded.taoprof("doctor", check=False).stdout
    guarded.taoprof("service", "install", "--seal")
    guarded.until_sealed()
    assert " --restores=0\n" in guarded.unit.read_text()


def test_logged_out_and_in_again(guarded: Owner) -> None:
    hold, before, pid = guarded.hold(), guarded.mapping_file.read_bytes(), guarded.pid
    assert guarded.machine.root("systemctl", "stop", f"user@{UID}.service").returncode == 0
    assert not is_sealed(guarded.mapping_file), "nobody is there to mind the seal"
    assert guarded.machine.root("systemctl", "start", f"user@{UID}.service").returncode == 0
    until(lambda: guarded.machine.root("test", "-S", f"/run/user/{UID}/bus").returncode == 0, "the manager is up")
    guarded.until_another(pid)
    guarded.until_sealed()
    assert (guarded.holds(), guarded.mapping_file.read_bytes()) == ([hold], before)


# What others write, in their own words


@pytest.mark.parametrize("reason", ["two\nSTOPPING=1\nSTATUS=lines", "x" * 9000, "a\x1b[31mcolour"])
def test_whatever_a_holder_is_called_the_status_stays_true(guarded: Owner, reason: str) -> None:
    hold = guarded.hold(reason)
    until(
        lambda: hold in guarded.show("StatusText")["StatusText"], "the status names the hold", details=guarded.journal
    )
    assert guarded.show("ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}
    assert guarded.taoprof("service", "status").returncode == 0


LAUNCHER = """\
#!/usr/bin/python3
# Plays a launcher that runs for as long as its script is there.
import os, time
open(os.path.expanduser("~/.tao_mounts.json")).read()
while os.path.exists(__file__):
    time.sleep(0.05)
"""


def test_a_launcher_whose_words_are_no_text_does_not_end_the_guard(guarded: Owner) -> None:
    """Folders have names in bytes, and a launcher's words may be any."""
    tao, pid = guarded.write(guarded.home / "tao", LAUNCHER), guarded.pid
    tao.chmod(0o755)
    running = guarded.starts("bash", "-c", f"exec {tao} model detectnet_v2 train $'/data/gr\\xf6\\xdfe'")
    guarded.until_sealed()
    until(
        lambda: "in use and read-only:" in guarded.show("StatusText")["StatusText"],
        "the status tells of it",
        details=guarded.journal,
    )
    guarded.replaces()
    guarded.until_said(": restored")
    assert ": restored" in guarded.taoprof("list").stderr
    tao.unlink()
    running.process.wait(10)
    guarded.until_unsealed()
    assert guarded.show("NRestarts", "MainPID") == {"NRestarts": "0", "MainPID": str(pid)}


# A real launcher on a real engine


@pytest.fixture
def training(guarded: Owner, engine: Engine) -> Iterator[Owner]:
    require(
        guarded.machine.user("tao", "--help", check=False).returncode == 0, "the system's Python starts no launcher"
    )
    guarded.write(guarded.home / ".docker/config.json", '{"auths": {"nvcr.io": {}}}')
    project = guarded.write(guarded.home / "kitti/README", "").parent
    guarded.machine.user("sh", "-c", f"cd {project} && taoprof new detectnet_v2")
    guarded.taoprof("set", "detectnet_v2", "docker.tty=false")
    guarded.taoprof("use", "detectnet_v2", "--mkdir")
    try:
        yield guarded
    finally:
        for container in engine.containers_of(guarded.home):
            engine.remove(container)
        until(lambda: not engine.containers_of(guarded.home), "the containers are gone")


def test_a_real_training_is_protected_from_its_start_to_its_end(training: Owner, engine: Engine) -> None:
    """Whatever befalls the guard meanwhile."""
    before, mode = training.mapping_file.read_bytes(), training.mapping_file.stat().st_mode
    tao = training.starts("tao", "model", "detectnet_v2", "train", "60")
    training.until_sealed()
    assert ": training as" not in tao.output, "it is sealed before the task runs"
    tao.until_said(": training as")
    (container,) = engine.containers_of(training.home)
    until(lambda: container[:6] in training.show("StatusText")["StatusText"], "the status names the container")

    careless = training.machine.user("python3", "-c", CARELESS, str(training.mapping_file), check=False)
    assert "PermissionError" in careless.stderr
    training.replaces()
    training.until_said(": restored; to get its content: taoprof undo ")
    training.until_sealed()
    assert training.mapping_file.read_bytes() == before

    training.systemctl("restart", UNIT)
    assert is_sealed(training.mapping_file)
    pid = training.pid
    training.systemctl("kill", "--signal=SIGKILL", "--kill-whom=main", UNIT)
    training.until_another(pid)
    training.until_sealed()
    (hold,) = training.json("status")["data"]["holds"]
    assert (hold["kind"], hold["profile"], hold["container"]) == ("found", "detectnet_v2", container)
    assert training.taoprof("use", "a", check=False).returncode == 5

    engine.remove(container)
    training.until_unsealed(seconds=5)
    assert (training.mapping_file.read_bytes(), training.mapping_file.stat().st_mode) == (before, mode)
    tao.process.wait(30)
    until(lambda: training.holds() == [], "nothing is held")
    assert training.show("StatusText")["StatusText"] == "watching 'detectnet_v2': not in use"
    training.taoprof("use", "a")


@pytest.mark.parametrize("shared", [True, False])
def test_a_run_on_the_shared_file_is_sealed_and_an_isolated_one_needs_no_seal(
    training: Owner, engine: Engine, shared: bool
) -> None:
    options = ["--shared"] if shared else []
    words = ("taoprof", "run", "detectnet_v2", *options, "--", "tao", "model", "detectnet_v2", "train", "60", "0")
    run = training.starts(*words)
    run.until_said(": training as")
    wanted = (
        "in use and read-only: tao model detectnet_v2 train 60 0"
        if shared
        else "not in use; 1 run has its own mounts file"
    )
    until(lambda: wanted in training.show("StatusText")["StatusText"], f"the status has '{wanted}'")
    assert is_sealed(training.mapping_file) == shared
    (container,) = engine.containers_of(training.home)
    engine.remove(container)
    run.process.wait(30)
    training.until_unsealed(seconds=5)
    until(lambda: "not in use" in training.show("StatusText")["StatusText"], "the status tells of the end")


# Each line of the unit does something


def directives() -> dict[str, str]:
    """The keys of the unit as it is written, with their values."""
    parser = configparser.ConfigParser(interpolation=None, allow_no_value=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(Path(__file__).parents[2] / "service" / UNIT)
    return {key: value for section in parser.sections() for key, value in parser.items(section) if value is not None}


CALL = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n"
TELL = "print('done' if answer != -1 else os.strerror(ctypes.get_errno()))"

PROOFS = {
    # What the line forbids, or brings about: a program, what it prints under the line, and what it prints without.
    "NoNewPrivileges": ("import os; os.execl('SETUID', 'id', '-u')", str(UID), "0"),
    "UMask": (
        "import os; fd = os.open('made', os.O_CREAT, 0o666); os.unlink('made'); print(oct(os.fstat(fd).st_mode))",
        "0o100600",
        "0o100644",
    ),
    "OOMScoreAdjust": ("print(int(open('/proc/self/oom_score_adj').read()) == 300)", "True", "False"),
    "SystemCallFilter": (f"{CALL}answer = libc.ptrace(0, 0, 0, 0)\n{TELL}", "", "done"),
    "SystemCallArchitectures": (
        "import ctypes, mmap, os; code = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))  # mov eax, 20 (getpid); int 0x80; ret\n"
        "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))\n"
        "print(call() == os.getpid())",
        "",
        "True",
    ),
    "RestrictAddressFamilies": (
        "import socket; socket.socket(socket.AF_INET6), socket.socket(socket.AF_UNIX)\n"
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); print('done')",
        "OSError: [Errno 97] Address family not supported by protocol",
        "done",
    ),
    "RestrictNamespaces": (f"{CALL}answer = libc.unshare(0x10000000)\n{TELL}", "Operation not permitted", "done"),
    # Real-time scheduling itself is refused to most users anyway; this much of it is open to all.
    "RestrictRealtime": (
        "import os; policy = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK\n"
        "os.sched_setscheduler(0, policy, os.sched_param(0)); print('done')",
        "PermissionError: [Errno 1] Operation not permitted",
        "done",
    ),
    "RestrictSUIDSGID": (
        "import os; os.close(os.open('made', os.O_CREAT, 0o600))\n"
        "try: os.chmod('made', 0o4700); print('done')\n"
        "finally: os.unlink('made')",
        "PermissionError: [Errno 1] Operation not permitted: 'made'",
        "done",
    ),
    "LockPersonality": (f"{CALL}answer = libc.personality(0x40000)\n{TELL}", "Operation not permitted", "done"),
    "MemoryDenyWriteExecute": (
        "import mmap; mmap.mmap(-1, 4096, prot=7); print('done')",
        "PermissionError: [Errno 1] Operation not permitted",
        "done",
    ),
}

SHOWN = {
    "Description": test_install_makes_it_active_now_and_at_each_login,
    "Documentation": test_systemd_has_nothing_to_say_against_the_unit,
    "StartLimitIntervalSec": test_a_guard_that_cannot_start_is_tried_for_ever,
    "SyslogIdentifier": test_start_stop_status_and_logs,
    "Type": test_install_makes_it_active_now_and_at_each_login,
    "ExecStart": test_any_name_of_the_environment_s_folder,
    "ExecStopPost": test_killed_it_is_started_anew_and_the_file_is_writable_in_between,
    "WatchdogSec": test_a_loop_that_stands_still_is_ended_and_started_anew,
    "Restart": test_killed_it_is_started_anew_and_the_file_is_writable_in_between,
    "RestartPreventExitStatus": test_a_second_guard_ends_with_8_and_the_service_is_not_tried_again,
    "RestartSec": test_killed_it_is_started_anew_and_the_file_is_writable_in_between,
    "WantedBy": test_logged_out_and_in_again,
}
"""The tests above that show what a line does."""


def transient(machine: Machine, program: str, *lines: str) -> str:
    """Run a program of the system's Python in a unit of its own with these lines; give the last line that it says."""
    options = ("--pipe", "--wait", "--collect", "--quiet", f"--working-directory={machine.home}")
    words = (*options, *(f"--property={line}" for line in lines), "/usr/bin/python3", "-c", program)
    done = machine.user("systemd-run", "--user", *words, check=False)
    return (done.stdout + done.stderr).strip().rpartition("\n")[2]


def test_every_line_of_the_unit_has_its_proof() -> None:
    told_elsewhere = {"SystemCallErrorNumber", "RestartSteps", "RestartMaxDelaySec"}
    assert directives().keys() == PROOFS.keys() | SHOWN.keys() | told_elsewhere


@pytest.mark.parametrize("key", PROOFS)
def test_a_line_of_the_unit_does_something(machine: Machine, key: str) -> None:
    program, under, without = PROOFS[key]
    if key == "SystemCallArchitectures":
        require(os.uname().machine == "x86_64", "the program is written for x86_64")
    setuid = machine.folder / "id"
    setuid.write_bytes(Path("/usr/bin/id").read_bytes())
    setuid.chmod(0o4755)
    try:
        program = program.replace("SETUID", str(setuid))
        assert transient(machine, program) == without
        assert transient(machine, program, f"{key}={directives()[key]}") == under
    finally:
        setuid.unlink()


def test_a_forbidden_call_fails_and_does_not_kill(machine: Machine) -> None:
    program, killed, _ = PROOFS["SystemCallFilter"]
    lines = [f"{key}={directives()[key]}" for key in ("SystemCallFilter", "SystemCallErrorNumber")]
    assert transient(machine, program, lines[0]) == killed == ""
    assert transient(machine, program, *lines) == "Operation not permitted"


def test_an_older_systemd_gets_no_line_that_it_does_not_know(guarded: Owner) -> None:
    version = int(guarded.systemctl("show", "--property=Version").split("=")[1].split(".")[0])
    for key in ("RestartSteps", "RestartMaxDelaySec"):
        assert (f"{key}=" in guarded.unit.read_text()) == (version >= 254)
    if version >= 254:
        seen = guarded.show("RestartSteps", "RestartMaxDelayUSec")
        assert seen == {"RestartSteps": "10", "RestartMaxDelayUSec": "5min"}


def test_what_is_not_in_the_unit_would_do_nothing_or_harm(machine: Machine) -> None:
    """service/README.md: these lines need PrivateUsers=, under which root's files and processes are nobody's."""
    owners = "import os; print(os.stat('/').st_uid, os.stat('/proc/1').st_uid)"
    nobody = "65534 65534"
    assert transient(machine, owners) == "0 0"
    assert transient(machine, owners, "PrivateUsers=yes") == nobody
    writes = "open('made', 'w'); import os; os.unlink('made'); print('written')"
    lists = "import os; print('made' in os.listdir('/var/tmp'))"
    machine.root("touch", "/var/tmp/made")
    for line, program, free, confined in (
        ("ProtectSystem=strict", writes, "written", "OSError: [Errno 30] Read-only file system: 'made'"),
        ("PrivateTmp=yes", lists, "True", "False"),
        ("ReadOnlyPaths=/", writes, "written", "OSError: [Errno 30] Read-only file system: 'made'"),
    ):
        # A newer systemd takes PrivateUsers=yes as given where such a line is there: then it does that harm.
        does_nothing = transient(machine, program, line) == free
        assert does_nothing or transient(machine, owners, line) == nobody, line
        assert transient(machine, program, line, "PrivateUsers=yes") == confined
    assert not {"PrivateUsers", "ProtectSystem", "ProtectHome", "PrivateTmp"} & directives().keys()
