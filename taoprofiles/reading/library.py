"""What is known of Python's own types: attributes, entries, operators, the methods of text, and formatting.

Each function takes the evaluator that asks; what is not known here gives Unknown.
"""

from __future__ import annotations

import ast
import operator
import re
import string
from typing import TYPE_CHECKING

from taoprofiles.reading import traced
from taoprofiles.reading.bounds import ENTRIES, TEXT, Raised, Unknown
from taoprofiles.reading.traced import Text, concat, cut
from taoprofiles.reading.values import PLAIN, File, Known, Method, PurePath, equal, kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taoprofiles.reading.interpreter import Interpreter

STRING_METHODS = frozenset(
    "join format replace strip lstrip rstrip split rsplit splitlines lower upper title capitalize startswith endswith "
    "removeprefix removesuffix find count isdigit partition rpartition encode".split()
)
DICT_METHODS = frozenset("get update pop setdefault keys values items copy clear".split())
LIST_METHODS = frozenset("append extend insert pop remove index copy clear reverse".split())
PATH_METHODS = frozenset(
    "joinpath expanduser resolve absolute as_posix exists is_dir is_file mkdir with_name with_suffix write_text "
    "read_text open relative_to".split()
)
FILE_METHODS = frozenset("write writelines read close flush".split())
_PERCENT = re.compile(r"%(?:\((\w+)\))?([sdir%])|%")
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_NOTHING = Text([])


def attribute(ev: Interpreter, value: Any, name: str) -> Any:
    """Give ``value.name``."""
    if isinstance(value, Known):
        return Known(f"{value.name}.{name}")
    if isinstance(value, PurePath):
        found = _path_attribute(value, name)
        if found is not None:
            return found
    methods = {
        str: STRING_METHODS,
        dict: DICT_METHODS,
        list: LIST_METHODS,
        PurePath: PATH_METHODS,
        File: FILE_METHODS,
    }
    for of, known in methods.items():
        if isinstance(value, of) and name in known:
            return Method(value, name)
    if isinstance(value, File) and name == "name":
        return value.path
    if value is None:
        raise Raised("AttributeError", f"'NoneType' object has no attribute '{name}'")
    return ev.unknown(f"'{name}' of a {kind(value)}", value)


def _path_attribute(path: PurePath, name: str) -> Any:
    head, tail = traced.split_path(traced.normal_path(path.text))
    stem, dot, suffix = tail.rpartition(".")
    has_suffix = bool(stem and dot)
    return {
        "parent": PurePath(head or "."),
        "name": tail,
        "stem": concat(stem if has_suffix else tail),
        "suffix": concat(f".{suffix}" if has_suffix else ""),
    }.get(name)


def entry(ev: Interpreter, of: Any, key: Any) -> Any:
    """Give ``of[key]``. Raises Raised."""
    if isinstance(of, Unknown) or isinstance(key, Unknown):
        return ev.unknown("", of, key)
    if isinstance(of, Known) and of.name == "os.environ":
        if not isinstance(key, str):
            raise Raised("TypeError", f"str expected, not {kind(key)}")
        value = ev.memory.environment(key)
        if value is None:
            raise Raised("KeyError", f"'{key}'")
        return value
    if isinstance(of, dict):
        if not isinstance(key, PLAIN):
            return ev.unknown("a key of another kind")
        if key not in of:
            raise Raised("KeyError", repr(key))
        return of[key]
    if isinstance(of, (list, tuple, range, str)) and isinstance(key, int):
        if not -len(of) <= key < len(of):
            raise Raised("IndexError", f"{kind(of)} index out of range")
        if isinstance(of, str):
            at = key % len(of)
            return cut(of, at, at + 1)
        return of[key]
    if of is None:
        raise Raised("TypeError", "'NoneType' object is not subscriptable")
    return ev.unknown(f"an entry of a {kind(of)}")


def sliced(ev: Interpreter, of: Any, bounds: list[Any]) -> Any:
    """Give ``of[a:b:c]``."""
    if not isinstance(of, (str, list, tuple)) or any(not isinstance(b, (int, type(None))) for b in bounds):
        return ev.unknown(f"a part of a {kind(of)}", of, *bounds)
    if bounds[2] in (None, 1) and isinstance(of, str):
        start, end, _ = slice(*bounds).indices(len(of))
        return cut(of, start, max(start, end))
    if bounds[2] == 0:
        raise Raised("ValueError", "slice step cannot be zero")
    part = of[slice(*bounds)]
    ev.budget.made(len(part))
    return concat(part) if isinstance(part, str) else part


def contains(ev: Interpreter, of: Any, one: Any) -> bool | Unknown:
    """Tell whether ``one in of``."""
    if isinstance(of, Unknown) or isinstance(one, Unknown):
        return ev.unknown("", of, one)
    if isinstance(of, Known) and of.name == "os.environ" and isinstance(one, str):
        return ev.memory.environment(one) is not None
    if isinstance(of, str) and isinstance(one, str):
        return one in of
    if isinstance(of, dict):
        return one in of if isinstance(one, PLAIN) else ev.unknown("a key of another kind")
    if isinstance(of, (list, tuple)):
        return any(equal(inner, one, ev.budget) for inner in of)
    return ev.unknown(f"a search in a {kind(of)}")


def compare(ev: Interpreter, op: ast.cmpop, left: Any, right: Any) -> bool | Unknown:
    """Tell whether ``left op right``."""
    if isinstance(op, (ast.In, ast.NotIn)):
        inside = contains(ev, right, left)
        return inside if isinstance(inside, Unknown) else inside is isinstance(op, ast.In)
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return ev.unknown("", left, right)
    if isinstance(op, (ast.Eq, ast.NotEq)):
        return equal(left, right, ev.budget) is isinstance(op, ast.Eq)
    if isinstance(op, (ast.Is, ast.IsNot)):
        same = left is right if left is None or right is None or isinstance(left, bool) else None
        return ev.unknown("a comparison of what is not None") if same is None else same is isinstance(op, ast.Is)
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return ev.unknown("a comparison of different kinds")
    return bool(_ORDER[type(op)](left, right))


def operate(ev: Interpreter, op: ast.operator, left: Any, right: Any) -> Any:
    """Give the value of ``left op right``. Raises Raised."""
    if isinstance(left, PurePath) and isinstance(op, ast.Div):
        text = ev.as_text(right)
        return text if isinstance(text, Unknown) else PurePath(traced.join_path(left.text, text))
    if isinstance(right, PurePath) and isinstance(op, ast.Div) and isinstance(left, str):
        return PurePath(traced.join_path(left, right.text))
    if isinstance(left, str) and isinstance(op, ast.Mod):
        return percent(ev, left, right)
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return ev.unknown("", left, right)
    if isinstance(op, ast.Add):
        if isinstance(left, str) and isinstance(right, str):
            return ev.join([left, right])
        for sequence in (list, tuple):
            if isinstance(left, sequence) and isinstance(right, sequence):
                ev.budget.made(len(left) + len(right))
                return sequence([*left, *right])
    if isinstance(op, ast.BitOr) and isinstance(left, dict) and isinstance(right, dict):
        ev.budget.made(len(left) + len(right))
        return left | right
    if isinstance(op, ast.Mult):
        for one, times in ((left, right), (right, left)):
            if isinstance(one, (str, list, tuple)) and isinstance(times, int):
                return _repeated(ev, one, times)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return _calculated(ev, op, left, right)
    mixed = isinstance(left, (*PLAIN, list, dict, tuple)) and isinstance(right, (*PLAIN, list, dict, tuple))
    if mixed and isinstance(op, ast.Add):
        raise Raised("TypeError", f"unsupported operand type(s) for +: '{kind(left)}' and '{kind(right)}'")
    return ev.unknown("an operator")


def _repeated(ev: Interpreter, one: Any, times: int) -> Any:
    size = len(one) * max(times, 0)
    if size > (TEXT if isinstance(one, str) else ENTRIES):
        return ev.unknown("something very long")
    ev.budget.made(size)
    return ev.join([one] * times) if isinstance(one, str) else one * times


def _calculated(ev: Interpreter, op: ast.operator, left: float, right: float) -> Any:
    if any(isinstance(one, int) and one.bit_length() > 256 for one in (left, right)):
        return ev.unknown("a very large number")
    try:
        match op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
            case ast.FloorDiv():
                return left // right
            case ast.Mod():
                return left % right
            case ast.Pow() if 0 <= right <= 64:
                return left**right
            case _:
                return ev.unknown("an operator")
    except ZeroDivisionError as error:
        raise Raised("ZeroDivisionError", str(error)) from None
    except OverflowError as error:
        raise Raised("OverflowError", str(error)) from None


# Formatting


def percent(ev: Interpreter, text: str, values: Any) -> Any:
    """Give ``text % values``, for plain ``%s`` and ``%d``."""
    given = list(values) if isinstance(values, tuple) else [values]
    made: list[Any] = []
    at = 0
    for match in _PERCENT.finditer(text):
        made.append(cut(text, at, match.start()))
        at = match.end()
        name, conversion = match.groups()
        if conversion == "%":
            made.append("%")
            continue
        if conversion is None or (conversion == "r"):
            return ev.unknown("a format of another kind")
        if name is not None:
            value = entry(ev, values, name)
        elif given:
            value = given.pop(0)
        else:
            raise Raised("TypeError", "not enough arguments for format string")
        if conversion in "di" and isinstance(value, str):
            raise Raised("TypeError", f"%{conversion} format: a real number is required, not str")
        if isinstance(value, float) and conversion in "di":
            value = int(value)
        made.append(ev.as_text(value))
    return ev.join([*made, cut(text, at, len(text))])


def format_text(ev: Interpreter, text: str, positional: list[Any], named: dict[str, Any]) -> Any:
    """Give ``text.format(…)``, with entries and attributes as far as they are known."""
    made: list[Any] = []
    automatic = 0
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise Raised("ValueError", str(error)) from None
    for literal, named_field, spec, conversion in fields:
        made.append(literal)
        if named_field is None:
            continue
        if conversion not in (None, "s") or not re.fullmatch(r"\w*", named_field):
            return ev.unknown("a format of another kind")
        field = named_field or str(automatic)
        automatic += not named_field
        if field.isdigit():
            if int(field[:9]) >= len(positional):
                raise Raised("IndexError", f"Replacement index {field} out of range for positional args tuple")
            value = positional[int(field)]
        elif field in named:
            value = named[field]
        else:
            raise Raised("KeyError", f"'{field}'")
        made.append(formatted(ev, value, spec or ""))
    return ev.join(made) if made else _NOTHING


def formatted(ev: Interpreter, value: Any, spec: Any) -> Any:
    """Give ``format(value, spec)``, for numbers and text with a small width."""
    if isinstance(value, Unknown) or isinstance(spec, Unknown):
        return ev.unknown("", value, spec)
    if spec == "":
        return ev.as_text(value)
    if not isinstance(value, (str, int, float)) or not re.fullmatch(
        r"[^\d]?[<>^=+ -]?0?\d{0,3}(\.\d{1,2})?[dfsxX]?", spec
    ):
        return ev.unknown("a format of another kind")
    try:
        return concat(format(str(value) if isinstance(value, str) else value, str(spec)))
    except ValueError as error:
        raise Raised("ValueError", str(error)) from None
