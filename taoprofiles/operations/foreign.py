"""Foreign writes: what another program wrote is kept, and undone where somebody's work needs what was there."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidStateError
from taoprofiles.operations import switch
from taoprofiles.state import files
from taoprofiles.state.history import MAPPING_LIMIT, History
from taoprofiles.values import mapping, policy
from taoprofiles.values.hold import in_the_way
from taoprofiles.world import writers

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.operations.stock import Stock
    from taoprofiles.state.paths import Context
    from taoprofiles.values.hold import Hold

WRITING = 0.02
"""Seconds that a program which is just writing the file has to come to an end, before what it wrote is judged."""

LATE = 60.0
"""Seconds for which a file that was replaced under its writer is looked at, for what is still written into it."""

LATE_AGAIN = 0.2
"""Seconds between two such looks, and for which a file is looked at that nobody seems to write."""

_SEARCHED = 200
"""Entries of the history in which the mapping that is held is looked for."""


class ForeignWrites:
    """Answers them, at most ``restores`` times a minute by undoing one. Everything needs the lock.

    ``say`` is told of each (how grave it is, and the line); ``shout`` of what the person must hear of by any means.
    """

    def __init__(
        self, context: Context, restores: int, say: Callable[[str, str], None], shout: Callable[[str], None]
    ) -> None:
        self._context, self._say, self._shout = context, say, shout
        self._history = History(context)
        self._late: list[tuple[int, str, float]] = []
        self.limit = policy.Limit(restores)

    def let_the_writer_end(self) -> tuple[str | None, bytes | None]:
        """Wait a moment for whoever is writing; give its name, where it is seen, and what the file holds then."""
        path, end = self._context.mapping_file, time.monotonic() + WRITING
        writer = writers.who_writes(path)
        fd = self._open()
        if fd is not None:
            try:
                while writers.is_being_written(fd) and time.monotonic() < end:
                    time.sleep(0.001)
            finally:
                os.close(fd)
        return writer, files.read(path, MAPPING_LIMIT)

    def answer(
        self, stock: Stock, content: bytes | None, writer: str | None, good: tuple[int | None, str | None]
    ) -> bytes | None:
        """Undo a foreign write, or keep it as the mapping that is now in force; give what the file holds then.

        ``good`` is the mode and the symlink (see ``files.replace``) that the file had while it was as it should be.
        """
        holders = in_the_way(stock.holds, mapping.digest(content or b""))
        path = self._context.short(self._context.mapping_file)
        did = f"{writer or 'another program'} {'removed' if content is None else 'wrote'} {path}"
        if not holders:
            entry = switch.take_in(self._context, writer=writer)
            if entry is not None:
                self._say("notice", f"{did} while nothing needed it: no profile is active now (history entry {entry})")
            return content
        wanted = self.what_is_held(holders)
        first = holders[0]
        did += f" while {repr(first.profile) if first.profile else 'it'} is held by {first.line().replace('   ', ', ')}"
        if wanted is not None and self.limit.take(time.monotonic()):
            self._follow(content)
            mode, link = good
            mode = 0o600 if mode is None else mode
            entry = switch.put_back(self._context, wanted[1], wanted[0], link=link, mode=mode, writer=writer)
            kept = f"; 'taoprof undo {entry}' brings back what it wrote" if entry else ""
            self._shout(f"{did}: put back{kept}")
            return wanted[1]
        entry = switch.take_in(self._context, writer=writer)
        why = f"{self.limit.times} times in a minute are the limit" if wanted else "the history has lost what was there"
        self._shout(f"{did}: NOT put back, since {why} (history entry {entry})")
        return content

    def what_is_held(self, holders: list[Hold]) -> tuple[str | None, bytes] | None:
        """Find the mapping that the holders need, the latest first: its profile and its content."""
        wanted = {hold.digest for hold in holders}
        seen: set[str] = set()
        for number, entry in enumerate(self._history.newest_first()):
            if number == _SEARCHED:
                break
            if entry.target != "mapping" or entry.after is None or entry.after in seen:
                continue
            seen.add(entry.after)
            try:
                content = self._history.content(entry.after)
            except InvalidStateError:
                continue
            if mapping.digest(content) in wanted:
                return entry.profile, content
        return None

    def keep_late_writes(self) -> float | None:
        """Keep what programs still wrote into files that were replaced under them; give the seconds to the next look.

        None where there is nothing more to look at.
        """
        going_on = []
        for fd, digest, end in self._late:
            content = os.pread(fd, MAPPING_LIMIT, 0)
            now = hashlib.sha256(content).hexdigest()
            is_written = writers.is_being_written(fd) and time.monotonic() < end
            if not is_written and now != digest and content and not self._history.knows(content):
                entry = switch.keep_late(self._context, content)
                self._say("notice", f"'taoprof undo {entry}' brings back what was still written after that")
            if is_written or time.monotonic() < end - LATE + LATE_AGAIN:
                going_on.append((fd, digest if is_written else now, end))
            else:
                os.close(fd)
        self._late = going_on
        return LATE_AGAIN if going_on else None

    def _follow(self, content: bytes | None) -> None:
        """Keep the file that is about to be replaced open: its writer may not have come to an end."""
        fd = self._open()
        if fd is not None:
            self._late.append((fd, hashlib.sha256(content or b"").hexdigest(), time.monotonic() + LATE))

    def _open(self) -> int | None:
        try:
            return os.open(self._context.mapping_file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
