"""The guard: looks at the mapping file, at whose work needs it, and protects it; it never switches on its own.

Everything happens in ``look``, which is called whenever something may have changed, and which works out all of it anew:
a hint that came twice, or for nothing, does no harm. All that is done has one line that says why.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.guard import policy
from taoprofiles.guard.messages import PendingMessages
from taoprofiles.guard.overwrites import ForeignWrites
from taoprofiles.guard.reporter import Reporter
from taoprofiles.guard.status import Guards
from taoprofiles.guard.witness import Witness
from taoprofiles.holds.hold import OWN_KINDS, RUN_VARIABLE, blocking_holds, needing_mapping_file
from taoprofiles.holds.liveness import ActiveHolds, Containers, find_active_holds, seconds_held
from taoprofiles.mounts import comparison, mapping
from taoprofiles.storage import files, locks
from taoprofiles.storage.atomic import FileAttributes
from taoprofiles.storage.files import MAPPING_LIMIT
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import Lock
from taoprofiles.switching import switch
from taoprofiles.switching.seal import Seal
from taoprofiles.system import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taoprofiles.guard.settings import Settings
    from taoprofiles.holds.hold import Hold
    from taoprofiles.storage.journal import Entry
    from taoprofiles.storage.paths import Context

_Shape: TypeAlias = tuple[FileAttributes | None, str | None]
"""Whose the file is and its mode without a seal, None for no file; and what it names if it is a symlink, else None."""

LOCK_PATIENCE = 0.3
"""Seconds to wait for the lock in one look; then the look is made again a little later."""


class Guard:
    """Protects one mapping file. For one thread; ``say`` is told what was done and why, and how grave it is.

    ``engine`` gives what is known of the container engine. ``holds`` is whose work was alive at the last look, ``line``
    what a person wants to know in one line, ``due`` when to look again at the latest (monotonic seconds). ``problem``
    is what else hinders it, to be published. ``witness`` must be listened to when it has something to tell.
    """

    def __init__(
        self,
        context: Context,
        settings: Settings,
        engine: Callable[[], Containers],
        say: Callable[[str, str], None],
    ) -> None:
        self._context, self._settings, self._engine, self._sink = context, settings, engine, say
        self._history, self._seal = History(context), Seal(context)
        self._guards = Guards(context, processes.place())
        path = context.mapping_file
        self.witness = Witness(*dict.fromkeys((os.path.dirname(path), os.path.dirname(files.real_path(path)))))
        self._foreign = ForeignWrites(context, policy.Limit(settings.restores), self.witness, self._say)
        self._reporter = Reporter(context, self._guards, self._say)
        self._needs: dict[object, tuple[str | None, str | None]] = {}
        self._proved: dict[str, list[str]] = {}
        self._stock: ActiveHolds | None = None
        self._content: bytes | None = None
        self._good: _Shape = (None, "")  # what the file was while it was as it should be
        self._landed = 0
        self._trouble = ""
        self.due = float("inf")
        self.line = self.problem = ""

    @property
    def holds(self) -> list[Hold]:
        """Whose work was alive at the last look."""
        return self._stock.holds if self._stock else []

    def use(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._settings = settings
        self._foreign.limit.times = settings.restores

    def begin(self) -> None:
        """Clear up what a killed switch, restore or guard left. Raises TaoprofError, BusyError."""
        with Lock(self._context.lock, LOCK_PATIENCE):
            self._seal.take_off()
            switch.recover(self._context)

    def end(self) -> None:
        """Give the file its mode back. Raises BusyError, TaoprofError."""
        with Lock(self._context.lock, 0.5):
            if not self._is_sealed_elsewhere():
                self._seal.take_off()

    def look(self) -> None:
        """Look at everything and do what has to be done.

        Raises BusyError where another command has the lock for longer, TaoprofError for what the system refuses: then
        whatever could be done has been done, and the next look tries the rest again.
        """
        self.due = float("inf")
        with Lock(self._context.lock, LOCK_PATIENCE):
            engine, trouble = self._engine(), None
            try:
                content, shape, entry, writer = self._read()
            except TaoprofError as error:  # a folder, say: there is nothing to put back into, but all else goes on
                content, shape, writer, trouble = self._content, self._good, None, error
                entry = self._in_force(content)
            stock = self._take_stock(content, engine, is_foreign=entry is None)
            if entry is not None or not blocking_holds(stock.holds, mapping.digest(content or b"")):
                self._good = shape
            try:
                if trouble is not None:
                    self._tell_of_trouble(stock, trouble)
                    raise trouble
                if entry is None:
                    rights, link = self._good
                    content = self._foreign.answer(stock.holds, content, writer=writer, link=link, like=rights)
                self._content, self._trouble = content, ""
                self._in_force(content)
                again = self._foreign.keep_late_writes()
                self.due = float("inf") if again is None else time.monotonic() + again
                self._mind_the_seal(stock, content)
            finally:
                self._prove(stock, engine)
                sealed, problem = self._seal.is_recorded(), self.problem or (trouble.message if trouble else "")
                self.line = self._reporter.report(stock, content, engine, is_sealed=sealed, problem=problem)

    def _read(self) -> tuple[bytes | None, _Shape, Entry | None, str | None]:
        """Read the file; give what it holds, what it is, the entry in force, and who has just written it, if seen."""
        try:
            content, shape = self._see()
        except TaoprofError:
            self._make_readable()
            content, shape = self._see()
        entry = self._in_force(content)
        if content is None or entry is not None:
            return content, shape, entry, None
        writer = self._foreign.let_the_writer_end()
        content, shape = self._see()
        return content, shape, self._in_force(content), writer

    def _see(self) -> tuple[bytes | None, _Shape]:
        """Give what the file holds, and its rights and symlink of the same moment."""
        path = self._context.mapping_file
        for _ in range(10):
            seen, link = _stat(path), files.link_target(path)
            content = files.read(path, MAPPING_LIMIT)
            if link == files.link_target(path) and _identity(seen) == _identity(_stat(path)):
                break
        if seen is None:
            return content, (None, link)
        mode = self._seal.mode(seen.st_ino)
        # Only root can put back a file as another's.
        uid = seen.st_uid if self._context.uid == 0 else self._context.uid
        return content, (FileAttributes(seen.st_mode & 0o7777 if mode is None else mode, uid, seen.st_gid), link)

    def _in_force(self, content: bytes | None) -> Entry | None:
        """Give the entry in force; None also where the last one has been, and the file is as it was before that again.

        The history alone would take that last one for a switch that was interrupted. A restore that was interrupted is
        made good: what it was to replace counts as foreign still.
        """
        entry = self._history.in_force(content)
        last = self._history.last_mapping()
        if entry is None or last is None:
            return entry
        if entry.id == last.id:
            self._landed = last.id
        elif last.id == self._landed or last.action == "restore":
            return None
        return entry

    def _make_readable(self) -> None:
        """Give a file that we may not read any more the mode that it had."""
        rights, path = self._good[0], self._context.mapping_file
        if rights is not None and os.path.isfile(path) and not os.access(path, os.R_OK):
            files.change_mode(path, rights.st_mode & 0o7777)

    def _tell_of_trouble(self, stock: ActiveHolds, trouble: TaoprofError) -> None:
        held = needing_mapping_file(stock.holds)
        if held and trouble.message != self._trouble:
            self._trouble = trouble.message
            self._say(
                "alert", f"{trouble.message}, and {held[0].line()} needs the mapping that was there: tao would fail"
            )

    # Who needs what

    def _take_stock(self, content: bytes | None, engine: Containers, *, is_foreign: bool) -> ActiveHolds:
        """Take stock; of a record that is damaged, what was known at the last look counts still."""
        damaged: dict[str, str] = {}
        stock = find_active_holds(self._context, content, may_write=True, engine=engine, damaged=damaged)
        stock.unseen += [f"{message}; what it was about is not protected" for message in damaged.values()]
        stock.holds += [hold for hold in self.holds if hold.id in damaged]
        self._remember(stock, is_foreign=is_foreign)
        self._stock = stock
        return stock

    def _remember(self, stock: ActiveHolds, *, is_foreign: bool) -> None:
        """Give found work the mapping that was there when it was first seen, not the one that is there now."""
        written = self._changed_at() if is_foreign else 0.0
        last = self._history.last_mapping() if is_foreign else None
        needs: dict[object, tuple[str | None, str | None]] = {}
        for hold in stock.holds:
            if hold.kind != "found" or not hold.shared:
                continue
            keys = [key for key in ((hold.pid, hold.start) if hold.pid else None, hold.container) if key]
            known = next((self._needs[key] for key in keys if key in self._needs), None)
            if known is None and last is not None and last.after is not None and hold.since < written:
                known = (self._digest_of(last), last.profile)  # it started before the file was overwritten
            if known is not None:
                hold.digest, hold.profile = known
            needs.update(dict.fromkeys(keys, (hold.digest, hold.profile)))
        self._needs = needs

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

    def _mind_the_seal(self, stock: ActiveHolds, content: bytes | None) -> None:
        wanted = content is not None and policy.to_seal(stock.holds, mapping.digest(content))
        if wanted and self._settings.seal:
            if self._seal.put_on(self._guards.name):
                self._say("debug", "the mapping file is read-only while it is held")
        elif not self._is_sealed_elsewhere() and self._seal.take_off() is not None:
            self._say("debug", "the mapping file can be written again")

    def _is_sealed_elsewhere(self) -> bool:
        """Check whether the live guard of another host has sealed the file: it sees work there that we do not."""
        name = self._seal.sealed_by()
        return name is not None and name != self._guards.name and self._guards.lives(name)

    def _prove(self, stock: ActiveHolds, engine: Containers) -> None:
        """Compare each new container of found work with its mapping; a run's own process does so for its own."""
        proved: dict[str, list[str]] = {}
        for hold in stock.holds:
            if hold.kind != "found" or not hold.shared or hold.released or hold.container is None:
                continue
            told = self._proved.get(hold.container)
            if told is None:
                told = self._compared(hold, engine.inspect(hold.container))
                for line in told or []:
                    self._say("alert", f"container {hold.container[:6]} ({hold.title()}): {line}")
            if told is not None:
                proved[hold.container] = hold.differences = told
        self._proved = proved

    def _compared(self, hold: Hold, seen: dict[str, Any] | None) -> list[str] | None:
        wanted = self._foreign.what_is_held([hold])
        if not seen or wanted is None:
            return None
        try:
            return comparison.differences(mapping.parse(wanted[1], ""), seen, processes.environment(hold.pid))
        except (InvalidStateError, LookupError, TypeError, ValueError, AttributeError):
            return []  # a file that another program wrote, of a form that the launcher itself refuses

    # What is said, and what to wait for

    def _say(self, level: str, line: str) -> None:
        self._sink(level, line)
        if level == "alert":
            PendingMessages(self._context).add(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")

    def watched(self) -> Iterator[tuple[int, int]]:
        """Give the processes of this host, by pid and start, whose end may be the end of a hold."""
        here = processes.place()
        marks: dict[str, list[int]] | None = None
        for hold in self.holds:
            if hold.place != here:
                continue
            if hold.pid and processes.alive(hold.pid, hold.start):
                yield hold.pid, hold.start
            elif hold.kind in OWN_KINDS:
                if marks is None:
                    marks = {}
                    for pid, mark in processes.marked(self._context.uid, RUN_VARIABLE):
                        marks.setdefault(mark, []).append(pid)
                yield from ((pid, processes.start_time(pid) or 0) for pid in marks.get(hold.id, []))

    def next_end(self) -> float | None:
        """Give the seconds until the first hold by hand ends by itself; None where none does."""
        here = processes.place()
        ends = [hold.until - hold.since - seconds_held(hold, here) for hold in self.holds if hold.until is not None]
        return max(0.05, min(ends)) if ends else None


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _identity(seen: os.stat_result | None) -> object:
    return seen and (seen.st_dev, seen.st_ino, seen.st_size, seen.st_ctime_ns)


def unseal(context: Context) -> bool:
    """Take off a seal whose guard is dead; true where there was one. Raises BusyError, TaoprofError."""
    if not locks.is_orphaned(context.seal, context.guard):
        return False
    with Lock(context.lock):
        return Seal(context).take_off() is not None


def status(context: Context) -> dict[str, Any] | None:
    """Give what the guard of this host knows (see ``Reporter``), None where none lives."""
    guards = Guards(context, processes.place())
    return guards.known() if guards.lives() else None
