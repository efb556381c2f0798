"""Bounded reading, durable appends and renames, private folders, best-effort writes, and errors as messages.

Whole files are replaced by ``atomic``. Whoever writes one of the shared files holds the lock (``locks.Lock``).
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from taoprofiles.errors import InvalidStateError, TaoprofError, reason_of
from taoprofiles.storage.paths import Context

PRIVATE = 0o600
MAPPING_LIMIT = 1 << 20
"""Bytes. 10,000 mounts are 640,000; one past this limit is some other file, and is not replaced."""
_PATH_IS_WRONG = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO)
_HINTS = {
    errno.ENOSPC: "free some space, then run the command again; nothing was changed",
    errno.EDQUOT: "free some space, then run the command again; nothing was changed",
    errno.EROFS: "the file system is read-only; TAOPROF_HOME=FOLDER keeps everything elsewhere",
}


def read(path: str, limit: int) -> bytes | None:
    """Return the content of the regular file ``path``, None if it does not exist.

    Raises InvalidStateError for anything that is not a regular file or has more than ``limit`` bytes, TaoprofError
    if it cannot be read. A FIFO or a device is never waited for.
    """
    with errors_as("read", path), suppress(FileNotFoundError):
        return _read(path, limit)
    return None


def try_read(path: str, limit: int) -> tuple[bytes, str]:
    """Return the content of a file of another program and "", or b"" and the problem; "absent" for no file.

    Never raises and never reads more than ``limit`` bytes.
    """
    try:
        return _read(path, limit), ""
    except (FileNotFoundError, NotADirectoryError):
        return b"", "absent"
    except InvalidStateError as error:
        return b"", error.message.replace(f"'{path}'", "it", 1)
    except (OSError, ValueError) as error:
        return b"", reason_of(error)


def _read(path: str, limit: int) -> bytes:
    # O_NONBLOCK: opening a FIFO without a writer would otherwise never return.
    with opened(path, os.O_RDONLY | os.O_NONBLOCK) as fd:
        return read_open(fd, limit, path)


@contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """Open a file, a new one with the mode 0600, and close it at the end of the block. Raises OSError."""
    fd = os.open(path, flags, PRIVATE)
    try:
        yield fd
    finally:
        os.close(fd)


def read_open(fd: int, limit: int, path: str) -> bytes:
    """Return the content, from its beginning, of the open file that has or had the name ``path``.

    Raises InvalidStateError as ``read`` does, and OSError.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidStateError(f"'{path}' is {file_type(status.st_mode)}, not a file")
    if status.st_size > limit:
        raise InvalidStateError(f"'{path}' has {status.st_size} bytes; at most {limit} are read")
    chunks, size = [], 0
    while chunk := os.pread(fd, 1 << 16, size):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:  # a file that grows, or one of /proc, whose size is given as 0
            raise InvalidStateError(f"'{path}' has more than {limit} bytes")
    return b"".join(chunks)


def has_name(fd: int, path: str) -> bool:
    """Check whether the open file still has the name ``path``, and was not deleted or replaced."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def read_mapping_file(context: Context) -> bytes | None:
    """Return the content of the mapping file, None if it does not exist. Raises as ``read`` does."""
    return read(context.mapping_file, MAPPING_LIMIT)


def link_target(path: str) -> str | None:
    """Return the target that the symlink ``path`` names, None if it is not a symlink or cannot be read."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def stat_or_none(path: str) -> os.stat_result | None:
    """Return the status of a file or folder, following symlinks, or None if it cannot be read."""
    try:
        return os.stat(path)
    except OSError:
        return None


def folder_exists(path: str) -> bool:
    """Check whether there is a folder ``path``, following symlinks.

    Raises TaoprofError if that cannot be known: a disk's error is no answer, as it is for ``os.path.isdir``.
    """
    status = _status_if_exists(path, follow_symlinks=True)
    return status is not None and stat.S_ISDIR(status.st_mode)


def exists(path: str) -> bool:
    """Check whether there is a file, folder or symlink ``path``; raises as ``folder_exists`` does."""
    return _status_if_exists(path, follow_symlinks=False) is not None


def _status_if_exists(path: str, *, follow_symlinks: bool) -> os.stat_result | None:
    with errors_as("access", path), suppress(FileNotFoundError, NotADirectoryError):
        return os.stat(path, follow_symlinks=follow_symlinks)
    return None


def names_in(folder: str) -> list[str]:
    """Return the names in a folder, none if it does not exist. Raises TaoprofError if it cannot be read."""
    with errors_as("list", folder), suppress(FileNotFoundError):
        return os.listdir(folder)
    return []


def readable_by_others(path: str) -> int:
    """Return the mode of a file that other users may read, or 0 for any other."""
    status = stat_or_none(path)
    return status.st_mode & 0o777 if status is not None and status.st_mode & 0o044 else 0


def real_path(path: str) -> str:
    """Return ``os.path.realpath(path)``, which can fail while a symlink is being replaced: then it is tried again."""
    for _ in range(100):
        with suppress(OSError):
            return os.path.realpath(path)
    return path


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` from ``offset`` on, however many calls it takes. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def close_quietly(fd: int | None) -> None:
    """Close a descriptor, if there is one, when the work with it is done and an error can change nothing."""
    if fd is not None:
        with suppress(OSError):
            os.close(fd)


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable. Raises OSError."""
    with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def remove(path: str) -> None:
    """Delete ``path`` durably, if it exists; of a symlink, only the symlink. Raises TaoprofError."""
    with errors_as("remove", path), suppress(FileNotFoundError):
        os.unlink(path)
    with suppress(OSError):  # it is deleted, and an error would say that it is not
        sync_folder(os.path.dirname(path))


def remove_all(paths: Iterable[str]) -> None:
    """Delete files, as many as can be deleted; folders stay. Raises TaoprofError for the first that could not be."""
    failure: TaoprofError | None = None
    for path in paths:
        try:
            with errors_as("remove", path), suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(path)
        except TaoprofError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def remove_folder(path: str) -> None:
    """Delete a folder and all in it; of a symlink, only the symlink. Raises TaoprofError."""
    import shutil

    if os.path.islink(path):
        remove(path)
    else:
        with errors_as("remove the folder", path):
            shutil.rmtree(path)


def rename(path: str, to: str) -> None:
    """Rename a file within its folder, durably. The caller has made sure that ``to`` is free. Raises TaoprofError."""
    with errors_as("rename", path):
        os.rename(path, to)
    with suppress(OSError):  # as in ``remove``
        sync_folder(os.path.dirname(to))


def append(path: str, data: bytes) -> int:
    """Append whole lines to ``path`` durably, and return its size before, for ``truncate``.

    A torn last line, left by a power failure, is ended first. After an error the file is unchanged. Raises
    TaoprofError.
    """
    with errors_as("write", path), opened(path, os.O_RDWR | os.O_CREAT) as fd:
        size = os.fstat(fd).st_size
        if size == 0:
            _set_mode_and_owner(fd, path)
        elif os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data
        try:
            write_all(fd, data, size)
            os.fsync(fd)
            if size == 0:
                sync_folder(os.path.dirname(path))
        except BaseException:
            os.ftruncate(fd, size)
            raise
        return size


def _set_mode_and_owner(fd: int, path: str) -> None:
    """Set the owner of a new file, and its mode, from which the umask may have removed bits."""
    os.fchmod(fd, PRIVATE)
    give_to_owner(fd, os.path.dirname(path))


def give_to_owner(fd: int, folder: str) -> None:
    """Change the owner of a new file or folder that root has created to that of the folder that it is in.

    Root may act with another user's HOME (``sudo -E``, ``su -m``), who could neither read nor replace it afterwards.
    """
    if os.geteuid() == 0:
        with suppress(OSError):
            owner = os.stat(folder)
            if owner.st_uid != 0:
                os.fchown(fd, owner.st_uid, owner.st_gid)


def truncate(path: str, size: int) -> None:
    """Undo an ``append`` if that is possible; readers recognise a line that could not be removed."""
    with suppress(OSError):
        os.truncate(path, size)


def open_to_append(path: str) -> int:
    """Create a private file to which other programs append, and return its descriptor. Raises TaoprofError."""
    with errors_as("create", path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, PRIVATE)
        _set_mode_and_owner(fd, path)
        return fd


def change_mode(path: str, mode: int, *, name: str = "") -> None:
    """Change the mode of the file ``path``, following symlinks. Raises TaoprofError, which names ``name`` if given."""
    try:
        os.chmod(path, mode)
    except OSError as error:
        error.filename = None
        raise to_taoprof_error(name or path, "change the mode of", error) from error


_never_created: set[str] = set()


def never_create(*folders: str) -> None:
    """Make ``make_folder`` fail if one of these folders is missing: the guard's home may be moved or unmounted."""
    _never_created.update(folders)


def make_folder(path: str, mode: int = 0o700) -> None:
    """Create the folder ``path`` and its parents durably, by default for this user alone. Raises TaoprofError."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_folder(parent, mode)
    with errors_as("create the folder", path):
        if path in _never_created:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        with suppress(FileExistsError):
            os.mkdir(path, mode)
            os.chmod(path, mode)  # the umask may have removed bits
            if os.geteuid() == 0:
                with opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as fd:
                    give_to_owner(fd, parent)
            sync_folder(parent)
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


@contextmanager
def errors_as(action: str, path: str) -> Iterator[None]:
    """Raise ``to_taoprof_error`` for an OSError in the block."""
    try:
        yield
    except OSError as error:
        raise to_taoprof_error(path, action, error) from error


def to_taoprof_error(path: str, action: str, error: OSError) -> TaoprofError:
    """Return the error "cannot ACTION 'PATH': reason"; an InvalidStateError if the path itself is wrong."""
    reason = reason_of(error)
    filename = error.filename if isinstance(error.filename, str) else path
    other = f" ('{filename}')" if os.path.dirname(filename) != os.path.dirname(path) else ""
    error_type = InvalidStateError if error.errno in _PATH_IS_WRONG else TaoprofError
    hint = dangling_link_hint(path) if error.errno == errno.ENOENT else _HINTS.get(error.errno or 0, "")
    return error_type(f"cannot {action} '{path}': {reason}{other}", hint=hint)


def dangling_link_hint(path: str) -> str:
    """Return how to repair the symlink ``path`` if it leads into a folder that does not exist, else ""."""
    folder = os.path.dirname(real_path(path))
    if not os.path.islink(path) or os.path.lexists(folder):
        return ""
    import shlex

    return f"To create the folder: mkdir -p {shlex.quote(folder)}; to remove the link: rm {shlex.quote(path)}"


def file_type(mode: int) -> str:
    """Return the name of a file type, from its ``st_mode``."""
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    names |= dict.fromkeys((stat.S_IFCHR, stat.S_IFBLK), "a device")
    return names.get(stat.S_IFMT(mode), "a file")


def parse_json(content: bytes) -> tuple[Any, str]:
    """Parse JSON as ``json.load(open(path))`` does, in UTF-8; None and the problem if that raises.

    The problem names a position and never the content.
    """
    try:
        return json.loads(content.decode()), ""
    except json.JSONDecodeError as error:
        return None, f"line {error.lineno}, column {error.colno}: {error.msg.lower()}"
    except UnicodeDecodeError as error:
        return None, f"byte {error.start} is not UTF-8"
    except (ValueError, RecursionError):
        return None, "it is nested too deeply, or has a number too long"


# Caches, and the messages of background programs for the next command (``guard/messages``, one a line). Errors while
# writing or deleting them are ignored.

_PUNCH_HOLE = 0x1 | 0x2
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of <linux/falloc.h>."""

_BLOCK = 1 << 16
"""A multiple of the block size of every usual file system: a part of a block is not freed."""


def write_cache(path: str, data: bytes) -> bool:
    """Replace a cache file atomically, but not durably, and return whether that succeeded."""
    temporary = f"{path}.taoprof-new"
    try:
        make_folder(os.path.dirname(path))
        unlink_quietly(temporary)
        with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            _set_mode_and_owner(fd, path)
            write_all(fd, data, 0)
        os.replace(temporary, path)
        return True
    except (OSError, TaoprofError):
        unlink_quietly(temporary)
        return False


def read_json(path: str, limit: int) -> dict[str, Any]:
    """Return the JSON object in the file ``path``, of at most ``limit`` bytes; {} if there is none."""
    value, _ = parse_json(try_read(path, limit)[0])
    return value if isinstance(value, dict) else {}


def overwrite_quietly(path: str, data: bytes) -> None:
    """Write into the existing file, which on a full disk still has its room."""
    with suppress(OSError), opened(path, os.O_WRONLY | os.O_NOFOLLOW) as fd:
        write_all(fd, data, 0)
        os.ftruncate(fd, len(data))


def append_quietly(path: str, data: bytes) -> None:
    """Append to an existing file, not durably."""
    with suppress(OSError), opened(path, os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, data)


def drop_beginning(path: str, kept: int) -> None:
    """Free the room of all but about the last ``kept`` bytes of a file that other programs append to.

    Nothing that is appended meanwhile is lost, and every position stays what it is: the beginning becomes a hole
    (fallocate(2)). A file system that has no holes loses all of it.
    """
    with suppress(OSError), opened(path, os.O_RDWR | os.O_NOFOLLOW) as fd:
        end = (os.fstat(fd).st_size - kept) & -_BLOCK
        if end > 0 and not _punch_hole(fd, end):
            os.ftruncate(fd, 0)


def _punch_hole(fd: int, end: int) -> bool:
    import ctypes  # only for a log that has become long

    offset = ctypes.c_int64
    library = ctypes.CDLL(None)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)  # of glibc, of musl
    return function is not None and function(fd, _PUNCH_HOLE, offset(0), offset(end)) == 0


def unlink_quietly(path: str) -> None:
    """Delete a file, if it exists."""
    with suppress(OSError):
        os.unlink(path)


def rmdir_quietly(path: str) -> None:
    """Delete a folder, if it exists and is empty."""
    with suppress(OSError):
        os.rmdir(path)


def try_rename(path: str, to: str) -> bool:
    """Rename a file, so that no other process finds it, and return whether it existed."""
    try:
        os.rename(path, to)
        return True
    except OSError:
        return False


def make_private(path: str) -> None:
    """Remove all rights of other users on a file, if it exists."""
    with suppress(OSError):
        os.chmod(path, PRIVATE)


_KEPT = 20
"""Messages that are kept; those of the guard are also in its log."""


def add_message(context: Context, line: str) -> None:
    """Add a message that the user's next command shows. Needs the lock."""
    text = "".join(f"{old}\n" for old in [*_read_lines(context.pending_messages), " ".join(line.splitlines())][-_KEPT:])
    write_cache(context.pending_messages, text.encode("utf-8", "backslashreplace"))


def take_messages(context: Context) -> list[str]:
    """Return the messages and delete them; of two commands at the same time only one gets them."""
    path = f"{context.pending_messages}-{os.getpid()}"
    if not try_rename(context.pending_messages, path):
        return []
    lines = _read_lines(path)
    unlink_quietly(path)
    return lines


def _read_lines(path: str) -> list[str]:
    return try_read(path, 1 << 16)[0].decode("utf-8", "replace").splitlines()
