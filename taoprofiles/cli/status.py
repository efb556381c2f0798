"""What ``status`` and ``taoprof`` alone show: the mapping file, the guard, holds, runs and the queue."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles import current_cache
from taoprofiles.cli.output import DIFFERS, Result, change_lines, format_time, table
from taoprofiles.errors import TaoprofError, UntrustedError
from taoprofiles.holds.hold import AGENT, OWN_KINDS, QUEUED, Hold, blocking_holds, format_age, shorten_command
from taoprofiles.masking import shorten
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store, default_profile
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status
from taoprofiles.switching.status import Status

if TYPE_CHECKING:
    from taoprofiles.holds.liveness import ActiveHolds
    from taoprofiles.holds.queue import WaitingCommand
    from taoprofiles.runs.progress import Progress, ProgressReader
    from taoprofiles.runs.resources import GpuUse
    from taoprofiles.system.gpus import Gpu


class StatusReport(NamedTuple):
    """What ``status`` shows.

    - ``now``, ``similar``: the mapping file, and the profile that is most similar to it, with the number of differences
    - ``guard``: what the guard of this host reports, None without a guard
    - ``active``: the active holds; ``queue``: the commands that wait
    - ``progress``: how far the runs are, and ``last_lines``: what those print that have a log; by the id of the hold
    """

    now: Status
    similar: tuple[str, int] | None
    guard: dict[str, Any] | None
    active: ActiveHolds
    queue: list[WaitingCommand]
    progress: dict[str, Progress]
    last_lines: dict[str, str]

    def shows_progress(self, hold: Hold) -> bool:
        """Check whether the progress of a hold's work is shown: of each run, and of other work that reports some."""
        return (hold.kind == "run" and hold.phase != QUEUED) or hold.id in self.progress


def get_report(context: Context, reader: ProgressReader | None = None) -> StatusReport:
    """Look at everything that ``status`` shows. Raises InvalidStateError if files are unreadable.

    ``reader`` is one that has read the progress of runs before.
    """
    from taoprofiles.holds.manage import active_holds
    from taoprofiles.holds.queue import waiting_commands

    now = status.get_status(context)
    similar = _similar_profile(context, now)  # first: what does not answer then is reported by the search for holds
    active = active_holds(context, others=True)
    queue = waiting_commands(context)
    queued = {command.id for command in queue}
    active.holds = [hold for hold in active.holds if hold.id not in queued]  # they hold nothing yet
    jobs = [hold for hold in active.holds if hold.cluster is not None]
    if jobs:
        from taoprofiles.runs.jobs import refresh
        from taoprofiles.system.clusters import STATUS_TIMEOUT

        problems = refresh(context, jobs, STATUS_TIMEOUT)
        active.unchecked += [f"the last known state of jobs is shown: {problem}" for problem in problems]
        active.holds = [hold for hold in active.holds if hold.ended is None]
    runs = [hold for hold in active.holds if hold.kind != "manual"]
    progress: dict[str, Progress] = {}
    last_lines: dict[str, str] = {}
    if runs:  # else nothing is imported for them
        from taoprofiles.runs.lookup import last_line
        from taoprofiles.runs.progress import ProgressReader

        progress = (reader or ProgressReader()).read(runs)
        last_lines = {run.id: line for run in runs if (line := last_line(context, run))}
    return StatusReport(now, similar, _guard_status(context, active.holds), active, queue, progress, last_lines)


def status_rows(context: Context, report: StatusReport) -> list[tuple[str, str]]:
    """Return the rows about the mapping file and the guard: what it is, and how it is."""
    now, similar = report.now, report.similar
    path = context.short(context.mapping_file)
    if os.path.islink(context.mapping_file):
        path += f" → {context.short(files.real_path(context.mapping_file))}"
    rows = [("mapping file", path), ("state", explain(context, now, similar))]
    if own := current_cache.own_profile(context):
        here = f"'{own}', with a mounts file of its own (hold {context.environ['TAOPROF_RUN']})"
        rows.insert(0, ("used here", here))
    if now.entry is not None:
        rows.append(("since", f"{format_time(now.entry.time)}, {now.entry.by}, history entry {now.entry.id}"))
    if similar and similar[1]:
        rows.append(("similar to", _describe_similar(similar)))
    return [*rows, ("guard", guard_text(report.guard))]


def guard_text(guard: dict[str, Any] | None) -> str:
    """Return the state of the guard in one line."""
    if guard is None:
        return "not running. To protect the file: taoprof service install"
    is_sealed = "; the file is read-only while it is in use" if guard["is_sealed"] else ""
    return f"running (pid {guard['pid']}){is_sealed}" + (f"; {guard['problem']}" if guard["problem"] else "")


def status_warnings(context: Context, report: StatusReport) -> list[str]:
    """Return the warnings of a report, one line each."""
    now, active = report.now, report.active
    blocked = blocking_holds(active.holds, mapping.digest(now.content or b""))
    messages = [f"warning: {text}" for text in active.unchecked]
    messages += [
        f"warning: the mapping file was changed, but this work still needs another mapping: {hold.line()}"
        for hold in blocked
    ]
    messages += [f"warning: hold {hold.id}: {text}" for hold in active.holds for text in hold.differences]
    return messages + status.get_warnings(context, secrets=_secrets(context, now))


def _guard_status(context: Context, holds: list[Hold]) -> dict[str, Any] | None:
    """Return what the guard of this host reports, None without a guard.

    The differences that the guard has found between a container and its mapping are added to ``holds``.
    """
    from taoprofiles.switching.guard_files import read_status

    report = read_status(context)
    if report is None:
        return None
    differences = {hold["container"]: hold["differences"] for hold in report.get("holds", [])}
    for hold in holds:
        hold.differences = hold.differences or differences.get(hold.container, [])
    return {key: report.get(key) for key in ("pid", "version", "line", "is_sealed", "problem")}


def _secrets(context: Context, now: Status) -> list[str]:
    derived = Store(context).secret_env(now.content, now.name or now.last)
    try:
        return mapping.secrets(mapping.parse(now.content or b"{}", ""), derived=derived)
    except TaoprofError:
        return []


def _similar_profile(context: Context, now: Status) -> tuple[str, int] | None:
    """Return the profile most similar to an unmanaged mapping file, and the number of differences."""
    if now.state != "unmanaged" or now.content is None:
        return None
    return status.find_similar_profile(context, now.content, now.last)


def _describe_similar(similar: tuple[str, int]) -> str:
    name, differences = similar
    return f"'{name}', with {differences} difference{'s' if differences > 1 else ''}: taoprof diff {name}"


def explain_unmanaged(context: Context, now: Status) -> str:
    """Return the state of a mapping file that no profile made, in one line."""
    similar = _similar_profile(context, now)
    more = f"; similar to {_describe_similar(similar)}" if similar and similar[1] else ""
    return explain(context, now, similar) + more


def explain(context: Context, now: Status, similar: tuple[str, int] | None = None) -> str:
    """Return the state of the mapping file in one line; ``similar`` is the profile that is most similar to it."""
    path = context.short(context.mapping_file)
    if now.state == "active":
        return f"'{now.name}' is active"
    if now.state == "none":
        return _explain_absence(context, now, path)
    if similar and not similar[1]:
        message = f"{path} was not written by taoprof; it has the same mapping as profile '{similar[0]}'"
        return f"{message}. To use that profile: taoprof use {similar[0]}"
    if now.state == "unmanaged":
        message = f"{path} was not written by taoprof. To create a profile from it: taoprof import --name NAME"
        try:
            mapping.parse(now.content or b"", path)
        except TaoprofError as error:
            message = f"{error.message}; it was not written by taoprof, and tao would fail"
        return f"{message}; to replace it (it is saved in the history): taoprof use NAME"
    reason = f"its profile cannot be evaluated: {now.problem}"
    if not now.problem:
        reason = f"the profile has changed since. To see how: taoprof diff; to apply it: taoprof use {now.name}"
    elif not os.path.lexists(context.profile_file(now.name or "")):
        return f"the active profile '{now.name}' has been removed; {path} still has its mapping"
    return f"'{now.name}' is active, but {reason}"


def _explain_absence(context: Context, now: Status, path: str) -> str:
    if hint := files.dangling_link_hint(context.mapping_file):
        return f"{path} is a link into a folder that does not exist. {hint}"
    if now.last is not None and now.entry is None:
        removed = f"{path} was removed by another program; the last profile known to be active is '{now.last}'"
        return f"{removed}. To use it again: taoprof use {now.last}"
    return f"{path} does not exist: tao would start without any mounts"


# The tables of holds and runs, their progress, the queue and the GPUs


def hold_rows(holds: Sequence[Hold], *, own: str = "") -> list[tuple[str, ...]]:
    """Return holds and runs as the rows of a table, heading included; ``own`` is the id of this notebook's hold."""
    rows: list[tuple[str, ...]] = [("HOLD", "PROFILE", "KIND", "PHASE", "AGE", "PID", "CONTAINER", "FILE", "WHAT")]
    for hold in holds:
        file = "-" if hold.kind == AGENT else "own" if not hold.shared else "released" if hold.released else "shared"
        container, pid = hold.container[:6] if hold.container else "-", str(hold.pid or "-")
        if hold.cluster is not None:
            container, file = f"{hold.cluster} {hold.job or '?'}", "-"
        age = format_age(time.time() - hold.since)
        phase = "-" if hold.kind == "manual" else hold.phase
        description = "this notebook" if hold.id == own else hold.title()
        rows.append((hold.id, hold.profile or "-", hold.kind, phase, age, pid, container, file, description))
    return rows


SPARKLINE = 16
"""Values that a sparkline shows."""
LAST_LINE_LIMIT = 80
BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.:-=+*#"
"""What a sparkline consists of where the output's encoding does not have the other characters."""


def sparkline(values: Sequence[float]) -> str:
    """Return the last values as a row of bars, the lowest and the highest at both ends; "" for fewer than two.

    Values that are no finite numbers are shown as "?".
    """
    try:
        BARS.encode(sys.stdout.encoding or "ascii")
        bars = BARS
    except (UnicodeEncodeError, LookupError):
        bars = ASCII_BARS
    shown = values[-SPARKLINE:]
    finite = [value for value in shown if math.isfinite(value)]
    if len(shown) < 2 or not finite:
        return ""
    low, high = min(finite), max(finite)
    # Divided before it is subtracted: the difference of two very large values would be infinite.
    scale = max(abs(low), abs(high)) or 1.0
    span = (high / scale - low / scale) or 1.0
    return "".join(
        bars[round((value / scale - low / scale) / span * 7)] if math.isfinite(value) else "?" for value in shown
    )


class ProgressCells(NamedTuple):
    """How far a run is, as text; "" stands for what is not known."""

    state: str = ""
    epoch: str = ""
    seconds_per_epoch: str = ""
    left: str = ""
    metrics: str = ""
    message: str = ""


def progress_cells(progress: Progress) -> ProgressCells:
    """Return a progress as text."""
    epoch = "" if progress.epoch is None or progress.state == "finished" else str(progress.epoch)
    epoch += f"/{progress.epochs}" if epoch and progress.epochs is not None else ""
    seconds, left = progress.seconds_per_epoch, progress.seconds_left(time.time())
    metrics = [
        f"{metric.name} {metric.values[-1]:.4g} {sparkline(metric.values)}".rstrip()
        for metric in progress.main_metrics()
    ]
    return ProgressCells(
        state="" if progress.state == "running" else progress.state,
        epoch=epoch,
        seconds_per_epoch="" if seconds is None else format_age(seconds, exact=True),
        left="" if left is None else format_age(left),
        metrics=", ".join(metrics),
        message=progress.message,
    )


def progress_text(hold: Hold, progress: Progress | None, last_line: str = "") -> str:
    """Return how far a run is, in one line; without figures for how long it has been running, and its last line."""
    cells = progress_cells(progress) if progress is not None else ProgressCells()
    parts = [
        cells.state,
        cells.epoch and f"epoch {cells.epoch}",
        cells.seconds_per_epoch and f"{cells.seconds_per_epoch} per epoch",
        cells.left and f"{cells.left} left",
        cells.metrics,
        cells.message,
    ]
    running = f"running for {format_age(time.time() - hold.since)}"
    if hold.cluster is not None:
        running = f"{hold.state or hold.phase}, submitted {format_age(time.time() - hold.since)} ago"
    return ", ".join(filter(None, parts)) or ": ".join(filter(None, (running, shorten(last_line, LAST_LINE_LIMIT))))


def progress_rows(report: StatusReport) -> list[tuple[str, ...]]:
    """Return the rows of a table with how far each run is."""
    rows: list[tuple[str, ...]] = []
    for hold in filter(report.shows_progress, report.active.holds):
        text = progress_text(hold, report.progress.get(hold.id), report.last_lines.get(hold.id, ""))
        rows.append((hold.id, hold.profile or "-", text))
    return rows


def queue_rows(context: Context, commands: Sequence[WaitingCommand]) -> list[tuple[str, ...]]:
    """Return the commands that wait as the rows of a table, heading included."""
    rows: list[tuple[str, ...]] = [("QUEUE", "PROFILE", "AGE", "PID", "NEEDS", "WAITS FOR", "WHAT")]
    for waiting in commands:
        request, age = waiting.request, format_age(time.time() - waiting.since)
        needs = ["the mapping file"] if request.mapping else []
        if isinstance(request.gpus, int):
            needs.append(f"{request.gpus} GPU{'s' if request.gpus > 1 else ''}")
        elif request.gpus:
            needs.append(f"GPU {request.gpus if isinstance(request.gpus, str) else ','.join(request.gpus)}")
        needs += [context.short(folder) for folder in request.results]
        waits_for, what = ", ".join(waiting.waits_for) or "-", shorten_command(request.command)
        rows.append((waiting.id, request.profile or "-", age, str(waiting.pid), ", ".join(needs), waits_for, what))
    return rows


def gpu_rows(uses: Sequence[GpuUse]) -> list[tuple[str, ...]]:
    """Return the machine's GPUs as the rows of a table, heading included."""
    rows: list[tuple[str, ...]] = [("GPU", "NAME", "MEMORY", "USE", "USED BY")]
    for use in uses:
        gpu, is_known = use.gpu, use.gpu.memory_used is not None and use.gpu.memory_total
        memory = f"{gpu.memory_used} of {gpu.memory_total} MiB" if is_known else ""
        share = "" if gpu.utilization is None else f"{gpu.utilization} %"
        rows.append((gpu.number, shorten(gpu.name, 30), memory, share, ", ".join(use.users()) or "-"))
    return rows


# status


def to_result(
    context: Context, report: StatusReport, gpus: Sequence[Gpu] = (), *, reveal: bool, strict: bool
) -> Result:
    """Return a report as the result of ``status``; ``strict``: the exit status says whether a profile is active."""
    now, similar, active = report.now, report.similar, report.active
    compared = now.name or (similar[0] if similar else now.last)
    changes = _drift(context, now, compared)
    lines = table(status_rows(context, report))
    if changes:
        lines.append(f"differences   {context.short(context.mapping_file)} (-), '{compared}' (+):")
        lines += ["  " + line for line in change_lines(changes, reveal=reveal)]
    if active.holds:
        lines += ["holds and runs:", *table(hold_rows(active.holds), indent="  ", fit=True)]
    if rows := progress_rows(report):
        lines += ["progress:", *table(rows, indent="  ", fit=True)]
    if report.queue:
        lines += ["waiting, in this order:", *table(queue_rows(context, report.queue), indent="  ", fit=True)]
    if active.others:
        lines += ["other containers with GPUs on this engine:", *table(_other_rows(active.others), indent="  ")]
    uses = []
    if gpus:
        from taoprofiles.runs.resources import gpu_uses

        uses = gpu_uses(gpus, active.holds)
        lines += ["GPUs:", *table(gpu_rows(uses), indent="  ", fit=True)]
    data = {
        **{key: getattr(now, key) for key in ("name", "state", "last")},
        "own": current_cache.own_profile(context),
        "problem": now.problem or None,
        "mapping_file": context.mapping_file,
        "since": now.entry.time if now.entry else None,
        "by": now.entry.by if now.entry else None,
        "entry": now.entry.id if now.entry else None,
        "resembles": similar[0] if similar else None,
        "guard": report.guard,
        "holds": [hold.as_dict() for hold in active.holds],
        "runs": [_run_data(report, hold) for hold in active.holds if hold.kind in OWN_KINDS],
        "queue": [command.as_dict() for command in report.queue],
        "others": [
            {"user": other.user, "container": other.container, "gpus": other.gpus, "since": other.since}
            for other in active.others
        ],
        "gpus": [_gpu_data(use) for use in uses],
        "unseen": active.unchecked,
        "changes": [change.as_dict(reveal=reveal) for change in changes],
    }
    differs = strict and now.state != "active"
    return Result(data, lines, messages=status_warnings(context, report), status=DIFFERS if differs else 0)


def _gpu_data(use: GpuUse) -> dict[str, Any]:
    fields = dict(zip(("index", "uuid", "memory_used", "memory_total", "utilization", "name"), use.gpu, strict=False))
    processes = [
        {"pid": process.pid, "user": process.user, "program": "".join(process.command)} for process in use.processes
    ]
    return {**fields, "holds": use.holds, "processes": processes}


def _run_data(report: StatusReport, hold: Hold) -> dict[str, Any]:
    progress = report.progress.get(hold.id)
    fields = None if progress is None else progress.as_dict(time.time())
    return {**hold.as_dict(), "progress": fields, "last_line": report.last_lines.get(hold.id)}


def _other_rows(others: list[Hold]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("USER", "CONTAINER", "GPUS", "SINCE")]
    for other in others:
        gpus = ",".join(other.gpus) if isinstance(other.gpus, list) else other.gpus or ""
        rows.append((other.user or "unknown", (other.container or "")[:6], gpus, format_time(other.since)))
    return rows


def _drift(context: Context, now: Status, name: str | None) -> list[mapping.Difference]:
    """Return what the profile ``name`` would change in the file."""
    if now.content is None or now.state == "active" or name is None:
        return []
    store = Store(context)
    try:
        expected = mapping.parse(now.wanted, "") if now.wanted is not None else store.renderer(name).mapping()
        actual = mapping.parse(now.content, context.mapping_file)
        return mapping.changes(actual, expected, secrets=store.secret_env(actual, name))
    except TaoprofError:
        return []


# taoprof


SHOWN_NAMES = 5


def overview(context: Context) -> Result:
    """Return the state in a few lines, and commands that go on from it. Raises InvalidStateError as ``status`` does."""
    report, names = get_report(context), Store(context).names()
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    rows = [*status_rows(context, report), ("profiles", ", ".join(names[:SHOWN_NAMES]) + more or "none yet")]
    lines = table([row for row in rows if row[0] not in ("mapping file", "similar to")])
    if running := progress_rows(report):
        lines += ["progress:", *table(running, indent="  ", fit=True)]
    commands: dict[str, str] = {}
    for command, what in _next_commands(context, report, names):
        commands.setdefault(command, what)  # two reasons may lead to the same command
    lines += ["", "next:", *table([*commands.items(), ("taoprof --help", "all commands")], indent="  ")]
    data = {
        "name": report.now.name,
        "state": report.now.state,
        "profiles": names,
        "runs": [hold.id for hold in report.active.holds if hold.kind in OWN_KINDS],
        "next": list(commands),
    }
    return Result(data, lines, messages=status_warnings(context, report))


def _next_commands(context: Context, report: StatusReport, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield commands for the next step, each with what it does; the most likely one is the first."""
    current = current_cache.own_profile(context) or report.now.name
    is_training = any(hold.kind == "run" for hold in report.active.holds)
    try:
        if (project := default_profile(context)) not in (None, current):
            yield f"taoprof use {project}", "switch to the profile of the project in this folder"
    except UntrustedError:
        yield "taoprof trust", "see what the .taoprof.toml of this project sets, and decide"
    if is_training:
        yield "taoprof status --watch", "follow the runs"
    if not names:
        yield from _first_profile(context, report)
    elif current is None or current not in names:
        yield from _choose_profile(report, names)
    elif report.now.state == "drifted" and current == report.now.name:
        problem = report.now.problem
        what = "see what is wrong with the profile" if problem else "apply the changes of the profile to the file"
        yield f"taoprof {'check' if problem else 'use'} {current}", what
    else:
        if not is_training:
            yield f"taoprof check {current}", "find mistakes before a container starts"
        yield f"taoprof run {current} -- COMMAND", "train with this profile's own mapping"
        if len(names) > 1:
            yield "taoprof use", "choose another profile"


_IMPORT_FILE = ("taoprof import --name NAME", "create a profile from what the file has now")


def _choose_profile(report: StatusReport, names: list[str]) -> Iterator[tuple[str, str]]:
    similar, differences = report.similar or (None, None)
    if report.now.state == "unmanaged" and differences != 0:
        yield _IMPORT_FILE
    last = similar or report.now.last
    only = names[0] if len(names) == 1 else ""
    yield f"taoprof use {last if last in names else only}".rstrip(), "switch the file to a profile"


def _first_profile(context: Context, report: StatusReport) -> Iterator[tuple[str, str]]:
    """Yield how to create the first profile: from what the file has, a notebook in the current folder, or nothing."""
    notebooks: list[str] = []
    with suppress(OSError):  # another user's folder
        notebooks = sorted(name for name in os.listdir(context.folder) if name.endswith(".ipynb"))
    if report.now.state == "unmanaged":
        yield _IMPORT_FILE
    if notebooks:
        from shlex import quote

        file = notebooks[0] if len(notebooks) == 1 else "."
        which = "from each notebook here, none of which is" if file == "." else "from this notebook, which is not"
        yield f"taoprof import {quote(file)}", f"create a profile {which} executed"
    elif report.now.state != "unmanaged":
        yield "taoprof import NOTEBOOK", "create a profile from a notebook, which is not executed"
    yield "taoprof new NETWORK", "create a profile for the project in this folder"
