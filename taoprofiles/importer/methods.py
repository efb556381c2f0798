"""What the methods of text, lists, dictionaries, paths and files do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.importer import provenance
from taoprofiles.importer.library import format_text
from taoprofiles.importer.limits import ENTRY, PIECE, TEXT, Raised, Unknown
from taoprofiles.importer.provenance import concat, cut
from taoprofiles.importer.values import PLAIN, Dumped, File, PartlyKnown, PurePath, View, equal, kind, loadable, loads

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.importer.interpreter import Interpreter


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
        return provenance.strip(text, args[0] if args else None, **sides)
    if name == "replace" and len(args) == 2 and all(isinstance(arg, str) for arg in args) and args[0]:
        times = text.count(args[0])
        size = len(text) + times * len(args[1])
        ev.budget.made(size + times * (PIECE + len(provenance.parts(text))))
        return provenance.replace(text, *args) if size <= TEXT else ev.unknown("a very long text")
    if name in ("removeprefix", "removesuffix") and len(args) == 1 and isinstance(args[0], str):
        if name == "removeprefix":
            return cut(text, len(args[0]) if text.startswith(args[0]) else 0, len(text))
        return cut(text, 0, len(text) - (len(args[0]) if text.endswith(args[0]) else 0))
    if name == "split" and (not args or (isinstance(args[0], str) and args[0]) or args[0] is None) and len(args) < 2:
        pieces = text.count(args[0]) if args and args[0] else len(text) // 2
        ev.budget.made(len(text) + (1 + pieces) * (PIECE + len(provenance.parts(text))))
        return provenance.split(text, args[0] if args else None)
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
    if ev.memory.unsure is not None and name not in ("get", "keys", "values", "items", "copy"):
        return _lost(ev, of, None)
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
            return ev.unknown("a key of another kind", first, of) if name == "get" else _lost(ev, of, first)
        if name == "pop" and first not in of and len(args) < 2:
            raise Raised("KeyError", repr(first))
        if name == "setdefault":
            return of.setdefault(first, second)
        return of.get(first, second) if name == "get" else of.pop(first, second)
    if name == "clear":
        return of.clear()
    if name == "copy":
        return dict(of)
    return View(of, name) if name in ("keys", "values", "items") else _lost(ev, of, None)


def _lost(ev: Interpreter, of: Any, why: Any) -> Any:
    ev.spoil([of])
    return ev.unknown("a change that is not followed", why)


def _list(ev: Interpreter, of: list[Any], name: str, args: list[Any]) -> Any:
    ev.budget.made(len(of))
    if ev.memory.unsure is not None and name not in ("copy", "index"):
        return _lost(ev, of, None)
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
            same = equal(one, first, ev.budget)
            if same is None:
                return _lost(ev, of, first)
            if same:
                return number if name == "index" else of.__delitem__(number)
        raise Raised("ValueError", "x not in list")
    return _lost(ev, of, first)


def _path(ev: Interpreter, path: PurePath, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    texts = [ev.path_argument(args, number) for number in range(len(args))]
    if any(isinstance(text, Unknown) for text in texts):
        if name == "write_text":
            ev.memory.write_file(path.text, written_value(texts))
        return ev.unknown("", *texts)
    known = [text for text in texts if isinstance(text, str)]
    memory = ev.memory
    match name:
        case "joinpath":
            return PurePath(provenance.join_path(path.text, *known))
        case "expanduser":
            expanded = memory.expand_home(path.text)
            return expanded if isinstance(expanded, Unknown) else PurePath(expanded)
        case "as_posix":
            return path.text
        case "absolute":  # which leaves '..' as it is
            folder = memory.folder
            return folder if isinstance(folder, Unknown) else PurePath(provenance.join_path(folder, path.text))
        case "resolve":
            found = memory.resolved(path.text)
            return found if isinstance(found, Unknown) else PurePath(found)
        case "exists":
            return memory.exists(path.text)
        case "is_file":
            return memory.is_file(path.text)
        case "is_dir":
            return memory.is_folder(path.text)
        case "mkdir":
            return memory.make_folder(path.text)
        case "with_name" if len(known) == 1:
            if path.text == "." or not provenance.split_path(path.text)[1]:
                raise Raised("ValueError", "an empty name")
            return PurePath(provenance.join_path(provenance.split_path(path.text)[0], known[0]))
        case "open":
            return opened(ev, path.text, known[0] if known else named.get("mode", "r"))
        case "write_text" if len(known) == 1:
            return memory.write_file(path.text, written_value([args[0]]), known[0])
        case "read_text":
            return read_back(ev, path.text)
        case "unlink" | "rmdir" | "rename" | "replace":
            memory.take_away(path.text)
            return ev.unknown(f"{name}() of a path")
        case _:
            return ev.unknown(f"{name}() of a path")


def _file(ev: Interpreter, file: File, name: str, args: list[Any]) -> Any:
    if name in ("write", "writelines"):
        pieces = args if name == "write" else ev.entries(args[0]) if args else []
        put(ev, file, [pieces] if isinstance(pieces, Unknown) else pieces)
        return None
    return read_back(ev, file.path) if name == "read" else None


def opened(ev: Interpreter, path: Any, mode: Any) -> File:
    """Give an open file. One that is opened for writing is empty from then on."""
    file = File(path, str(mode) if isinstance(mode, str) else "?")
    if file.mode[0:1] in "wx":
        ev.memory.write_file(path, None, "")
    elif not isinstance(path, str) or ev.memory.exists(path) is not True:
        ev.unknown("whether a file can be read")
    return file


def put(ev: Interpreter, file: File, pieces: list[Any]) -> None:
    """Write pieces to an open file. Raises Raised where it is open for reading."""
    if file.mode in ("r", "rt", "rb"):
        raise Raised("UnsupportedOperation", "not writable")
    file.written += pieces
    if file.mode[0:1] not in "wx" or ev.memory.unsure is not None:
        file.written.append(ev.unknown("a file that is added to"))
    texts = [piece for piece in file.written if isinstance(piece, str)]
    whole = concat(*texts) if len(texts) == len(file.written) else None
    ev.memory.write_file(file.path, written_value(file.written), whole)


def read_back(ev: Interpreter, path: Any) -> Any:
    """Give the text of a mounts file that the code wrote itself."""
    written = ev.memory.read_file(path)
    if written is None or isinstance(written.text, Unknown):
        return ev.unknown("a file that is read")
    return loadable(written.text, written.value)


def written_value(pieces: list[Any]) -> Any:
    """Give the value of the JSON text that is written in pieces; Unknown for what is none."""
    told = [piece for piece in pieces if not isinstance(piece, str) or piece.strip()]
    unknown = next((piece for piece in told if isinstance(piece, Unknown)), None)
    if unknown is not None and not (len(told) == 1 and isinstance(unknown, PartlyKnown)):
        return unknown
    if len(told) == 1 and isinstance(told[0], (Dumped, PartlyKnown)):
        return told[0].value
    try:
        return loads("".join(str(piece) for piece in pieces))
    except Raised:
        return None
