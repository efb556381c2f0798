"""Folders of this host as a check sees them: where a name leads, whose they are, and what holds them."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Place:
    """A path of this host. ``real`` is where it leads; ``problem`` is "", "missing", or why it cannot be seen.

    ``uid``, ``gid``, ``mode`` and ``is_folder`` are of what is there.
    """

    __slots__ = ("gid", "is_folder", "mode", "path", "problem", "real", "uid")

    def __init__(self, path: str) -> None:
        self.path, self.real = path, os.path.realpath(path)
        self.problem, self.uid, self.gid, self.mode, self.is_folder = "", -1, -1, 0, False
        try:
            seen = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            self.problem = "missing"
        except (OSError, ValueError) as error:
            self.problem = str(getattr(error, "strerror", None) or error).lower()
        else:
            self.uid, self.gid, self.mode = seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)
            self.is_folder = stat.S_ISDIR(seen.st_mode)

    def may(self, uid: int, gid: int, bits: int) -> bool:
        """Whether that user may do what ``bits`` says (4 read, 2 write, 1 enter), by the mode alone."""
        if uid == 0:
            return True
        shift = 6 if uid == self.uid else 3 if gid == self.gid else 0
        return (self.mode >> shift) & bits == bits


def nearest(path: str) -> Place:
    """Give the place itself, or the nearest folder above it that is there."""
    place = Place(os.path.normpath(path))
    while place.problem == "missing" and place.path != "/":
        place = Place(os.path.dirname(place.path))
    return place


def above(path: str) -> Iterator[Place]:
    """Give every folder above a path, from the root."""
    parts = [part for part in os.path.dirname(os.path.realpath(path)).split("/") if part]
    for count in range(len(parts) + 1):
        yield Place("/" + "/".join(parts[:count]))


def file_systems() -> list[tuple[str, str]]:
    """Give (mount point, type) of every mounted file system, by /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    found = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                point = before.split(" ")[4]
                for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                    point = point.replace(code, character)
                found.append((point, after.split(" ")[0]))
    except (OSError, IndexError):
        pass
    return found


def file_system(path: str, table: list[tuple[str, str]]) -> str:
    """Give the type of the file system that a path lies on, "" where it is not known."""
    real = os.path.realpath(path)
    around = [(len(point), kind) for point, kind in table if real == point or real.startswith(point.rstrip("/") + "/")]
    return max(around, default=(0, ""))[1]


def foreign(folder: str, uid: int, *, limit: int = 5000) -> tuple[int, str, bool]:
    """Count what belongs to another user than ``uid`` in a folder: (count, the first one, whether all was looked at).

    ``limit`` entries at the most; links are not followed, and what may not be seen is left out.
    """
    found, first, seen = 0, "", 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > limit:
                        return found, first, False
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid != uid:
                        found, first = found + 1, first or entry.path
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
        except OSError:
            continue
    return found, first, True


def listening() -> set[int]:
    """Give the TCP ports of this host that something listens on (/proc/net/tcp and tcp6; state 0A is LISTEN)."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii", errors="replace") as file:
                for line in list(file)[1:]:
                    fields = line.split()
                    if len(fields) > 3 and fields[3] == "0A":
                        found.add(int(fields[1].rpartition(":")[2], 16))
        except (OSError, ValueError):
            continue
    return found


def memory() -> int:
    """Give the host's memory in bytes, 0 where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0


def is_wsl() -> bool:
    """Whether this Linux runs under Windows: its kernel says "microsoft" in /proc/version."""
    try:
        with open("/proc/version", encoding="utf-8", errors="replace") as file:
            return "microsoft" in file.read(4096).lower()
    except OSError:
        return False
