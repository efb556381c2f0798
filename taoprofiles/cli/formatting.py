"""How times, holds, runs, profiles and findings are shown as text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taoprofiles.cli.output import cut, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from taoprofiles.holds.hold import Hold
    from taoprofiles.rules.finding import Finding
    from taoprofiles.storage.paths import Context


def format_time(seconds: float) -> str:
    """Return seconds since 1970 as date and time in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def hold_table(holds: Sequence[Hold]) -> list[str]:
    """Return holds and runs as the lines of a table, without lines if there are none."""
    from taoprofiles.holds.hold import format_age

    rows = [("HOLD", "PROFILE", "KIND", "PHASE", "AGE", "PID", "CONTAINER", "FILE", "WHAT")]
    for hold in holds:
        file = "own" if not hold.shared else "released" if hold.released else "shared"
        container, pid = hold.container[:6] if hold.container else "-", str(hold.pid or "-")
        since = format_age(time.time() - hold.since)
        phase = "-" if hold.kind == "manual" else hold.phase
        rows.append((hold.id, hold.profile or "-", hold.kind, phase, since, pid, container, file, hold.title()))
    return table(rows) if holds else []


def exit_status(hold: Hold) -> str:
    """Return the exit status of a run that has ended."""
    return f"exit status {'unknown' if hold.status is None else hold.status}"


def profile_lines(context: Context, title: str, summary: dict[str, Any]) -> list[str]:
    """Return the summary of a profile (``Renderer.summary``) as lines."""
    import json

    lines = [f"profile {title}"]
    lines += [summary["description"]] if summary["description"] else []
    lines.append(f"layout: {summary['layout']}")
    sections: tuple[tuple[str, list[tuple[str, ...]]], ...] = (
        ("variables", [(key, context.short(value)) for key, value in summary["variables"].items()]),
        (
            "mounts",
            [
                (context.short(mount["source"]), "→", mount["destination"], "" if mount["exists"] else "(missing)")
                for mount in summary["mounts"]
            ],
        ),
        ("container env", list(summary["env"].items())),
        (
            "docker",
            [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in summary["docker"].items()],
        ),
    )
    for heading, rows in sections:
        if rows:
            lines += [f"{heading}:", *table(rows, indent="  ")]
    return lines


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Return findings as lines, and their number in the last one. A hint is never cut, so that it can be pasted."""
    from taoprofiles.rules.finding import ERROR, WARNING, counts

    lines = [line if line.startswith("  hint: ") else cut(line) for finding in findings for line in finding.lines()]
    number = counts(findings)
    summary = [
        f"{number[severity]} {severity}{'s' if number[severity] > 1 else ''}"
        for severity in (ERROR, WARNING)
        if number[severity]
    ]
    return [*lines, ", ".join(summary) or "no problems found"]


def finding_data(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as plain data."""
    from taoprofiles.rules.finding import counts

    return {"findings": [finding.as_dict() for finding in findings], "counts": counts(findings)}


def finding_status(findings: Sequence[Finding], *, strict: bool) -> int:
    """Return the exit status of a command that reports findings."""
    from taoprofiles.errors import InvalidProfileError
    from taoprofiles.rules.finding import ERROR, WARNING, counts

    number = counts(findings)
    return InvalidProfileError.status if number[ERROR] or (strict and number[WARNING]) else 0
