"""The machine as a launcher sees it: an environment, a current folder, and what is there."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from taoprofiles.storage.paths import expand_user

if TYPE_CHECKING:
    from collections.abc import Mapping


_LIMIT = 64 << 20
"""Bytes of a file: a launcher that reads more of one than this is not followed."""


class Host:
    """The real thing behind ``launcher.prediction.Machine``; every method is the one of ``os.path``, or ``open``.

    ``environ`` is the launcher's environment, ``folder`` the one that it is started in, ``config`` the content of the
    installed launcher's ``config/config.json``, or None. The paths may be anything that a mounts file can hold, so also
    what is no path at all: then a TypeError or ValueError says so, in Python's own words.
    """

    def __init__(self, environ: Mapping[str, str], folder: str, config: bytes | None = None) -> None:
        self.environ, self.folder, self.config = environ, folder, config

    def expanduser(self, path: str) -> str:
        """Give the home for a leading ``~``, that of the environment's HOME."""
        home = self.environ.get("HOME")
        return os.path.expanduser(path) if home is None or not isinstance(path, str) else expand_user(path, home)

    def realpath(self, path: str) -> str:
        """Follow every link; what is not there stays as it is."""
        os.fsencode(path)  # says where a path is none before the folder comes in front of it
        return os.path.realpath(os.path.join(self.folder, path))

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file or folder, and it may be seen."""
        return path != "" and os.path.exists(os.path.join(self.folder, path))

    def read(self, path: str) -> bytes:
        """Give the content of a regular file. Raises OSError, with the path as it was given.

        The launcher would wait for a FIFO, and read a device until its memory is full: here both are an error.
        """
        try:
            fd = os.open(os.path.join(self.folder, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                if stat.S_ISFIFO(mode := os.fstat(fd).st_mode) or stat.S_ISCHR(mode):
                    raise OSError(errno.EINVAL, "it is no regular file")
                content = file.read(_LIMIT + 1)
            if len(content) > _LIMIT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        return content
