"""The runs, active and ended: which there are, what they wrote, and waiting for their end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from taoprofiles.errors import NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import OWN_KINDS, Hold
from taoprofiles.holds.manage import active_holds
from taoprofiles.holds.records import HoldRecords
from taoprofiles.holds.waiting import RETRY_INTERVAL, wait_for_exit
from taoprofiles.launcher.argv import parse_launcher_argv
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.system import processes
from taoprofiles.system.filesystem import answers, real_paths


class WaitTimeoutError(TaoprofError):
    """A run did not end in time; the exit status is that of timeout(1)."""

    code = "timeout"
    status = 124


def all_runs(context: Context) -> Iterator[Hold]:
    """Yield every run: the active ones first, then the ended ones, the newest first."""
    yield from (hold for hold in reversed(active_holds(context).holds) if hold.kind in OWN_KINDS)
    yield from HoldRecords(context).ended_runs()


def find_run(context: Context, word: str) -> Hold:
    """Return the run that ``word`` means: an id, the name of a profile (its newest run), or as ``match_id``."""
    # Records first: a run that ends meanwhile is in both. One that nobody has recorded as ended yet is not active.
    known = [*HoldRecords(context).all({}), *HoldRecords(context).ended_runs()]
    runs = [run for run in known if run.kind == "run"]
    of_profile = [run for run in runs if run.profile == word]
    return max(of_profile, key=lambda run: run.since) if of_profile else match_id(runs, word)


def match_id(runs: Iterable[Hold], word: str) -> Hold:
    """Return the run with an id, or the only one whose id begins with ``word``; "-" is the newest.

    Raises NotFoundError, UsageError if there are several.
    """
    runs = sorted(runs, key=lambda run: run.since, reverse=True)
    if word == "-" and runs:
        return runs[0]
    matching = [run for run in runs if run.id == word] or [run for run in runs if word and run.id.startswith(word)]
    if not matching:
        raise NotFoundError(
            f"there is no run '{word}'", hint="'taoprof status' lists the active runs, 'taoprof history' all"
        )
    if len({run.id for run in matching}) > 1:
        ids = ", ".join(run.id for run in matching[:10])
        raise UsageError(f"'{word}' is the beginning of several ids: {ids}", hint="give more of the id")
    return matching[0]


def ended_run(context: Context, run: Hold) -> Hold | None:
    """Return the run as it was recorded at its end, None while it is active."""
    if run.ended is not None:
        return run
    record = HoldRecords(context).get(run.id)
    if record is not None:
        is_here = record.host_id == processes.host_id()
        if is_here and processes.alive(record.pid, record.start):
            return None
        if active_holds(context).find(run.id) is not None:  # records the end of a run whose processes were killed
            return None
    recorded = next((ended for ended in HoldRecords(context).ended_runs() if ended.id == run.id), None)
    if recorded is None:
        run.ended = time.time()
    return recorded or run


def wait_for_end(context: Context, run: Hold, *, end: float = float("inf")) -> Hold:
    """Wait until a run is over, and return it. Raises WaitTimeoutError at ``end``, by the monotonic clock."""
    while (ended := ended_run(context, run)) is None:
        left = end - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(f"run {run.id} is still running", hint="'taoprof status' shows how far it is")
        is_here = run.host_id == processes.host_id() and processes.alive(run.pid, run.start)
        wait_for_exit([run.pid] if is_here else [], min(RETRY_INTERVAL, left))
    return ended


def runs_writing(context: Context, path: str) -> list[Hold]:
    """Return the runs that wrote to ``path``, the newest first: those with a results folder around or inside it.

    A launcher that failed without a container wrote nothing. Raises NotFoundError if there is no such path, nor a run
    that wrote it.
    """
    real = next(real_paths([os.path.expanduser(path)]))
    runs = [run for run in all_runs(context) if _may_have_written(run) and _writes_to(run, real)]
    if not runs and answers(os.path.lexists, [real]).get(real) is False:
        raise NotFoundError(f"no such file or folder: '{real}'")
    return runs


def _writes_to(run: Hold, real: str) -> bool:
    return any(is_inside(real, folder) or is_inside(folder, real) for folder in real_paths(run.results))


def _may_have_written(run: Hold) -> bool:
    return run.ended is None or bool(run.container) or run.status == 0 or parse_launcher_argv(run.command) is None
