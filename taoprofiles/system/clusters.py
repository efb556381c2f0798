"""What is common to the clients of clusters: one bounded call of a client's command, and the state of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from taoprofiles.errors import TaoprofError
from taoprofiles.system.commands import CompletedCommand, run_bounded

TIMEOUT = 10.0
"""Seconds that a client gets to answer a question."""

STATUS_TIMEOUT = 2.0
"""Seconds that a client gets to answer ``status``, which else shows the last known state."""

SUBMIT_TIMEOUT = 60.0
"""Seconds that a client gets to submit a job."""

_UNDECIDED = ("timed out", "timeout", "deadline exceeded", "connection reset", "unexpected eof", "broken pipe")
"""Parts of a client's messages after which it is unknown whether the cluster did what it was asked to do."""


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
        error = ClusterError(f"'{command[0]}' failed with exit status {done.status}", problems=lines[-10:])
        error.is_undecided = any(words in done.err.lower() for words in _UNDECIDED)
        raise error
    return done


@contextmanager
def reading_answer(client: str) -> Iterator[None]:
    """Raise ClusterError for an answer of ``client`` that has another form; whether it did something is not known."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as problem:
        error = ClusterError(f"the answer of '{client}' cannot be read: {problem!r}")
        error.is_undecided = True
        raise error from None
