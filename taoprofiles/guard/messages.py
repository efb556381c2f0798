"""Messages of the guard that the user's next command shows: ``guard/untold``, one a line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import best_effort, files

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

_LIMIT = 20
"""Lines that are kept for the next command; older ones are in the history and in the guard's log."""


class PendingMessages:
    """Lines that the guard leaves for the user's next command, which shows each of them once."""

    def __init__(self, context: Context) -> None:
        self._path = context.untold

    def add(self, line: str) -> None:
        """Add a line. Needs the lock."""
        text = "".join(f"{old}\n" for old in [*self._lines(self._path), " ".join(line.splitlines())][-_LIMIT:])
        best_effort.write(self._path, text.encode("utf-8", "backslashreplace"))

    def take(self) -> list[str]:
        """Return the lines and delete them; of two commands at the same time only one gets them."""
        mine = f"{self._path}-{os.getpid()}"
        if not best_effort.rename(self._path, mine):
            return []
        lines = self._lines(mine)
        best_effort.unlink_quietly(mine)
        return lines

    @staticmethod
    def _lines(path: str) -> list[str]:
        try:
            return (files.read(path, 1 << 16) or b"").decode("utf-8", "replace").splitlines()
        except TaoprofError:
            return []
