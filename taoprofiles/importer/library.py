"""What is known of Python's own types: attributes, entries, operators, the methods of text, and formatting.

Each function takes the evaluator that asks; what is not known here gives Unknown.
"""

from __future__ import annotations

import ast
import operator
import re
import string
from typing import TYPE_CHECKING

from taoprofiles.importer import provenance
from taoprofiles.importer.limits import ENTRIES, ENTRY, TEXT, Raised, Unknown
from taoprofiles.importer.provenance import Text, concat, cut
from taoprofiles.importer.values import PLAIN, File, Known, Method, PurePath, View, equal, kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taoprofiles.importer.interpreter import Interpreter

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
_CALCULATION: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_CONSTANTS = {
    "os.sep": "/", "os.path.sep": "/", "os.pathsep": ":", "os.linesep": "\n", "os.curdir": ".", "os.pardir": "..",
    "os.devnull": "/dev/null", "os.name": "posix", "sys.platform": "linux",
}  # fmt: skip
_NOTHING = Text([])


def attribute(ev: Interpreter, value: Any, name: str) -> Any:
    """Give ``value.name``."""
    if isinstance(value, Known):
        whole = f"{value.name}.{name}"
        return concat(_CONSTANTS[whole]) if whole in _CONSTANTS else Known(whole)
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
    for having, known in methods.items():
        if isinstance(value, having) and name in known:
            return Method(value, name)
    if isinstance(value, (dict, list)) and hasattr(value, name):
        return Method(value, name)  # which may change it, in a way that is not known
    if isinstance(value, File) and name == "name":
        return value.path
    of = next((one for one in (*PLAIN, list, dict, tuple) if isinstance(value, one)), None)
    if of is not None and not hasattr(of, name):
        raise Raised("AttributeError", f"'{kind(value)}' object has no attribute '{name}'")
    return ev.unknown(f"'{name}' of a {kind(value)}", value)


def _path_attribute(path: PurePath, name: str) -> Any:
    head, tail = provenance.split_path("" if path.text == "." else path.text)
    stem, _, suffix = tail.rpartition(".")
    has_suffix = bool(stem and suffix)
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
        there = ev.memory.environment(one)
        return ev.unknown("whether a variable is set", there) if isinstance(there, Unknown) else there is not None
    if isinstance(of, str) and isinstance(one, str):
        return one in of
    if isinstance(of, View):
        of = ev.entries(of)
    if isinstance(of, dict):
        return one in of if isinstance(one, PLAIN) else ev.unknown("a key of another kind")
    if isinstance(of, (list, tuple)):
        told = [equal(inner, one, ev.budget) for inner in of]
        return True if True in told else ev.unknown("a search for something unknown") if None in told else False
    return ev.unknown(f"a search in a {kind(of)}")


def operate(ev: Interpreter, op: ast.operator, left: Any, right: Any) -> Any:
    """Give the value of ``left op right``. Raises Raised."""
    if isinstance(left, PurePath) and isinstance(op, ast.Div):
        text = ev.path_argument([right])
        return text if isinstance(text, Unknown) else PurePath(provenance.join_path(left.text, text))
    if isinstance(right, PurePath) and isinstance(op, ast.Div) and isinstance(left, str):
        return PurePath(provenance.join_path(left, right.text))
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
        ev.budget.made((len(left) + len(right)) * ENTRY)
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
    how = _CALCULATION.get(type(op))
    if how is None or (how is operator.pow and not (isinstance(right, int) and 0 <= right <= 64)):
        return ev.unknown("an operator")
    try:
        value = how(left, right)
    except (ZeroDivisionError, OverflowError) as error:
        raise Raised(type(error).__name__, str(error)) from None
    return ev.unknown("a very large number") if isinstance(value, int) and value.bit_length() > 256 else value


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
        if conversion is None:
            return ev.unknown("a format of another kind")
        if name is not None:
            value = entry(ev, values, name)
        elif given:
            value = given.pop(0)
        else:
            raise Raised("TypeError", "not enough arguments for format string")
        if conversion in "di" and isinstance(value, str):
            raise Raised("TypeError", f"%{conversion} format: a real number is required, not str")
        if conversion in "di" and value is None:
            raise Raised("TypeError", f"%{conversion} format: a real number is required, not NoneType")
        if isinstance(value, (float, bool)) and conversion in "di":
            try:
                value = int(value)
            except (ValueError, OverflowError) as error:
                raise Raised(type(error).__name__, str(error)) from None
        made.append(ev.as_repr(value) if conversion == "r" else ev.as_text(value))
    if given and isinstance(values, (tuple, *PLAIN)):
        raise Raised("TypeError", "not all arguments converted during string formatting")
    return ev.join([*made, cut(text, at, len(text))])


def format_text(ev: Interpreter, text: str, positional: list[Any], named: dict[str, Any]) -> Any:
    """Give ``text.format(…)``, with entries and attributes as far as they are known."""
    made: list[Any] = []
    automatic = 0
    numbers: set[bool] = set()
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise Raised("ValueError", str(error)) from None
    for literal, named_field, spec, conversion in fields:
        made.append(literal)
        if named_field is None:
            continue
        if conversion not in (None, "s", "r") or not re.fullmatch(r"[0-9]{1,3}|([^\W0-9]\w*)?", named_field):
            return ev.unknown("a format of another kind")
        field = named_field or str(automatic)
        automatic += not named_field
        if field.isascii() and field.isdigit():
            numbers.add(bool(named_field))
        if len(numbers) > 1:
            raise Raised("ValueError", "cannot switch from automatic field numbering to manual")
        if field.isascii() and field.isdigit():
            if int(field) >= len(positional):
                raise Raised("IndexError", f"Replacement index {field} out of range for positional args tuple")
            value = positional[int(field)]
        elif field in named:
            value = named[field]
        else:
            raise Raised("KeyError", f"'{field}'")
        made.append(formatted(ev, ev.as_repr(value) if conversion == "r" else value, spec or ""))
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
    except (ValueError, OverflowError) as error:
        raise Raised(type(error).__name__, str(error)) from None
