"""Operators, attributes, subscripts and text formatting on the values of the evaluator.

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
    PurePath,
    SimulatedException,
    Unknown,
    concat,
    cut,
    join_path,
    split_path,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.importer.evaluator import Evaluator

_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "join format replace split rsplit partition rpartition strip lstrip rstrip removeprefix removesuffix lower "
        "upper title capitalize startswith endswith find count isdigit".split()
    ),
    PurePath: frozenset(
        "joinpath expanduser resolve absolute as_posix exists is_dir is_file mkdir write_text open".split()
    ),
    dict: frozenset("get update pop setdefault keys values items copy clear".split()),
    list: frozenset("append extend copy clear".split()),
    File: frozenset("write close flush".split()),
}
_CALCULATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_PERCENT = re.compile(r"%(?:\((\w+)\))?([sdi%])|%")
_SPECIFICATION = re.compile(r"[^\d]?[<>^=+ -]?0?\d{0,3}(\.\d{1,2})?[dfsxX]?")


def attribute(ev: Evaluator, value: Any, name: str) -> Any:
    """Return ``value.name``."""
    if isinstance(value, Library):
        whole = f"{value.name}.{name}".replace("posixpath.", "os.path.")
        return concat("/") if whole in ("os.sep", "os.path.sep") else Library(whole)
    if isinstance(value, PurePath) and name in ("parent", "name"):
        head, tail = split_path("" if value.text == "." else value.text)
        part = ev.part(value.text, tail if name == "name" else head or ".")
        return part if name == "name" or isinstance(part, Unknown) else PurePath(part)
    if isinstance(value, Unknown) and name in ("write_text", "write_bytes"):
        ev.state.invalidate_files("a file of a path that is not known is written")
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
    if isinstance(op, ast.Div) and (isinstance(left, PurePath) or isinstance(right, PurePath)):
        return as_path(ev, left, right)
    if isinstance(op, ast.Mod) and isinstance(left, str):
        return _format_percent(ev, left, right)
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


# Paths


def path_texts(ev: Evaluator, args: list[Any]) -> list[str] | Unknown:
    """Return the texts of paths. Raises SimulatedException for other types, and for no argument."""
    texts = [arg.text if isinstance(arg, PurePath) else arg for arg in args]
    if not texts or any(isinstance(text, (*PLAIN, list, tuple, dict)) and not isinstance(text, str) for text in texts):
        raise SimulatedException("TypeError", "expected str, bytes or os.PathLike object")
    is_known = all(isinstance(text, str) for text in texts)
    return texts if is_known else ev.state.unknown("a path that is not known", *texts)


def as_path(ev: Evaluator, *args: Any) -> PurePath | Unknown:
    """Return ``pathlib.Path(*args)``. Raises SimulatedException."""
    texts = path_texts(ev, list(args))
    text = texts if isinstance(texts, Unknown) else ev.join([join_path(*texts)])
    return text if isinstance(text, Unknown) else PurePath(text)


# Formatting


def _format_percent(ev: Evaluator, text: str, values: Any) -> Any:
    """Return ``text % values`` for plain ``%s`` and ``%d``."""
    remaining = list(values) if isinstance(values, tuple) else [values]
    pieces: list[Any] = []
    position = 0
    for match in _PERCENT.finditer(text):
        name, conversion = match.groups()
        pieces.append(cut(text, position, match.start()))
        position = match.end()
        if conversion == "%":
            pieces.append("%")
            continue
        if name is None and not remaining:
            raise SimulatedException("TypeError", "not enough arguments for format string")
        value = remaining.pop(0) if name is None else ev.state.known(entry(ev, values, name))
        if conversion is None or (conversion != "s" and not isinstance(value, (int, Unknown))):
            return ev.unknown("a format that is not followed", value, values)
        pieces.append(ev.as_text(int(value) if conversion != "s" and isinstance(value, bool) else value))
    if remaining and isinstance(values, (tuple, PurePath, *PLAIN)):
        raise SimulatedException("TypeError", "not all arguments converted during string formatting")
    return ev.join([*pieces, cut(text, position, len(text))])


def format_value(ev: Evaluator, value: Any, specification: Any) -> Any:
    """Return ``format(value, specification)``, for numbers and texts with a small width."""
    if not specification:
        return ev.as_text(value)
    is_followed = isinstance(specification, str) and isinstance(value, (str, int, float))
    if not is_followed or not _SPECIFICATION.fullmatch(specification):
        return ev.unknown("a format that is not followed", value, specification)
    try:
        return concat(format(str(value) if isinstance(value, str) else value, str(specification)))
    except (ValueError, OverflowError) as error:
        raise SimulatedException(type(error).__name__, str(error)) from None


def expand_variables(ev: Evaluator, text: str) -> Any:
    """Return ``os.path.expandvars(text)``."""
    pieces: list[Any] = []
    position = 0
    for match in re.finditer(r"\$(\w+|\{[^}]*\})", text, re.ASCII):
        value = ev.state.environment(match[1].removeprefix("{").removesuffix("}"))
        pieces += [cut(text, position, match.start()), match[0] if value is None else value]
        position = match.end()
    return ev.join([*pieces, cut(text, position, len(text))])


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
        if conversion not in (None, "s") or not re.fullmatch(r"[0-9]{1,3}|([A-Za-z_]\w*)?", field, re.ASCII):
            return ev.unknown("a format that is not followed", *positional, *named.values())
        try:
            value = named[field] if field.isidentifier() else positional[int(field or next(automatic))]
        except (KeyError, IndexError) as error:
            raise SimulatedException(type(error).__name__, str(error)) from None
        pieces.append(format_value(ev, ev.as_text(value) if conversion else value, specification))
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
    return Json("a JSON text", ev.state.location, to_json(ev, value, is_sorted=flags[0]))


def to_json(ev: Evaluator, value: Any, depth: int = 0, *, is_sorted: bool = False) -> Any:
    """Return a copy of what ``json.dump`` would write, with Unknown for what is not known."""
    ev.budget.step()
    if depth > DEPTH_LIMIT:
        raise SimulatedException("ValueError", "Circular reference detected")
    value = ev.state.known(value)
    if isinstance(value, dict):
        try:
            keys = sorted(value) if is_sorted else list(value)
        except TypeError as error:
            raise SimulatedException("TypeError", str(error)) from None
        return {_json_key(key): to_json(ev, value[key], depth + 1, is_sorted=is_sorted) for key in keys}
    if isinstance(value, (list, tuple)):
        return [to_json(ev, inner, depth + 1, is_sorted=is_sorted) for inner in value]
    if not isinstance(value, (*PLAIN, Unknown)):
        raise SimulatedException("TypeError", f"Object of type {type_name(value)} is not JSON serializable")
    return value


def _json_key(key: Any) -> str:
    return key if isinstance(key, str) else str(json.loads(json.dumps({key: 0}).replace(": 0", ": null")).popitem()[0])
