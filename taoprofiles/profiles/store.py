"""Profile files and their caches; the project file of a folder, and whether it is trusted.

Validating a profile costs 100 ms of imports, so its template is cached together with the text that it was made from.
``use`` reads one profile and its template; ``list`` reads one index of all profiles.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from taoprofiles import VERSION
from taoprofiles.errors import (
    InvalidProfileError,
    InvalidStateError,
    NotFoundError,
    TaoprofError,
    UntrustedError,
    UsageError,
)
from taoprofiles.masking import shorten
from taoprofiles.profiles.rendering import SIZE_LIMIT, Renderer, Template
from taoprofiles.storage import atomic, files
from taoprofiles.storage.files import to_taoprof_error
from taoprofiles.storage.journal import History, digest_of
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:
    from taoprofiles.profiles.model import Profile

SUFFIX = ".toml"
CACHE_FORMAT = f"6 {VERSION}"
"""A template of another version is not used: what a layout derives may have changed."""
_SUMMARY_KEYS = ("description", "layout", "project_dir", "extends")
"""The keys of a template that a summary has too."""
_SETTLING = 50_000_000
"""Nanoseconds. File times have steps of up to 10 ms, so a file changed just now may change again unnoticed."""


def is_name(text: str) -> bool:
    """Check whether ``text`` is a valid profile name, which never leads out of the folder."""
    others = text.replace(".", "").replace("_", "").replace("-", "")
    return others.isalnum() and text.isascii() and text[0].isalnum() and len(text) <= 64


def plain_name(text: str) -> str:
    """Return a profile name made of a text, "" if nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:64]


def check_name(name: str) -> str:
    """Return ``name`` if it is a valid profile name. Raises UsageError."""
    if not is_name(name):
        raise UsageError(
            f"'{shorten(name, 70)}' is not a valid profile name: use 1 to 64 ASCII letters (a-z, A-Z), digits, '.', "
            "'_' and '-', starting with a letter or digit",
            hint=f"such as '{plain}'" if (plain := plain_name(os.path.basename(name).removesuffix(".toml"))) else "",
        )
    return name


def base_name(text: bytes) -> str | None:
    """Return the profile that the profile with this ``text`` extends, None if it extends none.

    Parsing TOML takes 25 ms, so only a line before the first table is looked for; ``model.parse`` refuses any other.
    """
    if b"extends" not in text:
        return None
    match = re.match(rb"""(?:(?![ \t]*\[).*\n)*?[ \t]*extends[ \t]*=[ \t]*["']([A-Za-z0-9._-]+)["']""", text)
    return match[1].decode() if match else None


class Base(NamedTuple):
    """The profile that another one extends; ``text`` is None if there is none of that name."""

    name: str
    path: str
    text: bytes | None


class Source(NamedTuple):
    """The texts that a profile is made of, read once: its own, and that of the profile which it extends, if any."""

    path: str
    text: bytes
    base: Base | None

    def files(self) -> list[tuple[str, bytes]]:
        """Return the paths and contents of the files."""
        base = [(self.base.path, self.base.text or b"")] if self.base else []
        return [(self.path, self.text), *base]


class Summary(NamedTuple):
    """A profile as ``list`` shows it."""

    name: str
    path: str
    used: float | None  # seconds since 1970
    description: str
    layout: str | None
    project_dir: str | None
    extends: str | None
    project_file: str | None  # of which the profile is a trusted copy
    problem: str  # "" for a valid one


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

    def text(self, name: str, *, to_use: bool = False) -> bytes:
        """Return the content of a profile's file.

        Raises NotFoundError, which names similar profiles, and for a command that is ``to_use`` the profile, a way to
        create it.
        """
        content = self.text_or_none(name)
        if content is None:
            raise self._not_found(name, to_use=to_use)
        return content

    def text_or_none(self, name: str) -> bytes | None:
        """Return the content of a profile's file, None if there is none."""
        path = self.path(name)
        try:
            return files.read(path, SIZE_LIMIT)
        except InvalidStateError as error:
            raise InvalidProfileError(f"profile '{name}' cannot be read: {error.message}") from None

    def source(self, name: str, text: bytes | None = None) -> Source:
        """Return the texts of a profile; ``text`` is its own if that is not what its file has. Raises NotFoundError."""
        text = self.text(name, to_use=True) if text is None else text
        other = base_name(text)
        base = None if other is None or not is_name(other) else Base(other, self.path(other), self.text_or_none(other))
        return Source(self.path(name), text, base)

    def extending(self, name: str) -> list[str]:
        """Return the profiles that extend ``name``, sorted; unreadable ones are skipped."""
        return [summary.name for summary in self.summaries() if summary.extends == name]

    def template(self, name: str, source: Source | None = None, *, may_write: bool = False) -> Template:
        """Return the profile's template, and validate the text if it has changed. ``may_write``: the lock is held.

        ``source`` are its texts if the caller has read them already. Raises NotFoundError, InvalidProfileError.
        """
        source = self.source(name) if source is None else source
        cache = os.path.join(self._context.cache, "templates", name + ".json")
        known = _read_cache(cache)
        comparable = [content.decode("utf-8", "surrogateescape") for _, content in source.files()]
        if known is not None and known.get("texts") == comparable:
            cached = known.get("template")
            if isinstance(cached, dict) and cached.keys() == Template.__annotations__.keys():
                return cast("Template", cached)
        template = self.validate(name, source)
        if may_write:
            fresh = {"v": CACHE_FORMAT, "texts": comparable, "template": template}
            files.write_cache(cache, json.dumps(fresh).encode())
        return template

    def profile(self, name: str, source: Source | None = None) -> "Profile":
        """Return a profile, with what it inherits. Arguments and errors are those of ``template``."""
        from taoprofiles.profiles import model

        source = self.source(name) if source is None else source
        return model.parse(source.text, name=name, path=source.path, base=source.base)

    def validate(self, name: str, source: Source) -> Template:
        """Return the template of a profile's texts. Raises InvalidProfileError with all problems."""
        from taoprofiles.profiles import model

        return model.template(self.profile(name, source), name=name)

    def renderer(self, name: str, source: Source | None = None, *, may_write: bool = False) -> Renderer:
        """Return the renderer of a profile. Arguments and errors are those of ``template``."""
        template = self.template(name, source, may_write=may_write)
        return Renderer(template, self._context, name=name, path=self.path(name))

    def secret_env(self, mapping: Mapping[str, Any] | bytes | None, *names: str | None) -> set[str]:
        """Return the container variables that are secret in any of these profiles.

        If one cannot be read, all variables of ``mapping`` are: it may have been rendered from that profile.
        """
        secrets: set[str] = set()
        for name in dict.fromkeys(names):
            try:
                secrets |= self.renderer(name).secrets()[1] if name is not None else set()
            except TaoprofError:
                from taoprofiles.mounts.mapping import env_names  # not for 'list'

                secrets |= env_names(mapping)
        return secrets

    def secret_values(self, name: str | None) -> list[str]:
        """Return the secret values of a profile, [] if there is none or it cannot be rendered any more."""
        try:
            return [value for _, value in self.renderer(name).secret_values()] if name is not None else []
        except TaoprofError:
            return []

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
        with suppress(InvalidProfileError):  # of a profile that was not valid before
            # The next command then need not validate it.
            self.template(name, self.source(name, text), may_write=True)

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
        entries = sorted(self._entries(), key=lambda pair: pair[0])
        statuses = {name: status for name, entry in entries if (status := _stat(entry)) is not None}
        profiles: dict[str, Any] = {}
        changed = offset != index["offset"]
        for name, status in statuses.items():
            entry = known.get(name)
            signature = _signature(statuses, name, entry and entry["extends"])
            if entry is None or entry["signature"] != signature:
                entry = self._summary(name)
                signature = _signature(statuses, name, entry["extends"])
                entry = {"signature": signature, **entry}
                changed = True
            base = statuses.get(entry["extends"] or name, status)
            is_settled = now - max(status.st_ctime_ns, base.st_ctime_ns) > _SETTLING
            profiles[name] = entry if is_settled else {**entry, "signature": None}
        index = {"v": CACHE_FORMAT, "offset": offset, "used": used, "profiles": profiles}
        if may_write and (changed or known.keys() != profiles.keys()):
            files.write_cache(self._context.index, json.dumps(index).encode())
        path, fields = self._context.profile_file, Summary._fields[3:]
        return [
            Summary(name, path(name), used.get(name), *(entry[field] for field in fields))
            for name, entry in profiles.items()
        ]

    def _summary(self, name: str) -> dict[str, Any]:
        summary: dict[str, Any] = dict.fromkeys(_SUMMARY_KEYS)
        try:
            source = self.source(name)
            summary["extends"] = source.base.name if source.base else None
            template = self.template(name, source)
        except TaoprofError as error:  # the other profiles are still listed
            summary |= {
                "description": "",
                "project_file": None,
                "problem": error.problems[0] if error.problems else error.message,
            }
            # An error of the system may go away without a change of the file, so it is not cached.
            return summary if isinstance(error, InvalidProfileError) else {**summary, "signature": None}
        summary = {key: template[key] for key in _SUMMARY_KEYS}  # type: ignore[literal-required]
        project = None if template["extends"] else template["project"]
        return summary | {"project_file": project and project["file"], "problem": ""}

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
        names = [name for name in files.names_in(self._context.profiles) if name.endswith(SUFFIX)]
        return sorted(name for name in names if not is_name(name.removesuffix(SUFFIX)))

    def _not_found(self, name: str, *, to_use: bool) -> NotFoundError:
        import difflib

        close = difflib.get_close_matches(name, self.names(), n=3)
        near = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
        create = f"; 'taoprof new {name}' creates it from the current folder" if to_use else ""
        return NotFoundError(f"there is no profile '{name}'", hint=f"{near}'taoprof list' shows all{create}")


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    for follow in (True, False):  # a dangling symlink is a broken profile, and is listed as one
        try:
            return entry.stat(follow_symlinks=follow)
        except OSError:
            continue
    return None  # removed since the folder was listed


def _signature(statuses: dict[str, os.stat_result], name: str, base: str | None) -> list[Any]:
    """Return what changes whenever the file of the profile ``name`` or of its ``base`` does."""
    return [_file_signature(statuses.get(profile)) for profile in (name, base) if profile is not None]


def _file_signature(status: os.stat_result | None) -> list[int] | None:
    return status and [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read_cache(path: str) -> dict[str, Any] | None:
    data = files.read_json(path, 1 << 28)
    return data if data.get("v") == CACHE_FORMAT else None


PROJECT_FILE = ".taoprof.toml"
"""The profile in a project's repository.

Whoever wrote the repository wrote this file, so it is not trusted. It is used only after ``taoprof trust`` has shown it
and stored a copy among the user's own profiles, with the hash of the file. After any change of the file it must be
trusted again.
"""


class ProjectFile(NamedTuple):
    """The project file as it was read: its path, its content, and the content's SHA-256."""

    path: str
    text: bytes
    sha256: str

    @property
    def folder(self) -> str:
        """The project's folder."""
        return os.path.dirname(self.path)


def find_project_file(context: Context) -> str | None:
    """Return the project file of the current folder: in it or above, up to the home or the top of a repository."""
    folder, home = context.folder, os.path.realpath(context.home)
    while True:
        path = os.path.join(folder, PROJECT_FILE)
        if os.path.lexists(path):
            return path
        parent = os.path.dirname(folder)
        if folder in (home, parent) or os.path.lexists(os.path.join(folder, ".git")):
            return None
        folder = parent


def project_path(path: str) -> str:
    """Return the path of a project file, given by it or its folder, without links in the folder."""
    folder = os.path.dirname(path) if os.path.basename(path) == PROJECT_FILE else path
    return os.path.join(os.path.realpath(folder), PROJECT_FILE)


def read_project_file(path: str) -> ProjectFile:
    """Read a project file, or that of a folder. Raises NotFoundError, and InvalidStateError for what is no file.

    The project's folder is that with the name, also if the name is a link: one in a stranger's repository may lead out.
    """
    path = project_path(path)
    text = files.read(path, SIZE_LIMIT)
    if text is None:
        raise NotFoundError(f"there is no project file '{path}'", hint="to write one: taoprof new NAME --project")
    return ProjectFile(path, text, digest_of(text))


def trusted_files(context: Context, wanted: str | None = None) -> dict[str, str]:
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
    path = find_project_file(context)
    if path is None:
        return None
    short, store = context.short(path), Store(context)
    real = project_path(path)
    name = trusted_files(context, real).get(real)
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
        sha256 = read_project_file(path).sha256
    if source is None or sha256 != source["sha256"]:
        raise UntrustedError(
            f"the project file {short} has changed since it was trusted as profile '{name}'",
            hint=f"to see the changes, and decide: taoprof trust; to use the trusted copy, name the profile: {name}",
        )
    own = [summary.name for summary in store.summaries() if summary.extends == name]
    return own[0] if len(own) == 1 else name
