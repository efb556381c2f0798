"""Files that can be worked out again, or are in nobody's way: written and taken away without a word about errors."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import atomic, files

if TYPE_CHECKING:
    from typing import Any


def write(path: str, data: bytes) -> bool:
    """Write something that can be worked out again: atomic, but not durable; false where that was not possible."""
    fresh = f"{path}.taoprof-new"
    try:
        files.make_folder(os.path.dirname(path))
        atomic.unlink_quietly(fresh)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, atomic.PRIVATE)
        try:
            os.fchmod(fd, atomic.PRIVATE)
            atomic.write_all(fd, data, 0)
        finally:
            os.close(fd)
        os.replace(fresh, path)
        return True
    except (OSError, TaoprofError):
        atomic.unlink_quietly(fresh)
        return False


def read_json(path: str, limit: int) -> dict[str, Any] | None:
    """Return the JSON object in the file ``path``, of at most ``limit`` bytes; None where there is no such thing."""
    try:
        value = json.loads(files.read(path, limit) or b"null")
    except (TaoprofError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def overwrite(path: str, data: bytes) -> None:
    """Write into the file that is there; no error stops the work."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            atomic.write_all(fd, data, 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)
    except OSError:
        pass


def forget(path: str) -> None:
    """Take a cache away that no longer holds."""
    atomic.unlink_quietly(path)


def move(path: str, to: str) -> bool:
    """Give a file another name, so that nobody else finds it; false where it is not there."""
    try:
        os.rename(path, to)
        return True
    except OSError:
        return False


def forget_folder(path: str) -> None:
    """Take an empty folder away; no error stops the work."""
    try:
        os.rmdir(path)
    except OSError:
        pass


def make_private(path: str) -> None:
    """Take all rights on a file from everybody else; nothing happens where there is none."""
    try:
        os.chmod(path, atomic.PRIVATE)
    except OSError:
        pass
