"""Detached runs: the process that waits for a run's command in a session of its own, with a log and no terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, NoReturn

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.logs import RunLog
from taoprofiles.holds.records import HoldRecords
from taoprofiles.runs.run import Run
from taoprofiles.storage.locks import Lock
from taoprofiles.system import processes
from taoprofiles.system.systemd import Manager, NoManagerError, lingers

UNIT_TIMEOUT = 5.0
"""Seconds that the user's systemd gets to make the unit."""


def start_detached(run: Run, command: list[str], *, say: Callable[[str], None]) -> str | None:
    """Start a prepared run that goes on without this process; return its systemd unit, None if it has none.

    Raises what ``Run.start`` does, and TaoprofError; then the run does not exist.
    """
    log = RunLog(run.context, run.hold.id)
    try:
        log_fd = log.create()
        reader, writer = os.pipe()
        sys.stdout.flush(), sys.stderr.flush()
        child = os.fork()
    except BaseException:
        run.discard()
        raise
    if child == 0:
        _run_detached(run, command, log_fd, os.fdopen(writer, "w"), say)
    for fd in (writer, log_fd, run.liveness_fd):  # what keeps the hold alive is the child's copy
        os.close(fd)
    with open(reader, "rb") as pipe:
        report = json.loads(pipe.read() or b"null")
    if report is None:
        hint = "'taoprof status' shows whether something of it is still running"
        raise TaoprofError(f"run {run.hold.id} was killed while it was being started", hint=hint)
    if "message" in report:
        error = TaoprofError(report["message"], hint=report["hint"])
        error.code, error.status = report["code"], report["status"]
        raise error
    run.hold.pid = child
    return None if report["unit"] is None else str(report["unit"])


def _run_detached(run: Run, command: list[str], log_fd: int, pipe: IO[str], say: Callable[[str], None]) -> NoReturn:
    """Be the run's process: report to ``pipe`` how the start went, and exit with the run's status."""
    status = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log_fd, 1), os.dup2(log_fd, 2)
        _close_all_but(0, 1, 2, pipe.fileno(), run.liveness_fd)
        status = _supervise(run, command, pipe, say)
    except TaoprofError as error:
        if not pipe.closed:  # else the command has been started
            RunLog(run.context, run.hold.id).delete()
        _report(pipe, message=error.message, hint=error.hint, code=error.code, status=error.status)
    except Exception as error:  # noqa: BLE001 - a fault of this program: its traceback goes into the log
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(status)


def _supervise(run: Run, command: list[str], pipe: IO[str], say: Callable[[str], None]) -> int:
    unit = None
    try:
        if lingers(run.context.uid):
            unit = _enter_unit(run, say)
        run.hold.pid, run.hold.start = os.getpid(), processes.start_time(os.getpid()) or 0
        with Lock(run.context.lock):
            HoldRecords(run.context).write(run.hold)
    except BaseException:
        run.discard()
        raise
    run.log = RunLog(run.context, run.hold.id)
    run.started = lambda: _report(pipe, unit=unit)
    return run.finish(run.start(command, say=say))


def _enter_unit(run: Run, say: Callable[[str], None]) -> str | None:
    """Put this process into a systemd unit of its own, outside of the login session; return its name.

    It is a scope, not a service: a service would have the user manager's environment, groups and limits instead of
    the shell's, and everybody who may ask systemd for its properties would see the variables that it is given.
    """
    unit = f"taoprof-run-{run.hold.id}.scope"
    try:
        manager = Manager(run.context.environ, UNIT_TIMEOUT)
        manager.start_scope(unit, os.getpid(), f"taoprof run {run.hold.profile} ({run.hold.id})")
        end = time.monotonic() + UNIT_TIMEOUT
        while not processes.is_in_unit(os.getpid(), unit):
            if time.monotonic() > end:
                raise TaoprofError(f"systemd did not move the run into {unit}")
            time.sleep(0.01)
    except NoManagerError:
        return None
    except TaoprofError as error:
        say(f"warning: the run has no systemd unit: {error.message}")
        return None
    return unit


def _report(pipe: IO[str], **report: Any) -> None:
    with suppress(OSError, ValueError), pipe:  # whoever started the run may have been killed; a second report is none
        json.dump(report, pipe)


def _close_all_but(*kept: int) -> None:
    """Close what the caller has open, such as a pipe whose reader would wait for the end of the run."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))
