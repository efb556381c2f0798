"""list."""

from __future__ import annotations

import argparse
from itertools import islice

from taoprofiles import current_cache
from taoprofiles.cli.output import Result, cut, format_time, table
from taoprofiles.holds.records import HoldRecords
from taoprofiles.profiles.store import Store, Summary
from taoprofiles.storage.locks import lock_if_free
from taoprofiles.storage.paths import Context

RUNS_READ = 200
"""The newest runs, which count for LAST USED."""


def list_command(context: Context, args: argparse.Namespace) -> Result:
    known: tuple[str, str | None] | None = current_cache.read(context)
    messages = []
    if known is None or known[0] == current_cache.UNMANAGED:  # it takes the file's digest, for which OpenSSL is loaded
        from taoprofiles.cli.status import explain_unmanaged
        from taoprofiles.switching.status import get_status

        now = get_status(context)
        known = now.state, now.name
        messages += [explain_unmanaged(context, now)] if now.state == "unmanaged" else []
    state, active = known
    rows: list[tuple[str, ...]] = [("", "NAME", "LAYOUT", "EXTENDS", "PROJECT", "LAST USED", "DESCRIPTION")]
    profiles, summaries = [], _summaries(context)
    for summary in summaries:
        mark = ("*" if state == "active" else "~") if summary.name == active else ""
        used = "-" if summary.used is None else format_time(summary.used)
        if summary.problem:
            rows.append(
                (mark or "!", summary.name, "", summary.extends or "", "", used, f"not valid: {cut(summary.problem)}")
            )
        else:
            project = context.short(summary.project_dir or "-")
            layout = f"{summary.layout}, project" if summary.project_file else summary.layout or ""
            columns = (layout, summary.extends or "-", project, used, summary.description)
            rows.append((mark, summary.name, *columns))
        data = {
            "name": summary.name,
            "active": summary.name == active,
            "valid": not summary.problem,
            "description": summary.description,
            "layout": summary.layout,
            "project_dir": summary.project_dir and context.expand_user(summary.project_dir),
            "extends": summary.extends,
            "project_file": summary.project_file,
            "path": summary.path,
            "last_used": summary.used,
            "problem": summary.problem or None,
        }
        profiles.append(data)
    messages += [
        f"warning: '{name}' is not a profile: a name consists of ASCII letters (a-z, A-Z), digits, '.', '_' and '-'"
        for name in Store(context).misnamed()
    ]
    if not any(summary.extends for summary in summaries):
        rows = [row[:3] + row[4:] for row in rows]
    lines = table(rows, fit=True) if profiles else ["there are no profiles yet. To create one: taoprof new NAME"]
    return Result({"state": state, "profiles": profiles}, lines, messages=messages)


def _last_runs(context: Context) -> dict[str, float]:
    """Return when each profile last had a run, a shell or a notebook."""
    records = HoldRecords(context)
    runs = [*islice(records.ended_runs(), RUNS_READ), *records.all({})]
    return {run.profile: run.since for run in sorted(runs, key=lambda run: run.since) if run.profile}


def _summaries(context: Context) -> list[Summary]:
    with lock_if_free(context.lock) as has_lock:
        summaries = Store(context).summaries(may_write=has_lock)
    runs = _last_runs(context)
    return [summary._replace(used=max(summary.used or 0, runs.get(summary.name, 0)) or None) for summary in summaries]
