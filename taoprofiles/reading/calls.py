"""What is known of Python's library: the functions that set-up cells call, by their dotted names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taoprofiles.reading import builtin, methods, traced
from taoprofiles.reading.bounds import Raised, Unknown
from taoprofiles.reading.traced import Part, concat
from taoprofiles.reading.values import PLAIN, File, Id, Known, Method, PurePath, copied, dumps, kind, loads

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taoprofiles.reading.interpreter import Interpreter

MODULES = frozenset("os os.path posixpath json pathlib copy getpass sys platform pprint".split())

_HARMLESS = frozenset(
    "os.system sys.path.append sys.path.insert pprint.pprint os.remove os.unlink os.chmod os.listdir".split()
)
"""What changes nothing that is followed here: it is passed over."""


def call(ev: Interpreter, function: Known | Method, args: list[Any], named: dict[str, Any]) -> Any:
    """Give the value of a call. Raises Raised, Exhausted."""
    if isinstance(function, Method):
        if ev.memory.unsure is not None and isinstance(function.of, (list, dict)):
            ev.spoil([function.of])
        return methods.call(ev, function.of, function.name, args, named)
    name = function.name.replace("posixpath.", "os.path.")
    known = _KNOWN.get(name)
    if known is not None:
        return known(ev, args, named)
    if name.startswith("os.path.") and name[8:] in _PATHS:
        return _on_path(ev, name[8:], args)
    if name == "get_ipython":
        return Known("get_ipython()")
    if name in ("exec", "eval"):
        ev.memory.may_set(f"{name}()")
    if name not in _HARMLESS:
        ev.spoil([*args, *named.values()])
    return ev.unknown(f"{name}() is not followed")


def text_argument(ev: Interpreter, args: list[Any], number: int = 0) -> str | Unknown:
    """Give an argument that must be text or a path. Raises Raised for another kind."""
    if number >= len(args):
        raise Raised("TypeError", "missing 1 required positional argument")
    value = args[number]
    if isinstance(value, PurePath):
        return value.text
    if isinstance(value, (str, Unknown)):
        return value
    if not isinstance(value, (*PLAIN, list, tuple, dict)):
        return ev.unknown(f"a path that is a {kind(value)}")
    raise Raised("TypeError", f"expected str, bytes or os.PathLike object, not {kind(value)}")


# The environment


def _getenv(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    name = text_argument(ev, args)
    if isinstance(name, Unknown):
        return name
    value = ev.memory.environment(name)
    return value if value is not None else (args[1] if len(args) > 1 else named.get("default"))


def _setdefault(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    if _getenv(ev, args[:1], {}) is None:
        ev.memory.set_environment(args[0], args[1] if len(args) > 1 else None)
    return _getenv(ev, args[:1], {})


def _putenv(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return None  # os.environ does not see it


def _update(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    for one in [*args, named]:
        if not isinstance(one, dict):
            ev.memory.may_set("os.environ.update()")
            return ev.unknown("variables taken from something unknown", one)
        for name, value in one.items():
            ev.memory.set_environment(name, value)
    return None


def _remove(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    value = _getenv(ev, args[:1], {})
    if value is None and len(args) < 2:
        raise Raised("KeyError", repr(args[0]))
    if isinstance(args[0], str):
        ev.memory.remove_environment(str(args[0]))
    return args[1] if value is None else value


# Files


def _open(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    path = text_argument(ev, args) if args else named.get("file")
    mode = args[1] if len(args) > 1 else named.get("mode", "r")
    return File(path, str(mode) if isinstance(mode, str) else "?")


def _dump(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    given = dict(zip(("obj", "fp"), args, strict=False)) | named
    file = given.get("fp")
    if "obj" not in given or not isinstance(file, File):
        return ev.unknown("json.dump() to something that is no file", file)
    value = given["obj"]
    file.written.append(value if isinstance(value, Unknown) else dumps(value, ev.budget))
    ev.memory.write_file(file.path, methods.written_value(file.written))
    return None


def _print(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    file = named.get("file")
    if isinstance(file, File):
        methods.call(ev, file, "write", args, {})  # what stands between and behind them is nothing to JSON
    return None


def _load(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    file = args[0] if args else None
    value = ev.memory.read_file(file.path) if isinstance(file, File) else None
    return ev.unknown("a file that is read", file) if value is None else copied(value, ev.budget)


def _dumps(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    value = args[0] if args else named.get("obj")
    return value if isinstance(value, Unknown) else dumps(value, ev.budget, indent=named.get("indent"))


def _loads(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    text = text_argument(ev, args)
    return text if isinstance(text, Unknown) else copied(loads(text), ev.budget)


def _deepcopy(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return copied(args[0], ev.budget) if args else None


def _makedirs(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.memory.make_folder(text_argument(ev, args))


def _chdir(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.memory.change_folder(text_argument(ev, args))


# Paths

_PATHS = frozenset("join expanduser expandvars abspath realpath normpath dirname basename split exists isdir isfile "
                   "isabs splitext".split())  # fmt: skip


def _on_path(ev: Interpreter, name: str, args: list[Any]) -> Any:
    texts = [text_argument(ev, args, number) for number in range(max(1, len(args)))]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) < len(texts):
        return ev.unknown("", *texts)
    path, memory = known[0], ev.memory
    match name:
        case "join":
            return ev.join([traced.join_path(*known)])
        case "expanduser":
            return traced.expand_home(path, memory.home)
        case "expandvars":
            return expand_variables(ev, path)
        case "abspath":
            return memory.absolute(path)
        case "realpath":
            return memory.resolved(path)
        case "normpath":
            return traced.normal_path(path)
        case "dirname":
            return traced.split_path(path)[0]
        case "basename":
            return traced.split_path(path)[1]
        case "split":
            return traced.split_path(path)
        case "exists" | "isfile":
            return memory.exists(path)
        case "isdir":
            return memory.is_folder(path)
        case "isabs":
            return path.startswith("/")
        case _:
            _, tail = traced.split_path(path)
            stem, dot, end = tail.rpartition(".")
            if not stem.strip("."):
                return (path, concat(""))
            return (traced.cut(path, 0, len(path) - len(end) - 1), concat(dot + end))


def expand_variables(ev: Interpreter, text: str) -> Any:
    """Give ``os.path.expandvars(text)``."""
    made: list[str] = []
    at = 0
    for match in re.finditer(r"\$(\w+|\{[^}]*\})", text, re.ASCII):
        value = ev.memory.environment(match[1].strip("{}"))
        if isinstance(value, Unknown):
            return value
        made += [traced.cut(text, at, match.start()), match[0] if value is None else value]
        at = match.end()
    return ev.join([*made, traced.cut(text, at, len(text))])


def _path(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    texts = [text_argument(ev, args, number) for number in range(len(args))] or ["."]
    known = [text for text in texts if isinstance(text, str)]
    return PurePath(traced.join_path(*known)) if len(known) == len(texts) else ev.unknown("", *texts)


def _home_path(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return PurePath(ev.memory.home)


def _getcwd(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.memory.folder


def _cwd_path(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    folder = ev.memory.folder
    return folder if isinstance(folder, Unknown) else PurePath(folder)


# The person


def _id(what: str) -> Callable[[Interpreter, list[Any], dict[str, Any]], Any]:
    def give(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Id:
        made = Id(getattr(ev.memory.machine, what))
        made.part = Part(str(int(made)), what)
        return made

    return give


def _system(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return concat("Linux")  # the launcher's, and ours


def _processor(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return concat(ev.memory.machine.processor)


def _user(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    for name in ("LOGNAME", "USER"):
        value = ev.memory.environment(name)
        if value:
            return value
    return ev.unknown("the user's name")


_KNOWN: dict[str, Callable[[Interpreter, list[Any], dict[str, Any]], Any]] = {
    "os.getenv": _getenv, "os.environ.get": _getenv, "os.environ.setdefault": _setdefault,
    "os.environ.update": _update, "os.environ.pop": _remove, "os.putenv": _putenv,
    "open": _open, "print": _print, "json.dump": _dump, "json.load": _load, "json.dumps": _dumps, "json.loads": _loads,
    "copy.deepcopy": _deepcopy, "copy.copy": _deepcopy,
    "os.makedirs": _makedirs, "os.mkdir": _makedirs, "os.chdir": _chdir, "os.getcwd": _getcwd,
    "os.fspath": builtin.KNOWN["str"],
    "pathlib.Path": _path, "pathlib.PurePath": _path, "pathlib.PosixPath": _path, "pathlib.PurePosixPath": _path,
    "pathlib.Path.home": _home_path, "pathlib.Path.cwd": _cwd_path,
    "os.getuid": _id("uid"), "os.getgid": _id("gid"), "os.geteuid": _id("uid"), "os.getegid": _id("gid"),
    "getpass.getuser": _user, "os.getlogin": _user, "platform.system": _system,
    "platform.machine": _processor, "platform.processor": _processor,
    **builtin.KNOWN,
}  # fmt: skip
