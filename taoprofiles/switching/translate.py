"""Translation between host paths and container paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles import current_cache
from taoprofiles.errors import NotFoundError, UsageError
from taoprofiles.launcher.host import find_mounts_file
from taoprofiles.launcher.quoting import VARIABLE, expand_variables
from taoprofiles.masking import is_secret
from taoprofiles.mounts import mapping, paths
from taoprofiles.mounts.paths import explain
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.files import MAPPING_LIMIT, link_target
from taoprofiles.switching.status import get_status
from taoprofiles.system.filesystem import answers, no_answer, unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taoprofiles.storage.paths import Context


class Translation(NamedTuple):
    """``path`` was taken for one of ``meant`` (host or container) and is ``answer`` on the other side.

    ``also`` are further places of a host path in the container; ``otherwise`` is what the path would be on the other
    side if it were meant the other way round, "" if it cannot be; ``note`` is a remark for the user, or "".
    """

    path: str
    meant: str
    answer: str
    also: list[str]
    otherwise: str
    note: str


def _mounts(context: Context, name: str | None) -> dict[str, str]:
    """Return destination by source of a profile, else of the file that a ``tao`` started here would read."""
    if name is not None:
        return mapping.mounted(Store(context).renderer(name).mapping())
    path = find_mounts_file({**context.environ, "HOME": context.home}, context.folder)
    content = files.read(path, MAPPING_LIMIT)
    if content is None:
        raise NotFoundError(f"there is no mapping file ('{path}')", hint="'taoprof path PATH NAME' asks a profile")
    return mapping.mounted(mapping.parse(content, path))


def translate(context: Context, path: str, name: str | None) -> Translation:
    """Translate a path, whichever side it is of; a relative one, and one with ``~``, is of this host.

    Where it may be of both, it is taken for the one that is there, and for this host's if both are.
    Variables of the profile and of the environment are expanded, except secrets.
    Raises UsageError for one that is not set, NotFoundError if no mount has it, InvalidProfileError, InvalidStateError.
    """
    mounts = _mounts(context, name)
    path = _expand(context, path, name)
    whole = "/" + os.path.normpath(context.absolute(path)).lstrip("/")
    outside = next(iter(paths.host_paths([whole], mounts)), "") if path.startswith("/") else ""
    exists = answers(os.path.exists, [whole, outside])
    silent = next((asked for asked in (whole, outside) if asked not in exists), "")
    inside = paths.container_paths(whole, mounts)
    if outside and not silent:
        followed = paths.follow_links(whole, mounts, link_target)[1]
        # As the path names it, where its links lead there.
        is_same = bool(followed) and os.path.realpath(outside) == os.path.realpath(followed)
        outside = outside if is_same else followed
        exists[outside] = os.path.exists(outside)
    is_host = bool(inside) and (not outside or exists.get(whole, False) or not exists.get(outside, True))
    if not inside and not outside:
        raise _not_mounted(whole, mounts)
    note, other = "", outside if is_host else "".join(inside[:1])
    if inside and outside and inside[0] != outside:
        note = f"read as a host path; as a container path, '{whole}' would be '{other}' on this host"
        if not is_host:
            note = f"read as a container path; as a host path, '{whole}' would be '{other}' in the container"
    elif is_host and inside[1:]:
        note = f"also visible as {', '.join(inside[1:])}"
    elif not inside and not silent and exists[whole] and os.path.realpath(whole) != os.path.realpath(outside):
        note = f"'{whole}' also exists on this host, but it is not mounted"
    if silent:
        note = f"{no_answer(silent)}; links are not followed" + (f"; {note}" if note else "")
    if is_host:
        return Translation(whole, "host", inside[0], inside[1:], other, note)
    return Translation(whole, "container", outside, [], other, note)


def _expand(context: Context, path: str, name: str | None) -> str:
    """Return ``path`` with the values of the variables of the profile, by default the active one, and of the shell."""
    whole = context.absolute(path)
    if "$" not in path or answers(os.path.lexists, [whole]).get(whole):
        return path
    variables = {key: value for key, value in context.environ.items() if not is_secret(key, value)}
    name = name or current_cache.own_profile(context) or get_status(context).name
    if name is not None:
        renderer = Store(context).renderer(name)
        secrets = renderer.secrets()[0]
        variables |= {key: value for key, value in renderer.variables().items() if key not in secrets}
    expanded = expand_variables(path, variables)
    if VARIABLE.search(expanded):
        hint = f"'taoprof show {name}' lists the variables" if name else "taoprof path PATH NAME"
        raise UsageError(f"'{expanded}' refers to a variable that is not set, or that is a secret", hint=hint)
    return expanded


def _not_mounted(path: str, mounts: Mapping[str, str]) -> NotFoundError:
    if unanswered([path]):
        return NotFoundError(f"'{path}' is in no mount; {no_answer(path)}")
    resolver = paths.PathResolver(mounts)
    resolution, real = resolver.resolve(path), os.path.realpath(path)
    if resolution.kind == "image" and resolution.container != path:
        resolution = resolution._replace(kind="link-out")
    what, _, hint = explain(resolver, resolution)
    if paths.is_mounted(path, mounts) and resolution.kind != "covered":
        what = f"'{path}' is a link to '{real}', which is in no mount"
    return NotFoundError(what, hint=hint)
