"""check."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from taoprofiles.check import check, fix
from taoprofiles.cli import findings
from taoprofiles.cli.arguments import add_profile, add_reveal, add_timeout
from taoprofiles.cli.output import note, table
from taoprofiles.cli.result import Result
from taoprofiles.errors import UsageError
from taoprofiles.masking import MASK, is_secret, within

if TYPE_CHECKING:
    import argparse

    from taoprofiles.check.check import Report
    from taoprofiles.launcher.prediction import Call
    from taoprofiles.storage.paths import Context


def check_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, optional=True, help="the profile; default: what tao would read now")
    parser.add_argument("--launcher", metavar="VERSION", help="that launcher's ways; default: the tao on PATH")
    findings.add_strict(parser)
    parser.add_argument("--fix", action="store_true", help="mend what needs no choice, after showing it")
    parser.add_argument("--yes", action="store_true", help="do not ask before --fix")
    add_reveal(parser)
    add_timeout(parser)


def check_verb(context: Context, args: argparse.Namespace) -> Result:
    report = check.check(context, args.name, args.command, launcher=args.launcher)
    fixed: list[str] = []
    if args.fix:
        while step := _mended(context, args, report, fixed):  # what is mended may show more: a user needs a home
            fixed += step
            report = check.check(context, args.name, args.command, launcher=args.launcher)
    lines = _prediction_lines(context, report, named=args.launcher is not None, reveal=args.reveal) + findings.lines(
        report.findings
    )
    status = findings.status(report.findings, strict=args.strict)
    return Result(_data(report, fixed, reveal=args.reveal), lines, status=status)


def _mended(context: Context, args: argparse.Namespace, report: Report, before: list[str]) -> list[str]:
    plan = fix.plan(context, report.findings, report.name, report.path, by_name=args.name is not None)
    if all(step.line(report.name) in before for step in plan):
        return []
    note("taoprof: this would be mended:")
    for step in plan:
        note(f"  {step.line(report.name)}")
    if not args.yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError("--fix asks first, and there is no terminal", hint="--yes mends without asking")
        note("mend it? [y/N] ", end="")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            note("taoprof: nothing more was mended" if before else "taoprof: nothing was mended")
            return []
    fix.carry_out(context, plan, report.name, timeout=args.timeout)
    return [step.line(report.name) for step in plan]


def _prediction_lines(context: Context, report: Report, *, named: bool, reveal: bool) -> list[str]:
    what = f"'{report.name}'" if report.name else context.short(report.path)
    found = report.launcher
    by = f"tao {report.version} ({found.path})" if found and found.version else f"tao {report.version}"
    if found is None and not named:
        by += ", the newest, since none is on PATH"
    if found is not None and not found.version:
        by += f", since that of {found.path} is not known: {found.problem}"
    lines = [f"{what} with {by}:"]
    prediction = report.prediction
    if prediction is None:
        return lines
    if prediction.refusal is not None:
        first = prediction.refusal.message.strip().split("\n")[0]
        return [*lines, f"  refused: {prediction.refusal.kind}: {first}"]
    if prediction.call is None:
        return [*lines, "  no container is asked for"]
    call = prediction.call
    if prediction.source_file is None:
        lines.append("  no mounts file is read")
    rows = [(context.short(source), "→", place) for source, place in call.volumes.items()]
    lines += table(rows, indent="  ") if rows else ["  no mounts"]
    shown = _environment(call, report, reveal=reveal)
    lines += [f"  {key}: {value}" for key, value in _options(call, shown) if value]
    if report.lost:
        lines.append(f"  under CI_PROJECT_DIR it would lose: {', '.join(report.lost)}")
    return lines


def _options(call: Call, environment: dict[str, str]) -> list[tuple[str, str]]:
    ports = [f"{inside} on {', '.join(str(one['HostPort']) for one in on)}" for inside, on in call.ports.items()]
    return [
        ("env", " ".join(f"{name}={value}" for name, value in environment.items())),
        ("user", call.user or "root"),
        ("shared memory", _size(call.shm_size) if call.shm_size else "64 MB, Docker's own"),
        ("limits", ", ".join(f"{name} {limit}" for name, limit in call.ulimits.items())),
        ("ports", ", ".join(ports)),
        ("network", str(call.network or "")),
        ("privileged", "yes" if call.privileged else ""),
        ("image", call.image),
    ]


def _size(given: object) -> str:
    if not isinstance(given, int):
        return str(given)
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB")):
        if given >= unit:
            return f"{given / unit:g} {name}"
    return f"{given} bytes"


def _environment(call: Call, report: Report, *, reveal: bool) -> dict[str, str]:
    pairs = (line.partition("=") for line in call.environment)
    shown = ((name, name in report.secrets or is_secret(name), value) for name, _, value in pairs)
    return {name: value if reveal else MASK if hidden else within(value) for name, hidden, value in shown}


def _data(report: Report, fixed: list[str], *, reveal: bool) -> dict[str, Any]:
    prediction, found = report.prediction, report.launcher
    call = prediction.call if prediction else None
    refusal = prediction.refusal if prediction else None
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
        "launcher": {"version": report.version, "path": found.path if found else None},
        "reads": prediction.source_file if prediction and report.name is None else None,
        "refusal": refusal and {"kind": refusal.kind, "message": refusal.message, "where": str(refusal.place)},
        "container": container,
        "lost_in_ci": report.lost,
        **findings.data(report.findings),
        "fixed": fixed,
    }
