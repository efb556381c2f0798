"""What ``taoprof`` shows without a command: the state, and commands for the next step."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from taoprofiles import current_cache
from taoprofiles.cli.output import Result, table
from taoprofiles.cli.status import get_report, progress_rows, status_rows, status_warnings
from taoprofiles.errors import UntrustedError
from taoprofiles.holds.hold import OWN_KINDS
from taoprofiles.profiles.project import default_profile
from taoprofiles.profiles.store import Store

if TYPE_CHECKING:
    from taoprofiles.cli.status import StatusReport
    from taoprofiles.storage.paths import Context

SHOWN_NAMES = 5


def overview(context: Context) -> Result:
    """Return the state in a few lines, and commands that go on from it. Raises InvalidStateError as ``status`` does."""
    report, names = get_report(context), Store(context).names()
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    rows = [*status_rows(context, report), ("profiles", ", ".join(names[:SHOWN_NAMES]) + more or "none yet")]
    lines = table([row for row in rows if row[0] not in ("mapping file", "similar to")])
    if running := progress_rows(report):
        lines += ["progress:", *table(running, indent="  ", fit=True)]
    commands: dict[str, str] = {}
    for command, what in _next_commands(context, report, names):
        commands.setdefault(command, what)  # two reasons may lead to the same command
    lines += ["", "next:", *table([*commands.items(), ("taoprof --help", "all commands")], indent="  ")]
    data = {
        "name": report.now.name,
        "state": report.now.state,
        "profiles": names,
        "runs": [hold.id for hold in report.active.holds if hold.kind in OWN_KINDS],
        "next": list(commands),
    }
    return Result(data, lines, messages=status_warnings(context, report))


def _next_commands(context: Context, report: StatusReport, names: list[str]) -> list[tuple[str, str]]:
    """Return commands for the next step, each with what it does; the most likely one is the first."""
    current = current_cache.own_profile(context) or report.now.name
    commands = _project_commands(context, current)
    if any(hold.kind == "run" for hold in report.active.holds):
        commands.append(("taoprof status --watch", "follow the runs"))
    if not names:
        return commands + _first_profile(context, report)
    if current is None or current not in names:
        return commands + _choose_profile(report, names)
    return commands + _use_profile(report, current, names)


def _project_commands(context: Context, current: str | None) -> list[tuple[str, str]]:
    try:
        project = default_profile(context)
    except UntrustedError:
        return [("taoprof trust", "see what the .taoprof.toml of this project sets, and decide")]
    if project in (None, current):
        return []
    return [(f"taoprof use {project}", "switch to the profile of the project in this folder")]


def _choose_profile(report: StatusReport, names: list[str]) -> list[tuple[str, str]]:
    now, commands = report.now, []
    if now.state == "unmanaged" and not (report.similar and not report.similar[1]):
        commands.append(("taoprof import --name NAME", "create a profile from what the file has now"))
    last = report.similar[0] if report.similar else now.last
    only = names[0] if len(names) == 1 else ""
    return [*commands, (f"taoprof use {last if last in names else only}".rstrip(), "switch the file to a profile")]


def _use_profile(report: StatusReport, current: str, names: list[str]) -> list[tuple[str, str]]:
    now, commands = report.now, []
    if now.state == "drifted" and current == now.name:
        if now.problem:
            return [(f"taoprof check {current}", "see what is wrong with the profile")]
        return [(f"taoprof use {current}", "apply the changes of the profile to the file")]
    if not any(hold.kind == "run" for hold in report.active.holds):
        commands.append((f"taoprof check {current}", "find mistakes before a container starts"))
    commands.append((f"taoprof run {current} -- COMMAND", "train with this profile's own mapping"))
    return commands + [("taoprof use", "choose another profile")] * (len(names) > 1)


def _first_profile(context: Context, report: StatusReport) -> list[tuple[str, str]]:
    """Return how to create the first profile: from what the file has, a notebook in the current folder, or nothing."""
    commands: list[tuple[str, str]] = []
    if report.now.state == "unmanaged":
        commands.append(("taoprof import --name NAME", "create a profile from what the file has now"))
    notebooks: list[str] = []
    with suppress(OSError):  # another user's folder
        notebooks = sorted(name for name in os.listdir(context.folder) if name.endswith(".ipynb"))
    if notebooks:
        from shlex import quote

        file = notebooks[0] if len(notebooks) == 1 else "."
        what = "create a profile from this notebook, which is not executed"
        commands.append((f"taoprof import {quote(file)}", what if file != "." else "the same for all notebooks here"))
    if not commands:
        commands.append(("taoprof import NOTEBOOK", "create a profile from a notebook, which is not executed"))
    return [*commands, ("taoprof new NETWORK", "create a profile for the project in this folder")]
