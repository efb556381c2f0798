"""The queue of all commands that wait until holds end: each waits behind earlier ones that need some of the same."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from taoprofiles.errors import BusyError, UsageError
from taoprofiles.holds.hold import HeldError, folders_overlap, format_age, gpus_overlap
from taoprofiles.storage import files
from taoprofiles.storage.locks import LivenessLock, Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes

RETRY_INTERVAL = 0.5
"""Seconds between two attempts if no process's end can be waited for: a container, a manual hold, another host."""

LEAVE_TIMEOUT = 2.0
"""Seconds in which a command that is told to leave the queue usually has ended."""

_TICKET_LIMIT = 1 << 20

T = TypeVar("T")


class Request(NamedTuple):
    """What a command needs that others may have."""

    profile: str | None
    command: list[str]  # its words, without secrets
    mapping: bool = False  # the shared mapping file
    results: list[str] = []  # the host folders that it writes  # noqa: RUF012 - never changed
    gpus: list[str] | int | str | None = None  # devices, "all", a number of free ones, or None
    host_id: str = ""  # ``processes.host_id`` of the host on which it waits, whose GPUs it needs
    run: str = ""  # the id of the detached run that waits; "" for a command in the foreground

    def must_follow(self, earlier: Request) -> bool:
        """Check whether this command must wait behind one that came earlier.

        A number of free GPUs need not wait behind named ones: it takes others.
        """
        is_same_machine = processes.same_machine(self.host_id, earlier.host_id)
        return (
            (self.mapping and earlier.mapping)
            or folders_overlap(self.results, earlier.results)
            or (is_same_machine and gpus_overlap(self.gpus, earlier.gpus))
        )


EVERYTHING = Request(None, [], mapping=True, results=["/"], gpus="all")
"""What a command needs whose ticket cannot be read, to be safe."""


class WaitingCommand(NamedTuple):
    """A command in the queue."""

    id: str  # that of a detached run, or "wait" and its number
    pid: int
    since: float
    waits_for: list[str]  # the ids of holds and of commands ahead in the queue
    request: Request

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they are in JSON output."""
        request = self.request._asdict()
        del request["host_id"], request["run"]
        return {"id": self.id, "pid": self.pid, "since": self.since, **request, "waits_for": self.waits_for}


def wait_until_free(
    context: Context,
    request: Request,
    attempt: Callable[[list[Request]], T],
    *,
    seconds: float,
    say: Callable[[str], None],
) -> T:
    """Call ``attempt`` until it raises no HeldError, and return its result.

    It is called with the requests ahead in the queue, none of which this one must follow. ``seconds`` is the time
    limit, and may be infinite. ``say`` is called with a message about who is waited for, whenever that changes. When
    the time is over, raises the last HeldError, whose message then says so.
    """
    end, request = time.monotonic() + seconds, request._replace(host_id=processes.host_id())
    announced: object = None
    with Ticket(context, request) as ticket:
        while True:
            ahead = ticket.ahead()
            followed = [other for other in ahead if request.must_follow(other.request)]
            refusal = HeldError(_ahead(len(followed)), hint="wait longer: --wait without TIME has no limit")
            began = time.monotonic()
            if not followed:
                try:
                    return attempt([other.request for other in ahead])
                except HeldError as error:
                    refusal = error
                except BusyError:
                    if time.monotonic() >= end:
                        raise
                    continue  # the attempt has already waited, for the lock
            remaining = end - time.monotonic()
            if remaining <= 0:
                if seconds > 0:
                    refusal.message = f"gave up waiting after {format_age(seconds)}: {refusal.message}"
                raise refusal
            if not refusal.holds:  # what is free is left to those ahead
                followed = followed or ahead
            waiting_for = [hold.id for hold in refusal.holds] or [other.id for other in followed]
            if waiting_for != announced:
                announced = waiting_for
                ticket.write(waiting_for)
                say(_announcement(followed, refusal))
            pids = [hold.pid for hold in refusal.holds if hold.has_process_here()]
            pids += [other.pid for other in followed[-1:] if other.request.host_id == request.host_id]
            interval = max(RETRY_INTERVAL, 20 * (time.monotonic() - began))  # an attempt may ask a slow driver
            wait_for_exit(pids, min(interval, remaining))


def waiting_commands(context: Context, *, before: str | None = None) -> list[WaitingCommand]:
    """Return the commands that wait, only those ahead of the ticket ``before``, in their order. Writes nothing."""
    paths = [path for path in _ticket_paths(context) if before is None or path < before]
    return [_read_ticket(path) for path in paths if LivenessLock(path).is_held()]


def leave_queue(context: Context, command_id: str) -> bool:
    """End a command that waits; return whether there is one with this id. Raises UsageError for one of another host."""
    command = next((command for command in waiting_commands(context) if command.id == command_id), None)
    if command is None:
        return False
    if command.request.host_id != processes.host_id():
        raise UsageError(f"'{command_id}' waits on another host: stop it there")
    with suppress(ProcessLookupError):
        os.kill(command.pid, signal.SIGTERM)
    wait_for_exit([command.pid], LEAVE_TIMEOUT)
    return True


def wait_for_exit(pids: Sequence[int], seconds: float) -> None:
    """Wait until one of the processes ends, for ``seconds`` at most."""
    descriptors: list[int] = []
    try:
        for pid in pids:
            descriptor = processes.open_pidfd(pid)
            if descriptor is not None:
                descriptors.append(descriptor)
        select.select(descriptors, [], [], seconds)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


class Ticket:
    """A place in the queue of waiting commands: ``with Ticket(context, request) as ticket: …``.

    It is a file that the process has locked; one that nobody has locked belongs to a killed process.
    """

    def __init__(self, context: Context, request: Request) -> None:
        self._context, self._request, self._since = context, request, time.time()
        self._path, self._descriptor = "", -1

    def __enter__(self) -> Ticket:
        files.make_folder(self._context.queue)
        with Lock(self._context.lock):
            last = ["0", *map(os.path.basename, _ticket_paths(self._context))][-1]
            name = f"{int(last.partition('-')[0]) + 1:012}-{os.getpid()}"
            self._path = os.path.join(self._context.queue, name)
            self._descriptor = LivenessLock(self._path).acquire()
            self.write([])
        return self

    def __exit__(self, *_: object) -> None:
        files.unlink_quietly(self._path)
        os.close(self._descriptor)

    def write(self, waits_for: list[str]) -> None:
        """Write what the command needs and waits for. A reader that meets it half written takes it for EVERYTHING."""
        fields = {**self._request._asdict(), "since": self._since, "waits_for": waits_for}
        with files.errors_as("write", self._path):
            files.write_all(self._descriptor, json.dumps(fields).encode() + b"\n", 0)

    def ahead(self) -> list[WaitingCommand]:
        """Return the commands ahead, the first in the queue first; tickets of killed ones are deleted.

        A command that is stopped (Ctrl-Z) is passed over, and keeps its place for when it continues.
        """
        for path in _ticket_paths(self._context):
            if path < self._path and not LivenessLock(path).is_held():
                files.unlink_quietly(path)
        host = self._request.host_id
        commands = waiting_commands(self._context, before=self._path)
        return [other for other in commands if other.request.host_id != host or not processes.is_stopped(other.pid)]


def _ticket_paths(context: Context) -> list[str]:
    """Return the tickets, also those of killed commands, the first in the queue first."""
    names = [name for name in sorted(files.names_in(context.queue)) if name.replace("-", "").isdigit() and "-" in name]
    return [os.path.join(context.queue, name) for name in names]


def _read_ticket(path: str) -> WaitingCommand:
    number, _, pid = os.path.basename(path).partition("-")
    request, since, waits_for = EVERYTHING._replace(host_id=processes.host_id()), 0.0, []
    content, _ = files.try_read(path, _TICKET_LIMIT)
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        # Only the first line: a shorter one has been written over a longer one.
        fields = json.loads(content.partition(b"\n")[0])
        waits_for, since = list(map(str, fields.pop("waits_for"))), float(fields.pop("since"))
        if all(isinstance(fields[key], list) for key in ("command", "results")):
            request = Request(**fields)
    # No id of a hold begins like this: they have no "i".
    return WaitingCommand(request.run or f"wait{int(number)}", int(pid), since, waits_for, request)


def _announcement(followed: list[WaitingCommand], refusal: HeldError) -> str:
    if refusal.holds:
        return "waiting for " + "; ".join(hold.line() for hold in refusal.holds)
    return f"waiting: {_ahead(len(followed)) if followed else refusal.message}"


def _ahead(count: int) -> str:
    return f"{count} other {'command is' if count == 1 else 'commands are'} ahead in the queue"
