"""Which process writes a file: by the open descriptors of processes and the kernel's leases."""

from __future__ import annotations

import fcntl
import os
import time

from taoprofiles.system import processes

_WRITING = 3  # O_WRONLY or O_RDWR, on Linux


def who_writes(path: str, *, seconds: float = 0.01) -> str | None:
    """Return the pid and command of a process that has ``path`` open for writing, None if none is found in time.

    Only this user's own processes can be looked into (/proc/PID/fd), as root all. The newest are looked at first.
    """
    end = time.monotonic() + seconds
    try:
        real = os.path.realpath(path)
    except OSError:
        return None  # a symlink that is swapped in this moment
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True):
        if time.monotonic() > end:
            return None
        if pid == os.getpid():
            continue
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == real and processes.descriptor_flags(pid, fd) & _WRITING:
                    return f"pid {pid} ({processes.command_line(pid)})"
        except OSError:
            continue  # ended, or somebody else's
    return None


def is_being_written(fd: int) -> bool:
    """Check whether any process has the file of ``fd``, which is open for reading, open for writing.

    The kernel grants a read lease only where nobody has (fcntl(2), F_SETLEASE). A file system without leases, and
    somebody else's file, count as not being written.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
