"""Profiles on disk: names, texts, and what has been made of them.

Validating a profile costs 100 ms of imports, so its template is kept beside the very text that it was made from, and
holds for exactly that text. ``use`` reads one profile and its template; ``list`` reads one index of all.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidProfileError, InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.profiles.rendering import LIMIT, RenderContext, Renderer
from taoprofiles.storage import atomic, best_effort, files
from taoprofiles.storage.journal import History
from taoprofiles.storage.os_errors import to_taoprof_error
from taoprofiles.version import VERSION

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.profiles.rendering import Template
    from taoprofiles.storage.paths import Context

SUFFIX = ".toml"
CACHE_FORMAT = f"2 {VERSION}"
"""A template of another version is made anew: what a layout derives may have changed."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SETTLED = 50_000_000
"""Nanoseconds. File times move in steps of up to 10 ms, so a file changed just now may change again unseen."""


def check_name(name: str) -> str:
    """Give ``name`` back if a profile may be called so. Raises UsageError; such a name never leaves the folder."""
    if not _NAME.match(name):
        shown = name if len(name) <= 70 else name[:67] + "…"
        raise UsageError(
            f"'{shown}' cannot be the name of a profile: a name has 1 to 64 letters, digits, '.', '_' and '-', and "
            "starts with a letter or digit",
        )
    return name


class Summary:
    """A profile as ``list`` shows it. ``problem`` is empty for a valid one; ``used`` is in seconds since 1970."""

    __slots__ = ("description", "layout", "name", "path", "problem", "project_dir", "used")

    def __init__(self, name: str, path: str, fields: dict[str, Any], used: float | None) -> None:
        self.name, self.path, self.used = name, path, used
        self.description: str = fields["description"]
        self.layout: str | None = fields["layout"]
        self.project_dir: str | None = fields["project_dir"]
        self.problem: str = fields["problem"]


class Store:
    """The profiles of one person. Reading needs no lock; writing does, and so do the caches (``may_write``)."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def path(self, name: str) -> str:
        """Give the path of the profile's file. Raises UsageError for a name that cannot be one."""
        return os.path.join(self._context.profiles, check_name(name) + SUFFIX)

    def names(self) -> list[str]:
        """List the names of all profiles, sorted, broken ones included."""
        return sorted(name for name, _ in self._entries())

    def text(self, name: str) -> bytes:
        """Read a profile's file as it is. Raises NotFoundError, with the names that come near."""
        content = self.text_or_none(name)
        if content is None:
            raise self._not_found(name)
        return content

    def text_or_none(self, name: str) -> bytes | None:
        """Read a profile's file as it is, None where there is none."""
        path = self.path(name)
        try:
            return files.read(path, LIMIT)
        except InvalidStateError as error:
            raise InvalidProfileError(f"profile '{name}' cannot be read: {error.message}") from None

    def template(self, name: str, text: bytes | None = None, *, may_write: bool = False) -> Template:
        """Give the profile's template, validating its text if that has changed. ``may_write``: the lock is held.

        ``text`` is what ``text`` gave, where the caller needs both. Raises NotFoundError, InvalidProfileError.
        """
        text = self.text(name) if text is None else text
        cache = os.path.join(self._context.cache, "templates", name + ".json")
        known = _read_cache(cache)
        comparable = text.decode("utf-8", "surrogateescape")
        if known is not None and known.get("text") == comparable and _is_template(known.get("template")):
            made: Template = known["template"]
            return made
        made = self.validate(name, text)
        if may_write:
            fresh = {"v": CACHE_FORMAT, "text": comparable, "template": made}
            best_effort.write(cache, json.dumps(fresh).encode())
        return made

    def validate(self, name: str, text: bytes) -> Template:
        """Make the template of a profile's text. Raises InvalidProfileError with all that is wrong."""
        from taoprofiles.profiles import model

        return model.template(model.parse(text, name=name, path=self.path(name)), name=name)

    def renderer(self, name: str, text: bytes | None = None, *, may_write: bool = False) -> Renderer:
        """Give what renders the profile here and now. Arguments and errors are those of ``template``."""
        made = self.template(name, text, may_write=may_write)
        return Renderer(made, RenderContext.of(self._context), name=name, path=self.path(name))

    def secret_env(self, *names: str | None) -> set[str]:
        """Name the container's variables that hold secrets in these profiles; one that cannot be read says nothing."""
        found: set[str] = set()
        for name in dict.fromkeys(names):
            try:
                found |= self.renderer(name).secrets()[1] if name is not None else set()
            except TaoprofError:
                continue
        return found

    def write(self, name: str, text: bytes, *, expected: bytes | None) -> None:
        """Write a profile's file, 0600 if it is new. Needs the lock, and a valid ``text``: its template is kept.

        Raises TaoprofError, and leaves the file as it is, where it no longer holds ``expected``: an editor that was
        saved in this moment must not lose its text.
        """

        def placed(old: bytes | None) -> None:
            if old != expected:
                raise TaoprofError(
                    f"profile '{name}' was changed by another program in this moment, and stays as that left it",
                    hint="run the command again",
                )

        files.make_folder(self._context.profiles)
        atomic.replace(self.path(name), text, on_replaced=placed)
        self.template(name, text, may_write=True)  # so that the next command need not validate it

    def summaries(self, *, may_write: bool = False) -> list[Summary]:
        """Give all profiles as ``list`` shows them, sorted by name; only what has changed is read."""
        index_path = os.path.join(self._context.cache, "index.json")
        try:
            return self._summaries(_read_cache(index_path), index_path, may_write=may_write)
        except (KeyError, TypeError, AttributeError):  # a damaged index
            return self._summaries(None, index_path, may_write=may_write)

    def _summaries(self, index: dict[str, Any] | None, index_path: str, *, may_write: bool) -> list[Summary]:
        index = index or {"v": CACHE_FORMAT, "offset": 0, "used": {}, "profiles": {}}
        used, offset = History(self._context).last_used(index["used"], index["offset"])
        known, now = index["profiles"], time.time_ns()
        profiles: dict[str, Any] = {}
        changed = offset != index["offset"]
        for name, entry_on_disk in sorted(self._entries(), key=lambda pair: pair[0]):
            status = _stat(entry_on_disk)
            if status is None:
                continue
            signature = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            entry = known.get(name)
            if entry is None or entry["signature"] != signature:
                entry = {"signature": signature, **self._summary(name)}
                changed = True
            if now - status.st_ctime_ns > _SETTLED:
                profiles[name] = entry
            else:
                profiles[name] = {**entry, "signature": None}
        index = {"v": CACHE_FORMAT, "offset": offset, "used": used, "profiles": profiles}
        if may_write and (changed or known.keys() != profiles.keys()):
            best_effort.write(index_path, json.dumps(index).encode())
        return [Summary(name, self.path(name), entry, used.get(name)) for name, entry in profiles.items()]

    def _summary(self, name: str) -> dict[str, Any]:
        try:
            made = self.template(name)
        except TaoprofError as error:  # whatever is wrong with one, the others are still listed
            told = {"description": "", "layout": None, "project_dir": None}
            told["problem"] = error.problems[0] if error.problems else error.message
            # What the system refused may be over without a sign on the file: it is asked again the next time.
            return told if isinstance(error, InvalidProfileError) else {**told, "signature": None}
        return {
            "description": made["description"],
            "layout": made["layout"],
            "project_dir": made["project_dir"],
            "problem": "",
        }

    def _entries(self) -> list[tuple[str, os.DirEntry[str]]]:
        folder = self._context.profiles
        try:
            with os.scandir(folder) as entries:
                named = [(entry.name.removesuffix(SUFFIX), entry) for entry in entries if entry.name.endswith(SUFFIX)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise to_taoprof_error(folder, "list", error) from error
        return [pair for pair in named if _NAME.match(pair[0])]

    def misnamed(self) -> list[str]:
        """List the files in the folder that look like profiles, but have a name that none may have."""
        try:
            found = [name for name in os.listdir(self._context.profiles) if name.endswith(SUFFIX)]
        except OSError:
            return []
        return sorted(name for name in found if not _NAME.match(name.removesuffix(SUFFIX)))

    def _not_found(self, name: str) -> NotFoundError:
        import difflib

        close = difflib.get_close_matches(name, self.names(), n=3)
        near = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
        return NotFoundError(
            f"there is no profile '{name}'",
            hint=f"{near}'taoprof list' shows all; 'taoprof new {name}' makes it from the current folder",
        )


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    for follow in (True, False):  # a dangling symlink is a broken profile, and is listed as one
        try:
            return entry.stat(follow_symlinks=follow)
        except OSError:
            continue
    return None  # removed since the folder was listed


def _is_template(found: object) -> bool:
    keys = {"description", "layout", "project_dir", "variables", "mounts", "env", "docker"}
    return isinstance(found, dict) and found.keys() == keys


def _read_cache(path: str) -> dict[str, Any] | None:
    try:
        content = files.read(path, 1 << 28)
        data = None if content is None else json.loads(content)
    except (TaoprofError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and data.get("v") == CACHE_FORMAT else None
