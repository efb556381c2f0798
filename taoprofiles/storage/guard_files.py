"""What guards leave on disk: proof that one lives, what it knows, the seal, and what has not been told yet.

``guard/ID.claim`` is locked for as long as the guard of one host lives (ID stands for the very host), and
``guard/ID.json`` says what it knows. ``guard/seal.json`` is there while the mapping file is sealed, and says what mode
it had before. ``guard/untold`` has the lines that the next command tells.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import GuardedError, TaoprofError
from taoprofiles.storage import best_effort, files, liveness_lock

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.storage.paths import Context

FORMAT = 1
_LIMIT = 16 << 20
_UNTOLD = 20
"""Lines that are kept for the next command; what is older stands in the history and in the journal."""


class Guards:
    """The guards of one person's mapping file, on all hosts that share the home; ``here`` names this one."""

    def __init__(self, context: Context, here: str) -> None:
        import hashlib

        self._folder = context.guard
        self.name = hashlib.sha256(here.encode()).hexdigest()[:12]

    def begin(self) -> int:
        """Become the guard of this host; give the descriptor that proves it for as long as it is open.

        Raises GuardedError where there is one. What a guard of an earlier boot left is taken away.
        """
        files.make_folder(self._folder)
        path = self._path(".claim")
        fd = liveness_lock.take(path)
        end = time.monotonic() + 0.5
        while fd is None and time.monotonic() < end:
            time.sleep(0.02)  # somebody who asks whether a guard lives has it for a moment
            fd = liveness_lock.take(path)
        if fd is None:
            known = self.known() or {}
            raise GuardedError(
                f"a guard is at work already: pid {known.get('pid', 'unknown')}",
                hint="'taoprof service status' tells what it does",
            )
        for name in os.listdir(self._folder):
            stem, suffix = os.path.splitext(name)
            path = os.path.join(self._folder, stem)
            # Of another host's guard the locks may tell nothing, where the file system keeps them to one host.
            was_here = (_read(path + ".json") or {}).get("host") == os.uname().nodename
            if suffix == ".claim" and stem != self.name and was_here and not liveness_lock.claimed(path + ".claim"):
                best_effort.forget(path + ".claim")
                best_effort.forget(path + ".json")
        return fd

    def is_ours(self, fd: int) -> bool:
        """Whether the claim that ``begin`` gave is still the one that others look at."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path(".claim")))
        except OSError:
            return False

    def lives(self, name: str = "") -> bool:
        """Whether the guard of this host lives, or the one of that name."""
        return liveness_lock.claimed(self._path(".claim", name))

    def any_lives(self) -> bool:
        """Whether a guard lives on any host of this home, as far as the file system's locks tell."""
        return liveness_lock.any_claimed(self._folder)

    def publish(self, known: dict[str, Any]) -> None:
        """Write down what the guard of this host knows."""
        data = json.dumps({"v": FORMAT, **known}).encode()
        if not best_effort.write(self._path(".json"), data):
            best_effort.overwrite(self._path(".json"), data)  # a full disk still has the room that the old one takes

    def known(self) -> dict[str, Any] | None:
        """Give what the guard of this host wrote last, whether it lives or not; None for another format."""
        found = _read(self._path(".json")) or {}
        kinds: dict[str, tuple[type, ...]] = {
            "line": (str,),
            "is_sealed": (bool,),
            "holds": (list,),
            "problem": (str, type(None)),
        }
        is_sound = found.get("v") == FORMAT and all(isinstance(found.get(key), kind) for key, kind in kinds.items())
        return found if is_sound and all(isinstance(hold, dict) for hold in found["holds"]) else None

    def forget(self) -> None:
        """Take away all that guards left, unless one lives; what has not been told yet, too."""
        if not self.any_lives():
            for name in os.listdir(self._folder) if os.path.isdir(self._folder) else []:
                best_effort.forget(os.path.join(self._folder, name))
            best_effort.forget_folder(self._folder)

    def _path(self, end: str, name: str = "") -> str:
        return os.path.join(self._folder, (name or self.name) + end)


def _read(path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(files.read(path, _LIMIT) or b"null")
    except (TaoprofError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class Seal:
    """The mapping file made read-only, so that a plain ``open(path, "w")`` fails in the program that tries it.

    All but ``is_recorded`` needs the lock. The record is written before the mode is changed: whatever dies, the mode
    can be given back. It has the file's real path, its number, its mode, and the name of the guard that sealed it.
    """

    def __init__(self, context: Context) -> None:
        self._target = context.mapping_file
        self._record = context.seal
        self._mine: dict[str, Any] | None = None  # the record as we wrote it: it may be deleted, or damaged

    def is_recorded(self) -> bool:
        """Whether some guard has sealed the file and not unsealed it yet."""
        return os.path.lexists(self._record)

    def mode(self, ino: int) -> int | None:
        """Give the mode that the file of that number had before it was sealed; None where it is not."""
        known = self._known()
        return int(known["mode"]) if known is not None and known["ino"] == ino else None

    def is_anothers(self, guards: Guards) -> bool:
        """Whether another host's guard, which lives, has sealed the file: it sees work there that we do not."""
        known = self._known()
        return known is not None and known["by"] != guards.name and guards.lives(known["by"])

    def put_on(self, by: str) -> bool:
        """Seal the file for the guard ``by``; false where it was so already, or nobody may write it anyhow.

        Raises TaoprofError.
        """
        path, known = files.real(self._target), self._known()
        if known is not None and known["path"] != path:
            self.take_off()  # another file was sealed
        with _Pinned(path) as pinned:
            status = pinned.status
            if status is None or not status.st_mode & 0o222:
                return False
            files.make_folder(os.path.dirname(self._record))
            record = {"path": path, "ino": status.st_ino, "mode": status.st_mode & 0o7777, "by": by}
            files.replace(self._record, json.dumps(record).encode())
            try:
                files.change_mode(pinned.path, status.st_mode & 0o7555, name=path)
            except TaoprofError:
                best_effort.forget(self._record)  # it is somebody else's file, which we may only write
                raise
            self._mine = record
            return True

    def take_off(self) -> int | None:
        """Give the file the mode that it had before; give that mode, None where there was no seal."""
        if not self.is_recorded() and self._mine is None:
            return None
        known, self._mine = self._known(), None
        if known is not None:
            for path in dict.fromkeys((known["path"], files.real(self._target))):  # it may have been moved
                self._give_back(path, known["mode"], known["ino"])
        best_effort.forget(self._record)
        return None if known is None else int(known["mode"])

    @staticmethod
    def _give_back(path: str, mode: int, ino: int) -> None:
        """Give the file that was sealed its mode, and no other file that has its name by now."""
        with _Pinned(path) as pinned:
            status = pinned.status
            # Not by the device's number, which another boot or host may give otherwise.
            is_it = status is not None and (status.st_ino == ino or status.st_mode & 0o7777 == mode & 0o7555)
            if status is not None and is_it and status.st_mode & 0o7777 != mode:
                files.change_mode(pinned.path, mode, name=path)

    def _known(self) -> dict[str, Any] | None:
        found = _read(self._record) or {}
        path, ino, mode = found.get("path"), found.get("ino"), found.get("mode")
        is_sound = type(ino) is type(mode) is int and 0 <= mode <= 0o7777 and isinstance(found.get("by"), str)
        return found if is_sound and isinstance(path, str) and os.path.isabs(path) else self._mine


class _Pinned:
    """A file by its descriptor, so that what is done by ``path`` is done to it, whoever has its name by then."""

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError):  # also a damaged record's path
            self._fd = -1
        self.path = f"/proc/self/fd/{self._fd}"
        self.status = os.fstat(self._fd) if self._fd >= 0 else None

    def __enter__(self) -> _Pinned:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class Untold:
    """Lines that a guard leaves for the next command of the same person, each told once."""

    def __init__(self, context: Context) -> None:
        self._path = context.untold

    def add(self, line: str) -> None:
        """Leave a line. Needs the lock."""
        text = "".join(f"{old}\n" for old in [*self._lines(self._path), " ".join(line.splitlines())][-_UNTOLD:])
        best_effort.write(self._path, text.encode("utf-8", "backslashreplace"))

    def take(self) -> list[str]:
        """Give the lines, and take them away; of two commands at once only one tells them."""
        mine = f"{self._path}-{os.getpid()}"
        if not best_effort.move(self._path, mine):
            return []
        lines = self._lines(mine)
        best_effort.forget(mine)
        return lines

    @staticmethod
    def _lines(path: str) -> list[str]:
        try:
            return (files.read(path, 1 << 16) or b"").decode("utf-8", "replace").splitlines()
        except TaoprofError:
            return []
