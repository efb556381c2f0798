"""The status of the mapping file: which profile is active, and whether the file is what that profile renders."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from taoprofiles import current_cache
from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.launcher.behaviour import find_mounts_file
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import lock_if_free

if TYPE_CHECKING:
    from taoprofiles.profiles.store import Source
    from taoprofiles.storage.journal import Entry
    from taoprofiles.storage.paths import Context


COMPARED = 100
"""Profiles that an unmanaged mapping is compared with, which takes a tenth of a second at most."""


class Status:
    """The status; ``state`` is one of the following.

    - active: the mapping file is what the profile ``name`` renders now
    - drifted: it is what ``name`` rendered once, but the profile renders something else now, or nothing (``problem``)
    - unmanaged: another program wrote it; ``name`` is None, ``last`` the profile that was active before
    - none: there is no mapping file
    """

    def __init__(self, content: bytes | None, entry: Entry | None) -> None:
        self.content, self.entry = content, entry  # of the file, and the history entry that describes it
        self.name = entry.profile if entry else None
        self.last: str | None = None
        self.state = "none" if content is None else "unmanaged"
        self.wanted: bytes | None = None  # what the profile renders now
        self.problem = ""
        self.source: Source | None = None  # the profile's texts, if the status depends on nothing but them and the file
        self.project_file: str | None = None  # of which the profile is a trusted copy, or which it extends


def get_status(context: Context) -> Status:
    """Return the status. Writes nothing and needs no lock. Raises InvalidStateError if files are unreadable."""
    history, content = History(context), files.read_mapping_file(context)
    for _ in range(10):  # after a switch between the two readings they do not match, and are read again
        status = Status(content, history.current_entry(content))
        content = files.read_mapping_file(context)
        if content == status.content:
            break
    if status.name is None:
        status.last = find_previous(context, status.content, None)
        return status
    store = Store(context)
    try:
        source = store.source(status.name)
        renderer = store.renderer(status.name, source)
        status.wanted = mapping.to_bytes(renderer.mapping())
        status.source = None if renderer.depends_on_environment else source
        status.project_file = renderer.project_file
    except TaoprofError as error:
        status.problem = "; ".join(error.problems) or error.message
    rendered = status.wanted is not None and mapping.same(status.content, status.wanted)
    status.state = "active" if rendered else "drifted"
    return status


def write_current_cache(context: Context, status: Status) -> None:
    """Write the cached answer of ``current``, if the status depends only on the two files; errors are ignored."""
    if status.source is None and status.state != current_cache.UNMANAGED:
        return
    if not os.path.isdir(context.state):
        return  # after 'uninstall' the prompt of an open shell would create it again
    with lock_if_free(context.lock) as has_lock, suppress(TaoprofError):
        if not has_lock:
            return
        status = get_status(context)  # again: there may have been a switch before we had the lock
        if status.content is None:
            return
        if status.state == current_cache.UNMANAGED:
            current_cache.write(context, status.state, "", [], mapping=status.content)
        elif status.source is not None and status.name is not None:
            texts, project = status.source.files(), status.project_file
            current_cache.write(context, status.state, status.name, texts, project_file=project, mapping=status.content)


def find_previous(context: Context, content: bytes | None, current: str | None) -> str | None:
    """Return the profile that was active before ``current`` and still exists; ``use -`` goes back to it."""
    skipped: set[str | None] = {None, current}
    for entry in History(context).mappings(content):
        if entry.profile is not None and entry.profile not in skipped:
            if os.path.lexists(context.profile_file(entry.profile)):
                return entry.profile
            skipped.add(entry.profile)
    return None


def find_similar_profile(context: Context, content: bytes, last: str | None) -> tuple[str, int] | None:
    """Return the profile whose mapping is most similar to ``content``, and the number of differences.

    None if none has a mount in common with it. Of several the profile ``last`` is preferred, else the first; of very
    many profiles only the first COMPARED are read.
    """
    try:
        current = mapping.parse(content, "")
    except InvalidStateError:
        return None
    count_differences, mounts, best = mapping.difference_counter(current), mapping.mounted(content), None
    names = Store(context).names()[:COMPARED]
    for name in dict.fromkeys([last, *names] if last is not None else names):
        try:
            rendered = Store(context).renderer(name).mapping()
        except TaoprofError:
            continue
        differences = count_differences(rendered)
        in_common = mapping.mounted(rendered).items() & mounts.items()
        if (not differences or in_common) and (best is None or differences < best[1]):
            best = name, differences
    return best


def get_warnings(context: Context, *, secrets: list[str]) -> list[str]:
    """Return warnings if tao reads another file here, or others may read the ``secrets`` (variables) in the file."""
    path = context.short(context.mapping_file)
    warnings = []
    other_file = context.environ.get("LAUNCHER_MOUNTS")
    read_file = find_mounts_file({**context.environ, "HOME": context.home}, context.folder)
    if other_file is not None and read_file != context.mapping_file and not current_cache.own_profile(context):
        warnings.append(
            f"warning: LAUNCHER_MOUNTS is '{other_file}' in this shell, so tao reads that and not {path}: "
            "unset LAUNCHER_MOUNTS"
        )
    if secrets and files.readable_by_others(context.mapping_file):
        warnings.append(f"warning: {path} holds {', '.join(secrets)}, and is readable by other users: chmod 600 {path}")
    return warnings
