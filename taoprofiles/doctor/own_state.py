"""Probe of the files of taoprofiles and of its guard; changes nothing."""

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
    """The files of taoprofiles, and its guard.

    - ``profile``, ``situation``: the active profile and the state of the mapping file, as in ``taoprof status``
    - ``known``: number of profiles; ``profiles``: invalid ones (name, problem)
    - ``foreign``: files and folders that belong to another user (path, uid)
    - ``unreadable``: files that cannot be read (path, reason)
    - ``torn``: damaged lines of the journals (path, lines); ``holds``: damaged records (path, problem)
    - ``lock``: the holder of a lock that was held for the whole probe
    - ``unit``: "" (none), "same" or "other"; ``service``: its state; ``guard``: the version of a running guard
    - ``moved``: TAOPROF_HOME, if ``other``, the profiles of the user's home, exists as well
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
"""Problems of one kind that are reported; when these are fixed, the others show."""

_LOCK_TRIES, _PAUSE = 10, 0.05
"""A lock that is held at each try, for half a second, belongs to a process that hangs."""


def probe_state(context: Context) -> State:
    """Look at all files. Never raises: what cannot be read is in ``unreadable``."""
    unreadable: list[tuple[str, str]] = []

    def attempt(path: str, look: Callable[[], T], otherwise: T) -> T:
        try:
            return look()
        except TaoprofError as error:
            unreadable.append((path, error.message))
        except OSError as error:
            unreadable.append((path, (error.strerror or str(error)).lower()))
        return otherwise

    now = attempt(context.mapping_file, lambda: status.get_status(context), None)
    summaries: list[Summary] = attempt(context.profiles, lambda: Store(context).summaries(), [])
    damaged: dict[str, str] = {}
    attempt(context.holds, lambda: len(HoldRecords(context).all(damaged)), 0)
    torn = [
        (context.history, attempt(context.history, lambda: _torn(context, context.history), 0)),
        (context.runs, attempt(context.runs, lambda: _torn(context, context.runs), 0)),
    ]
    state = State(
        context.state,
        context.mapping_file,
        (now.name or "") if now else "",
        now.state if now else "unreadable",
        _mode(context.mapping_file),
        len(summaries),
        tuple(_foreign(context)[:LISTED]),
        tuple(unreadable[:LISTED]),
        tuple([(summary.name, summary.problem) for summary in summaries if summary.problem][:LISTED]),
        torn=tuple((path, lines) for path, lines in torn if lines),
        holds=tuple((os.path.join(context.holds, f"{id}.json"), text) for id, text in [*damaged.items()][:LISTED]),
        lock=_lock(context.lock),
        is_sealed_by_nobody=_is_orphaned(context),
    )
    return _add_guard(context, _add_other_home(context, state))


def _foreign(context: Context) -> list[tuple[str, int]]:
    if context.uid == 0:
        return []  # may write everything
    result: list[tuple[str, int]] = []
    for path in (context.mapping_file, context.config, context.profiles, context.state, context.lock, context.history):
        try:
            owner = os.lstat(path).st_uid
        except (OSError, ValueError):
            continue
        if owner != context.uid and not any(is_inside(path, outer) for outer, _ in result):
            result.append((path, owner))
    return result


def _torn(context: Context, path: str) -> int:
    """Return the number of damaged lines of a journal."""
    lines = sum(1 for line in lines_backwards(path) if line.strip())
    if path == context.history:
        return lines - sum(1 for _ in History(context).newest_first())
    return lines - sum(1 for _ in HoldRecords(context).ended_runs())


def _lock(path: str) -> str:
    """Return who holds the lock for the whole probe; "" if it is free at any moment, or does not exist."""
    for _ in range(_LOCK_TRIES):
        try:
            if not LivenessLock(path).is_held():
                return ""
        except TaoprofError:
            return ""  # reported with the other files
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


def _add_other_home(context: Context, state: State) -> State:
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


def _add_guard(context: Context, state: State) -> State:
    report: Mapping[str, object] = {}
    try:
        report = guard_status.read_status(context) or {}
        pid = report.get("pid")
        state = state._replace(
            guard=str(report.get("version") or "unknown") if report else "",
            guard_pid=pid if isinstance(pid, int) else 0,
            guard_problem=str(report.get("problem") or ""),
        )
        service = Service(context, patience=3.0)
        service_status = service.status()
        if service_status["installed"]:
            installed = files.read(str(service_status["unit"] or service.path), 1 << 20)
            unit = "same" if installed == service.unit().encode() else "other"
            return state._replace(unit=unit, service=str(service_status["state"]))
    except (TaoprofError, OSError, ValueError, LookupError, TypeError):
        pass  # without a systemd user manager there is no service, and the guard needs none
    return state
