"""Facts about files and file systems of this host that checks need."""

from __future__ import annotations

import _thread
import os
import re
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from taoprofiles.errors import reason_of
from taoprofiles.storage import files
from taoprofiles.storage.paths import is_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    Answer = TypeVar("Answer")

WINDOWS_DISKS = ("9p", "drvfs")
"""The types of file systems by which WSL has the disks of Windows."""

ANSWER_TIMEOUT = 5.0
"""Seconds that the file servers of all paths of one question have to answer. A look at a dead one never returns."""
_NEXT_TIMEOUT = 0.05
"""The same while another path has not answered: the next ones are probably on the same server."""

_ENTRIES_LIMIT = 5000
"""Entries of a folder that are examined for their owners."""

_waiting: set[str] = set()
"""The paths of which a thread awaits an answer at this moment."""


def answers(
    look: Callable[[str], Answer], paths: Iterable[str], seconds: float | None = None, *, is_patient: bool = False
) -> dict[str, Answer]:
    """Return ``look(path)`` by path, without the paths whose file server does not answer within ``seconds``.

    Unless it ``is_patient``, it waits for less after a path that has not answered yet.
    A thread that waits for an answer goes on, and does not keep the process from ending; until it has the answer, no
    other one is started for its path. Raises what ``look`` raises.
    """
    seconds = _NEXT_TIMEOUT if _waiting and not is_patient else seconds or ANSWER_TIMEOUT
    wanted = [path for path in dict.fromkeys(paths) if path not in _waiting]
    if not wanted:
        return {}
    results: dict[str, Answer] = {}
    errors: list[Exception] = []
    left, is_done, end = iter(wanted), _thread.allocate_lock(), time.monotonic() + seconds
    is_done.acquire()

    def work() -> None:
        for path in left:
            _waiting.add(path)
            try:
                results[path] = look(path)
            except (OSError, TypeError, ValueError) as error:
                errors.append(error)
            _waiting.discard(path)
        if len(results) + len(errors) == len(wanted):
            with suppress(RuntimeError):  # two threads that end at the same time
                is_done.release()

    try:
        _thread.start_new_thread(work, ())
    except RuntimeError:  # no more threads are allowed: the look itself may work
        return {path: look(path) for path in wanted}
    examined = -1
    while not is_done.acquire(timeout=min(seconds, _NEXT_TIMEOUT)) and time.monotonic() < end:
        if examined == len(results):
            with suppress(RuntimeError):
                _thread.start_new_thread(work, ())  # for the paths after the one that does not answer
        examined = len(results)
    if errors:
        raise errors[0]
    return dict(results)


def unanswered(paths: Iterable[str]) -> list[str]:
    """Return those of the paths of which earlier ``answers`` did not come yet. Looks at nothing."""
    return [path for path in dict.fromkeys(paths) if path in _waiting]


def no_answer(path: str) -> str:
    """Return the message about a path that is not in ``answers``."""
    return f"'{path}' does not answer within {ANSWER_TIMEOUT:g} s: its file server may be down"


def real_paths(paths: Iterable[str]) -> Iterator[str]:
    """Yield ``files.real_path`` of each path; of one whose file server does not answer, the path without ``..``."""
    paths = list(paths)
    real = answers(files.real_path, paths)
    return (real.get(path) or os.path.normpath(path) for path in paths)


def try_real_path(path: str) -> str:
    """Return ``os.path.realpath(path)``, also for a text that cannot be a path."""
    try:
        return next(real_paths([path]))
    except ValueError:  # a NUL, or what UTF-8 cannot hold
        return os.path.normpath(path)


class PathInfo:
    """A folder, or file, of this host.

    ``real`` is the resolved path; ``problem`` is "", "missing", or why it cannot be examined; ``uid``, ``gid`` and
    ``mode`` are those of the file.
    """

    __slots__ = ("gid", "mode", "path", "problem", "real", "uid")

    def __init__(self, path: str) -> None:
        self.path, self.real = path, files.real_path(path)
        self.problem, self.uid, self.gid, self.mode = "", -1, -1, 0
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            self.problem = "missing"
        except (OSError, ValueError) as error:
            self.problem = reason_of(error)
        else:
            self.uid, self.gid, self.mode = status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)

    def may(self, uid: int, gid: int, bits: int) -> bool:
        """Check whether that user has the permissions ``bits`` (4 read, 2 write, 1 enter), by the mode alone."""
        if uid == 0:
            return True
        shift = 6 if uid == self.uid else 3 if gid == self.gid else 0
        return (self.mode >> shift) & bits == bits


def nearest_existing(path: str) -> PathInfo:
    """Return the folder itself, or its nearest existing parent."""
    info = PathInfo(os.path.normpath(path))
    while info.problem == "missing" and info.path != "/":
        info = PathInfo(os.path.dirname(info.path))
    return info


def creation_problem(path: str) -> str:
    """Return why this user cannot create a folder, "" if it can be created: for a path that another machine has."""
    existing = nearest_existing(path)
    home = re.match(r"/(?:home|Users)/[^/]+", os.path.normpath(path))
    if home and len(existing.path) < len(home[0]):  # root could create it, which is not what anybody wants
        return f"this machine has no home folder of '{home[0].rpartition('/')[2]}'"
    if not os.path.isdir(existing.path):
        return f"'{existing.path}' is not a folder"
    return "" if os.access(existing.path, os.W_OK | os.X_OK) else f"you cannot create folders in '{existing.path}'"


def file_systems() -> list[tuple[str, str]]:
    """Return (mount point, type) of every mounted file system, from /proc/self/mounts (proc_pid_mounts(5))."""
    mounts = []
    for line in files.try_read("/proc/self/mounts", 4 << 20)[0].decode("utf-8", "surrogateescape").splitlines():
        words = line.split(" ")
        if len(words) > 2:
            mounts.append((re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1]), words[2]))
    return mounts


def file_system(path: str, table: list[tuple[str, str]]) -> str:
    """Return the type of the file system of a path, "" if it is not known."""
    real, depth, file_system_type = files.real_path(path), 0, ""
    for point, kind in table:  # of two on one point the later one covers the other
        if len(point) >= depth and is_inside(real, point):
            depth, file_system_type = len(point), kind
    return file_system_type


def find_foreign_files(folder: str, uid: int) -> tuple[int, str, bool]:
    """Count files of other users than ``uid`` in a folder; return (count, the first, whether all were examined).

    At most _ENTRIES_LIMIT entries are examined. Links are not followed, and folders that cannot be read are left out.
    """
    count, first, examined = 0, "", 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    examined += 1
                    if examined > _ENTRIES_LIMIT:
                        return count, first, False
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid != uid:
                        count, first = count + 1, first or entry.path
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
        except OSError:
            continue
    return count, first, True


def listening_ports() -> set[int]:
    """Return the TCP ports of this host that have a listener (/proc/net/tcp and tcp6; state 0A is LISTEN)."""
    ports = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii", errors="replace") as file:
                for line in list(file)[1:]:
                    fields = line.split()
                    if len(fields) > 3 and fields[3] == "0A":
                        ports.add(int(fields[1].rpartition(":")[2], 16))
        except (OSError, ValueError):
            continue
    return ports


def total_memory() -> int:
    """Return the host's memory in bytes, 0 if it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0


def is_wsl() -> bool:
    """Check whether this is WSL, whose kernel has "microsoft" in /proc/version."""
    return b"microsoft" in files.try_read("/proc/version", 1 << 16)[0].lower()
