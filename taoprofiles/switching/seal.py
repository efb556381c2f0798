"""The seal: while a run needs the mapping file, the guard makes it read-only.

``guard/seal.json`` exists while the file is sealed and holds the mode that the file had before.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.storage import atomic, files
from taoprofiles.storage.paths import Context

_LIMIT = 1 << 16
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


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

    def remove(self) -> int | None:
        """Restore the mode that the file had; return it, None if there was no seal."""
        if not self.is_recorded() and self._mine is None:
            return None
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
        return None if known is None else int(known["mode"])

    def _known(self) -> dict[str, Any] | None:
        record: Any = None
        try:
            record = json.loads(files.read(self._record, _LIMIT) or b"null")
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
