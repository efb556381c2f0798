"""The command of a run in the foreground: its signals, its terminal, shells, and why it cannot be started."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.holds.liveness import HEARTBEAT
from taoprofiles.holds.manage import wait_for_exit
from taoprofiles.system import processes

if TYPE_CHECKING:
    from taoprofiles.runs.run import Run

COMMAND_NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""The exit statuses of a shell for such a command."""

_SHELLS = frozenset("bash dash fish ksh sh tcsh zsh".split())

_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class CommandError(TaoprofError):
    """The command cannot be started; the exit status is a shell's."""

    code = "no-command"

    def __init__(self, message: str, status: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@contextmanager
def forwarded_signals() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Forward signals to the command that the yielded function is called with, also those that came before.

    SIGINT and SIGQUIT of the terminal reach the whole process group anyway, so here they are caught only. They are not
    ignored, since the command would inherit that; what is ignored already (nohup) stays so for both.
    """
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def handle(number: int, _: object) -> None:
        if number not in (signal.SIGINT, signal.SIGQUIT):
            if started:
                started[0].send_signal(number)
            else:
                early.append(number)

    def forward_to(process: subprocess.Popen[bytes]) -> None:
        started.append(process)
        for number in early:
            process.send_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows no other thread to set handlers
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield forward_to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def has_terminal() -> bool:
    """Check whether a command that is started now can read from a terminal."""
    return os.isatty(0) and not processes.in_background()


@contextmanager
def terminal_input(is_needed: bool) -> Iterator[int | None]:
    """Yield the descriptor of a new terminal to use as standard input, or None to inherit the present one.

    Under nohup, cron or CI, the launcher's ``docker exec -it`` fails at once ("the input device is not a TTY"), and the
    launcher reports success. ``"tty": false`` in the mounts file is no way out: the launcher starts the image's shell
    without a standard input, so without a terminal the shell, and with it the container, ends before the task starts.
    """
    if not is_needed:
        yield None
        return
    controller, terminal = os.openpty()
    # The launcher keeps it open too: without it the terminal hangs up when we are killed, and 'docker exec' ends.
    os.set_inheritable(controller, True)
    try:
        yield terminal
    finally:
        os.close(terminal)
        os.close(controller)


def is_interactive_shell(command: list[str]) -> bool:
    """Check whether a command is a shell in which somebody types."""
    is_shell = os.path.basename(command[0]) in _SHELLS and all(word.startswith("-") for word in command[1:])
    return is_shell and os.isatty(0)


def shell_command(run: Run, shell: str) -> list[str]:
    """Return the command for an interactive shell with the user's own settings and a prefix in its prompt."""
    kind, folder = os.path.basename(shell), os.path.join(os.path.dirname(__file__), "shells")
    if kind == "bash":
        return [shell, "--rcfile", os.path.join(folder, "bashrc"), "-i"]
    if kind == "zsh":
        run.environ["TAOPROF_ZDOTDIR"] = run.environ.get("ZDOTDIR", run.context.home)
        run.environ["ZDOTDIR"] = os.path.join(folder, "zsh")
        return [shell, "-i"]
    if kind == "fish":
        return [shell, "-C", f"source {shlex.quote(os.path.join(folder, 'prompt.fish'))}"]
    run.environ["PS1"] = f"(taoprof:{run.hold.profile}) $ "
    return [shell]


def wait_for_session(uid: int, run_id: str) -> None:
    """Wait for what a run's command left behind in the session of this process, before their terminal hangs up.

    Such as the ``docker exec`` of a launcher that was killed: it goes on to write the task's output into the log.
    """
    session, own = os.getsid(0), os.getpid()
    while True:
        pids: list[int] = []
        with suppress(TaoprofError):  # no more files can be opened: it looks again later
            tagged = processes.with_variable(uid, RUN_VARIABLE)
            pids = [pid for pid, tag in tagged if tag == run_id and pid != own and processes.session(pid) == session]
            if not pids:
                return
        wait_for_exit(pids, HEARTBEAT)
