"""What a guard tells of each look: lines for what has changed, and all that it knows, for other commands."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from taoprofiles.holds.hold import needing_mapping_file
from taoprofiles.storage.journal import History
from taoprofiles.switching import status as situation
from taoprofiles.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.guard.status import Guards
    from taoprofiles.holds.hold import Hold
    from taoprofiles.holds.liveness import ActiveHolds, Containers
    from taoprofiles.storage.paths import Context


class Reporter:
    """Remembers what was told, so that each thing is told once."""

    def __init__(self, context: Context, guards: Guards, say: Callable[[str, str], None]) -> None:
        self._context, self._guards, self._say = context, guards, say
        self._history = History(context)
        self._holds: list[Hold] = []
        self._unseen: set[str] = set()
        self._profile: object = None
        self._name = ""
        self._is_drifted = False

    def report(
        self, stock: ActiveHolds, content: bytes | None, engine: Containers, *, is_sealed: bool, problem: str
    ) -> str:
        """Tell what has changed since the last time, publish what is known, and give it in a line."""
        self._tell_changes(stock)
        self._mind_drift(content)
        held = needing_mapping_file(stock.holds)
        own = len(stock.holds) - len(held)
        beside = f", {own} beside it" if own else ""
        who = "; ".join(hold.line() for hold in held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
        how = f"held{' and sealed' if is_sealed else ''} by {who}" if held else "free"
        line = f"{self._name}{' ' if held else ', '}{how}{beside}"
        self._guards.publish(
            {
                "version": VERSION,
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "looked": time.time(),
                "line": line,
                "is_sealed": is_sealed,
                "problem": problem or None,
                "engine": {"address": engine.address, "answers": engine.complete},
                "holds": [hold.as_dict() for hold in stock.holds],
                "unseen": stock.unseen,
            }
        )
        return line

    def _tell_changes(self, stock: ActiveHolds) -> None:
        before, now = {hold.id for hold in self._holds}, {hold.id for hold in stock.holds}
        for hold in stock.holds:
            if hold.id not in before and hold.shared and not hold.released:
                self._say("info", f"held: {hold.line()}")
        for hold in self._holds:
            if hold.id not in now and hold.shared:
                self._say("info", f"no longer held: {hold.title()}, hold {hold.id}")
        self._holds = stock.holds
        for text in stock.unseen:
            if text not in self._unseen:
                self._say("warning", text)
        self._unseen = set(stock.unseen)

    def _mind_drift(self, content: bytes | None) -> None:
        """Find out whether the profile in force was edited, when its file has changed; nothing follows but a line."""
        entry = self._history.in_force(content)
        name = entry.profile if entry else None
        try:
            status = os.stat(self._context.profile_file(name)) if name else None
        except OSError:
            status = None
        signature = (
            content is None,
            entry and entry.id,
            status and (status.st_ino, status.st_size, status.st_mtime_ns),
        )
        if signature == self._profile:
            return
        self._profile = signature
        was, self._name = self._is_drifted, f"'{name}'" if name else "no file" if content is None else "unmanaged"
        found = situation.look(self._context) if name else None
        # What cannot be rendered here may well be in the person's shell, which has other variables.
        self._is_drifted = found is not None and found.state == "drifted" and not found.problem
        if self._is_drifted:
            self._name += " (edited since)"
            if not was:
                self._say(
                    "info", f"profile '{name}' is not what it was: 'taoprof use {name}' applies it, when you like"
                )
