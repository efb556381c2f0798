"""Taking turns in a folder: a kernel lock on the folder itself, which needs no file and dies with its holder."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import BusyError
from taoprofiles.storage import homes

if TYPE_CHECKING:
    from types import TracebackType


class Turn:
    """Keeps every other taoprof process from the temporary names in a folder, also one with another state folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> Turn:
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        end = time.monotonic() + 10
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    os.close(self._fd)
                    raise BusyError(f"another program holds a lock on the folder '{self._folder}'") from None
                time.sleep(0.002)
            except OSError:
                break  # NFS locks no folder that is open for reading only; the one lock of the home still holds
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError:
            pass  # closing it is enough
        try:
            os.close(self._fd)
        except OSError:
            pass  # the kernel lets go of it with the process, and the work is done

    def check(self) -> None:
        """Raise OSError where the folder is a home that has gone away: that a file was not seen there says nothing.

        A new one would be made in the empty folder that is left, or the way back take away the one that is back.
        """
        for place in (self._fd, self._folder):
            homes.check(self._folder, place)

    def sync(self) -> None:
        """Make the names in the folder durable. Raises OSError."""
        os.fsync(self._fd)
