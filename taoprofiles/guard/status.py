"""The guard's files: the proof that it is alive, and its status for other commands.

``guard/ID.claim`` is locked while the guard of one host is alive (ID is a hash of the host's identity), and
``guard/ID.json`` holds the status that it published.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any

from taoprofiles.errors import GuardRunningError
from taoprofiles.storage import files, locks
from taoprofiles.storage.locks import LivenessLock, Lock
from taoprofiles.storage.paths import Context
from taoprofiles.switching.seal import Seal
from taoprofiles.system import processes

FORMAT = 1
_LIMIT = 16 << 20


def read_status(context: Context) -> dict[str, Any] | None:
    """Return what the guard of this host published (see ``Guard.check``), None if no guard is alive here."""
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
        end = time.monotonic() + 0.5
        while (fd := LivenessLock(self._path(".claim")).try_acquire()) is None:
            if time.monotonic() >= end:
                pid = (self.read() or {}).get("pid", "unknown")
                raise GuardRunningError(f"a guard is already running: pid {pid}", hint="taoprof status")
            time.sleep(0.02)  # a command that checks whether a guard is alive has the lock for a moment
        return fd

    def is_current(self, fd: int) -> bool:
        """Check whether the descriptor of ``acquire`` is still the file that other commands look at."""
        return files.has_name(fd, self._path(".claim"))

    def is_alive(self, name: str = "") -> bool:
        """Check whether the guard of this host, or the one called ``name``, is alive."""
        return LivenessLock(self._path(".claim", name)).is_held()

    def publish(self, status: dict[str, Any]) -> None:
        """Write the status of this host's guard."""
        data = json.dumps({"v": FORMAT, **status}).encode()
        if not files.write_cache(self._path(".json"), data):
            files.overwrite_quietly(self._path(".json"), data)  # on a full disk the old file's blocks can be reused

    def read(self) -> dict[str, Any] | None:
        """Return the last status of this host's guard, alive or not; None if it is missing or in another format."""
        status = files.read_json(self._path(".json"), _LIMIT) or {}
        holds, problem = status.get("holds"), status.get("problem")
        is_valid = isinstance(status.get("line"), str) and isinstance(problem, str | None) and isinstance(holds, list)
        is_valid = is_valid and status.get("v") == FORMAT and isinstance(status.get("is_sealed"), bool)
        return status if is_valid and all(isinstance(hold, dict) for hold in holds or []) else None

    def delete(self) -> None:
        """Delete the files of all guards and their pending messages, unless a guard is alive on some host."""
        if locks.any_held(self._folder):
            return
        for name in files.names_in(self._folder):
            files.unlink_quietly(os.path.join(self._folder, name))
        files.rmdir_quietly(self._folder)

    def _path(self, suffix: str, name: str = "") -> str:
        return os.path.join(self._folder, (name or self.name) + suffix)
