"""What operators, attributes, entries and text formatting do with the values of the evaluator.

Each function takes the evaluator, and returns Unknown for what is not followed.
"""

from __future__ import annotations

import ast
import json
import operator
import re
import string
from typing import TYPE_CHECKING, Any

from taoprofiles.importer.values import (
    DEPTH_LIMIT,
    NUMBER_BITS,
    PLAIN,
    File,
    Json,
    Library,
    Method,
    SimulatedException,
    Unknown,
    concat,
    cut,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.importer.evaluator import Evaluator

_METHODS: dict[type, frozenset[str]] = {
    str: frozenset("join format split strip lstrip rstrip lower upper startswith endswith".split()),
    dict: frozenset("get update pop setdefault keys values items copy clear".split()),
    list: frozenset("append extend copy clear".split()),
    File: frozenset("write close flush".split()),
}
_CALCULATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


def attribute(ev: Evaluator, value: Any, name: str) -> Any:
    """Return ``value.name``."""
    if isinstance(value, Library):
        whole = f"{value.name}.{name}".replace("posixpath.", "os.path.")
        return concat("/") if whole in ("os.sep", "os.path.sep") else Library(whole)
    for owner_type, methods in _METHODS.items():
        if isinstance(value, owner_type) and name in methods:
            return Method(value, name)
    return ev.unknown(f"'{name}' of a {type_name(value)} is not followed", value)


def entry(ev: Evaluator, owner: Any, key: Any) -> Any:
    """Return ``owner[key]``. Raises SimulatedException."""
    if owner == Library("os.environ") and not isinstance(key, Unknown):
        if not isinstance(key, str):
            raise SimulatedException("TypeError", f"str expected, not {type_name(key)}")
        value = ev.state.environment(key)
        if value is None:
            raise SimulatedException("KeyError", f"'{key}'")
        return value
    if isinstance(owner, dict) and isinstance(key, PLAIN):
        if key not in owner:
            raise SimulatedException("KeyError", repr(key))
        return owner[key]
    if isinstance(owner, (list, tuple, str)) and isinstance(key, int):
        if not -len(owner) <= key < len(owner):
            raise SimulatedException("IndexError", f"{type_name(owner)} index out of range")
        return cut(owner, key % len(owner), key % len(owner) + 1) if isinstance(owner, str) else owner[key]
    if owner is None:
        raise SimulatedException("TypeError", "'NoneType' object is not subscriptable")
    return ev.unknown(f"an entry of a {type_name(owner)}", key, owner)


def contains(ev: Evaluator, owner: Any, item: Any) -> bool | Unknown:
    """Return ``item in owner``."""
    if owner == Library("os.environ") and isinstance(item, str):
        value = ev.state.environment(item)
        return ev.state.unknown(f"whether {item} is set", value) if isinstance(value, Unknown) else value is not None
    if isinstance(owner, str) and isinstance(item, str):
        return item in owner
    if isinstance(owner, (dict, list, tuple)) and isinstance(item, PLAIN):
        ev.budget.add(len(owner))
        if all(isinstance(entry, PLAIN) for entry in owner):
            return item in owner
    return ev.state.unknown(f"a search in a {type_name(owner)}", owner, item)


def operate(ev: Evaluator, op: ast.operator, left: Any, right: Any) -> Any:
    """Return ``left op right``. Raises SimulatedException."""
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return _calculate(ev, op, left, right)
    if isinstance(op, ast.Add) and isinstance(left, Json) and isinstance(right, str) and not right.strip():
        return left  # such as json.dumps(…) + "\n"
    if isinstance(op, ast.BitOr) and isinstance(left, dict) and isinstance(right, dict):
        ev.budget.add(len(left) + len(right))
        return left | right
    if isinstance(op, ast.Add) and not isinstance(left, Unknown) and not isinstance(right, Unknown):
        return _add(ev, left, right)
    return ev.unknown("an operator that is not followed", left, right)


def _add(ev: Evaluator, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return ev.join([left, right])
    for sequence in (list, tuple):
        if isinstance(left, sequence) and isinstance(right, sequence):
            ev.budget.add(len(left) + len(right))
            return sequence([*left, *right])
    if all(isinstance(side, (*PLAIN, list, dict, tuple)) for side in (left, right)):
        message = f"unsupported operand type(s) for +: '{type_name(left)}' and '{type_name(right)}'"
        raise SimulatedException("TypeError", message)
    return ev.unknown("an operator that is not followed", left, right)


def _calculate(ev: Evaluator, op: ast.operator, left: float, right: float) -> Any:
    calculate = _CALCULATIONS.get(type(op))
    if calculate is None:
        return ev.state.unknown("an operator that is not followed")
    try:
        value = calculate(left, right)
    except (ZeroDivisionError, OverflowError) as error:
        raise SimulatedException(type(error).__name__, str(error)) from None
    is_large = isinstance(value, int) and value.bit_length() > NUMBER_BITS
    return ev.state.unknown("a very large number") if is_large else value


# Formatting


def format_text(ev: Evaluator, text: str, positional: list[Any], named: dict[str, Any]) -> Any:
    """Return ``text.format(…)`` for fields that are a name or a number."""
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise SimulatedException("ValueError", str(error)) from None
    pieces: list[Any] = []
    numbered = [field for _, field, _, _ in fields if field is not None and (not field or field.isdigit())]
    if any(numbered) and not all(numbered):
        raise SimulatedException("ValueError", "cannot switch between automatic and manual field numbering")
    automatic = iter(range(len(fields)))
    for literal, field, specification, conversion in fields:
        pieces.append(literal)
        if field is None:
            continue
        if conversion or specification or not re.fullmatch(r"[0-9]{1,3}|([A-Za-z_]\w*)?", field, re.ASCII):
            return ev.unknown("a format that is not followed", *positional, *named.values())
        try:
            value = named[field] if field.isidentifier() else positional[int(field or next(automatic))]
        except (KeyError, IndexError) as error:
            raise SimulatedException(type(error).__name__, str(error)) from None
        pieces.append(ev.as_text(value))
    return ev.join(pieces)


# JSON


def dump_json(ev: Evaluator, value: Any, options: dict[str, Any]) -> Unknown:
    """Return the result of ``json.dumps(value)``; ``options`` are its named arguments."""
    indent = options.get("indent")
    plain_indent = not indent.strip() if isinstance(indent, str) else isinstance(indent, int) or indent is None
    flags = [options.get(flag, False) for flag in ("sort_keys", "ensure_ascii")]
    if not (plain_indent and options.keys() <= {"indent", "sort_keys", "ensure_ascii"}
            and all(isinstance(flag, bool) for flag in flags)):  # fmt: skip
        return ev.unknown("JSON with options that are not followed", value, *options.values())
    if isinstance(value, Unknown):
        return ev.state.unknown("", value)
    return Json("a JSON text", ev.state.location, _to_json(ev, value))


def _to_json(ev: Evaluator, value: Any, depth: int = 0) -> Any:
    """Return a copy of what ``json.dump`` would write, with Unknown for what is not known."""
    ev.budget.step()
    if depth > DEPTH_LIMIT:
        raise SimulatedException("ValueError", "Circular reference detected")
    value = ev.state.known(value)
    if isinstance(value, dict):
        return {_json_key(key): _to_json(ev, inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(ev, inner, depth + 1) for inner in value]
    if not isinstance(value, (*PLAIN, Unknown)):
        raise SimulatedException("TypeError", f"Object of type {type_name(value)} is not JSON serializable")
    return value


def _json_key(key: Any) -> str:
    return key if isinstance(key, str) else str(json.loads(json.dumps({key: 0}).replace(": 0", ": null")).popitem()[0])
