"""Holds as commands use them: list, create and release them, and refuse what they block."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from taoprofiles.errors import NotFoundError, UsageError
from taoprofiles.holds.hold import AGENT, HeldError, Hold, new_hold
from taoprofiles.holds.liveness import ActiveHolds, find_active_holds
from taoprofiles.holds.records import HoldRecords
from taoprofiles.mounts import mapping
from taoprofiles.storage import files
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock, lock_if_free
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes


def active_holds(context: Context, *, others: bool = False) -> ActiveHolds:
    """Return the active holds. If the lock is free, records of ended work are deleted; this never waits for it.

    With ``others``, other users' containers with GPUs are listed too.
    """
    with lock_if_free(context.lock) as has_lock:
        return find_active_holds(context, files.read_mapping_file(context), may_write=has_lock, others=others)


def hold(
    context: Context,
    name: str | None,
    *,
    reason: str,
    seconds: float | None = None,
    pid: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Hold:
    """Hold the mapping file as it is until it is released, for ``seconds``, or while the process ``pid`` runs.

    ``name`` must be the active profile; without it, any content can be held. Raises UsageError.
    """
    start = None if pid is None else processes.start_time(pid)
    if pid is not None and start is None:
        raise UsageError(f"there is no process {pid}", hint="'ps -u $USER' lists your processes")
    history = History(context)
    with Lock(context.lock, timeout):
        content = files.read_mapping_file(context)
        entry = history.current_entry(content)
        if entry is None and content is not None:
            history.record_external_change(content)  # so that the guard can restore what is held
        active = entry.profile if entry else None
        if name is not None and name != active:
            raise UsageError(
                f"'{name}' is not the active profile, so its mapping cannot be held", hint=f"'taoprof use {name}' first"
            )
        if content is None:
            raise UsageError(f"there is no mapping file to hold ('{context.mapping_file}')", hint="'taoprof use NAME'")
        now = time.time()
        hold = new_hold(
            context,
            "manual",
            profile=active,
            digest=mapping.digest(content),
            content=history.store_content(content),
            shared=True,
            reason=reason,
            folder=context.folder,
            pid=pid or 0,
            start=start or int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")),
            since=now,
            until=None if seconds is None else now + seconds,
        )
        os.close(HoldRecords(context).create(hold))
        return hold


def release(context: Context, hold_id: str, *, timeout: float = DEFAULT_TIMEOUT) -> Hold:
    """Release one hold. Its work keeps running; a job on a cluster is not followed any more.

    If the process has ended and a container cannot be looked for, the work counts as ended: the hold has ``ended``.

    Raises NotFoundError, UsageError.
    """
    with Lock(context.lock, timeout):
        hold = mark_released(find_active_holds(context, files.read_mapping_file(context), may_write=True), hold_id)
        record_release(context, hold)
        return hold


def mark_released(active: ActiveHolds, hold_id: str) -> Hold:
    """Mark a hold as released, without writing anything, and return it. Raises NotFoundError, UsageError."""
    hold = active.find(hold_id)
    if hold is None:
        raise NotFoundError(f"there is no hold '{hold_id}'", hint="'taoprof status' lists the holds")
    if hold.kind == AGENT:
        raise UsageError(
            f"'{hold_id}' holds nothing: a container of NVIDIA's agent does not read the mapping file",
            hint="'taoprof status' lists the holds",
        )
    hold.released = True
    if hold.id in active.unproved:
        hold.ended = time.time()
    return hold


def record_release(context: Context, hold: Hold) -> None:
    """Write down that a hold was released. Needs the lock."""
    if hold.cluster is not None:  # which cannot be asked any more, for instance
        hold.ended = time.time()
    if hold.kind == "manual" or hold.ended is not None:
        HoldRecords(context).end(hold)
    else:
        HoldRecords(context).write(hold)


def held_error(name: str, holders: Sequence[Hold], *, hint: str) -> HeldError:
    """Return the error for a switch to the profile ``name`` that ``holders`` block.

    With a ``hint``, which replaces the usual one, ``name`` is any description of the mapping, shown unquoted.
    """
    target = name if hint else f"'{name}'"
    profiles = dict.fromkeys(f"'{hold.profile}'" if hold.profile else "the mapping file" for hold in holders)
    return HeldError(
        f"cannot switch to {target}: {' and '.join(profiles)} {'is' if len(profiles) == 1 else 'are'} held",
        problems=[hold.line() for hold in holders],
        hint=hint
        or f"to run in parallel: taoprof run {name} -- COMMAND; to switch when it ends: taoprof use {name} --wait; "
        f"to switch now and leave that work running without its mapping: taoprof use {name} --release {holders[0].id}",
        holds=holders,
    )
