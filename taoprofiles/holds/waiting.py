"""Waiting until what stands in the way has ended, in the order in which people came, without asking all the time."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, TypeVar

from taoprofiles.errors import BusyError, HeldError
from taoprofiles.holds.hold import Hold
from taoprofiles.holds.queue import Ticket
from taoprofiles.system import processes
from taoprofiles.system.engine import Ending, Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.storage.paths import Context

LOOK_AGAIN = 0.5
"""Seconds after which to look again where nothing tells: a hold by hand, another host's."""

_SHORTEST = 0.02

T = TypeVar("T")


def wait_until_free(
    context: Context, queue: str, attempt: Callable[[], T], *, seconds: float, say: Callable[[str], None]
) -> T:
    """Try until it is no longer refused; ``seconds`` is how long at the most, and may be infinite.

    Those who wait in one ``queue`` are served one after the other. ``say`` is told for whom. Raises the HeldError of
    the last try when the time is over.
    """
    end = time.monotonic() + seconds
    told: object = None
    with Ticket(context, queue) as ticket:
        while True:
            ahead = ticket.ahead()
            refusal: HeldError | None = None
            if not ahead:
                try:
                    return attempt()
                except HeldError as error:
                    refusal = error
                except BusyError:
                    if time.monotonic() >= end:
                        raise
                    continue  # the lock was waited for, for its own timeout
            left = min(LOOK_AGAIN, end - time.monotonic())
            if left <= 0:
                raise refusal or HeldError(f"{len(ahead)} others have waited for longer", hint="wait for longer")
            holders = [Hold(**fields) for fields in refusal.holders] if refusal else []
            now = [hold.id for hold in holders] or len(ahead)
            if now != told:
                told = now
                if holders:
                    say("waiting for " + "; ".join(hold.line() for hold in holders))
                else:
                    say(f"waiting behind {len(ahead)} other{'s' if len(ahead) > 1 else ''}")
            _until_something_ends(context, holders, ahead, left)


def _until_something_ends(context: Context, holders: list[Hold], ahead: list[int], seconds: float) -> None:
    end = time.monotonic() + seconds
    shortest = time.monotonic() + _SHORTEST
    here = processes.place()
    pids = [hold.pid for hold in holders if hold.place == here and processes.alive(hold.pid, hold.start)]
    descriptors: list[int] = []
    endings: list[Ending] = []
    try:
        for pid in [*pids, *ahead[-1:]]:
            try:
                descriptors.append(os.pidfd_open(pid))
            except OSError:
                pass  # ended in this moment
        for hold in holders:
            if hold.container and hold.place == here:
                ending = Engine(context.environ, address=hold.engine).ending(hold.container)
                endings += [ending] if ending else []
        while (left := end - time.monotonic()) > 0:
            waited: list[int | Ending] = [*descriptors, *endings]
            ready, _, _ = select.select(waited, [], [], left)
            if any(not isinstance(one, Ending) or one.is_over() for one in ready):
                break
        # An engine that answers at once, again and again, must not make us ask it without a pause.
        time.sleep(max(0.0, shortest - time.monotonic()))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        for ending in endings:
            ending.close()
