"""doctor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.cli import findings
from taoprofiles.cli.output import table
from taoprofiles.cli.result import Result
from taoprofiles.doctor import doctor
from taoprofiles.doctor.docker_probe import ABSENT

if TYPE_CHECKING:
    import argparse

    from taoprofiles.doctor.doctor import Machine
    from taoprofiles.storage.paths import Context


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    findings.add_strict(parser)


def doctor_verb(context: Context, args: argparse.Namespace) -> Result:
    found = doctor.examine(context)
    data = {**findings.data(found.findings), "facts": doctor.facts(found.machine)}
    lines = [*table(areas(context, found.machine)), "", *findings.lines(found.findings)]
    return Result(data, lines, status=findings.status(found.findings, strict=args.strict))


def areas(context: Context, machine: Machine) -> list[tuple[str, str]]:
    """Say in a line for each area what was found, whether it is right or not."""
    return [
        ("launcher", _launcher(context, machine)),
        ("engine", _engine(machine)),
        ("GPUs", _gpus(machine)),
        ("registry", _registry(context, machine)),
        ("home", _home(context, machine)),
        ("state", _state(context, machine)),
        ("guard", _guard(machine)),
    ]


def _launcher(context: Context, machine: Machine) -> str:
    if not machine.launchers.found:
        return "none on PATH"
    first = machine.launchers.found[0]
    if first.trouble:
        return f"{context.short(first.path)}: {first.problem}"
    name = "tao" if first.distribution == "nvidia-tao" else "tlt"
    release = ".".join(map(str, first.release))
    return f"{name} {first.version} at {context.short(first.path)}, Python {release}"


def _engine(machine: Machine) -> str:
    engine, command = machine.docker.first, machine.docker.command
    if engine.trouble:
        return f"none at {engine.address}" + (f": {engine.problem}" if engine.trouble != ABSENT else "")
    same = ", the docker command's too" if command.is_same(engine) else ""
    images = next((place for place in machine.home.places if place.what == "images"), None)
    room = f", {images.free / 1e9:.0f} GB free for images" if images and images.size else ""
    kind = " (rootless)" if engine.is_rootless else ""
    return f"Docker {engine.version}{kind} at {engine.address}{same}{room}"


def _gpus(machine: Machine) -> str:
    gpus = machine.gpus
    if not gpus.gpus:
        return "no NVIDIA driver answers"
    names = [f"{count} x {name}" for name in dict.fromkeys(gpus.gpus) if (count := gpus.gpus.count(name))]
    return f"{', '.join(names)}, driver {gpus.driver}"


def _registry(context: Context, machine: Machine) -> str:
    login = machine.login
    where = context.short(login.path)
    if login.registries:
        return f"logged in to {' and '.join(login.registries)} ({where})"
    skipped = machine.home.variables.get("OVERRIDE_REGISTRY")
    return f"OVERRIDE_REGISTRY is '{skipped}'" if skipped is not None else f"not logged in to nvcr.io ({where})"


def _home(context: Context, machine: Machine) -> str:
    file = machine.home.variables.get("LAUNCHER_MOUNTS")
    read = f"tao reads '{file}' (LAUNCHER_MOUNTS)" if file is not None else f"tao reads {_mapping(context, machine)}"
    return f"{machine.home.path}{', on Windows (WSL)' if machine.home.system == 'wsl' else ''}; {read}"


def _mapping(context: Context, machine: Machine) -> str:
    path, state = context.short(machine.state.mapping_file), machine.state
    if state.situation == "none":
        return f"{path}, which is not there"
    return f"{path}: '{state.profile}', {state.situation}" if state.profile else f"{path}: {state.situation}"


def _state(context: Context, machine: Machine) -> str:
    known = machine.state.known
    where = context.short(os.path.dirname(context.profiles))
    return f"{known} profile{'s' if known != 1 else ''} in {where}, state in {context.short(context.state)}"


def _guard(machine: Machine) -> str:
    state = machine.state
    at_work = f"at work, pid {state.guard_pid}, version {state.guard}" if state.guard else "not at work"
    how = f"service {state.service}" if state.unit else "no service: 'taoprof service install' has one"
    return f"{at_work}; {how}"
