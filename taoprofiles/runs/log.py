"""What ran here: the runs of now and of the past, and which of them wrote a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.holds.hold import OWN_KINDS
from taoprofiles.holds.manage import active_holds
from taoprofiles.holds.records import HoldRecords
from taoprofiles.storage.paths import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taoprofiles.holds.hold import Hold
    from taoprofiles.storage.paths import Context


def all_runs(context: Context) -> Iterator[Hold]:
    """Give every run, those of now first, then the newest first."""
    yield from (hold for hold in reversed(active_holds(context).holds) if hold.kind in OWN_KINDS)
    yield from HoldRecords(context).ended_runs()


def runs_writing(context: Context, path: str) -> list[Hold]:
    """Give the runs that may have written ``path``, the newest first: those that wrote into such a results folder.

    Where no run named one, those that had the folder mounted.
    """
    real = os.path.realpath(os.path.expanduser(path))
    known = list(all_runs(context))
    writers = [hold for hold in known if any(is_inside(real, os.path.realpath(folder)) for folder in hold.results)]
    return writers or [
        hold for hold in known if any(is_inside(real, os.path.realpath(source)) for source, _ in hold.mounts)
    ]
