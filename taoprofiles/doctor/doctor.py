"""Diagnose this machine: run all probes in parallel, then evaluate their answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from taoprofiles.doctor import cluster_state, docker_probe, docker_rules, launcher_rules, own_state
from taoprofiles.doctor.cluster_state import ClusterState
from taoprofiles.doctor.docker_probe import DockerFacts, Gpus
from taoprofiles.doctor.own_state import OwnState
from taoprofiles.launcher import home_probe, installed
from taoprofiles.launcher.home_probe import FileSystem, Home, Login
from taoprofiles.launcher.host import Host
from taoprofiles.launcher.installed import Launchers
from taoprofiles.rules import machine as machine_rules
from taoprofiles.rules.finding import INFO, Finding, by_severity, without_sudo
from taoprofiles.storage.paths import Context
from taoprofiles.version import VERSION


class Machine(NamedTuple):
    """The answers of all probes. ``version`` is that of taoprofiles."""

    version: str
    launchers: Launchers
    docker: DockerFacts
    gpus: Gpus
    login: Login
    home: Home
    state: OwnState
    clusters: tuple[ClusterState, ...] = ()


def probe_machine(context: Context) -> Machine:
    """Run all probes, in parallel. Changes nothing; each probe has its own timeout."""
    environ = context.environ
    interpreter_folder = os.path.dirname(sys.executable)
    with ThreadPoolExecutor(6) as pool:
        launchers = pool.submit(installed.probe_launchers, environ, context.home, interpreter_folder)
        engines = pool.submit(docker_probe.probe_docker, environ)
        gpus = pool.submit(docker_probe.probe_gpus, environ)
        login = pool.submit(home_probe.probe_login, environ, Host(environ, context.folder).expanduser("~"))
        state = pool.submit(own_state.probe_state, context)
        clusters = pool.submit(cluster_state.probe_clusters, context)
    docker = engines.result()
    folders = [("home", context.home), ("state", context.state)]
    if docker.first.root and docker.first.address.startswith("unix://") and os.path.isdir(docker.first.root):
        folders.append(("images", docker.first.root))
    home = home_probe.probe_home(environ, context.home, context.mapping_file, folders, folder=context.folder)
    probes = (launchers.result(), docker, gpus.result(), login.result(), home, state.result(), clusters.result())
    return Machine(VERSION, *probes)


def evaluate(machine: Machine, environ: Mapping[str, str]) -> list[Finding]:
    """Apply all rules; return the errors first, otherwise in the order in which a start of tao would meet them.

    Of ``environ`` only the names in ``home_probe.PROBED_VARIABLES`` are used.
    """
    first = machine.launchers.found[0] if machine.launchers.found else None
    version = first.version if first else ""
    uid = machine.home.uid
    findings = [
        *machine_rules.check_home(machine.home, version),
        *launcher_rules.check_launchers(machine.launchers),
        *docker_rules.check_docker(machine.docker, machine.gpus, _file_system(machine, "images")),
        *machine_rules.check_login(machine.login, version, environ, uid),
        *cluster_state.check_clusters(machine.clusters),
        *own_state.check_state(machine.state, uid, machine.version, _file_system(machine, "state")),
    ]
    if not machine.state.needs_launcher and not machine.launchers.found:
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


def _file_system(machine: Machine, what: str) -> FileSystem | None:
    return next((system for system in machine.home.places if system.what == what), None)
