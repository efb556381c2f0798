"""The history: an append-only journal of mappings and profile changes, and the contents that they had.

``history.jsonl`` has one JSON object a line; ``objects/`` holds the contents by their SHA-256. A line about the mapping
file is written **before** the file is replaced, and a second one, ``{"done": ID}``, after it. No pointer to the active
profile exists that could disagree with the file: the last entry that took effect describes the file if its ``after`` is
the file's digest.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.storage import atomic, files
from taoprofiles.storage.files import errors_as
from taoprofiles.storage.paths import Context

T = TypeVar("T")

FORMAT = 1
LAST_TIME = 1e11
"""Seconds since 1970: the year 5138. A later time was not written by us, and may be more than a clock can show."""
SIZE_LIMIT = 4 << 20
"""Bytes of the journal, some 12,000 entries; a longer one is compacted."""
CONTENT_LIMIT = 16 << 20
"""Bytes of a stored content: earlier versions took mapping files of that size."""
KEPT_SIZE = SIZE_LIMIT - (128 << 10)
"""Bytes of the newest entries that a compaction keeps, with all their contents.

Some 400 entries are dropped at a time, because all other commands wait until their contents are deleted.
"""
_DELETED_CONTENTS = 1000
"""Number of contents that a compaction deletes at most; the next one goes on."""


class Entry(NamedTuple):
    """One line of the history.

    - ``time``: in seconds since 1970; ``by``: user, host and pid
    - ``action``: what was done (use, undo, restore, fix, found, new, save, import, edit, set, copy, rename, remove)
    - ``target``: "mapping" or "profile"
    - ``profile``: the active profile afterwards, or the one that was changed; None for a mapping that no profile made
    - ``before``, ``after``: digests of the content; None if there was no file
    - ``was``: the old name of a renamed profile
    - ``writer``: the program whose content was found, if a guard saw it
    - ``done``: whether the change is known to be complete; None in lines of older versions, which do not say it
    - ``dropped``: whether the content before is deleted, so that the change cannot be undone; then ``before`` is None,
      and so is ``after`` of a use that is not the last one
    """

    id: int
    time: int | float
    action: str
    target: str
    profile: str | None
    before: str | None
    after: str | None
    by: str
    was: str | None = None
    writer: str | None = None
    done: bool | None = False
    dropped: bool = False

    @property
    def has_after(self) -> bool:
        """Check whether ``after`` says what was there afterwards. After a use that was a file, never none."""
        return self.after is not None or self.action != "use"


_first_fields = itemgetter(*Entry._fields[:9])
"""The fields that lines of older versions have too."""
_TYPES = tuple(Entry.__annotations__.values())


class History:
    """The journal and the contents of one user. Writing needs the lock; reading does not."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def store_content(self, content: bytes) -> str:
        """Store ``content`` durably and return its digest. Needs the lock. A damaged copy is replaced."""
        digest = digest_of(content)
        path = os.path.join(self._context.objects, digest)
        if files.try_read(path, len(content)) != (content, ""):
            files.make_folder(self._context.objects)
            atomic.replace(path, content)
        return digest

    def record_external_change(self, content: bytes | None, *, writer: str | None = None) -> int | None:
        """Record that another program wrote ``content``; return the entry, None if the last one describes it already.

        The file stays as it is. Needs the lock.
        """
        if content is not None:
            self.store_content(content)
        entry = self.external_entry(content, writer=writer)
        return None if entry is None else self.record([entry])

    def external_entry(self, content: bytes | None, *, writer: str | None) -> dict[str, Any] | None:
        """Return the entry to record for an external change since the last one, None if there was none."""
        last = next(self.mappings(content), None)
        before, is_known = (last.after, last.has_after) if last else (None, True)
        digest = None if content is None else digest_of(content)
        if is_known and digest == before:
            return None
        entry = {"action": "found", "target": "mapping", "profile": None, "before": before, "after": digest}
        return {**entry, "writer": writer, "dropped": not is_known}

    def has_content(self, content: bytes) -> bool:
        """Check whether an entry has ``content``, so that it can be restored."""
        digest = digest_of(content)
        return any(digest in (entry.before, entry.after) for entry in self.newest_first())

    def load_content(self, digest: str) -> bytes:
        """Return what ``store_content`` stored. Raises InvalidStateError if it is missing or damaged."""
        path = os.path.join(self._context.objects, digest)
        content = files.read(path, CONTENT_LIMIT)
        if content is None or digest_of(content) != digest:
            problem = "is missing" if content is None else "is damaged"
            raise InvalidStateError(f"content stored in the history {problem}: '{path}'")
        return content

    def record(self, entries: list[dict[str, Any]]) -> int:
        """Append entries about changes that are made already, and return the id of the last one. Needs the lock.

        Each gives action, target, profile, before, after and perhaps was; the rest is filled in here.
        """
        return self._append(entries, done=True)[1]

    def _append(self, entries: list[dict[str, Any]], *, done: bool) -> tuple[int, int]:
        """Append entries, durably, in one write; return the size of the journal before, and the id of the last."""
        files.make_folder(self._context.state)
        self._compact_if_large({entry[side] for entry in entries for side in ("before", "after")})
        if any(entry["target"] == "mapping" for entry in entries):
            files.unlink_quietly(self._context.current_cache)
        last = next(self.newest_first(), None)
        first = last.id + 1 if last else 1
        by = f"{self._context.user}@{os.uname().nodename} pid {os.getpid()}"
        new = [
            Entry(id=number, time=round(time.time(), 3), by=by, done=done or entry["action"] == "found", **entry)
            for number, entry in enumerate(entries, first)
        ]
        return files.append(self._context.history, b"".join(map(_line, new))), first + len(entries) - 1

    def record_and(self, entries: list[dict[str, Any]], do: Callable[[], T]) -> tuple[int, T]:
        """Record entries, then call ``do``; return the id of the last entry and the result of ``do``. Needs the lock.

        If ``do`` fails the record is removed. Signals are blocked: a Ctrl-C between the change and the end of ``do``
        would remove the record of a change that has happened.
        """
        import signal  # not for 'list'

        waiting = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            size, last_id = self._append(entries, done=False)
            try:
                result = do()
            except BaseException:
                files.truncate(self._context.history, size)
                raise
            self._append_done(range(last_id - len(entries) + 1, last_id + 1))
            return last_id, result
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, waiting)

    def _append_done(self, numbers: Iterable[int]) -> None:
        lines = (json.dumps({"v": FORMAT, "done": number}).encode() + b"\n" for number in numbers)
        files.append_quietly(self._context.history, b"".join(lines))

    def note_interrupted(self) -> None:
        """Record that a killed switch had replaced the file, before the traces of that are deleted. Needs the lock."""
        last = self.last_mapping()
        if last is not None and last.done is False and self._has_replaced(last):
            self._append_done([last.id])

    def _compact_if_large(self, digests: set[str | None]) -> None:
        """Compact a long journal, unless something is held: the mapping that it needs may be an old one."""
        path, holds = self._context.history, self._context.holds
        with suppress(OSError, TaoprofError):  # tried again with the next entry
            if os.stat(path).st_size <= SIZE_LIMIT or any(name.endswith(".json") for name in files.names_in(holds)):
                return
            for unused in self.compact(KEPT_SIZE, digests)[:_DELETED_CONTENTS]:
                files.unlink_quietly(unused)
            # Hundreds of profiles: what is kept of their dropped uses must not make every change compact again.
            size = os.stat(path).st_size
            if KEPT_SIZE < SIZE_LIMIT and size > (KEPT_SIZE + SIZE_LIMIT) // 2:
                self.compact(max(2 * KEPT_SIZE - size, KEPT_SIZE // 4), digests)

    def compact(self, size: int, digests: set[str | None] | None = None) -> list[str]:
        """Drop all but the newest entries, of ``size`` bytes; return the files with contents that none of them has.

        Of older ones stay, marked as ``dropped``, the last use of each profile, without contents, and the last change
        of the mapping file, with the content after it. ``digests``: contents of entries that follow. Needs the lock.
        Raises TaoprofError.
        """
        last_mapping, kept = None, list[Entry]()
        used_profiles: set[str | None] = set()
        names: dict[str, str] = {}  # of the dropped renames: the kept ones apply to what is written here
        for entry, today, took_effect in self.outcomes(files.read_mapping_file(self._context)):
            is_last = last_mapping is None and took_effect and entry.target == "mapping"
            last_mapping = entry if is_last else last_mapping
            is_use = entry.action == "use" and took_effect and today not in used_profiles
            used_profiles |= {today} if is_use else set()
            whole = entry._replace(done=took_effect)
            if size >= 0 and (size := size - len(_line(whole))) >= 0:
                kept.append(whole)
                continue
            profile = names.get(entry.profile or "", entry.profile)
            if is_last or is_use:
                after = entry.after if is_last else None
                kept.append(
                    entry._replace(profile=profile, before=None, after=after, was=None, done=True, dropped=True)
                )
            if took_effect and entry.was is not None and profile is not None and entry.target == "profile":
                names[entry.was] = profile
        files.unlink_quietly(self._context.index)  # it has an offset in the journal
        atomic.replace(self._context.history, b"".join(map(_line, reversed(kept))))
        used = {digest for entry in kept for digest in (entry.before, entry.after)} | (digests or set())
        folder = self._context.objects
        return [os.path.join(folder, name) for name in files.names_in(folder) if name not in used]

    def newest_first(self) -> Iterator[Entry]:
        """Yield the entries, the newest first, reading no more of the file than needed."""
        done: set[int] = set()
        for line in lines_backwards(self._context.history):
            fields = _fields(line, self._context.history)
            if type(fields.get("done")) is int:
                done.add(fields["done"])
            entry = _entry(fields)
            if entry is not None:
                yield entry._replace(done=True) if entry.id in done else entry

    def past_mappings(self) -> Iterator[tuple[Entry, bytes]]:
        """Yield the distinct contents of the mapping file, the newest first, each with its newest entry.

        Contents that are lost are left out.
        """
        digests: set[str] = set()
        for entry in self.newest_first():
            if entry.target == "mapping" and entry.after is not None and entry.after not in digests:
                digests.add(entry.after)
                with suppress(InvalidStateError):
                    yield entry, self.load_content(entry.after)

    def last_mapping(self) -> Entry | None:
        """Return the last entry about the mapping file, whether it took effect or not."""
        return next((entry for entry in self.newest_first() if entry.target == "mapping"), None)

    def timeline(self, content: bytes | None) -> Iterator[tuple[Entry, bool]]:
        """Yield the entries, the newest first, and whether each took effect.

        ``content`` is the content of the mapping file. An entry is written before the file: if it is not known to be
        done, and the file still has the content ``before``, the change was interrupted. Profiles have their names of
        today, but for those of a renaming.
        """
        for entry, today, took_effect in self.outcomes(content):
            is_renaming = entry.was is not None and entry.target == "profile"
            yield entry if is_renaming else entry._replace(profile=today), took_effect

    def outcomes(self, content: bytes | None) -> Iterator[tuple[Entry, str | None, bool]]:
        """Yield the entries as they were written, each with today's name of its profile and whether it took effect."""
        digest = None if content is None else digest_of(content)
        names: dict[str, str] = {}
        for entry in self.newest_first():
            today = names.get(entry.profile or "", entry.profile)
            if entry.was is not None and not entry.done:
                old, new = (self._context.profile_file(name or "") for name in (entry.was, entry.profile))
                if files.exists(old) and not files.exists(new):  # the renaming was interrupted
                    yield entry, entry.profile, False
                    continue
            took_effect = True
            if entry.target == "mapping":
                # What was found had happened already; only what we did ourselves can have been interrupted.
                is_known = entry.done or entry.action == "found"
                took_effect = is_known or entry.after == digest or self._was_overwritten(entry, digest)
                if took_effect:
                    digest = entry.before
            if entry.was is not None and today is not None and entry.target == "profile":
                names[entry.was] = today
            yield entry, today, took_effect

    def _was_overwritten(self, entry: Entry, digest: str | None) -> bool:
        """Check whether a change took effect that is not known to be done, before the file got other content.

        What a killed process left beside the file says it. Lines of older versions never say that a change is done.
        """
        return entry.before != digest and (entry.done is None or self._has_replaced(entry))

    def _has_replaced(self, entry: Entry) -> bool:
        """Check whether a killed process left the file that ``entry`` replaced, and not the new one, beside it."""
        try:
            left = atomic.read_backup(self._context.mapping_file)
        except TaoprofError:
            return True
        return left is not None and digest_of(left) != entry.after

    def mappings(self, content: bytes | None) -> Iterator[Entry]:
        """Return the entries about the mapping file that took effect, the newest first."""
        return (entry for entry, took_effect in self.timeline(content) if took_effect and entry.target == "mapping")

    def current_entry(self, content: bytes | None) -> Entry | None:
        """Return the entry that describes the mapping file with this content, None after an external change."""
        last = next(self.mappings(content), None)
        is_described = last is not None and last.has_after and last.after == (content and digest_of(content))
        return last if is_described else None

    def last_used(self, used: dict[str, float], offset: int) -> tuple[dict[str, float], int]:
        """Return when each profile was last used, by name, and how far the journal was read.

        ``used`` and ``offset`` are the result of the last call, or {} and 0.
        """
        path, used = self._context.history, dict(used)
        with errors_as("read", path), suppress(FileNotFoundError):
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as journal:
                if offset > os.fstat(journal.fileno()).st_size:
                    used, offset = {}, 0
                journal.seek(offset)
                for line in journal:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    entry = _entry(_fields(line, path))
                    if entry is None or entry.profile is None:
                        continue
                    if entry.was is not None and entry.was in used:
                        used[entry.profile] = used.pop(entry.was)
                    if entry.action == "use":
                        used[entry.profile] = entry.time
            return used, offset
        return {}, 0


def digest_of(content: bytes) -> str:
    """Return the name of a stored content, its SHA-256."""
    try:  # as CPython's random.py does: hashlib loads OpenSSL, which takes 2.5 ms
        module = import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256")
    except ImportError:
        module = import_module("hashlib")
    digest: str = module.sha256(content).hexdigest()
    return digest


def _line(entry: Entry) -> bytes:
    return json.dumps({"v": FORMAT, **entry._asdict()}).encode() + b"\n"


def _fields(line: bytes, path: str) -> dict[str, Any]:
    """Return the fields of a line, {} for one torn by a power cut, or damaged: the others still count."""
    try:
        fields = json.loads(line.decode())
        require_known_format(path, fields["v"], FORMAT)
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _entry(fields: dict[str, Any]) -> Entry | None:
    try:
        values = _first_fields(fields)
    except KeyError:
        return None
    dropped = fields.get("dropped", False)
    entry = Entry._make([*values, fields.get("writer"), fields.get("done"), dropped])
    if not entry.has_after:  # older versions dropped contents without saying so
        entry = entry._replace(dropped=True)
    is_sound = all(map(isinstance, entry, _TYPES))
    return entry if is_sound and 0 <= entry.time < LAST_TIME else None


def require_known_format(path: str, version: int, known: int) -> None:
    """Raise InvalidStateError for a line of a format that only a later taoprofiles can read."""
    if version > known:
        raise InvalidStateError(
            f"'{path}' was written by a newer taoprofiles (format {version}; this one reads {known})",
            hint="upgrade taoprofiles the way you installed it",
        )


def lines_backwards(path: str, limit: int | None = None) -> Iterator[bytes]:
    """Yield the lines of a journal, the last one first, reading no more of it than needed, and of ``limit`` bytes."""
    fd = None
    try:
        with errors_as("read", path), suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            position, block = os.fstat(fd).st_size, 1 << 13
            start = max(position - limit, 0) if limit is not None else 0
            tail = b""
            while position > start:
                size = min(block, position - start)
                position -= size
                head, *whole = (os.pread(fd, size, position) + tail).split(b"\n")
                yield from reversed(whole)
                tail = head
                block = min(block * 2, 1 << 20)
            if tail and not start:  # else it may be the end of a line
                yield tail
    finally:
        files.close_quietly(fd)  # a reader that stops early could only print a traceback of an error
