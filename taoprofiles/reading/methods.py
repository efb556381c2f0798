"""What the methods of text, lists, dictionaries, paths and files do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.reading import traced
from taoprofiles.reading.bounds import ENTRY, PIECE, TEXT, Raised, Unknown
from taoprofiles.reading.library import format_text
from taoprofiles.reading.traced import concat, cut
from taoprofiles.reading.values import PLAIN, Dumped, File, PurePath, dumps, equal, holds_unknown, kind, loads

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.reading.interpreter import Interpreter


def call(ev: Interpreter, of: Any, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    """Give ``of.name(…)``. Raises Raised."""
    if isinstance(of, str):
        return _text(ev, of, name, args, named)
    if isinstance(of, dict):
        return _dict(ev, of, name, args, named)
    if isinstance(of, list):
        return _list(ev, of, name, args)
    if isinstance(of, PurePath):
        return _path(ev, of, name, args, named)
    return _file(ev, of, name, args)


def _text(ev: Interpreter, text: str, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    if name == "format":
        return format_text(ev, text, args, named)
    if named:
        return ev.unknown(f"{name}() with named arguments")
    if isinstance(text, Dumped) and holds_unknown(text.value):
        return ev.unknown("the JSON text of something unknown")
    if name == "join" and len(args) == 1:
        entries = ev.entries(args[0])
        if isinstance(entries, Unknown):
            return entries
        between = [piece for one in entries for piece in (text, one)][1:]
        for one in entries:
            if not isinstance(one, (str, Unknown)):
                raise Raised("TypeError", f"sequence item: expected str instance, {kind(one)} found")
        return ev.join(between) if between else concat("")
    if any(isinstance(arg, Unknown) for arg in args):
        return ev.unknown("", *args)
    if name in ("strip", "lstrip", "rstrip") and (not args or isinstance(args[0], str)):
        sides = {"left": name != "rstrip", "right": name != "lstrip"}
        return traced.strip(text, args[0] if args else None, **sides)
    if name == "replace" and len(args) == 2 and all(isinstance(arg, str) for arg in args) and args[0]:
        times = text.count(args[0])
        size = len(text) + times * len(args[1])
        ev.budget.made(size + times * (PIECE + len(traced.parts(text))))
        return traced.replace(text, *args) if size <= TEXT else ev.unknown("a very long text")
    if name in ("removeprefix", "removesuffix") and len(args) == 1 and isinstance(args[0], str):
        if name == "removeprefix":
            return cut(text, len(args[0]) if text.startswith(args[0]) else 0, len(text))
        return cut(text, 0, len(text) - (len(args[0]) if text.endswith(args[0]) else 0))
    if name == "split" and (not args or (isinstance(args[0], str) and args[0]) or args[0] is None) and len(args) < 2:
        pieces = text.count(args[0]) if args and args[0] else len(text) // 2
        ev.budget.made(len(text) + (1 + pieces) * (PIECE + len(traced.parts(text))))
        return traced.split(text, args[0] if args else None)
    if name == "encode":
        return ev.unknown("bytes")
    if not all(isinstance(arg, (str, int)) for arg in args):
        return ev.unknown(f"{name}() of such arguments")
    try:
        told = getattr(str(text), name)(*args)
    except (TypeError, ValueError, OverflowError) as error:
        raise Raised(type(error).__name__, str(error)) from None
    if isinstance(told, str):
        ev.budget.made(len(text))
        return concat(told)
    ev.budget.made(len(text) + PIECE * (len(told) if isinstance(told, (list, tuple)) else 0))
    return [concat(piece) for piece in told] if isinstance(told, (list, tuple)) else told


def _dict(ev: Interpreter, of: dict[Any, Any], name: str, args: list[Any], named: dict[str, Any]) -> Any:
    ev.budget.made(len(of) * ENTRY)
    first, second = (*args, None, None)[:2]
    if name == "update":
        for one in args:
            if not isinstance(one, dict):
                return _lost(ev, of, one)
            of.update(one)
        of.update(named)
        return None
    if name in ("get", "pop", "setdefault"):
        if not args or not isinstance(first, PLAIN):
            return ev.unknown("a key of another kind", first)
        if name == "pop" and first not in of and len(args) < 2:
            raise Raised("KeyError", repr(first))
        if name == "setdefault":
            return of.setdefault(first, second)
        return of.get(first, second) if name == "get" else of.pop(first, second)
    if name == "clear":
        return of.clear()
    if name == "copy":
        return dict(of)
    return {"keys": list(of), "values": list(of.values()), "items": list(of.items())}[name]


def _lost(ev: Interpreter, of: Any, why: Any) -> Any:
    ev.spoil([of])
    return ev.unknown("a change that is not followed", why)


def _list(ev: Interpreter, of: list[Any], name: str, args: list[Any]) -> Any:
    ev.budget.made(len(of))
    first = args[0] if args else None
    if name == "extend":
        entries = ev.entries(first)
        if isinstance(entries, Unknown):
            return _lost(ev, of, entries)
        of.extend(entries)
        return None
    if name in ("copy", "clear", "reverse"):
        return getattr(of, name)()
    if name == "append" and len(args) == 1:
        return of.append(first)
    if name == "insert" and len(args) == 2 and isinstance(first, int):
        return of.insert(first, args[1])
    if name == "pop" and isinstance(first, (int, type(None))):
        at = -1 if first is None else first
        if not -len(of) <= at < len(of):
            raise Raised("IndexError", "pop index out of range")
        return of.pop(at)
    if name in ("remove", "index") and len(args) == 1:
        for number, one in enumerate(of):
            if equal(one, first, ev.budget):
                return number if name == "index" else of.__delitem__(number)
        raise Raised("ValueError", "x not in list")
    return _lost(ev, of, first)


def _path(ev: Interpreter, path: PurePath, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    texts = [ev.as_text(arg) for arg in args]
    if any(isinstance(text, Unknown) for text in texts):
        if name == "write_text":
            ev.memory.write_file(path.text, ev.unknown("", *texts))
        return ev.unknown("", *texts)
    known = [text for text in texts if isinstance(text, str)]
    memory = ev.memory
    match name:
        case "joinpath":
            return PurePath(traced.join_path(path.text, *known))
        case "expanduser":
            return PurePath(traced.expand_home(path.text, memory.home))
        case "as_posix":
            return path.text
        case "absolute" | "resolve":
            found = memory.absolute(path.text) if name == "absolute" else memory.resolved(path.text)
            return found if isinstance(found, Unknown) else PurePath(found)
        case "exists" | "is_file":
            return memory.exists(path.text)
        case "is_dir":
            return memory.is_folder(path.text)
        case "mkdir":
            return memory.make_folder(path.text)
        case "with_name" if len(known) == 1:
            return PurePath(traced.join_path(traced.split_path(path.text)[0], known[0]))
        case "open":
            return File(path.text, str(known[0] if known else named.get("mode", "r")))
        case "write_text" if len(known) == 1:
            return memory.write_file(path.text, written_value([args[0]]))
        case "read_text":
            return read_back(ev, path.text)
        case _:
            return ev.unknown(f"{name}() of a path")


def _file(ev: Interpreter, file: File, name: str, args: list[Any]) -> Any:
    if name in ("write", "writelines"):
        pieces = args if name == "write" else ev.entries(args[0]) if args else []
        file.written += [pieces] if isinstance(pieces, Unknown) else pieces
        ev.memory.write_file(file.path, written_value(file.written))
        return None
    return read_back(ev, file.path) if name == "read" else None


def read_back(ev: Interpreter, path: Any) -> Any:
    """Give the text of a mounts file that the code wrote itself."""
    value = ev.memory.read_file(path)
    return ev.unknown("a file that is read", value) if value is None else dumps(value, ev.budget)


def written_value(pieces: list[Any]) -> Any:
    """Give the value of the JSON text that is written in pieces; Unknown for what is none."""
    unknown = next((piece for piece in pieces if isinstance(piece, Unknown)), None)
    if unknown is not None:
        return unknown
    # What json.dumps() made of something unknown in part has no text, and is what was written all the same.
    told = [piece for piece in pieces if not isinstance(piece, str) or isinstance(piece, Dumped) or piece.strip()]
    if len(told) == 1 and isinstance(told[0], Dumped):
        return told[0].value
    try:
        return loads("".join(str(piece) for piece in told))
    except Raised:
        return None
