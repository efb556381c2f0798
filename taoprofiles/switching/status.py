"""What is the case: which profile is active, and whether the mapping file is what that profile renders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles import prompt
from taoprofiles.errors import InvalidStateError, TaoprofError
from taoprofiles.launcher.mounts import find_mounts_file
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import Lock

if TYPE_CHECKING:
    from taoprofiles.storage.journal import Entry
    from taoprofiles.storage.paths import Context


COMPARED = 100
"""Profiles that an unmanaged mapping is compared with: a tenth of a second at the most."""


class Situation:
    """What was found; ``state`` is one of the following.

    - active: the mapping file is what the profile ``name`` renders now
    - drifted: it is what ``name`` made of it, but the profile renders something else now, or nothing (``problem``)
    - unmanaged: another program wrote it; ``name`` is None, ``last`` the profile that was active before
    - none: there is no mapping file

    ``content`` is what the file holds, ``entry`` the history entry that made it so.
    """

    __slots__ = ("content", "entry", "last", "name", "noted", "problem", "state", "wanted")

    def __init__(self, content: bytes | None, entry: Entry | None) -> None:
        self.content, self.entry = content, entry
        self.name = entry.profile if entry else None
        self.last: str | None = None
        self.state = "none" if content is None else "unmanaged"
        self.wanted: bytes | None = None
        self.problem = ""
        self.noted: bytes | None = None


def look(context: Context) -> Situation:
    """Work out the situation. Writes nothing and needs no lock. Raises InvalidStateError where files are unreadable."""
    found = _stable(context)
    content = found.content
    if found.name is None:
        found.last = previous(context, content, None)
        return found
    store = Store(context)
    try:
        text = store.text(found.name)
        renderer = store.renderer(found.name, text)
        found.wanted = mapping.to_bytes(renderer.mapping())
        found.noted = None if renderer.asks_environment else text
    except TaoprofError as error:
        found.problem = "; ".join(error.problems) or error.message
    found.state = "active" if found.wanted is not None and mapping.same(content, found.wanted) else "drifted"
    return found


def write_note(context: Context, status: Situation) -> None:
    """Write the note for the prompt, if the status depends on nothing but the two files; errors are ignored."""
    lock = Lock(context.lock)
    try:
        if status.noted is None or not lock.try_acquire():
            return
        status = look(context)  # again: there may have been a switch before we had the lock
        if status.noted is not None and status.name is not None and status.content is not None:
            prompt.write(context, status.state, status.name, profile=status.noted, mapping=status.content)
    except TaoprofError:
        pass
    finally:
        lock.release()


def _stable(context: Context) -> Situation:
    """Read the file, then the history; where a switch came in between, the two do not fit, and are read again."""
    history = History(context)
    content = files.read_mapping_file(context)
    for _ in range(10):
        found = Situation(content, history.in_force(content))
        again = files.read_mapping_file(context)
        if again == content:
            break
        content = again
    return found


def previous(context: Context, content: bytes | None, current: str | None) -> str | None:
    """Name the profile that was active before ``current``, the way ``cd -`` goes back; one that is still there."""
    gone: set[str | None] = {None, current}
    for entry in History(context).mappings(content):
        if entry.profile is not None and entry.profile not in gone:
            if os.path.lexists(context.profile_file(entry.profile)):
                return entry.profile
            gone.add(entry.profile)
    return None


def resembling(context: Context, content: bytes, last: str | None) -> tuple[str, int] | None:
    """Name the profile that comes nearest to what ``content`` says, and in how many things it differs.

    None where none has a mount in common with it. Of several the one ``last`` in force is named, else the first; of a
    great many profiles the first COMPARED are looked at.
    """
    try:
        there = mapping.parse(content, "")
    except InvalidStateError:
        return None
    mounts, best = mapping.mounts(content), None
    names = Store(context).names()[:COMPARED]
    for name in dict.fromkeys([last, *names] if last is not None else names):
        try:
            rendered = Store(context).renderer(name).mapping()
        except TaoprofError:
            continue
        differing = len(mapping.changes(rendered, there))
        in_common = mapping.mounted(rendered).items() & mounts.items()
        if (not differing or in_common) and (best is None or differing < best[1]):
            best = name, differing
    return best


def warnings(context: Context, *, secrets: list[str]) -> list[str]:
    """Tell what may make tao miss the mapping file, or lets others read the ``secrets`` in it (names of variables)."""
    path = context.short(context.mapping_file)
    told = []
    elsewhere = context.environ.get("LAUNCHER_MOUNTS")
    if elsewhere is not None and find_mounts_file(context.environ, context.folder) != context.mapping_file:
        told.append(
            f"warning: LAUNCHER_MOUNTS is '{elsewhere}' in this shell, so tao reads that and not {path}: "
            "unset LAUNCHER_MOUNTS"
        )
    try:
        mode = os.stat(context.mapping_file).st_mode & 0o777
    except OSError:
        mode = 0
    if secrets and mode & 0o044:
        told.append(f"warning: {path} holds {', '.join(secrets)}, and others may read it: chmod 600 {path}")
    return told
