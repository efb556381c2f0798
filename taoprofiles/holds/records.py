"""What is written about work: its hold record, the notification of its end, and a job record for coding agents.

A hold record is one file while the work is alive, then one line in the journal of runs. ``holds/ID.json`` is the
record, ``holds/ID.claim`` the file whose kernel lock the run's processes inherit, ``holds/ID.notify`` what is wanted at
the end, and ``holds/ID.mounts.json`` an isolated run's own mounts file. That one is not in XDG_RUNTIME_DIR, which is
emptied when its user logs out while a training is still running: the launcher would then start without any mounts.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.holds.hold import FIELDS, OWN_KINDS, Hold, without_run_tag
from taoprofiles.storage import atomic, files
from taoprofiles.storage.journal import digest_of, lines_backwards, require_known_format
from taoprofiles.storage.locks import LivenessLock, Lock
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
_DAMAGED = (ValueError, KeyError, TypeError, RecursionError)
"""What the content of a damaged file raises."""
_RECENT_LIMIT = 1 << 20
"""Bytes of it in which the end of a run is looked for that is still to be recorded: some 1,000 runs."""

_senders: list["subprocess.Popen[bytes]"] = []
"""Senders that this process has started and not yet reaped; without it a guard would leave zombies."""

PLATFORM = "taoprofiles"
"""The name of the platform in job records: the skill bank's skill is tao-run-on-taoprofiles."""
_TERMINAL_STATES = ("COMPLETE", "ERROR", "CANCELED")
_CANCELLED_STATUSES = (130, 137, 143)
"""Exit statuses of a task that SIGINT, SIGKILL or SIGTERM has ended."""
_JOB_LOCK_TIMEOUT = 2.0


class HoldRecords:
    """The hold records of one user. Reading needs no lock; all else does, unless it says otherwise."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._notifications, self._jobs = Notifications(context), JobRecords(context)

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

        ``targets`` are told at the end of the work, and the hook ``on_end`` is run: see ``Notifications``. The hold
        lives for as long as any process has the descriptor open. Nothing is left behind on an error.
        """
        files.make_folder(self._context.holds)
        hold.id = self._free_id()
        liveness_fd = LivenessLock(self._path(hold.id, ".claim")).acquire()
        try:
            # First, so that no record exists without it.
            self._notifications.register(hold.id, list(targets), on_end)
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
            self._jobs.update(hold)

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

    def end(self, hold: Hold, *, attended: bool = False) -> "subprocess.Popen[bytes] | None":
        """Delete a record; a run is added to the journal of runs first. Raises TaoprofError with nothing changed.

        Return the process that sends the run's notification, None without one; see ``Notifications.start_sender``.
        """
        recorded = self._find_recorded(hold)
        size = self.add_ended(hold) if hold.kind in OWN_KINDS and recorded is None else None
        hold, sender_fd = recorded or hold, None
        try:
            sender_fd = self._notifications.publish(hold)
            files.remove(self._path(hold.id, ".json"))
        except TaoprofError:
            self._notifications.withdraw(hold.id, sender_fd)
            if size is not None:
                files.truncate(self._context.runs, size)  # as the record stays, so does the end to be recorded
            raise
        if hold.kind == "run":
            self._jobs.end(hold)
        if sender_fd is None:
            self._delete_if_published(hold.id)
            return None
        self._delete_files(hold.id)
        return self._notifications.start_sender(hold.id, sender_fd, attended=attended)

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
        self._jobs.discard(hold_id)

    def _delete_files(self, hold_id: str) -> None:
        for ending in (".mounts.json", ".notify", ".json", ".claim"):
            files.unlink_quietly(self._path(hold_id, ending))

    def _delete_if_published(self, hold_id: str) -> None:
        """Delete the files beside a record, unless the notification of its end could not be published just now."""
        ends = self.ended_runs(hold_id, limit=_RECENT_LIMIT)
        if self._notifications.recover(hold_id, lambda: any(run.id == hold_id for run in ends)):
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
        observed, now = files.read_json(path, 1 << 20), time.monotonic()
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
        return _to_hold(record)
    except _DAMAGED:
        return None


def _to_hold(record: dict[str, Any]) -> Hold:
    """Return the hold with the fields of a record. Raises one of _DAMAGED."""
    hold = Hold(**{name: record[name] for name in FIELDS if name in record})
    if not (hold.id and hold.is_valid()):
        raise ValueError("not a hold")
    return hold


class Notification(NamedTuple):
    """The targets and the hook for the end of a run, and what senders have done of it."""

    targets: list[str]  # "desktop" or URLs of Apprise
    on_end: str  # a command line of /bin/sh, "" for none
    run: Hold | None = None  # with its outcome, None while it is active
    notes: Sequence[str] = ()  # of senders: "attempt", "sent N" or "failed N" for a target, "on_end"

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        fields = {"v": FORMAT, "targets": self.targets, "on_end": self.on_end, "run": self.run and self.run.as_dict()}
        return json.dumps(fields).encode() + b"\n"


class Notifications:
    """Notifications and the hook ``on_end`` at the end of a run, whichever process records the end.

    ``holds/ID.notify`` has the targets and the hook. When the run has ended, it gets the outcome and becomes
    ``notifications/ID.json``, once, however often the end is recorded. A separate process (``runs.notify``) then
    sends it. It inherits a kernel lock on the file, notes in it what is done, and deletes it. For a file without a
    lock, whose sender was killed, another one is started.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def register(self, hold_id: str, targets: list[str], on_end: str) -> None:
        """Store the targets and the hook of a run that is about to start. Needs the lock. Raises TaoprofError."""
        if targets or on_end:
            files.make_folder(self._context.notifications)  # at the end the disk may be full
            atomic.replace(self._registered_path(hold_id), Notification(targets, on_end).to_bytes())
        else:
            files.unlink_quietly(self._registered_path(hold_id))  # of a run that was queued with other targets

    def publish(self, run: Hold) -> int | None:
        """Move the notification of a run that has ended to where senders look for it. Needs the lock.

        Return the descriptor with the lock on it for ``start_sender``; None if the run has no notification, or it
        cannot be moved. Raises nothing: the end must be recorded.
        """
        path = self._registered_path(run.id)
        wanted = _parse_notification(files.try_read(path, _RECORD_LIMIT)[0])
        if wanted is None:
            return None
        if wanted.run is None:  # else a process that knew the outcome was killed here
            with suppress(TaoprofError):  # without it, as on a full disk, the sender looks into the journal of runs
                atomic.replace(path, wanted._replace(run=run).to_bytes())
        fd = LivenessLock(path).try_inherit()
        if fd is not None:
            with suppress(TaoprofError):
                files.rename(path, self._published_path(run.id))
                return fd
            os.close(fd)
        return None

    def recover(self, run_id: str, has_ended: Callable[[], bool]) -> bool:
        """Publish what ``publish`` could not; return False if it has to be tried again. Needs the lock.

        Only for a run without a record. If ``has_ended`` returns False, such a run was never started, and nothing is
        sent.
        """
        path = self._registered_path(run_id)
        content, problem = files.try_read(path, _RECORD_LIMIT)
        if problem not in ("", "absent"):
            return False
        wanted = _parse_notification(content)
        if wanted is None or (wanted.run is None and not has_ended()):
            return True
        return files.try_rename(path, self._published_path(run_id))

    def withdraw(self, hold_id: str, fd: int | None) -> None:
        """Undo ``publish``: the end of the run could not be recorded."""
        if fd is not None:
            files.try_rename(self._published_path(hold_id), self._registered_path(hold_id))
            os.close(fd)

    def start_sender(self, run_id: str, fd: int, *, attended: bool = False) -> "subprocess.Popen[bytes] | None":
        """Start the process that sends a published notification; None if that fails, and a later command tries again.

        It gets the descriptor, which is closed here. If it is ``attended``, it writes what goes wrong to the standard
        error of this process, else into the messages for the next command.
        """
        import subprocess  # only here, so that the commands that end no run do not load it

        argv = [sys.executable, "-P", "-m", "taoprofiles.runs.notify", run_id, str(fd), *(["--attended"] * attended)]
        try:
            process = subprocess.Popen(  # noqa: S603
                argv,
                env=without_run_tag(self._context.environ),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if attended else subprocess.DEVNULL,
                start_new_session=True,  # neither the terminal's Ctrl-C nor its end is meant for it
                pass_fds=[fd],
            )
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)
        _senders.append(process)
        return process

    def start_missing_senders(self) -> None:
        """Start a sender for each published notification whose sender was killed. Needs the lock. Raises nothing."""
        _senders[:] = [process for process in _senders if process.poll() is None]
        with suppress(TaoprofError):
            for name in files.names_in(self._context.notifications):
                run_id, _, ending = name.partition(".")
                fd = LivenessLock(self._published_path(run_id)).try_inherit() if ending == "json" else None
                if fd is not None:
                    self.start_sender(run_id, fd)

    def read(self, run_id: str, fd: int) -> Notification | None:
        """Return the notification of the sender that has this descriptor; None if it was sent or cannot be read."""
        path = self._published_path(run_id)
        if not files.has_name(fd, path):
            return None
        try:
            notification = _parse_notification(files.read_open(fd, _RECORD_LIMIT, path))
        except (OSError, TaoprofError):
            return None
        if notification is None:
            self.delete(run_id)  # or it would get a sender again and again
        return notification

    def note(self, run_id: str, text: str) -> None:
        """Append to the ``notes`` of a notification, for the next sender."""
        files.append_quietly(self._published_path(run_id), json.dumps(text).encode() + b"\n")

    def delete(self, run_id: str) -> None:
        """Delete a notification for which all has been done."""
        files.unlink_quietly(self._published_path(run_id))

    def _registered_path(self, hold_id: str) -> str:
        return os.path.join(self._context.holds, f"{hold_id}.notify")

    def _published_path(self, run_id: str) -> str:
        return os.path.join(self._context.notifications, f"{run_id}.json")


def _parse_notification(content: bytes) -> Notification | None:
    """Return the notification of a file; None for no file or a damaged one. An incomplete last line is left out."""
    first, *lines = content.split(b"\n")
    try:
        record = json.loads(first)
        run = None if record["run"] is None else _to_hold(record["run"])
        targets, on_end, notes = record["targets"], record["on_end"], [str(json.loads(line)) for line in lines[:-1]]
        is_valid = record["v"] == FORMAT and isinstance(targets, list)
        is_valid = is_valid and all(isinstance(text, str) for text in (on_end, *targets))
    except _DAMAGED:
        return None
    return Notification(targets, on_end, run, notes) if is_valid else None


class JobRecords:
    """The job records of NVIDIA's TAO skill bank, by which coding agents know which jobs they have started.

    One file for each run, ``jobs/ID.json`` in the bank's state folder (TAO_STATE_DIR, if that is absolute, or ~/.tao):
    written before the launch, and brought up to date with the run's own record. The format is that of the bank's
    job_record.schema.json (tao-skill-bank, skills/core/tao-artifacts). Errors are ignored: a run must not fail because
    of a record for other programs.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        state = context.environ.get("TAO_STATE_DIR", "")
        self._folder = os.path.join(state if state.startswith("/") else os.path.join(context.home, ".tao"), "jobs")

    def create(self, hold: Hold, *, image: str | None, wanted: bool | None) -> None:
        """Write the record of a run that is about to be launched.

        ``image`` is the run's, None for the launcher's. ``wanted`` is the profile's ``job_record``: with None, a record
        is written only if the folder of the records exists.
        """
        if wanted is False or (wanted is None and not os.path.isdir(self._folder)):
            return
        from taoprofiles.export.export import find_image  # only for a record
        from taoprofiles.launcher.argv import parse_launcher_argv, simple_commands
        from taoprofiles.rules.direct import tasks

        if not image:
            with suppress(TaoprofError):
                image = find_image(self._context, hold.command)
        launch = next(filter(None, map(parse_launcher_argv, simple_commands(hold.command))), None)
        others, _ = tasks(hold.command)
        task = [launch.task, *launch.options] if launch and launch.task else others[0] if others else hold.command
        words = [re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(word)) for word in task[:2]]
        network = words[0].lstrip("._-") if words and words[0].strip("._-") else "command"
        action = words[1] if len(words) > 1 and words[1][:1].isalnum() else "run"
        record_id, opened = f"{network}-{action}-{hold.id}"[:200], _transition("PENDING", "record opened before launch")
        record = {
            "schema_version": 1,
            "id": record_id,
            "platform": PLATFORM,
            "backend_ref": None,
            "image": image or "unknown",
            "network_arch": network,
            "action": action,
            "results_dir": (hold.results or [hold.folder])[0],
            "storage_tier": "A",
            "upload_excludes": [],
            "submitted_at": opened["ts"],
            "transitions": [opened],
            "terminal_state": None,
            "terminal_write_by": None,
            "redacted": True,
        }
        files.write_cache(os.path.join(self._folder, f"{record_id}.json"), json.dumps(record, indent=2).encode())

    def update(self, hold: Hold) -> None:
        """Record the state of a run that is alive, and the id by which taoprof knows it."""
        state = "RUNNING" if hold.phase == "bound" else "PENDING"
        self._mark(hold.id, state, hold.state, ref=hold.id)

    def end(self, hold: Hold) -> None:
        """Record the end of a run. With an unknown exit status the record has no terminal state."""
        state = "UNKNOWN" if hold.status is None else "COMPLETE" if hold.status == 0 else "ERROR"
        state = "CANCELED" if hold.status in _CANCELLED_STATUSES else state
        self._mark(hold.id, state, f"exit status {'unknown' if hold.status is None else hold.status}", ref=hold.id)

    def discard(self, hold_id: str) -> None:
        """Record that a run was never started; nothing for one that has ended."""
        self._mark(hold_id, "ERROR", "it was not started")

    def _mark(self, hold_id: str, state: str, message: str, *, ref: str | None = None) -> None:
        with suppress(TaoprofError):
            names = [name for name in files.names_in(self._folder) if name.endswith(f"-{hold_id}.json")]
            for name in names[:1]:
                # The lock is that of the bank's own writer.
                with Lock(os.path.join(self._folder, f".{name}.lock"), _JOB_LOCK_TIMEOUT):
                    _mark_file(os.path.join(self._folder, name), state, message, ref)


def _mark_file(path: str, state: str, message: str, ref: str | None) -> None:
    """Write a state into a job record, if it is one of taoprof's that has no end yet, and not another program's."""
    record = files.read_json(path, _RECORD_LIMIT)
    match record.get("transitions"):
        case [*_, {"state": last_state, "message": last_message}]:
            is_new = last_state != state or (bool(message) and last_message != message)
        case _:
            return
    if record.get("platform") != PLATFORM or record.get("terminal_state") is not None:
        return
    if not is_new and record.get("backend_ref") == ref:
        return
    if is_new and (message or state != "PENDING"):
        record["transitions"].append(_transition(state, message))
    record["backend_ref"] = ref or record.get("backend_ref")
    if state in _TERMINAL_STATES:
        record |= {"terminal_state": state, "terminal_write_by": "backend-hook"}
    files.write_cache(path, json.dumps(record, indent=2).encode())


def _transition(state: str, message: str) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"ts": now, "state": state, "message": message, "source": "backend-hook"}
