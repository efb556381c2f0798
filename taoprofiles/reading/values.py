"""The values that a notebook's code can have here, beside text, numbers, lists and dictionaries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from taoprofiles.reading.bounds import DEPTH, Exhausted, Raised, Unknown
from taoprofiles.reading.traced import Part, Text, pure_path

if TYPE_CHECKING:
    import ast
    from collections.abc import Mapping
    from typing import Any

    from taoprofiles.reading.bounds import Budget


class Known:
    """Something of Python's or its library's that is understood by its dotted name, such as ``os.path.join``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Method:
    """A method of a value, ready to be called."""

    __slots__ = ("name", "of")

    def __init__(self, of: Any, name: str) -> None:
        self.of, self.name = of, name


class Function:
    """A function that the code defines itself."""

    __slots__ = ("around", "body", "cell", "defaults", "parameters")

    def __init__(
        self,
        parameters: list[str],
        defaults: Mapping[str, Any],
        body: list[ast.stmt] | ast.expr,
        *,
        cell: int,
        around: list[dict[str, Any]],
    ) -> None:
        self.parameters, self.defaults, self.body, self.cell, self.around = parameters, defaults, body, cell, around


class Id(int):
    """A user or group id of this machine, with its origin."""

    part: Part


class PurePath:
    """A ``pathlib.Path``."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = pure_path(text)


class File:
    """An open file: what is written to it is only noted."""

    __slots__ = ("mode", "path", "written")

    def __init__(self, path: Any, mode: str) -> None:
        self.path, self.mode = path, mode
        self.written: list[Any] = []


class Dumped(Text):
    """The JSON text of a value, which is remembered with its origins."""

    __slots__ = ("value",)
    value: Any


PLAIN = (str, int, float, bool, type(None))


def kind(value: object) -> str:
    """Name a value's type, as Python's messages do."""
    known = {Text: "str", Dumped: "str", PurePath: "PosixPath", File: "TextIOWrapper", type(None): "NoneType"}
    return known.get(type(value), type(value).__name__)


def copied(value: Any, budget: Budget, depth: int = 0) -> Any:
    """Copy lists and dictionaries, as deep as they go. Raises Exhausted, Raised for one that holds itself."""
    budget.step()
    if depth > DEPTH:
        raise Raised("ValueError", "Circular reference detected")
    if isinstance(value, dict):
        return {key: copied(inner, budget, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(inner, budget, depth + 1) for inner in value]
    return value


def as_json(value: Any, budget: Budget) -> Any:
    """Give what ``json.dump`` would write, origins kept. Raises Raised, Exhausted."""
    value = copied(value, budget)
    _check_json(value)
    return value


def _check_json(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, PLAIN):
                raise Raised("TypeError", f"keys must be str, int, float, bool or None, not {kind(key)}")
            _check_json(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner)
    elif not isinstance(value, (*PLAIN, Unknown)):
        raise Raised("TypeError", f"Object of type {kind(value)} is not JSON serializable")


def equal(a: Any, b: Any, budget: Budget, depth: int = 0) -> bool:
    """Compare two values, step by step: Python's own comparison may take for ever on what shares its parts."""
    budget.step()
    if depth > DEPTH:
        raise Exhausted
    if isinstance(a, PLAIN) and isinstance(b, PLAIN):
        return a == b
    if isinstance(a, PurePath) and isinstance(b, PurePath):
        return a.text == b.text
    if isinstance(a, dict) and isinstance(b, dict):
        budget.made(len(a))
        return a.keys() == b.keys() and all(equal(a[key], b[key], budget, depth + 1) for key in a)
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(equal(x, y, budget, depth + 1) for x, y in zip(a, b, strict=True))
    return a is b


def loads(text: str) -> Any:
    """Give ``json.loads(text)``. Raises Raised, also for what is nested beyond all need."""
    if isinstance(text, Dumped):
        return text.value
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Raised("JSONDecodeError", str(error)) from None
    except RecursionError:
        deep = True
    else:
        deep = _is_deep(value)
    if deep:
        raise Raised("RecursionError", "maximum recursion depth exceeded")
    return value


def _is_deep(value: Any) -> bool:
    """Whether a JSON value is nested deeper than what follows here goes."""
    level = [value]
    for _ in range(DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def dumps(value: Any, budget: Budget, *, indent: Any = None) -> Text:
    """Give ``json.dumps(value)``, with what it was made of."""
    tree = as_json(value, budget)
    if holds_unknown(tree):
        text = ""  # what it says in full is of no use to anybody then
    else:
        text = json.dumps(tree, indent=indent if isinstance(indent, int) and 0 <= indent <= 16 else None)
    budget.made(len(text))
    made = Dumped([Part(text)])
    made.value = tree
    return made


def holds_unknown(value: Any) -> bool:
    """Whether a part of a JSON value is unknown."""
    if isinstance(value, dict):
        return any(map(holds_unknown, value.values()))
    if isinstance(value, list):
        return any(map(holds_unknown, value))
    return isinstance(value, Unknown)
