"""The runs, active and ended: which there are, what they wrote, and waiting for their end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from taoprofiles.errors import NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import OWN_KINDS, Hold
from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.holds.manage import active_holds
from taoprofiles.holds.records import HoldRecords
from taoprofiles.holds.waiting import RETRY_INTERVAL, wait_for_exit
from taoprofiles.launcher.argv import parse_launcher_argv
from taoprofiles.runs import cluster
from taoprofiles.storage import files
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.system import processes
from taoprofiles.system.clusters import ClusterError
from taoprofiles.system.filesystem import answers, real_paths

CLUSTER_INTERVALS = (1.0, 30.0)
"""The shortest and the longest interval in seconds between two queries of a cluster about one run."""

UNREACHABLE_TIMEOUT = 600.0
"""Seconds for which a cluster that has answered before may be unreachable, until that is an error."""


_RUNS_RESOLVED = 500
"""Runs whose results folders are resolved at once: each question about paths has a thread of its own."""


class WaitTimeoutError(TaoprofError):
    """A run did not end in time; the exit status is that of timeout(1)."""

    code = "timeout"
    status = 124


def all_runs(context: Context) -> Iterator[Hold]:
    """Yield every run: the active ones first, then the ended ones, the newest first."""
    yield from (hold for hold in reversed(active_holds(context).holds) if hold.kind in OWN_KINDS)
    yield from HoldRecords(context).ended_runs()


def runs_since(context: Context, oldest: float) -> Iterator[Hold]:
    """Yield the runs that were started at ``oldest`` or later, the newest first; no more of the journal is read."""
    for run in all_runs(context):
        if run.ended is not None and run.ended < oldest:
            break  # those that follow ended before
        if run.since >= oldest:
            yield run


def find_run(context: Context, word: str) -> Hold:
    """Return the run that ``word`` means: an id, the name of a profile (its newest run), or as ``match_id``."""
    # Records first: a run that ends meanwhile is in both. One that nobody has recorded as ended yet is not active.
    active = [run for run in HoldRecords(context).all({}) if run.kind == "run"]
    meant = [run for run in active if word in ("-", run.profile)]
    ended = (run for run in HoldRecords(context).ended_runs("" if word == "-" else word) if run.kind == "run")
    meant += _may_be_newest(run for run in ended if word in ("-", run.profile))
    if meant:
        return max(meant, key=lambda run: run.since)
    return match_id([*active, *(run for run in HoldRecords(context).ended_runs(word) if run.kind == "run")], word)


def _may_be_newest(ended: Iterable[Hold]) -> Iterator[Hold]:
    """Yield the runs of which one has started last; ``ended`` begins with the one that ended last."""
    newest = 0.0
    for run in ended:
        if (run.ended or 0.0) < newest:
            break
        yield run
        newest = max(newest, run.since)


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
    """Return the run as it was recorded at its end, None while it is active.

    Raises ClusterError if it is a job on a cluster that cannot be asked.
    """
    if run.ended is not None:
        return run
    if run.cluster is not None:
        for problem in cluster.refresh(context, [run]):
            raise problem
        return None if run.ended is None else run
    record = HoldRecords(context).get(run.id)
    if record is not None:
        is_here = record.host_id == processes.host_id()
        if is_here and processes.alive(record.pid, record.start):
            return None
        if active_holds(context).find(run.id) is not None:  # records the end of a run whose processes were killed
            return None
        if HoldRecords(context).get(run.id) is not None:  # not while another command had the lock
            with suppress(TaoprofError), Lock(context.lock):
                if find_active_holds(context, files.read_mapping_file(context), may_write=True).find(run.id):
                    return None
    recorded = next((ended for ended in HoldRecords(context).ended_runs(run.id) if ended.id == run.id), None)
    if recorded is None:
        run.ended = time.time()
    return recorded or run


class EndWatch:
    """Checks repeatedly whether a run is over; a call returns what ``ended_run`` does.

    A cluster is queried less often the older its job is (CLUSTER_INTERVALS). If it cannot be reached, the run counts as
    active for UNREACHABLE_TIMEOUT.
    """

    def __init__(self, context: Context, run: Hold) -> None:
        self._context, self._run = context, run
        self._next, self._answered = 0.0, float("-inf")

    def __call__(self) -> Hold | None:
        """Return the run as it ended, None while it is active. Raises ClusterError."""
        now = time.monotonic()
        if self._run.cluster is not None:
            if now < self._next:
                return None
            self._next = now + min(
                max((time.time() - self._run.since) / 20, CLUSTER_INTERVALS[0]), CLUSTER_INTERVALS[1]
            )
        try:
            ended = ended_run(self._context, self._run)
            self._answered = now
        except ClusterError:
            if now - self._answered > UNREACHABLE_TIMEOUT:
                raise
            return None
        return ended


def wait_for_end(context: Context, run: Hold, *, end: float = float("inf")) -> Hold:
    """Wait until a run is over, and return it.

    Raises WaitTimeoutError at ``end``, by the monotonic clock, and ClusterError.
    """
    find_end = EndWatch(context, run)
    while (ended := find_end()) is None:
        left = end - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(f"run {run.id} is still running", hint="'taoprof status' shows how far it is")
        is_here = run.host_id == processes.host_id() and processes.alive(run.pid, run.start)
        wait_for_exit([run.pid] if is_here else [], min(RETRY_INTERVAL, left))
    return ended


def runs_writing(context: Context, path: str, limit: int | None = None) -> list[Hold]:
    """Return the ``limit`` newest runs that wrote to ``path``: those with a results folder around or inside it.

    A launcher that failed without a container wrote nothing. Raises NotFoundError if there is no such path, nor a run
    that wrote it.
    """
    real = next(real_paths([os.path.expanduser(path)]))

    runs = list(islice(_runs_writing(real, filter(_may_have_written, all_runs(context))), limit))
    if not runs and answers(os.path.lexists, [real]).get(real) is False:
        raise NotFoundError(f"no such file or folder: '{real}'")
    return runs


def _runs_writing(real: str, runs: Iterator[Hold]) -> Iterator[Hold]:
    while several := list(islice(runs, _RUNS_RESOLVED)):
        folders = list(dict.fromkeys(folder for run in several for folder in run.results))
        resolved = zip(folders, real_paths(folders), strict=True)
        written = {folder for folder, path in resolved if is_inside(real, path) or is_inside(path, real)}
        yield from (run for run in several if not written.isdisjoint(run.results))


def _may_have_written(run: Hold) -> bool:
    return run.ended is None or bool(run.container) or run.status == 0 or parse_launcher_argv(run.command) is None
