"""The profile in a project's repository, ``.taoprof.toml``: where it is, and whether it is trusted.

Whoever wrote the repository wrote this file, so it is not trusted. It is used only after ``taoprof trust`` has shown it
and stored a copy among the user's own profiles (``trust``), with the hash of the file. After any change of the file it
must be trusted again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.errors import InvalidProfileError, NotFoundError, TaoprofError, UntrustedError
from taoprofiles.profiles.rendering import SIZE_LIMIT
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.journal import digest_of

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

FILE = ".taoprof.toml"


class ProjectFile(NamedTuple):
    """The project file as it was read: its path, its content, and the content's SHA-256."""

    path: str
    text: bytes
    sha256: str

    @property
    def folder(self) -> str:
        """The project's folder."""
        return os.path.dirname(self.path)


def find(context: Context) -> str | None:
    """Return the project file of the current folder: in it or above, up to the home or the top of a repository."""
    folder, home = context.folder, os.path.realpath(context.home)
    while True:
        path = os.path.join(folder, FILE)
        if os.path.lexists(path):
            return path
        parent = os.path.dirname(folder)
        if folder in (home, parent) or os.path.lexists(os.path.join(folder, ".git")):
            return None
        folder = parent


def to_path(path: str) -> str:
    """Return the path of a project file, given by it or its folder, without links in the folder."""
    folder = os.path.dirname(path) if os.path.basename(path) == FILE else path
    return os.path.join(os.path.realpath(folder), FILE)


def read(path: str) -> ProjectFile:
    """Read a project file, or that of a folder. Raises NotFoundError, and InvalidStateError for what is no file.

    The project's folder is that with the name, also if the name is a link: one in a stranger's repository may lead out.
    """
    path = to_path(path)
    text = files.read(path, SIZE_LIMIT)
    if text is None:
        raise NotFoundError(f"there is no project file '{path}'", hint="to write one: taoprof new NAME --project")
    return ProjectFile(path, text, digest_of(text))


def trusted(context: Context, wanted: str | None = None) -> dict[str, str]:
    """Return the name of the profile that was made from each project file, by the file's path.

    Raises TaoprofError if ``wanted``, a file or a name, is none of them, and a profile cannot be read that may be it;
    without ``wanted`` all are.
    """
    store = Store(context)
    summaries = store.summaries()
    known = {summary.project_file: summary.name for summary in summaries if summary.project_file}
    if wanted not in (*known, *known.values()):
        for name in (summary.name for summary in summaries if summary.problem):
            with suppress(InvalidProfileError):
                template = store.template(name)
                if template["project"] is not None and template["extends"] is None:
                    known[template["project"]["file"]] = name
    return known


def default_profile(context: Context) -> str | None:
    """Return the profile of the current folder's project, None if there is no project file.

    A profile of the user that extends it, if there is exactly one, comes first. A file of another user, in a shared
    folder say, does not count until it is trusted. Raises UntrustedError if the file is not trusted, or has changed.
    """
    path = find(context)
    if path is None:
        return None
    short, store = context.short(path), Store(context)
    real = to_path(path)
    name = trusted(context, real).get(real)
    if name is None:
        try:
            owner = os.lstat(path).st_uid
        except OSError:  # it was deleted just now
            return None
        if owner != context.uid:
            return None
        raise UntrustedError(
            f"the project file {short} is not trusted", hint="to see what it sets, and decide: taoprof trust"
        )
    source = store.template(name)["project"]
    sha256 = None
    with suppress(TaoprofError):  # such as a named pipe in its place
        sha256 = read(path).sha256
    if source is None or sha256 != source["sha256"]:
        raise UntrustedError(
            f"the project file {short} has changed since it was trusted as profile '{name}'",
            hint=f"to see the changes, and decide: taoprof trust; to use the trusted copy, name the profile: {name}",
        )
    own = [summary.name for summary in store.summaries() if summary.extends == name]
    return own[0] if len(own) == 1 else name
