"""The files of the guards: proof that a guard is alive, and the state that it publishes for other commands.

``guard/ID.claim`` is locked while the guard of one host is alive (ID is a hash of the host's identity), and
``guard/ID.json`` holds the state that it published.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import GuardedError
from taoprofiles.storage import best_effort, files, locks
from taoprofiles.storage.locks import LivenessLock

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.storage.paths import Context

FORMAT = 1
_LIMIT = 16 << 20


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
        fd = LivenessLock(path).try_acquire()
        end = time.monotonic() + 0.5
        while fd is None and time.monotonic() < end:
            time.sleep(0.02)  # somebody who asks whether a guard lives has it for a moment
            fd = LivenessLock(path).try_acquire()
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
            was_here = (best_effort.read_json(path + ".json", _LIMIT) or {}).get("host") == os.uname().nodename
            if suffix == ".claim" and stem != self.name and was_here and not LivenessLock(path + ".claim").is_held():
                best_effort.unlink_quietly(path + ".claim")
                best_effort.unlink_quietly(path + ".json")
        return fd

    def is_ours(self, fd: int) -> bool:
        """Whether the claim that ``begin`` gave is still the one that others look at."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path(".claim")))
        except OSError:
            return False

    def lives(self, name: str = "") -> bool:
        """Whether the guard of this host lives, or the one of that name."""
        return LivenessLock(self._path(".claim", name)).is_held()

    def any_lives(self) -> bool:
        """Whether a guard lives on any host of this home, as far as the file system's locks tell."""
        return locks.any_held(self._folder)

    def publish(self, known: dict[str, Any]) -> None:
        """Write down what the guard of this host knows."""
        data = json.dumps({"v": FORMAT, **known}).encode()
        if not best_effort.write(self._path(".json"), data):
            best_effort.overwrite(self._path(".json"), data)  # a full disk still has the room that the old one takes

    def known(self) -> dict[str, Any] | None:
        """Give what the guard of this host wrote last, whether it lives or not; None for another format."""
        found = best_effort.read_json(self._path(".json"), _LIMIT) or {}
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
                best_effort.unlink_quietly(os.path.join(self._folder, name))
            best_effort.rmdir_quietly(self._folder)

    def _path(self, end: str, name: str = "") -> str:
        return os.path.join(self._folder, (name or self.name) + end)
