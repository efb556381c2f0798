"""The progress of runs, from the ``status.json`` that TAO's tasks write into their results folder.

The file has one JSON object in each line. It is appended to: an earlier run may have written to the same file, and a
writer may be in the middle of a line. No line names its run, so the lines of a run are those whose time is not before
the start of its hold, from the last line with the status STARTED on. A figure that is not certain is left out.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from taoprofiles.holds.hold import Hold, results_conflicts
from taoprofiles.masking import mask_text, printable, shorten
from taoprofiles.storage import files
from taoprofiles.system.filesystem import answers

FILE = "status.json"
WINDOWS = (1 << 16, 1 << 18, 1 << 22)
"""Bytes at the end of a file that are read: the next number only if the one before has no figures of the run."""

READ_SHARE = 100
"""A file that changes all the time is not read again before so many times what the last reading took have passed."""

LINE_LIMIT = 1 << 18
AFTER_END = 5.0
"""Seconds that the last change of a file may be later than the end of its run: the clock of a file server differs."""

HISTORY = 60
"""Values of a metric that are kept."""

METRICS_LIMIT = 20
NAME_LIMIT = 40
TEXT_LIMIT = 200
TIMEOUT = 2.0
"""Seconds for all files of all runs: a look at the folder of a file server that is down never returns."""

_TASKS = (
    "train", "evaluate", "inference", "export", "prune", "quantize", "distill", "dataset_convert", "gen_trt_engine",
)  # fmt: skip
"""Tasks that write into a folder of their own name; those of TAO Deploy into ``trt_evaluate`` and ``trt_inference``."""

_STATUSES = ("STARTED", "RUNNING", "SUCCESS", "FAILURE", "SKIPPED")
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{1,2}):(\d{1,2})", re.ASCII)
_DURATION = re.compile(r"(?:(\d{1,5}) days?, )?(\d{1,5}):(\d\d):(\d\d(?:\.\d{1,9})?)", re.ASCII)
_FINISHED = re.compile(r"(?:finished|completed) successfully\b")
_QUARTER = 900
"""Seconds: every time zone differs from UTC by a multiple of it."""


class Metric(NamedTuple):
    """The values of one metric, the oldest first."""

    name: str
    values: list[float]


class Progress(NamedTuple):
    """What a run's task has reported; None stands for what is not known.

    - ``path``: the file; ``updated``: when its last line was written (seconds since 1970)
    - ``state``: starting, running, finished, or error, if the last line reports one: the task may be going on
    - ``message``: the text of that error
    - ``epoch``: the epochs that are done, of ``epochs``; ``share``: the part of the training that is done, 0 to 1
    - ``seconds_per_epoch``; ``end``: when the training ends by the task's own estimate
    - ``metrics``: the one that was reported last comes last
    """

    path: str
    state: str
    updated: float | None
    message: str
    epoch: int | None
    epochs: int | None
    share: float | None
    seconds_per_epoch: float | None
    end: float | None
    metrics: list[Metric]

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds to the estimated end; None if there is no estimate, or its time is over."""
        return self.end - now if self.end is not None and self.end >= now else None

    def main_metrics(self) -> list[Metric]:
        """Return the latest loss and the latest other metric, for one line of text."""
        latest = self.metrics[::-1]
        losses = [metric for metric in latest if "loss" in metric.name.lower()]
        others = [metric for metric in latest if "loss" not in metric.name.lower()]
        return losses[:1] + others[:1]

    def as_dict(self, now: float) -> dict[str, Any]:
        """Return the fields as they are in JSON output; a value that is no finite number is null there."""
        metrics = [
            {"name": name, "value": _or_none(values[-1]), "history": [_or_none(value) for value in values]}
            for name, values in self.metrics
        ]
        fields = {**self._asdict(), "seconds_left": self.seconds_left(now), "metrics": metrics}
        del fields["end"]
        return fields


class ProgressReader:
    """Reads the progress of runs; a file that has not changed since the last call is not read again."""

    def __init__(self) -> None:
        # By path and start of the run: the state of the file that was read, the progress, when it may be read again.
        self._known: dict[tuple[str, float], tuple[tuple[int, ...], Progress | None, float]] = {}

    def read(self, holds: Sequence[Hold]) -> dict[str, Progress]:
        """Return the progress of each active run that has one, by the id of its hold. Never raises.

        Of two runs that write to one file, the lines of neither are known.
        """
        active = {hold.id: hold for hold in holds if hold.results and hold.ended is None}
        read = answers(lambda hold_id: self.read_run(active[hold_id]), active, TIMEOUT)
        reported = {hold_id: progress for hold_id, progress in read.items() if progress is not None}
        paths = [progress.path for progress in reported.values()]
        return {key: progress for key, progress in reported.items() if paths.count(progress.path) == 1}

    def read_run(self, hold: Hold) -> Progress | None:
        """Return the progress by the file that was written last."""
        candidates: list[tuple[float, str, tuple[int, ...]]] = []
        for path in {files.real_path(path) for path in status_files(hold) if "\0" not in path}:
            status = files.stat_or_none(path)
            if status is not None and stat.S_ISREG(status.st_mode) and status.st_mtime >= hold.since:
                state: tuple[int, ...] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                candidates.append((status.st_mtime, path, state))
        for _, path, state in sorted(candidates, reverse=True):
            key, began = (path, hold.since), time.monotonic()
            known, progress, next_read = self._known.get(key, ((), None, 0.0))
            if known != state and began >= next_read:
                progress = read_file(path, hold.since)
                next_read = began + (1 + READ_SHARE) * (time.monotonic() - began)
                self._known[key] = (state, progress, next_read)
            if progress is not None:
                return progress
        return None


def read_last(run: Hold, holds: Iterable[Hold]) -> Progress | None:
    """Return the progress of a run that has ended; None if another one may have written to its file. Never raises.

    ``holds`` are those that are active now.
    """
    if not run.results or results_conflicts((hold for hold in holds if hold.id != run.id), run.results):
        return None
    progress = answers(lambda _: ProgressReader().read_run(run), [run.id], TIMEOUT).get(run.id)
    status = None if progress is None else files.stat_or_none(progress.path)
    return progress if status is not None and status.st_mtime <= (run.ended or 0) + AFTER_END else None


def find_reported_failure(run: Hold, holds: Iterable[Hold]) -> str:
    """Return which failure a run that has ended reported, "" if none: some of NVIDIA's images then exit with 0.

    ``holds`` are those that are active now.
    """
    progress = read_last(run, holds)
    if progress is None or progress.state != "error":
        return ""
    return f"'{progress.path}' reports a failure: {printable(progress.message)}"


def status_files(hold: Hold) -> Iterator[str]:
    """Yield the files to which the run's task may write: in its results folders, and in the task's folder in each.

    A command that names no task, such as a script, may run any.
    """
    tasks = [task for task in _TASKS if task in hold.command] or _TASKS
    for folder in hold.results:
        yield os.path.join(folder, FILE)
        for task in tasks:
            yield os.path.join(folder, task, FILE)
            if task in ("evaluate", "inference"):
                yield os.path.join(folder, f"trt_{task}", FILE)


def read_file(path: str, since: float) -> Progress | None:
    """Return the progress of the run that began at ``since`` (seconds since 1970), None if the file has none of it."""
    lines = None
    with suppress(OSError, ValueError), files.opened(path, os.O_RDONLY | os.O_NONBLOCK) as fd:  # ValueError: a NUL
        for window in WINDOWS:
            lines = _lines_of_run(fd, window, since)
            if lines is None or lines.complete or any("epoch" in record for record in lines.records):
                break
    return _summarize(path, lines) if lines is not None and lines.records else None


class _Lines(NamedTuple):
    """The lines of one run, the oldest first, with their times (seconds since 1970).

    ``complete``: the first one is there; ``sure``: the times are not only assumed to be UTC.
    """

    records: list[dict[str, Any]]
    times: list[float]
    complete: bool
    sure: bool


def _read_tail(fd: int, size: int) -> tuple[bytes, bool, float] | None:
    """Return at most ``size`` bytes of the end, whether that is all, and the time of the last change.

    None if they change while they are read: a file that is truncated and written again meanwhile could give half of an
    old line and half of a new one.
    """
    for _ in range(3):
        status = os.fstat(fd)
        start = max(0, status.st_size - size)
        content = os.pread(fd, status.st_size - start, start)
        if len(content) == status.st_size - start and content == os.pread(fd, len(content), start):
            return content, start == 0, status.st_mtime
    return None


def _lines_of_run(fd: int, size: int, since: float) -> _Lines | None:
    """Return the lines of the run that began at ``since`` among the last ``size`` bytes, None if not certain."""
    tail = _read_tail(fd, size)
    if tail is None:
        return None
    content, is_complete, mtime = tail
    *lines, rest = content.split(b"\n")
    if not is_complete:
        lines = lines[1:]  # the first may have lost its beginning
    is_last = not rest
    zone, sure, newest = 0, False, None
    records: list[dict[str, Any]] = []
    times: list[float] = []
    for record in map(_parse, reversed(lines)):
        naive = None if record is None else _time_of(record)
        if record is None or naive is None:
            is_last = False
            continue
        if newest is None:
            # Only the line with which the file was changed last tells the time zone of the container.
            zone, sure = _time_zone(naive - mtime) if is_last else (0, False)
            newest = naive - zone
            if newest > mtime + 60:
                return None
        moment = naive - zone
        is_earlier = moment < math.floor(since) or moment > newest + 60  # the file has whole seconds
        if not is_earlier:
            newest = moment
            records.append(record)
            times.append(moment)
        if is_earlier or record["status"] == "STARTED":
            is_complete = True
            break
    return _Lines(records[::-1], times[::-1], is_complete, sure)


def _time_zone(ahead: float) -> tuple[int, bool]:
    """Return the container's time zone (seconds east of UTC) and whether it is certain.

    ``ahead`` is by how much the last line's time, taken as UTC, is ahead of the file's. UTC is what images have.
    """
    zone = round(ahead / _QUARTER) * _QUARTER
    if zone == 0:
        return 0, abs(ahead) <= 120
    is_zone = -3 <= ahead - zone <= 1 and abs(zone) <= 14 * 3600
    return (zone, True) if is_zone else (0, False)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return a line of the file as a record with a known status, None for anything else."""
    if not line.startswith(b"{") or len(line) > LINE_LIMIT:
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.get("status") in _STATUSES else None


def _time_of(record: dict[str, Any]) -> float | None:
    """Return the time of a record as if it were UTC."""
    match = _DATE.fullmatch(f"{record.get('date')} {record.get('time')}"[:40])
    if match is None:
        return None
    month, day, year, hour, minute, second = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _summarize(path: str, lines: _Lines) -> Progress:
    last = lines.records[-1]
    message = last.get("message")
    message = message if isinstance(message, str) else ""
    state = {"STARTED": "starting", "SUCCESS": "finished", "FAILURE": "error"}.get(last["status"], "running")
    if state == "running" and _FINISHED.search(message[-TEXT_LIMIT:]):
        state = "finished"
    epochs, end = _NO_EPOCHS, None
    for record, moment in zip(reversed(lines.records), reversed(lines.times), strict=True):
        epochs = _read_epochs(record)
        if epochs is not _NO_EPOCHS:
            end = moment + epochs.left if epochs.left is not None and lines.sure else None
            break
    return Progress(
        path=path,
        state=state,
        updated=lines.times[-1] if lines.sure else None,
        message=shorten(mask_text(message.strip()[:1000]), TEXT_LIMIT) if state == "error" else "",
        epoch=epochs.done,
        epochs=epochs.total,
        share=epochs.share,
        seconds_per_epoch=epochs.seconds,
        end=None if state == "finished" else end,
        metrics=_read_metrics(lines.records),
    )


class _Epochs(NamedTuple):
    """What one line says about epochs: ``left`` are the seconds that are left."""

    done: int | None = None
    total: int | None = None
    share: float | None = None
    seconds: float | None = None
    left: float | None = None


_NO_EPOCHS = _Epochs()


def _read_epochs(record: dict[str, Any]) -> _Epochs:
    """Return what a line says about epochs. How they are counted depends on the family of the network."""
    epoch, total = _number(record.get("epoch")), _number(record.get("max_epoch"))
    if epoch is None or "mode" in record or "cur_iter" in record:
        # Networks on OpenMMLab count iterations, and in "epoch" the one that has just begun, or even an iteration.
        return _NO_EPOCHS
    done = int(epoch)
    if "time_per_step" in record:  # PyTorch Lightning since 6.0: the index of the epoch that has ended
        done, total = done + 1, None if total is None else total + 1
    elif record.get("message") == "Train metrics generated.":  # PointPillars: the index, but the number of epochs
        done += 1
    if total is not None and not (done <= total and total == int(total)):
        return _NO_EPOCHS
    step, steps = _number(record.get("step")), _number(record.get("max_step"))
    share = done / total if total else None
    if step is not None and steps and step <= steps and total is not None:
        share = step / steps
    seconds, left = _duration(record.get("time_per_epoch")), _duration(record.get("eta", record.get("ETA")))
    seconds = seconds or None  # detectnet_v2 and unet write 0 for the first epoch, when it is not known yet
    if record.get("message") == "Train metrics generated.":
        left = None  # of PointPillars: one epoch too long
    if not left and total is not None:
        left = 0.0 if done == total else None if seconds is None else (total - done) * seconds
    return _Epochs(done, None if total is None else int(total), share, seconds, left)


def _read_metrics(records: Iterable[dict[str, Any]]) -> list[Metric]:
    """Return the metrics with their history, the one that was reported last at the end.

    A logger repeats ``kpi`` and ``graphical`` in all lines until it gets new ones, so that a repetition is no value.
    """
    metrics: dict[str, list[float]] = {}
    last_kpi = last_loss = ""  # as text: NaN differs from NaN
    for record in records:
        kpi = _numbers(record.get("kpi"))
        if str(kpi) != last_kpi or str(record.get("message")).endswith("metrics generated."):
            for name, value in kpi.items():
                _add(metrics, name, value)
        graphical = record.get("graphical")
        loss = _value(record.get("loss", graphical.get("loss") if isinstance(graphical, dict) else None))
        if loss is not None and ("epoch" in record or "cur_iter" in record) and str(loss) != last_loss:
            _add(metrics, "loss", loss)
        last_kpi, last_loss = str(kpi) if kpi else last_kpi, last_loss if loss is None else str(loss)
    return [Metric(name, values[-HISTORY:]) for name, values in list(metrics.items())[-METRICS_LIMIT:]]


def _add(metrics: dict[str, list[float]], name: str, value: float) -> None:
    metrics[name] = [*metrics.pop(name, [])[-HISTORY:], value]


def _numbers(values: object) -> dict[str, float]:
    """Return the items of a ``kpi`` that are numbers, or text with a number, as some networks write it."""
    if not isinstance(values, dict):
        return {}
    numbers = {name: _value(value) for name, value in list(values.items())[:METRICS_LIMIT]}
    return {shorten(name, NAME_LIMIT): value for name, value in numbers.items() if value is not None and name}


def _value(value: object) -> float | None:
    """Return a metric's value, which may be NaN or infinite: a training that diverges reports that."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value) if not isinstance(value, str) or len(value) < NAME_LIMIT else None
    except (ValueError, OverflowError):
        return None


def _number(value: object) -> float | None:
    """Return a count: a finite number that is not negative and not absurdly large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1e9 else None  # false for NaN


def _duration(text: object) -> float | None:
    """Return the seconds of ``str(timedelta)``, such as "1 day, 2:03:04.5"."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    days, hours, minutes, seconds = match.groups()
    return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
