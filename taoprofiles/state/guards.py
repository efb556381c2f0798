"""What guards leave on disk: proof that one lives, what it knows, the seal, and what has not been told yet.

``guard/ID.claim`` is locked for as long as the guard of one host lives (ID stands for the very host), and
``guard/ID.json`` says what it knows. ``guard/seal.json`` is there while the mapping file is sealed, and says what mode
it had before. ``guard/untold`` has the lines that the next command tells.
"""

from __future__ import annotations

import json
import os
import time

from taoprofiles.errors import BusyError, TaoprofError
from taoprofiles.state import caches, claims, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.state.paths import Context

_LIMIT = 16 << 20
_UNTOLD = 20
"""Lines that are kept for the next command; what is older stands in the history and in the journal."""


class Guards:
    """The guards of one person's mapping file, on all hosts that share the home; ``here`` names this one."""

    def __init__(self, context: Context, here: str) -> None:
        import hashlib

        self._folder = context.guard
        self._name = hashlib.sha256(here.encode()).hexdigest()[:12]

    def begin(self) -> int:
        """Become the guard of this host; give the descriptor that proves it for as long as it is open.

        Raises BusyError where there is one. What a guard of an earlier boot left is taken away.
        """
        files.make_folder(self._folder)
        path = self._path(".claim")
        fd = claims.take(path)
        end = time.monotonic() + 0.5
        while fd is None and time.monotonic() < end:
            time.sleep(0.02)  # somebody who asks whether a guard lives has it for a moment
            fd = claims.take(path)
        if fd is None:
            known = self.known() or {}
            raise BusyError(
                f"a guard is at work already: pid {known.get('pid', 'unknown')}",
                hint="'taoprof service status' tells what it does",
            )
        for name in os.listdir(self._folder):
            stem, suffix = os.path.splitext(name)
            path = os.path.join(self._folder, stem)
            # Of another host's guard the locks may tell nothing, where the file system keeps them to one host.
            was_here = (_read(path + ".json") or {}).get("host") == os.uname().nodename
            if suffix == ".claim" and stem != self._name and was_here and not claims.claimed(path + ".claim"):
                caches.forget(path + ".claim")
                caches.forget(path + ".json")
        return fd

    def is_ours(self, fd: int) -> bool:
        """Whether the claim that ``begin`` gave is still the one that others look at."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path(".claim")))
        except OSError:
            return False

    def lives(self) -> bool:
        """Whether the guard of this host lives."""
        return claims.claimed(self._path(".claim"))

    def any_lives(self) -> bool:
        """Whether a guard lives on any host of this home, as far as the file system's locks tell."""
        return claims.any_claimed(self._folder)

    def publish(self, known: dict[str, Any]) -> None:
        """Write down what the guard of this host knows."""
        caches.write(self._path(".json"), json.dumps(known).encode())

    def known(self) -> dict[str, Any] | None:
        """Give what the guard of this host wrote last, whether it lives or not."""
        return _read(self._path(".json"))

    def forget(self) -> None:
        """Take away all that guards left, unless one lives; what has not been told yet, too."""
        if not self.any_lives():
            for name in os.listdir(self._folder) if os.path.isdir(self._folder) else []:
                caches.forget(os.path.join(self._folder, name))
            caches.forget_folder(self._folder)

    def _path(self, end: str) -> str:
        return os.path.join(self._folder, self._name + end)


def _read(path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(files.read(path, _LIMIT) or b"null")
    except (TaoprofError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class Seal:
    """The mapping file made read-only, so that a plain ``open(path, "w")`` fails in the program that tries it.

    All but ``is_recorded`` needs the lock. The record is written before the mode is changed: whatever dies, the mode
    can be given back.
    """

    def __init__(self, context: Context) -> None:
        self._target = context.mapping_file
        self._record = context.seal

    def is_recorded(self) -> bool:
        """Whether some guard has sealed the file and not unsealed it yet."""
        return os.path.lexists(self._record)

    def mode(self) -> int | None:
        """Give the mode that the file had before it was sealed; None where it is not."""
        known = self._known()
        return None if known is None else known["mode"]

    def put_on(self) -> bool:
        """Seal the file; false where it was so already. Raises TaoprofError."""
        status = self._status()
        if status is None:
            return False
        mode = status.st_mode & 0o7777
        known = self._known()
        is_same = known is not None and (known["dev"], known["ino"]) == (status.st_dev, status.st_ino)
        if not mode & 0o222:
            if is_same:
                return False
            mode = 0o600 if known is None else known["mode"]  # sealed by a guard whose record is gone, or a copy of it
        files.make_folder(os.path.dirname(self._record))
        record = {"dev": status.st_dev, "ino": status.st_ino, "mode": mode}
        files.replace(self._record, json.dumps(record).encode())
        files.change_mode(self._target, mode & ~0o222)
        return True

    def take_off(self) -> int | None:
        """Give the file the mode that it had before; give that mode, None where there was no seal."""
        if not self.is_recorded():
            return None
        known = self._known()
        status = self._status()
        if known is not None and status is not None and (known["dev"], known["ino"]) == (status.st_dev, status.st_ino):
            files.change_mode(self._target, known["mode"])
        caches.forget(self._record)
        return None if known is None else int(known["mode"])

    def _status(self) -> os.stat_result | None:
        try:
            return os.stat(self._target)
        except OSError:
            return None

    def _known(self) -> dict[str, int] | None:
        try:
            found = json.loads(files.read(self._record, 1 << 12) or b"null")
            return {key: int(found[key]) for key in ("dev", "ino", "mode")}
        except (TaoprofError, ValueError, KeyError, TypeError):
            return None


class Untold:
    """Lines that a guard leaves for the next command of the same person, each told once."""

    def __init__(self, context: Context) -> None:
        self._path = context.untold

    def add(self, line: str) -> None:
        """Leave a line. Needs the lock."""
        text = "".join(f"{old}\n" for old in [*self._lines(), " ".join(line.splitlines())][-_UNTOLD:])
        caches.write(self._path, text.encode("utf-8", "backslashreplace"))

    def take(self) -> list[str]:
        """Give the lines, and take them away; two commands at once do not both tell them."""
        if not os.path.lexists(self._path):
            return []
        lines = self._lines()
        try:
            files.remove(self._path)
        except TaoprofError:
            return []
        return lines

    def _lines(self) -> list[str]:
        try:
            return (files.read(self._path, 1 << 16) or b"").decode("utf-8", "replace").splitlines()
        except TaoprofError:
            return []
