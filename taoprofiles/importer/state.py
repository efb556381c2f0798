"""What the code has set so far: environment variables, names, the current folder, files written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.importer.values import (
    Json,
    PurePath,
    Segment,
    SimulatedException,
    SourceLocation,
    TracedStr,
    Unknown,
    concat,
    expand_home,
    join_path,
    normal_path,
    segments,
    type_name,
)
from taoprofiles.storage.paths import expand_user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PLACEHOLDER = re.compile(
    r"\bFIX_?ME\b|(^|/)path/to(/|$)|(^|[/{<_])YOUR_[A-Z]|^<[^<>]+>$|\bREPLACE_?ME\b|\bCHANGE_?ME\b|/absolute/path(/|$)"
)
"""Text in the place of a value that only the user knows. FIXME and /path/to/… are NVIDIA's, the others users'."""
PLACEHOLDER_NAME = re.compile(r"(FIX_?ME|TODO|YOUR_[A-Z_]+|REPLACE_?ME|CHANGE_?ME)\Z")
MOUNTS_FILES = (".tao_mounts.json", ".tlt_mounts.json")
_HINTS = ("FIX", "path", "YOUR_", "<", "REPLACE", "CHANGE")
_LONGEST_PLACEHOLDER = 500
_ALWAYS_SET = frozenset("PATH PWD SHELL TERM LANG".split())
"""Variables that every kernel has, with values of its own."""


@dataclass(slots=True, frozen=True)
class Machine:
    """What the code would find on this machine. Nothing of it is changed.

    ``environ`` is the environment of a notebook's kernel, ``folder`` the notebook's own folder. ``is_folder`` and
    ``resolve`` look at the file system, as ``os.path`` does.
    """

    home: str
    folder: str
    uid: int
    gid: int
    environ: Mapping[str, str]
    is_folder: Callable[[str], bool]
    resolve: Callable[[str], str]


class Definition(NamedTuple):
    """One value of an environment variable, and where it was set."""

    value: Any
    location: SourceLocation
    is_placeholder: bool


class WrittenFile(NamedTuple):
    """A mounts file as the code wrote it: its path and the value of its JSON, None if it is not JSON."""

    path: str
    value: Any
    location: SourceLocation


@dataclass(slots=True)
class State:
    """The state of the evaluation. ``given`` are the user's values, which take precedence over those of the code."""

    machine: Machine
    given: Mapping[str, str]
    folder: str | Unknown = ""
    names: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[Definition]] = field(default_factory=dict)
    """Every value of each environment variable that the code sets, including removed variables."""
    removed: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    """The variables that the code sets or reads."""
    used: set[str] = field(default_factory=set)
    """The names of ``given`` that had an effect."""
    files: list[WrittenFile] = field(default_factory=list)
    location: SourceLocation = field(default=SourceLocation(0, 0))
    notes: list[tuple[SourceLocation, str]] = field(default_factory=list)
    not_followed: dict[SourceLocation, str] = field(default_factory=dict)
    """The statements that are not followed."""
    calls: dict[SourceLocation, str] = field(default_factory=dict)
    """The calls and commands whose effects the code does not show."""
    lost: dict[int, tuple[Any, Unknown]] = field(default_factory=dict)
    """Lists and dictionaries, by id(), that code that is not followed may have changed."""
    has_unknown_names: bool = False
    """True after code that is not followed and may have bound names that are not known (``import *``)."""
    created: set[str] = field(default_factory=set)
    """The folders that the code creates."""
    _first: dict[str, Any] = field(default_factory=dict)
    _environment: Unknown | None = None
    """The value of every variable that is not set later, once all variables have become unknown."""

    def __post_init__(self) -> None:
        """Define the given variables."""
        self.folder = TracedStr([Segment(self.machine.folder, "folder")])
        for name, value in self.given.items():
            self._define(name, value, SourceLocation(0, 0))

    def unknown(self, reason: str, *origins: Any) -> Unknown:
        """Return an unknown value of the current line; one that depends on an unknown value has its reason."""
        first = next((origin for origin in origins if isinstance(origin, Unknown)), None)
        if first is None:
            return Unknown(reason, self.location)
        return Unknown(first.reason, first.location) if isinstance(first, Json) else first

    def known(self, value: Any) -> Any:
        """Return the value, or Unknown for a list or dictionary that may have been changed."""
        if isinstance(value, (list, dict)) and id(value) in self.lost:
            return self.lost[id(value)][1]
        return value

    def note(self, text: str) -> None:
        """Add a note about the current line."""
        self.notes.append((self.location, text))

    # Environment variables

    def environment(self, name: str) -> str | Unknown | None:
        """Return a variable's value, None if it is not set."""
        if name in self.removed:
            return None
        if name in self.history:
            if name in self.given:
                self.used.add(name)
            self.touched.add(name)
            version = len(self.history[name]) - 1
            value = self.history[name][version].value
            return value if isinstance(value, Unknown) else TracedStr([Segment(value, "variable", name, version)])
        if self._environment is not None:
            return self._environment
        if name not in self.machine.environ:
            return self.unknown(f"{name} comes from the kernel's environment") if name in _ALWAYS_SET else None
        if name == "HOME":
            return self.home
        return TracedStr([Segment(self.machine.environ[name], "env", name)])

    def set_environment(self, name: Any, value: Any) -> None:
        """Do ``os.environ[name] = value``. Raises SimulatedException as Python does."""
        if isinstance(name, Unknown):
            self.invalidate_environment(f"a variable whose name is not known is set: {name.reason}")
            return
        for argument in (name, value):
            if not isinstance(argument, (str, Unknown)):
                raise SimulatedException("TypeError", f"str expected, not {type_name(argument)}")
        if not name or "=" in name:
            raise SimulatedException("OSError" if not name else "ValueError", "illegal environment variable name")
        if isinstance(value, str) and ("\0" in value or "\0" in name):
            raise SimulatedException("ValueError", "embedded null byte")
        self.removed.discard(name)
        self.touched.add(name)
        self._define(name, self.answered(name, value), self.location)

    def remove_environment(self, name: str) -> None:
        """Do ``del os.environ[name]``. The history stays: other values may have been made of it."""
        self.removed.add(name)

    def invalidate_environment(self, reason: str) -> None:
        """Make all environment variables unknown, except those that the user gave."""
        self.note(f"may set variables that are not known: {reason}")
        self._environment = self.unknown(reason)
        self.removed.clear()
        for name in self.history:
            self._define(name, self.answered(name, self._environment), self.location)

    def _define(self, name: str, value: Any, location: SourceLocation) -> None:
        placeholder = isinstance(value, str) and name not in self.given and is_placeholder(value)
        self.history.setdefault(name, []).append(Definition(value, location, placeholder))

    def answered(self, name: str, value: Any) -> Any:
        """Return the value that the user gave for ``name`` instead of ``value``, if any.

        It replaces the first value that the code sets, placeholders and unknown values; another value that the code
        sets later on, for another purpose, stays.
        """
        if name not in self.given:
            return value
        plain = value if isinstance(value, Unknown) else str(value)
        first = self._first.setdefault(name, plain)
        if isinstance(value, Unknown) or plain == first or is_placeholder(value):
            self.used.add(name)
            return TracedStr([Segment(self.given[name])])
        return value

    def holds_placeholder(self, text: str) -> bool:
        """Check whether a text, or a value that it is made of, is a placeholder."""
        waiting = [text]
        visited: set[tuple[str, int]] = set()
        while waiting:
            text = waiting.pop()
            if is_placeholder(text) or any(segment.kind == "name" for segment in segments(text)):
                return True
            used = {(segment.name, segment.version) for segment in segments(text) if segment.kind == "variable"}
            values = [self.history[name][version].value for name, version in used - visited if name not in self.given]
            waiting += [value for value in values if isinstance(value, str)]
            visited |= used
        return False

    # The home and the current folder

    @property
    def home(self) -> str | Unknown:
        """The home as ``os.path.expanduser("~")`` returns it: the environment's HOME counts."""
        if "HOME" in self.history or "HOME" in self.removed or self._environment is not None:
            changed = self.environment("HOME")
            return self.unknown("the home where HOME is not set") if changed is None else changed
        return TracedStr([Segment(self.machine.home, "home")])

    def expand_home(self, path: str) -> str | Unknown:
        """Return ``os.path.expanduser(path)``."""
        if not path.startswith("~"):
            return path
        if path.partition("/")[0] != "~":
            return concat(expand_user(path, self.machine.home))
        home = self.home
        return home if isinstance(home, Unknown) else expand_home(path, home)

    def absolute(self, path: str) -> str | Unknown:
        """Return ``os.path.abspath(path)``."""
        if path.startswith("/"):
            return normal_path(path)
        return self.folder if isinstance(self.folder, Unknown) else normal_path(join_path(self.folder, path))

    def resolved(self, path: str) -> str | Unknown:
        """Return ``os.path.realpath(path)`` on this machine."""
        folder = "/" if path.startswith("/") else self.folder
        if isinstance(folder, Unknown):
            return folder
        whole = join_path(folder, path)
        real, normal = self.machine.resolve(whole), normal_path(whole)
        return normal if real == normal else concat(real)

    def change_folder(self, path: Any) -> None:
        """Do ``os.chdir(path)``. The folder is unknown if there is none of that path yet."""
        absolute = self.absolute(path) if isinstance(path, str) else path
        if isinstance(absolute, str) and absolute not in self.created and not self.machine.is_folder(absolute):
            absolute = self.unknown(f"whether the folder '{path}' exists")
        self.folder = absolute

    def create_folder(self, path: Any) -> None:
        """Record that the code creates a folder."""
        absolute = self.absolute(path) if isinstance(path, str) else path
        while isinstance(absolute, str) and absolute not in ("/", "", *self.created):
            self.created.add(str(absolute))
            absolute = str(absolute).rpartition("/")[0]

    # Mounts files

    def write_file(self, path: Any, value: Any) -> None:
        """Record the content of a mounts file; other files are ignored.

        ``value`` is the value of its JSON, None if it is not JSON. A write to an unknown path may have changed it.
        """
        if isinstance(path, Unknown):
            self.invalidate_files("a file of a path that is not known is written")
        elif isinstance(path, str) and path.rpartition("/")[2] in MOUNTS_FILES:
            absolute = self.absolute(path)
            self.files.append(WrittenFile(absolute if isinstance(absolute, str) else path, value, self.location))

    def written_json(self, path: Any) -> Any:
        """Return the value of the mounts file that the code wrote last, None if ``path`` is another file."""
        absolute = self.absolute(path) if isinstance(path, str) else None
        return self.files[-1].value if self.files and self.files[-1].path == absolute else None

    def invalidate_files(self, reason: str) -> None:
        """Make the content of the mounts files that the code wrote unknown."""
        for path in dict.fromkeys(file.path for file in self.files):
            self.files.append(WrittenFile(path, self.unknown(reason), self.location))

    def lose_mounts_file(self, reason: str) -> None:
        """Make the content of the mounts file unknown, also if the code has not written it yet."""
        self.write_file(f"{self.machine.home}/{MOUNTS_FILES[0]}", self.unknown(reason))


def names_mounts_file(text: object) -> bool:
    """Check whether a text or path names a mounts file."""
    text = text.text if isinstance(text, PurePath) else text
    return isinstance(text, str) and any(name in text for name in MOUNTS_FILES)


def is_placeholder(text: str) -> bool:
    """Check whether a text stands for a value that only the user knows, apart from the variables it refers to."""
    if len(text) > _LONGEST_PLACEHOLDER:
        return False
    if isinstance(text, TracedStr):
        text = "\0".join(segment.text for segment in text.segments if not segment.kind)
    return any(hint in text for hint in _HINTS) and PLACEHOLDER.search(text) is not None
