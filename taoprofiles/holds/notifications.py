"""Notifications and the hook ``on_end`` at the end of a run, whichever process records the end.

``holds/ID.notify`` has the targets and the hook. When the run has ended, it gets the outcome and becomes
``notifications/ID.json``, once, however often the end is recorded. A separate process (``runs.sender``) then
sends it. It inherits a kernel lock on the file, notes in it what is done, and deletes it. For a file without a lock,
whose sender was killed, another one is started.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import FIELDS, Hold, without_run_tag
from taoprofiles.storage import atomic, files
from taoprofiles.storage.locks import LivenessLock
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:
    import subprocess

FORMAT = 1
_LIMIT = 1 << 20

_senders: list[subprocess.Popen[bytes]] = []
"""Senders that this process has started and not yet reaped; without it a guard would leave zombies."""


class Notification:
    """The targets and the hook for the end of a run, and what senders have done of it.

    - ``targets``: "desktop" or URLs of Apprise; ``on_end``: a command line of /bin/sh, "" for none
    - ``run``: the run with its outcome, None while it is active
    - ``notes``: of earlier senders and of this one: "attempt", "sent N" or "failed N" for a target, "on_end"
    """

    def __init__(self, targets: list[str], on_end: str, run: Hold | None = None) -> None:
        self.targets, self.on_end, self.run = targets, on_end, run
        self.notes: list[str] = []

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        fields = {"v": FORMAT, "targets": self.targets, "on_end": self.on_end, "run": self.run and self.run.as_dict()}
        return json.dumps(fields).encode() + b"\n"


def register(context: Context, hold_id: str, targets: list[str], on_end: str) -> None:
    """Store the targets and the hook of a run that is about to start. Needs the lock. Raises TaoprofError."""
    if targets or on_end:
        files.make_folder(context.notifications)  # at the end the disk may be full
        atomic.replace(_registered_path(context, hold_id), Notification(targets, on_end).to_bytes())
    else:
        files.unlink_quietly(_registered_path(context, hold_id))  # of a run that was queued with other targets


def publish(context: Context, run: Hold) -> int | None:
    """Move the notification of a run that has ended to where senders look for it. Needs the lock.

    Return the descriptor with the lock on it for ``start_sender``; None if the run has no notification, or it cannot
    be moved. Raises nothing: the end must be recorded.
    """
    path = _registered_path(context, run.id)
    wanted = _parse(files.try_read(path, _LIMIT)[0])
    if wanted is None:
        return None
    if wanted.run is None:  # else a process that knew the outcome was killed here
        wanted.run = run
        with suppress(TaoprofError):  # without it, as on a full disk, the sender looks into the journal of runs
            atomic.replace(path, wanted.to_bytes())
    fd = LivenessLock(path).try_inherit()
    if fd is not None:
        with suppress(TaoprofError):
            files.rename(path, _published_path(context, run.id))
            return fd
        os.close(fd)
    return None


def recover(context: Context, run_id: str, has_ended: Callable[[], bool]) -> bool:
    """Publish what ``publish`` could not; return False if it has to be tried again. Needs the lock.

    Only for a run without a record. If ``has_ended`` returns False, such a run was never started, and nothing is sent.
    """
    path = _registered_path(context, run_id)
    content, problem = files.try_read(path, _LIMIT)
    if problem not in ("", "absent"):
        return False
    wanted = _parse(content)
    if wanted is None or (wanted.run is None and not has_ended()):
        return True
    return files.try_rename(path, _published_path(context, run_id))


def withdraw(context: Context, hold_id: str, fd: int | None) -> None:
    """Undo ``publish``: the end of the run could not be recorded."""
    if fd is not None:
        files.try_rename(_published_path(context, hold_id), _registered_path(context, hold_id))
        os.close(fd)


def start_sender(context: Context, run_id: str, fd: int, *, attended: bool = False) -> subprocess.Popen[bytes] | None:
    """Start the process that sends a published notification; None if that fails, and a later command tries again.

    It gets the descriptor, which is closed here. If it is ``attended``, it writes what goes wrong to the standard error
    of this process, else into the messages for the next command.
    """
    import subprocess  # only here, so that the commands that end no run do not load it

    argv = [sys.executable, "-P", "-m", "taoprofiles.runs.sender", run_id, str(fd), *(["--attended"] * attended)]
    try:
        process = subprocess.Popen(  # noqa: S603
            argv,
            env=without_run_tag(context.environ),
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


def start_missing_senders(context: Context) -> None:
    """Start a sender for each published notification whose sender was killed. Needs the lock. Raises nothing."""
    _senders[:] = [process for process in _senders if process.poll() is None]
    with suppress(TaoprofError):
        for name in files.names_in(context.notifications):
            run_id, _, ending = name.partition(".")
            fd = LivenessLock(_published_path(context, run_id)).try_inherit() if ending == "json" else None
            if fd is not None:
                start_sender(context, run_id, fd)


def read(context: Context, run_id: str, fd: int) -> Notification | None:
    """Return the notification of the sender that has this descriptor; None if it has been sent or cannot be read."""
    path = _published_path(context, run_id)
    if not files.has_name(fd, path):
        return None
    try:
        notification = _parse(files.read_open(fd, _LIMIT, path))
    except (OSError, TaoprofError):
        return None
    if notification is None:
        delete(context, run_id)  # or it would get a sender again and again
    return notification


def note(context: Context, run_id: str, text: str) -> None:
    """Note what a sender has done or is about to do, for the next one."""
    files.append_quietly(_published_path(context, run_id), json.dumps(text).encode() + b"\n")


def delete(context: Context, run_id: str) -> None:
    """Delete a notification for which all has been done."""
    files.unlink_quietly(_published_path(context, run_id))


def _registered_path(context: Context, hold_id: str) -> str:
    return os.path.join(context.holds, f"{hold_id}.notify")


def _published_path(context: Context, run_id: str) -> str:
    return os.path.join(context.notifications, f"{run_id}.json")


def _parse(content: bytes) -> Notification | None:
    """Return the notification of a file; None for no file or a damaged one. An incomplete last line is left out."""
    first, *lines = content.split(b"\n")
    try:
        record: dict[str, Any] = json.loads(first)
        run = record["run"]
        run = None if run is None else Hold(**{name: run[name] for name in FIELDS if name in run})
        notification = Notification(record["targets"], record["on_end"], run)
        for line in lines[:-1]:
            notification.notes.append(str(json.loads(line)))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_valid = record["v"] == FORMAT and isinstance(notification.on_end, str) and (run is None or run.is_valid())
    is_valid = is_valid and isinstance(notification.targets, list)
    return notification if is_valid and all(isinstance(target, str) for target in notification.targets) else None
