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

from taoprofiles.importer.provenance import Exhausted, TracedStr, concat, cut, join_path, split_path
from taoprofiles.importer.values import (
    DEPTH_LIMIT,
    NUMBER_BITS,
    PLAIN,
    File,
    Function,
    Library,
    Method,
    PurePath,
    SimulatedException,
    Unknown,
    UnknownJson,
    View,
    holds_unknown,
    json_text,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taoprofiles.importer.evaluator import Evaluator

STRING_METHODS = frozenset(
    "join format replace strip lstrip rstrip split rsplit splitlines lower upper title capitalize startswith endswith "
    "removeprefix removesuffix find count isdigit partition rpartition".split()
)
DICT_METHODS = frozenset("get update pop setdefault keys values items copy clear".split())
LIST_METHODS = frozenset("append extend insert copy clear".split())
PATH_METHODS = frozenset(
    "joinpath expanduser resolve absolute as_posix exists is_dir is_file mkdir write_text read_text open".split()
)
FILE_METHODS = frozenset("write writelines read close flush".split())
_METHODS: dict[type, frozenset[str]] = {
    str: STRING_METHODS, dict: DICT_METHODS, list: LIST_METHODS, PurePath: PATH_METHODS, File: FILE_METHODS,
}  # fmt: skip
_CONSTANTS = {
    "os.sep": "/", "os.path.sep": "/", "os.pathsep": ":", "os.linesep": "\n", "os.curdir": ".", "os.pardir": "..",
    "os.devnull": "/dev/null", "os.name": "posix", "sys.platform": "linux",
}  # fmt: skip
_CALCULATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_PERCENT = re.compile(r"%(?:\((\w+)\))?([sdi%])|%")
_SPECIFICATION = re.compile(r"[^\d]?[<>^=+ -]?0?\d{0,3}(\.\d{1,2})?[dfsxX]?")
_INDENT_LIMIT = 16


def attribute(ev: Evaluator, value: Any, name: str) -> Any:
    """Return ``value.name``."""
    if isinstance(value, Library):
        whole = f"{value.name}.{name}"
        return concat(_CONSTANTS[whole]) if whole in _CONSTANTS else Library(whole)
    if isinstance(value, PurePath) and name in ("parent", "name", "stem", "suffix"):
        return _path_attribute(value, name)
    for owner_type, methods in _METHODS.items():
        if isinstance(value, owner_type) and name in methods:
            return Method(value, name)
    plain = next((kind for kind in (*PLAIN, list, dict, tuple) if isinstance(value, kind)), None)
    if plain is not None and not hasattr(plain, name):
        raise SimulatedException("AttributeError", f"'{type_name(value)}' object has no attribute '{name}'")
    return ev.unknown(f"'{name}' of a {type_name(value)} is not followed", value)


def _path_attribute(path: PurePath, name: str) -> Any:
    head, tail = split_path("" if path.text == "." else path.text)
    if name == "parent":
        return PurePath(head or ".")
    stem, _, suffix = tail.rpartition(".")
    has_suffix = bool(stem and suffix)
    if name == "suffix":
        return concat(f".{suffix}" if has_suffix else "")
    return concat(stem) if name == "stem" and has_suffix else tail


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
    if isinstance(owner, Unknown) or isinstance(item, Unknown):
        return ev.state.unknown("", owner, item)
    if owner == Library("os.environ") and isinstance(item, str):
        value = ev.state.environment(item)
        return ev.state.unknown(f"whether {item} is set", value) if isinstance(value, Unknown) else value is not None
    if isinstance(owner, str) and isinstance(item, str):
        return item in owner
    if isinstance(owner, dict) and isinstance(item, PLAIN):
        return item in owner
    if isinstance(owner, (list, tuple)):
        results = [equal(ev, inner, item) for inner in owner]
        return True if True in results else ev.state.unknown("a search") if None in results else False
    return ev.state.unknown(f"a search in a {type_name(owner)}")


def equal(ev: Evaluator, a: Any, b: Any, depth: int = 0) -> bool | None:
    """Compare two values, None if a part of them is not known.

    Step by step: Python's own comparison takes very long for nested values that share their parts.
    """
    ev.budget.step()
    if depth > DEPTH_LIMIT:
        raise Exhausted
    if any(isinstance(ev.state.known(side), (Unknown, Library, Method, Function, View)) for side in (a, b)):
        return None
    if isinstance(a, PLAIN) and isinstance(b, PLAIN):
        return a == b
    if isinstance(a, PurePath) and isinstance(b, PurePath):
        return a.text == b.text
    if isinstance(a, dict) and isinstance(b, dict):
        ev.budget.add(len(a))
        return a.keys() == b.keys() and _all([equal(ev, a[key], b[key], depth + 1) for key in a])
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and _all([equal(ev, x, y, depth + 1) for x, y in zip(a, b, strict=True)])
    return a is b


def _all(results: list[bool | None]) -> bool | None:
    return False if False in results else None if None in results else True


def operate(ev: Evaluator, op: ast.operator, left: Any, right: Any) -> Any:
    """Return ``left op right``. Raises SimulatedException."""
    if isinstance(op, ast.Div) and isinstance(left, PurePath):
        text = ev.path_argument([right])
        return text if isinstance(text, Unknown) else PurePath(join_path(left.text, text))
    if isinstance(op, ast.Div) and isinstance(right, PurePath) and isinstance(left, str):
        return PurePath(join_path(left, right.text))
    if isinstance(op, ast.Mod) and isinstance(left, str):
        return format_percent(ev, left, right)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return _calculate(ev, op, left, right)
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


def format_percent(ev: Evaluator, text: str, values: Any) -> Any:
    """Return ``text % values`` for plain ``%s`` and ``%d``."""
    remaining = list(values) if isinstance(values, tuple) else [values]
    pieces: list[Any] = []
    position = 0
    for match in _PERCENT.finditer(text):
        pieces.append(cut(text, position, match.start()))
        position = match.end()
        name, conversion = match.groups()
        if conversion is None:
            return ev.unknown("a format that is not followed", *remaining)
        if conversion == "%":
            pieces.append("%")
            continue
        if name is None and not remaining:
            raise SimulatedException("TypeError", "not enough arguments for format string")
        value = remaining.pop(0) if name is None else entry(ev, values, name)
        pieces.append(ev.as_text(value if conversion == "s" else _as_integer(value, conversion)))
    if remaining and isinstance(values, (tuple, *PLAIN)):
        raise SimulatedException("TypeError", "not all arguments converted during string formatting")
    return ev.join([*pieces, cut(text, position, len(text))])


def _as_integer(value: Any, conversion: str) -> Any:
    if isinstance(value, (str, type(None))):
        message = f"%{conversion} format: a real number is required, not {type_name(value)}"
        raise SimulatedException("TypeError", message)
    if not isinstance(value, (float, bool)):
        return value
    try:
        return int(value)
    except (ValueError, OverflowError) as error:
        raise SimulatedException(type(error).__name__, str(error)) from None


def format_text(ev: Evaluator, text: str, positional: list[Any], named: dict[str, Any]) -> Any:
    """Return ``text.format(…)`` for fields that are a name or a number."""
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise SimulatedException("ValueError", str(error)) from None
    pieces: list[Any] = []
    automatic = 0
    styles: set[bool] = set()
    for literal, field, specification, conversion in fields:
        pieces.append(literal)
        if field is None:
            continue
        if conversion not in (None, "s", "r") or not re.fullmatch(r"[0-9]{1,3}|([A-Za-z_]\w*)?", field, re.ASCII):
            return ev.unknown("a format that is not followed", *positional, *named.values())
        key = field or str(automatic)
        automatic += not field
        styles |= {bool(field)} if key.isdigit() else set()
        if len(styles) > 1:
            raise SimulatedException("ValueError", "cannot switch between automatic and manual field numbering")
        value = _format_argument(key, positional, named)
        pieces.append(format_value(ev, ev.as_repr(value) if conversion == "r" else value, specification or ""))
    return ev.join(pieces)


def _format_argument(key: str, positional: list[Any], named: dict[str, Any]) -> Any:
    if not key.isdigit():
        if key not in named:
            raise SimulatedException("KeyError", f"'{key}'")
        return named[key]
    if int(key) >= len(positional):
        raise SimulatedException("IndexError", f"Replacement index {key} out of range for positional args tuple")
    return positional[int(key)]


def format_value(ev: Evaluator, value: Any, specification: Any) -> Any:
    """Return ``format(value, specification)`` for numbers and text with a small width."""
    if isinstance(value, Unknown) or isinstance(specification, Unknown):
        return ev.state.unknown("", value, specification)
    if specification == "":
        return ev.as_text(value)
    if not isinstance(value, (str, int, float)) or not _SPECIFICATION.fullmatch(specification):
        return ev.state.unknown("a format that is not followed")
    try:
        return concat(format(str(value) if isinstance(value, str) else value, str(specification)))
    except (ValueError, OverflowError) as error:
        raise SimulatedException(type(error).__name__, str(error)) from None


def expand_variables(ev: Evaluator, text: str) -> Any:
    """Return ``os.path.expandvars(text)``."""
    pieces: list[str] = []
    position = 0
    for match in re.finditer(r"\$(\w+|\{[^}]*\})", text, re.ASCII):
        value = ev.state.environment(match[1].strip("{}"))
        if isinstance(value, Unknown):
            return value
        pieces += [cut(text, position, match.start()), match[0] if value is None else value]
        position = match.end()
    return ev.join([*pieces, cut(text, position, len(text))])


# JSON


def to_json(ev: Evaluator, value: Any, depth: int = 0) -> Any:
    """Return a copy of what ``json.dump`` would write, with Unknown for what is not known."""
    ev.budget.step()
    if depth > DEPTH_LIMIT:
        raise SimulatedException("ValueError", "Circular reference detected")
    value = ev.state.known(value)
    if isinstance(value, dict):
        return {_json_key(key): to_json(ev, inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(ev, inner, depth + 1) for inner in value]
    if not isinstance(value, (*PLAIN, Unknown)):
        raise SimulatedException("TypeError", f"Object of type {type_name(value)} is not JSON serializable")
    return value


def _json_key(key: Any) -> str:
    return key if isinstance(key, str) else str(json.loads(json.dumps({key: 0}).replace(": 0", ": null")).popitem()[0])


def dump_json(ev: Evaluator, value: Any, options: Mapping[str, Any]) -> TracedStr | Unknown:
    """Return ``json.dumps(value)``; ``options`` are its named arguments."""
    if not _are_plain(options):
        return ev.unknown("JSON with options that are not followed", *options.values())
    if isinstance(value, Unknown):
        return value
    tree = to_json(ev, value)
    if holds_unknown(tree):
        return UnknownJson("the JSON text of something unknown", ev.state.location, tree)
    try:
        text = json.dumps(tree, **options)
    except (TypeError, ValueError) as error:
        raise SimulatedException(type(error).__name__, str(error)) from None
    ev.budget.add(len(text))
    return json_text(text, tree)


def _are_plain(options: Mapping[str, Any]) -> bool:
    indent = options.get("indent")
    if isinstance(indent, (int, str)):
        if len(str(indent)) > _INDENT_LIMIT or (isinstance(indent, int) and not 0 <= indent <= _INDENT_LIMIT):
            return False
    elif indent is not None:
        return False
    flags = {key: value for key, value in options.items() if key in ("sort_keys", "ensure_ascii")}
    return all(isinstance(flag, bool) for flag in flags.values()) and options.keys() <= {"indent", *flags}
