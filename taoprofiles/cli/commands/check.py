"""check, doctor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from taoprofiles.cli.arguments import add_profile, add_reveal, add_strict
from taoprofiles.cli.formatting import finding_data, finding_lines, finding_status
from taoprofiles.cli.output import Result, note, say, table
from taoprofiles.errors import UsageError
from taoprofiles.masking import MASK, is_secret, within

if TYPE_CHECKING:
    import argparse

    from taoprofiles.check.check import Report
    from taoprofiles.doctor.doctor import Machine
    from taoprofiles.launcher.prediction import Call
    from taoprofiles.storage.paths import Context


def check_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, optional=True, help="name of the profile; default: the mounts file that tao would read now")
    parser.add_argument(
        "--launcher", metavar="VERSION", help="check for this version of the launcher; default: the tao on PATH"
    )
    add_strict(parser)
    parser.add_argument("--fix", action="store_true", help="fix what needs no decision, after showing the changes")
    parser.add_argument("--yes", action="store_true", help="answer the question of --fix with yes")
    add_reveal(parser)


def check_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.check import check

    report = check.check(context, args.name, args.command, launcher=args.launcher)
    fixed: list[str] = []
    if args.fix:
        while applied := _fix(context, args, report, fixed):  # a fix may reveal more: a user needs a home
            fixed += applied
            report = check.check(context, args.name, args.command, launcher=args.launcher)
    lines = _prediction_lines(context, report, is_named=args.launcher is not None, reveal=args.reveal)
    lines += finding_lines(report.findings)
    status = finding_status(report.findings, strict=args.strict)
    return Result(_check_data(report, fixed, reveal=args.reveal), lines, status=status)


def _fix(context: Context, args: argparse.Namespace, report: Report, applied: list[str]) -> list[str]:
    """Apply the fixes of a report that were not applied before, after asking; return a line for each."""
    from taoprofiles.check import fix
    from taoprofiles.cli import prompts

    plan = fix.plan(context, report.findings, report.name, report.path, is_named=args.name is not None)
    lines = [each.command(report.name) for each in plan]
    if all(line in applied for line in lines):
        return []
    say("this would be fixed:")
    for line in lines:
        note(f"  {line}")
    if not args.yes:
        if not prompts.can_ask():
            raise UsageError("--fix asks a question, and there is no terminal", hint="--yes fixes without a question")
        if not prompts.confirm("Fix it?"):
            say("nothing else fixed" if applied else "nothing fixed")
            return []
    fix.apply(context, plan, report.name)
    return lines


def _prediction_lines(context: Context, report: Report, *, is_named: bool, reveal: bool) -> list[str]:
    """Describe the container that the launcher would start."""
    target = f"'{report.name}'" if report.name else context.short(report.path)
    lines = [f"{target} with {_launcher_used(report, is_named=is_named)}:"]
    prediction = report.prediction
    if prediction is None:
        return lines
    if report.refusal is not None:
        first = report.refusal.message.strip().split("\n")[0]
        return [*lines, f"  refused: {report.refusal.kind}: {first}"]
    if prediction.call is None:
        return [*lines, "  starts no container"]
    call = prediction.call
    if prediction.source_file is None:
        lines.append("  no mounts file is read")
    rows = [(context.short(source), "→", destination) for source, destination in call.volumes.items()]
    lines += table(rows, indent="  ") if rows else ["  no mounts"]
    environment = _environment(call, report, reveal=reveal)
    lines += [f"  {key}: {value}" for key, value in _options(call, environment) if value]
    if report.lost:
        lines.append(f"  CI_PROJECT_DIR is set: the launcher ignores {' and '.join(report.lost)}")
    return lines


def _launcher_used(report: Report, *, is_named: bool) -> str:
    launcher, version = report.launcher, f"tao {report.version}"
    if launcher is None:
        return version if is_named else f"{version} (the newest version, because there is no tao on PATH)"
    if not launcher.version:
        return f"{version}, because the version of {launcher.path} is unknown: {launcher.problem}"
    return f"{version} ({launcher.path})"


def _options(call: Call, environment: dict[str, str]) -> list[tuple[str, str]]:
    ports = [
        f"{inside} on {', '.join(str(host['HostPort']) for host in hosts)}" for inside, hosts in call.ports.items()
    ]
    return [
        ("env", " ".join(f"{name}={value}" for name, value in environment.items())),
        ("user", call.user or "root"),
        ("shared memory", _size(call.shm_size) if call.shm_size else "64 MB (default of Docker)"),
        ("limits", ", ".join(f"{name} {limit}" for name, limit in call.ulimits.items())),
        ("ports", ", ".join(ports)),
        ("network", str(call.network or "")),
        ("privileged", "yes" if call.privileged else ""),
        ("image", call.image),
    ]


def _size(size: object) -> str:
    if not isinstance(size, int):
        return str(size)
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"


def _environment(call: Call, report: Report, *, reveal: bool) -> dict[str, str]:
    pairs = (line.partition("=") for line in call.environment)
    variables = ((name, name in report.secrets or is_secret(name), value) for name, _, value in pairs)
    return {name: value if reveal else MASK if hidden else within(value) for name, hidden, value in variables}


def _check_data(report: Report, fixed: list[str], *, reveal: bool) -> dict[str, Any]:
    prediction, launcher = report.prediction, report.launcher
    refusal = report.refusal
    call = prediction.call if prediction and refusal is None else None
    container = None
    if call is not None:
        container = {
            "image": call.image or None,
            "mounts": [{"source": source, "destination": place} for source, place in call.volumes.items()],
            "env": _environment(call, report, reveal=reveal),
            "user": call.user,
            "shm_size": call.shm_size,
            "ulimits": call.ulimits,
            "ports": call.ports,
            "network": call.network,
            "privileged": call.privileged,
            "tty": call.tty,
        }
    return {
        "name": report.name,
        "path": report.path,
        "launcher": {"version": report.version, "path": launcher.path if launcher else None},
        "reads": prediction.source_file if prediction and report.name is None else None,
        "refusal": refusal and {"kind": refusal.kind, "message": refusal.message, "where": str(refusal.location)},
        "container": container,
        "lost_in_ci": report.lost,
        **finding_data(report.findings),
        "fixed": fixed,
    }


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    add_strict(parser)


def doctor_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.doctor import doctor

    diagnosis = doctor.examine(context)
    data = {**finding_data(diagnosis.findings), "facts": doctor.facts(diagnosis.machine)}
    lines = [*table(_areas(context, diagnosis.machine)), "", *finding_lines(diagnosis.findings)]
    return Result(data, lines, status=finding_status(diagnosis.findings, strict=args.strict))


def _areas(context: Context, machine: Machine) -> list[tuple[str, str]]:
    """Return one line for each area of the machine, whether it has problems or not."""
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
    from taoprofiles.doctor.docker_probe import ABSENT

    engine, command = machine.docker.first, machine.docker.command
    if engine.trouble:
        return f"none at {engine.address}" + (f": {engine.problem}" if engine.trouble != ABSENT else "")
    shared = " (also used by the docker CLI)" if command.is_same(engine) else ""
    images = next((place for place in machine.home.places if place.what == "images"), None)
    free = f"; {images.free / 1e9:.0f} GB free for images" if images and images.size else ""
    kind = " (rootless)" if engine.is_rootless else ""
    return f"Docker {engine.version}{kind} at {engine.address}{shared}{free}"


def _gpus(machine: Machine) -> str:
    gpus = machine.gpus
    if not gpus.gpus:
        return "no response from an NVIDIA driver"
    names = [f"{count} x {name}" for name in dict.fromkeys(gpus.gpus) if (count := gpus.gpus.count(name))]
    return f"{', '.join(names)}, driver {gpus.driver}"


def _registry(context: Context, machine: Machine) -> str:
    login = machine.login
    path = context.short(login.path)
    if login.registries:
        return f"logged in to {' and '.join(login.registries)} ({path})"
    override = machine.home.variables.get("OVERRIDE_REGISTRY")
    return f"OVERRIDE_REGISTRY is '{override}'" if override is not None else f"not logged in to nvcr.io ({path})"


def _home(context: Context, machine: Machine) -> str:
    system = " (WSL)" if machine.home.system == "wsl" else ""
    path, state = context.short(machine.state.mapping_file), machine.state
    launcher_mounts = machine.home.variables.get("LAUNCHER_MOUNTS")
    if launcher_mounts is not None:
        mounts = f"'{launcher_mounts}' (LAUNCHER_MOUNTS)"
    elif state.situation == "none":
        mounts = f"{path}, which does not exist"
    else:
        mounts = f"{path}: '{state.profile}', {state.situation}" if state.profile else f"{path}: {state.situation}"
    return f"{machine.home.path}{system}; tao reads {mounts}"


def _state(context: Context, machine: Machine) -> str:
    number = machine.state.known
    folder = context.short(os.path.dirname(context.profiles))
    return f"{number} profile{'s' if number != 1 else ''} in {folder}, state in {context.short(context.state)}"


def _guard(machine: Machine) -> str:
    state = machine.state
    process = f"running, pid {state.guard_pid}, version {state.guard}" if state.guard else "not running"
    service = f"service {state.service}" if state.unit else "no service. To install it: taoprof service install"
    return f"{process}; {service}"
