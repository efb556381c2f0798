"""The guard: checks the mapping file and the holds that need it, and protects it. It never switches by itself.

``Guard.check`` does everything, each time from scratch: it is called whenever something may have changed, so duplicate
and spurious events are harmless. Each action is logged with its reason.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

from taoprofiles import VERSION, find_commit
from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.holds.hold import OWN_KINDS, RUN_VARIABLE, Hold, blocking_holds, seconds_held, shared_holds
from taoprofiles.holds.liveness import ActiveHolds, Containers, find_active_holds
from taoprofiles.launcher import simulation
from taoprofiles.mounts import mapping
from taoprofiles.storage import files
from taoprofiles.storage.atomic import FileAttributes
from taoprofiles.storage.files import MAPPING_LIMIT, PRIVATE
from taoprofiles.storage.journal import Entry, History
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch
from taoprofiles.switching.guard_files import GuardFiles, Seal
from taoprofiles.system import processes

GUARD_WRITER_TIMEOUT = 0.02
"""Seconds to wait for a program that is writing the file, before its content is read again."""

LOCK_TIMEOUT = 0.3
"""Seconds to wait for the lock in one check; then the check is repeated a little later."""

logger = logging.getLogger(__name__)


class RateLimiter:
    """Allows at most ``limit`` events a minute. Time is in seconds of any monotonic clock.

    Refused events count as well: a program that goes on at a higher rate is allowed again only after a slower minute.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._last = deque[float](maxlen=limit)

    def allows(self, now: float) -> bool:
        """Check whether an event is allowed now; does not count it."""
        return self.limit > 0 and (len(self._last) < self.limit or now - self._last[0] >= 60)

    def count(self, now: float) -> None:
        """Count an event, allowed or refused."""
        self._last.append(now)


def should_seal(holds: list[Hold], digest: str) -> bool:
    """Check whether to seal a file with the mapping ``digest``: a hold needs it, and none needs another one."""
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
        with suppress(OSError), files.opened(path, os.O_RDONLY | os.O_NONBLOCK) as fd:
            processes.wait_for_writer(fd, GUARD_WRITER_TIMEOUT)
        return writer

    def handle(self, holds: list[Hold], content: bytes | None, before: Snapshot, writer: str | None) -> bytes | None:
        """Undo an overwrite, or accept it as the current mapping; return the content of the file afterwards.

        ``before`` is the file before the overwrite. Raises TaoprofError.
        """
        now, digest = time.monotonic(), mapping.digest(content or b"")
        holders = blocking_holds(holds, digest)
        wanted = self.find_mapping(holders) if holders else None
        event = self._describe(content, writer, holders)
        if wanted is not None and self._limiter.allows(now):
            profile, restored = wanted
            attributes = before.attributes or FileAttributes(PRIVATE, self._context.uid, self._context.gid)
            undo = switch.restore(
                self._context, restored, profile, link=before.link, attributes=attributes, writer=writer
            )
            self._limiter.count(now)
            self.gave_up = False
            logger.error("%s: restored%s", event, f". To get the other version: taoprof undo {undo}" if undo else "")
            return restored
        entry = None
        if files.read_mapping_file(self._context) == content:
            entry = self._history.record_external_change(content, writer=writer)
        if holders:
            self._limiter.count(now)
            if wanted is None:
                why = "the history has lost the previous mapping"
            elif self._limiter.limit:
                why = f"it was overwritten more than {self._limiter.limit} times in a minute"
            else:
                why = "the guard runs with --restores 0"
            # Of repeated overwrites each is in the history, but only the first is reported by the next command.
            level = logging.INFO if self.gave_up else logging.ERROR
            logger.log(level, "%s: not restored, because %s (history entry %s)", event, why, entry)
            self.gave_up = True
        elif entry is not None:
            why = "with an equivalent mapping" if shared_holds(holds) else "while it was not in use"
            logger.info("%s %s: no profile is active now (history entry %s)", event, why, entry)
        return content

    def find_mapping(self, holders: list[Hold]) -> tuple[str | None, bytes] | None:
        """Return the mapping that the first of the holders needs, or else another: its profile and its content."""
        for hold in holders:
            if hold.content is not None:
                with suppress(InvalidStateError):  # it is lost
                    return hold.profile, self._history.load_content(hold.content)
        digests = {hold.digest for hold in holders}
        for entry, content in self._history.past_mappings():
            if mapping.digest(content) in digests:
                return entry.profile, content
        return None

    def _describe(self, content: bytes | None, writer: str | None, holders: list[Hold]) -> str:
        path = self._context.short(self._context.mapping_file)
        verb = "removed" if content is None else "overwrote" if holders else "wrote"
        event = f"{writer or 'another program'} {verb} {path}"
        if holders:
            name = f"'{holders[0].profile}'" if holders[0].profile else "it"
            event += f" while {name} was in use ({holders[0].line().replace('   ', ', ')})"
        return event


class Options(NamedTuple):
    """The options of ``taoprofd``: whether to seal the file, and how many overwrites to undo a minute (0: none)."""

    seal: bool = True
    restores: int = 5


class Snapshot(NamedTuple):
    """The mapping file at one moment."""

    content: bytes | None
    attributes: FileAttributes | None  # its owner and its mode without the seal, None if there is no file
    link: str | None  # the target, if it is a symlink
    entry: Entry | None = None  # the history entry that describes the file now
    last: Entry | None = None  # the last entry about the file


class Guard:
    """Protects one mapping file, in one thread.

    ``files`` are its files, ``holds`` those of the last check, ``line`` is the status in one line.
    """

    def __init__(self, context: Context, options: Options) -> None:
        self._context, self._options = context, options
        self._history, self._seal = History(context), Seal(context)
        self.files = GuardFiles(context)
        self._overwrites = Overwrites(context, options.restores)
        self._commit = find_commit()  # now: a checkout may change while the guard runs
        self._unchecked: set[str] = set()
        self._needs: dict[object, tuple[str | None, str | None, str | None]] = {}
        self._verified: dict[str, list[str]] = {}
        self._content: bytes | None = None
        self._intact = Snapshot(None, None, "")  # the last state of the file that needed no restore
        self._failure = ""
        self._late_check = switch.NEVER
        self.holds: list[Hold] = []
        self.line = ""

    def begin(self) -> None:
        """Clean up after a killed switch, restore or guard. Raises TaoprofError, BusyError."""
        with Lock(self._context.lock, LOCK_TIMEOUT):
            self._seal.remove()
            switch.recover(self._context)

    def end(self) -> None:
        """Restore the file's mode. Raises BusyError, TaoprofError."""
        if not files.folder_exists(self._context.state):
            self._seal.remove()  # deleted, and with it the holds and the lock, which would create the folder again
            return
        with Lock(self._context.lock, 0.5):
            if not self._is_sealed_elsewhere():
                self._seal.remove()
            with suppress(OSError, TaoprofError):  # the next guard or switch tries again
                switch.recover(self._context)

    def check(self, containers: Containers, problem: str = "") -> None:
        """Examine the file and the holds, and act on them; ``problem`` is published with the status.

        Raises BusyError if another command has the lock for longer, and TaoprofError for what the system refuses; then
        everything possible was done, and the next check tries the rest again.
        """
        self._late_check = switch.NEVER
        holds_before = self.holds
        with Lock(self._context.lock, LOCK_TIMEOUT):
            failure, writer = None, None
            try:
                file, writer = self._read()
            except TaoprofError as error:  # a folder, say: nothing can be restored, but everything else continues
                failure = error
                file = self._with_entry(self._intact._replace(content=self._content))
            active = self._find_holds(file, containers)
            is_blocked = bool(blocking_holds(active.holds, mapping.digest(file.content or b"")))
            if file.entry is not None and file.entry.action == "found" and is_blocked and not self._overwrites.gave_up:
                file = file._replace(entry=None)  # another command has recorded the overwrite before we could undo it
            if file.entry is not None or not is_blocked:
                self._intact = file
            try:
                if failure is not None:
                    raise failure
                if file.entry is None:
                    content = self._overwrites.handle(active.holds, file.content, self._intact, writer)
                    file = self._with_entry(file._replace(content=content))
                self._content = file.content
                self._update_seal(active.holds, file.content)
                self._collect_late_writes()
            finally:
                self._verify_containers(active.holds, containers)
                self._log_changes(holds_before, active, failure)
                self._publish(active, file, containers, problem or (failure.message if failure else ""))

    def _collect_late_writes(self) -> None:
        entries, interval = switch.recover(self._context, grace=switch.LATE_INTERVAL)
        for entry in entries:
            logger.info("a program was still writing the replaced file; to get its content: taoprof undo %s", entry)
        self._late_check = time.monotonic() + interval

    def _read(self) -> tuple[Snapshot, str | None]:
        """Return the file, and which program has just written it, if that is seen."""
        file = self._with_entry(self._snapshot())
        if file.content is None or file.entry is not None:
            return file, None
        writer = self._overwrites.wait_for_writer()
        return self._with_entry(self._snapshot()), writer

    def _snapshot(self) -> Snapshot:
        """Return the file's content, attributes and symlink of the same moment."""
        path = self._context.mapping_file
        for _ in range(10):
            stat, link = files.stat_or_none(path), files.link_target(path)
            content = files.read(path, MAPPING_LIMIT)
            if link == files.link_target(path) and _identity(stat) == _identity(files.stat_or_none(path)):
                break
        if stat is None:
            return Snapshot(content, None, link)
        mode = self._seal.mode(stat.st_ino)
        # Only root can restore a file that belongs to another user.
        uid = stat.st_uid if self._context.uid == 0 else self._context.uid
        return Snapshot(
            content, FileAttributes(stat.st_mode & 0o7777 if mode is None else mode, uid, stat.st_gid), link
        )

    def _with_entry(self, file: Snapshot) -> Snapshot:
        """Return the snapshot with its history entries. A restore that was interrupted is repeated."""
        entry, newest = self._history.current_entry(file.content), self._history.last_mapping()
        last = next(self._history.mappings(file.content), None)
        if entry is not None and newest is not None and entry.id != newest.id and newest.action == "restore":
            entry, last = None, newest
        return file._replace(entry=entry, last=last)

    def _find_holds(self, file: Snapshot, containers: Containers) -> ActiveHolds:
        """Find the active holds; for a damaged record the hold of the last check stays."""
        damaged: dict[str, str] = {}
        active = find_active_holds(self._context, file.content, may_write=True, engine=containers, damaged=damaged)
        active.unchecked += [f"{message}; this hold is not protected" for message in damaged.values()]
        active.holds += [hold for hold in self.holds if hold.id in damaged]
        self._remember_mappings(active.holds, file)
        self.holds = active.holds
        return active

    def _remember_mappings(self, holds: list[Hold], file: Snapshot) -> None:
        """Set the mapping of work without a record to that of when it was first seen, not the one that is there now."""
        last = file.last if file.entry is None else None
        stat = files.stat_or_none(self._context.mapping_file)
        overwritten = time.time() if stat is None else stat.st_ctime
        needs: dict[object, tuple[str | None, str | None, str | None]] = {}
        for hold in holds:
            if hold.kind != "found" or not hold.shared:
                continue
            keys: list[object] = [(hold.pid, hold.start)] if hold.pid else []
            keys += [hold.container] if hold.container else []
            known = next((self._needs[key] for key in keys if key in self._needs), None)
            if known is None and last is not None and last.after is not None and hold.since < overwritten:
                known = (self._digest_of(last.after), last.profile, last.after)  # it started before the overwrite
            if known is not None:
                hold.digest, hold.profile, hold.content = known
            needs.update(dict.fromkeys(keys, (hold.digest, hold.profile, hold.content)))
        self._needs = needs

    def _digest_of(self, content_hash: str) -> str | None:
        try:
            return mapping.digest(self._history.load_content(content_hash))
        except InvalidStateError:
            return None

    def _update_seal(self, holds: list[Hold], content: bytes | None) -> None:
        if self._options.seal and content is not None and should_seal(holds, mapping.digest(content)):
            if self._seal.apply(self.files.name, len(content)):
                logger.debug("the mapping file is read-only while it is in use")
        elif not self._is_sealed_elsewhere() and self._seal.remove():
            logger.debug("the mapping file can be written again")

    def _is_sealed_elsewhere(self) -> bool:
        """Check whether the guard of another host is alive and has sealed the file: it sees holds that we do not."""
        name = self._seal.sealed_by()
        return name is not None and name != self.files.name and self.files.is_alive(name)

    def _verify_containers(self, holds: list[Hold], containers: Containers) -> None:
        """Compare each new container that has no run record with its mapping; a run's own process does so itself."""
        verified: dict[str, list[str]] = {}
        for hold in holds:
            if hold.kind != "found" or not hold.shared or hold.released or hold.container is None:
                continue
            differences = self._verified.get(hold.container)
            if differences is None:
                differences = self._compare(hold, containers.inspect(hold.container))
                for line in differences or []:
                    logger.error("container %s (%s): %s", hold.container[:6], hold.title(), line)
            if differences is not None:
                verified[hold.container] = hold.differences = differences
        self._verified = verified

    def _compare(self, hold: Hold, container: dict[str, Any] | None) -> list[str] | None:
        wanted = self._overwrites.find_mapping([hold]) if container else None
        if not container or wanted is None:
            return None
        try:
            environ = processes.environment(hold.pid)
            return simulation.differences(mapping.parse(wanted[1], ""), container, environ)
        except (InvalidStateError, LookupError, TypeError, ValueError, AttributeError):
            return []  # another program wrote the file, in a form that the launcher itself refuses

    def _log_changes(self, before: list[Hold], active: ActiveHolds, failure: TaoprofError | None) -> None:
        shared = shared_holds(active.holds)
        if failure is None:
            self._failure = ""
        elif shared and failure.message != self._failure:
            self._failure = failure.message
            logger.error("%s, but %s needs the previous mapping: tao would fail", failure.message, shared[0].line())
        ids_before, ids = {hold.id for hold in before}, {hold.id for hold in active.holds}
        for hold in active.holds:
            if hold.id not in ids_before and hold.shared and not hold.released:
                logger.info("new hold: %s", hold.line())
        for hold in before:
            if hold.id not in ids and hold.shared:
                logger.info("hold ended: %s, hold %s", hold.title(), hold.id)
        for text in active.unchecked:
            if text not in self._unchecked:
                logger.warning("%s", text)
        self._unchecked = set(active.unchecked)

    def _publish(self, active: ActiveHolds, file: Snapshot, containers: Containers, problem: str) -> None:
        profile = file.entry.profile if file.entry else None
        name = f"'{profile}'" if profile else "no file" if file.content is None else "an unmanaged file"
        is_sealed = self._seal.is_recorded()
        self.line = _status_line(name, active.holds, is_sealed=is_sealed)
        self.files.publish(
            {
                "version": VERSION,
                "commit": self._commit,
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "looked": time.time(),
                "line": self.line,
                "is_sealed": is_sealed,
                "problem": "; ".join(part for part in (problem, *active.unchecked) if part) or None,
                "engine": {"address": containers.address, "answers": containers.complete},
                "holds": [hold.as_dict() for hold in active.holds],
                "unseen": active.unchecked,
            }
        )

    def watched_processes(self) -> list[tuple[int, int]]:
        """Return pid and start time of one process of this host for each hold; its end may be the end of the hold.

        Processes that have ended since the last check are included.
        """
        host = processes.host_id()
        here = [hold for hold in self.holds if hold.host_id == host]
        watched = {hold.id: (hold.pid, hold.start) for hold in here if hold.pid}
        orphaned = {hold.id for hold in here if hold.kind in OWN_KINDS and not processes.alive(hold.pid, hold.start)}
        if orphaned:
            for pid, tag in processes.with_variable(self._context.uid, RUN_VARIABLE):
                if tag in orphaned:
                    watched[tag] = pid, processes.start_time(pid) or 0
        return list(watched.values())

    def next_check(self) -> float:
        """Return when to check again at the latest: the next check for late writes, or the first hold expires.

        In seconds of the monotonic clock; infinity if nothing is due.
        """
        manual = (hold for hold in self.holds if hold.kind == "manual")
        ends = [hold.until - hold.since - seconds_held(hold) for hold in manual if hold.until is not None]
        return min(self._late_check, time.monotonic() + max(0.05, min(ends, default=switch.NEVER)))


def _identity(stat: os.stat_result | None) -> object:
    return stat and (stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime_ns)


def _status_line(name: str, holds: list[Hold], *, is_sealed: bool) -> str:
    shared = shared_holds(holds)
    line = f"watching {name}: not in use"
    if shared:
        # Not for how long: that would be wrong a moment later, and the line is shown until the next check.
        users = "; ".join(hold.line(when=f"since {_time(hold.since)}") for hold in shared[:3])
        users += f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        line = f"watching {name}: in use{' and read-only' if is_sealed else ''}: {users}"
    own = len(holds) - len(shared)
    if own:
        line += "; 1 run has its own mounts file" if own == 1 else f"; {own} runs have their own mounts files"
    return line


def _time(seconds: float) -> str:
    return time.strftime("%H:%M" if time.time() - seconds < 43_200 else "%Y-%m-%d %H:%M", time.localtime(seconds))
