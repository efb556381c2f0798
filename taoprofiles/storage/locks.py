"""Kernel locks (flock), which end with their holder and are never stale.

``Lock`` is the lock under which every change is made; a free lock costs one system call, while importing filelock costs
45 ms, so filelock takes the very same kernel lock only if it has to wait for it. ``DirectoryLock`` protects the
temporary names in a folder. ``LivenessLock`` proves that the process which holds it, or one that inherited it, lives.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from taoprofiles.errors import BusyError, TaoprofError
from taoprofiles.storage import files
from taoprofiles.storage.files import PRIVATE, errors_as

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for one holder of the lock. A change holds it for milliseconds."""

_PAUSE = 0.005
"""Seconds between two tries to get a lock that is held."""

_FRESH_NS = 250_000_000
"""Nanoseconds for which the access time that a waiter set counts; it is renewed at each try."""

_FOLDER_TIMEOUT = 1.0
"""Seconds to wait for the lock of a folder, which anybody who can open the folder can hold for ever."""

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK


class Lock:
    """``with Lock(path, timeout): …`` excludes every other taoprof process and thread of this home.

    ``timeout`` is in seconds. BusyError names the holder if the same process held the lock for so long: while one
    command after the other gets it, a waiting one waits for its turn. The lock file stays, and its text says who held
    the lock last.

    A program that switches in a loop would always get the lock before those that wait. So waiters set the file's access
    time, and ``try_acquire`` does not take the lock if that time is only a moment ago.
    """

    def __init__(self, path: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._fd = -1
        self._holder: bytes | None = None
        self._waited = 0.0

    def __enter__(self) -> Lock:
        if not self.try_acquire():
            self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._fd >= 0:
            files.close_quietly(self._fd)  # Linux releases the lock even if close() fails
            self._fd = -1

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free now and nobody waits for it. Raises TaoprofError if it cannot be created."""
        fd = self._open()
        with suppress(OSError):  # held, or a file system that answers oddly: ``_wait`` finds out
            if not _is_waited_for(os.fstat(fd)):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if files.has_name(fd, self._path):  # a lock on a deleted file excludes nobody
                    self._set_acquired(fd)
                    return True
        files.close_quietly(fd)
        return False

    def _open(self) -> int:
        files.make_folder(os.path.dirname(self._path))
        with errors_as("open the lock", self._path):
            return os.open(self._path, _OPEN | os.O_CREAT, PRIVATE)

    def _set_acquired(self, fd: int) -> None:
        status = os.fstat(fd)
        if status.st_mode & 0o777 != PRIVATE:
            os.fchmod(fd, PRIVATE)  # the umask may have removed bits
        if status.st_size == 0:
            os.utime(fd, (0, 0))  # a new file: nobody has waited
            files.give_to_owner(fd, os.path.dirname(self._path))
        self._fd = fd
        note = f"pid {os.getpid()} on {os.uname().nodename}"
        with suppress(OSError):  # a full disk: the note is for messages only
            os.pwrite(fd, f"{note[:78]:<79}\n".encode(), 0)  # of one length, so that it covers the note before

    def _wait(self) -> None:
        # By a descriptor: given a path, filelock would create the folders of a home that has just been moved away.
        from filelock import lock_descriptor

        while self._fd < 0:
            fd = self._open()
            try:
                with errors_as("lock", self._path):
                    while files.has_name(fd, self._path):  # else the state folder has been removed or moved away
                        self._check_timeout()
                        with suppress(OSError):
                            os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))
                        time.sleep(_PAUSE)
                        if lock_descriptor(fd, blocking=False):
                            if files.has_name(fd, self._path):
                                self._set_acquired(fd)
                            break
            finally:
                if self._fd != fd:
                    files.close_quietly(fd)

    def _check_timeout(self) -> None:
        """Raise BusyError if one holder has had the lock for the timeout."""
        holder = (files.read(self._path, 1 << 16) or b"").partition(b"\n")[0].strip()
        # In pauses, not by the clock: the time for which this process or the machine is stopped does not count.
        self._waited = self._waited + _PAUSE if holder == self._holder else 0.0
        self._holder = holder
        if self._waited >= self._timeout:
            raise BusyError(
                f"cannot get the lock: another taoprof command ({holder.decode('utf-8', 'replace') or 'a process'}) "
                f"has held it for {self._timeout:g} s",
                hint="run the command again",
            )


@contextmanager
def lock_if_free(path: str) -> Iterator[bool]:
    """Take the lock if it is free, and yield whether that succeeded; in a home that is read-only it does not."""
    lock, has_lock = Lock(path), False
    with suppress(TaoprofError):
        has_lock = lock.try_acquire()
    try:
        yield has_lock
    finally:
        lock.release()


def _is_waited_for(status: os.stat_result) -> bool:
    """Check whether somebody waits for the lock, or has a moment ago; an empty lock file is new."""
    return status.st_size > 0 and abs(time.time_ns() - status.st_atime_ns) < _FRESH_NS


class DirectoryLock:
    """Excludes other taoprof processes, also those with another state folder, from the temporary names in a folder.

    It is a lock on the folder itself and needs no file; ``is_held`` tells whether it was got in time.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = -1
        self.is_held = True

    def __enter__(self) -> DirectoryLock:
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        end = time.monotonic() + _FOLDER_TIMEOUT
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.is_held = time.monotonic() <= end
                if self.is_held:
                    time.sleep(0.002)
                    continue
            except OSError:
                pass  # NFS cannot lock a folder that is open for reading only; ``Lock`` still excludes the others
            return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # closing it is enough
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        files.close_quietly(self._fd)

    def sync(self) -> None:
        """Make the names in the folder durable. Raises OSError."""
        os.fsync(self._fd)


class LivenessLock:
    """A file that is locked as long as any process has its descriptor open: proof that this process is alive.

    A process that inherits the descriptor keeps the lock when its parent has died.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def acquire(self) -> int:
        """Create the file, lock it and return the descriptor. Raises TaoprofError, also if the file exists."""
        with errors_as("lock", self.path):
            return self._open_locked(os.O_CREAT | os.O_EXCL)

    def try_acquire(self) -> int | None:
        """Lock the file, which may exist, and return the descriptor; None if it is locked. Raises TaoprofError."""
        with errors_as("lock", self.path), suppress(BlockingIOError):
            return self._open_locked(os.O_CREAT)
        return None

    def try_inherit(self) -> int | None:
        """Lock a file that a process has left and return the descriptor; None if it is locked or does not exist."""
        try:
            fd = self._open_locked(0)
        except OSError:
            return None
        if files.has_name(fd, self.path):
            return fd
        os.close(fd)
        return None

    def _open_locked(self, flags: int) -> int:
        fd = os.open(self.path, _OPEN | flags, PRIVATE)
        try:
            if flags & os.O_EXCL:
                os.fchmod(fd, PRIVATE)  # the umask may have removed bits
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd

    def is_held(self) -> bool:
        """Check whether some process holds the lock. Raises TaoprofError.

        It tries a shared lock, so that several processes can ask at the same time. ``acquire`` has locked the file
        before anyone else can know of it, and is never disturbed by this.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with errors_as("read", self.path), suppress(FileNotFoundError), files.opened(self.path, flags) as fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def heartbeat(self) -> None:
        """Set the file's time to now, which other hosts see; errors are ignored."""
        with suppress(OSError):
            os.utime(self.path)


def any_held(folder: str) -> bool:
    """Check whether some process holds one of the liveness locks (``*.claim``) in a folder. Raises TaoprofError."""
    names = [name for name in files.names_in(folder) if name.endswith(".claim")]
    return any(LivenessLock(os.path.join(folder, name)).is_held() for name in names)


def is_orphaned(path: str, folder: str) -> bool:
    """Check whether the file ``path`` exists although no liveness lock in ``folder`` is held: its writer was killed.

    Raises TaoprofError.
    """
    return files.exists(path) and not any_held(folder)
