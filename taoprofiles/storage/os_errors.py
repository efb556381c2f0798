"""Translation of the operating system's errors into messages for the user."""

from __future__ import annotations

import errno
import os
import stat

from taoprofiles.errors import InvalidStateError, TaoprofError

_PATH_IS_WRONG = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO)
_HINTS = {
    errno.ENOSPC: "free some space, then run the command again; nothing was changed",
    errno.EDQUOT: "free some space, then run the command again; nothing was changed",
    errno.EROFS: "the file system is read-only; TAOPROF_HOME=FOLDER keeps everything elsewhere",
}


def to_taoprof_error(path: str, action: str, error: OSError) -> TaoprofError:
    """Return the error "cannot ACTION 'PATH': reason"; an InvalidStateError where the path itself is wrong."""
    reason = (error.strerror or str(error)).lower()
    filename = error.filename if isinstance(error.filename, str) else path
    other = f" ('{filename}')" if os.path.dirname(filename) != os.path.dirname(path) else ""
    error_type = InvalidStateError if error.errno in _PATH_IS_WRONG else TaoprofError
    return error_type(f"cannot {action} '{path}': {reason}{other}", hint=_HINTS.get(error.errno or 0, ""))


def file_type(mode: int) -> str:
    """Return the name of a file type, from its ``st_mode``."""
    names = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for is_type, name in names if is_type(mode)), "a file")
