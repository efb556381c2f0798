"""check, doctor."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taoprofiles.cli import prompts
from taoprofiles.cli.output import Result, cut, print_progress, table
from taoprofiles.errors import InvalidProfileError, UsageError
from taoprofiles.masking import MASK, is_secret, mask_text
from taoprofiles.rules.finding import ERROR, WARNING, Finding, counts
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:  # loaded by the command that needs it
    from taoprofiles.check.report import Report
    from taoprofiles.doctor.doctor import Machine
    from taoprofiles.launcher.simulation import Call


def check_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.check.report import MOST_FINDINGS, check

    if args.name is not None and os.path.isfile(args.name) and not os.path.lexists(context.profile_file(args.name)):
        path = shlex.quote(args.name)
        hint = f"to check it as a mounts file: LAUNCHER_MOUNTS={path} taoprof check"
        raise UsageError(f"'{cut(args.name)}' is a file, not the name of a profile", hint=hint)
    options = {"launcher": args.launcher, "image": args.image, "gpus": args.gpus}
    report = check(context, args.name, args.command, **options)
    fixed: list[str] = []
    if args.fix:
        while applied := _fix(context, args, report, fixed):  # a new folder may need others in it
            fixed += applied
            report = check(context, args.name, args.command, **options)
    lines = _prediction_lines(context, report, is_launcher_given=args.launcher is not None, reveal=args.reveal)
    data = {**_prediction_data(report, reveal=args.reveal), "fixed": fixed}
    result = _with_findings(report.findings, data, lines, strict=args.strict)
    has_more = len(report.findings) == MOST_FINDINGS
    return result._replace(messages=[f"no more than {MOST_FINDINGS} problems are shown"] if has_more else [])


def _with_findings(findings: Sequence[Finding], data: dict[str, Any], lines: list[str], *, strict: bool) -> Result:
    """Return the result of a command that reports findings. A hint is never cut, so that it can be pasted."""
    number = counts(findings)
    data |= {"findings": [finding.as_dict() for finding in findings], "counts": number}
    lines += [line if line.startswith("  hint: ") else cut(line) for finding in findings for line in finding.lines()]
    severities = [severity for severity in (ERROR, WARNING) if number[severity]]
    totals = [f"{number[severity]} {severity}{'s' if number[severity] > 1 else ''}" for severity in severities]
    lines.append(", ".join(totals) or "no problems found")
    is_failure = number[ERROR] or (strict and number[WARNING])
    return Result(data, lines, status=InvalidProfileError.status if is_failure else 0)


def _fix(context: Context, args: argparse.Namespace, report: Report, applied: list[str]) -> list[str]:
    """Apply the fixes of a report that were not applied before, after asking once; return a line for each."""
    from taoprofiles.check import fix

    plan = fix.plan(context, report.findings, report.name, report.path, is_profile_given=args.name is not None)
    lines = [planned.command(report.name) for planned in plan]
    if all(line in applied for line in lines):
        return []
    is_agreed = args.yes or bool(applied)
    print_progress("fixing:" if is_agreed else "fixes:", *(f"  {line}" for line in lines))
    if not is_agreed:
        if not prompts.can_ask():
            raise UsageError("--fix asks a question, and there is no terminal", hint="--yes fixes without a question")
        if not prompts.confirm("Apply these fixes?"):
            print_progress("nothing was fixed")
            return []
    fix.apply(context, plan, report.name)
    changes_settings = any(planned.kind in ("set", "unset") for planned in plan)
    revert = " (to revert the settings: taoprof undo)" if changes_settings else ""
    print_progress(f"{len(plan)} {'fix' if len(plan) == 1 else 'fixes'} applied{revert}")
    return lines


def _prediction_lines(context: Context, report: Report, *, is_launcher_given: bool, reveal: bool) -> list[str]:
    """Describe the container that the launcher would start."""
    target = f"'{report.name}'" if report.name else context.short(report.path)
    used = _launcher_used(report, is_launcher_given=is_launcher_given)
    lines = [f"{target} with {used}:" if target else "docker run:"]
    prediction = report.prediction
    if prediction is None:
        return lines
    if report.refusal is not None:
        first = report.refusal.message.strip().split("\n")[0]
        return [*lines, f"  refused: {report.refusal.kind}: {first}"]
    if prediction.call is None:
        return [*lines, "  starts no container"]
    call = prediction.call
    if prediction.source_file is None and report.start is None:
        lines.append("  no mounts file is read")
    rows = [(context.short(source), "→", destination) for source, destination in _mounts(report, call)]
    lines += table(rows, indent="  ") if rows else ["  no mounts"]
    ports = [(inside, ", ".join(str(host["HostPort"]) for host in hosts)) for inside, hosts in call.ports.items()]
    options = {
        "env": " ".join(f"{name}={value}" for name, value in _environment(call, report, reveal=reveal).items()),
        "user": call.user or "root",
        "shared memory": _size(call.shm_size) if call.shm_size else "64 MB (default of Docker)",
        "limits": ", ".join(f"{name} {limit}" for name, limit in call.ulimits.items()),
        "ports": ", ".join(f"{inside} on {outside}" for inside, outside in ports),
        "network": str(call.network or ""),
        "privileged": "yes" if call.privileged else "",
        "GPUs": "" if report.start is None else _requested(report.start.gpus),
        "image": call.image,
    }
    lines += [f"  {key}: {value}" for key, value in options.items() if value]
    if report.dropped_in_ci:
        lines.append(f"  CI_PROJECT_DIR is set: the launcher ignores {' and '.join(report.dropped_in_ci)}")
    return lines


def _mounts(report: Report, call: Call) -> list[tuple[str, str]]:
    """Return source and destination of each mount that reaches Docker; the launcher keeps one of each source."""
    if report.start is None:
        return list(call.volumes.items())
    return [(mount.source, mount.destination) for mount in report.start.mounts]


def _requested(gpus: object) -> str:
    return "none" if gpus in (None, []) else ",".join(gpus) if isinstance(gpus, list) else str(gpus)


def _launcher_used(report: Report, *, is_launcher_given: bool) -> str:
    if report.start is not None:
        return "docker run"
    launcher, version = report.launcher, f"tao {report.version}"
    if launcher is None:
        return version if is_launcher_given else f"{version} (the newest version, because there is no tao on PATH)"
    if not launcher.version:
        return f"{version}, because the version of {launcher.path} is unknown: {launcher.problem}"
    return f"{version} ({launcher.path})"


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
    return {name: value if reveal else MASK if hidden else mask_text(value) for name, hidden, value in variables}


def _prediction_data(report: Report, *, reveal: bool) -> dict[str, Any]:
    prediction, launcher, refusal = report.prediction, report.launcher, report.refusal
    call = prediction.call if prediction and refusal is None else None
    container = None
    if call is not None:
        container = {
            **{key: value for key, value in call._asdict().items() if key not in ("volumes", "environment", "body")},
            "image": call.image or None,
            "mounts": [{"source": source, "destination": path} for source, path in _mounts(report, call)],
            "env": _environment(call, report, reveal=reveal),
            "gpus": "all" if report.start is None else report.start.gpus,
        }
    return {
        "name": report.name,
        "path": report.path,
        "launcher": {"version": report.version or None, "path": launcher.path if launcher else None},
        "reads": prediction.source_file if prediction and report.name is None else None,
        "refusal": refusal and {"kind": refusal.kind, "message": refusal.message, "where": str(refusal.location)},
        "container": container,
        "lost_in_ci": report.dropped_in_ci,
    }


def doctor_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.doctor import doctor

    machine = doctor.probe_machine(context)
    findings = doctor.evaluate(machine, context.environ)
    areas = {
        "launcher": _launcher(context, machine),
        "engine": _engine(machine),
        "GPUs": _gpus(machine),
        "registry": _registry(context, machine),
        **({"clusters": _clusters(machine)} if machine.clusters else {}),
        "home": _home(context, machine),
        "state": _state(context, machine),
        "guard": _guard(machine),
    }
    lines = [*table(list(areas.items())), ""]
    return _with_findings(findings, {"facts": doctor.to_plain_data(machine)}, lines, strict=args.strict)


def _launcher(context: Context, machine: Machine) -> str:
    if not machine.launchers.on_path:
        return "none on PATH"
    first = machine.launchers.on_path[0]
    if first.trouble:
        return f"{context.short(first.path)}: {first.problem}"
    name = "tao" if first.distribution == "nvidia-tao" else "tlt"
    release = ".".join(map(str, first.release))
    return f"{name} {first.version} at {context.short(first.path)}, Python {release}"


def _engine(machine: Machine) -> str:
    from taoprofiles.system.engine import ABSENT

    command = machine.docker.command
    engine = machine.docker.in_force or machine.docker.first
    if engine.trouble:
        return f"none at {engine.address}" + (f": {engine.problem}" if engine.trouble != ABSENT else "")
    shared = " (also used by the docker CLI)" if command.is_same(engine) else ""
    images = next((system for system in machine.home.file_systems if system.use == "images"), None)
    free = f"; {images.free / 1e9:.0f} GB free for images" if images and images.size else ""
    kind = " (rootless)" if engine.is_rootless else ""
    context = machine.docker.context
    why = f" (Docker context '{context}')" if context not in ("", "default") else ""
    where = " on another machine" if machine.docker.is_remote else ""
    return f"{engine.product} {engine.version}{kind}{where} at {engine.address}{why}{shared}{free}"


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


def _clusters(machine: Machine) -> str:
    states = []
    for cluster in machine.clusters:
        name = {"slurm": "Slurm", "kubernetes": "Kubernetes"}[cluster.kind]
        problem = "no " + ", ".join(cluster.missing) if cluster.missing else cluster.problem
        states.append(f"{name} {cluster.place}".rstrip() + f": {problem or 'answers'}")
    return "; ".join(states)


def _home(context: Context, machine: Machine) -> str:
    system = " (WSL)" if machine.home.system == "wsl" else ""
    path, state = context.short(machine.state.mapping_file), machine.state
    launcher_mounts = machine.home.variables.get("LAUNCHER_MOUNTS")
    profile = f"'{state.profile}', " if state.profile else ""
    mounts = f"{path}: {profile}{state.mapping_state}"
    if launcher_mounts is not None:
        mounts = f"'{launcher_mounts}' (LAUNCHER_MOUNTS)"
    elif state.mapping_state == "none":
        mounts = f"{path}, which does not exist"
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
