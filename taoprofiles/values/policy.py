"""What a guard decides: whether a foreign write is undone, and whether the mapping file is sealed."""

from __future__ import annotations

from collections import deque

from taoprofiles.values.hold import in_the_way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from taoprofiles.values.hold import Hold


class Limit:
    """At most ``times`` a minute. Time is in seconds, by any clock that only goes forward."""

    def __init__(self, times: int) -> None:
        self.times = times
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Take one if there is one left."""
        while self._taken and now - self._taken[0] >= 60:
            self._taken.popleft()
        if len(self._taken) >= self.times:
            return False
        self._taken.append(now)
        return True


def is_held(holds: Iterable[Hold]) -> bool:
    """Whether any work needs the shared mapping file."""
    return any(hold.shared and not hold.released for hold in holds)


def to_seal(holds: list[Hold], digest: str) -> bool:
    """Whether to seal a file that holds the mapping ``digest``: somebody needs it, and nobody needs another."""
    return is_held(holds) and not in_the_way(holds, digest)
