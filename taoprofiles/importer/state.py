"""What the code has set so far (variables, names, the current folder, files written), and the kinds of values.

Numbers, lists, dictionaries and tuples are Python's own. Strings are ``TracedStr``, which record where each piece of
them came from, so that a profile can refer to a variable. Everything else is one of the classes below. A value that
depends on something that is not followed is ``Unknown``, with the reason and the line.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.masking import is_secret
from taoprofiles.mounts.mapping import is_deeper
from taoprofiles.profiles.convert import without_quotes
from taoprofiles.profiles.rendering import LONGEST_PLACEHOLDER, find_placeholder, is_windows_path
from taoprofiles.storage.paths import MAPPING_FILE, expand_user
from taoprofiles.system.filesystem import answers, try_real_path

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterable, Mapping
    from inspect import Signature
    from typing import Self

    from taoprofiles.importer.containers import StartedContainer
    from taoprofiles.storage.paths import Context

STEPS_LIMIT = 200_000
"""Evaluation steps in one file. A set-up cell takes a few hundred."""
SIZE_LIMIT = 1 << 21
"""Characters and entries created in one file."""
ENTRY_SIZE = 4
"""The size of one entry of a list or dictionary, compared with one character."""
TEXT_LIMIT = 1 << 16
DEPTH_LIMIT = 60
NUMBER_BITS = 256

SEGMENTS_LIMIT = 1000
"""Segments of one string. A path has two or three."""


class Exhausted(Exception):
    """A limit is exceeded: the cell is not followed any further."""


class Segment(NamedTuple):
    """A piece of text and its origin: ``kind`` is "" (a literal), variable, env, home, folder, name, uid or gid.

    ``name`` and ``version`` identify one value of a variable, which may have been set again since.
    """

    text: str
    kind: str = ""
    name: str = ""
    version: int = 0


class TracedStr(str):
    """A string with its segments, which joined are the string."""

    __slots__ = ("segments",)
    segments: tuple[Segment, ...]

    def __new__(cls, segments: Iterable[Segment]) -> Self:
        """Join the segments; neighbouring literals become one. Raises Exhausted for too many."""
        merged: list[Segment] = []
        for segment in segments:
            if not segment.text:
                continue
            if merged and not segment.kind and not merged[-1].kind:
                merged[-1] = Segment(merged[-1].text + segment.text)
            else:
                merged.append(segment)
        if len(merged) > SEGMENTS_LIMIT:
            raise Exhausted
        instance = super().__new__(cls, "".join(segment.text for segment in merged))
        instance.segments = tuple(merged)
        return instance


def segments(text: str) -> tuple[Segment, ...]:
    """Return the segments of any string."""
    return text.segments if isinstance(text, TracedStr) else (Segment(text),)


def concat(*texts: str) -> TracedStr:
    """Return the concatenation of texts."""
    return TracedStr(segment for text in texts for segment in segments(text))


def cut(text: str, start: int, end: int) -> TracedStr:
    """Return ``text[start:end]``, for ``0 <= start <= end``; a segment that is cut becomes a literal."""
    result = []
    position = 0
    for segment in segments(text):
        here = segment.text[max(start - position, 0) : max(end - position, 0)]
        result.append(segment if here == segment.text else Segment(here))
        position += len(segment.text)
    return TracedStr(result)


def trace(text: str, *pieces: str) -> list[TracedStr]:
    """Return pieces that were made of ``text``, with the segments of ``text`` if they occur in it in this order."""
    result = []
    position = 0
    for piece in pieces:
        start = text.find(piece, position)
        if start >= 0:
            position = start + len(piece)
        result.append(concat(piece) if start < 0 else cut(text, start, position))
    return result


def join_path(*texts: str) -> TracedStr:
    """Return ``os.path.join(…)``."""
    path: str = texts[0]
    for text in texts[1:]:
        if text.startswith("/"):
            path = text
        else:
            path = concat(path, text) if not path or path.endswith("/") else concat(path, "/", text)
    return concat(path)


def normal_path(text: str) -> TracedStr:
    """Return ``os.path.normpath(text)``."""
    return trace(text, posixpath.normpath(text))[0]


class SourceLocation(NamedTuple):
    """A cell (0 in a script) and a line of it, both counted from 1."""

    cell: int
    line: int

    def __str__(self) -> str:
        """Return the location as messages name it."""
        return f"cell {self.cell}, line {self.line}" if self.cell else f"line {self.line}"


class SimulatedException(Exception):
    """An exception that the imported code would raise; its text is the last line of the traceback."""


class Returned(Exception):
    """A ``return`` of the imported code, with its value as the argument."""


class NotFollowed(Exception):
    """A function may have returned early, so the rest of it cannot be followed."""


class Budget:
    """Counts evaluation steps and created data."""

    def __init__(self) -> None:
        self._steps, self._size = STEPS_LIMIT, SIZE_LIMIT

    def spend(self, size: int = 0) -> None:
        """Count one step, and the size of the data that it creates. Raises Exhausted."""
        self._steps -= 1
        self._size -= size
        if min(self._steps, self._size) < 0:
            raise Exhausted


@dataclass(slots=True, eq=False)
class Unknown:
    """A value that is not known without running the code.

    A text may have a known end, ``tail``; ``origin`` is then the value that it was made of. ``source`` is the module,
    the method or the command that is not followed, if the value comes from one.
    """

    reason: str
    location: SourceLocation
    tail: str = ""
    origin: Unknown | None = None
    source: str = ""


@dataclass(slots=True, eq=False)
class Json(Unknown):
    """The JSON text of ``value``. It can be written to a file; any other use of it is unknown."""

    value: Any = None


@dataclass(slots=True, frozen=True)
class Library:
    """Something of Python or its library, by its dotted name, such as ``os.path.join``."""

    name: str


@dataclass(slots=True, eq=False)
class Function:
    """A function that the imported code defines, with plain parameters."""

    name: str
    signature: Signature
    body: list[ast.stmt]
    local_names: frozenset[str]
    cell: int
    is_escaped: bool = False
    """True once code that is not followed may call it."""


@dataclass(slots=True, eq=False)
class View:
    """What ``keys()``, ``values()`` or ``items()`` of a dictionary returns; it shows later changes."""

    owner: dict[Any, Any]
    name: str


class Id(int):
    """A user or group id of this machine, with its origin."""

    segment: Segment


@dataclass(slots=True, eq=False)
class PurePath:
    """A ``pathlib.Path`` of this text."""

    text: str


@dataclass(slots=True, eq=False)
class OpenFile:
    """An open file. What is written to it is only recorded."""

    path: Any
    mode: str
    written: list[Any]
    closed: bool = False


PLAIN = (str, int, float, bool, type(None))
_TYPE_NAMES: dict[type, str] = {
    TracedStr: "str", Id: "int", PurePath: "PosixPath", OpenFile: "TextIOWrapper", type(None): "NoneType",
}  # fmt: skip


def type_name(value: object) -> str:
    """Return the name of a value's type, as Python's messages have it."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of an operation on plain values. Raises SimulatedException for what it raises."""
    try:
        return function(*args)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise SimulatedException(f"{type(error).__name__}: {error}") from None


def parse_json(text: str) -> Any:
    """Return ``json.loads(text)``, None for text that is not JSON or is nested too deeply."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if is_deeper(value, DEPTH_LIMIT) else value


# The state

PLACEHOLDER_NAME = re.compile(r"(FIX_?ME|TODO|YOUR_[A-Z_]+|REPLACE_?ME|CHANGE_?ME)\Z")
MOUNTS_FILES = (MAPPING_FILE, ".tlt_mounts.json")
MAY_SET = "may set variables that are not known"
_UNEXPANDED = re.compile(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})")
_COMMENT = re.compile(r"\s+#.*", re.DOTALL)
_ALWAYS_SET = frozenset("PATH PWD SHELL TERM LANG".split())
"""Variables that every kernel has, with values of its own."""


class Definition(NamedTuple):
    """One value of an environment variable, where it was set, and what is in doubt of it and what it is made of."""

    value: Any
    location: SourceLocation
    doubtful: list[Origin]


class Origin(NamedTuple):
    """A value of a variable, or of one of Python's names, that a text is made of."""

    name: str
    value: str
    location: SourceLocation


class WrittenFile(NamedTuple):
    """A mounts file as the code wrote it: its path and the value of its JSON, None if it is not JSON."""

    path: str
    value: Any
    location: SourceLocation


@dataclass(slots=True)
class DeferredEffects:
    """What code that is not followed may change from now on, whenever something unknown is called."""

    mentioned: set[str] = field(default_factory=set)
    """Names whose lists, dictionaries and functions it uses."""
    bound: set[str] = field(default_factory=set)
    all_names: bool = False
    variables: set[str] = field(default_factory=set)
    all_variables: bool = False
    folder: bool = False
    mounts_file: bool = False


@dataclass(slots=True)
class State:
    """The state of the evaluation. ``user_values`` take precedence over the values of the code."""

    context: Context
    folder: str | Unknown
    user_values: Mapping[str, str]
    names: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[Definition]] = field(default_factory=dict)
    """Every value of each environment variable that the code sets."""
    unset: dict[str, SourceLocation] = field(default_factory=dict)
    """The variables that the code reads, without a default, and does not set: they may be set where it runs."""
    unset_values: dict[str, Unknown] = field(default_factory=dict)
    """What a shell puts in the place of those of them that a shell command reads."""
    accessed: set[str] = field(default_factory=set)
    """The variables that the code sets or reads."""
    applied: set[str] = field(default_factory=set)
    """The names of ``user_values`` that had an effect."""
    files: list[WrittenFile] = field(default_factory=list)
    containers: list[StartedContainer] = field(default_factory=list)
    """The containers of TAO's images that the code starts without the launcher."""
    location: SourceLocation = field(default=SourceLocation(0, 0))
    notes: list[tuple[SourceLocation, str]] = field(default_factory=list)
    not_followed: dict[SourceLocation, str] = field(default_factory=dict)
    """The statements that are not followed."""
    in_functions: set[SourceLocation] = field(default_factory=set)
    """Those of them that stand in a function."""
    calls: dict[SourceLocation, str] = field(default_factory=dict)
    """The calls and commands whose effects the code does not show."""
    invalidated: dict[int, tuple[Any, Unknown]] = field(default_factory=dict)
    """Lists and dictionaries, by id(), that code that is not followed may have changed."""
    has_unknown_names: bool = False
    """True after code that is not followed and may have bound names that are not known (``import *``)."""
    deferred: DeferredEffects = field(default_factory=DeferredEffects)
    _first: dict[str, Any] = field(default_factory=dict)
    _environment: Unknown | None = None
    """The value of every variable that is not set later, once all variables have become unknown."""

    def __post_init__(self) -> None:
        """Define the given variables."""
        for name, value in self.user_values.items():
            self._define(name, value, SourceLocation(0, 0))

    def unknown(self, reason: str, *origins: Any, source: str = "") -> Unknown:
        """Return an unknown value of the current line; one that depends on an unknown value has its reason."""
        first = next((origin for origin in origins if isinstance(origin, Unknown)), None)
        if first is None:
            return Unknown(reason, self.location, source=source)
        if isinstance(first, Json):
            return Unknown(first.reason, first.location, source=first.source)
        return first.origin or first

    def ending(self, tail: Any, *origins: Any) -> Unknown:
        """Return an unknown path or text of which the end may be known."""
        origin = self.unknown("a text made of something unknown", *origins)
        if not isinstance(tail, str):
            return origin
        return Unknown(origin.reason, origin.location, tail, origin, origin.source)

    def known(self, value: Any) -> Any:
        """Return the value, or Unknown for a list or dictionary that may have been changed."""
        if isinstance(value, (list, dict)) and id(value) in self.invalidated:
            return self.invalidated[id(value)][1]
        return value

    def note(self, text: str) -> None:
        """Add a note about the current line."""
        self.notes.append((self.location, text))

    @property
    def unit(self) -> str:
        """What messages call the code that ends with an exception."""
        return "cell" if self.location.cell else "script"

    # Environment variables

    def environment(self, name: str) -> str | Unknown | None:
        """Return a variable's value, None if it is not set."""
        if name in self.history:
            if name in self.user_values:
                self.applied.add(name)
            self.accessed.add(name)
            version = len(self.history[name]) - 1
            value = self.history[name][version].value
            return value if isinstance(value, Unknown) else TracedStr([Segment(value, "variable", name, version)])
        if name == "HOME":  # also after code that is not followed: it hardly ever sets HOME, which most files need
            return self.home
        if self._environment is not None:
            return self._environment
        if name in _ALWAYS_SET:
            return self.unknown(f"{name} comes from the kernel's environment")
        if name in self.context.environ and (name in ("USER", "LOGNAME") or is_secret(name)):
            return TracedStr([Segment(self.context.environ[name], "env", name)])
        return None

    def set_environment(self, name: Any, value: Any) -> None:
        """Do ``os.environ[name] = value``. Raises SimulatedException as Python does."""
        if isinstance(name, Unknown):
            self.lose_variables(f"a variable whose name is not known is set: {name.reason}")
            return
        for argument in (name, value):
            if not isinstance(argument, (str, Unknown)):
                raise SimulatedException(f"TypeError: str expected, not {type_name(argument)}")
            if isinstance(argument, str) and "\0" in argument:
                raise SimulatedException("ValueError: embedded null byte")
        if not name or "=" in name:
            raise SimulatedException("ValueError: illegal environment variable name")
        if self.deferred.all_variables or name in self.deferred.variables:
            value = self.unknown("may be set by code that import cannot evaluate")
        self.accessed.add(name)
        self._define(name, self.with_user_value(name, value), self.location)

    def lose_variables(self, reason: str, *, later: bool = False) -> None:
        """Make all environment variables unknown, except those that the user gave; with ``later`` for good."""
        self.deferred.all_variables |= later
        self.note(f"{MAY_SET}: {reason}")
        self._environment = self.unknown(reason)
        for name in self.history:
            self._define(name, self.with_user_value(name, self._environment), self.location)

    def _define(self, name: str, value: Any, location: SourceLocation) -> None:
        doubtful = [Origin(name, value, location)] if isinstance(value, str) and doubt(value) else []
        doubtful += self.origins(value) if isinstance(value, str) else []
        self.history.setdefault(name, []).append(Definition(value, location, doubtful))

    def with_user_value(self, name: str, value: Any) -> Any:
        """Return the value that the user gave for ``name`` instead of ``value``, if any.

        It replaces the first value that the code sets, placeholders and unknown values; another value that the code
        sets later on, for another purpose, stays.
        """
        if name not in self.user_values:
            return value
        plain = value if isinstance(value, Unknown) else str(value)
        first = self._first.setdefault(name, plain)
        if isinstance(value, Unknown) or plain == first or is_placeholder(value):
            self.applied.add(name)
            return TracedStr([Segment(self.user_values[name])])
        return value

    def origins(self, text: str) -> list[Origin]:
        """Return the values that a text is made of and that are in doubt, except those that the user gave."""
        result: dict[str, Origin] = {}
        for segment in reversed(segments(text)):
            origins: Iterable[Origin] = ()
            if segment.kind == "name":
                location = SourceLocation(*divmod(segment.version, 1 << 20))
                origins = [Origin(segment.name, segment.text, location)]
            elif segment.kind == "variable" and segment.name not in self.user_values:
                origins = self.history[segment.name][segment.version].doubtful
            for origin in origins:
                result.setdefault(origin.name, origin)
        return list(result.values())

    def holds_placeholder(self, text: str) -> bool:
        """Check whether a text, or a value that it is made of, is a placeholder."""
        return is_placeholder(text) or any(is_placeholder(origin.value) for origin in self.origins(text))

    # The home and the current folder

    @property
    def home(self) -> str | Unknown:
        """The home as ``os.path.expanduser("~")`` returns it: the environment's HOME counts."""
        if "HOME" in self.history:
            return self.environment("HOME") or self.unknown("the home folder while HOME is empty")
        return TracedStr([Segment(self.context.home, "home")])

    def expand_home(self, path: str) -> str | Unknown:
        """Return ``os.path.expanduser(path)``."""
        if not path.startswith("~"):
            return path
        if path.partition("/")[0] != "~":
            return concat(self.context.expand_user(path))
        home = self.home
        if isinstance(home, Unknown):
            return home
        return concat(home.rstrip("/"), cut(path, 1, len(path))) or concat("/")

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
        real, normal = try_real_path(whole), normal_path(whole)
        return normal if real == normal else concat(real)

    def change_folder(self, path: Any) -> None:
        """Do ``os.chdir(path)``. The folder is unknown if there is none of that path yet."""
        folder = self.resolved(path) if isinstance(path, str) else path
        whole = join_path(self.folder if isinstance(self.folder, str) else "", path) if isinstance(path, str) else ""
        if isinstance(folder, str) and answers(os.path.isdir, [whole]).get(whole) is False:
            folder = self.unknown(f"whether the folder '{path}' exists")
            self.note(f"the folder '{path}' does not exist here; the {self.unit} may end at this line when run")
        self.folder = folder
        if self.deferred.folder:
            self.lose_folder()

    def lose_folder(self, *, later: bool = False) -> None:
        """Make the current folder unknown; with ``later`` for good."""
        self.deferred.folder |= later
        self.folder = self.unknown("the current folder may have changed")

    # Mounts files

    def write_file(self, path: Any, value: Any) -> None:
        """Record the content of a mounts file; other files are ignored.

        ``value`` is the value of its JSON, None if it is not JSON. A write to an unknown path may have changed it.
        """
        if isinstance(path, Unknown):
            if names_mounts_file(path.tail) or any(name.endswith(path.tail) for name in MOUNTS_FILES):
                self.invalidate_files("a file at an unknown path is written")
        elif isinstance(path, str) and path.rpartition("/")[2] in MOUNTS_FILES:
            absolute = self.absolute(path)
            if self.deferred.mounts_file:
                value = self.unknown("may be written by code that import cannot evaluate")
            self.files.append(WrittenFile(absolute if isinstance(absolute, str) else path, value, self.location))

    def invalidate_files(self, reason: str) -> None:
        """Make the content of the mounts files that the code wrote unknown."""
        for path in dict.fromkeys(file.path for file in self.files):
            self.files.append(WrittenFile(path, self.unknown(reason), self.location))

    def invalidate_mounts_file(self, reason: str, name: str = MAPPING_FILE) -> None:
        """Make the content of a mounts file unknown, also if the code has not written it yet."""
        self.write_file(f"{self.context.home}/{name}", self.unknown(reason))

    def invalidate_all(self, reason: str) -> None:
        """Make unknown all variables and the mounts file."""
        self.lose_variables(reason)
        self.invalidate_mounts_file(reason)


def names_mounts_file(text: object) -> bool:
    """Check whether a text or path names a mounts file."""
    text = text.text if isinstance(text, PurePath) else text
    return isinstance(text, str) and any(name in text for name in MOUNTS_FILES)


def is_placeholder(text: str) -> bool:
    """Check whether a text stands for a value that only the user knows, apart from the variables it refers to."""
    return find_placeholder(_literal(text)) != ""


def placeholder_reason(text: str) -> str:
    """Return why a placeholder is not a value, "" for any other text."""
    return "a placeholder" if is_placeholder(text) else ""


def doubt(text: str) -> str:
    """Return why a text is not the path that is meant, apart from the variables it refers to, "" if it may be."""
    literal = _literal(text)[: LONGEST_PLACEHOLDER + 1]
    unexpanded, comment = _UNEXPANDED.search(literal), _COMMENT.search(literal)
    if comment and not is_placeholder(text):
        return "IPython keeps the comment in the value"
    if is_windows_path(literal):
        return "a Windows path"
    if without_quotes(literal) != literal:
        return "the quotes are a part of the value"
    user = literal.partition("/")[0]
    if user.startswith("~") and expand_user(user, "/") == user:
        return f"there is no user '{user[1:]}'"
    return placeholder_reason(text) or (f"nothing expands {unexpanded[0]}" if unexpanded else "")


def suggestion(text: str, environ: Mapping[str, str]) -> str:
    """Return the path that a text with a comment, quotes or $NAME means, "" if that is not known."""
    path = _COMMENT.sub("", text)
    known = {name: environ[name] for name in ("HOME", "USER", "LOGNAME") if name in environ}
    path = _UNEXPANDED.sub(lambda match: known.get(match[0].strip("${}"), match[0]), path)
    path = without_quotes(path)
    return "" if doubt(str(path)) or path == text else path


def _literal(text: str) -> str:
    if isinstance(text, TracedStr):
        return "\0".join(segment.text for segment in text.segments if not segment.kind)
    return text
