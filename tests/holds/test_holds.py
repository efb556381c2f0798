"""Holds and runs over real processes, with a fake launcher and no engine: who holds, until when, and how a run ends."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.holds import manage
from taoprofiles.holds.records import HoldRecords
from taoprofiles.profiles.store import Store
from taoprofiles.runs import run as runs
from taoprofiles.system import processes
from tests.support.commands import Terminal, call, one_clear_error
from tests.support.engine import until
from tests.support.home import ALL, require
from tests.support.sandbox import Sandbox, gone, kill, mounts_of, rendered


def record_of(sandbox: Sandbox) -> Path:
    """Return the file of the only hold's record."""
    (found,) = (path for path in sandbox.records.glob("*.json") if not path.name.endswith(".mounts.json"))
    return found


def changed_record(sandbox: Sandbox, **fields: object) -> Path:
    path = record_of(sandbox)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return path


# Work that taoprofiles did not start


def test_a_plain_launcher_holds_from_its_start_to_its_end(sandbox: Sandbox) -> None:
    tao, process = sandbox.plain()
    (holder,) = sandbox.refused("b")
    assert (holder["pid"], holder["kind"], holder["phase"], holder["profile"]) == (process.pid, "found", "pending", "a")
    assert holder["command"][1:] == ["model", "unet", "train"]
    done = sandbox.run("use", "b")
    assert f"pid {process.pid}" in done.stderr
    for way in ("taoprof run b -- …", "taoprof use b --wait", f"--release p{process.pid}"):
        assert way in done.stderr
    assert sandbox.run("use", "a").returncode == 0, "the same mapping is no conflict"
    assert tao.reads() == sandbox.mapping_file.read_text()
    assert sandbox.refused("b")[0]["pid"] == process.pid
    tao.end()
    assert sandbox.wait(process) == 0
    sandbox.run("use", "b", check=True)
    assert sandbox.holds() == []


def test_a_launcher_that_is_killed_holds_no_more(sandbox: Sandbox) -> None:
    _, process = sandbox.plain()
    sandbox.refused("b")
    process.kill()
    process.wait(20)
    sandbox.run("use", "b", check=True)


def test_the_same_mapping_of_another_profile_is_no_conflict(sandbox: Sandbox) -> None:
    sandbox.profile("twin", sandbox.profile("a").read_text())
    sandbox.plain()
    sandbox.run("use", "twin", check=True)
    assert sandbox.run("current").stdout == "twin\n"


@pytest.mark.parametrize("how", ["its own file", "another home", "without a container"])
def test_a_launcher_that_does_not_read_the_shared_file_does_not_hold_it(sandbox: Sandbox, how: str) -> None:
    own = sandbox.folder / "own.json"
    own.write_text("{}")
    environ = {
        "its own file": {"LAUNCHER_MOUNTS": str(own)},
        "another home": {"HOME": str(sandbox.folder)},
        "without a container": {"TAO_DOCKER_DISABLE": "1"},
    }[how]
    sandbox.plain(environ)
    sandbox.run("use", "b", check=True)


@pytest.mark.parametrize("how", ["by name", "by a symlink", "by ~", "relative", "through a symlinked folder"])
def test_launcher_mounts_may_lead_to_the_shared_file(sandbox: Sandbox, how: str) -> None:
    (sandbox.folder / "link").symlink_to(sandbox.mapping_file)
    (sandbox.folder / "folder").symlink_to(sandbox.root)
    path = {
        "by name": str(sandbox.mapping_file),
        "by a symlink": str(sandbox.folder / "link"),
        "by ~": "~/.tao_mounts.json",
        "relative": ".tao_mounts.json",
        "through a symlinked folder": str(sandbox.folder / "folder/.tao_mounts.json"),
    }[how]
    _, process = sandbox.plain({"LAUNCHER_MOUNTS": path})
    assert [holder["pid"] for holder in sandbox.refused("b")] == [process.pid]


def test_a_launcher_in_a_run_that_goes_back_to_the_shared_file_holds_it(sandbox: Sandbox) -> None:
    """Within an isolated run, or a shell, anyone may unset LAUNCHER_MOUNTS: then it is as with any plain launcher."""
    tao, _ = sandbox.in_run("b", command=("sh", "-c", "unset LAUNCHER_MOUNTS; exec tao model unet train"))
    assert tao.pid() in [holder["pid"] for holder in sandbox.refused("b")]
    assert tao.reads() == sandbox.mapping_file.read_text()


# The tree of a run


def start_tree(sandbox: Sandbox, how: str) -> tuple[dict[str, int], subprocess.Popen[str]]:
    """Start a run with a launcher that has read its file and has a client; give everyone's pid."""
    tao, run = sandbox.in_run("b", *(["--shared"] if how == "shared" else []), client=True)
    tao.reads()
    return {"run": run.pid, "tao": tao.pid(), "client": tao.client()}, run


def is_held(sandbox: Sandbox, how: str) -> bool:
    """Check whether the run is held, and that a switch is refused if it needs the shared file."""
    held = [hold["kind"] for hold in sandbox.holds()] == ["run"]
    if how == "shared":
        assert sandbox.would_be_refused("a") is held
    else:
        assert not sandbox.would_be_refused("b"), "an isolated run is in nobody's way"
    return held


KILLS = [(one,) for one in ("run", "tao", "client")] + list(itertools.permutations(("run", "tao", "client"), 2))
KILLS = KILLS if ALL else KILLS[::4]


@pytest.mark.parametrize("victims", KILLS, ids="-".join)
@pytest.mark.parametrize("how", ["isolated", "shared"])
def test_a_run_is_held_while_any_part_of_it_lives(sandbox: Sandbox, how: str, victims: tuple[str, ...]) -> None:
    tree, run = start_tree(sandbox, how)
    assert is_held(sandbox, how)
    for victim in victims:
        kill(tree[victim])
        if victim == "run":
            run.wait(20)
        if victim == "tao" and "run" not in victims:
            run.wait(20)  # it sees its command's end and goes
        until(lambda pid=tree[victim]: gone(pid), f"{victim} is gone")
        alive = [name for name, pid in tree.items() if not gone(pid)]
        assert is_held(sandbox, how) == bool(alive), f"{victim} of {victims} was killed, and {alive} go on"
    for pid in tree.values():
        kill(pid)
    run.wait(20)
    until(lambda: all(map(gone, tree.values())), "all are gone")
    assert not is_held(sandbox, how), "nobody is left"
    assert list(sandbox.records.iterdir()) == [], "the next command takes away the record and the private mounts file"


@pytest.mark.parametrize("killed", ["run alone", "run and tao at once", "the whole group"])
def test_a_run_killed_before_it_has_read_its_file(sandbox: Sandbox, killed: str) -> None:
    tao, run = sandbox.in_run("b", "--shared")
    if killed == "the whole group":
        os.killpg(run.pid, signal.SIGKILL)
    else:
        kill(run.pid)
        if killed != "run alone":
            kill(tao.pid())
    run.wait(20)
    if killed == "run alone":
        assert is_held(sandbox, "shared")
        assert tao.reads() == rendered(sandbox, "b").decode()
        tao.end()
    until(lambda: gone(tao.pid()), "the launcher is gone")
    sandbox.run("use", "a", check=True)
    assert list(sandbox.records.iterdir()) == []


def test_the_own_mounts_file_stays_for_a_launcher_whose_run_was_killed(sandbox: Sandbox) -> None:
    tao, run = sandbox.in_run("b")
    kill(run.pid)
    run.wait(20)
    sandbox.run("status", check=True)
    sandbox.run("use", "b", check=True)
    mounts = json.loads(tao.reads())["Mounts"]
    assert mounts == json.loads(rendered(sandbox, "b"))["Mounts"]


def test_the_own_mounts_file_is_private_and_is_deleted_with_the_run(sandbox: Sandbox) -> None:
    shared = sandbox.mapping_file.read_bytes(), sandbox.mapping_file.stat()
    tao, run = sandbox.in_run("b")
    (path,) = sandbox.records.glob("*.mounts.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert tao.reads() == path.read_text()
    tao.end()
    assert run.wait(20) == 0
    assert list(sandbox.records.iterdir()) == []
    now = sandbox.mapping_file.stat()
    assert sandbox.mapping_file.read_bytes() == shared[0]
    assert (now.st_ino, now.st_mtime_ns) == (shared[1].st_ino, shared[1].st_mtime_ns)


def test_a_child_without_claim_and_parents_holds_by_its_run_tag(sandbox: Sandbox) -> None:
    """A command that goes into the background, with every descriptor closed, is still the run's work."""
    script = "import subprocess as s; n = s.DEVNULL; print(s.Popen(['sleep', '1000'], stdin=n, stdout=n, stderr=n).pid)"
    run = sandbox.start(
        sandbox.taoprof, "run", "b", "--shared", "--", sys.executable, "-c", script, stdout=-1, stderr=-1
    )
    out, err = run.communicate(timeout=20)
    pid = int(out)
    try:
        assert not gone(pid)
        assert [hold["kind"] for hold in sandbox.refused("a")] == ["run"], err
    finally:
        kill(pid)
    until(lambda: gone(pid), "it is gone")
    sandbox.run("use", "a", check=True)


# Who is meant by a record


def test_a_reused_pid_holds_nothing(sandbox: Sandbox) -> None:
    sandbox.run("hold", "--reason", "mine", "--pid", str(os.getpid()), check=True)
    sandbox.refused("b")
    changed_record(sandbox, start=json.loads(record_of(sandbox).read_text())["start"] + 1)
    sandbox.run("use", "b", check=True)


def test_a_reused_pid_is_not_a_run(sandbox: Sandbox) -> None:
    tao, run = sandbox.in_run("a", "--shared")
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(20)
    until(lambda: gone(tao.pid()), "the launcher is gone")
    changed_record(sandbox, pid=os.getpid())
    sandbox.run("use", "b", check=True)


def another_boot(sandbox: Sandbox) -> str:
    name, machine, _, namespace = processes.host_id().split(" ")
    require(machine != "-", "there is no machine id here")
    return f"{name} {machine} 11111111-2222-3333-4444-555555555555 {namespace}"


def test_work_from_before_a_reboot_has_ended(sandbox: Sandbox) -> None:
    sandbox.run("hold", "--reason", "mine", "--pid", str(os.getpid()), check=True)
    changed_record(sandbox, place=another_boot(sandbox))
    sandbox.run("use", "b", check=True)
    assert sandbox.holds() == []


def test_a_run_from_before_a_reboot_has_ended(sandbox: Sandbox) -> None:
    _, run = sandbox.in_run("a", "--shared")
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(20)
    changed_record(sandbox, place=another_boot(sandbox))
    sandbox.run("use", "b", check=True)
    (over,) = sandbox.json("history")["data"]["runs"]
    assert over["status"] is None


def test_a_manual_hold_without_time_limit_survives_a_reboot(sandbox: Sandbox) -> None:
    sandbox.run("hold", "--reason", "until the paper is out", check=True)
    changed_record(sandbox, place=another_boot(sandbox))
    sandbox.refused("b")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"v": 1}',
        b"\xff\xfe\x00",
        b'{"v": 1, "id": "other"}',
        b'{"v": 1, "id": 5}',
        *(
            json.dumps({"v": 1, "id": "abcde", "kind": "manual", "shared": True, **wrong}).encode()
            for wrong in (
                {"since": "yesterday"},
                {"since": None},
                {"pid": "x"},
                {"until": "x"},
                {"place": None},
                {"kind": "run", "mounts": 3},
                {"kind": "run", "results": 3},
                {"command": 7},
                {"container": 9},
            )
        ),
    ],
)
def test_a_damaged_record_is_reported_and_nothing_changed(sandbox: Sandbox, content: bytes) -> None:
    """Its work may still be running, so no switch happens and the record stays."""
    sandbox.run("hold", "--reason", "x", check=True)
    record_of(sandbox).unlink()
    (sandbox.records / "abcde.json").write_bytes(content)
    before = sandbox.tree(), sorted(sandbox.records.iterdir()), sandbox.mapping_file.read_bytes()
    done = call(sandbox, "use", "b")
    one_clear_error(done, 3)
    assert "abcde.json" in done.err
    assert (sandbox.tree(), sorted(sandbox.records.iterdir()), sandbox.mapping_file.read_bytes()) == before


@pytest.mark.parametrize("words", [("run", "b", "--", "true"), ("status",), ("release", "x")])
def test_every_command_reports_a_damaged_record(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    sandbox.run("release", sandbox.json("hold", "--reason", "x")["data"]["id"], check=True)
    (sandbox.records / "abcde.json").write_bytes(b"{")
    one_clear_error(call(sandbox, *words), 3)


# Manual holds


def test_a_manual_hold(sandbox: Sandbox) -> None:
    made = sandbox.json("hold", "a", "--reason", "a demo at ten")["data"]
    (holder,) = sandbox.refused("b")
    assert (holder["id"], holder["reason"], holder["kind"], holder["user"]) == (
        made["id"],
        "a demo at ten",
        "manual",
        "ana",
    )
    assert "a demo at ten" in sandbox.run("use", "b").stderr
    sandbox.run("use", "a", check=True)
    assert sandbox.run("hold", "b", "--reason", "x").returncode == 2, "b is not active"
    assert sandbox.run("release", "zzzzz").returncode == 4
    sandbox.run("release", made["id"], check=True)
    sandbox.run("use", "b", check=True)
    assert list(sandbox.records.iterdir()) == []


def test_a_hold_with_a_time_limit(sandbox: Sandbox) -> None:
    sandbox.run("hold", "--reason", "a short one", "--for", "1", check=True)
    sandbox.refused("b")
    until(lambda: sandbox.run("use", "b").returncode == 0, "the time is over")


def test_a_hold_while_a_process_lives(sandbox: Sandbox) -> None:
    process = sandbox.start("sleep", "1000")
    sandbox.run("hold", "--reason", "my own tool", "--pid", str(process.pid), check=True)
    (holder,) = sandbox.refused("b")
    assert holder["pid"] == process.pid
    process.kill()
    process.wait(20)
    sandbox.run("use", "b", check=True)
    assert sandbox.run("hold", "--reason", "x", "--pid", str(process.pid)).returncode == 2


def test_use_with_release(sandbox: Sandbox) -> None:
    tao, process = sandbox.plain()
    hold_id = f"p{process.pid}"
    done = sandbox.run("use", "b", "--release", hold_id)
    one_clear_error(done, 2)
    assert "--yes" in done.stderr
    assert sandbox.run("use", "b", "--release", "*", "--yes").returncode == 4, "never a wildcard"
    sandbox.refused("b")
    sandbox.run("use", "b", "--release", hold_id, "--yes", check=True)
    sandbox.run("use", "a", check=True)
    assert tao.reads()
    other, second = sandbox.plain()
    (holder,) = sandbox.refused("b")
    assert holder["pid"] == second.pid, "only the one that was named is let go of"
    other.end()
    second.wait(20)
    tao.end()
    process.wait(20)
    sandbox.run("status", check=True)
    assert list(sandbox.records.iterdir()) == [], "the note that it was let go of goes with the work"


def test_a_release_in_a_refused_switch_does_not_stay(sandbox: Sandbox) -> None:
    """A command that is refused changes nothing: the hold that was to be let go of is still there."""
    first, second = (sandbox.json("hold", "--reason", why)["data"]["id"] for why in ("one", "two"))
    (holder,) = sandbox.refused("b", "--release", first, "--yes")
    assert holder["id"] == second
    assert {hold["id"] for hold in sandbox.holds()} == {first, second}


@pytest.mark.parametrize(("reply", "status"), [("y", 0), ("n", -2), ("", -2)])
def test_a_release_is_asked_for_on_a_terminal(sandbox: Sandbox, reply: str, status: int) -> None:
    _, process = sandbox.plain()
    words = [sandbox.taoprof, "use", "b", "--release", f"p{process.pid}"]
    with Terminal(words, environ=sandbox.environ, cwd=sandbox.root) as terminal:
        terminal.wait_for("Release its hold anyway? [y/N] ")
        terminal.send(f"{reply}\n")
        assert terminal.finish()[0] == status
    assert sandbox.run("current").stdout == ("b\n" if status == 0 else "a\n")


def test_release_of_a_run(sandbox: Sandbox) -> None:
    tao, _ = sandbox.in_run("b", "--shared")
    (holder,) = sandbox.refused("a")
    one_clear_error(sandbox.run("release", holder["id"]), 2)
    sandbox.run("release", holder["id"], "--yes", check=True)
    sandbox.run("use", "a", check=True)
    assert [hold["released"] for hold in sandbox.holds()] == [True], "it is still told that it runs"
    assert not gone(tao.pid())


@pytest.mark.parametrize("how", ["a run", "found work"])
def test_stop_without_a_container(sandbox: Sandbox, how: str) -> None:
    other_tao, other = sandbox.in_run("a")
    tao, process = sandbox.in_run("b") if how == "a run" else sandbox.plain()
    hold_id = f"p{process.pid}"
    if how == "a run":
        (hold_id,) = (hold["id"] for hold in sandbox.holds() if hold["pid"] == process.pid)
    sandbox.run("stop", hold_id, check=True)
    assert process.wait(20) in (143, -signal.SIGTERM)
    until(lambda: gone(tao.pid()), "the launcher is gone")
    assert not gone(other_tao.pid())
    assert other.poll() is None
    assert len(sandbox.holds()) == 1


def test_stop_of_what_cannot_be_stopped(sandbox: Sandbox) -> None:
    made = sandbox.json("hold", "--reason", "x")["data"]["id"]
    one_clear_error(sandbox.run("stop", made), 2)
    one_clear_error(sandbox.run("stop", "nothing"), 4)


# Two runs at once


def train(folder: str) -> tuple[str, ...]:
    return ("tao", "model", "unet", "train", "-r", f"/workspace/tao-experiments{folder}")


@pytest.mark.parametrize(("mine", "refused"), [("/x", True), ("/x/y", True), ("", True), ("/xy", False)])
def test_two_runs_that_write_to_the_same_folder(sandbox: Sandbox, mine: str, refused: bool) -> None:
    tao, run = sandbox.in_run("a", command=train("/x"))
    done = sandbox.run("run", "a", "--", "true", *train(mine)[1:])
    assert done.returncode == (5 if refused else 0), done.stderr
    if refused:
        assert json.loads(sandbox.run("run", "a", "--json", "--", *train(mine)).stdout)["error"]["holders"][0]["pid"]
        assert str(sandbox.root / "projects/a") in done.stderr
    sandbox.run("run", "a", "--force", "--", "true", *train(mine)[1:], check=True)
    sandbox.run("run", "b", "--", "true", *train(mine)[1:], check=True)
    tao.end()
    run.wait(20)
    sandbox.run("run", "a", "--", "true", *train(mine)[1:], check=True)


def test_runs_that_only_read_do_not_conflict(sandbox: Sandbox) -> None:
    (sandbox.root / "projects/a/x").touch()
    sandbox.in_run("a", command=("tao", "model", "unet", "evaluate", "-m", "/workspace/tao-experiments/x"))
    sandbox.run("run", "a", "--", "true", "unet", "evaluate", "-m", "/workspace/tao-experiments/x", check=True)


def driver(sandbox: Sandbox, script: str) -> dict[str, str]:
    """Return a PATH with an nvidia-smi that answers so."""
    path = sandbox.tao.with_name("nvidia-smi")
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{path.parent}:{os.environ['PATH']}"}


def gpus_in(text: str) -> str:
    envs = {item["variable"]: item["value"] for item in json.loads(text)["Envs"]}
    return envs.get("CUDA_VISIBLE_DEVICES", "all")


def test_gpus_by_index(sandbox: Sandbox) -> None:
    tao, _ = sandbox.in_run("a", "--gpus", "0,1")
    assert gpus_in(tao.reads()) == "0,1"
    for wanted in ("1,", "0,1", "1,2", "all"):
        done = sandbox.run("run", "b", "--gpus", wanted, "--", "true")
        assert done.returncode == 5, (wanted, done.stderr)
        assert "GPU 0,1" in done.stderr
    sandbox.run("run", "b", "--gpus", "2,3", "--", "true", check=True)
    sandbox.run("run", "b", "--", "true", check=True)
    tao.end()


def test_a_gpu_count(sandbox: Sandbox) -> None:
    environ = driver(sandbox, "printf '0\\n1\\n2\\n3\\n'")
    first, run = sandbox.in_run("a", "--gpus", "1", environ=environ)
    second, _ = sandbox.in_run("a", "--gpus", "2", environ=environ)
    assert [gpus_in(tao.reads()) for tao in (first, second)] == ["0", "1,2"]
    assert sandbox.run("run", "b", "--gpus", "2", "--", "true", environ=environ).returncode == 5
    first.end()
    run.wait(20)
    third, _ = sandbox.in_run("b", "--gpus", "2", environ=environ)
    assert gpus_in(third.reads()) == "0,3"
    assert sandbox.run("run", "b", "--gpus", "5", "--", "true", environ=environ).returncode == 2


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found", ":"])
def test_a_gpu_count_without_a_driver(sandbox: Sandbox, script: str) -> None:
    done = sandbox.run("run", "b", "--gpus", "2", "--", "true", environ=driver(sandbox, script))
    one_clear_error(done, 2)
    assert "--gpus 0,1" in done.stderr


@pytest.mark.parametrize("wanted", ["-1", "0", "", "1.5", "x", "0;1", ","])
def test_invalid_gpus(sandbox: Sandbox, wanted: str) -> None:
    one_clear_error(sandbox.run("run", "b", f"--gpus={wanted}", "--", "true"), 2)


def test_a_slow_driver_keeps_nobody_else_waiting(sandbox: Sandbox) -> None:
    """Without persistence mode nvidia-smi takes seconds: the lock is not for that time."""
    environ = driver(sandbox, "touch ~/asked; sleep 3; echo 0")
    sandbox.start(sandbox.taoprof, "run", "a", "--gpus", "1", "--", "true", environ=environ)
    until((sandbox.root / "asked").exists, "the driver is asked")
    sandbox.run("use", "b", check=True)


def test_gpus_are_waited_for(sandbox: Sandbox) -> None:
    tao, run = sandbox.in_run("a", "--gpus", "0,")
    waiting = sandbox.start(sandbox.taoprof, "run", "b", "--gpus", "0,", "--wait", "--", "true", stderr=subprocess.PIPE)
    assert waiting.stderr is not None
    assert f"pid {run.pid}" in waiting.stderr.readline()
    tao.end()
    assert waiting.wait(20) == 0


def test_gpus_and_the_shared_file_are_refused_before_anything_is_switched(sandbox: Sandbox) -> None:
    before = sandbox.mapping_file.read_bytes()
    one_clear_error(sandbox.run("run", "b", "--shared", "--gpus", "0,1", "--", "true"), 2)
    assert sandbox.mapping_file.read_bytes() == before
    assert sandbox.run("current").stdout == "a\n"


# How a run ends


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 3"), 3),
        (("no-such-command",), 127),
        (("/etc/hostname",), 126),
        (("/",), 126),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("sh", "-c", "kill -TERM $$"), 143),
    ],
)
def test_exit_statuses(sandbox: Sandbox, command: tuple[str, ...], status: int) -> None:
    done = sandbox.run("run", "b", "--", *command)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert list(sandbox.records.iterdir()) == []
    if status in (126, 127):
        one_clear_error(done, status)
        assert command[0] in done.stderr
    else:
        assert [run["status"] for run in sandbox.json("history")["data"]["runs"]] == [status]


def test_sigterm_goes_to_the_command(sandbox: Sandbox) -> None:
    tao, run = sandbox.in_run("b")
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 143
    assert gone(tao.pid())
    (over,) = sandbox.json("history")["data"]["runs"]
    assert over["status"] == 143


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_go_to_the_command(sandbox: Sandbox, number: signal.Signals) -> None:
    script = f"trap 'exit 9' {number.value}; echo ready; while :; do sleep 0.05; done"
    run = sandbox.start(sandbox.taoprof, "run", "b", "--", "sh", "-c", script, stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    run.send_signal(number)
    assert run.wait(20) == 9


EARLY = """
import os, signal, subprocess
from taoprofiles.cli.main import main
from taoprofiles.runs import run

class Popen(subprocess.Popen):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        os.kill(os.getpid(), signal.SIGTERM)

run.subprocess.Popen = Popen
main()
"""


def test_a_signal_that_comes_at_once_is_not_lost(sandbox: Sandbox) -> None:
    """The command may run before ``taoprof run`` knows of it; what is sent to the latter then must reach it too."""
    run = sandbox.start(sys.executable, "-c", EARLY, "run", "b", "--", "sleep", "2")
    assert run.wait(20) == 143


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_that_the_caller_ignores_stays_ignored(sandbox: Sandbox, number: signal.Signals) -> None:
    """``nohup taoprof run …`` goes on when its terminal has gone; a script's ``taoprof run … &`` survives a Ctrl-C."""
    script = "grep SigIgn /proc/self/status"
    done = sandbox.run(
        *("run", "b", "--", "sh", "-c", script), preexec_fn=lambda: signal.signal(number, signal.SIG_IGN)
    )
    ignored = int(done.stdout.split()[1], 16)
    assert ignored >> (number - 1) & 1, f"{number.name} kills the command"


def test_the_command_begins_with_the_signals_of_any_command(sandbox: Sandbox) -> None:
    script = "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status"
    plain = subprocess.run(["grep", *script.split("'")[0].split()[1:], script.split("'")[1], "/proc/self/status"],
                           capture_output=True, text=True, timeout=20).stdout  # fmt: skip
    assert sandbox.run("run", "b", "--", "sh", "-c", script).stdout == plain


def test_ctrl_c_ends_both(sandbox: Sandbox) -> None:
    tao = sandbox.new_tao()
    words = [sandbox.taoprof, "run", "b", "--", "tao", "model", "unet", "evaluate"]
    with Terminal(words, environ={**sandbox.environ, **tao.environ}, cwd=sandbox.root) as terminal:
        pid = tao.pid()
        terminal.send("\x03")
        status, _ = terminal.finish()
        assert status == -signal.SIGINT, "it dies of the signal, as a shell needs to stop its script"
        assert gone(pid)
    (over,) = sandbox.json("history")["data"]["runs"]
    assert over["status"] == 130


def test_ctrl_c_ends_only_a_command_that_does_not_catch_it(sandbox: Sandbox) -> None:
    """The command decides: one that answers Ctrl-C and goes on is not left alone by ``taoprof run``."""
    script = "trap 'echo caught' INT; echo ready; read line; echo got $line; exit 4"
    words = [sandbox.taoprof, "run", "b", "--", "bash", "-c", script]
    with Terminal(words, environ=sandbox.environ, cwd=sandbox.root) as terminal:
        terminal.wait_for("ready")
        terminal.send("\x03")
        terminal.wait_for("caught")
        terminal.send("word\n")
        terminal.wait_for("got")
        assert terminal.finish()[0] == 4


def test_the_command_has_the_terminal_and_its_job_control(sandbox: Sandbox) -> None:
    with Terminal(["bash", "--norc", "-i"], environ={**sandbox.environ, "PS1": "$ "}, cwd=sandbox.root) as shell:
        code = "import sys; print([s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr)]); input(); print('on'*2)"
        shell.send(f'{sandbox.taoprof} run b -- {sys.executable} -c "{code}"\n')
        shell.wait_for("[True, True, True]")
        shell.send("\x1a")
        shell.wait_for("Stopped")
        assert len(sandbox.holds()) == 1, "what is stopped is not over"
        shell.send("fg\n")
        shell.wait_for("run b --")
        shell.send("\n")
        shell.wait_for("onon")
        shell.send("echo status=$?\n")
        shell.wait_for("status=0")
        shell.send("exit\n")
        shell.finish()
    assert sandbox.holds() == []


def test_streams_pass_through_untouched(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 4096
    done = subprocess.run(
        [sandbox.taoprof, "run", "b", "--", "cat"],
        env=sandbox.environ,
        cwd=sandbox.root,
        input=content,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, content, b"")


def test_no_descriptor_of_ours_but_the_claim_is_inherited(sandbox: Sandbox) -> None:
    done = sandbox.run("run", "b", "--", "sh", "-c", "ls -l /proc/self/fd", check=True)
    names = [line.split(" -> ")[1] for line in done.stdout.splitlines() if " -> " in line]
    ours = [name for name in names if name.startswith(str(sandbox.root))]
    assert all(name.endswith(".claim") for name in ours), ours


def test_json_of_a_run_is_the_only_thing_on_stdout(sandbox: Sandbox) -> None:
    done = sandbox.run("run", "b", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.returncode == 3
    assert json.loads(done.stdout)["data"]["status"] == 3
    assert "out" in done.stderr


def test_the_variables_of_the_profile_are_there(sandbox: Sandbox) -> None:
    done = sandbox.run("run", "b", "--", "sh", "-c", "echo $TAOPROF_PROFILE $LAUNCHER_MOUNTS", check=True)
    name, path = done.stdout.split()
    assert name == "b"
    assert Path(path).parent == sandbox.records


def test_run_without_a_command(sandbox: Sandbox) -> None:
    one_clear_error(sandbox.run("run", "b"), 2)
    one_clear_error(sandbox.run("run", "b", "--"), 2)
    one_clear_error(sandbox.run("run", "none", "--", "true"), 4)


def test_many_runs_at_once(sandbox: Sandbox) -> None:
    number = 50 if ALL else 10
    before = sandbox.mapping_file.read_bytes()
    runs = [sandbox.in_run("ab"[n % 2]) for n in range(2)]
    taos = [sandbox.new_tao() for _ in range(number)]
    started = [
        sandbox.start(
            *(sandbox.taoprof, "run", "ab"[n % 2], "--", "tao", "model", "unet", "evaluate", str(n)),
            environ=tao.environ,
        )
        for n, tao in enumerate(taos)
    ]
    for tao in taos:
        tao.pid()
    assert len({hold["id"] for hold in sandbox.holds()}) == number + len(runs)
    wanted = {name: json.loads(rendered(sandbox, name))["Mounts"] for name in "ab"}
    for n, tao in enumerate(taos):
        assert json.loads(tao.reads())["Mounts"] == wanted["ab"[n % 2]]
        tao.end(n)
    assert [run.wait(30) for run in started] == list(range(number))
    assert sandbox.mapping_file.read_bytes() == before
    assert len(sandbox.holds()) == len(runs)
    told = {
        run["command"][-1]: run["status"] for run in sandbox.json("history", "--all")["data"]["runs"] if run["ended"]
    }
    assert told == {str(n): n for n in range(number)}


# The log of runs


def test_history_and_status(sandbox: Sandbox) -> None:
    tao, run = sandbox.in_run("a", command=train("/results"))
    (now,) = sandbox.json("status")["data"]["holds"]
    assert (now["kind"], now["profile"], now["pid"], now["status"]) == ("run", "a", run.pid, None)
    assert now["results"] == [str(sandbox.root / "projects/a/results")]
    (running,) = sandbox.json("history")["data"]["runs"]
    assert running["ended"] is None
    assert "running" in sandbox.run("history").stdout
    tao.end(3)
    assert run.wait(20) == 3
    assert sandbox.json("status")["data"]["holds"] == []
    (over,) = sandbox.json("history")["data"]["runs"]
    assert (over["id"], over["status"], over["command"][-2:]) == (now["id"], 3, list(train("/results")[-2:]))
    assert over["ended"] >= over["since"]
    assert "exit status 3" in sandbox.run("history").stdout
    for path in ("projects/a/results", "projects/a/results/weights/x.pth", "projects/a/data"):
        (found,) = sandbox.json("history", str(sandbox.root / path))["data"]["runs"]
        assert found["id"] == now["id"]
    text = sandbox.run("history", str(sandbox.root / "projects/a/results")).stdout
    assert "exit status 3" in text
    assert "/workspace/tao-experiments" in text
    assert sandbox.json("history", str(sandbox.root / "projects/b"))["data"]["runs"] == []
    assert dict(over["mounts"]) == mounts_of(sandbox, "a")


# Shells


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_shows_its_profile_and_ends_with_its_last_status(sandbox: Sandbox, shell: str) -> None:
    path = shutil.which(shell)
    require(path, f"there is no {shell}")
    (sandbox.root / ".bashrc").write_text("PS1='mine> '\nFROM_RC=seen\n")
    (sandbox.root / ".zshrc").write_text("PROMPT='mine> '\nFROM_RC=seen\n")
    (sandbox.root / ".config/fish").mkdir()
    # Without it the first fish of a home makes its completions in the background, and is not over for half a minute.
    (sandbox.root / ".local/share/fish/generated_completions").mkdir(parents=True)
    (sandbox.root / ".config/fish/config.fish").write_text(
        "function fish_prompt; echo -n 'mine> '; end\nset FROM_RC seen\n"
    )
    environ = {**sandbox.environ, "SHELL": str(path), "TERM": "dumb"}
    with Terminal([sandbox.taoprof, "shell", "b"], environ=environ, cwd=sandbox.root) as terminal:
        terminal.wait_for("(taoprof:b) mine> ")
        (hold,) = sandbox.holds()
        assert (hold["kind"], hold["profile"], hold["shared"]) == ("shell", "b", False)
        terminal.send("echo [$TAOPROF_PROFILE-$FROM_RC]\n")
        terminal.wait_for("[b-seen]")
        terminal.wait_for("mine> ")
        status = "$status" if shell == "fish" else "$?"
        terminal.send(f"{sandbox.taoprof} shell a; echo nested={status}\n")
        terminal.wait_for("already has profile 'b'")
        terminal.wait_for("nested=2")
        terminal.send("exit 5\n")
        assert terminal.finish()[0] == 5
    assert sandbox.holds() == []
    assert list(sandbox.records.iterdir()) == []


def test_zsh_reads_the_users_zshenv(sandbox: Sandbox) -> None:
    path = shutil.which("zsh")
    require(path, "there is no zsh")
    (sandbox.root / ".zshenv").write_text("FROM_ENV=seen\n")
    (sandbox.root / ".zshrc").write_text("PROMPT='mine> '\n")
    environ = {**sandbox.environ, "SHELL": str(path), "TERM": "dumb"}
    with Terminal([sandbox.taoprof, "shell", "b"], environ=environ, cwd=sandbox.root) as terminal:
        terminal.wait_for("mine> ")
        terminal.send('echo "[$FROM_ENV]"\n')
        assert "[seen]" in terminal.wait_for("]\r\n")


def test_a_shell_that_is_killed_holds_no_more(sandbox: Sandbox) -> None:
    environ = {**sandbox.environ, "SHELL": "/bin/sh"}
    with Terminal([sandbox.taoprof, "shell", "b"], environ=environ, cwd=sandbox.root) as terminal:
        terminal.wait_for("(taoprof:b) $ ")
        terminal.send("echo $$.\n")
        terminal.wait_for("\n")
        pid = int(terminal.wait_for(".").split()[-1].rstrip("."))
        kill(pid)
        status, _ = terminal.finish()
        assert status == 137
    assert sandbox.holds() == []


@pytest.mark.skipif(not ALL, reason="takes seconds of nothing: TAOPROF_TEST_ALL=1, as in CI")
def test_a_run_that_only_waits_costs_nothing(sandbox: Sandbox) -> None:
    """No engine answers here, and ``taoprof run`` must not ask for one all the time."""
    seconds = 4 if ALL else 2
    tao, run = sandbox.in_run("b")
    stat = Path(f"/proc/{run.pid}/stat")

    def used() -> float:
        fields: list[Any] = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, end = used(), time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, "some time has passed", seconds=seconds + 5)
    assert used() - before < 0.1 * seconds
    tao.end()
    assert run.wait(20) == 0


def test_descriptors_of_the_caller_are_inherited(sandbox: Sandbox) -> None:
    script = f"{sandbox.taoprof} run b -- cat <(echo through a pipe); exec 7<{sandbox.mapping_file}; "
    script += f"{sandbox.taoprof} run b -- sh -c 'cat <&7'"
    done = subprocess.run(["bash", "-c", script], env=sandbox.environ, capture_output=True, text=True, timeout=30)
    assert done.stdout == "through a pipe\n" + sandbox.mapping_file.read_text(), done.stderr


def test_an_end_that_cannot_be_recorded_hides_no_exit_status(sandbox: Sandbox) -> None:
    """The journal of runs cannot be written, as on a full disk."""
    (sandbox.state / "runs.jsonl").mkdir()
    done = sandbox.run("run", "b", "--", "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert "could not be recorded" in done.stderr


def test_secrets_in_commands_are_not_recorded(sandbox: Sandbox) -> None:
    sandbox.run("run", "b", "--", "true", "-k", "S3CRET", "api_token=S3CRET", check=True)
    for words in (["history"], ["history", "--json"], ["history", "."]):
        assert "S3CRET" not in sandbox.run(*words).stdout
    assert "S3CRET" not in (sandbox.state / "runs.jsonl").read_text()


def test_a_refused_undo_says_what_to_do(sandbox: Sandbox) -> None:
    sandbox.run("use", "b", check=True)
    sandbox.run("hold", "--reason", "x", check=True)
    done = sandbox.run("undo")
    one_clear_error(done, 5)
    assert "undo again" in done.stderr
    assert "--wait" not in done.stderr


def test_a_release_outlives_the_binding_of_its_run(sandbox: Sandbox) -> None:
    hold = HoldRecords(sandbox.context)
    tao, run = sandbox.in_run("b", "--shared")
    (record,) = hold.all()
    sandbox.run("release", record.id, "--yes", check=True)
    seen = {"Id": "ab" * 32, "Image": "x", "Env": [], "User": "", "ShmSize": 1, "Ulimits": {}, "Binds": {}}
    prepared = runs.Run(sandbox.context, record, Store(sandbox.context).renderer("b"))
    prepared._bind(seen)
    (noted,) = hold.all()
    assert (noted.released, noted.container) == (True, "ab" * 32)
    tao.end()
    run.wait(20)


def test_a_time_limit_does_not_depend_on_the_clock(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = manage.hold(sandbox.context, None, reason="x", seconds=60)
    really, boot = time.time, time.clock_gettime
    monkeypatch.setattr(time, "time", lambda: really() + 7200)
    assert [one.id for one in manage.active_holds(sandbox.context).holds] == [hold.id], (
        "the clock was set, no time has passed"
    )
    monkeypatch.setattr(time, "clock_gettime", lambda clock: boot(clock) + 61)
    assert manage.active_holds(sandbox.context).holds == []
