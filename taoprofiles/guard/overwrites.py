"""Foreign writes: what another program wrote is kept, and undone where somebody's work needs what was there."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidStateError
from taoprofiles.guard import policy
from taoprofiles.holds.hold import blocking_holds
from taoprofiles.mounts import mapping
from taoprofiles.storage.atomic import FileAttributes
from taoprofiles.storage.files import MAPPING_LIMIT, PRIVATE
from taoprofiles.storage.journal import History
from taoprofiles.switching import switch
from taoprofiles.system import open_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.guard.witness import Witness
    from taoprofiles.holds.hold import Hold
    from taoprofiles.storage.paths import Context

WRITING = 0.02
"""Seconds that a program which is just writing the file has to come to an end, before what it wrote is judged."""

LATE = 60.0
"""Seconds for which a file that was replaced under its writer is looked at, for what is still written into it."""

LATE_AGAIN = 0.2
"""Seconds between two such looks, and for which a file is looked at that nobody seems to write."""

_LATE_FILES = 200
"""Files that are looked at so at a time: each is an open descriptor."""

_SEARCHED = 200
"""Entries of the history in which the mapping that is held is looked for."""


class ForeignWrites:
    """Answers them. Everything needs the lock; ``say`` is told of each: how grave it is, and the line.

    ``limit`` is how many are undone.
    """

    def __init__(
        self, context: Context, limit: policy.Limit, witness: Witness, say: Callable[[str, str], None]
    ) -> None:
        self._context, self._say, self._witness, self.limit = context, say, witness, limit
        self._history = History(context)
        self._late: list[tuple[int, str, float]] = []
        self._gave_up = False

    def let_the_writer_end(self) -> str | None:
        """Wait a moment for whoever is writing; give its name, where it is seen."""
        path, end = self._context.mapping_file, time.monotonic() + WRITING
        writer = open_files.who_writes(path)
        fd = self._open()
        if fd is not None:
            try:
                while open_files.is_being_written(fd) and time.monotonic() < end:
                    time.sleep(0.001)
            finally:
                os.close(fd)
        return writer or self._witness.who_wrote(path)

    def answer(
        self,
        holds: list[Hold],
        content: bytes | None,
        *,
        writer: str | None,
        link: str | None,
        like: FileAttributes | None,
    ) -> bytes | None:
        """Undo a foreign write, or keep it as the mapping that is now in force; give what the file holds then.

        ``link`` and ``like`` are what the file was while it was as it should be (see ``atomic.replace``).
        """
        now, digest = time.monotonic(), mapping.digest(content or b"")
        path = self._context.short(self._context.mapping_file)
        did = f"{writer or 'another program'} {'removed' if content is None else 'wrote'} {path}"
        holders = blocking_holds(holds, digest)
        wanted = self.what_is_held(holders) if holders else None
        decision = policy.answer(holds, digest, is_allowed=wanted is not None and self.limit.allows(now))
        if holders:
            first = holders[0]
            of = f"'{first.profile}'" if first.profile else "it"
            did += f" while {of} is held by {first.line().replace('   ', ', ')}"
        if decision == "undo" and wanted is not None:
            like = like or FileAttributes(PRIVATE, self._context.uid, self._context.gid)
            entry = switch.put_back(
                self._context, wanted[1], wanted[0], link=link, like=like, writer=writer, follow=self._follow
            )
            self.limit.count(now)
            self._gave_up = False
            kept = f"; 'taoprof undo {entry}' brings back what it wrote" if entry else ""
            self._say("alert", f"{did}: put back{kept}")
            return wanted[1]
        known = switch.take_in(self._context, content, writer=writer)
        if decision == "keep" and known is not None:
            why = "in other words, but to the same effect as what is needed" if policy.to_seal(holds, digest) else ""
            why = why or "while nothing needed it"
            self._say("notice", f"{did} {why}: no profile is active now (history entry {known})")
        elif decision == "leave":
            self.limit.count(now)
            why = "the history has lost what was there"
            if wanted is not None:
                why = f"more than {self.limit.times} came in a minute" if self.limit.times else "'restores' is 0"
            # A program that goes on and on is in the history each time, and shouted of once.
            level = "notice" if self._gave_up else "alert"
            self._say(level, f"{did}: NOT put back, since {why} (history entry {known})")
            self._gave_up = True
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
        for one in list(self._late):
            fd, digest, end = one
            content = self._still_there(fd)
            now = hashlib.sha256(content).hexdigest()
            is_written = open_files.is_being_written(fd) and time.monotonic() < end
            if is_written:
                continue
            if now != digest and content and not self._history.knows(content):
                entry = switch.keep_late(self._context, content)
                self._say("notice", f"'taoprof undo {entry}' brings back what was still written after that")
            self._late.remove(one)
            if time.monotonic() < end - LATE + LATE_AGAIN:
                self._late.append((fd, now, end))
            else:
                os.close(fd)
        return LATE_AGAIN if self._late else None

    def _still_there(self, fd: int) -> bytes:
        try:
            return os.pread(fd, MAPPING_LIMIT, 0)
        except OSError:
            return b""  # it was removed on another host of an NFS home

    def _follow(self, fd: int) -> None:
        """Look again at a file that is being replaced: its writer may not have come to an end."""
        if len(self._late) < _LATE_FILES:
            self._late.append((fd, "", time.monotonic() + LATE))
        else:
            os.close(fd)

    def _open(self) -> int | None:
        try:
            return os.open(self._context.mapping_file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
