"""The clients of clusters (Slurm, Kubernetes): bounded calls of their commands to submit, find and cancel jobs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from taoprofiles.errors import TaoprofError
from taoprofiles.masking import shorten
from taoprofiles.storage.paths import to_bytes
from taoprofiles.system.commands import CompletedCommand, run_bounded
from taoprofiles.system.engine import RUN_LABEL

QUERY_TIMEOUT = 10.0
"""Seconds that a client gets to answer a question."""

STATUS_TIMEOUT = 2.0
"""Seconds that a client gets to answer ``status``, which else shows the last known state."""

SUBMIT_TIMEOUT = 60.0
"""Seconds that a client gets to submit a job."""

_KEPT_LINES = 10_000
"""Lines of the log of a Job on Kubernetes that are kept when it is over."""

_CANCELLED_STATUS = 143
"""The exit status of a task that SIGTERM ends, as with a cancelled job and the pod of a deleted Job."""

_UNDECIDED = ("timed out", "timeout", "deadline exceeded", "connection reset", "unexpected eof", "broken pipe")
"""Parts of a client's messages after which it is unknown whether the cluster did what it was asked to do."""

_OTHER_FORM = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading an answer raises that has another form."""

_PROBES = {"kubectl": "kubectl cluster-info"}
"""Commands that show whether a cluster can be reached; ``sinfo`` for all of Slurm's."""


class Job(NamedTuple):
    """A job of a cluster.

    - ``phase``: "pending", "bound" (its task may be running) or "over"
    - ``state``: in the words of the cluster; ``status``: the exit status, None if it is unknown or not over
    - ``node``: where it runs, "" if that is not decided
    """

    id: str
    phase: str
    state: str
    status: int | None = None
    node: str = ""


class ClusterError(TaoprofError):
    """A cluster cannot be asked, or refuses; the client's own words are in ``problems``.

    ``is_missing``: there is no such client. ``is_undecided``: the client did not finish or lost the connection, so the
    cluster may have done what it was asked to do.
    """

    code = "cluster"
    status = 10
    is_missing = False
    is_undecided = False


def run_client(
    command: Sequence[str], environ: Mapping[str, str], seconds: float, *, stdin: bytes = b""
) -> CompletedCommand:
    """Run a command of a cluster's client for at most ``seconds``. Raises ClusterError unless it exits with 0."""
    done = run_bounded(command, environ, seconds, stdin=stdin)
    if done.problem:
        error = ClusterError(f"'{command[0]}', the cluster's own command, failed: {done.problem}")
        error.is_missing, error.is_undecided = done.is_missing, not done.is_missing
        error.hint = f"to see whether this machine can use the cluster: {_PROBES.get(command[0], 'sinfo')}"
        raise error
    if done.status != 0:
        lines = [line.strip() for line in done.err.splitlines() if line.strip()]
        end = f"failed with exit status {done.status}" if done.status > 0 else f"was ended by signal {-done.status}"
        error = ClusterError(f"'{command[0]}' {end}", problems=lines[-10:])
        error.is_undecided = done.status < 0 or any(words in done.err.lower() for words in _UNDECIDED)
        raise error
    return done


@contextmanager
def reading_answer(client: str) -> Iterator[None]:
    """Raise ClusterError for an answer of ``client`` that has another form; whether it did something is not known."""
    try:
        yield
    except _OTHER_FORM as problem:
        error = ClusterError(f"the answer of '{client}' cannot be read: {problem!r}")
        error.is_undecided = True
        raise error from None


_PENDING = frozenset("PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT".split())
_OVER = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED RECONFIG_FAIL "
    "REVOKED TIMEOUT".split()
)
"""States of a job, by the man page of squeue (JOB STATE CODES); in all others its task may be running."""

_SEPARATOR = "|"


class SlurmClient:
    """The cluster that sbatch submits to in the environment ``environ``."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def submit(self, script: str, *, secrets: Mapping[str, str], log: str) -> str | None:
        """Submit a script; return the job's id, None if sbatch printed none: the job is found by its name.

        ``secrets`` are added to the job's environment; its output goes to the file ``log``. Raises ClusterError.
        """
        # Options, not lines of the script: over those, SBATCH_EXPORT of the user's environment takes precedence.
        output = log.replace("%", "%%")
        command = ["sbatch", "--parsable", "--export=ALL", f"--output={output}"]
        done = run_client(command, {**self._environ, **secrets}, SUBMIT_TIMEOUT, stdin=to_bytes(script))
        number = (done.out.split() or [""])[-1].partition(";")[0]
        return number if number.isdigit() else None

    def find(self, names: Mapping[str, float], seconds: float = QUERY_TIMEOUT) -> dict[str, Job]:
        """Return the user's jobs by their names; a job that Slurm knows nothing of any more is missing.

        ``names`` has for each the time before which it was not submitted, in seconds since 1970. All questions together
        take at most ``seconds``. Raises ClusterError.
        """
        end = time.monotonic() + seconds
        fields = _SEPARATOR.join(("%j", "%i", "%T", "%N", "%r"))
        command = ["squeue", "--noheader", "--me", "--states=all", f"--name={','.join(names)}", f"--format={fields}"]
        jobs = {}
        for line in run_client(command, self._environ, seconds).out.splitlines():
            with reading_answer("squeue"):
                name, number, state, nodes, reason = line.split(_SEPARATOR, 4)
            text = f"{state} ({reason})" if state in _PENDING and reason not in ("", "None") else state
            status = self._exit_status(number, state, end) if state in _OVER else None
            jobs[name] = Job(number, _phase(state), text, status, nodes)
        missing = {name: since for name, since in names.items() if name not in jobs}
        return jobs | (self._find_ended(missing, end) if missing else {})

    def cancel(self, name: str) -> None:
        """Cancel the job of this name, which Slurm then reports as cancelled. Raises ClusterError."""
        run_client(["scancel", f"--name={name}", "--quiet"], self._environ, QUERY_TIMEOUT)

    def _find_ended(self, names: Mapping[str, float], end: float) -> dict[str, Job]:
        """Return the jobs that only the accounting knows; {} also without accounting."""
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(min(names.values()) - 60))
        fields = "--format=JobName,JobID,State,ExitCode,NodeList"
        options = ["--noheader", "--parsable2", "--allocations", f"--name={','.join(names)}", f"--starttime={start}"]
        try:
            answer = run_client(["sacct", *options, fields], self._environ, _left(end)).out
        except ClusterError as error:
            if error.is_missing or any("storage is disabled" in line for line in error.problems):
                return {}
            raise
        jobs = {}
        for line in answer.splitlines():
            with reading_answer("sacct"):
                name, number, state, code, nodes = line.split(_SEPARATOR, 4)
            word = state.partition(" ")[0]  # "CANCELLED by 1000"
            jobs[name] = Job(number, _phase(word), state, _to_status(word, code) if word in _OVER else None, nodes)
        return jobs

    def _exit_status(self, number: str, state: str, end: float) -> int | None:
        """Return the exit status of an ended job, by scontrol: squeue's own field differs between versions.

        If scontrol refuses, it follows from the state. Raises ClusterError if it does not answer.
        """
        try:
            answer = run_client(["scontrol", "--oneliner", "show", "job", number], self._environ, _left(end)).out
        except ClusterError as error:
            if error.is_undecided:
                raise
            answer = ""
        code = next((word for word in answer.split() if word.startswith("ExitCode=")), "")
        return _to_status(state, code.removeprefix("ExitCode="))


def _left(end: float) -> float:
    return max(0.1, end - time.monotonic())


def _phase(state: str) -> str:
    return "over" if state in _OVER else "pending" if state in _PENDING else "bound"


def _to_status(state: str, code: str) -> int:
    """Return an exit status as a shell has it. ``code`` is Slurm's "STATUS:SIGNAL", "" if it is unknown."""
    status, _, number = code.partition(":")
    if number.isdigit() and int(number):
        return 128 + int(number)
    if status.isdigit() and int(status):
        return int(status)
    return 0 if state == "COMPLETED" else _CANCELLED_STATUS if state == "CANCELLED" else 1


def find_namespace(environ: Mapping[str, str], context: str | None, namespace: str | None) -> str:
    """Return ``CONTEXT/NAMESPACE`` for a new job: by default kubectl's current ones. Raises ClusterError.

    It is part of the record, because the user may change the current context while the job runs.
    """
    options = [f"--context={context}"] if context else []
    hint = "'kubectl config get-contexts' lists those that it knows"
    try:
        command = ["kubectl", "config", "view", "--minify", "--output=json", *options]
        current = json.loads(run_client(command, environ, QUERY_TIMEOUT).out)["contexts"][0]
        return f"{current['name']}/{namespace or current['context'].get('namespace') or 'default'}"
    except ClusterError as error:
        if not any("current-context" in line for line in error.problems):
            error.hint = error.hint or hint
            raise
    except _OTHER_FORM:
        pass
    raise ClusterError("kubectl has no cluster to submit to", hint=hint)


class KubernetesClient:
    """A namespace of a cluster; ``namespace`` is CONTEXT/NAMESPACE, as ``find_namespace`` returns it."""

    def __init__(self, environ: Mapping[str, str], namespace: str) -> None:
        context, _, name = namespace.rpartition("/")  # the name of a context may contain "/"
        self._environ = environ
        self._command = ["kubectl", f"--context={context}", f"--namespace={name}"]

    def submit(self, manifest: str, *, secrets: Mapping[str, str], log: str) -> str | None:
        """Submit a Job; return its name. ``log`` is for other clusters: Kubernetes keeps the log itself.

        The Secret belongs to the Job, so that it is deleted with it; until it exists, the pod waits. It is created
        instead of applied: 'apply' would store the values a second time, in an annotation. Raises ClusterError.
        """
        apply = [*self._command, "apply", "--filename=-", "--output=json"]
        answer = run_client(apply, self._environ, SUBMIT_TIMEOUT, stdin=to_bytes(manifest))
        with reading_answer("kubectl"):
            whole = json.loads(answer.out)["metadata"]
            metadata: dict[str, str] = {key: "" + whole[key] for key in ("name", "uid")}  # a text
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        if secrets:
            document = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": metadata["name"], "ownerReferences": [owner]},
                "stringData": dict(secrets),
            }
            create = [*self._command, "create", "--filename=-"]
            try:
                run_client(create, self._environ, SUBMIT_TIMEOUT, stdin=json.dumps(document).encode())
            except ClusterError:
                self.cancel(metadata["name"])
                raise
        return metadata["name"]

    def find(self, names: Mapping[str, float], seconds: float = QUERY_TIMEOUT) -> dict[str, Job]:
        """Return the jobs by their names; one that does not exist is missing. Raises ClusterError.

        It takes at most ``seconds``.
        """
        runs = ",".join(name.rpartition("-")[2] for name in names)  # the run's id, which is the label too
        selector = f"--selector={RUN_LABEL} in ({runs})"
        answer = run_client([*self._command, "get", "jobs,pods", selector, "--output=json"], self._environ, seconds)
        with reading_answer("kubectl"):
            items = json.loads(answer.out)["items"]
            pods = {item["metadata"]["labels"].get("job-name"): item for item in items if item["kind"] == "Pod"}
            jobs = {item["metadata"]["name"]: item for item in items if item["kind"] == "Job"}
            return {name: _job(name, jobs[name], pods.get(name)) for name in names if name in jobs}

    def cancel(self, name: str) -> Job:
        """Delete a Job with its pod, and wait until they are gone. Raises ClusterError."""
        options = ["--ignore-not-found", "--cascade=foreground", f"--timeout={SUBMIT_TIMEOUT:g}s"]
        run_client([*self._command, "delete", "job", name, *options], self._environ, SUBMIT_TIMEOUT + QUERY_TIMEOUT)
        return Job(name, "over", "Deleted", _CANCELLED_STATUS)

    def log(self, name: str) -> bytes:
        """Return the end of the log of a Job. Raises ClusterError."""
        command = [*self._command, "logs", f"job/{name}", f"--tail={_KEPT_LINES}"]
        return to_bytes(run_client(command, self._environ, SUBMIT_TIMEOUT).out)

    def open_log(self, name: str, *, follow: bool) -> subprocess.Popen[bytes]:
        """Start reading the log of a Job; with ``follow`` until the Job is over. Raises ClusterError."""
        command = [*self._command, "logs", f"job/{name}", *(["--follow"] if follow else [])]
        try:
            return subprocess.Popen(  # noqa: S603
                command, env=dict(self._environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            raise ClusterError(f"'kubectl' cannot be started: {error.strerror}") from None


def _job(name: str, job: Mapping[str, Any], pod: Mapping[str, Any] | None) -> Job:
    status = job.get("status", {})
    node = pod["spec"].get("nodeName", "") if pod else ""
    ended = {item["type"]: item for item in status.get("conditions") or [] if item.get("status") == "True"}
    if "Complete" in ended:
        return Job(name, "over", "Complete", 0, node)
    if "Failed" in ended:
        why = ended["Failed"].get("reason", "")
        state = "Failed" if why in ("", "BackoffLimitExceeded") else f"Failed ({why})"
        return Job(name, "over", state, _exit_code(pod) or 1, node)
    if pod is None:
        return Job(name, "pending", "Pending")
    phase = pod.get("status", {}).get("phase", "Pending")
    why = _waits_for(pod["status"]) if phase == "Pending" else ""
    return Job(name, "pending" if phase == "Pending" else "bound", f"{phase} ({why})" if why else phase, None, node)


def _waits_for(status: Mapping[str, Any]) -> str:
    """Return why a pod does not run yet, such as ImagePullBackOff or Unschedulable, with the cluster's message."""
    waiting = [item["state"]["waiting"] for item in status.get("containerStatuses") or [] if "waiting" in item["state"]]
    waiting += [item for item in status.get("conditions") or [] if item.get("status") == "False" and "message" in item]
    if not waiting:
        return ""
    reason, message = waiting[0].get("reason", ""), waiting[0].get("message", "")
    return shorten(": ".join(filter(None, (reason, message))), 160)


def _exit_code(pod: Mapping[str, Any] | None) -> int | None:
    for item in (pod or {}).get("status", {}).get("containerStatuses") or []:
        if "terminated" in item["state"]:
            return int(item["state"]["terminated"]["exitCode"])
    return None
