"""The log of runs, active and ended."""

from __future__ import annotations

import os
from collections.abc import Iterator

from taoprofiles.errors import NotFoundError
from taoprofiles.holds.hold import OWN_KINDS, Hold
from taoprofiles.holds.manage import active_holds
from taoprofiles.holds.records import HoldRecords
from taoprofiles.launcher.argv import parse_launcher_argv
from taoprofiles.storage.paths import Context, is_inside


def all_runs(context: Context) -> Iterator[Hold]:
    """Yield every run: the active ones first, then the ended ones, the newest first."""
    yield from (hold for hold in reversed(active_holds(context).holds) if hold.kind in OWN_KINDS)
    yield from HoldRecords(context).ended_runs()


def runs_writing(context: Context, path: str) -> list[Hold]:
    """Return the runs that wrote to ``path``, the newest first: those with a results folder around or inside it.

    A launcher that failed without a container wrote nothing. Raises NotFoundError if there is no such path, nor a run
    that wrote it.
    """
    real = os.path.realpath(os.path.expanduser(path))
    runs = [run for run in all_runs(context) if _may_have_written(run) and _writes_to(run, real)]
    if not runs and not os.path.lexists(real):
        raise NotFoundError(f"no such file or folder: '{real}'")
    return runs


def _writes_to(run: Hold, real: str) -> bool:
    folders = [os.path.realpath(folder) for folder in run.results]
    return any(is_inside(real, folder) or is_inside(folder, real) for folder in folders)


def _may_have_written(run: Hold) -> bool:
    return run.ended is None or bool(run.container) or run.status == 0 or parse_launcher_argv(run.command) is None
