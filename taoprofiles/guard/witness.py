"""The kernel's own witness of who writes files in a folder, fanotify(7); it answers to root alone."""

from __future__ import annotations

import ctypes
import os
import struct

from taoprofiles.system import processes

# linux/fanotify.h and linux/fcntl.h
_FAN_CLOEXEC, _FAN_NONBLOCK = 0x1, 0x2
_FAN_MARK_ADD = 0x1
_FAN_CLOSE_WRITE, _FAN_EVENT_ON_CHILD = 0x8, 0x08000000
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")
"""fanotify_event_metadata: event_len, vers, reserved, metadata_len, mask, fd, pid."""

_REMEMBERED = 100


class Witness:
    """Remembers who last had which file of the folders open for writing, by the file's number: also after a rename.

    ``fd`` is None where the kernel does not permit it; then nobody is remembered.
    """

    def __init__(self, *folders: str) -> None:
        self._seen: dict[tuple[int, int], str] = {}
        self.fd: int | None = None
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            fd = libc.fanotify_init(_FAN_CLOEXEC | _FAN_NONBLOCK, os.O_RDONLY | os.O_CLOEXEC)
            mark = libc.fanotify_mark
        except AttributeError:
            return  # another C library
        if fd < 0:
            return
        mark.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)
        events = _FAN_CLOSE_WRITE | _FAN_EVENT_ON_CHILD
        if any(mark(fd, _FAN_MARK_ADD, events, _AT_FDCWD, os.fsencode(folder)) for folder in folders):
            os.close(fd)
            return
        self.fd = fd

    def listen(self) -> None:
        """Take what has come. Soon: who has ended meanwhile is remembered by the pid alone."""
        while self.fd is not None:
            try:
                told = os.read(self.fd, 1 << 14)
            except OSError:
                return
            place = 0
            while place + _EVENT.size <= len(told):
                length, _, _, _, _, fd, pid = _EVENT.unpack_from(told, place)
                place += length
                if fd >= 0:
                    try:
                        self._remember(os.fstat(fd), pid)
                    finally:
                        os.close(fd)

    def who_wrote(self, path: str) -> str | None:
        """Name the process that last had this very file open for writing; None where that was not seen."""
        self.listen()
        try:
            status = os.stat(path)
        except OSError:
            return None
        return self._seen.get((status.st_dev, status.st_ino))

    def _remember(self, status: os.stat_result, pid: int) -> None:
        if pid == os.getpid():
            return
        if len(self._seen) >= _REMEMBERED:
            self._seen.pop(next(iter(self._seen)))
        words = processes.command_line(pid)
        self._seen[status.st_dev, status.st_ino] = f"pid {pid} ({words})" if words else f"pid {pid}"
