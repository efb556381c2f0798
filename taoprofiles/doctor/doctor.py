"""Diagnose this machine: run all probes in parallel, then judge their answers."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.check import fix
from taoprofiles.doctor import docker_probe, docker_rules, launcher_rules, own_state, state_rules
from taoprofiles.launcher import docker_config, environment, installed
from taoprofiles.launcher.host import Host
from taoprofiles.rules import machine as machine_rules
from taoprofiles.rules.finding import Finding, by_severity
from taoprofiles.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taoprofiles.doctor.docker_probe import Docker, Gpus
    from taoprofiles.doctor.own_state import State
    from taoprofiles.launcher.docker_config import Login
    from taoprofiles.launcher.environment import FileSystem, Home
    from taoprofiles.launcher.installed import Launchers
    from taoprofiles.storage.paths import Context


class Machine(NamedTuple):
    """The answers of all probes. ``version`` is that of taoprofiles."""

    version: str
    launchers: Launchers
    docker: Docker
    gpus: Gpus
    login: Login
    home: Home
    state: State


class Examination(NamedTuple):
    """The ``findings``: errors first, and otherwise in the order in which a start of tao would meet them."""

    machine: Machine
    findings: list[Finding]


def examine(context: Context) -> Examination:
    """Run all probes and rules. Changes nothing; each probe has its own timeout."""
    machine = gather(context)
    return Examination(machine, judge(machine, context.environ))


def gather(context: Context) -> Machine:
    """Run all probes, in parallel."""
    environ = context.environ
    beside = os.path.dirname(sys.executable)
    with ThreadPoolExecutor(5) as pool:
        asked = pool.submit(installed.survey, environ, context.home, beside)
        engines = pool.submit(docker_probe.probe_docker, environ)
        driver = pool.submit(docker_probe.probe_gpus, environ)
        logged = pool.submit(docker_config.probe_login, environ, Host(environ, context.folder).expanduser("~"))
        own = pool.submit(own_state.probe_state, context).result()
    engine = engines.result()
    places = [("home", context.home), ("state", context.state)]
    if engine.first.root and engine.first.address.startswith("unix://") and os.path.isdir(engine.first.root):
        places.append(("images", engine.first.root))
    where = environment.survey(environ, context.home, context.mapping_file, places)
    return Machine(VERSION, asked.result(), engine, driver.result(), logged.result(), where, own)


def judge(machine: Machine, environ: Mapping[str, str]) -> list[Finding]:
    """Apply all rules. Of ``environ`` only the names in ``environment.LOOKED_AT`` are used."""
    first = machine.launchers.found[0] if machine.launchers.found else None
    version = first.version if first else ""
    uid = machine.home.uid
    found = [
        *machine_rules.check_home(machine.home, version),
        *launcher_rules.check_launchers(machine.launchers),
        *docker_rules.check_docker(machine.docker, machine.gpus, _file_system(machine, "images")),
        *machine_rules.check_login(machine.login, version, environ, uid),
        *state_rules.check_state(machine.state, uid, machine.version, _file_system(machine, "state")),
    ]
    return by_severity(fix.without_sudo(found, uid))


def facts(machine: Machine) -> dict[str, Any]:
    """Return the answers of the probes as plain data."""
    plain: dict[str, Any] = _plain(machine)
    return plain


def _plain(found: object) -> Any:
    if hasattr(found, "_asdict"):
        return {name: _plain(value) for name, value in found._asdict().items()}
    if isinstance(found, tuple | list):
        return [_plain(value) for value in found]
    return dict(found) if isinstance(found, dict) else found


def _file_system(machine: Machine, what: str) -> FileSystem | None:
    return next((place for place in machine.home.places if place.what == what), None)
