"""Files that are locked for as long as anybody has them open: what a run's processes inherit, and what a waiter has."""

from __future__ import annotations

import fcntl
import os

from taoprofiles.storage.atomic import PRIVATE
from taoprofiles.storage.os_errors import unusable


def claim(path: str) -> int:
    """Make the file ``path`` and lock it for as long as any process has it open; give the descriptor.

    A process that inherits the descriptor goes on holding the lock when we are dead. Raises TaoprofError.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        try:
            os.fchmod(fd, PRIVATE)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd
    except OSError as error:
        raise unusable(path, "lock", error) from error


def take(path: str) -> int | None:
    """Lock a file that stays, making it where it is not there; give the descriptor, None where somebody has the lock.

    Raises TaoprofError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, PRIVATE)
    except OSError as error:
        raise unusable(path, "lock", error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError as error:
        os.close(fd)
        raise unusable(path, "lock", error) from error


def claimed(path: str) -> bool:
    """Whether some process still has what ``claim`` gave.

    It tries a shared lock: the claim was taken before anyone could know of the file, so this can never be in its way,
    and those who ask do not disturb each other.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unusable(path, "read", error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def any_claimed(folder: str) -> bool:
    """Whether some process has one of the claims in a folder."""
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".claim")]
    except OSError:
        return False
    return any(claimed(os.path.join(folder, name)) for name in names)


def is_orphaned(path: str, folder: str) -> bool:
    """Whether the file ``path`` is there although nobody has a claim in ``folder``: who made it was killed."""
    return os.path.lexists(path) and not any_claimed(folder)


def beat(path: str) -> None:
    """Give a file the time of now: the sign of life that other hosts see. An error is no reason to stop the work."""
    try:
        os.utime(path)
    except OSError:
        pass
