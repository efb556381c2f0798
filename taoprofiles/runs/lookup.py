"""The runs, active and ended: which there are, what they wrote and print; waiting for their end, and stopping them."""

from __future__ import annotations

import io
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from taoprofiles.errors import NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import AGENT, OWN_KINDS, RUN_VARIABLE, Hold
from taoprofiles.holds.liveness import ActiveHolds, find_active_holds
from taoprofiles.holds.logs import KEPT_LOGS, LogReader, RunLog
from taoprofiles.holds.manage import active_holds
from taoprofiles.holds.queue import RETRY_INTERVAL, wait_for_exit
from taoprofiles.holds.records import HoldRecords
from taoprofiles.launcher.argv import parse_launcher_argv
from taoprofiles.profiles.store import Store
from taoprofiles.runs import jobs
from taoprofiles.storage import files
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.system import processes
from taoprofiles.system.clusters import ClusterError
from taoprofiles.system.engine import Engine, EngineError
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
    records = HoldRecords(context)
    active = [run for run in records.all({}) if run.kind == "run"]
    meant = [run for run in active if word in ("-", run.profile)]
    ended = (run for run in records.ended_runs("" if word == "-" else word) if run.kind == "run")
    meant += _may_be_newest(run for run in ended if word in ("-", run.profile))
    if meant:
        return max(meant, key=lambda run: run.since)
    return match_id([*active, *(run for run in records.ended_runs(word) if run.kind == "run")], word)


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
            "there is no run" + f" '{word}'" * (word != "-"),
            hint="'taoprof status' lists the active runs, 'taoprof history' all",
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
        for problem in jobs.refresh(context, [run]):
            raise problem
        return None if run.ended is None else run
    records = HoldRecords(context)
    record = records.get(run.id)
    if record is not None:
        # The search records the end of a run whose processes were killed.
        if record.has_process_here() or active_holds(context).find(run.id) is not None:
            return None
        if records.get(run.id) is not None:  # not while another command had the lock
            with suppress(TaoprofError), Lock(context.lock):
                if find_active_holds(context, files.read_mapping_file(context), may_write=True).find(run.id):
                    return None
    recorded = next((ended for ended in records.ended_runs(run.id) if ended.id == run.id), None)
    if recorded is None:
        run.ended = time.time()
    return recorded or run


def watch_end(context: Context, run: Hold) -> Iterator[Hold | None]:
    """Yield again and again what ``ended_run`` returns. Raises ClusterError.

    A cluster is queried less often the older its job is (CLUSTER_INTERVALS). If it cannot be reached, the run counts as
    active for UNREACHABLE_TIMEOUT.
    """
    query_at, answered = 0.0, float("-inf")
    shortest, longest = CLUSTER_INTERVALS
    while True:
        ended, now = None, time.monotonic()
        if run.cluster is None or now >= query_at:
            query_at = now + min(max((time.time() - run.since) / 20, shortest), longest)
            try:
                ended, answered = ended_run(context, run), now
            except ClusterError:
                if now - answered > UNREACHABLE_TIMEOUT:
                    raise
        yield ended


def wait_for_end(context: Context, run: Hold, *, end: float = float("inf")) -> Hold:
    """Wait until a run is over, and return it.

    Raises WaitTimeoutError at ``end``, by the monotonic clock, and ClusterError.
    """
    ends = watch_end(context, run)
    while (ended := next(ends)) is None:
        left = end - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(f"run {run.id} is still running", hint="'taoprof status' shows how far it is")
        wait_for_exit([run.pid] if run.has_process_here() else [], min(RETRY_INTERVAL, left))
    return ended


def runs_writing(context: Context, path: str, limit: int | None) -> list[Hold]:
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


STOP_TIMEOUT = 10.0
"""Seconds that the processes of a run have to end after SIGTERM, until they get SIGKILL; that of ``docker stop``."""

KILL_TIMEOUT = 5.0
"""Seconds in which a process ends after SIGKILL, unless the kernel waits for a device or a file server."""


def stop(context: Context, hold_id: str) -> tuple[Hold, str]:
    """Stop the container of a run and its processes; then its hold ends by itself. Return it, and what was done.

    Of a notebook, only what its cells started is stopped, not the kernel. Only the processes of a run are waited for,
    and killed after STOP_TIMEOUT: others were not started by taoprofiles, or somebody works in them. The run's own
    process is no such process: it records the end. Raises what ``find_stoppable`` does, and TaoprofError if the engine
    refuses or a process does not end, ClusterError if a cluster refuses.
    """
    hold = find_stoppable(context, active_holds(context), hold_id)
    if hold.cluster is not None:
        jobs.cancel(context, hold)
        return hold, f"{hold.cluster} job {hold.job} cancelled"
    done = ""
    if hold.container:
        try:
            if Engine(context.environ, address=hold.engine).stop(hold.container):
                done = f"container {hold.container[:6]} stopped"
        except EngineError as error:
            raise TaoprofError(f"container {hold.container[:6]} could not be stopped: {error}") from None
        if hold.kind == "found" and done:
            return hold, done  # its launcher ends with it
    pids = _processes(context, hold)
    if hold.container and not (done or pids):  # a script goes on after a container, perhaps with the next one
        raise NotFoundError(f"container {hold.container[:6]} does not exist any more")
    # A command that stops its own run cannot wait for itself.
    is_waiting = hold.kind == "run" and bool(pids) and context.environ.get(RUN_VARIABLE) != hold.id
    if not pids and not hold.container and hold.kind == "run" and hold.has_process_here():
        pids = [hold.pid]  # its command has not been started yet; after a container, it has ended and is being recorded
    # An interactive shell ignores SIGTERM, and exits on SIGHUP, as when its terminal closes.
    number = signal.SIGHUP if hold.kind == "shell" else signal.SIGTERM
    _send_signal(pids, number)
    if not is_waiting:
        return hold, done or f"sent {number.name} to its processes"
    if _wait_or_kill(context, hold):
        killed = f"killed, because it was still running {STOP_TIMEOUT:g} s after SIGTERM"
        done = f"{done}, its processes {killed}" if done else killed
    return hold, ", ".join(filter(None, (done, _stop_next_container(context, hold)))) or "stopped"


def _stop_next_container(context: Context, hold: Hold) -> str:
    """Stop a container of a run that was being started, or was not the only one; return what was done, "" if none."""
    left = active_holds(context).find(hold.id)
    if left is not None and left.container not in (None, hold.container):
        with suppress(NotFoundError):  # it has just ended
            return stop(context, hold.id)[1]
    return ""


def _wait_or_kill(context: Context, hold: Hold) -> bool:
    """Wait until the processes of a run have ended; return whether they had to be killed. Raises TaoprofError.

    Runs that it has started are stopped before: killing their taoprof would leave their commands and containers.
    """
    if not _wait(context, hold, STOP_TIMEOUT):
        return False
    pids = _processes(context, hold)
    for run in HoldRecords(context).all({}):
        if run.id != hold.id and run.pid in pids and run.has_process_here():
            with suppress(NotFoundError):  # it has just ended
                stop(context, run.id)
            wait_for_exit([run.pid], KILL_TIMEOUT)  # it records the end
    if pids := _wait(context, hold, KILL_TIMEOUT, kill=True):
        raise TaoprofError(
            f"run {hold.id} is still running after SIGKILL: {', '.join(f'pid {pid}' for pid in pids)}",
            hint="it may be waiting for a device or a file server; it ends when that answers",
        )
    return True


def _wait(context: Context, hold: Hold, seconds: float, *, kill: bool = False) -> list[int]:
    """Wait until the processes of a run have ended, for ``seconds`` at most; return those that have not."""
    end = time.monotonic() + seconds
    while (pids := _processes(context, hold)) and (left := end - time.monotonic()) > 0:
        if kill:
            _send_signal(pids, signal.SIGKILL)
        wait_for_exit(pids, min(RETRY_INTERVAL, left))
    return pids


def _send_signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):  # it has just ended; the pid may be another user's by now
            if pid != os.getpid():
                os.kill(pid, number)


def find_stoppable(context: Context, active: ActiveHolds, hold_id: str) -> Hold:
    """Return the hold whose work can be stopped; its id may be shortened, "-" is the newest run.

    Raises NotFoundError, UsageError if there is nothing to stop or it is on another host.
    """
    candidates = [hold for hold in active.holds if hold.kind == "run" or hold_id != "-"]
    try:
        hold = active.find(hold_id) or match_id(candidates, hold_id)
    except NotFoundError:
        run = next((hold for hold in active.holds if hold.profile == hold_id), None) or find_run(context, hold_id)
        if run.ended is None:
            raise UsageError(f"'{hold_id}' is the name of a profile", hint=f"its run: taoprof stop {run.id}") from None
        raise NotFoundError(f"run {run.id} has already ended", hint=f"'taoprof wait {run.id}' shows how") from None
    if hold.cluster is not None:
        jobs.refresh(context, [hold])
        if hold.ended is not None:
            active.holds.remove(hold)
            return find_stoppable(context, active, hold_id)
    hold_id = hold.id
    if hold.kind == "manual":
        raise UsageError(f"'{hold_id}' is a manual hold without a command", hint=f"'taoprof release {hold_id}'")
    if hold.kind == AGENT:
        raise UsageError(
            f"'{hold_id}' is a container of NVIDIA's agent, which keeps the record of its job '{hold.job}'",
            hint=f"let the agent cancel the job; or, without it: docker stop {(hold.container or '')[:12]}",
        )
    if hold.cluster is None and hold.host_id != processes.host_id():
        raise UsageError(f"'{hold_id}' runs on {hold.host}: stop it there")
    if hold_id in active.unproved and hold.container is None:
        raise UsageError(
            f"nothing of {hold.kind} {hold_id} can be stopped: its process has ended, and the engine cannot be queried",
            hint=f"if its work is over: taoprof release {hold_id}; to find the reason: taoprof doctor",
        )
    if hold.kind == "notebook" and not (hold.container or _processes(context, hold)):
        raise UsageError(f"notebook '{hold.reason}' has no running task", hint="shut its kernel down in Jupyter")
    return hold


def _processes(context: Context, hold: Hold) -> list[int]:
    pids = [pid for pid, tag in processes.with_variable(context.uid, RUN_VARIABLE) if tag == hold.id]
    if hold.kind == "found" and processes.alive(hold.pid, hold.start):
        pids.append(hold.pid)
    return pids


LOG_INTERVAL = 0.3
"""Seconds between two looks at a log that is followed."""

CHECK_INTERVAL = 1.0
"""Seconds without output after which a look is taken whether the run is over."""


def open_log(context: Context, run: Hold) -> LogReader:
    """Open the log of a run. Raises NotFoundError if it has none, ClusterError."""
    secrets = Store(context).secret_values(run.profile)
    if run.cluster == "kubernetes":
        if ended_run(context, run) is None:
            return jobs.PodLog(context, run, secrets)
        jobs.keep_log(context, run)
    try:
        return LogReader(RunLog(context, run.id).path, secrets)
    except NotFoundError:
        raise NotFoundError(
            f"run {run.id} has no log: it was an interactive shell, its log could not be written, or there were"
            f" {KEPT_LOGS} newer runs"
        ) from None


def last_lines(reader: LogReader, number: int | None, *, to_end: bool) -> bytes:
    """Return the last lines that are in the log by now; all of them if ``number`` is None.

    With ``to_end``, also the beginning of a line that is not complete.
    """
    lines: deque[bytes] = deque(maxlen=number)
    while chunk := reader.read():
        lines.extend(io.BytesIO(chunk))  # as lines that end with "\n": a progress bar is one line
    return b"".join(lines) + (reader.rest() if to_end else b"")


def last_line(context: Context, run: Hold) -> str:
    """Return the last line that a run has printed; "" if it has no log, or only the cluster has it."""
    # First, since the profile is read for its secrets.
    if run.cluster == "kubernetes" or files.stat_or_none(RunLog(context, run.id).path) is None:
        return ""
    try:
        return open_log(context, run).last_line()
    except (TaoprofError, OSError):
        return ""


def follow_log(context: Context, run: Hold, reader: LogReader) -> Iterator[bytes]:
    """Yield what the run prints, until it is over, and its process has printed what its notification or hook did."""
    for ended in watch_end(context, run):
        is_over = ended is not None and not run.has_process_here()  # first, or what is printed now may be missed
        if is_over:
            reader.set_over()
        end = time.monotonic() + CHECK_INTERVAL
        while time.monotonic() < end:
            while chunk := reader.read():
                yield chunk
            if is_over:
                yield reader.rest()
                return
            time.sleep(LOG_INTERVAL)
