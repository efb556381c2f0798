"""Atomic, durable replacement of a file: temporary file in the same folder, fsync, rename, fsync of the folder.

The caller holds the lock (``locks.Lock``), so that the temporary file has one fixed name: what a killed process left is
deleted by the next one, and nothing piles up in the home.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.storage import files
from taoprofiles.storage.best_effort import unlink_quietly
from taoprofiles.storage.files import PRIVATE, file_type, to_taoprof_error
from taoprofiles.storage.locks import DirectoryLock

OnReplaced = Callable[[bytes | None], None]

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""Error numbers of file systems without hard links."""


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
    displaced: list[int] | None = None,
) -> None:
    """Replace the content of ``path`` by ``data``: a reader finds the old or the new content and nothing in between.

    The target of a symlink is replaced. The mode and owner of an existing file are kept, a new file gets 0600 whatever
    the umask; ``attributes`` overrides both. ``link`` is the target that the symlink ``path`` must have (None: ``path``
    must not be a symlink); if it has another one, ``path`` itself is replaced, by that symlink or by the file.
    ``on_replaced`` is called after the rename, with the content that the file had at that moment. After an error, also
    one that it raises, the old file is back. To ``displaced`` a descriptor of each file that was replaced is added:
    another program may still be writing into it.

    Raises TaoprofError.
    """

    def report_link(content: bytes | None) -> None:
        if content is not None and on_replaced is not None:
            on_replaced(content)

    def swap(target: str) -> None:
        _swap(
            target,
            lambda temporary, old: _write_new(temporary, data, attributes or old),
            on_replaced,
            displaced,
            may_be_link=link is None,
        )

    try:
        if link and link != files.link_target(path):
            _swap(path, lambda temporary, _: os.symlink(link, temporary), report_link, displaced, may_be_link=True)
        if link is None:
            swap(path)
        else:  # not through ``path`` if the link is known: it may be replaced now, and another file be overwritten
            _at_target(os.path.join(os.path.dirname(path), link) if link else path, swap)
    except OSError as error:
        raise to_taoprof_error(path, "write", error) from error


def _swap(
    target: str,
    create: Callable[[str, os.stat_result | None], None],
    on_replaced: OnReplaced | None,
    displaced: list[int] | None,
    *,
    may_be_link: bool,
) -> None:
    """Replace ``target`` by the file that ``create`` makes, or roll back. Raises OSError."""
    replaced = False
    with DirectoryLock(os.path.dirname(target)) as lock:
        temporary, backup = _free_names(target, is_locked=lock.is_held)
        try:
            old = _stat(target, may_be_link=may_be_link)
            create(temporary, old)
            if old is None:
                # A link, since another program may have created the file since: it is never overwritten unread.
                if not _try_link(temporary, target):
                    os.replace(temporary, target)
                else:
                    unlink_quietly(temporary)  # if that fails, the next change deletes it
            else:
                # A second name of the old file, so that an error can bring back this very file, and that what another
                # program writes into it after we have read it can be seen after the rename.
                is_linked = _try_link(target, backup)
                if displaced is not None:
                    with suppress(OSError):
                        # Also through a symlink that has been swapped: the program may be writing into its target.
                        name = backup if is_linked else target
                        displaced.append(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                if not is_linked:
                    with open(target, "rb") as file:
                        _write_new(backup, file.read(), old)
                os.replace(temporary, target)
            replaced = True
            lock.sync()
            if on_replaced is not None:
                on_replaced(None if old is None else files.read(backup, 1 << 30))
        except BaseException:
            if replaced:
                _roll_back(backup, target, existed=old is not None)
            else:
                unlink_quietly(temporary)
            unlink_quietly(backup)
            raise
        unlink_quietly(backup)


def delete(path: str, *, on_deleted: OnReplaced | None = None) -> None:
    """Delete the file ``path`` durably; the target of a symlink, not the symlink.

    ``on_deleted`` gets the content that the file had; after an error, also one that it raises, the file is back.
    Raises TaoprofError.
    """
    try:
        _at_target(path, lambda target: _delete(target, on_deleted))
    except OSError as error:
        raise to_taoprof_error(path, "remove", error) from error


def _delete(target: str, on_deleted: OnReplaced | None) -> None:
    with DirectoryLock(os.path.dirname(target)) as lock:
        _, backup = _free_names(target, is_locked=lock.is_held)
        if _stat(target) is None:
            return
        os.replace(target, backup)
        try:
            lock.sync()
            if on_deleted is not None:
                on_deleted(files.read(backup, 1 << 30))
        except BaseException:
            _roll_back(backup, target, existed=True)
            raise
        unlink_quietly(backup)


def _at_target(path: str, change: Callable[[str], None]) -> None:
    """Change the file behind ``path``; again, if another program has just created, removed or linked it elsewhere."""
    for attempts_left in reversed(range(10)):
        try:
            change(files.real_path(path))
            break
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EEXIST, errno.ENOENT) or not attempts_left:
                raise


def read_backup(path: str) -> bytes | None:
    """Return the content that ``path`` had when a killed ``replace`` or ``delete`` replaced it, if it is there.

    Raises TaoprofError if it is there and cannot be read: the next change would delete it.
    """
    target = files.real_path(path)
    _, backup = _sibling_names(target)
    try:
        old, now = os.lstat(backup), _stat(target)
        if old.st_uid not in (os.geteuid(), now.st_uid if now else -1):
            return None  # another user has made it, in a folder of both
        return files.read(backup, 1 << 24)
    except (FileNotFoundError, InvalidStateError):
        return None
    except OSError as error:
        raise to_taoprof_error(backup, "read", error) from error


def was_replaced(path: str) -> bool:
    """Check whether a killed ``replace`` or ``delete`` left traces of having replaced ``path``."""
    temporary, backup = _sibling_names(files.real_path(path))
    return os.path.lexists(backup) and not os.path.lexists(temporary)


def remove_leftovers(path: str) -> None:
    """Delete the files that a killed ``replace`` or ``delete`` left next to ``path``. Needs the lock."""
    for name in _sibling_names(files.real_path(path)):
        unlink_quietly(name)


def _sibling_names(target: str, suffix: str = "") -> tuple[str, str]:
    """Return the paths, in the same folder, of the temporary file and of the backup while a file is replaced."""
    folder = os.path.dirname(target)
    return os.path.join(folder, f".taoprof-new{suffix}"), os.path.join(folder, f".taoprof-old{suffix}")


def _free_names(target: str, *, is_locked: bool) -> tuple[str, str]:
    """Return names for the temporary file and the backup, and delete what a killed process left there. Raises OSError.

    The usual names are avoided while another program has the folder locked, and if they belong to another user,
    whose files in a folder such as /tmp cannot be deleted: nobody else can prevent a change.
    """
    usual = [_sibling_names(target)] if is_locked else []
    names = _sibling_names(target)
    for names in (*usual, _sibling_names(target, f"-{os.getpid()}-{os.urandom(4).hex()}")):
        try:
            for leftover in names:
                with suppress(FileNotFoundError):
                    os.unlink(leftover)
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
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    try:
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
        os.fchmod(fd, mode)  # open() applies the umask to its mode
        files.write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def _try_link(path: str, name: str) -> bool:
    """Link a second name to a file; return False if the file system has no hard links. Raises OSError."""
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _roll_back(backup: str, target: str, *, existed: bool) -> None:
    with suppress(OSError):  # the error that led here is raised
        if existed:
            os.replace(backup, target)
        else:
            os.unlink(target)
