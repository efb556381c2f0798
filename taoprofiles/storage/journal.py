"""The history: an append-only journal of mappings and profile changes, and the contents that they had.

``history.jsonl`` has one JSON object a line; ``objects/`` holds the contents by their SHA-256. A line about the mapping
file is written **before** the file is replaced, so the journal and the file together are always consistent: the
last line whose ``after`` is the digest of the file describes it. There is no second pointer that could disagree.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.errors import InvalidStateError
from taoprofiles.storage import atomic, best_effort, files
from taoprofiles.storage.files import MAPPING_LIMIT, to_taoprof_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from taoprofiles.storage.paths import Context

    T = TypeVar("T")

FORMAT = 1
LAST_TIME = 1e11
"""Seconds since 1970: the year 5138. A later time was not written by us, and may be more than a clock can show."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Entry(NamedTuple):
    """One line of the history.

    ``action`` is what was done (use, undo, restore, found, new, save, import, edit, set, copy, rename, remove);
    ``target`` is "mapping" or "profile". ``profile`` is the profile in force afterwards (mapping) or the one changed
    (profile), None for a mapping that no profile made. ``before`` and ``after`` are digests,
    None where there was no file. ``time`` is in seconds since 1970, ``by`` who did it: user, host, pid. ``was`` is the
    old name of a renamed profile; ``writer``, where a guard saw it, the program whose content was found.
    """

    id: int
    time: float
    action: str
    target: str
    profile: str | None
    before: str | None
    after: str | None
    by: str
    was: str | None = None
    writer: str | None = None


_TYPES: dict[str, Any] = {"id": int, "time": (int, float), "action": str, "target": str, "by": str}
"""Of the fields of an entry; the others are texts or None."""


class History:
    """The journal and the contents of one user. Writing needs the lock; reading does not."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def keep(self, content: bytes) -> str:
        """Store ``content`` durably, once, and return its digest. Needs the lock."""
        digest = hashlib.sha256(content).hexdigest()
        path = os.path.join(self._context.objects, digest)
        if not os.path.exists(path):
            files.make_folder(self._context.objects)
            atomic.replace(path, content)
        return digest

    def record_external_change(self, content: bytes | None, *, writer: str | None = None) -> int | None:
        """Record that another program wrote ``content``; return the entry, None if the last one describes it already.

        The file stays as it is. Needs the lock.
        """
        entry = self.external_change(None if content is None else self.keep(content), writer=writer)
        return None if entry is None else self.record([entry])[1]

    def external_change(self, digest: str | None, *, writer: str | None = None) -> dict[str, Any] | None:
        """Return the entry to record for an external change since the last one, None if there was none."""
        last = self.last_mapping()
        before = last.after if last else None
        if digest == before:
            return None
        entry = {"action": "found", "target": "mapping", "profile": None, "before": before, "after": digest}
        return {**entry, "writer": writer}

    def knows(self, content: bytes) -> bool:
        """Check whether ``content`` is stored already."""
        return os.path.exists(os.path.join(self._context.objects, hashlib.sha256(content).hexdigest()))

    def content(self, digest: str) -> bytes:
        """Return what ``keep`` stored. Raises InvalidStateError where it is missing or damaged."""
        path = os.path.join(self._context.objects, digest)
        content = files.read(path, MAPPING_LIMIT)
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            what = "is missing" if content is None else "is damaged"
            raise InvalidStateError(f"content stored in the history {what}: '{path}'")
        return content

    def record(self, entries: list[dict[str, Any]]) -> tuple[int, int]:
        """Append entries, durably, in one write. Needs the lock.

        Returns the size of the journal before, and the id of the last of ``entries``.
        Each of ``entries`` gives action, target, profile, before, after and perhaps was; the rest is filled in here.
        """
        files.make_folder(self._context.state)
        if any(entry["target"] == "mapping" for entry in entries):
            best_effort.unlink_quietly(self._context.prompt_note)
        last = next(self.newest_first(), None)
        first = last.id + 1 if last else 1
        by = f"{self._context.user}@{os.uname().nodename} pid {os.getpid()}"
        lines = []
        for number, entry in enumerate(entries, first):
            line = Entry(id=number, time=round(time.time(), 3), by=by, **entry)._asdict()
            lines.append(json.dumps({"v": FORMAT, **line}) + "\n")
        return files.append(self._context.history, "".join(lines).encode()), first + len(entries) - 1

    def record_and(self, entries: list[dict[str, Any]], do: Callable[[], T]) -> tuple[int, T]:
        """Record entries, then call ``do``; return the id of the last entry and the result of ``do``. Needs the lock.

        If ``do`` fails the record is removed. Signals are blocked: a Ctrl-C between the change and the end of ``do``
        would remove the record of a change that has happened.
        """
        waiting = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            size, last_id = self.record(entries)
            try:
                return last_id, do()
            except BaseException:
                files.truncate(self._context.history, size)
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, waiting)

    def newest_first(self) -> Iterator[Entry]:
        """Yield the entries, the newest first, reading no more of the file than needed."""
        for line in lines_backwards(self._context.history):
            entry = _parse(line, self._context.history)
            if entry is not None:
                yield entry

    def last_mapping(self) -> Entry | None:
        """Return the last entry about the mapping file, whether it took effect or not."""
        return next((entry for entry in self.newest_first() if entry.target == "mapping"), None)

    def timeline(self, content: bytes | None) -> Iterator[tuple[Entry, bool]]:
        """Yield the entries, the newest first, and whether each took effect.

        ``content`` is the content of the mapping file. An entry is written before the file, so if the file still has
        the content ``before``, the change was interrupted. Profiles have the names that they have today.
        """
        digest = None if content is None else hashlib.sha256(content).hexdigest()
        names: dict[str, str] = {}
        for entry in self.newest_first():
            if entry.was is not None:
                old, new = (self._context.profile_file(name or "") for name in (entry.was, entry.profile))
                if os.path.lexists(old) and not os.path.lexists(new):  # the renaming was interrupted
                    yield entry, False
                    continue
            took_effect = True
            if entry.target == "mapping":
                # What was found had happened already; only what we did ourselves can have been interrupted.
                took_effect = entry.action == "found" or entry.after == digest or entry.before != digest
                if took_effect:
                    digest = entry.before
            if entry.was is not None and entry.profile is not None and entry.target == "profile":
                names[entry.was] = names.get(entry.profile, entry.profile)
                yield entry, took_effect
            else:
                yield entry._replace(profile=names.get(entry.profile or "", entry.profile)), took_effect

    def mappings(self, content: bytes | None) -> Iterator[Entry]:
        """Return the entries about the mapping file that took effect, the newest first."""
        return (entry for entry, took_effect in self.timeline(content) if took_effect and entry.target == "mapping")

    def in_force(self, content: bytes | None) -> Entry | None:
        """Return the entry that describes the mapping file with this content, None after an external change."""
        digest = None if content is None else hashlib.sha256(content).hexdigest()
        last = next(self.mappings(content), None)
        return last if last is not None and last.after == digest else None

    def last_used(self, used: dict[str, float], offset: int) -> tuple[dict[str, float], int]:
        """Return when each profile was last used, by name, and how far the journal was read.

        ``used`` and ``offset`` are the result of the last call, or {} and 0.
        """
        used = dict(used)
        try:
            with open(self._context.history, "rb", opener=_open_nonblocking) as journal:
                if offset > os.fstat(journal.fileno()).st_size:
                    used, offset = {}, 0
                journal.seek(offset)
                for line in journal:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    entry = _parse(line, self._context.history)
                    if entry is None or entry.profile is None:
                        continue
                    if entry.was is not None and entry.was in used:
                        used[entry.profile] = used.pop(entry.was)
                    if entry.action == "use":
                        used[entry.profile] = entry.time
        except FileNotFoundError:
            return {}, 0
        except OSError as error:
            raise to_taoprof_error(self._context.history, "read", error) from error
        return used, offset


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a FIFO would otherwise never return


def _parse(line: bytes, path: str) -> Entry | None:
    try:
        fields = json.loads(line)
        require_known_format(path, fields["v"], FORMAT)
        fields.setdefault("writer", None)  # lines of older versions have none
        entry = Entry(**{name: fields[name] for name in Entry._fields})
        is_sound = all(
            isinstance(value, _TYPES.get(name, (str, type(None)))) for name, value in entry._asdict().items()
        )
        return entry if is_sound and 0 <= entry.time < LAST_TIME else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # a line torn by a power cut, or damaged: the others still count


def require_known_format(path: str, version: int, known: int) -> None:
    """Raise InvalidStateError for a line of a format that only a later taoprofiles can read."""
    if version > known:
        raise InvalidStateError(
            f"'{path}' was written by a newer taoprofiles (format {version}; this one reads {known})",
            hint="pip install --upgrade taoprofiles",
        )


def lines_backwards(path: str, block: int = 1 << 13) -> Iterator[bytes]:
    """Yield the lines of a journal, the last one first, reading no more of it than needed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise to_taoprof_error(path, "read", error) from error
    try:
        position = os.fstat(fd).st_size
        tail = b""
        while position > 0:
            size = min(block, position)
            position -= size
            head, *whole = (os.pread(fd, size, position) + tail).split(b"\n")
            yield from reversed(whole)
            tail = head
            block = min(block * 2, 1 << 20)
        if tail:
            yield tail
    except OSError as error:
        raise to_taoprof_error(path, "read", error) from error
    finally:
        os.close(fd)
