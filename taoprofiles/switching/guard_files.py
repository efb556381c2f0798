"""The guard's files, which other commands read too: its status, the proof that it is alive, and the seal.

``guard/ID.claim`` is locked while the guard of one host is alive (ID is a hash of the host's identity), and
``guard/ID.json`` holds the status that it published. While a run needs the mapping file, the guard makes it read-only:
``guard/seal.json`` exists while the file is sealed and holds the mode that the file had before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taoprofiles.errors import GuardRunningError, InvalidStateError, TaoprofError
from taoprofiles.storage import atomic, files, locks
from taoprofiles.storage.locks import LivenessLock, Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes

FORMAT = 1
_STATUS_LIMIT = 16 << 20
_SEAL_LIMIT = 1 << 16
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def read_status(context: Context) -> dict[str, Any] | None:
    """Return what the guard of this host published (see ``Guard.check``), None if no guard is alive here."""
    guard = GuardFiles(context)
    return guard.read() if guard.is_alive() else None


def unseal(context: Context) -> bool:
    """Remove the seal of a guard that is dead, and return whether there was one. Raises BusyError, TaoprofError."""
    if not locks.is_orphaned(context.seal, context.guard):
        return False
    with Lock(context.lock):
        return Seal(context).remove()


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
        status = files.read_json(self._path(".json"), _STATUS_LIMIT)
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


class Seal:
    """Makes the mapping file read-only, so that a plain ``open(path, "w")`` of another program fails.

    All but ``is_recorded`` needs the lock, and raises TaoprofError if the record cannot be read. The record is written
    before the mode is changed: whatever is killed, the mode can be restored. It holds the file's real path, inode,
    mode, and the name of the guard that sealed it.
    """

    def __init__(self, context: Context) -> None:
        self._target = context.mapping_file
        self._record = context.seal
        self._mine: dict[str, Any] | None = None  # the record as we wrote it: it may be deleted, or damaged

    def is_recorded(self) -> bool:
        """Check whether a guard has sealed the file and not unsealed it yet."""
        return os.path.lexists(self._record)

    def mode(self, ino: int) -> int | None:
        """Return the mode that the file with inode ``ino`` had before it was sealed, None if it is not sealed."""
        known = self._known()
        return int(known["mode"]) if known is not None and known["ino"] == ino else None

    def sealed_by(self) -> str | None:
        """Return the name of the guard that sealed the file, None if it is not sealed."""
        known = self._known()
        return None if known is None else str(known["by"])

    def apply(self, by: str, size: int) -> bool:
        """Seal the file for the guard ``by``; return False if nobody can write it already.

        Another file than the one with ``size`` bytes that was examined is not sealed: it has just been replaced. Raises
        TaoprofError.
        """
        path, known = files.real_path(self._target), self._known()
        if known is not None and known["path"] != path:
            self.remove()  # another file was sealed
        with _open_path(path) as (opened, status):
            if status is None or status.st_size != size or not status.st_mode & 0o222:
                return False
            files.make_folder(os.path.dirname(self._record))
            record = {"path": path, "ino": status.st_ino, "mode": status.st_mode & 0o7777, "by": by}
            atomic.replace(self._record, json.dumps(record).encode())
            try:
                files.change_mode(opened, status.st_mode & 0o7555, name=path)
            except TaoprofError:
                files.unlink_quietly(self._record)  # only the owner of a file may change its mode
                raise
            self._mine = record
            return True

    def remove(self) -> bool:
        """Restore the mode that the file had; return whether it was sealed."""
        if not self.is_recorded() and self._mine is None:
            return False
        known, self._mine = self._known(), None
        if known is not None:
            for path in dict.fromkeys((known["path"], files.real_path(self._target))):  # it may have been moved
                with _open_path(path) as (opened, status):
                    if status is None:
                        continue
                    # Not another file that now has its name; and not by the device's number, which another boot or
                    # host may give otherwise.
                    mode = status.st_mode & 0o7777
                    is_it = status.st_ino == known["ino"] or mode == known["mode"] & 0o7555
                    if is_it and mode != known["mode"]:
                        files.change_mode(opened, known["mode"], name=path)
        files.unlink_quietly(self._record)
        return known is not None

    def _known(self) -> dict[str, Any] | None:
        record: Any = None
        try:
            record = json.loads(files.read(self._record, _SEAL_LIMIT) or b"null")
        except (InvalidStateError, ValueError, RecursionError):
            pass  # damaged
        except TaoprofError:
            if self._mine is None:
                raise  # without its mode the file would stay read-only
        record = record if isinstance(record, dict) else {}
        path, ino, mode = record.get("path"), record.get("ino"), record.get("mode")
        is_sound = type(ino) is type(mode) is int and 0 <= mode <= 0o7777 and isinstance(record.get("by"), str)
        return record if is_sound and isinstance(path, str) and os.path.isabs(path) else self._mine


@contextmanager
def _open_path(path: str) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield a path that stays with this file if its name is given to another one, and its stat_result or None.

    Raises TaoprofError if it cannot be opened: the record of a seal must not be deleted then.
    """
    try:
        fd = os.open(path, os.O_PATH)
    except ValueError:  # a damaged record's path
        fd = -1
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise files.to_taoprof_error(path, "open", error) from error
        fd = -1
    try:
        yield f"/proc/self/fd/{fd}", os.fstat(fd) if fd >= 0 else None
    finally:
        if fd >= 0:
            os.close(fd)
