"""Detached runs over real processes, without an engine: their start, their log, their end, and whoever is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.holds import logs
from taoprofiles.holds.logs import LogReader, RunLog
from taoprofiles.runs import lookup
from taoprofiles.storage import files
from tests.support.commands import as_them, one_clear_error
from tests.support.engine import until
from tests.support.home import Home, write_program
from tests.support.sandbox import Sandbox, Tao, gone, kill

SECRET = "s3cret-of-ana"

TRAIN = ("unet", "train", "-r", "/workspace/tao-experiments/x")
"""Words that name a results folder, which one run at a time may have."""


@pytest.fixture(autouse=True)
def secret(sandbox: Sandbox) -> None:
    path = sandbox.profiles / "b.toml"
    path.write_text(path.read_text().replace("[[mounts]]", f'[variables]\nKEY = "{SECRET}"\n[[mounts]]', 1))


def detached_tao(sandbox: Sandbox, *, client: bool = False) -> tuple[str, Tao]:
    tao = sandbox.new_tao(client=client)
    return sandbox.detach("tao", "model", "unet", "evaluate", environ=tao.environ), tao


def log_of(sandbox: Sandbox, run: str) -> Path:
    return sandbox.state / "logs" / f"{run}.log"


def printed(sandbox: Sandbox, run: str) -> str:
    return sandbox.run("logs", run, check=True).stdout


def ended(sandbox: Sandbox) -> dict[str, int | None]:
    """Return the exit statuses of all runs, after a check that each has ended and that nothing of them is left."""
    until(lambda: sandbox.holds() == [] and not list(sandbox.records.iterdir()), "nothing is held")
    runs = sandbox.json("history", "--all")["data"]["runs"]
    assert [run for run in runs if run["ended"] is None] == []
    return {run["id"]: run["status"] for run in runs}


def test_it_survives_its_terminal_and_can_be_followed_and_stopped_from_another(sandbox: Sandbox) -> None:
    script = "trap 'echo stopping; exit 9' TERM; tty; echo one; while :; do sleep 0.05; done"
    with sandbox.terminal("bash", "--norc", "-i", PS1="$ ") as shell:
        shell.send(f'{sandbox.taoprof} run b --detach -- sh -c "{script}"\n')
        shell.wait_for("$ ")
        run = re.findall(r"\b[2-9a-z]{5}\b(?=\r?\n)", shell.wait_for("$ "))[-1]
        assert [hold["id"] for hold in sandbox.holds()] == [run]
    (hold,) = sandbox.holds()
    assert (hold["id"], hold["kind"], hold["profile"]) == (run, "run", "b")
    assert os.getsid(hold["pid"]) == hold["pid"]
    assert {os.readlink(f"/proc/{hold['pid']}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null", str(log_of(sandbox, run))}
    with sandbox.terminal(sandbox.taoprof, "logs", "-f", "b") as follower:
        assert "not a tty" in follower.wait_for("one")
        waiting = sandbox.start(sandbox.taoprof, "wait", run[:3], stdout=subprocess.PIPE)
        sandbox.run("stop", run[:3], check=True)
        follower.wait_for("stopping")
        assert follower.finish()[0] == 0
    assert waiting.wait(20) == 9
    assert ended(sandbox) == {run: 9}


@pytest.mark.parametrize("options", [("--detach",), ("--detach", "--wait", "0")])
def test_what_refuses_a_run_is_reported_before_anything_is_detached(sandbox: Sandbox, options: tuple[str, ...]) -> None:
    busy = sandbox.detach("sh", "-c", "exec sleep 1000", *TRAIN)
    refused = {
        ("nosuch", *options, "--", "true"): 4,
        ("b", *options): 2,
        ("b", *options, "--", "true", *TRAIN): 5,
        ("b", *options, "--", "nosuchcommand"): 127,
        ("b", *options, "--shared", "--gpus", "0,", "--", "true"): 2,
    }
    for words, status in refused.items():
        one_clear_error(sandbox.run("run", *words), status)
    one_clear_error(sandbox.run("run", "b", "--detach", "--", str(sandbox.root)), 126)
    held = json.loads(sandbox.run("run", "b", *options, "--json", "--", "true", *TRAIN).stdout)["error"]
    assert (held["status"], [hold["id"] for hold in held["holders"]]) == (5, [busy])
    (sandbox.root / "projects/b").rename(sandbox.root / "projects/elsewhere")
    one_clear_error(sandbox.run("run", "b", *options, "--", "true"), 3)
    (sandbox.root / "projects/elsewhere").rename(sandbox.root / "projects/b")
    assert [path.name for path in (sandbox.state / "logs").iterdir()] == [f"{busy}.log"]
    assert sandbox.json("status")["data"]["queue"] == []
    sandbox.run("stop", busy, check=True)
    assert sandbox.run("wait", busy).returncode == 143
    assert ended(sandbox) == {busy: 143}


@pytest.mark.parametrize("options", [(), ("--detach",), ("--detach", "--wait")])
def test_a_container_that_the_user_may_not_start_is_refused_at_once(theirs: Home, options: tuple[str, ...]) -> None:
    """Not in the log of a run that has an id, and that nobody reads before the morning."""
    address = theirs.root.parent / "engine"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(address))
        address.chmod(0)
        environ = {**theirs.environ, "DOCKER_HOST": f"unix://{address}"}
        for words in (("--image", "i:1", "--", "unet", "train"), ("--", "tao", "model", "unet", "train")):
            done = as_them(theirs, "run", "a", *options, *words, environ=environ)
            one_clear_error(done, 126)
            assert f"this user may not use the engine at unix://{address}" in done.err and done.out == ""
        assert json.loads(as_them(theirs, "history", "--json").out)["data"]["runs"] == []
        assert as_them(theirs, "run", "a", "--", "true", environ=environ).status == 0
        without = {"TAO_DOCKER_DISABLE": "1"}  # the launcher starts the task itself
        for command, more in (("tao model unet train", without), ("tao info", {}), ("tao --help", {})):
            done = as_them(theirs, "run", "a", "--", *command.split(), environ={**environ, **more})
            assert "may not use" not in done.err and "'tao'" in done.err, command


def test_the_log_is_private_and_shows_no_secret(sandbox: Sandbox) -> None:
    script = 'echo "key $KEY"; echo "  encryption_key: abcdef" >&2; printf "50%%\\r100%%\\n"; echo $1; exit 3'
    run = sandbox.detach("sh", "-c", script, "sh", "a" * 5000)
    log = log_of(sandbox, run)
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700
    assert sandbox.run("wait", run).returncode == 3
    wanted = f"key ***\n  encryption_key: ***\n50%\r100%\n{'a' * 5000}\n"
    assert printed(sandbox, run) == wanted
    until(lambda: SECRET.encode() not in log.read_bytes(), "no secret is in the file after the end")
    assert sandbox.run("logs", "-n", "1", "-").stdout == "a" * 5000 + "\n"
    envelope = sandbox.json("logs", run, "-n", "3")
    assert envelope["data"]["lines"][0] == "  encryption_key: ***"
    assert ended(sandbox) == {run: 3}


def test_a_log_that_is_followed_has_what_the_end_of_the_run_printed(sandbox: Sandbox) -> None:
    gate, path = sandbox.root / "gate", sandbox.profiles / "b.toml"
    os.mkfifo(gate)
    path.write_text(f"on_end = 'cat {gate}; exit 3'\n" + path.read_text())
    run = sandbox.detach("echo", "trained")
    assert sandbox.run("wait", run).returncode == 0
    ended_run = lookup.find_run(sandbox.context, run)
    chunks = lookup.follow_log(sandbox.context, ended_run, lookup.open_log(sandbox.context, ended_run))
    assert next(chunks) == b"trained\n"
    gate.write_text("")
    assert b"on_end: exit status 3" in b"".join(chunks)


def test_a_long_log_loses_its_older_half_and_nothing_that_is_written_meanwhile(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_LIMIT", 1 << 20)
    log = RunLog(sandbox.context, "abcde")
    with os.fdopen(log.create(), "wb") as file:
        number = 0
        for _ in range(3):
            while os.stat(log.path).st_blocks * 512 <= logs.LOG_LIMIT:
                file.write(b"".join(b"line %d key=%s\n" % (number + n, SECRET.encode()) for n in range(1000)))
                file.flush()
                number += 1000
            logs.trim(log.path)
            assert os.stat(log.path).st_blocks * 512 <= logs.LOG_LIMIT // 2 + (1 << 17)
        file.write(b"the last one")
    reader = LogReader(log.path, [SECRET])
    lines = (b"".join(iter(reader.read, b"")) + reader.rest()).decode().splitlines()
    assert lines.pop() == "the last one"
    first = int(lines[0].split()[1])
    assert 0 < first < number
    assert lines == [f"line {n} key=***" for n in range(first, number)]
    log.mask([SECRET])
    assert Path(log.path).read_text().splitlines() == [*lines, "the last one"]
    assert os.stat(log.path).st_size <= logs.LOG_LIMIT


def test_on_a_file_system_without_holes_a_long_log_is_emptied(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_punch_hole", lambda *_: False)
    log = RunLog(sandbox.context, "abcde")
    with os.fdopen(log.create(), "wb", buffering=0) as file:
        file.write(b"old\n" * (logs.LOG_LIMIT // 4 + 1024))
        reader = LogReader(log.path, [])
        assert reader.read().startswith(b"old\n")
        logs.trim(log.path)
        file.write(b"new\n")
        assert reader.read() == b"new\n"
    assert Path(log.path).read_bytes() == b"new\n"


def test_logs_of_old_runs_are_deleted_but_not_of_active_ones(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "KEPT_LOGS", 3)
    sandbox.records.mkdir(exist_ok=True)
    (sandbox.records / "run22.json").write_text("{}")
    for number in range(2, 8):
        os.close(RunLog(sandbox.context, f"run{number}{number}").create())
        os.utime(log_of(sandbox, f"run{number}{number}"), (number, number))
    kept = {path.stem for path in (sandbox.state / "logs").iterdir()}
    assert kept == {"run22", "run55", "run66", "run77"}


def test_ids_and_waiting(sandbox: Sandbox) -> None:
    first, tao = detached_tao(sandbox)
    second = sandbox.detach("sh", "-c", "exit 4")
    third = sandbox.detach("true")
    assert sandbox.run("wait", second, third).returncode == 4
    assert sandbox.run("wait", third, second[:4]).returncode == 4
    done = sandbox.run("wait", "-", "b", third)
    assert (done.returncode, done.stdout) == (0, f"{third}: exit status 0\n" * 3)
    one_clear_error(sandbox.run("wait", third, first, "--timeout", "0.2"), 124)
    assert sandbox.json("wait", first, "--timeout", "0")["error"]["code"] == "timeout"
    for command in ("logs", "wait", "stop"):
        one_clear_error(sandbox.run(command, "zzzzzz"), 4)
    for word, status, text in ((third, 4, f"run {third} has already ended"), ("b", 2, f"taoprof stop {first}")):
        if first.startswith(word):  # then it is a short form of the id
            continue
        one_clear_error(done := sandbox.run("stop", word), status)
        assert text in done.stderr
    one_clear_error(sandbox.run("logs", ""), 4)
    tao.end(5)
    assert sandbox.json("wait", first, second)["data"]["runs"] == [
        {"id": first, "name": "b", "status": 5},
        {"id": second, "name": "b", "status": 4},
    ]
    assert sandbox.run("run", "a", "--", "true").returncode == 0
    assert sandbox.run("logs", "a").returncode == 0
    assert ended(sandbox).keys() > {first, second, third}


# Whoever is killed


def test_killing_taoprof_ends_neither_the_command_nor_its_log(sandbox: Sandbox) -> None:
    script = 'echo before $KEY; read go <"$0"; echo after; sleep 0.1; echo last'
    gate = sandbox.root / "gate"
    os.mkfifo(gate)
    run = sandbox.detach("sh", "-c", script, str(gate))
    until(lambda: printed(sandbox, run) == "before ***\n", "it has begun")
    (hold,) = sandbox.holds()
    follower = sandbox.start(sandbox.taoprof, "logs", "-f", run, stdout=subprocess.PIPE)
    waiting = sandbox.start(sandbox.taoprof, "wait", run, stdout=subprocess.PIPE)
    kill(hold["pid"])
    until(lambda: gone(hold["pid"]), "taoprof is gone")
    assert [hold["id"] for hold in sandbox.holds()] == [run]
    gate.write_text("go\n")
    assert follower.wait(20) == 0
    assert follower.stdout.read() == "before ***\nafter\nlast\n"
    assert waiting.wait(20) == 1
    assert ended(sandbox) == {run: None}
    assert printed(sandbox, run) == "before ***\nafter\nlast\n"


KILLED = """
import os, signal, sys
from taoprofiles.cli.main import main
from taoprofiles.runs import run, start

def killed_behind(owner, name, who):
    original, starter = getattr(owner, name), os.getpid()
    def call(*words, **options):
        result = original(*words, **options)
        if who == ("starter" if os.getpid() == starter else "run"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, call)

owners = {"fork": os, "setsid": os, "start_detached": start, "create": start.RunLog, "write": start.HoldRecords,
          "start": run.Run, "Popen": run.subprocess, "finish": run.Run, "mask": run.RunLog, "end": run.HoldRecords}
who, name = sys.argv.pop(1).split()
killed_behind(owners[name], name, who)
main()
"""


@pytest.mark.parametrize(
    ("point", "statuses", "is_started"),
    [
        ("starter create", [None], False),
        ("starter fork", [7], True),
        ("starter start_detached", [7], True),
        ("run setsid", [None], False),
        ("run write", [None], False),
        ("run Popen", [None], True),
        ("run start", [None], True),
        ("run mask", [7], True),
        ("run end", [7], True),
        ("run finish", [7], True),
    ],
)
def test_whoever_is_killed_at_whatever_point_the_run_has_an_end(
    sandbox: Sandbox, point: str, statuses: list[int | None], is_started: bool
) -> None:
    """``point`` is who is killed, and the function behind which that happens."""
    words = ("run", "b", "--detach", "--", "sh", "-c", "echo one; sleep 0.2; echo two; exit 7")
    starter = sandbox.start(
        *(sys.executable, "-c", KILLED, point, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = starter.communicate(timeout=20)
    if point.startswith("starter"):
        assert (starter.returncode, out) == (-signal.SIGKILL, "")
    elif point in ("run start", "run mask", "run end", "run finish"):
        assert (starter.returncode, err) == (0, "")
    else:
        assert (starter.returncode, "was killed while it was being started" in err) == (1, True)
    runs = ended(sandbox)
    assert list(runs.values()) == statuses, sandbox.run("logs", "-").stdout
    assert printed(sandbox, *runs) == ("one\ntwo\n" if is_started else "")


PAUSED = """
import pathlib, signal, sys
from taoprofiles.cli.main import main
from taoprofiles.runs import run

def watch(self, say):
    pathlib.Path("paused").touch()
    signal.pause()

run.Run.watch = watch
main()
"""


def test_a_run_that_has_not_started_its_command_yet_can_be_stopped(sandbox: Sandbox) -> None:
    words = ("run", "b", "--detach", "--", "touch", str(sandbox.root / "started"))
    starter = sandbox.start(sys.executable, "-c", PAUSED, *words, stderr=subprocess.PIPE)
    until((sandbox.root / "paused").exists, "the run has a process")
    sandbox.run("stop", "-", check=True)
    assert starter.wait(20) == 1
    assert not (sandbox.root / "started").exists()
    assert list(ended(sandbox).values()) == [None]


# In the queue


class Trainings:
    """Detached runs that wait for one results folder; each notes its start, and ends when it is told to."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def start(self, *wait: str) -> str:
        script = "echo started; until read status <~/$TAOPROF_RUN; do sleep 0.02; done 2>/dev/null; exit $status"
        message = "waiting" if self.sandbox.holds() else ""
        return self.sandbox.detach("sh", "-c", script, *TRAIN, options=("--wait", *wait), printed=message)

    def end(self, run: str, status: int) -> None:
        (self.sandbox.root / run).write_text(f"{status}\n")
        assert self.sandbox.run("wait", run).returncode == status

    def queue(self) -> list[dict[str, Any]]:
        return self.sandbox.json("status")["data"]["queue"]

    def order(self) -> list[str]:
        return [command["id"] for command in self.queue()]


@pytest.fixture
def trainings(sandbox: Sandbox) -> Trainings:
    return Trainings(sandbox)


def test_a_queued_run_has_its_id_at_once_and_starts_by_itself(trainings: Trainings) -> None:
    sandbox = trainings.sandbox
    first, second, third = trainings.start(), trainings.start(), trainings.start()
    waiting = trainings.queue()
    assert [(command["id"], command["waits_for"]) for command in waiting] == [(second, [first]), (third, [second])]
    assert [command["command"][-1] for command in waiting] == ["/workspace/tao-experiments/x"] * 2
    data = sandbox.json("status")["data"]
    assert [hold["id"] for hold in data["holds"]] == [run["id"] for run in data["runs"]] == [first]
    shown = sandbox.run("status").stdout
    assert shown.index(f"  {first}  b ") < shown.index("waiting, in this order:") < shown.index(f"  {second}  b ")
    assert f"{second}  " not in shown.partition("waiting")[0]
    assert f"{third} " in sandbox.run("history").stdout
    assert "waiting for sh -c echo started" in printed(sandbox, second)
    follower = sandbox.start(sandbox.taoprof, "logs", "-f", second, stdout=subprocess.PIPE)
    waiter = sandbox.start(sandbox.taoprof, "wait", third[:4], second, stdout=subprocess.PIPE)
    one_clear_error(sandbox.run("wait", second, "--timeout", "0.1"), 124)
    trainings.end(first, 7)
    until(lambda: "started\n" in printed(sandbox, second), "the second one starts")
    assert trainings.order() == [third]
    trainings.end(second, 3)
    trainings.end(third, 0)
    assert (waiter.wait(20), follower.wait(20)) == (3, 0)
    assert follower.stdout is not None and follower.stdout.read().endswith("\nstarted\n")
    assert ended(sandbox) == {first: 7, second: 3, third: 0}


def test_a_queued_run_is_stopped_killed_or_gives_up_and_has_an_end(trainings: Trainings) -> None:
    sandbox = trainings.sandbox
    first, stopped, killed, short = (trainings.start() for _ in range(4))
    impatient = trainings.start("0.2")
    assert sandbox.run("wait", impatient).returncode == 5
    assert "error: gave up waiting after 0 s: " in printed(sandbox, impatient)
    assert sandbox.run("stop", stopped, check=True).stdout == f"{stopped}: left the queue\n"
    assert sandbox.run("stop", short[:4], check=True).stdout == f"{short}: left the queue\n"
    assert trainings.order() == [killed]
    assert sandbox.run("wait", stopped, short).returncode == 143
    assert printed(sandbox, stopped).endswith("taoprof: stopped before the command was started\n")
    kill(trainings.queue()[0]["pid"])
    assert sandbox.run("wait", killed).returncode == 1
    trainings.end(first, 0)
    assert ended(sandbox) == {first: 0, stopped: 143, killed: None, short: 143, impatient: 5}


def test_a_queued_run_whose_command_has_gone_says_so_in_its_log(trainings: Trainings) -> None:
    sandbox = trainings.sandbox
    first = trainings.start()
    program = write_program(sandbox.root / "program", "exit 0")
    done = sandbox.run("run", "b", "--detach", "--wait", "--json", "--", str(program), *TRAIN)
    second = json.loads(done.stdout)["data"]
    assert (second["queued"], second["gpus"]) == (True, None)
    program.unlink()
    trainings.end(first, 0)
    assert sandbox.run("wait", second["id"]).returncode == 127
    assert f"taoprof: error: no such file: '{program}'" in printed(sandbox, second["id"])
    assert ended(sandbox) == {first: 0, second["id"]: 127}
