"""Probe of the clusters that profiles and the programs on PATH lead to, and the rule that judges them."""

from __future__ import annotations

import shlex
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from taoprofiles.errors import TaoprofError
from taoprofiles.masking import mask_text
from taoprofiles.profiles.store import Store
from taoprofiles.rules.finding import Finding, warning
from taoprofiles.storage.paths import Context
from taoprofiles.system.clusters import ClusterError, Kubernetes, Slurm, find_namespace

PROGRAMS = {"slurm": ("sbatch", "squeue", "scancel"), "kubernetes": ("kubectl",)}
"""What ``run --on`` needs, by target."""

_NO_JOB = "taoprof-doctor"
"""The name of a job that does not exist."""


class ClusterState(NamedTuple):
    """A cluster, as ``run --on`` reaches it from here.

    - ``kind``: "slurm" or "kubernetes"; ``place``: CONTEXT/NAMESPACE of Kubernetes, as far as it is known
    - ``profiles``: those with settings for it
    - ``missing``: the programs that are not on PATH; ``problem``: why it cannot be asked, "" if it answers
    """

    kind: str
    place: str
    profiles: tuple[str, ...]
    missing: tuple[str, ...] = ()
    problem: str = ""


def probe_clusters(context: Context) -> tuple[ClusterState, ...]:
    """Ask each cluster of a profile, and those whose programs are on PATH, at the same time and for a bounded time."""
    wanted = _find_settings(context)
    for kind, programs in PROGRAMS.items():
        if not _missing(context, programs[:1]) and all(kind != key[0] for key in wanted):
            wanted[kind, None, None] = []
    if not wanted:
        return ()

    def ask(key: tuple[str, str | None, str | None]) -> ClusterState:
        kind, cluster, namespace = key
        place, environ, problem = "/".join(filter(None, (cluster, namespace))), context.environ, ""
        missing = _missing(context, PROGRAMS[kind])
        if not missing:
            try:
                if kind == "kubernetes":
                    place = find_namespace(environ, cluster, namespace)
                client = Slurm(environ) if kind == "slurm" else Kubernetes(environ, place)
                client.find({_NO_JOB: time.time()})
            except ClusterError as error:
                problem = mask_text("; ".join([error.message, *error.problems[-1:]]))
        return ClusterState(kind, place, tuple(wanted[key]), missing, problem)

    with ThreadPoolExecutor(len(wanted)) as pool:
        return tuple(pool.map(ask, list(wanted)))


def _find_settings(context: Context) -> dict[tuple[str, str | None, str | None], list[str]]:
    """Return the profiles with settings for a cluster, by its kind, context and namespace."""
    found: dict[tuple[str, str | None, str | None], list[str]] = defaultdict(list)
    store = Store(context)
    with suppress(TaoprofError):
        for name in store.names():
            with suppress(TaoprofError):  # an invalid profile has its own finding
                renderer = store.renderer(name)
                for kind in PROGRAMS:
                    if settings := renderer.cluster_settings(kind):
                        found[kind, settings.get("context"), settings.get("namespace")].append(name)
    return found


def _missing(context: Context, programs: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in programs if not shutil.which(name, path=context.environ.get("PATH", "")))


def check_clusters(clusters: Sequence[ClusterState]) -> Iterator[Finding]:
    """Check the clusters that profiles have settings for: that they can be used from here."""
    for cluster in clusters:
        is_slurm = cluster.kind == "slurm"
        why = f"'taoprof run {', '.join(cluster.profiles[:3])} --on {cluster.kind}' fails"
        if cluster.profiles and cluster.missing:
            what = f"not installed here: {', '.join(cluster.missing)}"
            hint = "use a login node of the cluster" if is_slurm else "see https://kubernetes.io/docs/tasks/tools"
            yield warning("cluster-client-missing", "PATH", what, why, hint)
        elif cluster.profiles and cluster.problem:
            context = cluster.place.rpartition("/")[0]
            option = f"--context={shlex.quote(context)} " if context else ""
            hint = "sinfo" if is_slurm else f"kubectl {option}cluster-info"
            yield warning("cluster-unreachable", cluster.place or cluster.kind, cluster.problem, why, hint)
