"""Detached runs: the process that waits for a run's command in a session of its own, with a log and no terminal.

With ``--wait`` it first waits in the queue. The run then has a record of its own from the beginning, in the phase
"queued", so that it is found, followed, stopped and ended like any other.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import QUEUED, Hold, new_hold
from taoprofiles.holds.logs import RunLog
from taoprofiles.holds.manage import wait_until_free
from taoprofiles.holds.records import HoldRecords
from taoprofiles.profiles.store import Store
from taoprofiles.runs.notify import choose_targets
from taoprofiles.runs.preparation import RunOptions, Turn, get_request, prepare
from taoprofiles.runs.run import Run
from taoprofiles.storage.locks import Lock
from taoprofiles.system import processes
from taoprofiles.system.systemd import SCOPE_TIMEOUT, Manager, NoManagerError, lingers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taoprofiles.holds.manage import Request
    from taoprofiles.storage.paths import Context


class Start(NamedTuple):
    """How a detached run began.

    - ``id``; ``gpus``: those that it got; ``unit``: its systemd unit, None if it has none
    - ``waiting``: for what it waits in the queue, as a message; "" if its command has been started
    """

    id: str
    gpus: list[str] | str | None
    unit: str | None
    waiting: str = ""


class _Stopped(BaseException):
    """The run got SIGTERM before its command was started."""


def start_detached(run: Run, command: list[str], *, say: Callable[[str], None]) -> Start:
    """Start a prepared run that goes on without this process. ``say`` is called in the new process, for its log.

    Raises what ``Run.start`` does, and TaoprofError; then the run does not exist.
    """
    return _Starter(run.context, run.hold, run.liveness_fd, command, say).start(lambda: run)


def start_queued(
    context: Context,
    name: str,
    command: list[str],
    options: RunOptions,
    *,
    seconds: float,
    say: Callable[[str], None],
) -> Start:
    """Start a run as soon as nothing blocks it, without this process; if that is not now, it waits in the queue.

    After ``seconds``, which may be infinite, it gives up. Raises what ``prepare``, ``get_request`` and ``Run.start``
    do, as far as that is known before it has to wait; then the run does not exist.
    """
    request = get_request(context, name, command, options)
    now, pid = time.time(), os.getpid()
    hold = new_hold(
        context, "run", phase=QUEUED, profile=name, command=request.command, folder=context.folder, since=now, pid=pid,
        start=processes.start_time(pid) or 0,
    )  # fmt: skip
    # Without on_end: what ends in the queue has not begun.
    targets, _ = choose_targets(Store(context).renderer(name), options.notify, context.environ)
    with Lock(context.lock):
        liveness_fd = HoldRecords(context).create(hold, targets=targets)
    request = request._replace(run=hold.id)
    starter = _Starter(context, hold, liveness_fd, command, say)

    def attempt(ahead: Sequence[Request]) -> Run:
        return prepare(context, name, command, options=options, turn=Turn(ahead, hold, liveness_fd))

    return starter.start(
        lambda: wait_until_free(context, request, attempt, seconds=seconds, say=starter.report_waiting)
    )


class _Starter:
    """Starts a detached run whose hold has been recorded: it forks, and both processes use this object."""

    def __init__(
        self, context: Context, hold: Hold, liveness_fd: int, command: list[str], say: Callable[[str], None]
    ) -> None:
        self._context, self._hold, self._liveness_fd = context, hold, liveness_fd
        self._command, self._say = command, say
        self._log = RunLog(context, hold.id)
        self._unit: str | None = None
        self._is_started = False
        self._pipe: IO[str]

    def start(self, get_run: Callable[[], Run]) -> Start:
        """Fork; the new process calls ``get_run`` and starts the command. Return what it reports, or raise it."""
        try:
            log_fd = self._log.create()
            reader, writer = os.pipe()
            sys.stdout.flush(), sys.stderr.flush()
            child = os.fork()
        except BaseException:
            self._delete_record()
            os.close(self._liveness_fd)
            raise
        if child == 0:
            self._pipe = os.fdopen(writer, "w")
            self._run_child(get_run, log_fd)
        for fd in (writer, log_fd, self._liveness_fd):  # what keeps the hold alive is the child's copy
            os.close(fd)
        with open(reader, "rb") as pipe:
            report = json.loads(pipe.read() or b"null")
        if report is None:
            hint = "'taoprof status' shows whether something of it is still running"
            raise TaoprofError(f"run {self._hold.id} was killed while it was being started", hint=hint)
        if "message" in report:
            error = TaoprofError(report["message"], problems=report["problems"], hint=report["hint"])
            error.code, error.status, error.more = report["code"], report["status"], report["more"]
            raise error
        return Start(self._hold.id, **report)

    def report_waiting(self, message: str) -> None:
        """Report to the process that started this one, and in the log, that the run waits."""
        self._say(message)
        self._report(gpus=None, unit=self._unit, waiting=message)

    def _run_child(self, get_run: Callable[[], Run], log_fd: int) -> NoReturn:
        """Get the run, start its command and wait for it, in the new process; exit with the run's status."""
        status = 70
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log_fd, 1), os.dup2(log_fd, 2)
            _close_all_but(0, 1, 2, self._pipe.fileno(), self._liveness_fd)
            status = self._supervise(get_run)
        except _Stopped:
            status = 128 + signal.SIGTERM
            self._say("stopped before the command was started")
            self._end_queued(status)
        except TaoprofError as error:
            status = error.status
            if self._pipe.closed:
                self._say("\n  ".join([f"error: {error.message}", *error.problems]))
                self._end_queued(status)
            else:
                self._log.delete()
                self._delete_record()
                self._report(
                    message=error.message, problems=error.problems, hint=error.hint, code=error.code,
                    status=error.status, more=error.more,
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - a fault of this program: its traceback goes into the log
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(status)

    def _supervise(self, get_run: Callable[[], Run]) -> int:
        if self._hold.phase == QUEUED:
            signal.signal(signal.SIGTERM, self._stop)
        if lingers(self._context.uid):
            self._unit = _enter_unit(self._context, self._hold, self._say)
        self._hold.pid, self._hold.start = os.getpid(), processes.start_time(os.getpid()) or 0
        with Lock(self._context.lock):
            HoldRecords(self._context).write(self._hold)
        run = get_run()
        return run.finish(run.start(self._command, say=self._say, on_started=lambda: self._set_started(run)))

    def _stop(self, *_: object) -> None:
        if not self._is_started:  # else ``Run.start`` forwards the signal, or the command has ended already
            raise _Stopped

    def _set_started(self, run: Run) -> None:
        self._is_started = True
        self._report(gpus=run.hold.gpus, unit=self._unit)

    def _end_queued(self, status: int) -> None:
        """Record the end of a run whose command was not started, but whose id is known."""
        with suppress(TaoprofError), Lock(self._context.lock):
            records = HoldRecords(self._context)
            hold = records.get(self._hold.id)
            if hold is not None and not self._is_started:
                hold.ended, hold.status = time.time(), status
                records.end(hold)

    def _delete_record(self) -> None:
        with suppress(TaoprofError), Lock(self._context.lock):
            HoldRecords(self._context).delete(self._hold.id)

    def _report(self, **report: Any) -> None:
        with suppress(OSError, ValueError), self._pipe:  # whoever started it may be gone; a second report is none
            json.dump(report, self._pipe)


def _enter_unit(context: Context, hold: Hold, say: Callable[[str], None]) -> str | None:
    """Put this process into a systemd unit of its own, outside of the login session; return its name.

    It is a scope, not a service: a service would have the user manager's environment, groups and limits instead of
    the shell's, and everybody who may ask systemd for its properties would see the variables that it is given.
    """
    unit = f"taoprof-run-{hold.id}.scope"
    try:
        Manager(context.environ, SCOPE_TIMEOUT).enter_scope(unit, f"taoprof run {hold.profile} ({hold.id})")
    except NoManagerError:
        return None
    except TaoprofError as error:
        say(f"warning: the run has no systemd unit: {error.message}")
        return None
    return unit


def _close_all_but(*kept: int) -> None:
    """Close what the caller has open, such as a pipe whose reader would wait for the end of the run."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))
