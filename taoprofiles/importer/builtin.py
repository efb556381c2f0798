"""What is known of Python's built-in functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.importer.limits import ENTRY, Raised, Unknown
from taoprofiles.importer.provenance import concat
from taoprofiles.importer.values import Iterated, Known, View

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taoprofiles.importer.interpreter import Interpreter


def _str(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.as_text(args[0]) if args else concat("")


def _int(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    value = args[0] if len(args) == 1 else None
    if isinstance(value, str) and len(value) <= 20:
        try:
            return int(value)
        except ValueError as error:
            raise Raised("ValueError", str(error)) from None
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, int) else ev.unknown("int() of such a value", value)


def _bool(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.truth(args[0]) if args else False


def _len(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    if args and isinstance(args[0], View):
        args = [ev.entries(args[0])]
    sized = args and isinstance(args[0], (str, list, tuple, dict, range))
    return len(args[0]) if sized else ev.unknown("the length of such a value", *args)


def _dict(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    if args and not isinstance(args[0], dict):
        return ev.unknown("a dictionary of such a value", *args)
    made = {**(args[0] if args else {}), **named}
    ev.budget.made(len(made) * ENTRY)
    return made


def _list(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.entries(args[0]) if args else []


def _tuple(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    entries = _list(ev, args, named)
    return tuple(entries) if isinstance(entries, list) else entries


def _range(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    if (
        args
        and all(isinstance(arg, int) and abs(arg) <= 1 << 60 for arg in args)
        and len(args) <= 3
        and 0 not in args[2:]
    ):
        return range(*args)
    return ev.unknown("a range of such values", *args)


def _enumerate(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    entries = _list(ev, args[:1], {})
    start = args[1] if len(args) > 1 else named.get("start", 0)
    if isinstance(entries, Unknown) or not isinstance(start, int):
        return ev.unknown("enumerate() of such values", entries)
    return Iterated([(number, entry) for number, entry in enumerate(entries, start)])


def _zip(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    lists = [ev.entries(arg) for arg in args]
    known = [one for one in lists if isinstance(one, list)]
    if len(known) < len(lists):
        return ev.unknown("", *lists)
    return Iterated(list(zip(*known, strict=False)))


def _reversed(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    entries = _list(ev, args, {})
    return Iterated(entries[::-1]) if isinstance(entries, list) else entries


def _sorted(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    entries = _list(ev, args, {})
    if isinstance(entries, list) and not named and all(isinstance(one, str) for one in entries):
        return sorted(entries)
    return ev.unknown("sorted() of such values", entries)


def _any(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return _truths(ev, args, any)


def _all(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return _truths(ev, args, all)


def _truths(ev: Interpreter, args: list[Any], how: Callable[[list[bool]], bool]) -> Any:
    entries = _list(ev, args, {})
    if isinstance(entries, Unknown):
        return entries
    truths = [ev.truth(entry) for entry in entries]
    known = [truth for truth in truths if isinstance(truth, bool)]
    return how(known) if len(known) == len(truths) else ev.unknown("", *truths)


def _isinstance(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    kinds = {"str": str, "dict": dict, "list": list, "int": int, "bool": bool, "tuple": tuple}
    which = args[1].name if len(args) == 2 and isinstance(args[1], Known) else ""
    if which not in kinds or isinstance(args[0], Unknown):
        return ev.unknown("isinstance() of such values", *args)
    return isinstance(args[0], kinds[which])


KNOWN: dict[str, Callable[[Interpreter, list[Any], dict[str, Any]], Any]] = {
    "str": _str,
    "int": _int,
    "bool": _bool,
    "len": _len,
    "dict": _dict,
    "list": _list,
    "tuple": _tuple,
    "range": _range,
    "enumerate": _enumerate,
    "zip": _zip,
    "sorted": _sorted,
    "reversed": _reversed,
    "any": _any,
    "all": _all,
    "isinstance": _isinstance,
}
"""By name."""
