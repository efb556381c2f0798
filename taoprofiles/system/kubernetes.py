"""Kubernetes by kubectl: submit a Job, ask for its state, read its log, delete it. Jobs are found by a label."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from taoprofiles.masking import shorten
from taoprofiles.storage.paths import to_bytes
from taoprofiles.system.clusters import SUBMIT_TIMEOUT, TIMEOUT, ClusterError, Job, reading_answer, run_client
from taoprofiles.system.engine import RUN_LABEL

_LINES = 10_000
"""Lines of a log that are kept when its Job is over."""

_CANCELLED = 143
"""The exit status of a task that SIGTERM ends, as it does with the pod of a deleted Job."""


def find_namespace(environ: Mapping[str, str], context: str | None, namespace: str | None) -> str:
    """Return ``CONTEXT/NAMESPACE`` for a new job: by default kubectl's current ones. Raises ClusterError.

    It is part of the record, because the user may change the current context while the job runs.
    """
    options = [f"--context={context}"] if context else []
    hint = "'kubectl config get-contexts' lists those that it knows"
    try:
        answer = run_client(["kubectl", "config", "view", "--minify", "--output=json", *options], environ, TIMEOUT).out
        current = json.loads(answer)["contexts"][0]
        return f"{current['name']}/{namespace or current['context'].get('namespace') or 'default'}"
    except ClusterError as error:
        if not any("current-context" in line for line in error.problems):
            error.hint = error.hint or hint
            raise
    except (ValueError, LookupError, TypeError):
        pass
    raise ClusterError("kubectl has no cluster to submit to", hint=hint)


class Kubernetes:
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
            metadata = json.loads(answer.out)["metadata"]
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
        return str(metadata["name"])

    def find(self, names: Mapping[str, float], seconds: float = TIMEOUT) -> dict[str, Job]:
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
        run_client([*self._command, "delete", "job", name, *options], self._environ, SUBMIT_TIMEOUT + TIMEOUT)
        return Job(name, "over", "Deleted", _CANCELLED)

    def log(self, name: str) -> bytes:
        """Return the end of the log of a Job; b"" if there is none."""
        command = [*self._command, "logs", f"job/{name}", f"--tail={_LINES}"]
        try:
            return to_bytes(run_client(command, self._environ, SUBMIT_TIMEOUT).out)
        except ClusterError:
            return b""

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
