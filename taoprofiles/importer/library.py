"""The functions and methods of Python and its library that set-up code calls."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from taoprofiles.importer import ipython, operators
from taoprofiles.importer.invalidate import call_unknown
from taoprofiles.importer.values import (
    ENTRY_SIZE,
    PIECE_SIZE,
    PLAIN,
    TEXT_LIMIT,
    File,
    Id,
    Json,
    Library,
    PurePath,
    Segment,
    SimulatedException,
    Unknown,
    View,
    concat,
    cut,
    cut_pieces,
    join_path,
    normal_path,
    parse_json,
    replace,
    segments,
    split_path,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.importer.evaluator import Evaluator

BUILTINS = frozenset("str int len dict list range print open get_ipython exec eval isinstance bool float repr".split())
_HARMLESS = frozenset(
    "sys.path.append sys.path.insert pprint.pprint os.listdir os.system os.path.exists os.path.isdir os.path.isfile "
    "os.environ.keys os.environ.values os.environ.items os.environ.copy isinstance bool float repr".split()
)
"""Functions of which only the result is unknown."""
_MAGICS = ("().run_line_magic", "().magic", "().line_magic")


def call(ev: Evaluator, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    """Return the result of a function, by its dotted name. Raises SimulatedException and Exhausted."""
    function = _FUNCTIONS.get(name)
    if function is not None:
        return function(ev, args, named)
    if name in _PATH_FUNCTIONS:
        return _path_function(ev, name, args)
    if name == "get_ipython":
        return Library("get_ipython()")
    if name == "sys.exit":
        raise SimulatedException("SystemExit", "sys.exit()")
    reason = f"{name}() is not followed"
    if name in _HARMLESS:
        return ev.state.unknown(reason)
    words = [word for word in args if isinstance(word, str)]
    method = name.removeprefix("get_ipython")
    if method in _MAGICS and words and len(words) == len(args):  # as in notebooks that were converted to scripts
        return ipython.run_line(ev, "%" + " ".join(words).lstrip("%"))
    if method == "().system" and words:
        return ipython.run_line(ev, f"!{words[0]}")
    return _call_unfollowed(ev, name, reason, [*args, *named.values()], of_ipython=method != name)


def _call_unfollowed(ev: Evaluator, name: str, reason: str, values: list[Any], *, of_ipython: bool) -> Any:
    """Make unknown what a function that is not followed may change, and return an unknown value."""
    if of_ipython:
        ev.state.note(reason)
    if name in ("exec", "eval"):
        ev.state.note(f"may set variables that are not known: {reason}")
        ev.state.has_unknown_names = True
    elif name.startswith("os.environ."):
        ev.state.invalidate_environment(reason)
    ev.state.created.clear()  # such as os.rmdir()
    return call_unknown(ev, reason, *values)


# Built-in functions


def _str(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.as_text(args[0]) if args else concat("")


def _int(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    value = args[0] if len(args) == 1 else None
    if isinstance(value, str) and len(value) <= 20:
        try:
            return int(value)
        except ValueError as error:
            raise SimulatedException("ValueError", str(error)) from None
    return value if type(value) is int else ev.unknown("int()", *args)


def _len(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    value = args[0] if args else None
    return len(value) if isinstance(value, (str, list, tuple, dict)) else ev.state.unknown("len()", value)


def _dict(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    if args and not isinstance(args[0], dict):
        return ev.unknown("dict() of such a value", *args, *named.values())
    result = {**(args[0] if args else {}), **named}
    ev.budget.add(len(result) * ENTRY_SIZE)
    return result


def _list(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.entries(args[0]) if args else []


def _range(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    if 1 <= len(args) <= 3 and all(isinstance(arg, int) and abs(arg) <= 1 << 60 for arg in args) and 0 not in args[2:]:
        return range(*args)
    return ev.unknown("range() of such values", *args)


def _print(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    file = named.get("file")
    if isinstance(file, File):
        separator, end = (
            default if named.get(option) is None else named[option] for option, default in (("sep", " "), ("end", "\n"))
        )
        pieces = [piece for arg in args for piece in (separator, arg if isinstance(arg, Json) else ev.as_text(arg))][1:]
        _write(ev, file, [*pieces, end])
    elif file is not None:
        call_unknown(ev, "print() to something that is not a file", file)


# The environment and the user


def _name_argument(args: list[Any]) -> str | Unknown:
    """Return the first argument, which must be text. Raises SimulatedException."""
    if not args or not isinstance(args[0], (str, Unknown)):
        raise SimulatedException("TypeError", "a text is missing, or of another type")
    return args[0]


def _getenv(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    name = _name_argument(args)
    value = name if isinstance(name, Unknown) else ev.state.environment(name)
    return value if value is not None else args[1] if len(args) > 1 else named.get("default")


def _setdefault(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    if _getenv(ev, args[:1], {}) is None:
        ev.state.set_environment(args[0], args[1] if len(args) > 1 else None)
    return _getenv(ev, args[:1], {})


def _update(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    for given in [*args, named]:
        if not isinstance(given, dict):
            ev.state.invalidate_environment("os.environ.update() with something unknown")
            return ev.unknown("os.environ.update() with something unknown", given)
        for name, value in given.items():
            ev.state.set_environment(name, value)
    return None


def _pop(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    value = _getenv(ev, args[:1], {})
    if value is None and len(args) < 2:
        raise SimulatedException("KeyError", repr(args[0]))
    if isinstance(args[0], str):
        ev.state.remove_environment(str(args[0]))
    else:
        ev.state.invalidate_environment("a variable whose name is not known is removed")
    return args[1] if value is None else value


def _id(what: str, ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Id:
    result = Id(getattr(ev.state.machine, what))
    result.segment = Segment(str(int(result)), what)
    return result


# Files


def _open(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> File:
    """Return an open file. One that is opened for writing is empty from then on."""
    path = args[0] if args else named.get("file")
    path = path.text if isinstance(path, PurePath) else path
    mode = args[1] if len(args) > 1 else named.get("mode", "r")
    file = File(path, str(mode) if isinstance(mode, str) else "?")
    if file.mode[0:1] in "wx":
        ev.state.write_file(path, None)
    return file


def _write(ev: Evaluator, file: File, pieces: list[Any]) -> None:
    if file.mode in ("r", "rt", "rb"):
        raise SimulatedException("UnsupportedOperation", "not writable")
    if not all(isinstance(piece, (str, Unknown)) for piece in pieces):
        raise SimulatedException("TypeError", "write() argument must be str")
    file.written += pieces
    if file.mode[0:1] not in "wx":
        file.written.append(ev.state.unknown("a file that is opened to add to it"))
    ev.state.write_file(file.path, _json_value(file.written))


def _json_value(pieces: list[Any]) -> Any:
    """Return the value of the JSON text that is written in pieces, Unknown if it is not known, None for no JSON."""
    texts = [piece for piece in pieces if not isinstance(piece, str) or piece.strip()]
    if len(texts) == 1 and isinstance(texts[0], Json):
        return texts[0].value
    unknown = next((piece for piece in pieces if not isinstance(piece, str)), None)
    if unknown is not None:
        return Unknown(unknown.reason, unknown.location)
    try:
        return parse_json("".join(pieces))
    except SimulatedException:
        return None


def _dump(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    given = dict(zip(("obj", "fp"), args, strict=False)) | named
    file, value = given.pop("fp", None), given.pop("obj", None)
    if not isinstance(file, File):
        return call_unknown(ev, "json.dump() to something that is not a file", file, value)
    _write(ev, file, [operators.dump_json(ev, value, given)])
    return None


def _dumps(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    options = {key: value for key, value in named.items() if key != "obj"}
    return operators.dump_json(ev, args[0] if args else named.get("obj"), options)


def _load(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    file = args[0] if len(args) == 1 and not named else None
    value = ev.state.written_json(file.path) if isinstance(file, File) and file.mode in ("r", "rt") else None
    if value is None:
        return ev.unknown("the content of a file", *args, *named.values())
    return operators.to_json(ev, value)


# Paths


def _path_argument(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> str | Unknown:
    """Return the first argument, which must be a path, as text. Raises SimulatedException."""
    texts = operators.path_texts(ev, args[:1] or [named[key] for key in ("name", "path") if key in named])
    return texts if isinstance(texts, Unknown) else texts[0]


def _makedirs(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    ev.state.create_folder(_path_argument(ev, args, named))


def _chdir(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    ev.state.change_folder(_path_argument(ev, args, named))


_PATH_FUNCTIONS: dict[str, Callable[[Evaluator, str], Any]] = {
    "os.path.expanduser": lambda ev, path: ev.state.expand_home(path),
    "os.path.abspath": lambda ev, path: ev.state.absolute(path),
    "os.path.realpath": lambda ev, path: ev.state.resolved(path),
    "os.path.normpath": lambda ev, path: normal_path(path),
    "os.path.dirname": lambda ev, path: split_path(path)[0],
    "os.path.basename": lambda ev, path: split_path(path)[1],
    "os.path.expandvars": operators.expand_variables,
    "os.path.join": lambda ev, path: ev.join([path]),
}


def _path_function(ev: Evaluator, name: str, args: list[Any]) -> Any:
    texts = operators.path_texts(ev, args)
    if isinstance(texts, Unknown):
        return texts
    text = join_path(*texts) if name == "os.path.join" else texts[0]
    result = _PATH_FUNCTIONS[name](ev, text)
    return ev.part(text, result) if isinstance(result, str) else result


def _expand_path(ev: Evaluator, path: str) -> Any:
    if path.startswith("~") and path.partition("/")[0] != "~":
        return ev.state.unknown("the home of another user")  # pathlib raises RuntimeError if there is none
    return operators.as_path(ev, ev.state.expand_home(path))


_PATH_METHODS: dict[str, Callable[[Evaluator, str], Any]] = {
    "as_posix": lambda ev, path: path,
    "mkdir": lambda ev, path: ev.state.create_folder(path),
    "expanduser": _expand_path,
    "resolve": lambda ev, path: operators.as_path(ev, _path_function(ev, "os.path.realpath", [path])),
    "absolute": lambda ev, path: operators.as_path(ev, ev.state.folder, path),  # which keeps '..'
}


def _path_method(ev: Evaluator, path: str, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    if name == "joinpath":
        return operators.as_path(ev, path, *args)
    if name == "open":
        return _open(ev, [path, *args], named)
    if name == "write_text":
        _write(ev, File(path, "w"), args[:1] or [named.get("data")])
    elif name in _PATH_METHODS:
        return _PATH_METHODS[name](ev, path)
    return ev.state.unknown(f"{name}() of a path")


# Methods


def call_method(ev: Evaluator, owner: Any, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    """Return ``owner.name(…)``, for the methods that ``operators`` lists. Raises SimulatedException."""
    if isinstance(owner, str):
        return _text_method(ev, owner, name, args, named)
    if isinstance(owner, dict):
        return _dict_method(ev, owner, name, args, named)
    if isinstance(owner, list):
        return _list_method(ev, owner, name, args)
    if isinstance(owner, PurePath):
        return _path_method(ev, owner.text, name, args, named)
    if name == "write":
        _write(ev, owner, args)
    return None


def _text_method(ev: Evaluator, text: str, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    if name == "format":
        return operators.format_text(ev, text, args, named)
    if name == "join" and len(args) == 1:
        return _join_texts(ev, text, args[0])
    if named or not all(isinstance(arg, (str, int)) for arg in args):
        return ev.unknown(f"{name}() with these arguments", *args, *named.values())
    if name == "replace":
        return _replace(ev, text, args)
    try:
        result = getattr(str(text), name)(*args)
    except (TypeError, ValueError, OverflowError) as error:
        raise SimulatedException(type(error).__name__, str(error)) from None
    if isinstance(result, (list, tuple)):
        ev.budget.add(len(text) + len(result) * (PIECE_SIZE + len(segments(text))))
        gap = 0 if isinstance(result, tuple) else len(args[0]) if args else None
        return type(result)(ev.part(text, piece) for piece in cut_pieces(text, result, gap))
    if name in _CUTTING:
        cut_left = getattr(str(text), _CUTTING[name])(*args) if _CUTTING[name] else text
        start = len(text) - len(cut_left)
        result = cut(text, start, start + len(result))
    return ev.part(text, concat(result)) if isinstance(result, str) else result


_CUTTING = {
    "strip": "lstrip", "lstrip": "lstrip", "rstrip": "", "removeprefix": "removeprefix", "removesuffix": "",
}  # fmt: skip
"""Methods that return a part of the text, and the method that cuts what they cut on the left."""


def _replace(ev: Evaluator, text: str, args: list[Any]) -> Any:
    old, new = args if len(args) == 2 else ("", "")
    if not isinstance(old, str) or not isinstance(new, str) or not old:
        return ev.state.unknown("replace() with these arguments")
    count = text.count(old)
    size = len(text) + count * len(new)
    ev.budget.add(size + count * (PIECE_SIZE + len(segments(text)) + len(segments(new))))
    return ev.part(text, replace(text, old, new)) if size <= TEXT_LIMIT else ev.state.unknown("a very long text")


def _join_texts(ev: Evaluator, text: str, values: Any) -> Any:
    entries = ev.entries(values)
    if isinstance(entries, Unknown):
        return entries
    for item in entries:
        if not isinstance(item, (str, Unknown)):
            raise SimulatedException("TypeError", f"sequence item: expected str instance, {type_name(item)} found")
    return ev.join([piece for item in entries for piece in (text, item)][1:])


def _dict_method(ev: Evaluator, owner: dict[Any, Any], name: str, args: list[Any], named: dict[str, Any]) -> Any:
    ev.budget.add(len(owner) * ENTRY_SIZE)
    if name in ("keys", "values", "items"):
        return View(owner, name)
    if name in ("copy", "clear"):
        return getattr(owner, name)()
    if name == "update" and all(isinstance(arg, dict) for arg in args):
        for arg in [*args, named]:
            owner.update(arg)
        return None
    key, default = (*args, None, None)[:2]
    if name == "update" or not args or not isinstance(key, PLAIN):
        return ev.unknown(f"{name}() of a dictionary with these arguments", key, owner, *args, *named.values())
    if name == "pop" and key not in owner and len(args) < 2:
        raise SimulatedException("KeyError", repr(key))
    return {"get": owner.get, "pop": owner.pop, "setdefault": owner.setdefault}[name](key, default)


def _list_method(ev: Evaluator, owner: list[Any], name: str, args: list[Any]) -> Any:
    ev.budget.add(len(owner))
    if name in ("copy", "clear"):
        return getattr(owner, name)()
    if name == "append" and len(args) == 1:
        return owner.append(args[0])
    entries = ev.entries(args[0]) if name == "extend" and len(args) == 1 else None
    if isinstance(entries, list):
        return owner.extend(entries)
    return ev.unknown(f"{name}() of a list with these arguments", entries, owner, *args)


_FUNCTIONS: dict[str, Callable[[Evaluator, list[Any], dict[str, Any]], Any]] = {
    "str": _str, "int": _int, "len": _len, "dict": _dict, "list": _list, "range": _range, "print": _print,
    "open": _open,
    "os.getenv": _getenv, "os.environ.get": _getenv, "os.environ.setdefault": _setdefault,
    "os.environ.update": _update, "os.environ.pop": _pop,
    "json.dump": _dump, "json.dumps": _dumps, "json.load": _load,
    "os.makedirs": _makedirs, "os.mkdir": _makedirs, "os.chdir": _chdir,
    "os.getcwd": lambda ev, args, named: ev.state.folder,
    "os.fspath": _path_argument,
    "pathlib.Path": lambda ev, args, named: operators.as_path(ev, *(args or ["."])),
    "pathlib.Path.home": lambda ev, args, named: operators.as_path(ev, ev.state.home),
    "pathlib.Path.cwd": lambda ev, args, named: operators.as_path(ev, ev.state.folder),
    "os.getuid": partial(_id, "uid"), "os.getgid": partial(_id, "gid"),
    "platform.machine": lambda ev, args, named: concat(os.uname().machine),
}  # fmt: skip
