"""What the system refuses, said so that a person can do something about it."""

from __future__ import annotations

import errno
import os
import stat

from taoprofiles.errors import InvalidStateError, TaoprofError


def refuse_newer(path: str, version: int, known: int) -> None:
    """Raise InvalidStateError for a line of a format that only a later taoprofiles can read."""
    if version > known:
        raise InvalidStateError(
            f"'{path}' was written by a newer taoprofiles (format {version}; this one reads {known})",
            hint="pip install --upgrade taoprofiles",
        )


def unusable(path: str, what: str, error: OSError) -> TaoprofError:
    """Say what could not be done with ``path`` and why: an InvalidStateError where the path itself is wrong."""
    reason = (error.strerror or str(error)).lower()
    where = error.filename if isinstance(error.filename, str) else path
    beside = f" ('{where}')" if os.path.dirname(where) != os.path.dirname(path) else ""
    kind_of_error = InvalidStateError if error.errno in _PATH_IS_WRONG else TaoprofError
    hints = {
        errno.ENOSPC: "free some space, then run the command again; nothing was changed",
        errno.EDQUOT: "free some space, then run the command again; nothing was changed",
        errno.EROFS: "the file system is read-only; TAOPROF_HOME=FOLDER keeps everything elsewhere",
    }
    return kind_of_error(f"cannot {what} '{path}': {reason}{beside}", hint=hints.get(error.errno or 0, ""))


_PATH_IS_WRONG = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO)


def kind(mode: int) -> str:
    """Name what stands at a path, from its ``st_mode``."""
    names = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in names if test(mode)), "a file")
