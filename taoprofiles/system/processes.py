"""The processes of this host: which of them are launchers, and whether one that was noted is still the same."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import files
from taoprofiles.storage.paths import find_account

_WRITING = 3  # O_WRONLY or O_RDWR, on Linux
_PIDFD_OPEN = 434
"""The number of this system call on all architectures but alpha."""
_PARTS = (b"tao", b"tlt", b"exec")
"""Every command line that ``scan`` is for contains one of these: launchers and runners (launcher.argv), docker exec."""
_UNKNOWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Error numbers that say nothing about the process: it may be alive. After any other one it has ended, or is hidden."""

WRAPPERS = frozenset(
    "chrt command doas env exec ionice nice nohup numactl setsid srun stdbuf strace sudo systemd-run taskset time "
    "timeout unbuffer".split()
)
"""Programs that start the command that follows their own options, with its words unchanged."""


class Process(NamedTuple):
    """A process: ``argv`` are the words of its command line."""

    pid: int
    uid: int
    argv: list[str]

    @property
    def container(self) -> str | None:
        """The full id of the container that this process, a ``docker exec``, works in; None for any other process."""
        argv = self.argv
        if len(argv) < 3 or os.path.basename(argv[0]) not in ("docker", "podman") or argv[1] != "exec":
            return None
        target = next((word for word in argv[2:] if not word.startswith("-")), "")
        return target if len(target) == 64 and set(target) <= set("0123456789abcdef") else None


def scan() -> list[Process]:
    """Return the processes of any user that may be a launcher or a ``docker exec``, in one pass over /proc.

    The caller decides by ``argv`` which of them it needs. Raises TaoprofError, as all functions here that look into
    /proc, while the system or this process cannot open any more files.
    """
    processes = []
    for pid in pids():
        line = _read(f"/proc/{pid}/cmdline")
        if any(part in line for part in _PARTS):
            uid = _owner(pid)
            if uid >= 0:  # else it has ended
                processes.append(Process(pid, uid, line.rstrip(b"\0").decode("utf-8", "surrogateescape").split("\0")))
    return processes


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor that can be read when a process has ended, see pidfd_open(2).

    None if the process has just ended, no descriptor is available, or the kernel is older than 5.3.
    """
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
    except AttributeError:  # a Python that was built with the headers of an older kernel, as uv's and conda's are
        import ctypes

        descriptor: int = ctypes.CDLL(None).syscall(_PIDFD_OPEN, pid, 0)
        return descriptor if descriptor >= 0 else None


def pids() -> Iterator[int]:
    """Yield the pids of all processes. Raises TaoprofError if /proc cannot be listed."""
    with files.errors_as("list", "/proc"):
        return (int(name) for name in os.listdir("/proc") if name.isdigit())


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; {} if it has ended or may not be read."""
    raw = _read(f"/proc/{pid}/environ")
    pairs = (part.partition(b"=") for part in raw.split(b"\0") if b"=" in part)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def command_line(pid: int) -> str:
    """Return the command line of a process, without secrets, and shortened."""
    from taoprofiles.masking import mask_command, shorten

    words = _read(f"/proc/{pid}/cmdline").rstrip(b"\0").decode("utf-8", "replace").split("\0")
    return shorten(" ".join(mask_command(words)), 100)


def find_writer(path: str) -> str | None:
    """Return the pid and command of a process that has ``path`` open for writing, None if none is found in 10 ms.

    Only this user's own processes can be examined (/proc/PID/fd), by root all of them. The newest come first.
    """
    end = time.monotonic() + 0.01
    try:
        real = os.path.realpath(path)
    except OSError:
        return None  # the symlink is being replaced
    for pid in sorted(pids(), reverse=True):
        if time.monotonic() > end:
            return None
        if pid == os.getpid():
            continue
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == real and _open_flags(pid, fd) & _WRITING:
                    return f"pid {pid} ({command_line(pid)})"
        except (OSError, TaoprofError):
            continue  # ended, or another user's
    return None


def is_being_written(fd: int) -> bool | None:
    """Check whether any process has the file of ``fd``, which is open for reading, open for writing.

    The kernel grants a read lease only if no process has the file open for writing (fcntl(2), F_SETLEASE). None if
    it cannot tell: on a file system without leases (NFS, FUSE), and for another user's file.
    """
    import signal  # not for 'list'

    try:
        # A writer of the same moment breaks the lease, with this signal, which does nothing; SIGIO would end us.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def user_name(uid: int) -> str:
    """Return the name of a user, or its number if it has none."""
    account = find_account(uid)
    return account[0] if account else str(uid)


def wait_for_writer(fd: int, seconds: float) -> bool | None:
    """Wait until ``is_being_written`` no longer returns True, at most ``seconds``; return what it returned last."""
    end = time.monotonic() + seconds
    while is_written := is_being_written(fd):
        if time.monotonic() >= end:
            break
        time.sleep(0.001)
    return is_written


def has_command_line(pid: int) -> bool:
    """Check whether the process still has its memory, which an ending process releases before it disappears."""
    return _read(f"/proc/{pid}/cmdline") != b""


def in_background() -> bool:
    """Check whether another job has our terminal now, so that reading from it would stop this process."""
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:  # no terminal, or none of ours
        return False


def has_terminal() -> bool:
    """Check whether a command that is started now can read from a terminal."""
    return os.isatty(0) and not in_background()


def with_variable(uid: int, variable: str) -> Iterator[tuple[int, str]]:
    """Yield the pid and the value for each process of the user whose environment has ``variable``."""
    prefix = f"{variable}=".encode()
    for pid in pids():
        raw = _read(f"/proc/{pid}/environ")
        if raw.startswith(prefix):
            raw = b"\0" + raw
        _, separator, rest = raw.partition(b"\0" + prefix)
        if separator and _owner(pid) == uid and start_time(pid) is not None:
            yield pid, os.fsdecode(rest.partition(b"\0")[0])


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot (field 22 of /proc/PID/stat); None if there is none.

    Pid, start time and boot id together identify a process; the kernel reuses a pid alone.
    """
    fields = _stat_fields(pid)
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def is_stopped(pid: int) -> bool:
    """Check whether a process is stopped, by a signal such as that of Ctrl-Z or by a debugger."""
    return _stat_fields(pid)[:1] in ([b"T"], [b"t"])


def parent(pid: int) -> int | None:
    """Return the pid of the parent, None if the process has ended."""
    fields = _stat_fields(pid)
    return int(fields[1]) if len(fields) > 1 else None


def ancestors(pid: int) -> Iterator[int]:
    """Yield the pids of the ancestors, the nearest first: tao → sh → bash → docker exec, and a wrapper or two."""
    for _ in range(8):
        above = parent(pid)
        if above is None or above <= 1:
            return
        yield above
        pid = above


def folder(pid: int) -> str:
    """Return the working directory of a process; "" if it has ended or may not be read."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def name_and_user(pid: int) -> tuple[str, str]:
    """Return the name of a process's program, of at most 15 characters, and its user; "" if it is not visible here."""
    uid = _owner(pid)
    return _read(f"/proc/{pid}/comm").decode("utf-8", "replace").strip(), user_name(uid) if uid >= 0 else ""


def is_in_group(pid: int, name: str) -> bool:
    """Check whether a process of this host is in the control group of a systemd unit, or of a container by its id."""
    return name.encode() in _read(f"/proc/{pid}/cgroup")


def container_starts() -> dict[str, int] | None:
    """Return when the oldest process of each container on this machine started, in clock ticks since boot, by its id.

    A user who may not ask the engine can read the control groups, which engines name after their containers. None if
    other containers may exist: without a visible dockerd, this is a container itself, or the kernel hides processes.
    """
    import re  # not for 'use' in general

    starts: dict[str, int] = {}
    has_engine = False
    for pid in pids():
        has_engine = has_engine or (_read(f"/proc/{pid}/comm") == b"dockerd\n" and _owner(pid) == 0)
        # A process of a container in a container is in the groups of both.
        containers = set(re.findall(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", _read(f"/proc/{pid}/cgroup")))
        if containers and (start := start_time(pid)) is not None:
            for container in map(bytes.decode, containers):
                starts[container] = min(start, starts.get(container, start))
    return starts if has_engine else None


def session(pid: int) -> int | None:
    """Return the session of a process, None if it has ended."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


def epoch(start: int | None) -> float | None:
    """Convert clock ticks since boot into seconds since 1970."""
    if start is None:
        return None
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - up + start / os.sysconf("SC_CLK_TCK")


def alive(pid: int, start: int) -> bool:
    """Check whether the process with this pid and start time still runs."""
    return pid > 0 and start_time(pid) == start


def host_id() -> str:
    """Return the id of this host: name, machine id, boot id and process namespace.

    Two containers that share a home are two hosts, since neither sees the other's processes.
    """
    machine = _read("/etc/machine-id").decode("ascii", "replace").strip()
    boot = _read("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{os.uname().nodename} {machine or '-'} {boot} {namespace}"


def same_machine(host: str, other: str) -> bool:
    """Check whether two host ids belong to the same machine and boot, whatever their process namespaces."""
    return host.split(" ")[1:3] == other.split(" ")[1:3]


def rebooted(host: str, here: str) -> bool:
    """Check whether ``host`` is the id of this machine before a reboot, so that no process of it can be alive."""
    then, now = host.split(" "), here.split(" ")
    return len(then) == len(now) == 4 and then[1] != "-" and then[:2] == now[:2] and then[2] != now[2]


def _open_flags(pid: int, fd: str) -> int:
    """Return the flags that a process opened a file with (``flags`` in /proc/PID/fdinfo/FD, octal), else 0."""
    lines = _read(f"/proc/{pid}/fdinfo/{fd}").split(b"\n")
    return next((int(line.partition(b":")[2], 8) for line in lines if line.startswith(b"flags:")), 0)


def _stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third on; the second, the name, may contain blanks and ")"."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _owner(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _read(path: str) -> bytes:
    """Return the content of a file in /proc, b"" if the process has ended or may not be looked at.

    Raises TaoprofError if no file can be opened at all: a process must not count as ended then.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = b""
            while chunk := os.read(fd, 1 << 16):
                content += chunk
            return content
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _UNKNOWN:
            raise files.to_taoprof_error(path, "read", error) from error
        return b""
