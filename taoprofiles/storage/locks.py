"""The one lock that every change is made under: a kernel lock (flock) on a file in the state folder.

The usual case, a lock that is free, is taken here with a single system call. Anything else, a lock that is held or a
file system that answers oddly, is left to filelock, which takes the very same kernel lock but costs 45 ms to import.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import BusyError
from taoprofiles.storage import files
from taoprofiles.storage.atomic import PRIVATE
from taoprofiles.storage.os_errors import unusable

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for the lock. A change holds it for milliseconds; 64 at once are through in about a second."""

_PAUSE = 0.005
"""Seconds between two tries to get a lock that is held."""

_STANDSTILL = 0.5
"""Seconds between two tries from which on the machine was asleep or frozen, and not the lock's holder slow."""


class Lock:
    """``with Lock(path, timeout): …`` excludes every other taoprof process and thread of this home.

    The kernel frees the lock when its holder dies, so it is never stale. ``timeout`` is in seconds; BusyError names the
    holder when it has passed. The lock file stays, and holds who had it last.
    """

    def __init__(self, path: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._fd = -1

    def __enter__(self) -> Lock:
        if not self.try_acquire():
            self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._fd >= 0:
            _close(self._fd)  # Linux has let go of it whatever that says, and the work under the lock is done
            self._fd = -1

    def try_acquire(self) -> bool:
        """Take the lock if it is free now. Raises TaoprofError where the lock file cannot be made."""
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_named(fd):
                self._take(fd)
                return True
        except OSError:
            pass
        _close(fd)
        return False

    def _open(self) -> int:
        files.make_folder(os.path.dirname(self._path))
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(self._path, flags, PRIVATE)
        except OSError as error:
            raise unusable(self._path, "open the lock", error) from error

    def _is_named(self, fd: int) -> bool:
        """Whether the file still has its name: a lock on one that has none any more excludes nobody."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except OSError:
            return False

    def _take(self, fd: int) -> None:
        if os.fstat(fd).st_mode & 0o777 != PRIVATE:
            os.fchmod(fd, PRIVATE)  # the umask may have taken bits away
        self._fd = fd
        self._note_holder()

    def _wait(self) -> None:
        # By a descriptor. Given a path, filelock makes all its folders: a guard whose home is moved away, or unmounted,
        # before it waits would make a home anew, in the way of the one that comes back or hidden by it.
        from filelock import lock_descriptor

        waited, last = 0.0, time.monotonic()
        while True:
            fd = self._open()
            try:
                while True:
                    has_it = lock_descriptor(fd, blocking=False)
                    if not self._is_named(fd):
                        break  # the state folder was removed meanwhile, or moved away
                    if has_it:
                        self._take(fd)
                        return
                    now = time.monotonic()
                    # While a machine stands still, nobody else gives the lock back either: that is no waiting.
                    waited, last = waited + min(now - last, _STANDSTILL), now
                    if waited >= self._timeout:
                        raise BusyError(
                            f"another taoprof command is at work: {self._holder()} has the lock, and "
                            f"{self._timeout:g} s were not enough to get it",
                            hint="run the command again, or give it longer with --timeout SECONDS",
                        )
                    time.sleep(_PAUSE)
            except OSError as error:
                raise unusable(self._path, "lock", error) from error
            finally:
                if self._fd != fd:
                    _close(fd)

    def _note_holder(self) -> None:
        note = f"pid {os.getpid()} on {os.uname().nodename}"
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, f"{note[:78]:<79}\n".encode(), 0)  # one length, so that no older note shows through
            finally:
                os.close(fd)
        except OSError:
            pass  # a full disk: the note is for people, the lock is the kernel's

    def _holder(self) -> str:
        note = (files.read(self._path, 1 << 16) or b"").decode("utf-8", "replace")
        return note.split("\n")[0].strip() or "a process"


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        pass
