"""Hold records on disk: one file each while the work is alive, then one line in the journal of runs.

``holds/ID.json`` is the record, ``holds/ID.claim`` the file whose kernel lock the run's processes inherit,
``holds/ID.notify`` what is wanted at the end (see ``notifications``), and ``holds/ID.mounts.json`` an isolated run's
own mounts file. That one is not in XDG_RUNTIME_DIR, which is emptied when its user logs out while a training is still
running: the launcher would then start without any mounts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.holds import job_records, notifications
from taoprofiles.holds.hold import FIELDS, OWN_KINDS, Hold
from taoprofiles.storage import atomic, files
from taoprofiles.storage.journal import digest_of, lines_backwards, require_known_format
from taoprofiles.storage.locks import LivenessLock
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes

if TYPE_CHECKING:
    import subprocess


FORMAT = 1
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_RECORD_LIMIT = 1 << 20
RUNS_LIMIT = 16 << 20
"""Bytes of the journal of runs that are read, the newest: some 20,000 runs."""
RUNS_DROPPED = 1 << 20
"""Bytes of it that are dropped at a time, when it is longer than that and RUNS_LIMIT."""
_RECENT_LIMIT = 1 << 20
"""Bytes of it in which the end of a run is looked for that is still to be recorded: some 1,000 runs."""


class HoldRecords:
    """The hold records of one user. Reading needs no lock; all else does, unless it says otherwise."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def mounts_path(self, hold_id: str) -> str:
        """Return the path of an isolated run's own mounts file."""
        return self._path(hold_id, ".mounts.json")

    def all(self, damaged: dict[str, str] | None = None) -> list[Hold]:
        """Read every record, the oldest first.

        Raises InvalidStateError for a damaged record, since it may be about a training. With ``damaged``, its error
        message is put there instead, by the id of the hold.
        """
        holds = []
        for name in files.names_in(self._context.holds):
            if name.endswith(".json") and not name.endswith(".mounts.json"):
                hold_id = name.removesuffix(".json")
                try:
                    holds.append(self.get(hold_id))
                except InvalidStateError as error:
                    if damaged is None:
                        raise
                    damaged[hold_id] = error.message
        # None: ended since the folder was listed.
        return sorted((hold for hold in holds if hold is not None), key=lambda hold: (hold.since, hold.id))

    def get(self, hold_id: str) -> Hold | None:
        """Read one record; return None if there is none. Raises InvalidStateError."""
        path = self._path(hold_id, ".json")
        content = files.read(path, _RECORD_LIMIT)
        if content is None:
            return None
        hold = _parse(content, path)
        if hold is None or hold.id != hold_id:
            raise InvalidStateError(
                f"hold record '{path}' is damaged",
                hint=f"make sure that none of your trainings is running, then 'rm {path}'",
            )
        return hold

    def create(self, hold: Hold, *, targets: Sequence[str] = (), on_end: str = "") -> int:
        """Write a new record, set the hold's id, and return the descriptor of its locked file.

        ``targets`` are told at the end of the work, and the hook ``on_end`` is run: see ``notifications``. The hold
        lives for as long as any process has the descriptor open. Nothing is left behind on an error.
        """
        files.make_folder(self._context.holds)
        hold.id = self._free_id()
        liveness_fd = LivenessLock(self._path(hold.id, ".claim")).acquire()
        try:
            # First, so that no record exists without it.
            notifications.register(self._context, hold.id, list(targets), on_end)
            self.write(hold)
        except BaseException:
            os.close(liveness_fd)
            self.delete(hold.id)
            raise
        return liveness_fd

    def write(self, hold: Hold) -> None:
        """Write a record again. Raises TypeError for a field of a wrong type, which would damage the record."""
        if not hold.is_valid():
            raise TypeError(f"a hold with a field of a wrong type: {hold.as_dict()}")
        files.make_folder(self._context.holds)
        atomic.replace(self._path(hold.id, ".json"), _to_json(hold))
        if hold.kind == "run":
            job_records.update(self._context, hold)

    def update(self, hold: Hold, **changes: Any) -> None:
        """Set fields of a hold and of its record, which is read again: somebody may have released or deleted it.

        With ``ended``, the record becomes an entry in the journal of runs. Needs the lock. Raises TaoprofError.
        """
        recorded = self.get(hold.id)
        for target in (hold, recorded):
            for name, value in changes.items() if target is not None else ():
                setattr(target, name, value)
        if recorded is not None and recorded.ended is not None:
            self.end(recorded)
        elif recorded is not None:
            self.write(recorded)

    def end(self, hold: Hold, *, attended: bool = False) -> subprocess.Popen[bytes] | None:
        """Delete a record; a run is added to the journal of runs first. Raises TaoprofError with nothing changed.

        Return the process that sends the run's notification, None without one; see ``notifications.start_sender``.
        """
        recorded = self._find_recorded(hold)
        size = self.add_ended(hold) if hold.kind in OWN_KINDS and recorded is None else None
        hold, sender_fd = recorded or hold, None
        try:
            sender_fd = notifications.publish(self._context, hold)
            files.remove(self._path(hold.id, ".json"))
        except TaoprofError:
            notifications.withdraw(self._context, hold.id, sender_fd)
            if size is not None:
                files.truncate(self._context.runs, size)  # as the record stays, so does the end to be recorded
            raise
        if hold.kind == "run":
            job_records.end(self._context, hold)
        if sender_fd is None:
            self._delete_if_published(hold.id)
            return None
        self._delete_files(hold.id)
        return notifications.start_sender(self._context, hold.id, sender_fd, attended=attended)

    def _find_recorded(self, hold: Hold) -> Hold | None:
        """Return the end of a run that is in the journal already: whoever added it was killed before the rest of it."""
        ends = self.ended_runs(hold.id, limit=_RECENT_LIMIT) if hold.kind in OWN_KINDS else ()
        return next((run for run in ends if (run.id, run.since) == (hold.id, hold.since)), None)

    def add_ended(self, run: Hold) -> int:
        """Append an ended run, or a task of a notebook, to the journal of runs, durably; return its size before."""
        self._compact_runs()
        return files.append(self._context.runs, _to_json(run) + b"\n")

    def _compact_runs(self) -> None:
        """Drop the runs that nobody reads any more, if they are many."""
        status = files.stat_or_none(self._context.runs)
        if status is None or status.st_size < RUNS_LIMIT + RUNS_DROPPED:
            return
        with suppress(OSError, TaoprofError):  # tried again at the end of the next run
            kept = [line for line in lines_backwards(self._context.runs, RUNS_LIMIT) if line]
            atomic.replace(self._context.runs, b"\n".join([*reversed(kept), b""]))

    def delete(self, hold_id: str) -> None:
        """Delete a record and the files beside it, as for work that never started."""
        self._delete_files(hold_id)
        job_records.discard(self._context, hold_id)

    def _delete_files(self, hold_id: str) -> None:
        for ending in (".mounts.json", ".notify", ".json", ".claim"):
            files.unlink_quietly(self._path(hold_id, ending))

    def _delete_if_published(self, hold_id: str) -> None:
        """Delete the files beside a record, unless the notification of its end could not be published just now."""
        ends = self.ended_runs(hold_id, limit=_RECENT_LIMIT)
        if notifications.recover(self._context, hold_id, lambda: any(run.id == hold_id for run in ends)):
            self._delete_files(hold_id)

    def delete_leftovers(self) -> None:
        """Delete the files of commands that were killed before they wrote a record or after they deleted it."""
        names = files.names_in(self._context.holds)
        for hold_id in {name.partition(".")[0] for name in names}:
            if not hold_id or f"{hold_id}.json" in names:
                continue
            if not LivenessLock(self._path(hold_id, ".claim")).is_held():
                self._delete_if_published(hold_id)

    def is_locked(self, hold: Hold) -> bool:
        """Check whether a process on this host still has the descriptor that ``create`` returned. Needs no lock."""
        return LivenessLock(self._path(hold.id, ".claim")).is_held()

    def send_heartbeat(self, hold: Hold) -> None:
        """Show other hosts that the work is alive. Needs no lock."""
        LivenessLock(self._path(hold.id, ".claim")).heartbeat()

    def seconds_since_heartbeat(self, hold: Hold, *, may_write: bool) -> float:
        """Return for how many seconds the last heartbeat has been observed to be the last, 0 at the first time.

        By the clock of this host alone: those of two hosts may differ by any amount, so they are never compared. The
        memory is a cache file for each observing host.
        """
        status = files.stat_or_none(self._path(hold.id, ".claim"))
        heartbeat = None if status is None else status.st_mtime_ns
        here = digest_of(processes.host_id().encode())[:12]
        path = os.path.join(self._context.cache, f"seen-{here}.json")
        observed, now = files.read_json(path, 1 << 20) or {}, time.monotonic()
        match observed.get(hold.id):
            case [before, int() | float() as since] if before == heartbeat and since <= now:  # later: before a reboot
                return now - since
        if may_write:
            observed.pop(hold.id, None)
            recent = dict([*observed.items(), (hold.id, [heartbeat, now])][-100:])
            files.write_cache(path, json.dumps(recent).encode())
        return 0.0

    def ended_runs(self, prefix: str = "", *, limit: int | None = None) -> Iterator[Hold]:
        """Yield the runs of the journal, the newest first, as far as ``limit`` bytes (RUNS_LIMIT). Needs no lock.

        With ``prefix`` only those whose id, or the name of their profile, begins with it: these are looked for in the
        text of the lines, which takes a tenth of the time.
        """
        begin = json.dumps(prefix)[:-1].encode()
        for line in lines_backwards(self._context.runs, limit or RUNS_LIMIT):
            if prefix and b'"id": ' + begin not in line and b'"profile": ' + begin not in line:
                continue
            hold = _parse(line, self._context.runs)
            if hold is not None:
                yield hold

    def _free_id(self) -> str:
        while True:
            hold_id = "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(5))
            # Ids of found work begin with these letters: p4121, c1f0c9d.
            if hold_id[0] not in "cp" and not os.path.lexists(self._path(hold_id, ".claim")):
                return hold_id

    def _path(self, hold_id: str, ending: str) -> str:
        return os.path.join(self._context.holds, hold_id + ending)


def _to_json(hold: Hold) -> bytes:
    return json.dumps({"v": FORMAT, **hold.as_dict()}).encode()


def _parse(line: bytes, path: str) -> Hold | None:
    try:
        record = json.loads(line)
        require_known_format(path, record["v"], FORMAT)
        hold = Hold(**{name: record[name] for name in FIELDS if name in record})
        return hold if hold.id and hold.is_valid() else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class ContainerTask:
    """A container of a run, and the task in it, by the engine's events.

    The launcher itself exits with 0 whatever happens to the task (run_container in docker_handler.py of every version
    from 0.1.21 to 6.26.3), and the container is removed at once, so only the event ``exec_die`` has the exit status.

    - ``id``: the container's; ``task``, ``command``: the id and the words of the launcher's own ``docker exec``, the
      first in the container
    - ``is_docker_run``: the task is the container's own command, not a ``docker exec`` in it
    - ``status``: the exit status of the task, None while it is unknown; ``ended``: when it, or the container, ended
      (seconds since 1970 by the engine's clock)
    - ``is_over``: whether the container has ended
    """

    def __init__(self, container_id: str, task: str | None) -> None:
        """Start with nothing known but ``Hold.task``."""
        self.id, self.task, self.is_docker_run = container_id, task or None, task == ""
        self.command: list[str] = []
        self.status: int | None = None
        self.ended: float | None = None
        self.is_over = False

    def handle(self, event: dict[str, Any]) -> bool:
        """Take over what an event (``engine.parse_event``) says; return whether it is the start of the task."""
        action, status = event["Action"], event["ExitCode"]
        is_start = action == "exec_start" and self.task is None  # later ones are users who inspect the container
        if is_start:
            self.task, self.command = event["Task"], event["Command"].split()
        if action == "exec_die" and status is not None and self.task in (None, event["Task"]):
            self.status, self.ended = status, event["Stamp"] / 1e9
        if action in ("die", "destroy"):
            self.is_over = True
            self.ended = self.ended or event["Stamp"] / 1e9
            if status is not None and self.is_docker_run:
                self.status = status
        return is_start
