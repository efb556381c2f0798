"""The values that code can have during static evaluation, and the limits of the evaluation.

Numbers, lists, dictionaries and tuples are Python's own. Strings are ``TracedStr``, which record where each piece of
them came from, so that a profile can refer to a variable. Everything else is one of the classes below. A value that
depends on something that is not followed is ``Unknown``, with the reason and the line.
"""

from __future__ import annotations

import json
import pathlib
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.mounts.mapping import is_deeper

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterable
    from typing import Self

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


def expand_home(text: str, home: str) -> TracedStr:
    """Return ``os.path.expanduser(text)`` for the user's own home."""
    if text == "~" or text.startswith("~/"):
        return concat(home.rstrip("/"), cut(text, 1, len(text))) or concat("/")
    return concat(text)


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
    """Counts evaluation steps and created data. Methods raise Exhausted."""

    def __init__(self) -> None:
        self._steps, self._size = STEPS_LIMIT, SIZE_LIMIT

    def step(self) -> None:
        """Count one step."""
        self._steps -= 1
        if self._steps < 0:
            raise Exhausted

    def add(self, size: int) -> None:
        """Count created data."""
        self._size -= size
        if self._size < 0:
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

    parameters: list[str]
    defaults: dict[str, Any]
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

    @property
    def entries(self) -> list[Any]:
        """Return the current entries."""
        return list(self.owner) if self.name == "keys" else list(getattr(self.owner, self.name)())


class Id(int):
    """A user or group id of this machine, with its origin."""

    segment: Segment


class PurePath:
    """A ``pathlib.Path``."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = trace(text, str(pathlib.PurePosixPath(text)))[0]


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
