"""What taoprofiles itself keeps on this machine, and its guard: looked at as it is, and nothing changed."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from taoprofiles.errors import TaoprofError
from taoprofiles.guard import status as guard_status
from taoprofiles.guard.service import Service
from taoprofiles.holds.records import HoldRecords
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files, locks
from taoprofiles.storage.journal import History, lines_backwards
from taoprofiles.storage.locks import LivenessLock
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.switching import status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taoprofiles.profiles.store import Summary


class State(NamedTuple):
    """What taoprofiles itself has on disk, and its guard.

    ``foreign`` are files and folders of ours that belong to another user (path, uid); ``unreadable`` those that cannot
    be read (path, why); ``profiles`` invalid ones (name, problem); ``misnamed`` files that are no profiles; ``torn``
    counts lines of the journals that say nothing (path, lines); ``holds`` damaged records (id, problem). ``lock`` names
    the holder of a lock that was held the whole time of the look. ``known`` counts the
    profiles. ``unit`` is "" (none), "same" or "other", ``guard``
    the version of a guard at work, ``service`` the service's state.
    """

    folder: str
    mapping_file: str
    profile: str = ""
    situation: str = ""
    mapping_mode: int | None = None
    known: int = 0
    foreign: tuple[tuple[str, int], ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    profiles: tuple[tuple[str, str], ...] = ()
    misnamed: tuple[str, ...] = ()
    torn: tuple[tuple[str, int], ...] = ()
    holds: tuple[tuple[str, str], ...] = ()
    lock: str = ""
    is_sealed_by_nobody: bool = False
    unit: str = ""
    service: str = ""
    guard: str = ""
    guard_pid: int = 0
    guard_problem: str = ""
    moved: str = ""
    other: str = ""


T = TypeVar("T")

LISTED = 20
"""Faults of one kind that are told; the first of them mended, the others show."""

_LOCK_TRIES, _PAUSE = 10, 0.05
"""A lock that somebody has at each of the tries, half a second long, is held by what stands still."""


def survey(context: Context) -> State:
    """Look at it. Never raises: what cannot be read is told as such."""
    unreadable: list[tuple[str, str]] = []

    def told(path: str, look: Callable[[], T], otherwise: T) -> T:
        try:
            return look()
        except TaoprofError as error:
            unreadable.append((path, error.message))
        except OSError as error:
            unreadable.append((path, (error.strerror or str(error)).lower()))
        return otherwise

    found = told(context.mapping_file, lambda: status.get_status(context), None)
    summaries: list[Summary] = told(context.profiles, lambda: Store(context).summaries(), [])
    damaged: dict[str, str] = {}
    told(context.holds, lambda: len(HoldRecords(context).all(damaged)), 0)
    torn = [
        (context.history, told(context.history, lambda: _torn(context, context.history), 0)),
        (context.runs, told(context.runs, lambda: _torn(context, context.runs), 0)),
    ]
    state = State(
        context.state,
        context.mapping_file,
        (found.name or "") if found else "",
        found.state if found else "unreadable",
        _mode(context.mapping_file),
        len(summaries),
        tuple(_foreign(context)[:LISTED]),
        tuple(unreadable[:LISTED]),
        tuple([(one.name, one.problem) for one in summaries if one.problem][:LISTED]),
        torn=tuple((path, lines) for path, lines in torn if lines),
        holds=tuple((os.path.join(context.holds, f"{id}.json"), text) for id, text in [*damaged.items()][:LISTED]),
        lock=_lock(context.lock),
        is_sealed_by_nobody=_is_orphaned(context),
    )
    return _guarded(context, _homes(context, state))


def _foreign(context: Context) -> list[tuple[str, int]]:
    if context.uid == 0:
        return []  # whom nobody keeps out
    found: list[tuple[str, int]] = []
    for path in (context.mapping_file, context.config, context.profiles, context.state, context.lock, context.history):
        try:
            owner = os.lstat(path).st_uid
        except (OSError, ValueError):
            continue
        if owner != context.uid and not any(is_inside(path, outer) for outer, _ in found):
            found.append((path, owner))
    return found


def _torn(context: Context, path: str) -> int:
    """Count the lines of a journal that are none."""
    lines = sum(1 for line in lines_backwards(path) if line.strip())
    if path == context.history:
        return lines - sum(1 for _ in History(context).newest_first())
    return lines - sum(1 for _ in HoldRecords(context).ended_runs())


def _lock(path: str) -> str:
    """Name who has the lock for the whole of the look; "" where it is free at any moment, or not there."""
    for _ in range(_LOCK_TRIES):
        try:
            if not LivenessLock(path).is_held():
                return ""
        except TaoprofError:
            return ""  # told with the other files
        time.sleep(_PAUSE)
    try:
        note = (files.read(path, 1 << 16) or b"").decode("utf-8", "replace").split("\n")[0].strip()
    except TaoprofError:
        note = ""
    return note[:100] or "a process"


def _mode(path: str) -> int | None:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError):
        return None


def _is_orphaned(context: Context) -> bool:
    try:
        return locks.is_orphaned(context.seal, context.guard)
    except TaoprofError:
        return False


def _homes(context: Context, state: State) -> State:
    moved = context.environ.get("TAOPROF_HOME", "")
    if not moved:
        return state
    without = {name: value for name, value in context.environ.items() if name != "TAOPROF_HOME"}
    try:
        other = Context(without)
        if os.path.realpath(other.home) != os.path.realpath(context.home) and Store(other).names():
            return state._replace(moved=moved, other=other.profiles)
    except (TaoprofError, OSError):
        pass
    return state


def _guarded(context: Context, state: State) -> State:
    known: Mapping[str, object] = {}
    try:
        known = guard_status.read_status(context) or {}
        pid = known.get("pid")
        state = state._replace(
            guard=str(known.get("version") or "unknown") if known else "",
            guard_pid=pid if isinstance(pid, int) else 0,
            guard_problem=str(known.get("problem") or ""),
        )
        service = Service(context, patience=3.0)
        now = service.status()
        if now["installed"]:
            there = files.read(str(now["unit"] or service.path), 1 << 20)
            unit = "same" if there == service.unit().encode() else "other"
            return state._replace(unit=unit, service=str(now["state"]))
    except (TaoprofError, OSError, ValueError, LookupError, TypeError):
        pass  # no systemd of the user's: there is no service, and the guard needs none
    return state
