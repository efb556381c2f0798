"""The guard: looks at the mapping file, at whose work needs it, and protects it; it never switches on its own.

Everything happens in ``look``, which is called whenever something may have changed, and which works out all of it anew:
a hint that came twice, or for nothing, does no harm. All that is done has one line that says why.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import InvalidStateError
from taoprofiles.operations import situation, switch
from taoprofiles.operations.foreign import ForeignWrites
from taoprofiles.operations.stock import Stock, take_stock
from taoprofiles.state import claims, files
from taoprofiles.state.guards import Guards, Seal, Untold
from taoprofiles.state.history import MAPPING_LIMIT, History
from taoprofiles.state.locks import Lock
from taoprofiles.values import mapping, policy, proof
from taoprofiles.values.hold import RUN_VARIABLE
from taoprofiles.version import VERSION
from taoprofiles.world import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taoprofiles.operations.containers import Containers
    from taoprofiles.state.history import Entry
    from taoprofiles.state.paths import Context
    from taoprofiles.values.hold import Hold
    from taoprofiles.values.settings import Settings

FORMAT = 1

LOCK_PATIENCE = 0.3
"""Seconds to wait for the lock in one look; then the look is made again a little later."""


class Guard:
    """Protects one mapping file. For one thread; ``say`` is told what was done and why, and how grave it is.

    ``holds`` is whose work was alive at the last look, ``line`` what a person wants to know in one line, ``due`` when
    to look again at the latest (monotonic seconds). ``problem`` is what else hinders it, to be published.
    """

    def __init__(
        self,
        context: Context,
        settings: Settings,
        engine: Callable[[], Containers | None],
        say: Callable[[str, str], None],
    ) -> None:
        self._context, self._settings, self._engine, self._say = context, settings, engine, say
        self._history, self._seal = History(context), Seal(context)
        self._guards = Guards(context, processes.place())
        self._foreign = ForeignWrites(context, settings.restores, say, self._shout)
        self._needs: dict[object, tuple[str | None, str | None]] = {}
        self._proved: dict[str, list[str]] = {}
        self._good: tuple[int | None, str | None] = (None, "")  # mode and symlink of the file while it was as it should
        self._told: set[str] = set()
        self._sees_keepers = self._is_drifted = False
        self._profile: object = None
        self._name = ""
        self.holds: list[Hold] = []
        self.is_sealed = False
        self.due = float("inf")
        self.line = ""
        self.problem = ""

    def use(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._settings = settings
        self._foreign.limit.times = settings.restores

    def begin(self) -> None:
        """Clear up what a killed switch, restore or guard left. Raises TaoprofError, BusyError."""
        with Lock(self._context.lock):
            self._seal.take_off()
            switch.recover(self._context)

    def end(self) -> None:
        """Give the file its mode back. Raises BusyError, TaoprofError."""
        with Lock(self._context.lock, 0.5):
            self._seal.take_off()
            self._guards.publish({**(self._guards.known() or {}), "v": FORMAT, "pid": None, "is_sealed": False})

    def look(self) -> None:
        """Look at everything and do what has to be done.

        Raises BusyError where another command has the lock for longer, TaoprofError for what the system refuses: then
        whatever could be done has been done, and the next look tries the rest again.
        """
        with Lock(self._context.lock, LOCK_PATIENCE):
            content = files.read(self._context.mapping_file, MAPPING_LIMIT)
            entry = self._history.in_force(content)
            writer = None
            if entry is None and content is not None:
                writer, content = self._foreign.let_the_writer_end()
                entry = self._history.in_force(content)
            stock = take_stock(self._context, content, may_write=True, engine=self._engine())
            self._remember(stock, is_foreign=entry is None)
            try:
                if entry is None:
                    content = self._foreign.answer(stock, content, writer, self._good)
                again = self._foreign.keep_late_writes()
                self.due = float("inf") if again is None else time.monotonic() + again
                self._mind_the_seal(stock, content)
            finally:
                self._prove(stock)
                self._tell_changes(stock)
                self._publish(stock, content)

    # Who needs what

    def _remember(self, stock: Stock, *, is_foreign: bool) -> None:
        """Give found work the mapping that was there when it was first seen, not the one that is there now."""
        written = self._changed_at() if is_foreign else 0.0
        last = next((e for e in self._history.newest_first() if e.target == "mapping"), None) if is_foreign else None
        needs: dict[object, tuple[str | None, str | None]] = {}
        for hold in stock.holds:
            if hold.kind != "found":
                continue
            keys = [key for key in ((hold.pid, hold.start) if hold.pid else None, hold.container) if key]
            known = next((self._needs[key] for key in keys if key in self._needs), None)
            if known is None and last is not None and last.after is not None and hold.since < written:
                known = (self._digest_of(last), last.profile)  # it started before the file was overwritten
            if known is not None:
                hold.digest, hold.profile = known
            needs.update(dict.fromkeys(keys, (hold.digest, hold.profile)))
        self._needs = needs
        if not is_foreign:
            self._good = (self._mode(), files.link_of(self._context.mapping_file))

    def _digest_of(self, entry: Entry) -> str | None:
        try:
            return mapping.digest(self._history.content(entry.after or ""))
        except InvalidStateError:
            return None

    def _changed_at(self) -> float:
        try:
            return os.stat(self._context.mapping_file).st_ctime
        except OSError:
            return time.time()

    def _mode(self) -> int | None:
        """Give the mode that the file has when it is not sealed; None where there is no file."""
        recorded = self._seal.mode()
        if recorded is not None:
            return recorded
        try:
            return os.stat(self._context.mapping_file).st_mode & 0o7777
        except OSError:
            return None

    def _mind_the_seal(self, stock: Stock, content: bytes | None) -> None:
        sealed = policy.to_seal(stock.holds, mapping.digest(content or b"")) and content is not None
        if sealed and self._settings.seal:
            if self._seal.put_on():
                self._say("debug", "the mapping file is read-only while it is held")
        elif self._seal.take_off() is not None:
            self._say("debug", "the mapping file can be written again: nothing needs it any more")
        self.is_sealed = self._seal.is_recorded()

    def _prove(self, stock: Stock) -> None:
        """Compare each new container of found work with its mapping; a run's own process does so for its own."""
        engine = self._engine()
        proved: dict[str, list[str]] = {}
        for hold in stock.holds:
            if hold.kind != "found" or hold.container is None or engine is None:
                continue
            if hold.container in self._proved:
                proved[hold.container] = self._proved[hold.container]
            else:
                seen, wanted = engine.inspect(hold.container), self._foreign.what_is_held([hold])
                if seen and wanted is not None:
                    told = proof.differences(mapping.parse(wanted[1], ""), seen, processes.environment(hold.pid))
                    proved[hold.container] = told
                    for line in told:
                        self._shout(f"container {hold.container[:6]} ({hold.title()}): {line}")
            hold.differences = proved.get(hold.container, [])
        self._proved = proved

    # What is said

    def _mind_drift(self, content: bytes | None) -> None:
        """Find out whether the profile in force was edited, when its file has changed; nothing follows but a line."""
        entry = self._history.in_force(content)
        name = entry.profile if entry else None
        try:
            status = os.stat(self._context.profile_file(name)) if name else None
        except OSError:
            status = None
        signature = (entry and entry.id, status and (status.st_ino, status.st_size, status.st_mtime_ns))
        if signature == self._profile:
            return
        self._profile = signature
        was, self._name = self._is_drifted, f"'{name}'" if name else "unmanaged" if content is not None else "no file"
        self._is_drifted = name is not None and situation.look(self._context).state == "drifted"
        if self._is_drifted:
            self._name += " (edited since)"
            if not was:
                self._say(
                    "info", f"profile '{name}' is not what it was: 'taoprof use {name}' applies it, when you like"
                )

    def _tell_changes(self, stock: Stock) -> None:
        before, now = {hold.id for hold in self.holds}, {hold.id for hold in stock.holds}
        for hold in stock.holds:
            if hold.id not in before and hold.shared and not hold.released:
                self._say("info", f"held: {hold.line()}")
        for hold in self.holds:
            if hold.id not in now and hold.shared:
                self._say("info", f"no longer held: {hold.title()}, hold {hold.id}")
        self.holds = stock.holds
        for text in stock.unseen:
            if text not in self._told:
                self._say("warning", text)
        self._told = set(stock.unseen)

    def _shout(self, line: str) -> None:
        self._say("alert", line)
        Untold(self._context).add(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")

    def _publish(self, stock: Stock, content: bytes | None) -> None:
        held = [hold for hold in stock.holds if hold.shared and not hold.released]
        self._mind_drift(content)
        what = self._name
        own = len(stock.holds) - len(held)
        beside = f", {own} beside it" if own else ""
        who = "; ".join(hold.line() for hold in held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
        self.line = f"{what} held{' and sealed' if self.is_sealed else ''} by {who}{beside}" if held else (
            f"{what}, free{beside}"
        )  # fmt: skip
        engine = self._engine()
        sighting = engine.sighting(stock.keepers) if engine else None
        # That no keeper is seen tells something only where keepers have been seen: an engine may be in another machine.
        self._sees_keepers = self._sees_keepers or bool(sighting and sighting["ids"])
        self._guards.publish(
            {
                "v": FORMAT,
                "version": VERSION,
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "looked": time.time(),
                "line": self.line,
                "is_sealed": self.is_sealed,
                "problem": self.problem or None,
                "engine": {"address": engine.address, "answers": engine.was_seen} if engine else None,
                "sighting": sighting if self._sees_keepers else None,
                "holds": [hold.as_dict() for hold in stock.holds],
                "unseen": stock.unseen,
            }
        )

    def watched(self) -> Iterator[int]:
        """Give the pids of this host whose end may be the end of a hold."""
        here = processes.place()
        marks: dict[str, list[int]] | None = None
        for hold in self.holds:
            if hold.place != here:
                continue
            if hold.pid and processes.alive(hold.pid, hold.start):
                yield hold.pid
            elif hold.kind in ("run", "shell", "notebook"):
                if marks is None:
                    marks = {}
                    for pid, mark in processes.marked(self._context.uid, RUN_VARIABLE):
                        marks.setdefault(mark, []).append(pid)
                yield from marks.get(hold.id, [])

    def next_end(self) -> float | None:
        """Give the seconds until the first hold by hand ends by itself; None where none does."""
        ends = [hold.until - time.time() for hold in self.holds if hold.until is not None]
        return max(0.05, min(ends)) if ends else None


def unseal(context: Context) -> bool:
    """Take off a seal whose guard is dead; true where there was one. Raises BusyError, TaoprofError."""
    if not os.path.lexists(context.seal) or claims.any_claimed(context.guard):
        return False
    with Lock(context.lock):
        return Seal(context).take_off() is not None


def status(context: Context) -> dict[str, Any] | None:
    """Give what the guard of this host knows (see ``Guard``), None where none lives."""
    guards = Guards(context, processes.place())
    return guards.known() if guards.lives() else None
