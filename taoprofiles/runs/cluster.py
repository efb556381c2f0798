"""Jobs on a cluster: runs that its own client submits and asks for. The record is a run's like any other.

It is written before the submission, and the job is found by its name, which has the run's id. So a job whose
submission was interrupted, or whose record could not be completed, is found by the next command.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.export.plan import Plan, job_name
from taoprofiles.holds.hold import Hold, results_conflicts
from taoprofiles.holds.logs import RunLog
from taoprofiles.holds.records import HoldRecords
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes
from taoprofiles.system.clusters import ClusterError, Job
from taoprofiles.system.engine import RUN_LABEL
from taoprofiles.system.slurm import Slurm

if TYPE_CHECKING:
    from taoprofiles.profiles.rendering import Renderer
    from taoprofiles.runs.run import Run, RunOptions

SUBMIT_GRACE = 300.0
"""Seconds in which a job may still appear whose submission was not confirmed."""


def plan_job(run: Run, renderer: Renderer, command: list[str], options: RunOptions) -> None:
    """Write what ``submit`` gives to the client. Raises CannotRenderError, UsageError and ClusterError."""
    from taoprofiles.export.export import RENDERERS, plan_target

    hold, target = run.hold, options.on or ""
    container = plan_target(
        run.context, renderer, hold.profile or "", target, command, image=options.image, gpus=options.gpus
    )
    container = container._replace(labels={RUN_LABEL: hold.id} if hold.id else {}, job=_name(hold))
    rendered = RENDERERS[target](container)
    hold.image = container.image
    run.job_text, run.job_secrets = rendered.text, _secret_values(run, renderer, container)
    run.notes += [f"warning: {text}" for text in rendered.warnings]


def submit(run: Run) -> None:
    """Submit a prepared run; its record then has the job's id.

    Raises ClusterError. The run then does not exist, unless the client was interrupted: what has become of the job is
    found out by its name. Raises TaoprofError if the job was submitted and its id could not be recorded.
    """
    hold, log = run.hold, RunLog(run.context, run.hold.id)
    try:
        os.close(log.create())
        hold.job = _client(run.context, hold).submit(run.job_text, secrets=run.job_secrets, log=log.path)
    except BaseException as error:
        if not isinstance(error, ClusterError) or not error.is_undecided:
            run.discard()
            log.delete()
        else:
            error.hint = f"it is not known whether the job was submitted; 'taoprof status' looks for {_name(hold)}"
            run.release_liveness()
        raise
    run.release_liveness()
    hold.pid = hold.start = 0
    try:
        with Lock(run.context.lock):
            HoldRecords(run.context).write(hold)
    except TaoprofError as error:  # the record without the id is enough to find the job
        run.notes.append(f"warning: the id of the job, {hold.job}, could not be recorded: {error.message}")


def refresh(context: Context, holds: Iterable[Hold]) -> list[ClusterError]:
    """Ask the clusters about their jobs, and record what has changed, in ``holds`` too; return what cannot be asked.

    A hold whose job is over gets ``ended`` and ``status``; None if the cluster does not know it any more.
    """
    clusters: dict[tuple[str | None, str | None], list[Hold]] = defaultdict(list)
    for hold in holds:
        clusters[hold.cluster, hold.engine].append(hold)
    problems = []
    for members in clusters.values():
        try:
            jobs = _client(context, members[0]).find({_name(hold): hold.since for hold in members})
        except ClusterError as error:
            problems.append(error)
            continue
        for hold in members:
            _record(context, hold, jobs.get(_name(hold)))
    return problems


def refresh_writers(context: Context, hold: Hold) -> None:
    """Look whether the jobs are over that write a results folder of ``hold``; one that is not known counts."""
    writers = (other for other, _ in results_conflicts(HoldRecords(context).all({}), hold.results))
    refresh(context, [other for other in writers if other.cluster is not None])


def cancel(context: Context, hold: Hold) -> None:
    """Cancel the job of a run. Raises ClusterError."""
    _client(context, hold).cancel(_name(hold))


def _record(context: Context, hold: Hold, job: Job | None) -> None:
    """Bring a hold and its record up to date. Errors of the disk are ignored: the next command does it again."""
    news: dict[str, Any] = {}
    if job is not None:
        news = {"job": job.id, "reason": job.state}
        news |= {"ended": time.time(), "status": job.status} if job.phase == "over" else {"phase": job.phase}
    elif hold.job is not None or not _may_appear(hold):
        news = {"ended": time.time(), "reason": "unknown to the cluster"}
    if all(getattr(hold, key) == value for key, value in news.items()):
        return
    with suppress(TaoprofError), Lock(context.lock):
        records = HoldRecords(context)
        recorded = records.get(hold.id)  # read again: somebody may have released it
        for each in (hold, recorded):
            for key, value in news.items() if each is not None else ():
                setattr(each, key, value)
        if recorded is not None and recorded.ended is not None:
            records.end(recorded)
        elif recorded is not None:
            records.write(recorded)


def _may_appear(hold: Hold) -> bool:
    """Check whether a job that the cluster does not know may still be submitted."""
    is_here = hold.host_id == processes.host_id()
    return (is_here and processes.alive(hold.pid, hold.start)) or time.time() - hold.since < SUBMIT_GRACE


def _secret_values(run: Run, renderer: Renderer, container: Plan) -> dict[str, str]:
    """Return the values of the plan's secrets, by their names. Raises UsageError for one that is not set."""
    env = {item["variable"]: str(item["value"]) for item in run.rendered.get("Envs", [])}
    known: Mapping[str, str] = {**run.context.environ, **renderer.variables(), **env}
    missing = [name for name in container.secrets if name not in known]
    if missing:
        name = run.hold.profile
        raise UsageError(
            f"the job needs the secret {', '.join(missing)}, which is not set",
            hint=f"taoprof set {name} {missing[0]}=…, and '${missing[0]}' in the command",
        )
    return {name: known[name] for name in container.secrets}


def _name(hold: Hold) -> str:
    return job_name(hold.profile or "", hold.id)


def _client(context: Context, hold: Hold) -> Slurm:
    return Slurm(context.environ)
