"""Atomic, durable replacement of a file: temporary file in the folder, fsync, exchange of names, fsync of the folder.

The caller holds the lock (``locks.Lock``), so that the temporary files have fixed names: what a killed process left is
found by the next one, and nothing piles up in the home.

The new file and the old one exchange their names in one step, so that whatever another program renames into the place,
or writes, is still there to be read. Where the file system cannot do that (NFS), the old file gets a second name first;
where it has no hard links either, it is copied.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.storage import files
from taoprofiles.storage.files import PRIVATE, errors_as, file_type, unlink_quietly
from taoprofiles.storage.locks import DirectoryLock

OnReplaced = Callable[[int | None], None]
"""Called with a descriptor of the file that was replaced or deleted, None if there was none."""

TEMPORARY = _NEW, _OLD = ".taoprof-new", ".taoprof-old"
"""How the names of temporary files and of backups begin."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""Error numbers of file systems without hard links."""

_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.ENXIO)
"""Error numbers of a symlink with nothing behind it that can be stored. After a disk's error (EIO) there may be."""

KEEP_LINK = ""
"""The ``link`` of a file that may be a symlink or not: it stays what it is."""


class FileAttributes(NamedTuple):
    """The mode and owner that a file is replaced with; the names are those of ``os.stat_result``."""

    st_mode: int
    st_uid: int
    st_gid: int


def replace(
    path: str,
    data: bytes,
    *,
    on_replaced: OnReplaced | None = None,
    attributes: FileAttributes | None = None,
    link: str | None = KEEP_LINK,
    keep: bool = False,
) -> None:
    """Replace the content of ``path`` by ``data``: a reader finds the old or the new content and nothing in between.

    The target of a symlink is replaced. The mode and owner of an existing file are kept, a new file gets 0600 whatever
    the umask; ``attributes`` overrides both. ``link`` is the target that the symlink ``path`` must have (None: ``path``
    must not be a symlink); if it has another one, ``path`` itself is replaced, by that symlink or by the file.
    ``on_replaced`` is called after the replacement; after an error, also one that it raises, the old file is back. With
    ``keep`` the replaced files stay for ``collect_replaced``: another program may still be writing into them.

    Raises TaoprofError.
    """

    def report_link(fd: int | None) -> None:
        if fd is not None and on_replaced is not None:
            on_replaced(fd)

    def swap(target: str) -> None:
        _swap(
            target,
            lambda temporary, old: _write_new(temporary, data, attributes or old),
            on_replaced,
            may_be_link=link is None,
            keep=keep,
        )

    with errors_as("write", path):
        if link and link != files.link_target(path):
            _swap(path, lambda temporary, _: os.symlink(link, temporary), report_link, may_be_link=True, keep=keep)
        if link is None:
            swap(path)
        else:  # not through ``path`` if the link is known: it may be replaced now, and another file be overwritten
            _at_target(os.path.join(os.path.dirname(path), link) if link else path, swap)


def _swap(
    target: str,
    create: Callable[[str, os.stat_result | None], None],
    on_replaced: OnReplaced | None,
    *,
    may_be_link: bool,
    keep: bool,
) -> None:
    """Replace ``target`` by the file that ``create`` makes, or roll back. Raises OSError."""
    replaced, fd, new = False, None, None
    with DirectoryLock(os.path.dirname(target)) as lock:
        temporary, backup = _free_names(target, is_locked=lock.is_held, keep=keep)
        try:
            old = _stat(target, may_be_link=may_be_link)
            create(temporary, old)
            new = os.lstat(temporary)
            if old is None:
                # A link, since another program may have created the file since: it is never overwritten unread.
                if not _try_link(temporary, target):
                    os.replace(temporary, target)
                else:
                    unlink_quietly(temporary)  # if that fails, the next change deletes it
                replaced = True
            else:
                os.rename(temporary, backup)  # so that this name has the whole new file or the old one, never a part
                replaced = exchange(backup, target)
                if replaced:
                    _stat(backup, may_be_link=may_be_link)  # a folder or a symlink may have just got that name
                else:
                    os.rename(backup, temporary)
                    if not _try_link(target, backup):
                        fd = _open(target)
                        with open(target, "rb") as file:
                            _write_new(backup, file.read(), old)
                    os.replace(temporary, target)
                    replaced = True
                fd = _open(backup) if fd is None else fd
            lock.sync()
            if on_replaced is not None:
                on_replaced(fd)
        except BaseException:
            unlink_quietly(temporary)
            if not replaced or _roll_back(backup, target, new, existed=old is not None):
                unlink_quietly(backup)
            raise
        finally:
            files.close_quietly(fd)
        if not keep:
            unlink_quietly(backup)


def delete(path: str, *, on_deleted: OnReplaced | None = None) -> None:
    """Delete the file ``path`` durably; the target of a symlink, not the symlink.

    After an error, also one that ``on_deleted`` raises, the file is back. It stays for ``collect_replaced``. Raises
    TaoprofError.
    """
    with errors_as("remove", path):
        _at_target(path, lambda target: _delete(target, on_deleted))


def _delete(target: str, on_deleted: OnReplaced | None) -> None:
    with DirectoryLock(os.path.dirname(target)) as lock:
        _, backup = _free_names(target, is_locked=lock.is_held, keep=True)
        if _stat(target) is None:
            return
        os.rename(target, backup)
        fd = None
        try:
            _stat(backup)
            fd = _open(backup)
            lock.sync()
            if on_deleted is not None:
                on_deleted(fd)
        except BaseException:
            _roll_back(backup, target, None, existed=True)
            raise
        finally:
            files.close_quietly(fd)


def _at_target(path: str, change: Callable[[str], None]) -> None:
    """Change the file behind ``path``; again, if another program has just created, removed or linked it elsewhere."""
    for attempts_left in reversed(range(10)):
        try:
            change(files.real_path(path))
            break
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EEXIST, errno.ENOENT) or not attempts_left:
                raise


def collect_replaced(path: str, is_over: Callable[[int], bool]) -> None:
    """Call ``is_over`` with each file that changes of ``path`` have replaced, and delete the file if it returns True.

    Also if these changes were killed, whose temporary files are deleted. Needs the lock. Raises TaoprofError if a file
    cannot be read.
    """
    for folder in dict.fromkeys(map(os.path.dirname, (path, files.real_path(path)))):
        if not _leftovers(folder):
            continue
        with DirectoryLock(folder) as lock:
            # Without it, they may belong to a process with another state folder, which has not finished.
            for name in sorted(_leftovers(folder), reverse=True) if lock.is_held else ():  # the backups first
                leftover = os.path.join(folder, name)
                if name.startswith(_NEW) or (_is_own(leftover, path) and _is_read(leftover, is_over)):
                    unlink_quietly(leftover)
                elif name == _OLD:
                    with suppress(OSError):  # another user's: the next change avoids its name
                        _set_aside(leftover)


def _leftovers(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.startswith((_NEW, _OLD))]
    except OSError:
        return []


def _is_own(leftover: str, path: str) -> bool:
    """Check whether it is there and ours: another user may have made it, in a folder that several can write.

    Raises TaoprofError.
    """
    with errors_as("access", leftover), suppress(FileNotFoundError):
        now = files.stat_or_none(path)
        return os.lstat(leftover).st_uid in (os.geteuid(), now.st_uid if now else -1)
    return False


def _is_read(leftover: str, is_over: Callable[[int], bool]) -> bool:
    """Return what ``is_over`` returns; True for a symlink that leads to no file that can be read."""
    fd = None
    with errors_as("read", leftover):
        try:
            fd = _open(leftover)
            return True if fd is None else is_over(fd)
        except InvalidStateError:
            return os.path.islink(leftover)  # else it has more bytes than any mapping file
        finally:
            files.close_quietly(fd)


def read_backup(path: str) -> bytes | None:
    """Return the content of the backup that a killed ``replace`` or ``delete`` has left beside ``path``.

    It is that of the replaced file, or the new one if the two have not exchanged their names. None if there is no
    backup, or the temporary file is there too. Raises TaoprofError if it cannot be read.
    """
    temporary, backup = _sibling_names(files.real_path(path))
    if files.exists(temporary) or not _is_own(backup, path):
        return None
    return files.read(backup, 1 << 24)


def _sibling_names(target: str, suffix: str = "") -> tuple[str, str]:
    """Return the paths, in the same folder, of the temporary file and of the backup while a file is replaced."""
    folder = os.path.dirname(target)
    return os.path.join(folder, _NEW + suffix), os.path.join(folder, _OLD + suffix)


def _unique_suffix() -> str:
    return f"-{os.getpid()}-{os.urandom(4).hex()}"


def _set_aside(backup: str) -> None:
    """Rename a replaced file, so that the next change can use its usual name. Raises OSError.

    Of a replaced symlink, the file that it leads to gets one: that file may be deleted before it is read. But not if
    another user made the symlink, in a folder such as /tmp: it may lead to any file of ours.
    """
    name = backup + _unique_suffix()
    if os.path.islink(backup):
        with suppress(OSError):  # another file system, or another user's file
            real = os.path.realpath(backup)
            if os.lstat(backup).st_uid == os.stat(real).st_uid:
                os.link(real, name)
                os.unlink(backup)
                return
    os.rename(backup, name)


def _free_names(target: str, *, is_locked: bool, keep: bool) -> tuple[str, str]:
    """Return names for the temporary file and the backup, and free them of what is there. Raises OSError.

    With ``keep`` a backup gets another name, else it is deleted. The usual names are avoided while another program has
    the folder locked, and if they belong to another user, whose files in a folder such as /tmp cannot be deleted:
    nobody else can prevent a change.
    """
    usual = [_sibling_names(target)] if is_locked else []
    names = _sibling_names(target)
    for names in (*usual, _sibling_names(target, _unique_suffix())):
        try:
            with suppress(FileNotFoundError):
                os.unlink(names[0])
            with suppress(FileNotFoundError):
                (_set_aside if keep else os.unlink)(names[1])
            break
        except (PermissionError, IsADirectoryError):
            continue
    return names


def _stat(target: str, *, may_be_link: bool = False) -> os.stat_result | None:
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode) and may_be_link:
        return status
    if stat.S_ISLNK(status.st_mode):  # realpath leaves a symlink only in a cycle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidStateError(f"'{target}' is {file_type(status.st_mode)}, not a file")
    return status


def _write_new(path: str, data: bytes, attributes: os.stat_result | FileAttributes | None) -> None:
    """Create a file durably, with these attributes; 0600 without any."""
    with files.opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) as fd:
        mode = PRIVATE
        if attributes is not None:
            mode = stat.S_IMODE(attributes.st_mode)
            own = os.fstat(fd)
            if attributes.st_uid != own.st_uid:
                try:
                    os.fchown(fd, attributes.st_uid, -1)
                except PermissionError:
                    raise TaoprofError(
                        f"the file to replace in '{os.path.dirname(path)}' belongs to user id {attributes.st_uid}, and "
                        "only root can preserve that owner",
                        hint="to make it yours: sudo chown $USER FILE",
                    ) from None
            if attributes.st_gid != own.st_gid:
                try:
                    os.fchown(fd, -1, attributes.st_gid)
                except PermissionError:
                    mode &= ~stat.S_IRWXG  # we are not in that group, and ours must not get its rights
        else:
            files.give_to_owner(fd, os.path.dirname(path))
        os.fchmod(fd, mode)  # open() applies the umask to its mode
        files.write_all(fd, data, 0)
        os.fsync(fd)


def _try_link(path: str, name: str) -> bool:
    """Link a second name to a file; return False if the file system has no hard links. Raises OSError."""
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def exchange(path: str, other: str) -> bool:
    """Exchange the names of two files in one step, durably only after a flush; return False if that is not possible.

    It is possible on ext4, XFS, Btrfs, tmpfs, overlayfs and ZFS 2.2, and not on NFS and CIFS.
    """
    try:
        import ctypes  # not for 'list'

        renameat2 = ctypes.CDLL(None).renameat2
    except (ImportError, AttributeError, MemoryError, OSError):
        return False  # a Python without libffi, a C library without the function
    done: int = renameat2(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def _open(path: str) -> int | None:
    """Open a file for reading, also through a symlink; None if that leads to none that we may read. Raises OSError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE or not os.path.islink(path):
            raise
        return None


def _roll_back(backup: str, target: str, new: os.stat_result | None, *, existed: bool) -> bool:
    """Undo the replacement by the file ``new``; return whether ``backup`` is that file, and nobody has written it."""
    try:
        if not existed:
            os.rename(target, backup)
        elif not exchange(backup, target):
            os.replace(backup, target)
        now = os.lstat(backup)
    except OSError:  # the error that led here is raised
        return False
    return new is not None and (now.st_ino, now.st_size, now.st_mtime_ns) == (new.st_ino, new.st_size, new.st_mtime_ns)
