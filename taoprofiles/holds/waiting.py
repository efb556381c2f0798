"""Waiting until holds end: waiting commands are served in order of arrival, without busy polling."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from taoprofiles.errors import BusyError, HeldError
from taoprofiles.holds.hold import Hold, format_age
from taoprofiles.storage import best_effort, files
from taoprofiles.storage.locks import LivenessLock, Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes

RETRY_INTERVAL = 0.5
"""Seconds between two attempts if no process's end can be waited for: a container, a manual hold, another host."""

T = TypeVar("T")


def wait_until_free(
    context: Context, queue: str, attempt: Callable[[], T], *, seconds: float, say: Callable[[str], None]
) -> T:
    """Call ``attempt`` until it raises no HeldError, and return its result.

    ``queue`` names the queue to wait in, ``seconds`` is the time limit, and may be infinite. ``say`` is called with a
    message about who is waited for, whenever that changes. When the time is over, raises the last HeldError, whose
    message then says so.
    """
    end = time.monotonic() + seconds
    announced: object = None
    with Ticket(context, queue) as ticket:
        while True:
            ahead = ticket.pids_ahead()
            refusal: HeldError | None = None
            if not ahead:
                try:
                    return attempt()
                except HeldError as error:
                    refusal = error
                except BusyError:
                    if time.monotonic() >= end:
                        raise
                    continue  # the attempt has already waited, for the lock
            remaining = end - time.monotonic()
            if remaining <= 0:
                others = _ahead(len(ahead))
                expired = refusal or HeldError(others, hint="wait longer: --wait without TIME has no limit")
                if seconds > 0:
                    expired.message = f"gave up waiting after {format_age(seconds)}: {expired.message}"
                raise expired
            holds: Sequence[Hold] = refusal.holds if refusal else ()
            waiting_for = [hold.id for hold in holds] or len(ahead)
            if waiting_for != announced:
                announced = waiting_for
                say(
                    "waiting for " + "; ".join(hold.line() for hold in holds)
                    if holds
                    else f"waiting: {_ahead(len(ahead))}"
                )
            here = processes.host_id()
            pids = [hold.pid for hold in holds if hold.host_id == here and processes.alive(hold.pid, hold.start)]
            wait_for_exit([*pids, *ahead[-1:]], min(RETRY_INTERVAL, remaining))


def wait_for_exit(pids: Sequence[int], seconds: float) -> None:
    """Wait until one of the processes ends, for ``seconds`` at most."""
    descriptors: list[int] = []
    try:
        for pid in pids:
            try:
                descriptors.append(os.pidfd_open(pid))
            except OSError:
                pass  # it has just ended, or the kernel is too old for pidfd_open
        select.select(descriptors, [], [], seconds)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


class Ticket:
    """A place in a queue of waiting commands: ``with Ticket(context, "use") as ticket: …``.

    It is a file that the process has locked; one that nobody has locked belongs to a killed process.
    """

    def __init__(self, context: Context, queue: str) -> None:
        self._context = context
        self._folder = os.path.join(context.queue, queue)
        self._name = ""
        self._descriptor = -1

    def __enter__(self) -> Ticket:
        files.make_folder(self._folder)
        with Lock(self._context.lock):
            number = max((int(name.partition("-")[0]) for name in self._names()), default=0) + 1
            self._name = f"{number:012}-{os.getpid()}"
            self._descriptor = LivenessLock(os.path.join(self._folder, self._name)).acquire()
        return self

    def __exit__(self, *_: object) -> None:
        best_effort.unlink_quietly(os.path.join(self._folder, self._name))
        os.close(self._descriptor)

    def pids_ahead(self) -> list[int]:
        """Return the pids of the commands ahead, the first in the queue first; tickets of killed ones are deleted.

        A command that is stopped (Ctrl-Z) is passed over, and keeps its place for when it continues.
        """
        pids = []
        for name in self._names():
            if name >= self._name:
                break
            path = os.path.join(self._folder, name)
            pid = int(name.partition("-")[2])
            if not LivenessLock(path).is_held():
                best_effort.unlink_quietly(path)
            elif not processes.is_stopped(pid):
                pids.append(pid)
        return pids

    def _names(self) -> list[str]:
        names = sorted(os.listdir(self._folder))
        return [name for name in names if name.replace("-", "").isdigit() and "-" in name]


def _ahead(count: int) -> str:
    return f"{count} other {'command is' if count == 1 else 'commands are'} ahead in the queue"
