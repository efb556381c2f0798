"""What ``status`` shows: one look at the mapping file, the guard, holds, runs and the queue, and its sentences."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles import current_cache
from taoprofiles.cli.output import format_time
from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import QUEUED, Hold, blocking_holds
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status
from taoprofiles.switching.status import Status

if TYPE_CHECKING:
    from taoprofiles.holds.liveness import ActiveHolds
    from taoprofiles.holds.waiting import WaitingCommand
    from taoprofiles.runs.progress import Progress, ProgressReader


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
    from taoprofiles.holds import manage, waiting

    now = status.get_status(context)
    similar = _similar_profile(context, now)  # first: what does not answer then is reported by the search for holds
    active = manage.active_holds(context, others=True)
    queue = waiting.waiting_commands(context)
    queued = {command.id for command in queue}
    active.holds = [hold for hold in active.holds if hold.id not in queued]  # they hold nothing yet
    jobs = [hold for hold in active.holds if hold.cluster is not None]
    if jobs:
        from taoprofiles.runs import cluster

        active.unchecked += [str(problem) for problem in cluster.refresh(context, jobs)]
        active.holds = [hold for hold in active.holds if hold.ended is None]
    runs = [hold for hold in active.holds if hold.kind != "manual"]
    progress: dict[str, Progress] = {}
    last_lines: dict[str, str] = {}
    if runs:  # else nothing is imported for them
        from taoprofiles.runs.output import last_line
        from taoprofiles.runs.progress import ProgressReader

        progress = (reader or ProgressReader()).read(runs)
        last_lines = {run.id: line for run in runs if (line := last_line(context, run))}
    return StatusReport(
        now,
        similar,
        _guard_status(context, active.holds),
        active,
        queue,
        progress,
        last_lines,
    )


def status_rows(context: Context, report: StatusReport) -> list[tuple[str, str]]:
    """Return the rows about the mapping file and the guard: what it is, and how it is."""
    now, similar = report.now, report.similar
    path = context.short(context.mapping_file)
    if os.path.islink(context.mapping_file):
        path += f" → {context.short(os.path.realpath(context.mapping_file))}"
    rows = [("mapping file", path), ("state", _explain_state(context, now, similar))]
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
    from taoprofiles.guard.status import read_status

    report = read_status(context)
    if report is None:
        return None
    differences = {hold["container"]: hold["differences"] for hold in report.get("holds", [])}
    for hold in holds:
        hold.differences = hold.differences or differences.get(hold.container, [])
    return {key: report.get(key) for key in ("pid", "version", "line", "is_sealed", "problem")}


def _secrets(context: Context, now: Status) -> list[str]:
    derived = Store(context).secret_env(now.name or now.last)
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
    return _explain_state(context, now, similar) + more


def _explain_state(context: Context, now: Status, similar: tuple[str, int] | None) -> str:
    if similar is None or similar[1]:
        return explain(context, now)
    message = f"{context.short(context.mapping_file)} was not written by taoprof; it has the same mapping as profile"
    return f"{message} '{similar[0]}'. To use that profile: taoprof use {similar[0]}"


def explain(context: Context, now: Status) -> str:
    """Return the state of the mapping file in one line."""
    path = context.short(context.mapping_file)
    if now.state == "active":
        return f"'{now.name}' is active"
    if now.state == "none":
        return _explain_absence(context, now, path)
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
