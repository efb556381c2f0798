"""Kernel locks (flock), which end with their holder and are never stale.

``Lock`` is the lock under which every change is made; a free lock costs one system call, while importing filelock costs
45 ms, so filelock takes the very same kernel lock only where it has to be waited for. ``DirectoryLock`` protects the
temporary names in a folder. ``LivenessLock`` proves that the process which holds it, or one that inherited it, lives.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress

from taoprofiles.errors import BusyError
from taoprofiles.storage import files
from taoprofiles.storage.files import PRIVATE, to_taoprof_error

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for the lock. A change holds it for milliseconds; 64 concurrent ones take about a second."""

_PAUSE = 0.005
"""Seconds between two tries to get a lock that is held."""

_SUSPENDED = 0.5
"""Seconds between two tries; if more have passed, the machine was suspended, and the lock's holder is not slow."""

_OPEN_OR_CREATE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Lock:
    """``with Lock(path, timeout): …`` excludes every other taoprof process and thread of this home.

    ``timeout`` is in seconds; BusyError names the holder when it has passed. The lock file stays, and says who held the
    lock last.
    """

    def __init__(self, path: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._fd = -1

    def __enter__(self) -> Lock:
        if not self.try_acquire():
            self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._fd >= 0:
            _close(self._fd)  # Linux releases the lock even if close() fails, and the work under it is done
            self._fd = -1

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free now. Raises TaoprofError where the lock file cannot be created."""
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_current(fd):
                self._set_acquired(fd)
                return True
        except OSError:
            pass  # held, or a file system that answers oddly: ``_wait`` finds out
        _close(fd)
        return False

    def _open(self) -> int:
        files.make_folder(os.path.dirname(self._path))
        try:
            return os.open(self._path, _OPEN_OR_CREATE, PRIVATE)
        except OSError as error:
            raise to_taoprof_error(self._path, "open the lock", error) from error

    def _is_current(self, fd: int) -> bool:
        """Check whether the open file still has its name: a lock on a deleted file excludes nobody."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except OSError:
            return False

    def _set_acquired(self, fd: int) -> None:
        if os.fstat(fd).st_mode & 0o777 != PRIVATE:
            os.fchmod(fd, PRIVATE)  # the umask may have removed bits
        self._fd = fd
        self._write_holder()

    def _wait(self) -> None:
        # By a descriptor: given a path, filelock would create the folders of a home that has just been moved away.
        from filelock import lock_descriptor

        waited, last = 0.0, time.monotonic()
        while True:
            fd = self._open()
            try:
                while True:
                    acquired = lock_descriptor(fd, blocking=False)
                    if not self._is_current(fd):
                        break  # the state folder has been removed or moved away
                    if acquired:
                        self._set_acquired(fd)
                        return
                    now = time.monotonic()
                    # While the machine is suspended nobody else releases the lock either: that does not count.
                    waited, last = waited + min(now - last, _SUSPENDED), now
                    if waited >= self._timeout:
                        note = (files.read(self._path, 1 << 16) or b"").decode("utf-8", "replace")
                        holder = note.split("\n")[0].strip() or "a process"
                        raise BusyError(
                            f"another taoprof command is running: {holder} holds the lock, and waiting "
                            f"{self._timeout:g} s was not enough",
                            hint="run the command again",
                        )
                    time.sleep(_PAUSE)
            except OSError as error:
                raise to_taoprof_error(self._path, "lock", error) from error
            finally:
                if self._fd != fd:
                    _close(fd)

    def _write_holder(self) -> None:
        note = f"pid {os.getpid()} on {os.uname().nodename}"
        with suppress(OSError):  # a full disk: the note is for messages only
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, f"{note[:78]:<79}\n".encode(), 0)  # of one length, so that it covers the note before
            finally:
                os.close(fd)


class DirectoryLock:
    """Excludes other taoprof processes, also those with another state folder, from the temporary names in a folder.

    It is a lock on the folder itself and needs no file.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> DirectoryLock:
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
                break  # NFS cannot lock a folder that is open for reading only; ``Lock`` still excludes the others
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # closing it is enough
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        _close(self._fd)

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
        """Create the file, lock it and return the descriptor. Raises TaoprofError, also where the file exists."""
        try:
            return self._open_locked(os.O_EXCL)
        except OSError as error:
            raise to_taoprof_error(self.path, "lock", error) from error

    def try_acquire(self) -> int | None:
        """Lock the file, which may exist, and return the descriptor; None where it is locked. Raises TaoprofError."""
        try:
            return self._open_locked(0)
        except BlockingIOError:
            return None
        except OSError as error:
            raise to_taoprof_error(self.path, "lock", error) from error

    def _open_locked(self, flags: int) -> int:
        fd = os.open(self.path, _OPEN_OR_CREATE | flags, PRIVATE)
        try:
            if flags:
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
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise to_taoprof_error(self.path, "read", error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except OSError:
            return True
        finally:
            os.close(fd)

    def heartbeat(self) -> None:
        """Set the file's time to now, which other hosts see; errors are ignored."""
        with suppress(OSError):
            os.utime(self.path)


def any_held(folder: str) -> bool:
    """Check whether some process holds one of the liveness locks (``*.claim``) in a folder."""
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if name.endswith(".claim")]
        return any(LivenessLock(os.path.join(folder, name)).is_held() for name in names)
    return False


def is_orphaned(path: str, folder: str) -> bool:
    """Check whether the file ``path`` exists although no liveness lock in ``folder`` is held: its writer was killed."""
    return os.path.lexists(path) and not any_held(folder)


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)
