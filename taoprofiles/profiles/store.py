"""Profile files and their caches.

Validating a profile costs 100 ms of imports, so its template is cached together with the text that it was made from.
``use`` reads one profile and its template; ``list`` reads one index of all profiles.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, NamedTuple, cast

from taoprofiles.errors import InvalidProfileError, InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.masking import shorten
from taoprofiles.profiles.rendering import SIZE_LIMIT, Renderer
from taoprofiles.storage import atomic, best_effort, files
from taoprofiles.storage.files import to_taoprof_error
from taoprofiles.storage.journal import History
from taoprofiles.version import VERSION

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.profiles.rendering import Template
    from taoprofiles.storage.paths import Context

SUFFIX = ".toml"
CACHE_FORMAT = f"2 {VERSION}"
"""A template of another version is not used: what a layout derives may have changed."""
_SETTLING = 50_000_000
"""Nanoseconds. File times have steps of up to 10 ms, so a file changed just now may change again unnoticed."""


def is_name(text: str) -> bool:
    """Check whether ``text`` is a valid profile name, which never leads out of the folder."""
    others = text.replace(".", "").replace("_", "").replace("-", "")
    return others.isalnum() and text.isascii() and text[0].isalnum() and len(text) <= 64


def check_name(name: str) -> str:
    """Return ``name`` if it is a valid profile name. Raises UsageError."""
    if not is_name(name):
        raise UsageError(
            f"'{shorten(name, 70)}' is not a valid profile name: use 1 to 64 ASCII letters (a-z, A-Z), digits, '.', "
            "'_' and '-', starting with a letter or digit"
        )
    return name


class Summary(NamedTuple):
    """A profile as ``list`` shows it. ``problem`` is "" for a valid one; ``used`` is in seconds since 1970."""

    name: str
    path: str
    used: float | None
    description: str
    layout: str | None
    project_dir: str | None
    problem: str


class Store:
    """The profiles of one user. Reading needs no lock; writing does, and so does writing caches (``may_write``)."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def path(self, name: str) -> str:
        """Return the path of a profile's file. Raises UsageError for an invalid name."""
        return self._context.profile_file(check_name(name))

    def names(self) -> list[str]:
        """Return the names of all profiles, sorted, broken ones included."""
        return sorted(name for name, _ in self._entries())

    def text(self, name: str) -> bytes:
        """Return the content of a profile's file. Raises NotFoundError, which names similar profiles."""
        content = self.text_or_none(name)
        if content is None:
            raise self._not_found(name)
        return content

    def text_or_none(self, name: str) -> bytes | None:
        """Return the content of a profile's file, None if there is none."""
        path = self.path(name)
        try:
            return files.read(path, SIZE_LIMIT)
        except InvalidStateError as error:
            raise InvalidProfileError(f"profile '{name}' cannot be read: {error.message}") from None

    def template(self, name: str, text: bytes | None = None, *, may_write: bool = False) -> Template:
        """Return the profile's template, and validate the text if it has changed. ``may_write``: the lock is held.

        ``text`` is the profile's text if the caller has read it already. Raises NotFoundError, InvalidProfileError.
        """
        text = self.text(name) if text is None else text
        cache = os.path.join(self._context.cache, "templates", name + ".json")
        known = _read_cache(cache)
        comparable = text.decode("utf-8", "surrogateescape")
        if known is not None and known.get("text") == comparable and _is_template(known.get("template")):
            return cast("Template", known["template"])
        template = self.validate(name, text)
        if may_write:
            fresh = {"v": CACHE_FORMAT, "text": comparable, "template": template}
            best_effort.write(cache, json.dumps(fresh).encode())
        return template

    def validate(self, name: str, text: bytes) -> Template:
        """Return the template of a profile's text. Raises InvalidProfileError with all problems."""
        from taoprofiles.profiles import model

        return model.template(model.parse(text, name=name, path=self.path(name)), name=name)

    def renderer(self, name: str, text: bytes | None = None, *, may_write: bool = False) -> Renderer:
        """Return the renderer of a profile. Arguments and errors are those of ``template``."""
        template = self.template(name, text, may_write=may_write)
        return Renderer(template, self._context, name=name, path=self.path(name))

    def secret_env(self, *names: str | None) -> set[str]:
        """Return the container variables that are secret in any of these profiles; unreadable ones are skipped."""
        secrets: set[str] = set()
        for name in dict.fromkeys(names):
            try:
                secrets |= self.renderer(name).secrets()[1] if name is not None else set()
            except TaoprofError:
                continue
        return secrets

    def write(self, name: str, text: bytes, *, expected: bytes | None) -> None:
        """Write a profile's file, with mode 0600 if it is new, and its template. Needs the lock and a valid ``text``.

        Raises TaoprofError, and leaves the file as it is, if it no longer contains ``expected``: a text that an editor
        saved in this moment must not be lost.
        """

        def check_expected(fd: int | None) -> None:
            old = None if fd is None else files.read_open(fd, 1 << 30, self.path(name))
            if old != expected:
                raise TaoprofError(
                    f"profile '{name}' was changed by another program in this moment; that change is kept",
                    hint="run the command again",
                )

        files.make_folder(self._context.profiles)
        atomic.replace(self.path(name), text, on_replaced=check_expected)
        self.template(name, text, may_write=True)  # so that the next command need not validate it

    def summaries(self, *, may_write: bool = False) -> list[Summary]:
        """Return all profiles as ``list`` shows them, sorted by name; only changed files are read."""
        try:
            return self._summaries(_read_cache(self._context.index), may_write=may_write)
        except (KeyError, TypeError, AttributeError):  # a damaged index
            return self._summaries(None, may_write=may_write)

    def _summaries(self, index: dict[str, Any] | None, *, may_write: bool) -> list[Summary]:
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
            is_settled = now - status.st_ctime_ns > _SETTLING
            profiles[name] = entry if is_settled else {**entry, "signature": None}
        index = {"v": CACHE_FORMAT, "offset": offset, "used": used, "profiles": profiles}
        if may_write and (changed or known.keys() != profiles.keys()):
            best_effort.write(self._context.index, json.dumps(index).encode())
        path, fields = self._context.profile_file, Summary._fields[3:]
        return [
            Summary(name, path(name), used.get(name), *(entry[field] for field in fields))
            for name, entry in profiles.items()
        ]

    def _summary(self, name: str) -> dict[str, Any]:
        try:
            template = self.template(name)
        except TaoprofError as error:  # the other profiles are still listed
            summary = {"description": "", "layout": None, "project_dir": None}
            summary["problem"] = error.problems[0] if error.problems else error.message
            # An error of the system may go away without a change of the file, so it is not cached.
            return summary if isinstance(error, InvalidProfileError) else {**summary, "signature": None}
        return {key: template[key] for key in ("description", "layout", "project_dir")} | {"problem": ""}

    def _entries(self) -> list[tuple[str, os.DirEntry[str]]]:
        folder = self._context.profiles
        try:
            with os.scandir(folder) as entries:
                named = [(entry.name.removesuffix(SUFFIX), entry) for entry in entries if entry.name.endswith(SUFFIX)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise to_taoprof_error(folder, "list", error) from error
        return [pair for pair in named if is_name(pair[0])]

    def misnamed(self) -> list[str]:
        """Return the names of TOML files in the folder that are not valid profile names."""
        try:
            names = [name for name in os.listdir(self._context.profiles) if name.endswith(SUFFIX)]
        except OSError:
            return []
        return sorted(name for name in names if not is_name(name.removesuffix(SUFFIX)))

    def _not_found(self, name: str) -> NotFoundError:
        import difflib

        close = difflib.get_close_matches(name, self.names(), n=3)
        near = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
        return NotFoundError(
            f"there is no profile '{name}'",
            hint=f"{near}'taoprof list' shows all; 'taoprof new {name}' creates it from the current folder",
        )


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    for follow in (True, False):  # a dangling symlink is a broken profile, and is listed as one
        try:
            return entry.stat(follow_symlinks=follow)
        except OSError:
            continue
    return None  # removed since the folder was listed


def _is_template(data: object) -> bool:
    keys = {"description", "layout", "project_dir", "variables", "mounts", "env", "docker"}
    return isinstance(data, dict) and data.keys() == keys


def _read_cache(path: str) -> dict[str, Any] | None:
    data = best_effort.read_json(path, 1 << 28)
    return data if data is not None and data.get("v") == CACHE_FORMAT else None
