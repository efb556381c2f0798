"""Translation between host paths and container paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.errors import NotFoundError
from taoprofiles.launcher.mounts import find_mounts_file
from taoprofiles.mounts import mapping, paths
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.files import MAPPING_LIMIT, link_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taoprofiles.storage.paths import Context

HOST, CONTAINER = "host", "container"
SHOWN = 10
"""Mounts that a hint lists."""


class Translation(NamedTuple):
    """``path`` was taken for one of ``meant`` (host or container) and is ``answer`` on the other side.

    ``also`` are further places of a host path in the container; ``otherwise`` is what the path would be on the other
    side if it were meant the other way round, "" where it cannot be; ``note`` is worth telling.
    """

    path: str
    meant: str
    answer: str
    also: list[str]
    otherwise: str
    note: str


def mounts(context: Context, name: str | None) -> dict[str, str]:
    """Give destination by source: of a profile, else of the file that a ``tao`` started here would read.

    Raises NotFoundError, InvalidProfileError, InvalidStateError.
    """
    if name is not None:
        return mapping.mounted(Store(context).renderer(name).mapping())
    path = find_mounts_file({**context.environ, "HOME": context.home}, context.folder)
    content = files.read(path, MAPPING_LIMIT)
    if content is None:
        raise NotFoundError(f"there is no mapping file ('{path}')", hint="'taoprof path PATH NAME' asks a profile")
    mapping.parse(content, path)
    return mapping.mounts(content)


def translate(context: Context, path: str, name: str | None) -> Translation:
    """Translate a path, whichever side it is of; a relative one, and one with ``~``, is of this host.

    Where it may be of both, it is taken for the one that is there, and for this host's if both are.
    Raises NotFoundError where no mount has it, and what ``mounts`` raises.
    """
    pairs = mounts(context, name)
    expanded = context.expand_user(path)
    is_absolute = path.startswith("/")
    whole = os.path.normpath(expanded if os.path.isabs(expanded) else os.path.join(context.folder, expanded))
    whole = "/" + whole.lstrip("/")
    inside = paths.container_paths(whole, pairs)
    outside = _outside(whole, pairs) if is_absolute else ""
    if inside and (not outside or os.path.exists(whole) or not os.path.exists(outside)):
        note = _both(whole, inside[0], outside) if outside else ""
        if not note and len(inside) > 1:
            note = f"also as {', '.join(inside[1:])}"
        return Translation(whole, HOST, inside[0], inside[1:], outside, note)
    if outside:
        note = _both(whole, outside, inside[0]) if inside else _namesake(whole, outside)
        return Translation(whole, CONTAINER, outside, [], inside[0] if inside else "", note)
    raise _nowhere(whole, pairs)


def _outside(place: str, pairs: Mapping[str, str]) -> str:
    """Give the host file behind a container path, "" for none; as the path names it, where its links lead there too."""
    lexical = next(iter(paths.host_paths([place], pairs)), "")
    _, followed = paths.follow_links(place, pairs, link_target) if lexical else ("", "")
    return lexical if followed and os.path.realpath(lexical) == os.path.realpath(followed) else followed


def _both(path: str, answer: str, otherwise: str) -> str:
    if answer == otherwise:
        return ""
    return f"'{path}' is also a path of the other side, and would be '{otherwise}' then"


def _namesake(path: str, outside: str) -> str:
    if os.path.exists(path) and os.path.realpath(path) != os.path.realpath(outside):
        return f"this host has a '{path}' too, which the container does not see"
    return ""


def _nowhere(path: str, pairs: Mapping[str, str]) -> NotFoundError:
    place, _ = paths.follow_links(path, pairs, link_target)
    real = os.path.realpath(path)
    if paths.host_paths([path], pairs):
        what = f"'{path}' is a link to '{place}' in the container, and no mount has that"
    elif paths.is_mounted(real, pairs):
        what = f"'{path}' cannot be seen in the container: another mount lies over its place there"
    elif real != path and paths.is_mounted(path, pairs):
        what = f"'{path}' is a link to '{real}', which no mount has"
    else:
        what = f"no mount has '{path}'"
    listed = [f"{source} → {place}" for source, place in pairs.items()]
    more = f"; and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    hint = f"the mounts are {'; '.join(listed[:SHOWN])}{more}" if listed else "nothing is mounted"
    return NotFoundError(what, hint=hint)
