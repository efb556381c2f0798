"""The job records of NVIDIA's TAO skill bank, by which coding agents know which jobs they have started.

One file for each run, ``jobs/ID.json`` in the bank's state folder: written before the launch, and brought up to date
with the run's own record. The format is that of the bank's job_record.schema.json (tao-skill-bank, skills/core/
tao-artifacts). Errors are ignored: a run must not fail because of a record for other programs.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from typing import Any

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import Hold
from taoprofiles.storage import files
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context

PLATFORM = "taoprofiles"
"""The bank's name of the platform: its skill is tao-run-on-taoprofiles."""

_TERMINAL = ("COMPLETE", "ERROR", "CANCELED")
_CANCELLED = (130, 137, 143)
"""Exit statuses of a task that SIGINT, SIGKILL or SIGTERM has ended."""
_LIMIT = 1 << 20
_LOCK_TIMEOUT = 2.0


def folder(context: Context) -> str:
    """Return the folder of the records: of TAO_STATE_DIR, if that is an absolute path, or ~/.tao."""
    state = context.environ.get("TAO_STATE_DIR", "")
    return os.path.join(state if state.startswith("/") else os.path.join(context.home, ".tao"), "jobs")


def open_record(context: Context, hold: Hold, *, image: str | None, wanted: bool | None) -> None:
    """Write the record of a run that is about to be launched.

    ``image`` is the run's, None for the launcher's. ``wanted`` is the profile's ``job_record``: with None, a record is
    written only if the folder of the records exists.
    """
    if wanted is False or (wanted is None and not os.path.isdir(folder(context))):
        return
    from taoprofiles.export.export import find_image  # only for a record
    from taoprofiles.launcher.argv import parse_launcher_argv, simple_commands
    from taoprofiles.rules.direct import tasks

    if not image:
        with suppress(TaoprofError):
            image = find_image(context, hold.command)
    launch = next(filter(None, map(parse_launcher_argv, simple_commands(hold.command))), None)
    others, _ = tasks(hold.command)
    task = [launch.task, *launch.options] if launch and launch.task else others[0] if others else hold.command
    words = [re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(word)) for word in task[:2]]
    network = words[0].lstrip("._-") if words and words[0].strip("._-") else "command"
    action = words[1] if len(words) > 1 and words[1][:1].isalnum() else "run"
    record_id, now = f"{network}-{action}-{hold.id}"[:200], _now()
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
        "submitted_at": now,
        "transitions": [_transition("PENDING", "record opened before launch", now)],
        "terminal_state": None,
        "terminal_write_by": None,
        "redacted": True,
    }
    files.write_cache(os.path.join(folder(context), f"{record_id}.json"), json.dumps(record, indent=2).encode())


def update(context: Context, hold: Hold) -> None:
    """Record the state of a run that is alive, and the id by which taoprof knows it."""
    state = "RUNNING" if hold.phase == "bound" else "PENDING"
    _mark(context, hold.id, state, hold.state, ref=hold.id)


def end(context: Context, hold: Hold) -> None:
    """Record the end of a run. With an unknown exit status the record has no terminal state."""
    state = "UNKNOWN" if hold.status is None else "COMPLETE" if hold.status == 0 else "ERROR"
    state = "CANCELED" if hold.status in _CANCELLED else state
    _mark(context, hold.id, state, f"exit status {'unknown' if hold.status is None else hold.status}", ref=hold.id)


def discard(context: Context, hold_id: str) -> None:
    """Record that a run was never started; nothing for one that has ended."""
    _mark(context, hold_id, "ERROR", "it was not started")


def _mark(context: Context, hold_id: str, state: str, message: str, *, ref: str | None = None) -> None:
    path = _find(context, hold_id)
    if path is None:
        return
    lock = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.lock")  # as the bank's own writer does
    with suppress(TaoprofError), Lock(lock, _LOCK_TIMEOUT):
        record = files.read_json(path, _LIMIT)
        if record is None or not _is_open(record):
            return
        last = record["transitions"][-1]
        is_new = last["state"] != state or (bool(message) and last["message"] != message)
        if not is_new and record["backend_ref"] == ref:
            return
        if is_new and (message or state != "PENDING"):
            record["transitions"].append(_transition(state, message, _now()))
        record["backend_ref"] = ref or record["backend_ref"]
        if state in _TERMINAL:
            record |= {"terminal_state": state, "terminal_write_by": "backend-hook"}
        files.write_cache(path, json.dumps(record, indent=2).encode())


def _is_open(record: dict[str, Any]) -> bool:
    """Check whether a record is one of taoprof's that has no end yet, and not another program's."""
    transitions = record.get("transitions")
    last = transitions[-1] if isinstance(transitions, list) and transitions else None
    has_state = isinstance(last, dict) and {"state", "message"} <= last.keys() and "backend_ref" in record
    return has_state and record.get("platform") == PLATFORM and record.get("terminal_state") is None


def _find(context: Context, hold_id: str) -> str | None:
    with suppress(TaoprofError):
        for name in files.names_in(folder(context)):
            if name.endswith(f"-{hold_id}.json") and not name.startswith("."):
                return os.path.join(folder(context), name)
    return None


def _transition(state: str, message: str, now: str) -> dict[str, Any]:
    return {"ts": now, "state": state, "message": message, "source": "backend-hook"}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
