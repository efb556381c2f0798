"""What a guard decides: what becomes of a foreign write, and whether the mapping file is sealed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from taoprofiles.holds.hold import blocking_holds, needing_mapping_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taoprofiles.holds.hold import Hold


class Limit:
    """Lets through what comes at most ``times`` a minute. Time is in seconds, by any clock that only goes forward.

    What is not let through counts as well: whoever goes on at a higher rate is let through again only after a minute
    with less.
    """

    def __init__(self, times: int) -> None:
        self.times = times
        self._tried: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Whether one more is let through now; nothing is counted."""
        while self._tried and now - self._tried[0] >= 60:
            self._tried.popleft()
        return len(self._tried) < self.times

    def count(self, now: float) -> None:
        """Count one, let through or not."""
        self._tried.append(now)


def answer(holds: Iterable[Hold], digest: str, *, is_allowed: bool) -> str:
    """Decide about a foreign write that left the mapping ``digest``.

    "keep" it as what is now in force where nobody needs another mapping; else "undo" it, or "leave" it where no more
    are to be undone.
    """
    if not blocking_holds(holds, digest):
        return "keep"
    return "undo" if is_allowed else "leave"


def to_seal(holds: list[Hold], digest: str) -> bool:
    """Whether to seal a file that holds the mapping ``digest``: somebody needs it, and nobody needs another."""
    return bool(needing_mapping_file(holds)) and not blocking_holds(holds, digest)
