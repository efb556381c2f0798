"""The guard's files: the proof that it is alive, and its status for other commands.

``guard/ID.claim`` is locked while the guard of one host is alive (ID is a hash of the host's identity), and
``guard/ID.json`` holds the status that it published.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import GuardRunningError
from taoprofiles.holds.hold import Hold, shared_holds
from taoprofiles.holds.liveness import ActiveHolds, Containers
from taoprofiles.storage import best_effort, files, locks
from taoprofiles.storage.locks import LivenessLock, Lock
from taoprofiles.storage.paths import Context
from taoprofiles.switching.seal import Seal
from taoprofiles.system import processes
from taoprofiles.version import VERSION, find_commit

if TYPE_CHECKING:
    from taoprofiles.guard.guard import Snapshot

FORMAT = 1
_LIMIT = 16 << 20

logger = logging.getLogger(__name__)


def read_status(context: Context) -> dict[str, Any] | None:
    """Return what the guard of this host published (see ``StatusPublisher``), None if no guard is alive here."""
    guard = GuardFiles(context)
    return guard.read() if guard.is_alive() else None


def unseal(context: Context) -> bool:
    """Remove the seal of a guard that is dead, and return whether there was one. Raises BusyError, TaoprofError."""
    if not locks.is_orphaned(context.seal, context.guard):
        return False
    with Lock(context.lock):
        return Seal(context).remove() is not None


class GuardFiles:
    """The files of the guards of one user, on all hosts that share the home; ``name`` is this host's guard."""

    def __init__(self, context: Context) -> None:
        self._folder = context.guard
        name, machine, _, namespace = processes.host_id().split(" ")  # not the boot id, so that the files are reused
        self.name = hashlib.sha256(f"{name} {machine} {namespace}".encode()).hexdigest()[:12]

    def acquire(self) -> int:
        """Become the guard of this host; return the descriptor that proves it while it is open.

        Raises GuardRunningError if a guard is alive on this host.
        """
        files.make_folder(self._folder)
        path = self._path(".claim")
        fd = LivenessLock(path).try_acquire()
        end = time.monotonic() + 0.5
        while fd is None and time.monotonic() < end:
            time.sleep(0.02)  # a command that checks whether a guard is alive has the lock for a moment
            fd = LivenessLock(path).try_acquire()
        if fd is None:
            pid = (self.read() or {}).get("pid", "unknown")
            raise GuardRunningError(f"a guard is already running: pid {pid}", hint="taoprof status")
        return fd

    def is_current(self, fd: int) -> bool:
        """Check whether the descriptor of ``acquire`` is still the file that other commands look at."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path(".claim")))
        except OSError:
            return False

    def is_alive(self, name: str = "") -> bool:
        """Check whether the guard of this host, or the one called ``name``, is alive."""
        return LivenessLock(self._path(".claim", name)).is_held()

    def publish(self, status: dict[str, Any]) -> None:
        """Write the status of this host's guard."""
        data = json.dumps({"v": FORMAT, **status}).encode()
        if not best_effort.write(self._path(".json"), data):
            best_effort.overwrite(self._path(".json"), data)  # on a full disk the old file's blocks can be reused

    def read(self) -> dict[str, Any] | None:
        """Return the last status of this host's guard, alive or not; None if it is missing or in another format."""
        status = best_effort.read_json(self._path(".json"), _LIMIT) or {}
        holds, problem = status.get("holds"), status.get("problem")
        is_valid = isinstance(status.get("line"), str) and isinstance(problem, str | None) and isinstance(holds, list)
        is_valid = is_valid and status.get("v") == FORMAT and isinstance(status.get("is_sealed"), bool)
        return status if is_valid and all(isinstance(hold, dict) for hold in holds or []) else None

    def delete(self) -> None:
        """Delete the files of all guards and their pending messages, unless a guard is alive on some host."""
        if locks.any_held(self._folder):
            return
        for name in os.listdir(self._folder) if os.path.isdir(self._folder) else []:
            best_effort.unlink_quietly(os.path.join(self._folder, name))
        best_effort.rmdir_quietly(self._folder)

    def _path(self, suffix: str, name: str = "") -> str:
        return os.path.join(self._folder, (name or self.name) + suffix)


class StatusPublisher:
    """Publishes the status after each check, and logs what has changed since the last one."""

    def __init__(self, guard: GuardFiles) -> None:
        self._guard = guard
        self._commit = find_commit()  # now: a checkout may change while the guard runs
        self._holds: list[Hold] = []
        self._unchecked: set[str] = set()

    def update(
        self, active: ActiveHolds, file: Snapshot, containers: Containers, *, is_sealed: bool, problem: str
    ) -> str:
        """Log the changes, publish the status and return it in one line.

        ``problem`` is "" or what the guard cannot do at the moment.
        """
        self._log_changes(active)
        profile = file.entry.profile if file.entry else None
        name = f"'{profile}'" if profile else "no file" if file.content is None else "an unmanaged file"
        line = _line(name, active.holds, is_sealed=is_sealed)
        self._guard.publish(
            {
                "version": VERSION,
                "commit": self._commit,
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "looked": time.time(),
                "line": line,
                "is_sealed": is_sealed,
                "problem": "; ".join(part for part in (problem, *active.unchecked) if part) or None,
                "engine": {"address": containers.address, "answers": containers.complete},
                "holds": [hold.as_dict() for hold in active.holds],
                "unseen": active.unchecked,
            }
        )
        return line

    def _log_changes(self, active: ActiveHolds) -> None:
        before, now = {hold.id for hold in self._holds}, {hold.id for hold in active.holds}
        for hold in active.holds:
            if hold.id not in before and hold.shared and not hold.released:
                logger.info("new hold: %s", hold.line())
        for hold in self._holds:
            if hold.id not in now and hold.shared:
                logger.info("hold ended: %s, hold %s", hold.title(), hold.id)
        self._holds = active.holds
        for text in active.unchecked:
            if text not in self._unchecked:
                logger.warning("%s", text)
        self._unchecked = set(active.unchecked)


def _time(seconds: float) -> str:
    return time.strftime("%H:%M" if time.time() - seconds < 43_200 else "%Y-%m-%d %H:%M", time.localtime(seconds))


def _line(name: str, holds: Sequence[Hold], *, is_sealed: bool) -> str:
    shared = shared_holds(holds)
    line = f"watching {name}: not in use"
    if shared:
        # Not for how long: that would be wrong a moment later, and the line is shown until the next check.
        users = "; ".join(hold.line(when=f"since {_time(hold.since)}") for hold in shared[:3])
        users += f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        line = f"watching {name}: in use{' and read-only' if is_sealed else ''}: {users}"
    own = len(holds) - len(shared)
    if own:
        line += "; 1 run has its own mounts file" if own == 1 else f"; {own} runs have their own mounts files"
    return line
