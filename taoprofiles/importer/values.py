"""The values that a notebook's code can have here, beside text, numbers, lists and dictionaries."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING

from taoprofiles.importer.limits import DEPTH, Exhausted, Place, Raised, Unknown
from taoprofiles.importer.provenance import Part, Text, parts, pure_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from taoprofiles.importer.limits import Budget


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

    @property
    def nodes(self) -> list[ast.AST]:
        """The code of it."""
        return [self.body] if isinstance(self.body, ast.expr) else [*self.body]


class Code(Unknown):
    """A function or class of the code's own that is not followed, and all that is made by it: what a call may do."""

    __slots__ = ("nodes",)

    def __init__(self, reason: str, place: Place, node: ast.AST) -> None:
        super().__init__(reason, place)
        self.nodes = [node]


class PartlyKnown(Unknown):
    """The JSON text of a value that is unknown in part: nobody can say how it reads, but what is written with it."""

    __slots__ = ("value",)

    def __init__(self, reason: str, place: Place, value: Any) -> None:
        super().__init__(reason, place)
        self.value = value


class Iterated:
    """What can be gone through once: what ``zip`` and its like give."""

    __slots__ = ("entries",)

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries


class _Lost:
    """What alone stands in a list or dictionary of which nothing is known any more, whoever has it."""

    __slots__ = ("why",)

    def __init__(self, why: Unknown) -> None:
        self.why = why


_LOST_KEY = object()


def can_change(value: Any) -> bool:
    """Whether it is something that can be changed, or do something, under whatever other name it has."""
    return isinstance(value, (list, dict, tuple, Iterated, Function, Method)) or bool(
        isinstance(value, Unknown) and (value.may_be or isinstance(value, Code))
    )


class View:
    """What a dictionary's ``keys()``, ``values()`` or ``items()`` gives: always what is in it now."""

    __slots__ = ("name", "of")

    def __init__(self, of: dict[Any, Any], name: str) -> None:
        self.of, self.name = of, name

    @property
    def entries(self) -> list[Any]:
        """What is in it now."""
        return list(self.of) if self.name == "keys" else list(getattr(self.of, self.name)())


def lose(value: list[Any] | dict[Any, Any], why: Unknown) -> None:
    """Make a list or dictionary unknown as a whole: what is in it, and how much."""
    value.clear()
    if isinstance(value, dict):
        value[_LOST_KEY] = _Lost(why)
    else:
        value.append(_Lost(why))


def spoilt(value: Any) -> Unknown | None:
    """Give why a list or dictionary is unknown as a whole; None where it is not."""
    only = value.get(_LOST_KEY) if isinstance(value, dict) else value[0] if len(value) == 1 else None
    return Unknown(only.why.reason, only.why.place) if isinstance(only, _Lost) else None


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


_OPTIONS: dict[str, Any] = {
    "indent": (int, str, type(None)), "sort_keys": bool, "ensure_ascii": bool, "separators": (tuple, type(None)),
}  # fmt: skip
_INDENT = 16

PLAIN = (str, int, float, bool, type(None))


def kind(value: object) -> str:
    """Name a value's type, as Python's messages do."""
    known = {Text: "str", Dumped: "str", PurePath: "PosixPath", File: "TextIOWrapper", type(None): "NoneType"}
    return known.get(type(value), type(value).__name__)


def deep_copy(value: Any, budget: Budget, known: dict[int, Any]) -> Any:
    """Give ``copy.deepcopy(value)``: what it has twice, the copy has twice. ``known`` is for its own use."""
    budget.step()
    if not isinstance(value, (list, dict, tuple)) or id(value) in known:
        return known.get(id(value), value)
    if isinstance(value, tuple):
        return tuple(deep_copy(inner, budget, known) for inner in value)
    made: Any = type(value)()
    known[id(value)] = made
    if len(known) > DEPTH:
        budget.made(len(value))
    if isinstance(value, dict):
        made.update({key: deep_copy(inner, budget, known) for key, inner in value.items()})
    else:
        made += [deep_copy(inner, budget, known) for inner in value]
    return made


def copied(value: Any, budget: Budget, depth: int = 0) -> Any:
    """Copy what JSON makes of a value. Raises Exhausted, Raised for one that holds itself."""
    budget.step()
    if depth > DEPTH:
        raise Raised("ValueError", "Circular reference detected")
    if isinstance(value, dict):
        return spoilt(value) or {key: copied(inner, budget, depth + 1) for key, inner in value.items()}
    if isinstance(value, list) and spoilt(value):
        return spoilt(value)
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
        for key in [key for key in value if not isinstance(key, str)]:
            value[json.loads(json.dumps({key: 0}).replace(": 0", ": null")).popitem()[0]] = value.pop(key)
        for inner in value.values():
            _check_json(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner)
    elif not isinstance(value, (*PLAIN, Unknown)):
        raise Raised("TypeError", f"Object of type {kind(value)} is not JSON serializable")


def equal(a: Any, b: Any, budget: Budget, depth: int = 0) -> bool | None:
    """Compare two values, None where a part of them is unknown.

    Step by step: Python's own comparison may take for ever on what shares its parts.
    """
    budget.step()
    if depth > DEPTH:
        raise Exhausted
    if any(isinstance(one, (Unknown, Known, Method, _Lost)) for one in (a, b)):
        return None
    if isinstance(a, PLAIN) and isinstance(b, PLAIN):
        return a == b
    if isinstance(a, PurePath) and isinstance(b, PurePath):
        return a.text == b.text
    if isinstance(a, dict) and isinstance(b, dict):
        budget.made(len(a))
        if spoilt(a) or spoilt(b):
            return None
        return a.keys() == b.keys() and _all([equal(a[key], b[key], budget, depth + 1) for key in a])
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        if spoilt(a) or spoilt(b):
            return None
        return len(a) == len(b) and _all([equal(x, y, budget, depth + 1) for x, y in zip(a, b, strict=True)])
    return a is b


def _all(told: list[bool | None]) -> bool | None:
    return False if False in told else None if None in told else True


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


def dumps(value: Any, budget: Budget, place: Place, **options: Any) -> Text | PartlyKnown:
    """Give ``json.dumps(value)``, with what it was made of. The options are those that ``JSON_OPTIONS`` names."""
    tree = as_json(value, budget)
    if holds_unknown(tree):
        return PartlyKnown("the JSON text of something unknown", place, tree)
    try:
        text = json.dumps(tree, **options)
    except (TypeError, ValueError) as error:
        raise Raised(type(error).__name__, str(error)) from None
    budget.made(len(text))
    made = Dumped([Part(text)])
    made.value = tree
    return made


def loadable(text: str, value: Any) -> Text:
    """Give a text that is known to be the JSON of a value."""
    made = Dumped(parts(text))
    made.value = value
    return made


def plain_options(named: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the options of ``json.dump`` that change nothing but the look of it; None where there are others."""
    known = {key: value for key, value in named.items() if isinstance(value, _OPTIONS.get(key, ()))}
    if isinstance(known.get("indent"), int) and not 0 <= known["indent"] <= _INDENT:
        return None
    if any(not isinstance(one, str) or len(one) > _INDENT for one in known.get("separators") or ()):
        return None
    return known if known.keys() == named.keys() and len(str(known.get("indent"))) <= _INDENT else None


def holds_unknown(value: Any) -> bool:
    """Whether a part of a JSON value is unknown."""
    if isinstance(value, dict):
        return any(map(holds_unknown, value.values()))
    if isinstance(value, list):
        return any(map(holds_unknown, value))
    return isinstance(value, Unknown)
