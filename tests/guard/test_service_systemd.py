"""The service under a real user manager: installed from the wheel, stopped, killed and hung, with nothing lost."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.support.engine import until
from tests.support.guard_process import is_sealed
from tests.support.systemd import CARELESS, UID, UNIT, Machine, Owner

pytestmark = pytest.mark.systemd


@pytest.fixture
def guarded(owner: Owner) -> Owner:
    """A user with an active profile, whose guard is started again at once after a crash."""
    owner.set("RestartSec=100ms")
    return owner.guarded()


# Install and uninstall


def test_install_starts_it_now_and_at_each_login_and_again_only_if_something_changed(owner: Owner) -> None:
    done = owner.taoprof("service", "install")
    assert done.stdout.splitlines() == [
        "written: ~/.config/systemd/user/taoprofd.service",
        "enabled: it starts at each login",
        "started",
    ]
    assert owner.show("LoadState", "ActiveState", "UnitFileState", "Type", "StatusText", "FragmentPath") == {
        "LoadState": "loaded",
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "Type": "notify",
        "StatusText": "watching no file: not in use",
        "FragmentPath": str(owner.unit),
    }
    assert os.readlink(owner.unit.parent / f"default.target.wants/{UNIT}") == str(owner.unit)
    text, pid = owner.unit.read_text(), owner.pid
    assert "@" not in text.replace("@system-service", "").replace("@…@", "")
    verified = owner.machine.user("systemd-analyze", "--user", "verify", str(owner.unit))
    assert (verified.stdout, verified.stderr) == ("", "")

    assert owner.taoprof("service", "install").stdout == "already installed and up to date\n"
    assert owner.json("service", "install")["data"]["done"] == []
    assert owner.pid == pid

    owner.write(owner.unit, text.replace("WatchdogSec=60", "WatchdogSec=50"))
    owner.systemctl("daemon-reload")
    done = owner.json("service", "install")["data"]["done"]
    assert done == ["updated: ~/.config/systemd/user/taoprofd.service", "restarted"]
    assert owner.unit.read_text() == text
    assert owner.show("ActiveState", "WatchdogUSec") == {"ActiveState": "active", "WatchdogUSec": "1min"}
    assert owner.pid != pid


def test_another_development_build_restarts_it(guarded: Owner) -> None:
    pid = guarded.pid
    commit = next(guarded.machine.folder.glob("venv/lib/python*/site-packages/taoprofiles/commit"))
    text = commit.read_text()
    commit.write_text("0123456789ab with changes\n")
    try:
        assert guarded.json("service", "install")["data"]["done"] == ["restarted"]
        assert guarded.json("service", "install")["data"]["done"] == []
    finally:
        commit.write_text(text)
    assert guarded.pid != pid


def test_root_with_the_home_of_this_user_uninstalls_nothing(guarded: Owner) -> None:
    pid, line = guarded.pid, 'eval "$(taoprof init bash)"\n'
    bashrc = guarded.write(guarded.home / ".bashrc", line)
    taoprof = str(guarded.machine.folder / "venv/bin/taoprof")
    done = guarded.machine.root("env", f"HOME={guarded.home}", taoprof, "uninstall", "--yes", "--state")
    assert (done.returncode, done.stdout) == (1, "")
    assert "taoprofd.service is a service of another user" in done.stderr
    assert bashrc.read_text() == line
    assert guarded.pid == pid


def test_start_stop_status_and_logs(guarded: Owner) -> None:
    hold, begun = guarded.hold(), time.monotonic()
    assert guarded.taoprof("service", "stop").stdout == "stopped\n"
    assert time.monotonic() - begun < 5
    assert not is_sealed(guarded.mapping_file)
    service = guarded.json("service", "status")["data"]["service"]
    assert (service["state"], service["pid"], service["text"], service["guard"]) == ("inactive (dead)", None, "", None)
    assert guarded.taoprof("service", "start").stdout == "started\n"
    assert is_sealed(guarded.mapping_file), "READY=1 comes after the first look"
    assert guarded.holds() == [hold]
    guarded.taoprof("release", hold, "--yes")
    guarded.until_unsealed()
    status = guarded.machine.root("cat", f"/proc/{guarded.pid}/status", f"/proc/{guarded.pid}/oom_score_adj").stdout
    assert {"NoNewPrivs:\t1", "Seccomp:\t2", "Umask:\t0077", "300"} <= set(status.splitlines())
    service = guarded.json("service", "status")["data"]["service"]
    line = "watching 'a': not in use"
    assert service == {
        "installed": True,
        "enabled": True,
        "state": "active (running)",
        "pid": guarded.pid,
        "restarts": 0,
        "text": line,
        "unit": str(guarded.unit),
        "lingers": True,
        "guard": {"pid": guarded.pid, "version": service["guard"]["version"], "line": line, "problem": None},
    }
    text = guarded.taoprof("service", "status").stdout
    assert f"active (running), pid {guarded.pid}, starts at login, keeps running after logout" in text
    guarded.until_logged("guards ~/.tao_mounts.json")
    assert f" taoprofd[{guarded.pid}]: " in guarded.taoprof("service", "logs").stdout
    assert any("guards ~/.tao_mounts.json" in line for line in guarded.json("service", "logs")["data"]["log"])


@pytest.mark.parametrize("words", [("service", "uninstall"), ("uninstall", "--yes")], ids=" ".join)
def test_uninstall_leaves_nothing(owner: Owner, words: tuple[str, ...]) -> None:
    """Not a folder either; but the lock, which every command makes."""
    before = set(owner.home.rglob("*"))
    owner.taoprof("service", "install")
    owner.taoprof(*words)
    assert owner.show("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
    left = {str(path.relative_to(owner.home)) for path in set(owner.home.rglob("*")) - before}
    state = ".local/state/taoprofiles"
    assert left <= {".config", ".local", ".local/state", state, f"{state}/lock"}
    assert owner.taoprof("service", "uninstall").stdout == "not installed\n"
    assert owner.taoprof("service", "start", check=False).returncode == 4


def test_uninstall_while_held_although_the_unit_was_removed_by_hand(owner: Owner) -> None:
    hold = owner.guarded().hold()
    owner.unit.unlink()
    owner.taoprof("service", "uninstall")
    owner.systemctl("daemon-reload")
    assert owner.show("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
    assert not is_sealed(owner.mapping_file)
    assert owner.holds() == [hold]
    assert not (owner.state / "guard").exists()
    assert not (owner.home / ".config/systemd").exists()


def test_a_masked_unit_stays_masked(owner: Owner) -> None:
    """The user who masked it wants it off."""
    owner.systemctl("mask", UNIT)
    done = owner.taoprof("service", "install", check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "taoprof: error: the service is masked")
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
        done = machine.root(*taoprof, "uninstall")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("taoprof: error: there is no systemd user manager here (")
        assert "(taoprofd " in done.stderr.partition("hint: to start the guard without systemd, ")[2]
        answer = json.loads(machine.root(*taoprof, "install", "--json").stdout)
        assert answer["error"]["code"] == "no-user-manager"
        assert sorted(home.rglob("*")) == before
    finally:
        machine.root("userdel", "--remove", "eva")


@pytest.mark.parametrize("variable", ["TAOPROF_HOME", "HOME", "XDG_CONFIG_HOME"])
def test_any_name_of_a_folder(owner: Owner, variable: str) -> None:
    """Of its environment, and in a variable of the shell, which does not say where the manager looks for units."""
    link = owner.machine.folder / "with space, 100% %n größe"
    link.symlink_to("venv")
    other = owner.write(owner.home / "dol$lar $HOME ${HOME} quo'te\"d back\\slash a;b/README", "").parent
    try:
        python = str(link / "bin/python3")
        owner.machine.user(python, "-m", "taoprofiles", "service", "install", **{variable: str(other)})
        assert owner.show("ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}
        words = owner.machine.root("cat", f"/proc/{owner.pid}/cmdline").stdout.split("\0")
        assert words[:-1] == [python, "-P", "-m", "taoprofiles.guard.daemon"]
        assert f"{variable}={other}" in owner.machine.root("cat", f"/proc/{owner.pid}/environ").stdout.split("\0")
        owner.systemctl("stop", UNIT)
        assert owner.show("Result")["Result"] == "success", "ExecStopPost has run too"
    finally:
        link.unlink()


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


# Restarted, killed, hung, logged out


def test_restarted_and_killed_in_the_middle_of_a_hold(guarded: Owner) -> None:
    """After a kill the file is writable until the next guard has started."""
    hold, before, pid = guarded.hold(), guarded.mapping_file.read_bytes(), guarded.pid
    guarded.systemctl("restart", UNIT)
    assert guarded.pid != pid
    assert is_sealed(guarded.mapping_file)
    pid = guarded.pid
    guarded.systemctl("kill", "--signal=SIGKILL", "--kill-whom=main", UNIT)
    guarded.until_another(pid)
    guarded.until_sealed()
    assert guarded.show("NRestarts", "Result") == {"NRestarts": "1", "Result": "success"}
    assert (guarded.holds(), guarded.mapping_file.read_bytes()) == ([hold], before)
    guarded.until_logged("code=killed, status=9/KILL")
    after = guarded.journal().partition("code=killed, status=9/KILL")[2]
    off, on = "the mapping file is writable again", "the mapping file is read-only while it is in use"
    assert off in after.partition(on)[0] and on in after, after
    assert guarded.json("service", "status")["data"]["service"]["restarts"] == 1
    guarded.taoprof("release", hold, "--yes")
    guarded.until_unsealed()


def test_the_watchdog_ends_a_guard_that_hangs_and_none_that_works(guarded: Owner) -> None:
    """Its ticks adapt to the time that it is given."""
    guarded.set("RestartSec=100ms", "WatchdogSec=700ms")
    guarded.systemctl("restart", UNIT)
    hold, pid, end = guarded.hold(), guarded.pid, time.monotonic() + 2
    until(lambda: time.monotonic() > end, "three times the limit have passed")
    assert guarded.show("NRestarts", "ActiveState") == {"NRestarts": "0", "ActiveState": "active"}
    guarded.systemctl("kill", "--signal=SIGSTOP", "--kill-whom=main", UNIT)
    guarded.until_another(pid)
    guarded.until_sealed()
    assert "Watchdog timeout" in guarded.journal()
    assert guarded.holds() == [hold]


def test_a_second_guard_ends_with_8_and_the_service_is_not_tried_again(guarded: Owner) -> None:
    second = guarded.machine.user("taoprofd", check=False)
    assert second.returncode == 8
    assert f"pid {guarded.pid}" in second.stderr
    guarded.systemctl("stop", UNIT)
    first = guarded.starts("taoprofd")
    first.until_logged("guards ~/.tao_mounts.json")
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
    guarded.set("RestartSec=10ms")
    claim = guarded.state / "guard"
    guarded.systemctl("stop", UNIT)
    claim.rename(claim.with_name("away"))
    guarded.write(claim, "not a folder")
    guarded.systemctl("start", "--no-block", UNIT)
    until(lambda: int(guarded.show("NRestarts")["NRestarts"]) > 6, "it is tried again", details=guarded.journal)
    claim.unlink()
    until(lambda: guarded.show("ActiveState")["ActiveState"] == "active", "it has started", details=guarded.journal)


def test_logged_out_and_in_again(guarded: Owner) -> None:
    hold, before, pid = guarded.hold(), guarded.mapping_file.read_bytes(), guarded.pid
    assert guarded.machine.root("systemctl", "stop", f"user@{UID}.service").returncode == 0
    assert not is_sealed(guarded.mapping_file), "no guard is there to remove the seal"
    assert guarded.machine.root("systemctl", "start", f"user@{UID}.service").returncode == 0
    until(lambda: guarded.machine.root("test", "-S", f"/run/user/{UID}/bus").returncode == 0, "the manager is up")
    guarded.until_another(pid)
    guarded.until_sealed()
    assert (guarded.holds(), guarded.mapping_file.read_bytes()) == ([hold], before)


# What others write, in their own words

LAUNCHER = """\
#!/usr/bin/python3
# Plays a launcher that runs for as long as its script is there.
import os, time
open(os.path.expanduser("~/.tao_mounts.json")).read()
while os.path.exists(__file__):
    time.sleep(0.05)
"""


def test_words_that_are_no_text_do_not_end_the_guard(guarded: Owner) -> None:
    """Folders have names in bytes, and a launcher's words may be any; as may the reason of a hold."""
    tao, pid = guarded.write(guarded.home / "tao", LAUNCHER), guarded.pid
    tao.chmod(0o755)
    running = guarded.starts("bash", "-c", f"exec {tao} model detectnet_v2 train $'/data/gr\\xf6\\xdfe'")
    guarded.until_sealed()
    until(
        lambda: "in use and read-only:" in guarded.show("StatusText")["StatusText"],
        "the status tells of it",
        details=guarded.journal,
    )
    careless = guarded.machine.user("python3", "-c", CARELESS, str(guarded.mapping_file), check=False)
    assert "PermissionError" in careless.stderr
    guarded.replaces()
    guarded.until_logged(": restored")
    assert ": restored" in guarded.taoprof("list").stderr
    tao.unlink()
    running.process.wait(10)
    guarded.until_unsealed()
    hold = guarded.hold("two\nSTOPPING=1\nSTATUS=lines \x1b[31m" + "x" * 9000)
    until(lambda: hold in guarded.show("StatusText")["StatusText"], "the status names it", details=guarded.journal)
    properties = guarded.show("NRestarts", "MainPID", "ActiveState", "SubState")
    assert properties == {"NRestarts": "0", "MainPID": str(pid), "ActiveState": "active", "SubState": "running"}


# The end of runs


def test_what_the_guard_does_at_the_end_of_a_run_goes_on_when_the_guard_is_killed(guarded: Owner) -> None:
    profile = guarded.home / ".config/taoprofiles/profiles/b.toml"
    hook = "echo begun >>~/hook; until test -e ~/go; do sleep 0.1; done; echo $TAOPROF_OUTCOME >>~/hook"
    guarded.write(profile, profile.read_text().replace("[[mounts]]", f"on_end = '{hook}'\n[[mounts]]", 1))
    run = guarded.taoprof("run", "b", "--detach", "--", "sleep", "1000").stdout.strip()
    (hold,) = [hold for hold in guarded.json("status")["data"]["holds"] if hold["id"] == run]
    guarded.machine.user("kill", "-KILL", str(hold["pid"]))
    guarded.taoprof("stop", run)
    report = guarded.home / "hook"
    until(report.exists, "the guard runs the hook")
    pid = guarded.pid
    guarded.systemctl("kill", "--signal=SIGKILL", "--kill-whom=main", UNIT)
    until(lambda: guarded.pid not in (0, pid) and guarded.show("ActiveState")["ActiveState"] == "active", "a new guard")
    guarded.write(guarded.home / "go", "")
    until(lambda: report.read_text() == "begun\nunknown\n", "the hook ends", details=report.read_text)
    until(lambda: not list((guarded.state / "notifications").iterdir()), "nothing is left to do")
