"""Hold records on disk: one file each while the work lives, one line in the journal of runs when it is over.

``holds/ID.json`` is the record, ``holds/ID.claim`` the file whose kernel lock the run's processes inherit, and
``holds/ID.mounts.json`` an isolated run's own mounts file. It is beside the records and not in XDG_RUNTIME_DIR, which
is emptied when its user logs out, while a training goes on: the launcher would then start it without any mounts.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidStateError
from taoprofiles.holds.hold import OWN_KINDS, Hold
from taoprofiles.storage import best_effort, files, liveness_lock
from taoprofiles.storage.os_errors import refuse_newer, unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taoprofiles.storage.paths import Context

FORMAT = 1
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_RECORD_LIMIT = 1 << 20


class Holds:
    """The records of one person. Reading needs no lock; all else does."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def mounts_path(self, hold_id: str) -> str:
        """Give the path of an isolated run's own mounts file."""
        return self._path(hold_id, ".mounts.json")

    def all(self, damaged: dict[str, str] | None = None) -> list[Hold]:
        """Read every record, the oldest first. A damaged one raises InvalidStateError: it may be about a training.

        With ``damaged`` what is wrong with it is put there instead, by its id.
        """
        try:
            names = os.listdir(self._context.holds)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unusable(self._context.holds, "list", error) from error
        found = []
        for name in names:
            if name.endswith(".json") and not name.endswith(".mounts.json"):
                try:
                    found.append(self._read(name))
                except InvalidStateError as error:
                    if damaged is None:
                        raise
                    damaged[name.removesuffix(".json")] = error.message
        return sorted((hold for hold in found if hold is not None), key=lambda hold: (hold.since, hold.id))

    def get(self, hold_id: str) -> Hold | None:
        """Read one record, None where there is none."""
        return self._read(hold_id + ".json")

    def make(self, hold: Hold) -> int:
        """Write a new record, give it its id, and return the descriptor of its claim.

        Whoever inherits the descriptor keeps the hold alive. Nothing is left behind on an error.
        """
        files.make_folder(self._context.holds)
        hold.id = self._free_id()
        claim = liveness_lock.claim(self._path(hold.id, ".claim"))
        try:
            self.write(hold)
        except BaseException:
            os.close(claim)
            self._clear(hold.id)
            raise
        return claim

    def note(self, hold: Hold, end: str, text: str) -> str:
        """Keep a text beside the record for as long as that; give its path. Takes the lock."""
        from taoprofiles.storage.locks import Lock

        path = self._path(hold.id, end)
        with Lock(self._context.lock):
            files.make_folder(os.path.dirname(path))
            files.replace(path, text.encode())
        return path

    def write(self, hold: Hold) -> None:
        """Write a record anew. A field of a wrong type is our own fault: better an error than a damaged record."""
        if not hold.is_sound():
            raise TypeError(f"a hold with a field of a wrong type: {hold.as_dict()}")
        files.make_folder(self._context.holds)
        files.replace(self._path(hold.id, ".json"), json.dumps({"v": FORMAT, **hold.as_dict()}).encode())

    def end(self, hold: Hold) -> None:
        """Take a record away; a run's goes into the journal of runs, durably, before that."""
        if hold.kind in OWN_KINDS:
            files.append(self._context.runs, (json.dumps({"v": FORMAT, **hold.as_dict()}) + "\n").encode())
        self._clear(hold.id)

    def drop(self, hold: Hold) -> None:
        """Take away the record of work that never began."""
        self._clear(hold.id)

    def sweep(self) -> None:
        """Take away what a command left that was killed before its record was written, or after it was removed."""
        names = os.listdir(self._context.holds) if os.path.isdir(self._context.holds) else []
        for hold_id in {name.partition(".")[0] for name in names}:
            if hold_id and f"{hold_id}.json" not in names and not liveness_lock.claimed(self._path(hold_id, ".claim")):
                self._clear(hold_id)

    def claimed(self, hold: Hold) -> bool:
        """Whether a process that inherited the claim of the hold still lives on this host."""
        return liveness_lock.claimed(self._path(hold.id, ".claim"))

    def beat(self, hold: Hold) -> None:
        """Show other hosts that the work lives. Needs no lock."""
        liveness_lock.beat(self._path(hold.id, ".claim"))

    def last_beat(self, hold: Hold) -> int | None:
        """Give the last sign of life, a number that is only ever compared with itself; None where there is none."""
        try:
            return os.stat(self._path(hold.id, ".claim")).st_mtime_ns
        except OSError:
            return None

    def over(self) -> Iterator[Hold]:
        """Give the runs that are over, the newest first."""
        from taoprofiles.storage.journal import lines_backwards

        for line in lines_backwards(self._context.runs):
            hold = _parse(line, self._context.runs)
            if hold is not None:
                yield hold

    def _read(self, name: str) -> Hold | None:
        path = os.path.join(self._context.holds, name)
        content = files.read(path, _RECORD_LIMIT)
        if content is None:
            return None  # ended since the folder was listed
        hold = _parse(content, path)
        if hold is None or hold.id + ".json" != name:
            raise InvalidStateError(
                f"a hold's record is damaged: '{path}'",
                hint=f"make sure that no training of yours runs, then 'rm {path}'",
            )
        return hold

    def _clear(self, hold_id: str) -> None:
        for end in (".mounts.json", ".bashrc", ".zsh/.zshenv", ".zsh/.zshrc", ".json", ".claim"):
            best_effort.forget(self._path(hold_id, end))
        best_effort.forget_folder(self._path(hold_id, ".zsh"))

    def _free_id(self) -> str:
        while True:
            drawn = os.urandom(5)
            hold_id = "".join(_LETTERS[byte % len(_LETTERS)] for byte in drawn)
            # A letter first would look like one of found work's ids (p4121, c1f0c9d).
            if hold_id[0] not in "cp" and not os.path.lexists(self._path(hold_id, ".claim")):
                return hold_id

    def _path(self, hold_id: str, end: str) -> str:
        return os.path.join(self._context.holds, hold_id + end)


def _parse(line: bytes, path: str) -> Hold | None:
    try:
        fields = json.loads(line)
        refuse_newer(path, fields["v"], FORMAT)
        hold = Hold(**{name: fields[name] for name in Hold.DEFAULTS if name in fields})
        return hold if hold.id and hold.is_sound() else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
