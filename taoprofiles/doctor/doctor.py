"""The diagnosis of this machine: ``probe_machine`` runs all probes in parallel, ``evaluate`` applies all rules.

Before them: the rules for launchers, and the probes and rules for the files of taoprofiles, its guard, and clusters.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from taoprofiles import VERSION
from taoprofiles.doctor.docker import DockerFacts, GpuFacts, check_docker, probe_docker, probe_gpus
from taoprofiles.errors import TaoprofError, reason_of
from taoprofiles.guard.service import Service
from taoprofiles.holds.records import HoldRecords
from taoprofiles.launcher import probes
from taoprofiles.masking import mask_text
from taoprofiles.profiles.store import Store, Summary
from taoprofiles.rules.finding import INFO, Finding, by_severity, error, warning, without_sudo
from taoprofiles.rules.start import check_home, check_login
from taoprofiles.storage import files, locks
from taoprofiles.storage.journal import History
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.switching import guard_files, status
from taoprofiles.system.clusters import ClusterError, KubernetesClient, SlurmClient, find_namespace

INSTALL_LAUNCHER = "python3 -m venv ~/tao-launcher && ~/tao-launcher/bin/pip install nvidia-tao setuptools"
"""setuptools contains the distutils that Python 3.12 and later do not have."""

PUT_FIRST_ON_PATH = 'export PATH="$HOME/tao-launcher/bin:$PATH"'


def _check_launchers(launchers: probes.Launchers) -> list[Finding]:
    if launchers.on_path:
        first, *others = launchers.on_path
        return [_unusable(first, others)] if first.trouble else [*_check_packages(first), *_check_others(first, others)]
    what, hint = "'tao' is not installed", f"{INSTALL_LAUNCHER} && {PUT_FIRST_ON_PATH}"
    if launchers.elsewhere:
        path = launchers.elsewhere[0]
        what = f"'tao' is not on PATH; it is at '{path}'"
        hint = f'export PATH={shlex.quote(os.path.dirname(path))}:"$PATH"'
    return [error("tao-missing", "PATH", what, "a shell says 'tao: command not found'", hint)]


def _unusable(first: probes.Launcher, others: list[probes.Launcher]) -> Finding:
    if first.trouble in (probes.NO_INTERPRETER, probes.NO_ANSWER):
        why = f"its environment was moved, or its Python '{first.python}' was upgraded or removed"
        return error("tao-broken-python", first.path, f"'tao' does not start: {first.problem}", why, _reinstall(first))
    real = next((other for other in others if not other.trouble), None)
    if real is not None:
        why = f"the launcher comes later on PATH, '{real.path}', and is never started"
        hint = f'export PATH={shlex.quote(os.path.dirname(real.path))}:"$PATH"'
    else:
        why, hint = (
            "another program has the name, or the launcher was uninstalled",
            f"{INSTALL_LAUNCHER} && {PUT_FIRST_ON_PATH}",
        )
    return error("tao-not-launcher", first.path, f"this 'tao' is not the launcher: {first.problem}", why, hint)


def _reinstall(launcher: probes.Launcher) -> str:
    folder = os.path.dirname(os.path.dirname(launcher.python))
    if not launcher.previous or folder in ("", "/", "/usr", "/usr/local"):
        return f"{INSTALL_LAUNCHER} && {PUT_FIRST_ON_PATH}"
    venv = shlex.quote(folder)
    return f"python3 -m venv --clear {venv} && {venv}/bin/pip install {shlex.quote(launcher.previous)} setuptools"


_NO_DISTUTILS = "distutils-less Python"
_COPY = "Python 3.12 has removed find_module"
_LATE = "'tao list' and each task fail before they ask the engine"
_CONFLICTS: tuple[tuple[str, tuple[int, ...], str, tuple[int, ...], str, list[str]], ...] = (
    ("tabulate", (0, 8, 8), "Python", (3, 10), "it mistakes Python 3.10 for a version before 3.3", ["tabulate>=0.9"]),
    ("six", (1, 16), "Python", (3, 12), _COPY, ["six>=1.16"]),
    ("urllib3", (1, 26, 15), "Python", (3, 12), _COPY, ["urllib3>=1.26.15,<2", "requests>=2.26,<2.32"]),
    ("docker", (7,), _NO_DISTUTILS, (3,), "setuptools contains a copy of it", ["setuptools"]),
    ("docker", (7, 1), "requests", (2, 32), _LATE, ["requests<2.32", "urllib3<2"]),
    ("docker", (6, 1), "urllib3", (2,), _LATE, ["urllib3<2"]),
)
"""A package, its first version that works with another package from a version on, why no earlier one does, and what to
install."""


def _check_packages(launcher: probes.Launcher) -> Iterator[Finding]:
    """Check the packages beside the launcher; one finding names all conflicts, since one command fixes them all."""
    python = "Python" if launcher.has_distutils else _NO_DISTUTILS
    release = ".".join(map(str, launcher.release[:2]))
    versions = {**launcher.packages, "Python": release, python: release}
    texts, reasons, requirements = [], [], []
    for name, below, other, since, why, working in _CONFLICTS:
        if (0,) < _numbers(versions.get(name, "")) < below and _numbers(versions.get(other, "")) >= since:
            texts.append(f"{name} {versions[name]} does not work with {other} {versions[other]}")
            reasons.append(why)
            requirements += working
    if not texts and launcher.imports:
        texts.append(f"a package that 'tao' imports cannot be imported: {launcher.imports}")
        requirements = ["--force-reinstall", f"{launcher.distribution}=={launcher.version}"]
    if texts:
        what, why = "; ".join(texts), "; ".join(dict.fromkeys(reasons))
        hint = _install_command(launcher, list(dict.fromkeys(requirements)))
        yield error("launcher-import", launcher.path, what, why, hint)


def _install_command(launcher: probes.Launcher, wanted: list[str]) -> str:
    """Return the command that installs ``wanted`` beside a launcher, with the tool that manages its environment."""
    words = shlex.join(wanted)
    if launcher.pip == "pipx":
        return f"pipx runpip {shlex.quote(os.path.basename(launcher.prefix))} install {words}"
    if launcher.pip == "uv":
        words = words.replace("--force-reinstall", "--reinstall")
        return f"uv pip install --python {shlex.quote(launcher.python)} {words}"
    if launcher.pip == "pip":
        return f"{shlex.quote(launcher.python)} -m pip install {words}"
    # The system's own Python, where pip refuses (PEP 668): a new environment instead.
    itself = f"{launcher.distribution}=={launcher.version}"
    words = shlex.join([itself, *(word for word in wanted if word not in (itself, "--force-reinstall"))])
    return f"python3 -m venv ~/tao-launcher && ~/tao-launcher/bin/pip install {words} && {PUT_FIRST_ON_PATH}"


def _check_others(first: probes.Launcher, others: list[probes.Launcher]) -> Iterator[Finding]:
    others = [item for item in others if (item.prefix, item.version) != (first.prefix, first.version)]
    if others:
        listed = ", ".join(f"'{item.path}' ({item.version or item.problem})" for item in others)
        what = f"more than one launcher is on PATH; the first one is used ({first.version})"
        hint = f"if it is the wrong one: {shlex.quote(first.python)} -m pip uninstall {first.distribution}"
        yield warning("tao-several", first.path, what, f"also on PATH: {listed}", hint)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part[:9]) for part in match[0].split(".")) if match else (0,)


class OwnState(NamedTuple):
    """The files of taoprofiles, and its guard."""

    folder: str
    mapping_file: str
    profile: str = ""  # the active profile, as in ``taoprof status``
    mapping_state: str = ""  # the state of the mapping file, as there
    mapping_mode: int | None = None
    known: int = 0  # number of profiles
    needs_launcher: bool = True  # not each profile has an image, in which 'run' starts all but the launcher
    foreign: tuple[tuple[str, int], ...] = ()  # files and folders that belong to another user: path, uid
    unreadable: tuple[tuple[str, str], ...] = ()  # files that cannot be read: path, reason
    profiles: tuple[tuple[str, str], ...] = ()  # invalid ones: name, problem
    holds: tuple[tuple[str, str], ...] = ()  # damaged records: path, problem
    is_sealed_by_nobody: bool = False
    unit: str = ""  # "" (none), "same" or "other"
    service: str = ""  # the state of the unit
    guard: str = ""  # the version of a running guard
    guard_pid: int = 0
    guard_problem: str = ""


T = TypeVar("T")

MAX_LISTED = 20
"""Limit of the problems of one kind that are reported at once."""

STATE_ROOM = 16 << 20
"""Bytes: more than any change needs. With less, a switch is refused and nothing is lost."""


def probe_state(context: Context) -> OwnState:
    """Look at all files. Never raises: what cannot be read is in ``unreadable``."""
    unreadable: list[tuple[str, str]] = []

    def attempt(path: str, probe: Callable[[], T], default: T) -> T:
        try:
            return probe()
        except TaoprofError as error:
            unreadable.append((path, error.message))
        except OSError as error:
            unreadable.append((path, reason_of(error)))
        return default

    now = attempt(context.mapping_file, lambda: status.get_status(context), None)
    summaries: list[Summary] = attempt(context.profiles, lambda: Store(context).summaries(), [])
    damaged: dict[str, str] = {}
    attempt(context.holds, lambda: len(HoldRecords(context).all(damaged)), 0)
    attempt(context.history, lambda: next(iter(History(context).newest_first()), None), None)
    attempt(context.runs, lambda: next(iter(HoldRecords(context).ended_runs()), None), None)
    stat_result = files.stat_or_none(context.mapping_file)
    return OwnState(
        context.state,
        context.mapping_file,
        (now.name or "") if now else "",
        now.state if now else "unreadable",
        None if stat_result is None else stat.S_IMODE(stat_result.st_mode),
        len(summaries),
        attempt(context.profiles, lambda: _needs_launcher(Store(context)), True),
        tuple(_foreign(context)[:MAX_LISTED]),
        tuple(unreadable[:MAX_LISTED]),
        tuple([(summary.name, summary.problem) for summary in summaries if summary.problem][:MAX_LISTED]),
        tuple((os.path.join(context.holds, f"{id}.json"), text) for id, text in [*damaged.items()][:MAX_LISTED]),
        attempt(context.guard, lambda: locks.is_orphaned(context.seal, context.guard), False),
        **_guard(context),
    )


def _needs_launcher(store: Store) -> bool:
    names = store.names()
    return not names or any(store.renderer(name).image(()) is None for name in names)


def _foreign(context: Context) -> list[tuple[str, int]]:
    if context.uid == 0:
        return []  # may write everything
    result: list[tuple[str, int]] = []
    for path in (context.mapping_file, context.config, context.profiles, context.state, context.lock, context.history):
        try:
            owner = os.lstat(path).st_uid
        except (OSError, ValueError):
            continue
        if owner != context.uid and not any(is_inside(path, outer) for outer, _ in result):
            result.append((path, owner))
    return result


def _guard(context: Context) -> dict[str, Any]:
    result: dict[str, Any] = {}
    try:
        if report := guard_files.read_status(context):
            pid = report.get("pid")
            result |= {
                "guard": str(report.get("version") or "unknown"),
                "guard_pid": pid if isinstance(pid, int) else 0,
                "guard_problem": str(report.get("problem") or ""),
            }
        service = Service(context, timeout=3.0)
        service_status = service.status()
        if service_status["installed"]:
            installed = files.read(str(service_status["unit"] or service.path), 1 << 20)
            unit = "same" if installed == service.unit().encode() else "other"
            result |= {"unit": unit, "service": str(service_status["state"])}
    except (TaoprofError, OSError, ValueError):
        pass  # without a systemd user manager there is no service, and the guard needs none
    return result


def check_state(state: OwnState, uid: int, version: str, file_system: probes.FileSystem | None) -> Iterator[Finding]:
    """Check the files for the user ``uid`` and the ``version`` of taoprofiles; ``file_system`` is that of the state."""
    for path, owner in state.foreign:
        what = f"it belongs to user id {owner}, not to you ({uid})"
        why, hint = "it cannot be changed; HOME may be another user's", f"ls -ld {shlex.quote(path)}"
        if owner == 0:
            why = "it was probably created with sudo; it cannot be changed"
            hint = f'sudo chown -R "$(id -u):$(id -g)" {shlex.quote(path)}'
        yield error("state-not-mine", path, what, why, hint)
    for path, problem in state.unreadable:
        why = "its content is unknown, so commands that need it refuse to work"
        yield error("state-unreadable", path, problem, why, f"ls -ld {shlex.quote(path)}")
    if file_system is not None and file_system.size and file_system.free < STATE_ROOM:
        what = f"{file_system.free >> 20} MB is free on its file system"
        why = "profiles cannot be saved and switches are refused; existing files stay unchanged"
        yield error("state-full", file_system.path, what, why, f"df -h {shlex.quote(file_system.path)}")
    is_read_only = state.mapping_mode is not None and not state.mapping_mode & 0o200
    if is_read_only and not state.is_sealed_by_nobody and not state.guard:
        what = "the mapping file is read-only"
        why = "no guard has made it read-only; a notebook that writes it fails with PermissionError"
        hint = f"chmod u+w {shlex.quote(state.mapping_file)}"
        yield warning("mapping-read-only", state.mapping_file, what, why, hint)
    for name, problem in state.profiles:
        hint, why = f"taoprof edit {shlex.quote(name)}", "it cannot be used until it is fixed"
        yield warning("profile-unreadable", f"profile '{name}'", problem, why, hint)
    for path, problem in state.holds:
        why = "it may belong to a training, so no switch is made while it exists"
        hint = f"mv {shlex.quote(path)} {shlex.quote(path)}.damaged"
        yield error("hold-damaged", path, problem, why, hint)
    yield from _check_guard(state, version)


def _check_guard(state: OwnState, version: str) -> Iterator[Finding]:
    if state.is_sealed_by_nobody:
        what = "the mapping file is read-only because of a guard that is no longer running"
        why = "a notebook that writes the file fails with PermissionError"
        yield warning("seal-left-over", state.mapping_file, what, why, "taoprofd --unseal")
    if state.unit and not state.service.startswith("active"):
        what = f"the guard is installed but not running: {state.service or 'unknown'}"
        why = "nothing restores the mapping of a training after a notebook overwrites it"
        hint = "taoprof service logs; taoprof service start"
        yield warning("guard-inactive", "taoprofd.service", what, why, hint)
    elif state.unit == "other" or (state.guard and state.guard != version):
        what = f"the running guard is version {state.guard}, taoprof is version {version}"
        if state.guard in ("", None, version):
            what = f"the unit of the guard is not the one that taoprof {version} installs"
        why = "taoprofiles was upgraded or moved since the service was installed"
        hint = "taoprof service install" if state.unit else f"kill {state.guard_pid} && (taoprofd 2>>~/.taoprofd.log &)"
        yield warning("guard-outdated", "taoprofd.service", what, why, hint)
    if state.guard_problem:
        why = "the guard is running, but with this problem"
        yield warning("guard-troubled", "taoprofd", state.guard_problem, why, "taoprof service logs")


CLUSTER_PROGRAMS = {"slurm": ("sbatch", "squeue", "scancel"), "kubernetes": ("kubectl",)}
"""What ``run --on`` needs, by target."""

_NO_JOB = "taoprof-doctor"
"""The name of a job that does not exist."""


class ClusterState(NamedTuple):
    """A cluster, as ``run --on`` reaches it from here."""

    kind: str  # "slurm" or "kubernetes"
    place: str  # CONTEXT/NAMESPACE of Kubernetes, as far as it is known
    profiles: tuple[str, ...]  # those with settings for it
    missing: tuple[str, ...] = ()  # the programs that are not on PATH
    problem: str = ""  # why it cannot be asked, "" if it answers


def _probe_clusters(context: Context) -> tuple[ClusterState, ...]:
    """Ask each cluster of a profile, and those whose programs are on PATH, at the same time and for a bounded time."""
    wanted = _find_settings(context)
    for kind, programs in CLUSTER_PROGRAMS.items():
        if not _missing_programs(context, programs[:1]) and all(kind != key[0] for key in wanted):
            wanted[kind, None, None] = []
    if not wanted:
        return ()

    def ask(key: tuple[str, str | None, str | None]) -> ClusterState:
        kind, cluster, namespace = key
        target, environ, problem = "/".join(filter(None, (cluster, namespace))), context.environ, ""
        missing = _missing_programs(context, CLUSTER_PROGRAMS[kind])
        if not missing:
            try:
                if kind == "kubernetes":
                    target = find_namespace(environ, cluster, namespace)
                client = SlurmClient(environ) if kind == "slurm" else KubernetesClient(environ, target)
                client.find({_NO_JOB: time.time()})
            except ClusterError as error:
                problem = mask_text("; ".join([error.message, *error.problems[-1:]]))
        return ClusterState(kind, target, tuple(wanted[key]), missing, problem)

    with ThreadPoolExecutor(len(wanted)) as pool:
        return tuple(pool.map(ask, list(wanted)))


def _find_settings(context: Context) -> dict[tuple[str, str | None, str | None], list[str]]:
    """Return the profiles with settings for a cluster, by its kind, context and namespace."""
    profiles: dict[tuple[str, str | None, str | None], list[str]] = defaultdict(list)
    store = Store(context)
    with suppress(TaoprofError):
        for name in store.names():
            with suppress(TaoprofError):  # an invalid profile has its own finding
                renderer = store.renderer(name)
                for kind in CLUSTER_PROGRAMS:
                    if settings := renderer.template["clusters"][kind]:
                        profiles[kind, settings.get("context"), settings.get("namespace")].append(name)
    return profiles


def _missing_programs(context: Context, programs: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in programs if not shutil.which(name, path=context.environ.get("PATH", "")))


def _check_clusters(clusters: Sequence[ClusterState]) -> Iterator[Finding]:
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


class Machine(NamedTuple):
    """The answers of all probes. ``version`` is that of taoprofiles."""

    version: str
    launchers: probes.Launchers
    docker: DockerFacts
    gpus: GpuFacts
    login: probes.Login
    home: probes.Home
    state: OwnState
    clusters: tuple[ClusterState, ...] = ()


def probe_machine(context: Context) -> Machine:
    """Run all probes, in parallel. Changes nothing; each probe has its own timeout."""
    environ = context.environ
    interpreter_folder = os.path.dirname(sys.executable)
    with ThreadPoolExecutor(6) as pool:
        launchers = pool.submit(probes.probe_launchers, environ, context.home, interpreter_folder)
        engines = pool.submit(probe_docker, environ)
        gpus = pool.submit(probe_gpus, environ)
        login = pool.submit(probes.probe_login, environ)
        state = pool.submit(probe_state, context)
        clusters = pool.submit(_probe_clusters, context)
    docker = engines.result()
    folders = [("home", context.home), ("state", context.state)]
    if docker.first.root and docker.first.address.startswith("unix://") and os.path.isdir(docker.first.root):
        folders.append(("images", docker.first.root))
    home = probes.probe_home(context, folders)
    results = (launchers.result(), docker, gpus.result(), login.result(), home, state.result(), clusters.result())
    return Machine(VERSION, *results)


def evaluate(machine: Machine, environ: Mapping[str, str]) -> list[Finding]:
    """Apply all rules; return the errors first, otherwise in the order in which a start of tao would meet them.

    Of ``environ`` only the names in ``launcher.probes.PROBED_VARIABLES`` are used.
    """
    first = machine.launchers.on_path[0] if machine.launchers.on_path else None
    version = first.version if first else ""
    uid = machine.home.uid
    findings = [
        *check_home(machine.home, version),
        *_check_launchers(machine.launchers),
        *check_docker(machine.docker, machine.gpus, _file_system(machine, "images")),
        *check_login(machine.login, version, environ, uid),
        *_check_clusters(machine.clusters),
        *check_state(machine.state, uid, machine.version, _file_system(machine, "state")),
    ]
    if not machine.state.needs_launcher and not machine.launchers.on_path:
        why = "no profile needs the launcher: each one has an image"
        unneeded = ("tao-missing", "login-missing")
        findings = [f._replace(severity=INFO, why=why) if f.id in unneeded else f for f in findings]
    return by_severity(without_sudo(findings, uid))


def to_plain_data(answer: object) -> Any:
    """Return the answers of probes as plain data."""
    if hasattr(answer, "_asdict"):
        return {name: to_plain_data(value) for name, value in answer._asdict().items()}
    if isinstance(answer, tuple | list):
        return [to_plain_data(value) for value in answer]
    return dict(answer) if isinstance(answer, dict) else answer


def _file_system(machine: Machine, use: str) -> probes.FileSystem | None:
    return next((system for system in machine.home.file_systems if system.use == use), None)
