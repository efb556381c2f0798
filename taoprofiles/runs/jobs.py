"""Jobs on a cluster: runs that the cluster's own client (sbatch, kubectl) submits and queries.

A job has a record like any other run. It is written before the submission, and the job is found by its name, which has
the run's id. So a job whose submission was interrupted, or whose record could not be completed, is found by the next
command.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.export.plan import Plan, job_name
from taoprofiles.holds.hold import Hold, results_conflicts
from taoprofiles.holds.logs import LogReader, RunLog
from taoprofiles.holds.records import HoldRecords
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system.clusters import (
    QUERY_TIMEOUT,
    SUBMIT_TIMEOUT,
    ClusterError,
    Job,
    KubernetesClient,
    SlurmClient,
    find_namespace,
)
from taoprofiles.system.engine import RUN_LABEL

if TYPE_CHECKING:
    from taoprofiles.profiles.rendering import Renderer
    from taoprofiles.runs.run import Run
    from taoprofiles.runs.start import RunOptions


SUBMIT_GRACE = 300.0
"""Seconds after its submission in which a job may still appear."""

MISSING_GRACE = 60.0
"""Seconds until a job counts as over that Slurm has listed and does not list any more."""

RECONNECT = 2.0
"""Seconds after which a closed connection to a log is opened again."""


def plan_job(run: Run, renderer: Renderer, command: list[str], options: RunOptions) -> None:
    """Render the script or manifest that ``submit`` gives to the client.

    Raises CannotRenderError, UsageError and ClusterError.
    """
    from taoprofiles.export.export import RENDERERS, plan_target

    hold, target = run.hold, options.on or ""
    container = plan_target(renderer, target, command, image=options.image, gpus=options.gpus)
    if hold.cluster == "kubernetes" and hold.namespace is None:
        settings = container.kubernetes
        hold.namespace = find_namespace(run.context.environ, settings.get("context"), settings.get("namespace"))
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
        run.run_on_start(run.notes.append)
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


def refresh(context: Context, holds: Iterable[Hold], seconds: float = QUERY_TIMEOUT) -> list[ClusterError]:
    """Ask the clusters about their jobs, all at once, and record what has changed, in ``holds`` too.

    Each cluster gets ``seconds``. Return which clusters cannot be asked.

    A hold whose job is over gets ``ended`` and ``status``; None if the cluster does not know it any more.
    """
    clusters: dict[tuple[str | None, str | None], list[Hold]] = defaultdict(list)
    for hold in holds:
        clusters[hold.cluster, hold.namespace].append(hold)

    def find(members: list[Hold]) -> dict[str, Job] | ClusterError:
        try:
            return _client(context, members[0]).find({_name(hold): hold.since for hold in members}, seconds)
        except ClusterError as error:
            error.message = " ".join(filter(None, (members[0].cluster, members[0].namespace))) + f": {error.message}"
            return error

    if not clusters:
        return []
    with ThreadPoolExecutor(len(clusters)) as pool:
        answers = list(pool.map(find, clusters.values()))
    for members, answer in zip(clusters.values(), answers, strict=True):
        if not isinstance(answer, ClusterError):
            for hold in members:
                _record(context, hold, answer.get(_name(hold)))
    return [answer for answer in answers if isinstance(answer, ClusterError)]


def refresh_writers(context: Context, hold: Hold) -> None:
    """Record the end of jobs that write to a results folder of ``hold``. One that cannot be queried stays active."""
    writers = (other for other, _ in results_conflicts(HoldRecords(context).all({}), hold.results))
    refresh(context, [other for other in writers if other.cluster is not None])


def cancel(context: Context, hold: Hold) -> None:
    """Cancel the job of a run. Raises ClusterError."""
    client = _client(context, hold)
    if isinstance(client, SlurmClient):
        client.cancel(_name(hold))
        return
    log = None
    with suppress(ClusterError):
        log = client.log(_name(hold))  # it is deleted with the job
    _record(context, hold, client.cancel(_name(hold)), log)


def _record(context: Context, hold: Hold, job: Job | None, log: bytes | None = None) -> None:
    """Bring a hold and its record up to date. Errors of the disk are ignored: the next command does it again.

    ``log`` is what was read of a job's log before it was deleted.
    """
    changes: dict[str, Any] = {}
    if job is not None:
        changes = {"job": job.id, "state": job.state, "until": None}
        changes |= {"ended": time.time(), "status": job.status} if job.phase == "over" else {"phase": job.phase}
    elif hold.has_process_here():
        return  # it is being submitted
    elif (until := _counts_until(hold)) > time.time():
        changes = {"until": until}
    else:
        changes = {"ended": time.time(), "state": "unknown to the cluster"}
    if all(getattr(hold, key) == value for key, value in changes.items()):
        return
    if "ended" in changes:
        with suppress(ClusterError):  # it is read when somebody asks for the log
            keep_log(context, hold, log)
    with suppress(TaoprofError), Lock(context.lock):
        HoldRecords(context).update(hold, **changes)


def keep_log(context: Context, hold: Hold, content: bytes | None = None) -> None:
    """Keep the log of a job that is over: Kubernetes deletes it with the job. Secrets are masked.

    Raises ClusterError if there is none and it cannot be read now.
    """
    client, log = _client(context, hold), RunLog(context, hold.id)
    has_log = (status := files.stat_or_none(log.path)) is not None and status.st_size
    if isinstance(client, KubernetesClient) and not has_log:
        files.write_cache(log.path, client.log(_name(hold)) if content is None else content)
    with suppress(TaoprofError):  # it may not have been started
        log.mask(Store(context).secret_values(hold.profile))


def _counts_until(hold: Hold) -> float:
    """Return until when a job that the cluster does not list counts as active, in seconds since 1970.

    squeue and sacct may list a new job later than sbatch returns, and a controller that takes over may list none for a
    moment. Kubernetes lists a job as soon as it has accepted it.
    """
    if hold.cluster == "kubernetes" and hold.job is not None:
        return 0.0
    return hold.until or max(time.time() + MISSING_GRACE, hold.since + SUBMIT_GRACE)


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


def _client(context: Context, hold: Hold) -> SlurmClient | KubernetesClient:
    if hold.cluster == "slurm":
        return SlurmClient(context.environ)
    return KubernetesClient(context.environ, hold.namespace or "")


class PodLog(LogReader):
    """Reads the log of a job on Kubernetes through ``kubectl logs``: first what exists, then what is added."""

    _process: subprocess.Popen[bytes] | None = None

    def __init__(self, context: Context, run: Hold, secrets: Iterable[str]) -> None:
        self._set_secrets(secrets)
        self._client, self._name = KubernetesClient(context.environ, run.namespace or ""), _name(run)
        self._received, self._skip, self._is_over = 0, 0, False
        self._start(follow=False)

    def __del__(self) -> None:
        self._end_client()

    def _end_client(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def set_over(self) -> None:
        """Prepare for the last read: the job is over."""
        self._start(follow=False)
        self._is_over = True

    def _start(self, *, follow: bool) -> None:
        """Read the log again from its beginning; what has been read already is skipped."""
        self._end_client()
        self._process = self._client.open_log(self._name, follow=follow)
        self._follow, self._skip = follow, self._received
        self._started = time.monotonic()

    def _next_chunk(self) -> bytes:
        assert self._process is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        while True:
            readable, _, _ = select.select([self._process.stdout], [], [], 0 if self._follow else SUBMIT_TIMEOUT)
            chunk = os.read(self._process.stdout.fileno(), 1 << 18) if readable else b""
            if readable and not chunk and not self._is_over and time.monotonic() - self._started > RECONNECT:
                self._start(follow=True)  # it has been closed, or was not to be followed
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            self._received += len(chunk) - skipped
            if len(chunk) > skipped or not chunk:
                return chunk[skipped:]
