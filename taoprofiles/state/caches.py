"""Files that can be worked out again, or are in nobody's way: written and taken away without a word about errors."""

from __future__ import annotations

import os

from taoprofiles.errors import TaoprofError
from taoprofiles.state import files


def write(path: str, data: bytes) -> None:
    """Write something that can be worked out again: atomic, but not durable, and no error stops the work."""
    fresh = f"{path}.taoprof-new"
    try:
        files.make_folder(os.path.dirname(path))
        files.unlink_quietly(fresh)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, files.PRIVATE)
        try:
            os.fchmod(fd, files.PRIVATE)
            files.write_all(fd, data, 0)
        finally:
            os.close(fd)
        os.replace(fresh, path)
    except (OSError, TaoprofError):
        files.unlink_quietly(fresh)


def forget(path: str) -> None:
    """Take a cache away that no longer holds."""
    files.unlink_quietly(path)


def forget_folder(path: str) -> None:
    """Take an empty folder away; no error stops the work."""
    try:
        os.rmdir(path)
    except OSError:
        pass


def make_private(path: str) -> None:
    """Take all rights on a file from everybody else; nothing happens where there is none."""
    try:
        os.chmod(path, files.PRIVATE)
    except OSError:
        pass
