"""The log of a run in the foreground, over real terminals and pipes: it changes nothing of what the command sees."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from taoprofiles.holds.logs import LOG_LIMIT
from taoprofiles.runs.tee import Tee
from taoprofiles.system import processes
from tests.support.commands import Terminal
from tests.support.engine import until
from tests.support.sandbox import Sandbox, gone, kill


def on_terminal(sandbox: Sandbox, *command: str, **environ: str) -> Terminal:
    return sandbox.terminal(sandbox.taoprof, "run", "b", "--", *command, **environ)


def python(sandbox: Sandbox, code: str) -> Terminal:
    return on_terminal(sandbox, sys.executable, "-uc", code)


def logged(sandbox: Sandbox) -> str:
    return sandbox.run("logs", "-", check=True).stdout


def the_log(sandbox: Sandbox) -> Path:
    (path,) = (sandbox.state / "logs").iterdir()
    return path


def tee_of(sandbox: Sandbox) -> int:
    """Return the pid of the process that copies."""
    path = str(until(lambda: list((sandbox.state / "logs").glob("*.log")), "there is a log")[0])

    def find_tee() -> list[int]:
        tees = [process for process in processes.scan() if "taoprofiles.runs.tee" in process.argv]
        return [process.pid for process in tees if path in process.argv[-1]]

    return until(find_tee, "the output is copied")[0]


# On a terminal


def test_a_terminal_stays_one_and_everything_is_in_the_log(sandbox: Sandbox) -> None:
    code = "import os, sys; print([os.isatty(n) for n in range(3)], *os.get_terminal_size(1)); "
    code += "print('\\x1b[31mred\\x1b[0m 50%\\r100%'); print('error', file=sys.stderr); sys.exit(3)"
    with python(sandbox, code) as terminal:
        status, output = terminal.finish()
    assert (status, output) == (3, b"[True, True, True] 200 50\r\n\x1b[31mred\x1b[0m 50%\r100%\r\nerror\r\n")
    assert logged(sandbox) == "[True, True, True] 200 50\n\x1b[31mred\x1b[0m 50%\r100%\nerror\n"


def test_the_size_of_the_terminal_follows(sandbox: Sandbox) -> None:
    code = "import os, signal; signal.signal(signal.SIGWINCH, lambda *_: None); "  # else it is not kept for sigwait
    code += "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH]); print('ready')\n"
    code += "while signal.sigwait([signal.SIGWINCH]): print(*os.get_terminal_size(1))"
    with python(sandbox, code) as terminal:
        terminal.wait_for("ready")
        for columns in (91, 132, 60):
            terminal.resize(columns)
            terminal.wait_for(f"{columns} 50\r\n")


def test_a_program_may_set_its_terminal_by_any_descriptor(sandbox: Sandbox) -> None:
    """Curses sets that of its output."""
    code = "import os, sys, termios, tty; fd = int(sys.argv[1]); before = termios.tcgetattr(fd); tty.setcbreak(fd); "
    code += "print('key?'); key = os.read(0, 1); print('got', key); "
    code += "termios.tcsetattr(fd, termios.TCSADRAIN, before)"
    for number in "012":
        with on_terminal(sandbox, sys.executable, "-uc", code, number) as terminal:
            before = terminal.settings()
            terminal.wait_for("key?")
            until(lambda: not terminal.settings()[3] & termios.ICANON, "keys come at once")
            terminal.send("k")
            assert "k\r\n" not in terminal.wait_for("got b'k'"), "what is typed is not echoed"
            terminal.finish()
            assert terminal.settings() == before


def test_a_closed_terminal_is_told_to_the_command_and_its_last_words_are_in_the_log(sandbox: Sandbox) -> None:
    code = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]); print('ready'); "
    code += "signal.sigwait([signal.SIGHUP]); print('closed'); print('the end')"
    with python(sandbox, code) as terminal:
        terminal.wait_for("ready")
    until(lambda: sandbox.holds() == [], "the run has ended")
    assert logged(sandbox) == "ready\nclosed\nthe end\n"


def test_a_shell_in_which_somebody_types_has_no_log(sandbox: Sandbox) -> None:
    with on_terminal(sandbox, "bash", "--norc", PS1="$ ") as shell:
        shell.wait_for("$ ")
        shell.send("exit 4\n")
        assert shell.finish()[0] == 4
    assert not (sandbox.state / "logs").exists()
    done = sandbox.run("logs", "-")
    assert (done.returncode, "has no log: it was an interactive shell" in done.stderr) == (4, True)


# Without a terminal


def test_streams_stay_apart_and_their_order_stays_where_it_can_be_seen(sandbox: Sandbox) -> None:
    script = "for n in 1 2 3; do echo out $n; echo err $n >&2; done"
    done = sandbox.run("run", "b", "--", "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("out 1\nout 2\nout 3\n", "err 1\nerr 2\nerr 3\n")
    assert sorted(logged(sandbox).splitlines()) == sorted((done.stdout + done.stderr).splitlines())
    words = ["bash", "-c", '"$@" 2>&1', "bash", sandbox.taoprof, "run", "b", "--", "sh", "-c", script]
    both = subprocess.run(words, env=sandbox.environ, capture_output=True, text=True, timeout=30)
    assert both.stdout == logged(sandbox) == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"


def test_the_log_is_private_has_no_secret_and_no_more_than_its_limit(sandbox: Sandbox) -> None:
    path = sandbox.profiles / "b.toml"
    path.write_text(path.read_text().replace("[[mounts]]", '[variables]\nKEY = "s3cret-of-ana"\n[[mounts]]', 1))
    script = "yes 'a line of sixteen' | head -c 60000000; echo key $KEY"
    done = sandbox.run("run", "b", "--", "sh", "-c", script)
    assert len(done.stdout) == 60000000 + len("key s3cret-of-ana\n")
    status = the_log(sandbox).stat()
    assert (status.st_mode & 0o777, status.st_size <= LOG_LIMIT) == (0o600, True)
    assert the_log(sandbox).read_bytes().endswith(b"key ***\n")


def test_a_reader_or_a_disk_that_takes_no_more_is_noticed_by_the_command(sandbox: Sandbox) -> None:
    run = f"{sandbox.taoprof} run b -- yes"
    for target, status in (("| head -n 1; exit ${PIPESTATUS[0]}", 141), (">/dev/full", 141)):
        done = subprocess.run(["bash", "-c", f"{run} {target}"], env=sandbox.environ, capture_output=True, timeout=30)
        assert done.returncode == status
        assert (b"cannot write the output of the command: no space left" in done.stderr) == ("full" in target)


def test_a_full_disk_ends_the_log_with_one_warning_and_nothing_else(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    tee = Tee("/nowhere", os.open("/dev/full", os.O_WRONLY), 1, os.environ)
    for _ in range(3):
        os.write(tee.stdout, b"line\n")
        time.sleep(0.05)
    tee.close()
    assert tee.finish()
    assert capfd.readouterr() == (
        "line\n" * 3,
        "taoprof: warning: the log of the run ends here: no space left on device\n",
    )
    (sandbox.state / "logs").parent.mkdir(parents=True, exist_ok=True)
    (sandbox.state / "logs").write_text("a file in the place of the folder")
    done = sandbox.run("run", "b", "--", "echo", "trains")
    assert (done.returncode, done.stdout) == (0, "trains\n"), done
    assert re.fullmatch("taoprof: warning: the run has no log: .*\n", done.stderr)


def test_what_goes_on_in_the_background_keeps_its_output_and_not_the_run(sandbox: Sandbox) -> None:
    gate = sandbox.root / "gate"
    os.mkfifo(gate)
    script = f"(unset TAOPROF_RUN; exec env -u TAOPROF_RUN sh -c 'read x <{gate}; echo late') & echo early"
    run = sandbox.start(sandbox.taoprof, "run", "b", "--", "sh", "-c", script, stdout=subprocess.PIPE)
    assert run.wait(20) == 0
    gate.write_text("go\n")
    assert run.stdout.read() == "early\nlate\n"


def test_a_pager_that_reads_no_further_keeps_neither_the_end_nor_the_log(sandbox: Sandbox) -> None:
    # The first part is more than the pager's pipe (64 KiB) takes; so the second one stays in the command's own pipe.
    reader, writer = os.pipe()
    script = "yes | head -c 70000; sleep 0.5; yes | head -c 30000; echo end"
    words = (sandbox.taoprof, "run", "b", "--", "sh", "-c", script)
    run = sandbox.start(*words, stdout=writer)
    os.close(writer)
    assert run.wait(20) == 0
    with open(reader, "rb") as output:
        assert len(output.read()) == 100004
    until(lambda: logged(sandbox).endswith("end\n"), "nothing of it is lost")


# Whoever is killed


def test_without_taoprof_the_output_and_the_log_go_on(sandbox: Sandbox) -> None:
    gate = sandbox.root / "gate"
    os.mkfifo(gate)
    script = f"echo before; read x <{gate}; echo after; tty <&1 >/dev/null && echo terminal"
    run = (sandbox.taoprof, "run", "b", "--", "sh", "-c", script)
    with sandbox.terminal("bash", "-c", '"$@"; read x', "bash", *run) as terminal:
        terminal.wait_for("before")
        (hold,) = sandbox.holds()
        kill(hold["pid"])
        until(lambda: gone(hold["pid"]), "taoprof is gone")
        assert len(sandbox.holds()) == 1, "the command runs"
        gate.write_text("go\n")
        terminal.wait_for("terminal")
    until(lambda: sandbox.holds() == [], "the run has ended")
    assert logged(sandbox) == "before\nafter\nterminal\n"
    assert [run["status"] for run in sandbox.json("history")["data"]["runs"]] == [None]


@pytest.mark.parametrize("terminal", [True, False])
def test_without_the_copy_the_command_sees_a_closed_terminal_or_pipe(sandbox: Sandbox, terminal: bool) -> None:
    command = [sys.executable, "-uc", "while True: print('line')"]
    if terminal:
        with on_terminal(sandbox, *command) as process:
            process.wait_for("line")
            kill(tee_of(sandbox))
            assert b"Input/output error" not in process.finish()[1], "nobody shows it"
    else:
        run = sandbox.start(sandbox.taoprof, "run", "b", "--", *command, stdout=subprocess.DEVNULL)
        kill(tee_of(sandbox))
        assert run.wait(20) == 1
    until(lambda: sandbox.holds() == [], "nothing is held")
    assert [run["status"] for run in sandbox.json("history")["data"]["runs"]] == [1]


def test_signals_that_come_before_the_copy_is_ready_do_not_end_it(sandbox: Sandbox) -> None:
    log = os.open(sandbox.root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    reader, writer = os.pipe()
    tee = Tee(str(sandbox.root / "log"), log, writer, os.environ)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        tee._process.send_signal(number)
    os.write(tee.stdout, b"line\n")
    tee.close()
    assert tee.finish()
    assert os.read(reader, 10) == b"line\n"
    os.close(reader), os.close(writer)
