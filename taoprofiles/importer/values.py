"""The values that code can have during static evaluation, and the limits of the evaluation.

Text, numbers, lists, dictionaries and tuples are Python's own. Everything else is one of the classes below. A value
that depends on something that is not followed is ``Unknown``, with the reason and the line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.importer.provenance import Exhausted, Segment, TracedStr, pure_path

if TYPE_CHECKING:
    import ast

CELL_STEPS = 20_000
"""Evaluation steps in one cell. A set-up cell takes a few hundred."""
ALL_STEPS = 200_000
ALL_SIZE = 1 << 21
"""Characters and entries created in one file."""
ENTRY_SIZE = 4
"""The size of one entry of a dictionary or tuple, compared with one character."""
PIECE_SIZE = 16
"""The size of one substring, in addition to its characters."""
TEXT_LIMIT = 1 << 16
ENTRIES_LIMIT = 10_000
DEPTH_LIMIT = 60
CALLS_LIMIT = 12
TEXTS_LIMIT = 5
"""Magics that expand magics."""
NUMBER_BITS = 256


class SourceLocation(NamedTuple):
    """A cell (0 in a script) and a line of it, both counted from 1."""

    cell: int
    line: int

    def __str__(self) -> str:
        """Return the location as messages name it."""
        return f"cell {self.cell}, line {self.line}" if self.cell else f"line {self.line}"


class SimulatedException(Exception):
    """An exception that the imported code would raise."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        """Return the last line of the traceback."""
        return f"{self.kind}: {self.message}"


class ControlFlow(Exception):
    """A ``return``, ``break`` or ``continue`` of the imported code."""

    def __init__(self, kind: str, value: Any = None) -> None:
        super().__init__(kind)
        self.kind, self.value = kind, value


class NotFollowed(Exception):
    """A loop or function perhaps ended early, so the rest of it cannot be followed. ``kinds`` are the statements."""

    def __init__(self, kinds: set[str]) -> None:
        super().__init__(*kinds)
        self.kinds = kinds


class Budget:
    """Counts evaluation steps and created data. Methods raise Exhausted."""

    def __init__(self) -> None:
        self._steps, self._size, self._cell_steps = ALL_STEPS, ALL_SIZE, CELL_STEPS
        self.is_unlimited = False

    def start_cell(self) -> None:
        """Reset the steps of one cell."""
        self._cell_steps = CELL_STEPS

    def step(self) -> None:
        """Count one step."""
        self._steps -= 1
        self._cell_steps -= 1
        if min(self._steps, self._cell_steps) < 0 and not self.is_unlimited:
            raise Exhausted

    def add(self, size: int) -> None:
        """Count created data."""
        self._size -= size
        if self._size < 0 and not self.is_unlimited:
            raise Exhausted


@dataclass(slots=True, eq=False)
class Unknown:
    """A value that is not known without running the code."""

    reason: str
    location: SourceLocation


@dataclass(slots=True, eq=False)
class UnknownJson(Unknown):
    """The JSON text of a value that is unknown in part. ``value`` is that value."""

    value: Any = None


@dataclass(slots=True, frozen=True)
class Library:
    """Something of Python or its library, by its dotted name, such as ``os.path.join``."""

    name: str


@dataclass(slots=True, eq=False)
class Method:
    """A bound method of a value."""

    owner: Any
    name: str


@dataclass(slots=True, eq=False)
class Function:
    """A function that the imported code defines, with plain parameters."""

    parameters: list[str]
    defaults: dict[str, Any]
    body: list[ast.stmt]
    local_names: frozenset[str]
    cell: int


@dataclass(slots=True, eq=False)
class Iterator:
    """An iterator that can be consumed once, such as ``zip(…)``."""

    entries: list[Any]


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
        self.text = pure_path(text)


@dataclass(slots=True, eq=False)
class File:
    """An open file. What is written to it is only recorded."""

    path: Any
    mode: str
    written: list[Any] = field(default_factory=list)


class JsonText(TracedStr):
    """A JSON text whose value is known with the origins of its strings."""

    __slots__ = ("value",)
    value: Any


PLAIN = (str, int, float, bool, type(None))
_TYPE_NAMES: dict[type, str] = {
    TracedStr: "str", JsonText: "str", Id: "int", PurePath: "PosixPath", File: "TextIOWrapper", type(None): "NoneType",
}  # fmt: skip


def type_name(value: object) -> str:
    """Return the name of a value's type, as Python's messages have it."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def holds_unknown(value: Any) -> bool:
    """Check whether a part of a JSON value is unknown."""
    if isinstance(value, dict):
        return any(map(holds_unknown, value.values()))
    if isinstance(value, list):
        return any(map(holds_unknown, value))
    return isinstance(value, Unknown)


def json_text(text: str, value: Any) -> JsonText:
    """Return a JSON text together with its value."""
    result = JsonText([Segment(text)])
    result.value = value
    return result


def parse_json(text: str) -> Any:
    """Return ``json.loads(text)``. Raises SimulatedException, also for a value that is nested too deeply."""
    if isinstance(text, JsonText):
        return text.value
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SimulatedException("JSONDecodeError", str(error)) from None
    except RecursionError:
        value = None
        too_deep = True
    else:
        too_deep = _is_too_deep(value)
    if too_deep:
        raise SimulatedException("RecursionError", "maximum recursion depth exceeded")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        containers = [item for item in level if isinstance(item, (dict, list))]
        level = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    return bool(level)
