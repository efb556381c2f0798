"""Reading the log of a run: its last lines, and what comes until the run ends."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterator

from taoprofiles.errors import NotFoundError, TaoprofError
from taoprofiles.holds.hold import Hold
from taoprofiles.holds.logs import KEPT_LOGS, LogReader, RunLog
from taoprofiles.runs import cluster
from taoprofiles.runs.lookup import EndWatch, ended_run
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context

INTERVAL = 0.3
"""Seconds between two looks at a log that is followed."""

CHECK_INTERVAL = 1.0
"""Seconds without output after which a look is taken whether the run is over."""


def open_log(context: Context, run: Hold) -> LogReader:
    """Open the log of a run. Raises NotFoundError if it has none, ClusterError."""
    secrets = cluster.secret_values(context, run.profile or "")
    if run.cluster == "kubernetes" and ended_run(context, run) is None:
        return cluster.PodLog(context, run, secrets)
    try:
        return RunLog(context, run.id).open(secrets)
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


def follow(context: Context, run: Hold, reader: LogReader) -> Iterator[bytes]:
    """Yield what the run prints, until it is over."""
    find_end = EndWatch(context, run)
    while True:
        is_over = find_end() is not None  # first, so that nothing is missed that was printed before
        if is_over:
            reader.set_over()
        end = time.monotonic() + CHECK_INTERVAL
        while time.monotonic() < end:
            while chunk := reader.read():
                yield chunk
            if is_over:
                yield reader.rest()
                return
            time.sleep(INTERVAL)
