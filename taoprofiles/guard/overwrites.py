"""Overwrites: what another program writes to the mapping file is stored, and undone if a run needs what was there."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress

from taoprofiles.errors import InvalidStateError
from taoprofiles.holds.hold import Hold, blocking_holds, shared_holds
from taoprofiles.holds.liveness import past_mappings
from taoprofiles.mounts import mapping
from taoprofiles.storage import files
from taoprofiles.storage.atomic import FileAttributes
from taoprofiles.storage.files import PRIVATE
from taoprofiles.storage.journal import History
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch
from taoprofiles.system import processes

GUARD_WRITER_TIMEOUT = 0.02
"""Seconds to wait for a program that is writing the file, before its content is read again."""

logger = logging.getLogger(__name__)


class RateLimiter:
    """Allows at most ``limit`` events a minute. Time is in seconds of any monotonic clock.

    Refused events count as well: a program that goes on at a higher rate is allowed again only after a slower minute.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._times: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Return whether an event is allowed now; does not count it."""
        while self._times and now - self._times[0] >= 60:
            self._times.popleft()
        return len(self._times) < self.limit

    def count(self, now: float) -> None:
        """Count an event, allowed or refused."""
        self._times.append(now)


def should_seal(holds: list[Hold], digest: str) -> bool:
    """Return whether to seal a file with the mapping ``digest``: a hold needs it, and none needs another one."""
    return bool(shared_holds(holds)) and not blocking_holds(holds, digest)


class Overwrites:
    """Handles overwrites. All methods need the lock; ``restores`` is how many are undone a minute.

    ``gave_up`` says that the last overwrite was left in place although a hold needs another mapping.
    """

    def __init__(self, context: Context, restores: int) -> None:
        self._context = context
        self._limiter = RateLimiter(restores)
        self._history = History(context)
        self.gave_up = False

    def wait_for_writer(self) -> str | None:
        """Wait a moment for a program that is writing the file, and return its pid and command if it is seen."""
        path = self._context.mapping_file
        writer = processes.find_writer(path)
        with suppress(OSError), open(path, "rb", opener=files.open_nonblocking) as file:
            processes.wait_for_writer(file.fileno(), GUARD_WRITER_TIMEOUT)
        return writer

    def handle(
        self,
        holds: list[Hold],
        content: bytes | None,
        *,
        writer: str | None,
        link: str | None,
        attributes: FileAttributes | None,
    ) -> bytes | None:
        """Undo an overwrite, or accept it as the current mapping; return the content of the file afterwards.

        ``link`` and ``attributes`` describe the file before the overwrite (see ``atomic.replace``). Raises
        TaoprofError.
        """
        now, digest = time.monotonic(), mapping.digest(content or b"")
        holders = blocking_holds(holds, digest)
        wanted = self.find_mapping(holders) if holders else None
        event = self._describe(content, writer, holders)
        if wanted is not None and self._limiter.allows(now):
            profile, restored = wanted
            attributes = attributes or FileAttributes(PRIVATE, self._context.uid, self._context.gid)
            undo = switch.restore(self._context, restored, profile, link=link, attributes=attributes, writer=writer)
            self._limiter.count(now)
            self.gave_up = False
            logger.error("%s: restored%s", event, f". To get the other version: taoprof undo {undo}" if undo else "")
            return restored
        entry = None
        if files.read_mapping_file(self._context) == content:
            entry = self._history.record_external_change(content, writer=writer)
        if holders:
            self._limiter.count(now)
            why = "the history has lost the previous mapping"
            if wanted is not None:
                limit = self._limiter.limit
                why = (
                    f"it was overwritten more than {limit} times in a minute"
                    if limit
                    else "the guard runs with --restores 0"
                )
            # Of repeated overwrites each is in the history, but only the first is reported by the next command.
            level = logging.INFO if self.gave_up else logging.ERROR
            logger.log(level, "%s: not restored, because %s (history entry %s)", event, why, entry)
            self.gave_up = True
        elif entry is not None:
            is_same = should_seal(holds, digest)
            why = "with an equivalent mapping" if is_same else "while it was not in use"
            logger.info("%s %s: no profile is active now (history entry %s)", event, why, entry)
        return content

    def find_mapping(self, holders: list[Hold]) -> tuple[str | None, bytes] | None:
        """Return the mapping that the first of the holders needs, or else another: its profile and its content."""
        for hold in holders:
            if hold.content is not None:
                with suppress(InvalidStateError):  # it is lost
                    return hold.profile, self._history.load_content(hold.content)
        digests = {hold.digest for hold in holders}
        mappings = past_mappings(self._history)
        return next(
            ((entry.profile, content) for entry, content in mappings if mapping.digest(content) in digests), None
        )

    def _describe(self, content: bytes | None, writer: str | None, holders: list[Hold]) -> str:
        path = self._context.short(self._context.mapping_file)
        verb = "removed" if content is None else "overwrote" if holders else "wrote"
        event = f"{writer or 'another program'} {verb} {path}"
        if holders:
            name = f"'{holders[0].profile}'" if holders[0].profile else "it"
            event += f" while {name} was in use ({holders[0].line().replace('   ', ', ')})"
        return event
