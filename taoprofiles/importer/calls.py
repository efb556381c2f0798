"""What is known of Python's library: the functions that set-up cells call, by their dotted names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.importer import builtin, methods, provenance
from taoprofiles.importer.limits import Raised, Unknown
from taoprofiles.importer.provenance import Part, concat
from taoprofiles.importer.values import (
    File,
    Id,
    Iterated,
    Known,
    Method,
    PurePath,
    View,
    copied,
    deep_copy,
    dumps,
    loads,
    plain_options,
)
from taoprofiles.launcher.quoting import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taoprofiles.importer.interpreter import Interpreter

MODULES = frozenset("os os.path posixpath json pathlib copy getpass sys platform pprint shutil".split())

_HARMLESS = frozenset(
    "os.system sys.path.append sys.path.insert pprint.pprint os.remove os.unlink os.chmod os.listdir".split()
)
"""What changes nothing that is followed here: it is passed over."""


_READ = frozenset(f"os.environ.{name}" for name in ("keys", "values", "items", "copy", "__contains__"))
_TAKES_AWAY = frozenset(
    "os.remove os.unlink os.rmdir os.removedirs os.rename os.replace os.symlink os.link shutil.rmtree".split()
)


def call(ev: Interpreter, function: Known | Method, args: list[Any], named: dict[str, Any]) -> Any:
    """Give the value of a call. Raises Raised, Exhausted."""
    if isinstance(function, Method):
        of = ev.told(function.of)
        if isinstance(of, Unknown):
            return ev.unknown("", of)
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
    if name == "sys.exit":
        raise Raised("SystemExit", "sys.exit()")
    if name == "os.environ.clear":
        for variable in [*ev.memory.history, *ev.memory.machine.environ]:
            ev.memory.remove_environment(variable)
        return None
    if name.startswith("os.environ.") and name not in _READ:
        ev.memory.may_set(f"{name}()")
    if name in _TAKES_AWAY:
        for one in args:
            ev.memory.take_away(ev.as_text(one))
    if name.startswith(("shutil.copy", "shutil.move", "os.rename", "os.replace")) and args:
        ev.memory.write_file(ev.as_text(args[-1]), ev.unknown(f"written by {name}(), which is not followed"))
    if name not in _HARMLESS:
        ev.spoil([*args, *named.values()])
    return ev.unknown(f"{name}() is not followed")


# The environment


def _getenv(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    name = ev.path_argument(args)
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
    for given in [*args, named]:
        one = _pairs(ev, given)
        if one is None:
            ev.memory.may_set("os.environ.update()")
            return ev.unknown("variables taken from something unknown", given)
        for name, value in one.items():
            ev.memory.set_environment(name, value)
    return None


def _pairs(ev: Interpreter, given: Any) -> dict[Any, Any] | None:
    """Give what ``dict(…)`` makes of a dictionary, or of pairs; None where that is not known."""
    if isinstance(given, dict):
        return given
    pairs = ev.entries(given) if isinstance(given, (list, tuple, Iterated, View)) else None
    if not isinstance(pairs, list) or not all(
        isinstance(one, (tuple, list)) and len(one) == 2 and isinstance(one[0], str) for one in pairs
    ):
        return None
    return dict(pairs)


def _remove(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    value = _getenv(ev, args[:1], {})
    if value is None and len(args) < 2:
        raise Raised("KeyError", repr(args[0]))
    if isinstance(args[0], str):
        ev.memory.remove_environment(str(args[0]))
    return args[1] if value is None else value


# Files


def _open(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    path = ev.path_argument(args) if args else named.get("file")
    mode = args[1] if len(args) > 1 else named.get("mode", "r")
    return methods.opened(ev, path, mode)


def _dump(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    given = dict(zip(("obj", "fp"), args, strict=False)) | named
    file = given.get("fp")
    if "obj" not in given or not isinstance(file, File):
        return ev.unknown("json.dump() to something that is no file", file)
    value = given["obj"]
    options = plain_options({key: one for key, one in given.items() if key not in ("obj", "fp")})
    methods.put(ev, file, [_dumped(ev, value, options)])
    return None


def _print(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    file = named.get("file")
    if isinstance(file, File):
        sep, end = named.get("sep", concat(" ")), named.get("end", concat("\n"))
        pieces = [ev.as_text(arg) for arg in args]
        methods.put(ev, file, [*[one for piece in pieces for one in (sep, piece)][1:], end])
    return None


def _load(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    file = args[0] if args else None
    written = ev.memory.read_file(file.path) if isinstance(file, File) else None
    if written is None or written.value is None or named:
        return ev.unknown("a file that is read", file)
    return copied(written.value, ev.budget)


def _dumps(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    if len(args) > 1:
        raise Raised("TypeError", "dumps() takes 1 positional argument")
    value = args[0] if args else named.get("obj")
    return _dumped(ev, value, plain_options({key: one for key, one in named.items() if key != "obj"}))


def _dumped(ev: Interpreter, value: Any, options: dict[str, Any] | None) -> Any:
    """Give ``json.dumps(value)``, or Unknown for options that may change what is written."""
    if options is None:
        return ev.unknown("JSON with options that are not followed")
    return value if isinstance(value, Unknown) else dumps(value, ev.budget, ev.memory.place, **options)


def _loads(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    text = ev.path_argument(args)
    if isinstance(text, Unknown) or named:
        return ev.unknown("json.loads() of something unknown, or with options", text)
    return copied(loads(text), ev.budget)


def _deepcopy(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return deep_copy(args[0], ev.budget, {}) if args else None


def _copy(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return args[0].copy() if args and isinstance(args[0], (list, dict)) else args[0] if args else None


def _fspath(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.path_argument(args)


def _makedirs(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.memory.make_folder(ev.path_argument(args))


def _chdir(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    return ev.memory.change_folder(ev.path_argument(args))


# Paths

_PATHS = frozenset("join expanduser expandvars abspath realpath normpath dirname basename split exists isdir isfile "
                   "isabs splitext".split())  # fmt: skip


def _on_path(ev: Interpreter, name: str, args: list[Any]) -> Any:
    texts = [ev.path_argument(args, number) for number in range(max(1, len(args)))]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) < len(texts):
        return ev.unknown("", *texts)
    path, memory = known[0], ev.memory
    match name:
        case "join":
            return ev.join([provenance.join_path(*known)])
        case "expanduser":
            return memory.expand_home(path)
        case "expandvars":
            return expand_variables(ev, path)
        case "abspath":
            return memory.absolute(path)
        case "realpath":
            return memory.resolved(path)
        case "normpath":
            return provenance.normal_path(path)
        case "dirname":
            return provenance.split_path(path)[0]
        case "basename":
            return provenance.split_path(path)[1]
        case "split":
            return provenance.split_path(path)
        case "exists":
            return memory.exists(path)
        case "isfile":
            return memory.is_file(path)
        case "isdir":
            return memory.is_folder(path)
        case "isabs":
            return path.startswith("/")
        case _:
            _, tail = provenance.split_path(path)
            stem, dot, end = tail.rpartition(".")
            if not stem.strip("."):
                return (path, concat(""))
            return (provenance.cut(path, 0, len(path) - len(end) - 1), concat(dot + end))


def expand_variables(ev: Interpreter, text: str) -> Any:
    """Give ``os.path.expandvars(text)``."""
    made: list[str] = []
    at = 0
    for match in VARIABLE.finditer(text):
        value = ev.memory.environment(match[1] or match[2])
        if isinstance(value, Unknown):
            return value
        made += [provenance.cut(text, at, match.start()), match[0] if value is None else value]
        at = match.end()
    return ev.join([*made, provenance.cut(text, at, len(text))])


def _path(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    texts = [ev.path_argument(args, number) for number in range(len(args))] or ["."]
    known = [text for text in texts if isinstance(text, str)]
    return PurePath(provenance.join_path(*known)) if len(known) == len(texts) else ev.unknown("", *texts)


def _home_path(ev: Interpreter, args: list[Any], named: dict[str, Any]) -> Any:
    home = ev.memory.home
    return home if isinstance(home, Unknown) else PurePath(home)


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
    "copy.deepcopy": _deepcopy, "copy.copy": _copy,
    "os.makedirs": _makedirs, "os.mkdir": _makedirs, "os.chdir": _chdir, "os.getcwd": _getcwd,
    "os.fspath": _fspath,
    "pathlib.Path": _path, "pathlib.PurePath": _path, "pathlib.PosixPath": _path, "pathlib.PurePosixPath": _path,
    "pathlib.Path.home": _home_path, "pathlib.Path.cwd": _cwd_path,
    "os.getuid": _id("uid"), "os.getgid": _id("gid"), "os.geteuid": _id("uid"), "os.getegid": _id("gid"),
    "getpass.getuser": _user, "os.getlogin": _user, "platform.system": _system,
    "platform.machine": _processor, "platform.processor": _processor,
    **builtin.KNOWN,
}  # fmt: skip
