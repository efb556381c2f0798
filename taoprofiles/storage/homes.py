"""Homes that may be away for a while, moved or unmounted, also in the middle of a look: a guard's.

Nothing is made at their place meanwhile. What is written into the empty folder that an unmounted home leaves is hidden
as soon as the home is back, and a home made anew is in the way of the one that is moved back.
"""

from __future__ import annotations

import errno
import os

KNOWN: dict[str, os.stat_result] = {}
"""By their paths; which folder it is that has that name while the home is there."""


def around(path: str) -> str | None:
    """Give the one of these homes that ``path`` lies in."""
    return next((home for home in KNOWN if path.startswith(home + "/")), None)


def check(home: str, place: int | str) -> None:
    """Raise FileNotFoundError where ``place``, a path or a descriptor, is not that home but what is left in its place.

    Nothing happens for a folder that is none of these homes.
    """
    known = KNOWN.get(home)
    if known is not None and not os.path.samestat(known, os.stat(place)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), home)
