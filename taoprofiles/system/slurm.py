"""Slurm by its own commands: submit a job, ask for its state, cancel it. Jobs are found by their names."""

from __future__ import annotations

import time
from collections.abc import Mapping

from taoprofiles.storage.paths import to_bytes
from taoprofiles.system.clusters import SUBMIT_TIMEOUT, TIMEOUT, ClusterError, Job, reading_answer, run_client

_PENDING = frozenset("PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT".split())
_OVER = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED RECONFIG_FAIL "
    "REVOKED TIMEOUT".split()
)
"""States of a job, by the man page of squeue (JOB STATE CODES); in all others its task may be running."""

_SEPARATOR = "|"


class Slurm:
    """The cluster that sbatch submits to in the environment ``environ``."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def submit(self, script: str, *, secrets: Mapping[str, str], log: str) -> str | None:
        """Submit a script; return the job's id, None if sbatch did not print it.

        ``secrets`` are added to the job's environment; its output goes to the file ``log``. Raises ClusterError.
        """
        # Options, not lines of the script: over those, SBATCH_EXPORT of the user's environment takes precedence.
        output = log.replace("%", "%%")
        command = ["sbatch", "--parsable", "--export=ALL", f"--output={output}"]
        done = run_client(command, {**self._environ, **secrets}, SUBMIT_TIMEOUT, stdin=to_bytes(script))
        return (done.out.split() or [""])[-1].partition(";")[0] or None

    def find(self, names: Mapping[str, float], seconds: float = TIMEOUT) -> dict[str, Job]:
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
        run_client(["scancel", f"--name={name}", "--quiet"], self._environ, TIMEOUT)

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
    return 0 if state == "COMPLETED" else 143 if state == "CANCELLED" else 1
