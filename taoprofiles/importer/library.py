"""The functions and methods of Python and its library that set-up code calls."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from taoprofiles.importer import ipython, operators, provenance
from taoprofiles.importer.invalidate import call_unknown
from taoprofiles.importer.provenance import Segment, concat, cut
from taoprofiles.importer.values import (
    ENTRY_SIZE,
    PIECE_SIZE,
    PLAIN,
    TEXT_LIMIT,
    File,
    Id,
    Iterator,
    JsonText,
    Library,
    PurePath,
    SimulatedException,
    Unknown,
    UnknownJson,
    View,
    json_text,
    parse_json,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.importer.evaluator import Evaluator

BUILTINS = frozenset("str int bool len dict list tuple range print open isinstance enumerate zip sorted repr "
                     "get_ipython exec eval".split())  # fmt: skip
_HARMLESS = frozenset("sys.path.append sys.path.insert pprint.pprint os.listdir os.system".split())
"""Functions that do not change their arguments."""
_CHANGES_PATHS = frozenset(
    "os.remove os.unlink os.rmdir os.removedirs os.rename os.replace os.symlink os.link shutil.rmtree shutil.move "
    "shutil.copy shutil.copy2 shutil.copyfile".split()
)
_ENVIRONMENT_READS = frozenset(f"os.environ.{name}" for name in ("keys", "values", "items", "copy", "__contains__"))


def call(ev: Evaluator, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    """Return the result of a function, by its dotted name. Raises SimulatedException and Exhausted."""
    name = name.replace("posixpath.", "os.path.")
    function = _FUNCTIONS.get(name)
    if function is not None:
        return function(ev, args, named)
    if name.startswith("os.path.") and name[8:] in _PATH_FUNCTIONS:
        return _path_function(ev, name[8:], args)
    if name.startswith("get_ipython"):
        return _get_ipython(ev, name.removeprefix("get_ipython"), args)
    if name == "sys.exit":
        raise SimulatedException("SystemExit", "sys.exit()")
    if name in ("exec", "eval"):
        ev.state.note(f"may set variables that are not known: {name}() is not followed")
        ev.state.has_unknown_names = True
    elif name.startswith("os.environ.") and name not in _ENVIRONMENT_READS:
        ev.state.invalidate_environment(f"{name}() is not followed")
    texts = [text for text in map(ev.as_text, args) if isinstance(text, str)]
    for path in texts if name in _CHANGES_PATHS else ():
        ev.state.change_path(path)
    ev.state.commands += texts
    return ev.state.unknown(f"{name}() is not followed") if name in _HARMLESS else call_unknown(
        ev, f"{name}() is not followed", *args, *named.values()
    )  # fmt: skip


def _get_ipython(ev: Evaluator, name: str, args: list[Any]) -> Any:
    """Call a method of ``get_ipython()``, as notebooks that were converted to scripts have it."""
    if not name:
        return Library("get_ipython()")
    words = [word for word in args if isinstance(word, str)]
    if name in ("().run_line_magic", "().magic", "().line_magic") and words and len(words) == len(args):
        return ipython.run_line(ev, "%" + " ".join(words).lstrip("%"))
    if name == "().system" and words:
        return ipython.run_line(ev, f"!{words[0]}")
    ev.state.note(f"get_ipython{name}() is not followed")
    return call_unknown(ev, f"get_ipython{name}() is not followed", *args)


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
    return int(value) if isinstance(value, bool) else value if isinstance(value, int) else ev.unknown("int()", *args)


def _bool(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.truth(args[0]) if args else False


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


def _tuple(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    entries = _list(ev, args, named)
    return tuple(entries) if isinstance(entries, list) else entries


def _range(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    if 1 <= len(args) <= 3 and all(isinstance(arg, int) and abs(arg) <= 1 << 60 for arg in args) and 0 not in args[2:]:
        return range(*args)
    return ev.unknown("range() of such values", *args)


def _enumerate(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    entries = _list(ev, args[:1], {})
    start = args[1] if len(args) > 1 else named.get("start", 0)
    if isinstance(entries, Unknown) or not isinstance(start, int):
        return ev.unknown("enumerate() of such values", entries, start, *(entries if isinstance(entries, list) else ()))
    return Iterator(list(enumerate(entries, start)))


def _zip(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    lists = [ev.entries(arg) for arg in args]
    known = [entries for entries in lists if isinstance(entries, list)]
    if len(known) < len(lists) or named:
        return ev.unknown("zip() of such values", *lists)
    return Iterator(list(zip(*known, strict=False)))


def _sorted(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    entries = _list(ev, args, {})
    if isinstance(entries, list) and not named and all(isinstance(item, str) for item in entries):
        return sorted(entries)
    values = entries if isinstance(entries, list) else [entries]
    return call_unknown(ev, "sorted() of such values", *values, *named.values())


def _isinstance(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    types = {"str": str, "dict": dict, "list": list, "int": int, "bool": bool, "tuple": tuple}
    name = args[1].name if len(args) == 2 and isinstance(args[1], Library) else ""
    if name not in types or isinstance(args[0], Unknown):
        return ev.state.unknown("isinstance() of such values", *args)
    return isinstance(args[0], types[name])


def _print(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    file = named.get("file")
    if isinstance(file, File):
        separator, end = named.get("sep", concat(" ")), named.get("end", concat("\n"))
        pieces = [piece for text in map(ev.as_text, args) for piece in (separator, text)][1:]
        write(ev, file, [*pieces, end])
    elif file is not None:
        call_unknown(ev, "print() to something that is not a file", file)


# The environment and the user


def _getenv(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    name = ev.path_argument(args)
    if isinstance(name, Unknown):
        return name
    value = ev.state.environment(name)
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


def _user(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    for name in ("LOGNAME", "USER"):
        value = ev.state.environment(name)
        if value:
            return value
    return ev.state.unknown("the user's name")


# Files


def _open(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    path = ev.path_argument(args) if args else named.get("file")
    return open_file(ev, path, args[1] if len(args) > 1 else named.get("mode", "r"))


def open_file(ev: Evaluator, path: Any, mode: Any) -> File:
    """Return an open file. One that is opened for writing is empty from then on."""
    file = File(path, str(mode) if isinstance(mode, str) else "?")
    if file.mode[0:1] in "wx":
        ev.state.write_file(path, None, "")
    return file


def write(ev: Evaluator, file: File, pieces: list[Any]) -> None:
    """Write pieces to an open file. Raises SimulatedException if it is open for reading."""
    if file.mode in ("r", "rt", "rb"):
        raise SimulatedException("UnsupportedOperation", "not writable")
    file.written += pieces
    if file.mode[0:1] not in "wx":
        file.written.append(ev.state.unknown("a file that is opened to add to it"))
    is_text = all(isinstance(piece, str) for piece in file.written)
    ev.state.write_file(file.path, _json_value(file.written), concat(*file.written) if is_text else None)


def _json_value(pieces: list[Any]) -> Any:
    """Return the value of the JSON text that is written in pieces, Unknown if it is not known, None for no JSON."""
    texts = [piece for piece in pieces if not isinstance(piece, str) or piece.strip()]
    if len(texts) == 1 and isinstance(texts[0], (JsonText, UnknownJson)):
        return texts[0].value
    unknown = next((piece for piece in pieces if not isinstance(piece, str)), None)
    if unknown is not None:
        return unknown
    try:
        return parse_json("".join(str(piece) for piece in pieces))
    except SimulatedException:
        return None


def _read(ev: Evaluator, path: Any) -> Any:
    """Return the text of a mounts file that the code wrote itself."""
    file = ev.state.read_file(path)
    if file is None or isinstance(file.text, Unknown):
        return ev.state.unknown("the content of a file")
    return json_text(file.text, file.value) if file.value is not None else file.text


def _dump(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    given = dict(zip(("obj", "fp"), args, strict=False)) | named
    file, value = given.pop("fp", None), given.pop("obj", None)
    if not isinstance(file, File):
        return call_unknown(ev, "json.dump() to something that is not a file", file, value)
    write(ev, file, [operators.dump_json(ev, value, given)])
    return None


def _dumps(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    if len(args) > 1:
        raise SimulatedException("TypeError", "dumps() takes 1 positional argument")
    options = {key: value for key, value in named.items() if key != "obj"}
    return operators.dump_json(ev, args[0] if args else named.get("obj"), options)


def _load(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    file = args[0] if args else None
    written = ev.state.read_file(file.path) if isinstance(file, File) else None
    if written is None or written.value is None or named:
        return ev.unknown("the content of a file", file)
    return operators.to_json(ev, written.value)


def _loads(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    text = ev.path_argument(args)
    if isinstance(text, Unknown) or named:
        return ev.unknown("json.loads() of something unknown, or with options", text, *named.values())
    return operators.to_json(ev, parse_json(text))


def _deepcopy(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    return _copied(ev, args[0], {}) if args else None


def _copied(ev: Evaluator, value: Any, copies: dict[int, Any]) -> Any:
    """Return ``copy.deepcopy(value)``: an object that the value has twice, the copy has twice."""
    ev.budget.step()
    value = ev.state.known(value)
    if isinstance(value, (PurePath, *PLAIN)):
        return value
    if isinstance(value, tuple):
        return tuple(_copied(ev, inner, copies) for inner in value)
    if not isinstance(value, (list, dict)):
        return ev.unknown("a copy of such a value", value)
    if id(value) in copies:
        return copies[id(value)]
    ev.budget.add(len(value))
    result: Any = type(value)()
    copies[id(value)] = result
    if isinstance(value, dict):
        result.update({key: _copied(ev, inner, copies) for key, inner in value.items()})
    else:
        result += [_copied(ev, inner, copies) for inner in value]
    return result


def _copy(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    return args[0].copy() if args and isinstance(args[0], (list, dict)) else args[0] if args else None


def _makedirs(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    ev.state.create_folder(ev.path_argument(args))


def _chdir(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    ev.state.change_folder(ev.path_argument(args))


# Paths


def _split_extension(path: str) -> tuple[str, str]:
    _, tail = provenance.split_path(path)
    stem, dot, end = tail.rpartition(".")
    if not stem.strip("."):
        return path, concat("")
    return cut(path, 0, len(path) - len(end) - 1), concat(dot + end)


_PATH_FUNCTIONS: dict[str, Callable[[Evaluator, str], Any]] = {
    "expanduser": lambda ev, path: ev.state.expand_home(path),
    "expandvars": operators.expand_variables,
    "abspath": lambda ev, path: ev.state.absolute(path),
    "realpath": lambda ev, path: ev.state.resolved(path),
    "normpath": lambda ev, path: provenance.normal_path(path),
    "dirname": lambda ev, path: provenance.split_path(path)[0],
    "basename": lambda ev, path: provenance.split_path(path)[1],
    "split": lambda ev, path: provenance.split_path(path),
    "splitext": lambda ev, path: _split_extension(path),
    "exists": lambda ev, path: ev.state.exists(path),
    "isfile": lambda ev, path: ev.state.is_file(path),
    "isdir": lambda ev, path: ev.state.is_folder(path),
    "isabs": lambda ev, path: path.startswith("/"),
    "join": lambda ev, path: ev.join([path]),
}


def _path_function(ev: Evaluator, name: str, args: list[Any]) -> Any:
    texts = [ev.path_argument(args, number) for number in range(max(1, len(args)))]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) < len(texts):
        return ev.state.unknown("", *texts)
    return _PATH_FUNCTIONS[name](ev, provenance.join_path(*known) if name == "join" else known[0])


def _path(ev: Evaluator, args: list[Any], named: dict[str, Any]) -> Any:
    return _as_path(_path_function(ev, "join", args) if args else ".")


def _as_path(text: str | Unknown) -> Any:
    return text if isinstance(text, Unknown) else PurePath(text)


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
        return _path_method(ev, owner, name, args, named)
    return _file_method(ev, owner, name, args)


def _text_method(ev: Evaluator, text: str, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    if name == "format":
        return operators.format_text(ev, text, args, named)
    if name == "join" and len(args) == 1:
        return _join_texts(ev, text, args[0])
    if named or not all(isinstance(arg, (str, int)) for arg in args):
        return ev.unknown(f"{name}() with such arguments", *args, *named.values())
    traced = _TRACED.get(name)
    result = None if traced is None else traced(ev, text, args)
    return _plain_text_method(ev, text, name, args) if result is None else result


def _join_texts(ev: Evaluator, text: str, values: Any) -> Any:
    entries = ev.entries(values)
    if isinstance(entries, Unknown):
        return entries
    for item in entries:
        if not isinstance(item, (str, Unknown)):
            raise SimulatedException("TypeError", f"sequence item: expected str instance, {type_name(item)} found")
    return ev.join([piece for item in entries for piece in (text, item)][1:])


def _strip(name: str, ev: Evaluator, text: str, args: list[Any]) -> Any:
    if args and not isinstance(args[0], str):
        return None
    return provenance.strip(text, args[0] if args else None, left=name != "rstrip", right=name != "lstrip")


def _replace(ev: Evaluator, text: str, args: list[Any]) -> Any:
    if len(args) != 2 or not all(isinstance(arg, str) for arg in args) or not args[0]:
        return None
    times = text.count(args[0])
    size = len(text) + times * len(args[1])
    ev.budget.add(size + times * (PIECE_SIZE + len(provenance.segments(text))))
    return provenance.replace(text, *args) if size <= TEXT_LIMIT else ev.state.unknown("a very long text")


def _split(ev: Evaluator, text: str, args: list[Any]) -> Any:
    if len(args) > 1 or (args and not (isinstance(args[0], str) and args[0])):
        return None
    pieces = text.count(args[0]) if args else len(text) // 2
    ev.budget.add(len(text) + (1 + pieces) * (PIECE_SIZE + len(provenance.segments(text))))
    return provenance.split(text, args[0] if args else None)


_TRACED: dict[str, Callable[[Evaluator, str, list[Any]], Any]] = {
    "strip": partial(_strip, "strip"), "lstrip": partial(_strip, "lstrip"), "rstrip": partial(_strip, "rstrip"),
    "replace": _replace, "split": _split,
}  # fmt: skip
"""Methods of which the result keeps the origins of the text. They return None for other arguments."""


def _plain_text_method(ev: Evaluator, text: str, name: str, args: list[Any]) -> Any:
    if (
        name == "replace"
        and len(text) * max([len(arg) for arg in args if isinstance(arg, str)], default=0) > TEXT_LIMIT
    ):
        return ev.state.unknown("a very long text")
    try:
        result = getattr(str(text), name)(*(str(arg) if isinstance(arg, str) else arg for arg in args))
    except (TypeError, ValueError, OverflowError) as error:
        raise SimulatedException(type(error).__name__, str(error)) from None
    is_sequence = isinstance(result, (list, tuple))
    ev.budget.add(len(text) + PIECE_SIZE * (len(result) if is_sequence else 0))
    if is_sequence:
        return type(result)(concat(piece) for piece in result)
    return concat(result) if isinstance(result, str) else result


def _dict_method(ev: Evaluator, owner: dict[Any, Any], name: str, args: list[Any], named: dict[str, Any]) -> Any:
    ev.budget.add(len(owner) * ENTRY_SIZE)
    if name in ("keys", "values", "items"):
        return View(owner, name)
    if name == "copy":
        return dict(owner)
    if name == "clear":
        return owner.clear()
    if name == "update" and all(isinstance(arg, dict) for arg in args):
        for arg in args:
            owner.update(arg)
        return owner.update(named)
    key, default = (*args, None, None)[:2]
    if name == "update" or not args or not isinstance(key, PLAIN):
        return ev.unknown(f"{name}() of a dictionary with such arguments", key, owner, *args, *named.values())
    if name == "pop" and key not in owner and len(args) < 2:
        raise SimulatedException("KeyError", repr(key))
    return {"get": owner.get, "pop": owner.pop, "setdefault": owner.setdefault}[name](key, default)


def _list_method(ev: Evaluator, owner: list[Any], name: str, args: list[Any]) -> Any:
    ev.budget.add(len(owner))
    if name in ("copy", "clear"):
        return getattr(owner, name)()
    if name == "append" and len(args) == 1:
        return owner.append(args[0])
    if name == "insert" and len(args) == 2 and isinstance(args[0], int):
        return owner.insert(args[0], args[1])
    entries = ev.entries(args[0]) if name == "extend" and len(args) == 1 else None
    if isinstance(entries, list):
        return owner.extend(entries)
    return ev.unknown(f"{name}() of a list with such arguments", entries, owner, *args)


_PATH_METHODS: dict[str, Callable[[Evaluator, str], Any]] = {
    "as_posix": lambda ev, path: path,
    "exists": lambda ev, path: ev.state.exists(path),
    "is_file": lambda ev, path: ev.state.is_file(path),
    "is_dir": lambda ev, path: ev.state.is_folder(path),
    "mkdir": lambda ev, path: ev.state.create_folder(path),
    "read_text": _read,
    "expanduser": lambda ev, path: _as_path(ev.state.expand_home(path)),
    "resolve": lambda ev, path: _as_path(ev.state.resolved(path)),
}


def _path_method(ev: Evaluator, path: PurePath, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    if name == "write_text" and args:
        text = args[0]
        return ev.state.write_file(path.text, _json_value([text]), text if isinstance(text, str) else None)
    if name == "open":
        return open_file(ev, path.text, args[0] if args else named.get("mode", "r"))
    if name == "absolute":  # which keeps '..'
        folder = ev.state.folder
        is_absolute = path.text.startswith("/")
        return path if is_absolute else _as_path(_path_function(ev, "join", [folder, path.text]))
    if name == "joinpath":
        return _as_path(_path_function(ev, "join", [path.text, *args]))
    method = _PATH_METHODS.get(name)
    return ev.unknown(f"{name}() of a path", *args) if method is None else method(ev, path.text)


def _file_method(ev: Evaluator, file: File, name: str, args: list[Any]) -> Any:
    if name in ("write", "writelines"):
        pieces = args if name == "write" else ev.entries(args[0]) if args else []
        write(ev, file, [pieces] if isinstance(pieces, Unknown) else pieces)
        return None
    return _read(ev, file.path) if name == "read" else None


_FUNCTIONS: dict[str, Callable[[Evaluator, list[Any], dict[str, Any]], Any]] = {
    "str": _str, "int": _int, "bool": _bool, "len": _len, "dict": _dict, "list": _list, "tuple": _tuple,
    "range": _range, "enumerate": _enumerate, "zip": _zip, "sorted": _sorted, "isinstance": _isinstance,
    "repr": lambda ev, args, named: ev.as_repr(args[0]) if args else ev.state.unknown("repr()"),
    "print": _print, "open": _open,
    "os.getenv": _getenv, "os.environ.get": _getenv, "os.environ.setdefault": _setdefault,
    "os.environ.update": _update, "os.environ.pop": _pop,
    "os.putenv": lambda ev, args, named: None,  # os.environ does not show it
    "json.dump": _dump, "json.load": _load, "json.dumps": _dumps, "json.loads": _loads,
    "copy.deepcopy": _deepcopy, "copy.copy": _copy,
    "os.makedirs": _makedirs, "os.mkdir": _makedirs, "os.chdir": _chdir,
    "os.getcwd": lambda ev, args, named: ev.state.folder,
    "os.fspath": lambda ev, args, named: ev.path_argument(args),
    "pathlib.Path": _path, "pathlib.PurePath": _path, "pathlib.PosixPath": _path, "pathlib.PurePosixPath": _path,
    "pathlib.Path.home": lambda ev, args, named: _as_path(ev.state.home),
    "pathlib.Path.cwd": lambda ev, args, named: _as_path(ev.state.folder),
    "os.getuid": partial(_id, "uid"), "os.getgid": partial(_id, "gid"),
    "os.geteuid": partial(_id, "uid"), "os.getegid": partial(_id, "gid"),
    "getpass.getuser": _user, "os.getlogin": _user,
    "platform.system": lambda ev, args, named: concat("Linux"),
    "platform.machine": lambda ev, args, named: concat(ev.state.machine.processor),
    "platform.processor": lambda ev, args, named: concat(ev.state.machine.processor),
}  # fmt: skip
