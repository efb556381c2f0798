"""The only module that writes files: whole replacements that survive a power cut, appends, and private folders.

Everything here expects the caller to hold the lock (``locks.py``), so a temporary file has one fixed name beside its
target: what a killed process left behind is taken away by the next one, and nothing piles up in the home.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.storage import atomic, homes
from taoprofiles.storage.atomic import Rights
from taoprofiles.storage.directory_lock import Turn
from taoprofiles.storage.os_errors import kind, unusable

if TYPE_CHECKING:
    from collections.abc import Callable


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
    like: Rights | None = None,
    link: str | None = "",
    follow: Callable[[int], None] | None = None,
) -> None:
    """Make ``data`` the content of ``path``, so that a reader finds the old or the new content and nothing between.

    A symlink stays one: its target is replaced. The mode and owner of an existing file are kept, a new file is 0600
    whatever the umask. With ``like`` the file gets those rights, whatever is there. ``link`` is what the
    symlink must name for its target to be replaced (None: there must be none); another one is itself replaced, by that
    symlink or by the file. ``placed`` is called once the new file stands, with what the file held when it was replaced.
    On an error, also one that ``placed`` raises, the old file is back. ``follow`` is given a descriptor of each file
    that was replaced: a program may still be writing it.

    Raises TaoprofError with what could not be done and why.
    """
    if link and link != link_of(path):
        _relink(path, link, placed, follow)
    # Not through ``path`` where the link is known: it may be swapped in this moment, and another file be overwritten.
    target = path if link is None else real(os.path.join(os.path.dirname(path), link) if link else path)
    fresh, kept = atomic.beside(target)
    renamed = False
    try:
        with Turn(os.path.dirname(target)) as turn:
            try:
                old = atomic.status(target, may_be_link=link is None)
                turn.check()
                atomic.unlink(fresh)
                atomic.unlink(kept)
                atomic.write_fresh(fresh, data, like or old)
                if old is not None:
                    atomic.keep(target, kept, old)
                    os.replace(fresh, target)
                else:
                    atomic.appear(fresh, target)
                renamed = True
                _hand_on(kept, follow)
                turn.sync()
                if placed is not None:
                    placed(None if old is None else read(kept, 1 << 30))
            except BaseException:
                if renamed:
                    atomic.put_back(kept, target, existed=old is not None)
                else:
                    atomic.unlink_quietly(fresh)
                atomic.unlink_quietly(kept)
                raise
            atomic.unlink_quietly(kept)
    except OSError as error:
        raise unusable(path, "write", error) from error


def link_of(path: str) -> str | None:
    """Give what the symlink ``path`` names, None where it is none."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _relink(
    path: str, link: str, placed: Callable[[bytes | None], None] | None, follow: Callable[[int], None] | None
) -> None:
    """Make ``path`` that symlink again. What stands there meanwhile, a file or another symlink, is told of as above."""
    fresh, kept = atomic.beside(path)
    try:
        with Turn(os.path.dirname(path)) as turn:
            old = atomic.status(path, may_be_link=True)
            turn.check()
            atomic.unlink(fresh)
            atomic.unlink(kept)
            os.symlink(link, fresh)
            try:
                if old is not None:
                    atomic.keep(path, kept, old)
                    os.replace(fresh, path)
                else:
                    atomic.appear(fresh, path)
            except BaseException:
                for name in (fresh, kept):
                    atomic.unlink_quietly(name)  # else they stay in the home until the next change
                raise
            try:
                _hand_on(kept, follow)
                turn.sync()
                if old is not None and placed is not None:
                    placed(read(kept, 1 << 30))
            except BaseException:
                atomic.put_back(kept, path, existed=old is not None)
                raise
            finally:
                atomic.unlink_quietly(kept)
    except OSError as error:
        raise unusable(path, "write", error) from error


def _hand_on(kept: str, follow: Callable[[int], None] | None) -> None:
    if follow is not None:
        try:
            follow(os.open(kept, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
        except OSError:
            pass  # nothing was there, or a symlink


def real(path: str) -> str:
    """Give what ``os.path.realpath`` does, which fails where a symlink is swapped while it is followed."""
    for _ in range(100):
        try:
            return os.path.realpath(path)
        except OSError:
            continue
    return path


def take_away(path: str, *, taken: Callable[[bytes | None], None] | None = None) -> None:
    """Take the file at ``path`` away, durably; a symlink's target, not the symlink.

    ``taken`` is called with what the file held; on an error, also one that it raises, the file is back.
    """
    target = real(path)
    _, kept = atomic.beside(target)
    try:
        with Turn(os.path.dirname(target)) as turn:
            if atomic.status(target) is None:
                return
            os.replace(target, kept)
            try:
                turn.sync()
                if taken is not None:
                    taken(read(kept, 1 << 30))
            except BaseException:
                atomic.put_back(kept, target, existed=True)
                raise
            atomic.unlink_quietly(kept)
    except OSError as error:
        raise unusable(path, "remove", error) from error


def left_behind(path: str) -> bytes | None:
    """Give what ``path`` held when a killed ``replace`` or ``take_away`` replaced it, if that is still to be had."""
    _, kept = atomic.beside(real(path))
    try:
        return read(kept, 1 << 24)
    except TaoprofError:
        return None


def clear_left_behind(path: str) -> None:
    """Take away what a killed ``replace`` or ``take_away`` left beside ``path``. Needs the lock."""
    for name in atomic.beside(real(path)):
        atomic.unlink_quietly(name)


def remove(path: str) -> None:
    """Take the name ``path`` away, durably; of a symlink, only the symlink. Raises TaoprofError."""
    try:
        atomic.unlink(path)
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
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, atomic.PRIVATE)
        try:
            size = os.fstat(fd).st_size
            if size == 0:
                os.fchmod(fd, atomic.PRIVATE)  # the umask may have taken bits away
            elif os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                atomic.write_all(fd, data, size)
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


def change_mode(path: str, mode: int, *, name: str = "") -> None:
    """Give the file at ``path``, or the one that a symlink there leads to, other rights. Raises TaoprofError.

    ``name`` is how the file is called in the error.
    """
    try:
        os.chmod(path, mode)
    except OSError as error:
        error.filename = None
        raise unusable(name or path, "change the mode of", error) from error


def make_folder(path: str) -> None:
    """Make the folder ``path`` and those above it, for this user alone (0700). Raises TaoprofError."""
    if os.path.isdir(path):
        return
    try:
        if path in homes.KNOWN:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        parent = os.path.dirname(path)
        if parent != path:
            make_folder(parent)
        home = homes.around(path)
        if home is None:
            _make(path)
        else:
            # By a descriptor: if the home goes away now, the folder is made in it all the same, wherever it is by then.
            fd = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                homes.check(home, fd)
                _make(os.path.relpath(path, home), fd)
            finally:
                os.close(fd)
        if not os.path.isdir(path):
            code = errno.ENOTDIR if os.path.lexists(path) else errno.ENOENT
            raise OSError(code, os.strerror(code), path)
    except OSError as error:
        raise unusable(path, "make the folder", error) from error


def _make(path: str, folder: int | None = None) -> None:
    try:
        os.mkdir(path, 0o700, dir_fd=folder)
        os.chmod(path, 0o700, dir_fd=folder)  # the umask may have taken bits away
    except FileExistsError:
        pass


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
