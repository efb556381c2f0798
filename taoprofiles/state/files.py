"""The only module that writes files: whole replacements that survive a power cut, appends, and private folders.

Everything here expects the caller to hold the lock (``locks.py``), so a temporary file has one fixed name beside its
target: what a killed process left behind is taken away by the next one, and nothing piles up in the home.
"""

from __future__ import annotations

import errno
import os
import stat

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.state.refusals import kind, unusable
from taoprofiles.state.turns import Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PRIVATE = 0o600


def read(path: str, limit: int) -> bytes | None:
    """Read the regular file at ``path``, at most ``limit`` bytes; None where there is none.

    Raises InvalidStateError for anything else that may stand there. A FIFO or a device is never waited for.
    """
    try:
        # O_NONBLOCK: opening a FIFO without a writer would otherwise never return.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidStateError(f"'{path}' is {kind(status.st_mode)}, not a file")
            if status.st_size > limit:
                raise InvalidStateError(f"'{path}' has {status.st_size} bytes; at most {limit} are read")
            chunks = []
            while chunk := os.read(fd, 1 << 20):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(path, "read", error) from error


def replace(
    path: str,
    data: bytes,
    *,
    placed: Callable[[bytes | None], None] | None = None,
    mode: int | None = None,
    link: str | None = "",
) -> None:
    """Make ``data`` the content of ``path``, so that a reader finds the old or the new content and nothing between.

    A symlink stays one: its target is replaced. The mode and owner of an existing file are kept, a new file is 0600
    whatever the umask. With ``mode`` the file is our own and has that one, whatever is there. ``link`` is what the
    symlink must name for its target to be replaced (None: there must be none); another one is itself replaced, by that
    symlink or by the file. ``placed`` is called once the new file stands, with what the file held when it was replaced.
    On an error, also one that ``placed`` raises, the old file is back.

    Raises TaoprofError with what could not be done and why.
    """
    if link and link != link_of(path):
        _relink(path, link)
    target = os.path.realpath(path) if link is not None else path
    fresh, kept = _beside(target)
    renamed = False
    try:
        with Turn(os.path.dirname(target)) as turn:
            try:
                old = _status(target, may_be_link=link is None)
                _unlink(fresh)
                _unlink(kept)
                _write_fresh(fresh, data, old, mode)
                if old is not None:
                    _keep(target, kept, old)
                os.replace(fresh, target)
                renamed = True
                turn.sync()
                if placed is not None:
                    placed(None if old is None else read(kept, 1 << 30))
            except BaseException:
                if renamed:
                    _put_back(kept, target, existed=old is not None)
                else:
                    unlink_quietly(fresh)
                unlink_quietly(kept)
                raise
            unlink_quietly(kept)
    except OSError as error:
        raise unusable(path, "write", error) from error


def link_of(path: str) -> str | None:
    """Give what the symlink ``path`` names, None where it is none."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _relink(path: str, link: str) -> None:
    fresh, _ = _beside(path)
    try:
        with Turn(os.path.dirname(path)) as turn:
            _unlink(fresh)
            os.symlink(link, fresh)
            os.replace(fresh, path)
            turn.sync()
    except OSError as error:
        raise unusable(path, "write", error) from error


def take_away(path: str, *, taken: Callable[[bytes | None], None] | None = None) -> None:
    """Take the file at ``path`` away, durably; a symlink's target, not the symlink.

    ``taken`` is called with what the file held; on an error, also one that it raises, the file is back.
    """
    target = os.path.realpath(path)
    _, kept = _beside(target)
    try:
        with Turn(os.path.dirname(target)) as turn:
            if _status(target) is None:
                return
            os.replace(target, kept)
            try:
                turn.sync()
                if taken is not None:
                    taken(read(kept, 1 << 30))
            except BaseException:
                _put_back(kept, target, existed=True)
                raise
            unlink_quietly(kept)
    except OSError as error:
        raise unusable(path, "remove", error) from error


def left_behind(path: str) -> bytes | None:
    """Give what ``path`` held when a killed ``replace`` or ``take_away`` replaced it, if that is still to be had."""
    _, kept = _beside(os.path.realpath(path))
    try:
        return read(kept, 1 << 24)
    except TaoprofError:
        return None


def clear_left_behind(path: str) -> None:
    """Take away what a killed ``replace`` or ``take_away`` left beside ``path``. Needs the lock."""
    for name in _beside(os.path.realpath(path)):
        unlink_quietly(name)


def remove(path: str) -> None:
    """Take the name ``path`` away, durably; of a symlink, only the symlink. Raises TaoprofError."""
    try:
        _unlink(path)
        _sync_folder(os.path.dirname(path))
    except OSError as error:
        raise unusable(path, "remove", error) from error


def rename(path: str, to: str) -> None:
    """Give a file another name in the same folder, durably. The caller has made sure that ``to`` is free."""
    try:
        os.rename(path, to)
        _sync_folder(os.path.dirname(to))
    except OSError as error:
        raise unusable(path, "rename", error) from error


def append(path: str, data: bytes) -> int:
    """Add whole lines to the end of ``path``, durably, and return the size it had before, for ``cut``.

    A torn last line, left by a power cut, is ended first. On an error the file is as it was. Raises TaoprofError.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            size = os.fstat(fd).st_size
            if size == 0:
                os.fchmod(fd, PRIVATE)  # the umask may have taken bits away
            elif os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                write_all(fd, data, size)
                os.fsync(fd)
            except BaseException:
                os.ftruncate(fd, size)
                raise
            return size
        finally:
            os.close(fd)
    except OSError as error:
        raise unusable(path, "write", error) from error


def cut(path: str, size: int) -> None:
    """Take back an ``append``, as far as that is possible; what cannot be cut is told apart by its readers."""
    try:
        os.truncate(path, size)
    except OSError:
        pass


def change_mode(path: str, mode: int) -> None:
    """Give the file at ``path``, or the one that a symlink there leads to, other rights. Raises TaoprofError."""
    try:
        os.chmod(path, mode)
    except OSError as error:
        raise unusable(path, "change the mode of", error) from error


def make_folder(path: str) -> None:
    """Make the folder ``path`` and those above it, for this user alone (0700). Raises TaoprofError."""
    if os.path.isdir(path):
        return
    try:
        parent = os.path.dirname(path)
        if parent != path:
            make_folder(parent)
        try:
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)  # the umask may have taken bits away
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    except OSError as error:
        raise unusable(path, "make the folder", error) from error


def _beside(target: str) -> tuple[str, str]:
    folder = os.path.dirname(target)
    return os.path.join(folder, ".taoprof-new"), os.path.join(folder, ".taoprof-old")


def _status(target: str, *, may_be_link: bool = False) -> os.stat_result | None:
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


def _write_fresh(fresh: str, data: bytes, old: os.stat_result | None, wanted: int | None = None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(fresh, flags, PRIVATE)
    try:
        mode = PRIVATE if wanted is None else wanted
        if old is not None and wanted is None:
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


def _keep_owner(fd: int, old: os.stat_result, fresh: str) -> None:
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


def _keep(target: str, kept: str, old: os.stat_result) -> None:
    # A second name for the old inode: what somebody wrote into it after we read it can still be seen after the
    # rename, and an error later on can bring back the very file. File systems without hard links get a copy.
    try:
        os.link(target, kept, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            raise
        content = read(target, 1 << 30)
        if content is not None:
            _write_fresh(kept, content, old)


def _put_back(kept: str, target: str, *, existed: bool) -> None:
    try:
        if existed:
            os.replace(kept, target)
        else:
            os.unlink(target)
    except OSError:
        pass


def _unlink(path: str) -> None:
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


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
