"""Holds over real processes, with a fake launcher and no engine: who holds the mapping file, and until when."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taoprofiles.guard.guard import Overwrites
from taoprofiles.holds import manage
from taoprofiles.holds.hold import Hold
from taoprofiles.holds.records import HoldRecords
from taoprofiles.profiles.store import Store
from taoprofiles.runs import run as runs
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import Lock
from taoprofiles.system import processes
from tests.support.commands import Terminal, call, one_clear_error
from tests.support.engine import until
from tests.support.home import ALL, Home, require
from tests.support.injection import fail_calls
from tests.support.sandbox import FakeEngine, Sandbox, gone, kill, kill_run, mounts_of, rendered


def record_of(sandbox: Sandbox) -> Path:
    """Return the file of the only hold's record."""
    (path,) = (path for path in sandbox.records.glob("*.json") if not path.name.endswith(".mounts.json"))
    return path


def change_record(sandbox: Sandbox, **fields: object) -> None:
    path = record_of(sandbox)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# Work that taoprofiles did not start


def test_a_plain_launcher_holds_from_its_start_to_its_end(sandbox: Sandbox) -> None:
    sandbox.profile("twin", sandbox.profile("a").read_text())
    tao, process = sandbox.plain()
    (holder,) = sandbox.refused("b")
    assert (holder["pid"], holder["kind"], holder["phase"], holder["profile"]) == (process.pid, "found", "pending", "a")
    assert holder["command"][1:] == ["model", "unet", "train"]
    done = sandbox.run("use", "b")
    for text in ("taoprof run b -- COMMAND", "taoprof use b --wait", f"--release p{process.pid}", f"pid {process.pid}"):
        assert text in done.stderr
    for name in ("a", "twin"):
        assert sandbox.run("use", name).returncode == 0, "the same mapping is no conflict, also of another profile"
    assert tao.reads() == sandbox.mapping_file.read_text()
    assert sandbox.refused("b")[0]["pid"] == process.pid
    tao.end()
    assert process.wait(20) == 0
    sandbox.run("use", "b", check=True)
    assert sandbox.holds() == []
    _, process = sandbox.plain()
    sandbox.refused("a")
    process.kill()
    process.wait(20)
    sandbox.run("use", "a", check=True)


@pytest.mark.parametrize(
    ("environ", "is_held"),
    [
        ({"LAUNCHER_MOUNTS": "{folder}/own.json"}, False),
        ({"HOME": "{folder}"}, False),
        ({"TAO_DOCKER_DISABLE": "1"}, False),
        ({"LAUNCHER_MOUNTS": "{root}/.tao_mounts.json"}, True),
        ({"LAUNCHER_MOUNTS": "{folder}/link"}, True),
        ({"LAUNCHER_MOUNTS": "~/.tao_mounts.json"}, True),
        ({"LAUNCHER_MOUNTS": ".tao_mounts.json"}, True),
        ({"LAUNCHER_MOUNTS": "{folder}/folder/.tao_mounts.json"}, True),
    ],
    ids=lambda value: str(value),
)
def test_a_launcher_holds_the_file_that_it_reads(sandbox: Sandbox, environ: dict[str, str], is_held: bool) -> None:
    (sandbox.folder / "own.json").write_text("{}")
    (sandbox.folder / "link").symlink_to(sandbox.mapping_file)
    (sandbox.folder / "folder").symlink_to(sandbox.root)
    places = {"folder": sandbox.folder, "root": sandbox.root}
    sandbox.plain({name: value.format(**places) for name, value in environ.items()})
    assert sandbox.would_be_refused("b") is is_held


def test_a_launcher_in_a_run_that_goes_back_to_the_shared_file_holds_it(sandbox: Sandbox) -> None:
    """Within an isolated run, or a shell, anyone may unset LAUNCHER_MOUNTS: then it is as with any plain launcher."""
    tao, _ = sandbox.in_run("b", command=("sh", "-c", "unset LAUNCHER_MOUNTS; exec tao model unet train"))
    assert tao.pid() in [holder["pid"] for holder in sandbox.refused("b")]
    assert tao.reads() == sandbox.mapping_file.read_text()


@pytest.mark.parametrize("how", ["isolated", "plain"])
def test_a_launcher_whose_environment_may_not_be_read(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As after 'newgrp docker', for every other process of the user: the kernel shows it only to the same group."""
    if how == "isolated":
        sandbox.in_run("b")
    else:
        sandbox.plain()
    readable = processes.environment

    def environment(pid: int) -> dict[str, str]:
        environ = readable(pid)  # of the launchers of other tests, too
        return {} if environ.get("HOME") == sandbox.environ["HOME"] else environ

    monkeypatch.setattr(processes, "environment", environment)
    sandbox.run("use", "a")
    assert sandbox.would_be_refused("b") is (how == "plain")


# The tree of a run


def is_held(sandbox: Sandbox, how: str) -> bool:
    """Check whether the run is held, and that a switch is refused if it needs the mapping file."""
    held = [hold["kind"] for hold in sandbox.holds()] == ["run"]
    if how == "shared":
        assert sandbox.would_be_refused("a") is held
    else:
        assert not sandbox.would_be_refused("b"), "an isolated run is in nobody's way"
    return held


KILLS = [(process,) for process in ("run", "tao", "client")] + list(itertools.permutations(("run", "tao", "client"), 2))
KILLS = KILLS if ALL else KILLS[::4]


@pytest.mark.parametrize("victims", KILLS, ids="-".join)
@pytest.mark.parametrize("how", ["isolated", "shared"])
def test_a_run_is_held_while_any_part_of_it_lives(sandbox: Sandbox, how: str, victims: tuple[str, ...]) -> None:
    tao, run = sandbox.in_run("b", *(["--shared"] if how == "shared" else []), client=True)
    assert json.loads(tao.reads())["Mounts"] == json.loads(rendered(sandbox, "b"))["Mounts"]
    tree = {"run": run.pid, "tao": tao.pid(), "client": tao.client()}
    assert is_held(sandbox, how)
    for victim in victims:
        kill(tree[victim])
        if victim == "run" or (victim == "tao" and "run" not in victims):
            run.wait(20)  # it sees its command's end and goes
        until(lambda pid=tree[victim]: gone(pid), f"{victim} is gone")
        alive = [name for name, pid in tree.items() if not gone(pid)]
        assert is_held(sandbox, how) == bool(alive), f"{victim} of {victims} was killed, and {alive} go on"
    for pid in tree.values():
        kill(pid)
    run.wait(20)
    until(lambda: all(map(gone, tree.values())), "all are gone")
    assert not is_held(sandbox, how), "nobody is left"
    manage.hold(sandbox.context, None, reason="the next replacement deletes the file of a killed one")
    sandbox.run("release", sandbox.holds()[0]["id"], "--yes", check=True)
    assert list(sandbox.records.iterdir()) == [], "the next command takes away the record and the private mounts file"


def test_the_own_mounts_file_is_private_and_is_deleted_with_the_run(sandbox: Sandbox) -> None:
    shared = sandbox.mapping_file.read_bytes(), sandbox.mapping_file.stat().st_mtime_ns
    tao, run = sandbox.in_run("b")
    orphan, killed = sandbox.in_run("b")
    own, left = (sandbox.records / f"{hold['id']}.mounts.json" for hold in sandbox.holds())
    assert own.stat().st_mode & 0o777 == 0o600
    kill(killed.pid)
    killed.wait(20)
    for command in (("status",), ("use", "b")):
        sandbox.run(*command, check=True)
    assert orphan.reads() == left.read_text(), "it stays for the launcher"
    sandbox.run("use", "a", check=True)
    assert tao.reads() == own.read_text()
    for launcher in (tao, orphan):
        launcher.end(4)
    assert run.wait(20) == 4
    until(lambda: gone(orphan.pid()), "the launcher is gone")
    assert sandbox.holds() == []
    assert list(sandbox.records.iterdir()) == []
    assert sandbox.mapping_file.read_bytes() == shared[0]


def test_a_child_without_claim_and_parents_holds_by_its_run_tag(sandbox: Sandbox) -> None:
    """A command that goes into the background, with every descriptor closed, is still the run's work."""
    script = "import subprocess as s; n = s.DEVNULL; print(s.Popen(['sleep', '1000'], stdin=n, stdout=n, stderr=n).pid)"
    words = (sandbox.taoprof, "run", "b", "--shared", "--", sys.executable, "-c", script)
    out, err = sandbox.start(*words, stdout=-1, stderr=-1).communicate(timeout=20)
    try:
        assert [hold["kind"] for hold in sandbox.refused("a")] == ["run"], err
    finally:
        kill(int(out))
    until(lambda: gone(int(out)), "it is gone")
    sandbox.run("use", "a", check=True)


# Who is meant by a record


def another_boot() -> str:
    name, machine, _, namespace = processes.host_id().split(" ")
    require(machine != "-", "there is no machine id here")
    return f"{name} {machine} 11111111-2222-3333-4444-555555555555 {namespace}"


def test_a_hold_by_process_ends_with_that_process_and_boot(sandbox: Sandbox) -> None:
    """A reused pid holds nothing, and no process survives a reboot."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        started = processes.start_time(process.pid)
        assert started is not None
        for end in (
            lambda: change_record(sandbox, start=started + 1),
            lambda: change_record(sandbox, place=another_boot()),
            lambda: (process.kill(), process.wait(20)),
        ):
            sandbox.run("hold", "--reason", "my own tool", "--pid", str(process.pid), check=True)
            assert [holder["pid"] for holder in sandbox.refused("b")] == [process.pid]
            end()
            sandbox.run("use", "b", check=True)
            assert sandbox.holds() == []
            sandbox.run("use", "a", check=True)
    assert sandbox.run("hold", "--reason", "x", "--pid", str(process.pid)).returncode == 2


@pytest.mark.parametrize("how", ["its pid is reused", "reboot"])
def test_a_run_that_was_killed_ends(sandbox: Sandbox, how: str) -> None:
    tao, run = sandbox.in_run("a", "--shared")
    kill_run(tao, run)
    change_record(sandbox, **({"pid": os.getpid()} if how != "reboot" else {"place": another_boot()}))
    sandbox.run("use", "b", check=True)
    assert [run["status"] for run in sandbox.json("history")["data"]["runs"]] == [None]


def test_a_manual_hold_without_time_limit_survives_a_reboot(sandbox: Sandbox) -> None:
    sandbox.run("hold", "--reason", "until the paper is out", check=True)
    change_record(sandbox, place=another_boot())
    sandbox.refused("b")


DAMAGED = [b"", b"{", b"[]", b"{}", b'{"v": 1}', b"\xff\xfe\x00", b'{"v": 1, "id": "other"}', b'{"v": 1, "id": 5}']
DAMAGED += [
    json.dumps({"v": 1, "id": "abcde", "kind": "manual", "shared": True, field: value}).encode()
    for field, value in [
        *(("since", "yesterday"), ("since", None), ("since", 1e300), ("pid", "x"), ("until", "x"), ("place", None)),
        *(("mounts", 3), ("mounts", [["a"]]), ("results", 3), ("command", 7), ("command", [7]), ("container", 9)),
        *(("kind", "other"), ("gpus", [0]), ("gpus", 1)),
    ]
]


def test_a_damaged_record_is_reported_and_nothing_changed(sandbox: Sandbox) -> None:
    """Its work may still be running, so no switch happens and the record stays."""
    sandbox.run("release", sandbox.json("hold", "--reason", "x")["data"]["id"], check=True)
    record = sandbox.records / "abcde.json"
    for content in DAMAGED:
        record.write_bytes(content)
        before = sandbox.tree(), sandbox.mapping_file.read_bytes()
        done = call(sandbox, "use", "b")
        one_clear_error(done, 3)
        assert "abcde.json" in done.err, content
        assert (sandbox.tree(), sandbox.mapping_file.read_bytes(), record.read_bytes()) == (*before, content)
    for words in (("run", "b", "--", "true"), ("status",), ("release", "x")):
        one_clear_error(call(sandbox, *words), 3)


# Manual holds, and releases


def test_a_manual_hold(sandbox: Sandbox) -> None:
    hold = sandbox.json("hold", "a", "--reason", "a demo at ten")["data"]
    (holder,) = sandbox.refused("b")
    wanted = {"id": hold["id"], "reason": "a demo at ten", "kind": "manual", "user": "ana"}
    assert {key: holder[key] for key in wanted} == wanted
    assert "a demo at ten" in sandbox.run("use", "b").stderr
    sandbox.run("use", "a", check=True)
    assert sandbox.run("hold", "b", "--reason", "x").returncode == 2, "b is not active"
    assert sandbox.run("release", "zzzzz").returncode == 4
    one_clear_error(sandbox.run("stop", hold["id"]), 2)
    one_clear_error(sandbox.run("stop", "nothing"), 4)
    sandbox.run("release", hold["id"], check=True)
    sandbox.run("use", "b", check=True)
    assert list(sandbox.records.iterdir()) == []
    sandbox.run("hold", "--reason", "x", check=True)
    done = sandbox.run("undo")
    one_clear_error(done, 5)
    assert ("undo again" in done.stderr, "--wait" in done.stderr) == (True, False)


def test_a_time_limit_does_not_depend_on_the_clock(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = manage.hold(sandbox.context, None, reason="x", seconds=60)
    clock, boot = time.time, time.clock_gettime
    monkeypatch.setattr(time, "time", lambda: clock() + 7200)
    active = manage.active_holds(sandbox.context).holds
    assert [active_hold.id for active_hold in active] == [hold.id], "the clock was set, no time has passed"
    monkeypatch.setattr(time, "clock_gettime", lambda number: boot(number) + 61)
    assert manage.active_holds(sandbox.context).holds == []


def test_use_with_release(sandbox: Sandbox) -> None:
    tao, process = sandbox.plain()
    hold_id = f"p{process.pid}"
    done = sandbox.run("use", "b", "--release", hold_id)
    one_clear_error(done, 2)
    assert "--yes" in done.stderr
    for bad, status in (("nosuch", 4), ("../b", 2)):
        done = sandbox.run("use", bad, "--release", hold_id)
        one_clear_error(done, status)
        assert "--yes" not in done.stderr, "nothing is asked for a switch that fails anyway"
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
    assert [holder["id"] for holder in sandbox.refused("b", "--release", first, "--yes")] == [second]
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
    """It is still shown that it runs, and a container that it gets later does not make the hold count again."""
    tao, _ = sandbox.in_run("b", "--shared")
    (record,) = HoldRecords(sandbox.context).all()
    one_clear_error(sandbox.run("release", record.id), 2)
    sandbox.run("release", record.id, "--yes", check=True)
    sandbox.run("use", "a", check=True)
    assert [hold["released"] for hold in sandbox.holds()] == [True]
    assert not gone(tao.pid())
    container = {"Id": "ab" * 32, "Image": "x", "Env": [], "User": "", "ShmSize": 1, "Ulimits": {}, "Binds": {}}
    runs.Run(sandbox.context, record, Store(sandbox.context).renderer("b")).container_started(container)
    (noted,) = HoldRecords(sandbox.context).all()
    assert (noted.released, noted.container) == (True, "ab" * 32)


@pytest.mark.parametrize("how", ["a run", "found work"])
def test_stop_without_a_container(sandbox: Sandbox, how: str) -> None:
    other_tao, other = sandbox.in_run("a")
    tao, process = sandbox.in_run("b") if how == "a run" else sandbox.plain()
    (hold_id,) = (hold["id"] for hold in sandbox.holds() if hold["pid"] == process.pid)
    sandbox.run("stop", hold_id, check=True)
    assert process.wait(20) in (143, -signal.SIGTERM)
    until(lambda: gone(tao.pid()), "the launcher is gone")
    assert (gone(other_tao.pid()), other.poll()) == (False, None)
    assert len(sandbox.holds()) == 1


# What is held is found, and what happened is said


def test_what_is_held_is_found_however_long_the_history_is(sandbox: Sandbox) -> None:
    """A guard that restores it again and again writes two entries each time."""
    hold = manage.hold(sandbox.context, None, reason="x")
    history, held = History(sandbox.context), sandbox.mapping_file.read_bytes()
    entry = {"action": "found", "target": "mapping", "profile": None, "before": None}
    with Lock(sandbox.context.lock):
        history.record([{**entry, "after": history.store_content(b"%d" % (number % 2))} for number in range(300)])
    (again,) = HoldRecords(sandbox.context).all()
    for needs in (again, Hold(digest=hold.digest)):  # a record of an older version does not name the content
        assert Overwrites(sandbox.context, 10).find_mapping([needs]) in (("a", held), (None, held))


def test_containers_are_recognised_by_their_mapping_however_old(sandbox: Sandbox) -> None:
    """An exec in them is none of ours, so only their mounts tell what they need. The older one is listed first."""
    with FakeEngine(sandbox.folder) as engine:
        older, newer = (engine.container(number, mounts_of(sandbox, name)) for number, name in enumerate("ba", 1))
        with Lock(sandbox.context.lock):
            for number in range(60):
                sandbox.mapping_file.write_bytes(b'{"Mounts": [], "n": %d}' % number)
                History(sandbox.context).record_external_change(sandbox.mapping_file.read_bytes())
        sandbox.profile("c")
        holders = sandbox.refused("c", environ=engine.environ)
        assert [(holder["container"], holder["profile"]) for holder in holders] == [(older, "b"), (newer, "a")]
        del engine.containers[newer]
        sandbox.run("use", "b", environ=engine.environ, check=True)  # just what it needs


@pytest.mark.parametrize("how", ["manual", "run"])
def test_a_record_that_cannot_be_removed_is_said(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Never "released", and the end of a run is not written again by every command."""
    if how == "manual":
        hold_id = sandbox.json("hold", "--reason", "x")["data"]["id"]
    else:
        tao, run = sandbox.in_run("b", "--shared")
        (hold_id,) = (hold["id"] for hold in sandbox.holds())
        kill_run(tao, run)
    fail_calls(monkeypatch, errno.EPERM, lambda path: path.endswith(f"{hold_id}.json"), "unlink")
    if how == "manual":
        one_clear_error(call(sandbox, "release", hold_id), 1)
        assert call(sandbox, "use", "b").status == 5
    else:
        for _ in range(2):
            done = call(sandbox, "use", "a")
            assert (done.status, f"cannot remove '{sandbox.records}/{hold_id}.json'" in done.err) == (0, True)
            assert call(sandbox, "use", "b").status == 0
    monkeypatch.undo()
    sandbox.run("status", check=True)
    lines = (sandbox.state / "runs.jsonl").read_text().splitlines() if how == "run" else []
    assert [json.loads(line)["id"] for line in lines] == [hold_id] * len(lines)
    assert len(lines) == (how == "run")


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("what", ["stat", "cmdline", "/etc/machine-id"])
def test_work_that_cannot_be_looked_at_has_not_ended(
    home: Home, monkeypatch: pytest.MonkeyPatch, code: int, what: str
) -> None:
    """While the system cannot open any more files, a process looks as one that has ended, and as no launcher."""
    home.profiles_named("a", "b")

    def is_hit(path: str, *_: int) -> bool:
        return path == what or (path.startswith("/proc/") and path.endswith(f"/{what}"))

    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            home.run("hold", "--reason", "test", "--pid", str(process.pid), check=True)
            fail_calls(monkeypatch, code, is_hit, "open")
            done = call(home, "use", "b")
            assert done.status == 1 and os.strerror(code).lower() in done.err.lower(), done
            monkeypatch.undo()
            assert [hold["pid"] for hold in home.holds()] == [process.pid]
        finally:
            process.kill()
