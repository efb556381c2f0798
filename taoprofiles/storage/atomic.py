"""The steps of a replacement (``files.replace``): the new file beside the old one, a second name, the way back.

All of it raises OSError as it comes, and InvalidStateError for what is no file.
"""

from __future__ import annotations

import errno
import os
import stat

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.storage.os_errors import kind

PRIVATE = 0o600

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""What a file system without hard links answers."""


class Rights:
    """Whose a file is, and its mode: what ``replace`` keeps of it."""

    __slots__ = ("st_gid", "st_mode", "st_uid")

    def __init__(self, mode: int, uid: int, gid: int) -> None:
        self.st_mode, self.st_uid, self.st_gid = mode, uid, gid


def beside(target: str) -> tuple[str, str]:
    """Give the names beside a file where its successor is written, and where it is kept while it is replaced."""
    folder = os.path.dirname(target)
    return os.path.join(folder, ".taoprof-new"), os.path.join(folder, ".taoprof-old")


def status(target: str, *, may_be_link: bool = False) -> os.stat_result | None:
    """Give what stands at ``target``, None for nothing. Raises InvalidStateError for what is neither file nor link."""
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode) and may_be_link:
        return status
    if stat.S_ISLNK(status.st_mode):  # realpath leaves a link only where it goes round in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidStateError(f"'{target}' is {kind(status.st_mode)}, not a file")
    return status


def write_fresh(fresh: str, data: bytes, old: os.stat_result | Rights | None) -> None:
    """Write a file that was not there, durably, with the rights of ``old``; 0600 without one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(fresh, flags, PRIVATE)
    try:
        mode = PRIVATE
        if old is not None:
            mode = stat.S_IMODE(old.st_mode)
            mine = os.fstat(fd)
            if old.st_uid != mine.st_uid:
                _keep_owner(fd, old, fresh)
            if old.st_gid != mine.st_gid:
                try:
                    os.fchown(fd, -1, old.st_gid)
                except PermissionError:
                    mode &= ~stat.S_IRWXG  # a group that we are not in: ours must not get its rights
        os.fchmod(fd, mode)  # a mode given to open() loses the bits of the umask
        write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def _keep_owner(fd: int, old: os.stat_result | Rights, fresh: str) -> None:
    try:
        os.fchown(fd, old.st_uid, -1)
    except PermissionError:
        raise TaoprofError(
            f"the file to replace in '{os.path.dirname(fresh)}' belongs to user id {old.st_uid}, and only root can "
            "keep it so",
            hint="'sudo chown $USER FILE' makes it yours",
        ) from None


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` from ``offset`` on, however many calls it takes. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def appear(fresh: str, target: str) -> None:
    """Give a new file or symlink its name, but not in the place of one that another program has made meanwhile."""
    try:
        os.link(fresh, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(fresh, target)
    else:
        unlink_quietly(fresh)  # the file stands: a second name that stays is taken away by the next change


def keep(target: str, kept: str, old: os.stat_result) -> None:
    """Give the old file a second name."""
    # What somebody wrote into the old file after we read it can still be seen after the rename, and an error later on
    # can bring back the very file. File systems without hard links get a copy.
    try:
        os.link(target, kept, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open(target, "rb") as file:
            write_fresh(kept, file.read(), old)


def put_back(kept: str, target: str, *, existed: bool) -> None:
    """Bring back the file that was kept, or take the new one away where there was none; no error stops the way back."""
    try:
        if existed:
            os.replace(kept, target)
        else:
            os.unlink(target)
    except OSError:
        pass


def unlink(path: str) -> None:
    """Take a name away, if it is there. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def unlink_quietly(path: str) -> None:
    """Take a file away; no error stops the work."""
    try:
        os.unlink(path)
    except OSError:
        pass
