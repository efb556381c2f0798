"""Holds by hand, letting go of one, and the refusal that names who holds."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import HeldError, NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import Hold
from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.holds.records import Holds
from taoprofiles.mounts import mapping
from taoprofiles.storage import files
from taoprofiles.storage.journal import MAPPING_LIMIT, History
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.system import processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taoprofiles.holds.liveness import ActiveHolds
    from taoprofiles.storage.paths import Context


def active_holds(context: Context) -> ActiveHolds:
    """Tell what is alive. Records of what is gone are taken away if the lock is free; nobody is waited for."""
    lock = Lock(context.lock)
    try:
        held_now = lock.try_acquire()
    except TaoprofError:
        held_now = False  # a home that cannot be written to can still be looked at
    try:
        return find_active_holds(context, files.read(context.mapping_file, MAPPING_LIMIT), may_write=held_now)
    finally:
        lock.release()


def hold(
    context: Context,
    name: str | None,
    *,
    reason: str,
    seconds: float | None = None,
    pid: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Hold:
    """Hold the mapping file as it is: until it is released, for ``seconds``, or as long as the process ``pid`` lives.

    ``name`` must be the active profile; without it, whatever the file holds is held. Raises UsageError.
    """
    start = None
    if pid is not None:
        start = processes.start_time(pid)
        if start is None:
            raise UsageError(f"there is no process {pid}", hint="'ps -u $USER' lists yours")
    with Lock(context.lock, timeout):
        content = files.read(context.mapping_file, MAPPING_LIMIT)
        entry = History(context).in_force(content)
        if entry is None and content is not None:
            History(context).take_in(content)  # so that a guard can put back what is held
        active = entry.profile if entry else None
        if name is not None and name != active:
            raise UsageError(
                f"'{name}' is not the active profile, so its mapping is not there to be held",
                hint=f"'taoprof use {name}' first",
            )
        if content is None:
            raise UsageError(f"there is no mapping file to hold ('{context.mapping_file}')", hint="'taoprof use NAME'")
        made = new_hold(context, "manual")
        made.profile, made.digest, made.shared, made.reason = active, mapping.digest(content), True, reason
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
        made.pid, made.start = pid or 0, start or now
        made.until = None if seconds is None else time.time() + seconds
        os.close(Holds(context).make(made))
        return made


def release(context: Context, hold_id: str, *, timeout: float = DEFAULT_TIMEOUT) -> Hold:
    """Let go of exactly one hold. The work of a run or of found work goes on. Raises NotFoundError."""
    with Lock(context.lock, timeout):
        stock = find_active_holds(context, files.read(context.mapping_file, MAPPING_LIMIT), may_write=True)
        found = mark_released(stock, hold_id)
        record_release(context, found)
        return found


def mark_released(stock: ActiveHolds, hold_id: str) -> Hold:
    """Mark a hold of ``stock`` as released; nothing is written. Raises NotFoundError."""
    found = stock.find(hold_id)
    if found is None:
        raise NotFoundError(f"there is no hold '{hold_id}'", hint="'taoprof holds' lists them")
    found.released = True
    return found


def record_release(context: Context, hold: Hold) -> None:
    """Write down that a hold was released. Needs the lock."""
    if hold.kind == "manual":
        Holds(context).end(hold)
    else:
        Holds(context).write(hold)


def held_error(name: str, holders: Sequence[Hold], *, hint: str = "") -> HeldError:
    """Make the one refusal of a switch, with each holder and the ways out, gentle ones first; or ``hint`` instead."""
    profiles = dict.fromkeys(hold.profile for hold in holders)
    what = " and ".join(f"'{profile}'" if profile else "the mapping file" for profile in profiles)
    now = time.time()
    return HeldError(
        f"'{name}' not activated: {what} {'is' if len(profiles) == 1 else 'are'} held",
        problems=[hold.line(now) for hold in holders],
        hint=hint
        or f"'taoprof run {name} -- …' runs beside it; 'taoprof use {name} --wait' switches when it ends; "
        f"'taoprof use {name} --release {holders[0].id}' switches although it goes on",
        holders=[hold.as_dict() for hold in holders],
    )


def new_hold(context: Context, kind: str) -> Hold:
    """Begin a hold of this process."""
    return Hold(
        kind=kind,
        user=context.user,
        host=os.uname().nodename,
        place=processes.place(),
        folder=context.folder,
        since=time.time(),
    )
