"""Runs over real processes, with a fake launcher and no engine: conflicts of two runs, how a run ends, shells."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.holds import records
from taoprofiles.holds.hold import Hold
from taoprofiles.runs import lookup
from taoprofiles.runs.start import prepare
from taoprofiles.system import processes
from tests.support.commands import one_clear_error
from tests.support.engine import until
from tests.support.home import ALL, require, write_program
from tests.support.sandbox import Sandbox, gone, kill, mounts_of, rendered
from tests.support.stand_ins import driver, gpus, gpus_in


def statuses(sandbox: Sandbox) -> list[int | None]:
    return [run["status"] for run in sandbox.json("history")["data"]["runs"]]


# Two runs at once


def train(folder: str) -> tuple[str, ...]:
    return ("tao", "model", "unet", "train", "-r", f"/workspace/tao-experiments{folder}")


def test_two_runs_that_write_to_the_same_folder(sandbox: Sandbox) -> None:
    tao, run = sandbox.in_run("a", command=train("/x"))
    for mine, refused in {"/x": True, "/x/y": True, "": True, "/xy": False}.items():
        done = sandbox.run("run", "a", "--", "true", *train(mine)[1:])
        assert done.returncode == (5 if refused else 0), (mine, done.stderr)
        assert (str(sandbox.root / "projects/a") in done.stderr) == refused
    holders = json.loads(sandbox.run("run", "a", "--json", "--", *train("/x")).stdout)["error"]["holders"]
    assert [holder["pid"] for holder in holders] == [run.pid]
    sandbox.run("run", "a", "--force", "--", "true", *train("/x")[1:], check=True)
    sandbox.run("run", "b", "--", "true", *train("/x")[1:], check=True)
    (sandbox.root / "projects/a/m").touch()
    reads = ("unet", "evaluate", "-m", "/workspace/tao-experiments/m")
    sandbox.in_run("a", command=("tao", "model", *reads))
    sandbox.run("run", "a", "--", "true", *reads, check=True)
    tao.end()
    run.wait(20)
    sandbox.run("run", "a", "--", "true", *train("/x")[1:], check=True)


def test_gpus_by_index(sandbox: Sandbox) -> None:
    tao, run = sandbox.in_run("a", "--gpus", "0,1")
    assert gpus_in(tao.reads()) == "0,1"
    for wanted in ("1,", "0,1", "1,2", "all"):
        done = sandbox.run("run", "b", "--gpus", wanted, "--", "true")
        assert (done.returncode, "GPU 0,1" in done.stderr) == (5, True), (wanted, done.stderr)
    sandbox.run("run", "b", "--gpus", "2,3", "--", "true", check=True)
    sandbox.run("run", "b", "--", "true", check=True)
    waiting = sandbox.start(sandbox.taoprof, "run", "b", "--gpus", "0,", "--wait", "--", "true", stderr=subprocess.PIPE)
    assert f"pid {run.pid}" in waiting.stderr.readline()
    tao.end()
    assert waiting.wait(20) == 0


def test_a_gpu_count(sandbox: Sandbox) -> None:
    environ = driver(sandbox, gpus(4))
    first, run = sandbox.in_run("a", "--gpus", "1", environ=environ)
    second, _ = sandbox.in_run("a", "--gpus", "2", environ=environ)
    assert [gpus_in(tao.reads()) for tao in (first, second)] == ["0", "1,2"]
    assert sandbox.run("run", "b", "--gpus", "2", "--", "true", environ=environ).returncode == 5
    first.end()
    run.wait(20)
    third, _ = sandbox.in_run("b", "--gpus", "2", environ=environ)
    assert gpus_in(third.reads()) == "0,3"
    assert sandbox.run("run", "b", "--gpus", "5", "--", "true", environ=environ).returncode == 2


NO_PID = 1 << 23
"""No process has it: the largest pid is 4194304 (proc_sys_kernel(5), pid_max)."""


def test_gpus_by_another_name(sandbox: Sandbox) -> None:
    """A UUID and an index of one GPU; the profile's own CUDA_VISIBLE_DEVICES; and those of the shell."""
    busy = driver(sandbox, gpus(4, f"GPU-1a1b, {NO_PID}"))
    tao, run = sandbox.in_run("a", "--gpus", "GPU-2a2b,", environ=busy)
    assert gpus_in(tao.reads()) == "GPU-2a2b"
    for wanted, status in (("2,", 5), ("GPU-2a,", 5), ("GPU-3a,", 0), ("3,", 0)):
        assert sandbox.run("run", "b", "--gpus", wanted, "--", "true", environ=busy).returncode == status, wanted
    with (sandbox.profiles / "b.toml").open("a") as file:
        file.write('[container.env]\nCUDA_VISIBLE_DEVICES = "0,GPU-3a3b"\n')
    second, _ = sandbox.in_run("b")
    assert gpus_in(second.reads()) == "0,GPU-3a3b"
    done = sandbox.run("run", "a", "--gpus", "1", "--", "true", environ=busy)
    assert (done.returncode, f"GPU 1: a process that is not visible here   pid {NO_PID}," in done.stderr) == (5, True)
    done = sandbox.run("run", "a", "--gpus", "1,", "--", "true", environ=busy)
    warning = f"taoprof: warning: GPU 1 is also used by process {NO_PID}, which is no run with --gpus\n"
    assert (done.returncode, done.stderr) == (0, warning), "it was asked for by its index"
    assert sandbox.run("run", "a", "--gpus", "3,", "--", "true", environ=busy).returncode == 5
    hidden = {**busy, "CUDA_VISIBLE_DEVICES": "2,GPU-1"}
    assert sandbox.run("run", "a", "--gpus", "2", "--", "true", environ=hidden).returncode == 5
    assert sandbox.run("run", "a", "--gpus", "3", "--", "true", environ=hidden).returncode == 2
    tao.end()
    run.wait(20)


def test_a_gpu_of_a_process_that_is_no_run_is_shown_and_waited_for(sandbox: Sandbox) -> None:
    """Of nobody's hold; a process of a run belongs to it, whether it has asked for GPUs or not."""
    other = sandbox.start("sleep", "1000")
    run = sandbox.start(sandbox.taoprof, "run", "b", "--", "sh", "-c", "echo $$ >~/pid; exec sleep 1000")
    own = until(lambda: (sandbox.root / "pid").exists() and (sandbox.root / "pid").read_text().strip(), "it runs")
    driver(sandbox, gpus(2, f"GPU-0a0b, {other.pid}", f"GPU-1a1b, {own}"))
    (hold,) = sandbox.holds()
    data = sandbox.json("status")["data"]["gpus"]
    user = processes.user_name(os.getuid())
    assert [(gpu["index"], gpu["holds"], gpu["processes"]) for gpu in data] == [
        ("0", [], [{"pid": other.pid, "user": user, "program": "sleep"}]),
        ("1", [hold["id"]], []),
    ]
    shown = sandbox.run("status", check=True).stdout
    assert re.search(rf"\n  0 +Tesla T4 +100 of 16384 MiB +5 % +process {other.pid} \(sleep\)\n", shown)
    done = sandbox.run("run", "a", "--gpus", "1", "--", "true")
    assert done.returncode == 5
    assert f"GPU 0: sleep   pid {other.pid}, {user}, " in done.stderr
    assert f"hold {hold['id']}" in done.stderr
    words = ("run", "a", "--gpus", "1", "--wait", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES; cat $LAUNCHER_MOUNTS")
    waiting = sandbox.start(sandbox.taoprof, *words, stdout=subprocess.PIPE)
    queue = lambda: sandbox.json("status")["data"]["queue"]  # noqa: E731
    until(lambda: queue() and f"p{other.pid}" in queue()[0]["waits_for"], "it waits for the process", details=queue)
    driver(sandbox, gpus(2, f"GPU-1a1b, {own}"))
    other.kill()
    out, _ = waiting.communicate(timeout=20)
    assert (waiting.returncode, '"CUDA_VISIBLE_DEVICES"' in out) == (0, True)
    run.terminate()
    run.wait(20)


def test_a_driver_that_fails_for_a_while_ends_no_waiting_run(sandbox: Sandbox) -> None:
    environ = driver(sandbox, f"[ -e ~/silent ] && exit 9; {gpus(1)}")
    tao, run = sandbox.in_run("a", "--gpus", "1", environ=environ)
    waiting = sandbox.start(
        *(sandbox.taoprof, "run", "b", "--gpus", "1", "--wait", "--", "true"), environ=environ, stderr=subprocess.PIPE
    )
    assert f"pid {run.pid}" in waiting.stderr.readline()
    (sandbox.root / "silent").touch()
    tao.end()
    run.wait(20)
    assert "the NVIDIA driver does not respond" in waiting.stderr.readline()
    one_clear_error(sandbox.run("run", "b", "--gpus", "1", "--wait", "--", "true", environ=environ), 2)
    (sandbox.root / "silent").unlink()
    assert waiting.wait(20) == 0


def test_gpus_that_cannot_be_given(sandbox: Sandbox) -> None:
    for script in ("exit 9", "echo No devices were found", ":"):
        done = sandbox.run("run", "b", "--gpus", "2", "--", "true", environ=driver(sandbox, script))
        one_clear_error(done, 2)
        assert "--gpus 0,1" in done.stderr
    for wanted in ("-1", "0", "", "1.5", "x", "0;1", ","):
        one_clear_error(sandbox.run("run", "b", f"--gpus={wanted}", "--", "true"), 2)
    before = sandbox.mapping_file.read_bytes()
    one_clear_error(sandbox.run("run", "b", "--shared", "--gpus", "0,1", "--", "true"), 2)
    assert sandbox.mapping_file.read_bytes() == before, "refused before anything is switched"


def test_a_slow_driver_keeps_nobody_else_waiting(sandbox: Sandbox) -> None:
    """Without persistence mode nvidia-smi takes seconds: the lock is not for that time."""
    environ = driver(sandbox, "touch ~/asked; sleep 3; " + gpus(1))
    sandbox.start(sandbox.taoprof, "run", "a", "--gpus", "1", "--", "true", environ=environ)
    until((sandbox.root / "asked").exists, "the driver is asked")
    sandbox.run("use", "b", check=True)


def test_run_refuses_a_relative_spec_file_that_does_not_exist_as_check_does(sandbox: Sandbox) -> None:
    folder = sandbox.root / "projects/a"
    (folder / "trian.txt").touch()
    command = ("a", "--", "tao", "model", "unet", "train", "-e", "train.txt")
    for verb in ("check", "run"):
        done = sandbox.run(verb, *command, cwd=folder)
        assert done.returncode == 3
        text = done.stdout + done.stderr
        assert f"no such file in the container: 'train.txt' (on this host: '{folder}/train.txt')" in text, verb
        assert "did you mean 'trian.txt'?" in text, verb


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
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert list(sandbox.records.iterdir()) == []
    if status in (126, 127):
        one_clear_error(done, status)
        assert command[0] in done.stderr
    else:
        assert statuses(sandbox) == [status]


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("tao model unet train", "write it without quotes"),
        ("true --version", "write it without quotes"),
        ("true && tao list", "only a shell can run this: taoprof run b -- bash -c 'true && tao list'"),
        (("cd", "/tmp"), "only a shell can run this: taoprof run b -- bash -c 'cd /tmp'"),
        (("FOO=1", "true"), "to set a variable for a command: taoprof run b -- env FOO=1 true"),
        ("./my script.sh", "error: no such file: './my script.sh'"),
        ("my.sh", "in the current folder: ./my.sh"),
        ("./my.sh", "after '#!' does not exist"),
        (("tao", "list"), "'taoprof doctor' looks for the launcher"),  # although a folder has that name
        ("no-such-command", "is it installed, and is its environment active?"),
    ],
)
def test_why_a_command_is_not_found(sandbox: Sandbox, command: str | tuple[str, ...], hint: str) -> None:
    write_program(sandbox.root / "my.sh", "#!/nonexistent/sh\n")
    (sandbox.root / "tao").mkdir()
    words = (command,) if isinstance(command, str) else command
    done = sandbox.run("run", "b", "--", *words, cwd=sandbox.root, environ={"PATH": "/usr/bin:/bin"})
    one_clear_error(done, 127)
    assert done.stderr.endswith(f"{hint}\n")


def test_a_launchers_success_counts_only_if_its_task_was_seen(sandbox: Sandbox) -> None:
    """There is no engine here, so no task can have run; what is no task of a launcher has its own exit status."""
    for words, status in [
        (("tao", "model", "unet", "train"), 1),
        *((words, 0) for words in (("tao", "list"), ("tao", "model", "--help"), ("tao", "--help"))),
    ]:
        tao = sandbox.new_tao()
        tao.end()
        done = sandbox.run("run", "b", "--", *words, environ=tao.environ)
        assert done.returncode == status, done.stderr
        assert ("so the run is treated as failed" in done.stderr) == bool(status)
    tao = sandbox.new_tao()
    tao.end(2)
    done = sandbox.run("run", "b", "--", "tao", "model", "unet", "train", environ=tao.environ)
    assert done.returncode == 2
    assert "ended (exit status 2) without a container. To find the reason: taoprof doctor" in done.stderr
    tao = sandbox.new_tao()
    tao.end()
    words = ("run", "b", "--", "tao", "model", "unet", "train")
    done = sandbox.run(*words, environ={**tao.environ, "TAO_DOCKER_DISABLE": "1"})
    assert (done.returncode, "TAO_DOCKER_DISABLE hides the exit status" in done.stderr) == (0, True)


def test_without_a_terminal_the_launcher_gets_one(sandbox: Sandbox, tmp_path: Path) -> None:
    """Else ``docker exec -it`` would fail: "the input device is not a TTY": under nohup, cron, CI and with &."""
    write_program(tmp_path / "tao", "[ -t 0 ] && echo its own >&2 || echo none >&2; exit 4")
    task = ("tao", "model", "unet", "train")
    environ = {**sandbox.environ, "PATH": f"{tmp_path}:{sandbox.environ['PATH']}"}
    done = sandbox.run("run", "b", "--", *task, environ=environ)
    assert (done.returncode, "its own" in done.stderr) == (4, True)
    words = f"set -m; {sandbox.taoprof} run b -- {' '.join(task)} & wait $!"  # not the terminal's process group
    with sandbox.terminal("bash", "-c", words, PATH=environ["PATH"]) as terminal:
        terminal.wait_for("its own")
    done = sandbox.run("run", "b", "--", "sh", "-c", "[ -t 0 ] || cat", environ=environ, input=b"kept")
    assert done.stdout == "kept", "other commands keep their standard input"
    sandbox.profile("b", sandbox.profile("b").read_text() + "[docker]\ntty = false\n")
    done = sandbox.run("run", "b", "--", *task, environ=environ)
    assert (done.returncode, "none" in done.stderr) == (4, True), "docker exec reads what the profile says"


def test_an_end_that_cannot_be_recorded_hides_no_exit_status(sandbox: Sandbox) -> None:
    """The journal of runs cannot be written, as on a full disk."""
    (sandbox.state / "runs.jsonl").mkdir()
    done = sandbox.run("run", "b", "--", "sh", "-c", "exit 3")
    assert (done.returncode, "could not be recorded" in done.stderr) == (3, True)


def test_processes_that_cannot_be_listed_hide_no_exit_status(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(sandbox.context, "b", ["sh", "-c", "exit 3"])
    messages: list[str] = []
    status = run.start(["sh", "-c", "exit 3"], say=messages.append)
    monkeypatch.setattr(os, "listdir", mock.Mock(side_effect=OSError(23, "too many open files")))
    assert run.finish(status) == 3
    assert len(messages) == 1, messages
    monkeypatch.undo()
    assert sandbox.holds() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_go_to_the_command(sandbox: Sandbox, number: signal.Signals) -> None:
    script = f"trap 'exit 9' {number.value}; echo ready; while :; do sleep 0.05; done"
    run = sandbox.start(sandbox.taoprof, "run", "b", "--", "sh", "-c", script, stdout=subprocess.PIPE)
    assert run.stdout.readline() == "ready\n"
    run.send_signal(number)
    assert run.wait(20) == 9
    assert statuses(sandbox) == [9]


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


@pytest.mark.parametrize("number", [None, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_command_begins_with_the_signals_of_any_command(sandbox: Sandbox, number: signal.Signals | None) -> None:
    """``nohup taoprof run …`` goes on when its terminal has gone; a script's ``taoprof run … &`` survives a Ctrl-C."""
    command = ["grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"]

    def ignore() -> None:
        if number is not None:
            signal.signal(number, signal.SIG_IGN)

    plain = subprocess.run(command, capture_output=True, text=True, timeout=20, preexec_fn=ignore)
    assert sandbox.run("run", "b", "--", *command, preexec_fn=ignore).stdout == plain.stdout


def test_ctrl_c_ends_both(sandbox: Sandbox) -> None:
    tao = sandbox.new_tao()
    words = ("run", "b", "--", "tao", "model", "unet", "evaluate")
    with sandbox.terminal(sandbox.taoprof, *words, **tao.environ) as terminal:
        pid = tao.pid()
        terminal.send("\x03")
        status, _ = terminal.finish()
        assert status == -signal.SIGINT, "it dies of the signal, as a shell needs to stop its script"
        assert gone(pid)
    assert statuses(sandbox) == [130]


def test_ctrl_c_ends_only_a_command_that_does_not_catch_it(sandbox: Sandbox) -> None:
    """The command decides: one that answers Ctrl-C and goes on is not left alone by ``taoprof run``."""
    script = "trap 'echo caught' INT; echo ready; read line; echo got $line; exit 4"
    with sandbox.terminal(sandbox.taoprof, "run", "b", "--", "bash", "-c", script) as terminal:
        terminal.wait_for("ready")
        terminal.send("\x03")
        terminal.wait_for("caught")
        terminal.send("word\n")
        terminal.wait_for("got")
        assert terminal.finish()[0] == 4


def test_the_command_has_the_terminal_and_its_job_control(sandbox: Sandbox) -> None:
    with sandbox.terminal("bash", "--norc", "-i", PS1="$ ") as shell:
        code = "import os, sys; print([s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr)], os.getpid(), '.'); "
        code += "input(); print('on'*2)"
        shell.send(f'{sandbox.taoprof} run b -- {sys.executable} -c "{code}"\n')
        shell.wait_for("[True, True, True] ")
        pid = int(shell.wait_for(" .")[:-2])
        shell.send("\x1a")
        shell.wait_for("Stopped")
        shell.wait_for("$ ")
        # On a busy machine it may be in its read() still, and take what is typed for the shell.
        until(lambda: processes.is_stopped(pid), "the command has stopped")
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


def test_streams_and_descriptors_pass_through_untouched(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 4096
    command = [sandbox.taoprof, "run", "b", "--", "cat"]
    done = subprocess.run(
        command, env=sandbox.environ, cwd=sandbox.root, input=content, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, content, b"")
    script = f"{sandbox.taoprof} run b -- cat <(echo through a pipe); exec 7<{sandbox.mapping_file}; "
    script += f"{sandbox.taoprof} run b -- sh -c 'cat <&7'"
    shell = subprocess.run(["bash", "-c", script], env=sandbox.environ, capture_output=True, text=True, timeout=30)
    assert shell.stdout == "through a pipe\n" + sandbox.mapping_file.read_text(), shell.stderr
    listed = sandbox.run("run", "b", "--", "sh", "-c", "ls -l /proc/self/fd", check=True).stdout.splitlines()
    names = [line.split(" -> ")[1] for line in listed if " -> " in line]
    assert all(name.endswith(".claim") for name in names if name.startswith(str(sandbox.root))), names


def test_json_of_a_run_is_the_only_thing_on_stdout(sandbox: Sandbox) -> None:
    done = sandbox.run("run", "b", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.returncode == 3
    assert json.loads(done.stdout)["data"]["status"] == 3
    assert "out" in done.stderr


def test_run_without_a_command(sandbox: Sandbox) -> None:
    one_clear_error(sandbox.run("run", "b"), 2)
    one_clear_error(sandbox.run("run", "b", "--"), 2)
    one_clear_error(sandbox.run("run", "none", "--", "true"), 4)


def test_many_runs_at_once(sandbox: Sandbox) -> None:
    number = 20 if ALL else 10
    before = sandbox.mapping_file.read_bytes()
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
    assert len({hold["id"] for hold in sandbox.holds()}) == number
    wanted = {name: json.loads(rendered(sandbox, name))["Mounts"] for name in "ab"}
    for n, tao in enumerate(taos):
        assert json.loads(tao.reads())["Mounts"] == wanted["ab"[n % 2]]
        tao.end(n + 1)
    assert [run.wait(30) for run in started] == list(range(1, number + 1))
    assert sandbox.mapping_file.read_bytes() == before
    assert sandbox.holds() == []
    ended = {run["command"][-1]: run["status"] for run in sandbox.json("history", "--all")["data"]["runs"]}
    assert ended == {str(n): n + 1 for n in range(number)}


def test_the_results_folder_of_a_spec_file_is_reserved(sandbox: Sandbox) -> None:
    source, inside = next(iter(mounts_of(sandbox, "a").items()))
    Path(source, "one.yaml").write_text(f"results_dir: {inside}/x\n")
    Path(source, "two.yaml").write_text(f"results_dir: {inside}/y\ntrain: {{results_dir: {inside}/x}}\n")
    tao, run = sandbox.in_run("a", command=("tao", "model", "dino", "train", "-e", f"{inside}/one.yaml"))
    assert [hold["results"] for hold in sandbox.holds()] == [[f"{source}/x"]]
    words = ["run", "a", "--", "true", "dino", "train", "-e", f"{inside}/two.yaml"]
    refused = sandbox.run(*words)
    assert (refused.returncode, f"pid {run.pid}" in refused.stderr) == (5, True)
    for options in ([], ["--image", "tao:7", "--on", "slurm"], ["--image", "none", "--detach"]):
        refused = sandbox.run(*words[:2], *options, *words[2:])
        hint = f"wait with: taoprof run a {shlex.join([*options, '--wait', *words[2:]])}"
        assert hint in refused.stderr, "the whole command"
    secret = sandbox.run(*words, "-k", "nvapi-0123456789abcdef")
    assert "run a --wait -- COMMAND" in secret.stderr
    sandbox.run(*words, f"results_dir={inside}/z", check=True)
    script = f"cd / && : dino train -e {inside}/two.yaml"
    assert sandbox.run("run", "a", "--", "bash", "-lc", script).returncode == 5, "the commands of a script count"
    tao.end(3)
    assert run.wait(20) == 3


def test_a_mount_point_inside_a_mount_is_created_before_the_engine_creates_it_as_root(sandbox: Sandbox) -> None:
    source, inside = next(iter(mounts_of(sandbox, "a").items()))
    with (sandbox.profiles / "a.toml").open("a") as file:
        file.write(f'\n[[mounts]]\nsource = "{sandbox.root}"\ndestination = "{inside}/net/specs"\n')
    sandbox.run("use", "a", check=True)
    assert not Path(source, "net").exists(), "nothing is started"
    sandbox.run("run", "a", "--", "true", check=True)
    assert Path(source, "net/specs").is_dir()


def test_a_profile_without_gpus_runs_commands_of_this_machine(sandbox: Sandbox) -> None:
    path = sandbox.profiles / "a.toml"
    path.write_text('gpus = "none"\nimage = "tao:7"\n' + path.read_text())
    sandbox.run("run", "a", "--image", "none", "--", "true", check=True)


# The log of runs


def test_history_and_status(sandbox: Sandbox) -> None:
    tao, run = sandbox.in_run("a", command=("env", *train("/results")))
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
    assert "run, exit 3: " in sandbox.run("history").stdout
    assert dict(over["mounts"]) == mounts_of(sandbox, "a")


def test_history_of_a_path_lists_the_runs_that_wrote_there(sandbox: Sandbox) -> None:
    project = sandbox.root / "projects/a"
    for folder in ("results", "data"):
        (project / folder).mkdir()
    (project / "data/m").touch()
    run = ("run", "a", "--", "true")
    sandbox.run(*run, *train("/results")[1:], check=True)
    sandbox.run(*run, "unet", "evaluate", "-m", "/workspace/tao-experiments/data/m", check=True)
    sandbox.tao.write_text("#!/bin/sh\nexit 2\n")  # the launcher refuses its arguments, and starts no container
    assert sandbox.run("run", "a", "--", *train("/results")).returncode == 2
    for path, number in {"results": 1, "results/weights/x.pth": 1, ".": 1, "data": 0}.items():
        assert [item["status"] for item in sandbox.json("history", str(project / path))["data"]["runs"]] == [0] * number
    text = sandbox.run("history", str(project / "results")).stdout
    assert "exit status 0" in text
    assert "/workspace/tao-experiments" in text
    assert sandbox.run("history", str(sandbox.root / "projects/b")).stdout.startswith("no recorded run wrote to")
    one_clear_error(sandbox.run("history", str(project / "missing")), 4)


def test_of_many_runs_few_are_read(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading 20,000 takes a second, and so does a question about paths for each of them."""
    folder = sandbox.root / "projects/a/results"
    folder.mkdir()
    sandbox.run("run", "a", "--", "true", check=True)
    journal = sandbox.state / "runs.jsonl"
    run = json.loads(journal.read_text()) | {"profile": "b", "results": [str(folder)]}
    wanted = run | {"id": "wanted", "profile": "a", "results": [str(sandbox.root / "projects/b")]}
    others = [run | {"id": f"r{number}", "since": run["since"] + number, "ended": run["ended"] + number + 1}
              for number in range(1000)]  # fmt: skip
    journal.write_text("".join(json.dumps(line) + "\n" for line in [wanted, *others]) + '"results": [, "gpus": \n')
    parsed, parse = iter(range(40)), records._parse

    def parse_few(line: bytes, path: str) -> Hold | None:
        next(parsed)
        return parse(line, path)

    monkeypatch.setattr(records, "_parse", parse_few)
    assert len(sandbox.json("history")["data"]["runs"]) == 20
    for word, id_ in {"-": "r999", "b": "r999", "a": "wanted", "wan": "wanted", "r77": "r77"}.items():
        done = sandbox.run("wait", word)
        assert done.stdout == f"{id_}: exit status 0\n", done.stderr
    monkeypatch.undo()
    questions, real_paths = iter(range(4)), lookup.real_paths  # the path, and the folders of three times 500 runs

    def ask_few(paths: Iterable[str]) -> Iterator[str]:
        next(questions)
        return real_paths(paths)

    monkeypatch.setattr(lookup, "real_paths", ask_few)
    runs = sandbox.json("history", str(sandbox.root / "projects/b"))["data"]["runs"]
    assert [record["id"] for record in runs] == ["wanted"]
    assert len(sandbox.json("history", str(folder))["data"]["runs"]) == 20
    assert len(sandbox.json("history", str(folder), "--all")["data"]["runs"]) == 1000


def test_secrets_in_commands_are_not_recorded(sandbox: Sandbox) -> None:
    sandbox.run("run", "b", "--", "true", "-k", "S3CRET", "api_token=S3CRET", check=True)
    for words in (["history"], ["history", "--json"], ["history", "."]):
        assert "S3CRET" not in sandbox.run(*words).stdout
    assert "S3CRET" not in (sandbox.state / "runs.jsonl").read_text()


# Shells


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_shows_its_profile_and_ends_with_its_last_status(sandbox: Sandbox, shell: str) -> None:
    path = shutil.which(shell)
    require(path, f"there is no {shell}")
    (sandbox.root / ".bashrc").write_text("PS1='mine> '\nFROM_RC=seen\n")
    (sandbox.root / ".zshenv").write_text("FROM_ENV=seen\n")
    (sandbox.root / ".zshrc").write_text("PROMPT='mine> '\nFROM_RC=$FROM_ENV\n")
    (sandbox.root / ".config/fish").mkdir()
    # Without it the first fish of a home makes its completions in the background, and is not over for half a minute.
    (sandbox.root / ".local/share/fish/generated_completions").mkdir(parents=True)
    (sandbox.root / ".config/fish/config.fish").write_text(
        "function fish_prompt; echo -n 'mine> '; end\nset FROM_RC seen\n"
    )
    with sandbox.terminal(sandbox.taoprof, "shell", "b", SHELL=str(path), TERM="dumb") as terminal:
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


def test_a_shell_that_is_killed_holds_no_more(sandbox: Sandbox) -> None:
    with sandbox.terminal(sandbox.taoprof, "shell", "b", SHELL="/bin/sh") as terminal:
        terminal.wait_for("(taoprof:b) $ ")
        terminal.send("echo $$.\n")
        terminal.wait_for("\n")
        kill(int(terminal.wait_for(".").split()[-1].rstrip(".")))
        status, _ = terminal.finish()
        assert status == 137
    assert sandbox.holds() == []


def test_a_failure_that_the_task_reports_although_it_exits_with_0(sandbox: Sandbox) -> None:
    folder = sandbox.root / "projects/a/x"
    folder.mkdir(parents=True)
    report = '{"date": "%s", "time": "%s", "status": "%s", "message": "out of memory"}'
    for state, is_named in (("FAILURE", True), ("SUCCESS", False)):
        script = f"printf '{report}\\n' $(date +%-m/%-d/%Y) $(date +%-H:%-M:%-S) {state} >'{folder}/status.json'"
        done = sandbox.run("run", "a", "--", "sh", "-c", script, *train("/x")[3:])
        assert done.returncode == 0, done.stderr
        text = f"the task exited with 0, but '{folder}/status.json' reports a failure: out of memory"
        assert (text in done.stderr) == is_named, done.stderr


def test_other_holds_that_cannot_be_listed_hide_no_exit_status(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked which of them write to the same results folder, before its status file is believed."""
    run = prepare(sandbox.context, "a", ["true", *train("/x")[3:]])
    assert run.hold.results
    status = run.start(["true"], say=lambda _: None)
    monkeypatch.setattr(records.HoldRecords, "all", mock.Mock(side_effect=TaoprofError("cannot list")))
    assert run.finish(status) == 0
    monkeypatch.undo()
    assert sandbox.holds() == []


def test_the_journal_of_runs_does_not_grow_without_end(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too old to be kept is not shown either: 100,000 runs took 15 s and a gigabyte."""
    sandbox.run("run", "a", "--", "true", check=True)
    journal = sandbox.state / "runs.jsonl"
    run = json.loads(journal.read_text())
    lines = [json.dumps(run | {"id": f"r{number:04}"}) + "\n" for number in range(100)]
    journal.write_text("".join(lines))
    monkeypatch.setattr(records, "RUNS_LIMIT", 30 * len(lines[0]) + 10)
    monkeypatch.setattr(records, "RUNS_DROPPED", 10 * len(lines[0]))
    kept = [f"r{number:04}" for number in range(99, 69, -1)]
    assert [ended.id for ended in records.HoldRecords(sandbox.context).ended_runs()] == kept
    sandbox.run("run", "a", "--", "true", check=True)
    ids = [json.loads(line)["id"] for line in journal.read_text().splitlines()]
    assert ids[:-1] == kept[::-1]
