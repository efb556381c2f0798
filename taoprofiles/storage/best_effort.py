"""Best-effort files: errors while writing or deleting them are ignored.

They are caches, and the messages for the user's next command of programs that work in the background
(``guard/untold``, one a line).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context

_PUNCH_HOLE = 0x1 | 0x2
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of <linux/falloc.h>."""

_BLOCK = 1 << 16
"""A multiple of the block size of every usual file system: a part of a block is not freed."""


def write(path: str, data: bytes) -> bool:
    """Replace a cache file atomically, but not durably, and return whether that succeeded."""
    temporary = f"{path}.taoprof-new"
    try:
        files.make_folder(os.path.dirname(path))
        unlink_quietly(temporary)
        with files.opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            os.fchmod(fd, files.PRIVATE)
            files.give_to_owner(fd, os.path.dirname(path))
            files.write_all(fd, data, 0)
        os.replace(temporary, path)
        return True
    except (OSError, TaoprofError):
        unlink_quietly(temporary)
        return False


def read_json(path: str, limit: int) -> dict[str, Any] | None:
    """Return the JSON object in the file ``path``, of at most ``limit`` bytes; None if there is none."""
    try:
        value = json.loads(files.read(path, limit) or b"null")
    except (TaoprofError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def overwrite(path: str, data: bytes) -> None:
    """Write into the existing file, which on a full disk still has its room."""
    with suppress(OSError), files.opened(path, os.O_WRONLY | os.O_NOFOLLOW) as fd:
        files.write_all(fd, data, 0)
        os.ftruncate(fd, len(data))


def append(path: str, data: bytes) -> None:
    """Append to an existing file, not durably."""
    with suppress(OSError), files.opened(path, os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, data)


def drop_beginning(path: str, kept: int) -> None:
    """Free the room of all but about the last ``kept`` bytes of a file that other programs append to.

    Nothing that is appended meanwhile is lost, and every position stays what it is: the beginning becomes a hole
    (fallocate(2)). A file system that has no holes loses all of it.
    """
    with suppress(OSError), files.opened(path, os.O_RDWR | os.O_NOFOLLOW) as fd:
        end = (os.fstat(fd).st_size - kept) & -_BLOCK
        if end > 0 and not _punch_hole(fd, end):
            os.ftruncate(fd, 0)


def _punch_hole(fd: int, end: int) -> bool:
    import ctypes  # only for a log that has become long

    offset = ctypes.c_int64
    library = ctypes.CDLL(None)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)  # of glibc, of musl
    return function is not None and function(fd, _PUNCH_HOLE, offset(0), offset(end)) == 0


def unlink_quietly(path: str) -> None:
    """Delete a file, if it exists."""
    with suppress(OSError):
        os.unlink(path)


def rmdir_quietly(path: str) -> None:
    """Delete a folder, if it exists and is empty."""
    with suppress(OSError):
        os.rmdir(path)


def rename(path: str, to: str) -> bool:
    """Rename a file, so that no other process finds it, and return whether it existed."""
    try:
        os.rename(path, to)
        return True
    except OSError:
        return False


def make_private(path: str) -> None:
    """Remove all rights of other users on a file, if it exists."""
    with suppress(OSError):
        os.chmod(path, files.PRIVATE)


_KEPT = 20
"""Messages that are kept; those of the guard are also in its log."""


def add_message(context: Context, line: str) -> None:
    """Add a message that the user's next command shows. Needs the lock."""
    text = "".join(f"{old}\n" for old in [*_read_lines(context.pending_messages), " ".join(line.splitlines())][-_KEPT:])
    write(context.pending_messages, text.encode("utf-8", "backslashreplace"))


def take_messages(context: Context) -> list[str]:
    """Return the messages and delete them; of two commands at the same time only one gets them."""
    path = f"{context.pending_messages}-{os.getpid()}"
    if not rename(context.pending_messages, path):
        return []
    lines = _read_lines(path)
    unlink_quietly(path)
    return lines


def _read_lines(path: str) -> list[str]:
    try:
        return (files.read(path, 1 << 16) or b"").decode("utf-8", "replace").splitlines()
    except TaoprofError:
        return []
