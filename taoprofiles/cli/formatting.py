"""How holds, runs and times look to people; several verbs show them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taoprofiles.cli.output import table
from taoprofiles.holds.hold import format_age

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.holds.hold import Hold
    from taoprofiles.storage.paths import Context


def when(seconds: float) -> str:
    """Write a time as people read it, in their own time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def hold_table(holds: list[Hold]) -> list[str]:
    """Lay out holds and runs as a table; nothing for none."""
    rows = [("HOLD", "PROFILE", "KIND", "PHASE", "AGE", "PID", "CONTAINER", "FILE", "WHAT")]
    for hold in holds:
        file = "own" if not hold.shared else "released" if hold.released else "shared"
        container, pid = hold.container[:6] if hold.container else "-", str(hold.pid or "-")
        since = format_age(time.time() - hold.since)
        phase = "-" if hold.kind == "manual" else hold.phase
        rows.append((hold.id, hold.profile or "-", hold.kind, phase, since, pid, container, file, hold.title()))
    return table(rows) if holds else []


def exit_status(hold: Hold) -> str:
    """Write what a run exited with."""
    return "unknown" if hold.status is None else str(hold.status)


def outcome(run: Hold) -> str:
    """Say whether a run is still alive, or how it ended."""
    return "runs" if run.ended is None else f"exit status {exit_status(run)}"


def portrait_lines(context: Context, title: str, seen: dict[str, Any]) -> list[str]:
    """Lay out what a profile comes to (``operations.portrait``), for people."""
    import json

    mounts = seen["mounts"]
    lines = [f"profile {title}", *([seen["description"]] if seen["description"] else []), f"layout: {seen['layout']}"]
    for heading, rows in (
        ("variables", [(key, context.short(value)) for key, value in seen["variables"].items()]),
        (
            "mounts",
            [(context.short(m["source"]), "→", m["destination"], "" if m["exists"] else "(not there)") for m in mounts],
        ),
        ("container env", list(seen["env"].items())),
        (
            "docker",
            [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in seen["docker"].items()],
        ),
    ):
        if rows:
            lines += [f"{heading}:", *table(rows, indent="  ")]
    return lines
