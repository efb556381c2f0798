"""The operators, functions and methods of Python and its library that set-up code uses.

Each takes the evaluator, and returns Unknown for what is not followed.
"""

from __future__ import annotations

import ast
import json
import operator
import os
import pathlib
import platform
import posixpath
import pprint
import re
import sys
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from taoprofiles.importer import containers, ipython
from taoprofiles.importer.effects import mark_escaped
from taoprofiles.importer.state import (
    DEPTH_LIMIT,
    ENTRY_SIZE,
    PLAIN,
    Id,
    Json,
    Library,
    OpenFile,
    PurePath,
    Segment,
    SimulatedException,
    Unknown,
    View,
    attempt,
    concat,
    cut,
    join_path,
    normal_path,
    parse_json,
    segments,
    trace,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taoprofiles.importer.evaluator import Evaluator

MODULES = {
    "os": os, "os.path": posixpath, "pathlib": pathlib, "json": json, "sys": sys, "platform": platform,
    "pprint": pprint,
}  # fmt: skip
"""The modules of which functions are followed; of all others nothing is known."""
BUILTINS = frozenset("str int len dict print open get_ipython exec eval isinstance bool float repr type".split())
_HARMLESS = frozenset(
    "sys.path.append sys.path.insert pprint.pprint os.listdir os.path.exists os.path.isdir os.path.isfile "
    "os.environ.keys os.environ.values os.environ.items os.environ.copy print isinstance bool len float repr "
    "type".split()
)
"""Functions of which only the result is unknown."""
_PATH_METHODS = frozenset("mkdir exists is_dir is_file iterdir glob read_text".split())
"""Methods of a path that change no file, but for a new folder."""
_TEXT_METHODS = frozenset(
    "split rsplit partition rpartition strip lstrip rstrip removeprefix removesuffix lower upper title capitalize "
    "startswith endswith find count isdigit".split()
)
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda item, owner: item in owner, ast.NotIn: lambda item, owner: item not in owner,
}  # fmt: skip


# Operators


def has_attribute(value: Any, name: str) -> bool:
    """Check whether a value, or a module that is followed, has an attribute. True if that is not known."""
    if isinstance(value, Library):
        return value.name not in MODULES or hasattr(MODULES[value.name], name)
    if isinstance(value, PurePath):
        return hasattr(pathlib.Path, name)
    kind = next((kind for kind in (str, list, dict, tuple, int, float, type(None)) if isinstance(value, kind)), None)
    return kind is None or hasattr(kind, name)


def _described(value: Any) -> str:
    return value.name if isinstance(value, Library) else f"a {type_name(value)}"


def attribute(ev: Evaluator, value: Any, name: str) -> Any:
    """Return ``value.name``."""
    if not has_attribute(value, name):
        return ev.may_fail(f"'{name}' is not an attribute of {_described(value)}")
    if isinstance(value, Library):
        whole = "os" if name == "os" else f"{value.name}.{name}".replace("posixpath.", "os.path.")
        return concat("/") if whole in ("os.sep", "os.path.sep") else Library(whole)
    if isinstance(value, Unknown) and name in ("environ", "environb"):
        mark_escaped(ev, Library("os.environ"))
    if isinstance(value, PurePath) and name == "parent":
        parent = trace(value.text, posixpath.dirname("" if value.text == "." else value.text) or ".")[0]
        text = ev.part(value.text, parent)
        return text if isinstance(text, Unknown) else PurePath(text)
    return ev.unknown(f"'{name}' of a {type_name(value)} is not followed", value, source=name)


def entry(ev: Evaluator, owner: Any, key: Any) -> Any:
    """Return ``owner[key]``. Raises SimulatedException."""
    if owner == Library("os.environ"):
        if isinstance(key, Unknown):
            return ev.state.unknown("a variable whose name is not known", key)
        if not isinstance(key, str):
            raise SimulatedException(f"TypeError: str expected, not {type_name(key)}")
        value = ev.state.environment(key)
        return ev.missing_variable(key) if value is None else value
    if isinstance(owner, (str, list, tuple, dict, type(None))) and isinstance(key, PLAIN):
        return attempt(operator.getitem, owner, key)
    return ev.unknown(f"an entry of a {type_name(owner)}", key, owner)


def compare(ev: Evaluator, op: ast.cmpop, left: Any, right: Any) -> bool | Unknown:
    """Return ``left op right`` for a comparison of plain values. Raises SimulatedException."""
    right = ev.state.known(right)
    if isinstance(op, (ast.In, ast.NotIn)):
        if right == Library("os.environ") and isinstance(left, str):
            value = ev.state.environment(left)
            right = value if isinstance(value, Unknown) else [] if value is None else [left]
        if isinstance(right, (list, tuple, dict)):
            ev.budget.spend(len(right))
        is_followed = isinstance(right, (str, list, tuple, dict)) and all(isinstance(item, PLAIN) for item in right)
    elif isinstance(op, (ast.Is, ast.IsNot)):
        is_followed = isinstance(right, PLAIN) and (left is None or right is None)
    else:
        is_followed = isinstance(right, PLAIN)
    if is_followed and isinstance(left, PLAIN):
        return bool(attempt(_COMPARISONS[type(op)], left, right))
    return ev.state.unknown("a comparison that is not followed", left, right)


def operate(ev: Evaluator, op: ast.operator, left: Any, right: Any) -> Any:
    """Return ``left op right``. Raises SimulatedException."""
    if isinstance(op, ast.Div) and (isinstance(left, PurePath) or isinstance(right, PurePath)):
        return _path(ev, left, right)
    if isinstance(op, ast.Mod) and isinstance(left, str):
        return _format_percent(ev, left, right)
    if isinstance(left, Unknown) and not isinstance(left, Json) and isinstance(op, ast.Add | ast.Div):
        return ev.join([left, right])  # the end of a text or path may be known
    if not isinstance(op, ast.Add):
        return ev.unknown("an operator that is not followed", left, right)
    if isinstance(left, Json) and isinstance(right, str) and not right.strip():
        return left  # such as json.dumps(…) + "\n"
    if isinstance(left, str) and isinstance(right, str):
        return ev.join([left, right])
    if all(isinstance(side, (*PLAIN, list, tuple, dict)) for side in (left, right)):
        ev.budget.spend(sum(len(side) for side in (left, right) if isinstance(side, (list, tuple))))
        return attempt(operator.add, left, right)
    return ev.unknown("an operator that is not followed", left, right)


# Formatting


def _fill(ev: Evaluator, text: str, marked: str, values: list[Any]) -> Any:
    """Return a text that was formatted with ``_marks`` in the place of the values."""
    pieces = re.split(r"\0(\d+)\0", marked)
    literals = trace(text, *pieces[::2])
    ends = [ev.as_text(values[int(number)]) for number in pieces[1::2]]
    return ev.join([literals[0], *(piece for pair in zip(ends, literals[1:], strict=True) for piece in pair)])


def _marks(values: list[Any]) -> list[str]:
    return [f"\0{number}\0" for number in range(len(values))]


def _format_percent(ev: Evaluator, text: str, values: Any) -> Any:
    """Return ``text % values`` for plain ``%s`` and ``%d``."""
    listed = list(values) if isinstance(values, tuple) else [values]
    kinds = re.findall("%(.?)", text.replace("%%", ""), re.DOTALL)
    plain = all(
        kind == "s" or (kind == "d" and isinstance(value, int | Unknown) and not isinstance(value, bool))
        for kind, value in zip(kinds, listed, strict=False)
    )
    if not kinds and values != () and isinstance(values, (*PLAIN, tuple)):
        raise SimulatedException("TypeError: not all arguments converted during string formatting")
    if not (plain and kinds and set(kinds) <= {"s", "d"}) or "\0" in text:
        return ev.unknown("a format that is not followed", values)
    marked = re.sub("%[sd%]", lambda match: match[0].replace("d", "s"), str(text))
    marked = attempt(operator.mod, marked, tuple(_marks(listed)))
    return _fill(ev, text, marked, listed)


def _format(ev: Evaluator, text: str, /, *positional: Any, **named: Any) -> Any:
    """Return ``text.format(…)`` for fields that are a name or a number."""
    values = [*positional, *named.values()]
    if re.search(r"\0|\{[^{}]*[^{}\w]", text):
        return ev.unknown("a format that is not followed", *values)
    marks = _marks(values)
    by_name = dict(zip(named, marks[len(positional) :], strict=True))
    marked = attempt(lambda: str(text).format(*marks[: len(positional)], **by_name))
    return _fill(ev, text, marked, values)


def _expand_variables(ev: Evaluator, text: str) -> Any:
    """Return ``os.path.expandvars(text)``."""
    pieces: list[Any] = []
    position = 0
    for match in re.finditer(r"\$(\w+|\{[^}]*\})", text, re.ASCII):
        value = ev.state.environment(match[1].removeprefix("{").removesuffix("}"))
        pieces += [cut(text, position, match.start()), match[0] if value is None else value]
        position = match.end()
    return ev.join([*pieces, cut(text, position, len(text))])


# JSON and files


def _json_text(ev: Evaluator, obj: Any, **options: Any) -> Unknown:
    """Return the result of ``json.dumps(obj, **options)``."""
    indent = options.get("indent")
    plain_indent = not indent.strip() if isinstance(indent, str) else isinstance(indent, int) or indent is None
    if not (plain_indent and options.keys() <= {"indent", "sort_keys", "ensure_ascii"}):
        return ev.unknown("JSON with options that are not followed", obj, *options.values())
    if isinstance(obj, Unknown):
        return ev.state.unknown("", obj)
    return Json("a JSON text", ev.state.location, value=_json_value(ev, obj))


def _json_value(ev: Evaluator, value: Any, depth: int = 0) -> Any:
    """Return a copy of what ``json.dump`` would write, with Unknown for what is not known."""
    ev.budget.spend()
    if depth > DEPTH_LIMIT:
        raise SimulatedException("ValueError: Circular reference detected")
    value = ev.state.known(value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return ev.state.unknown("a dictionary with a key that is not text")
        return {key: _json_value(ev, inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(ev, inner, depth + 1) for inner in value]
    if not isinstance(value, (*PLAIN, Unknown)):
        raise SimulatedException(f"TypeError: Object of type {type_name(value)} is not JSON serializable")
    return value


def _dump(ev: Evaluator, obj: Any, fp: Any, **options: Any) -> Any:
    if not isinstance(fp, OpenFile):
        return ev.unknown("json.dump() to something that is not a file", fp, obj)
    return _write(ev, fp, _json_text(ev, obj, **options))


def _open(ev: Evaluator, file: Any, mode: Any = "r", *_: Any, **__: Any) -> OpenFile:
    """Return an open file. One that is opened for writing is empty from then on."""
    path = file.text if isinstance(file, PurePath) else file
    opened = OpenFile(path, str(mode) if isinstance(mode, str) else "?", [])
    if opened.mode[0:1] in "wx":
        ev.state.write_file(path, None)
    return opened


def _write(ev: Evaluator, file: OpenFile, piece: Any, /) -> None:
    if file.closed:
        raise SimulatedException("ValueError: I/O operation on closed file.")
    if file.mode in ("r", "rt", "rb"):
        raise SimulatedException("UnsupportedOperation: not writable")
    if not isinstance(piece, (str, Unknown)):
        raise SimulatedException("TypeError: write() argument must be str")
    file.written.append(piece)
    if file.mode[0:1] not in "wx":
        file.written.append(ev.state.unknown(f"mode '{file.mode}' adds to what the file holds, which is not known"))
    ev.state.write_file(file.path, _value_of(file.written))


def _close(ev: Evaluator, file: OpenFile) -> None:
    file.closed = True


def _value_of(pieces: list[Any]) -> Any:
    """Return the value of JSON text that is written in pieces, Unknown if it is not known, None if it is not JSON."""
    texts = [piece for piece in pieces if not isinstance(piece, str) or piece.strip()]
    if len(texts) == 1 and isinstance(texts[0], Json):
        return texts[0].value
    unknowns = [piece for piece in pieces if not isinstance(piece, str)]
    if unknowns:  # a JSON text is one only together with other pieces
        unknown = next((piece for piece in unknowns if not isinstance(piece, Json)), unknowns[0])
        return Unknown(unknown.reason, unknown.location, source=unknown.source)
    return parse_json("".join(pieces))


# Paths


def _path_texts(ev: Evaluator, args: Sequence[Any]) -> list[str] | Unknown:
    """Return the texts of paths. Raises SimulatedException for other types, and for no argument."""
    texts = [arg.text if isinstance(arg, PurePath) else arg for arg in args]
    if not texts or any(isinstance(text, (*PLAIN, list, tuple, dict)) and not isinstance(text, str) for text in texts):
        raise SimulatedException("TypeError: expected str, bytes or os.PathLike object")
    is_known = all(isinstance(text, str) for text in texts)
    return texts if is_known else ev.state.ending(texts[-1], *texts)


def _path(ev: Evaluator, *args: Any) -> PurePath | Unknown:
    """Return ``pathlib.Path(*args)``. Raises SimulatedException."""
    texts = _path_texts(ev, args)
    text = texts if isinstance(texts, Unknown) else ev.join([join_path(*texts)])
    if isinstance(text, Unknown):
        return text
    return PurePath(trace(text, str(pathlib.PurePosixPath(text)))[0])


_PATH_FUNCTIONS: dict[str, Callable[[Evaluator, str], Any]] = {
    "os.path.expanduser": lambda ev, path: ev.state.expand_home(path),
    "os.path.abspath": lambda ev, path: ev.state.absolute(path),
    "os.path.realpath": lambda ev, path: ev.state.resolved(path),
    "os.path.normpath": lambda ev, path: normal_path(path),
    "os.path.dirname": lambda ev, path: trace(path, posixpath.dirname(path))[0],
    "os.path.basename": lambda ev, path: trace(path, posixpath.basename(path))[0],
    "os.path.expandvars": _expand_variables,
    "os.path.join": lambda ev, path: ev.join([path]),
    "os.fspath": lambda ev, path: path,
}


def _one_path(name: str) -> Callable[[Evaluator, Any], Any]:
    return lambda ev, path, /: _path_function(name, ev, path)


def _path_function(name: str, ev: Evaluator, *args: Any) -> Any:
    texts = _path_texts(ev, args)
    if isinstance(texts, Unknown):
        return texts
    text = join_path(*texts) if name == "os.path.join" else texts[0]
    result = _PATH_FUNCTIONS[name](ev, text)
    return ev.part(text, result) if isinstance(result, str) else result


def _resolve(ev: Evaluator, path: PurePath, strict: Any = False) -> Any:
    if strict is not False:  # the path may not exist
        return ev.state.unknown("resolve() with an option")
    return _path(ev, _path_function("os.path.realpath", ev, path))


def _expand_path(ev: Evaluator, path: PurePath) -> Any:
    user = path.text.partition("/")[0]
    if user.startswith("~") and user != "~":  # another user, for whom pathlib may raise
        return ev.state.unknown("expanduser() of a path")
    return _path(ev, ev.state.expand_home(path.text))


# The environment and the user


def _getenv(ev: Evaluator, key: Any, default: Any = None) -> Any:
    if isinstance(key, Unknown):
        return key
    if not isinstance(key, str):
        raise SimulatedException("TypeError: a text is missing, or of another type")
    value = ev.state.environment(key)
    if value is None and default is None:
        ev.state.unset[key] = ev.state.location
    return default if value is None else value


def _setdefault(ev: Evaluator, key: Any, value: Any) -> Any:
    if isinstance(key, Unknown) or (isinstance(key, str) and ev.state.environment(key) is None):
        ev.state.set_environment(key, value)
    return _getenv(ev, key)


def _update(ev: Evaluator, /, *given: Any, **named: Any) -> Any:
    for entries in (*given, named):
        if not isinstance(entries, dict):
            ev.state.lose_variables("os.environ.update() with something unknown")
            return ev.unknown("os.environ.update() with something unknown", entries)
        for name, value in entries.items():
            ev.state.set_environment(name, value)
    return None


def _id(ev: Evaluator, kind: str) -> Id:
    result = Id(getattr(ev.state.context, kind))
    result.segment = Segment(str(int(result)), kind)
    return result


# Text, lists and dictionaries


def _text_method(name: str, ev: Evaluator, text: str, *args: Any) -> Any:
    if not all(isinstance(arg, (str, int)) for arg in args):
        return ev.unknown(f"{name}() with these arguments", *args)
    result = attempt(getattr(str(text), name), *args)
    if isinstance(result, (list, tuple)):
        return type(result)(_parts(ev, text, result))
    return _parts(ev, text, [result])[0] if isinstance(result, str) else result


def _parts(ev: Evaluator, text: str, pieces: Sequence[str]) -> list[str | Unknown]:
    """Return pieces of a text, Unknown for those that do not show that it is a placeholder."""
    ev.budget.spend(len(text) + len(pieces) * (ENTRY_SIZE + len(segments(text))))
    return [ev.part(text, piece) for piece in trace(text, *pieces)]


def _join_texts(ev: Evaluator, text: str, values: Any, /) -> Any:
    entries = ev.entries(values)
    if isinstance(entries, Unknown):
        return entries
    for item in entries:
        if not isinstance(item, (str, Unknown)):
            raise SimulatedException(f"TypeError: sequence item: expected str instance, {type_name(item)} found")
    return ev.join([piece for item in entries for piece in (text, item)][1:])


def _replace(ev: Evaluator, text: str, old: Any, new: Any, /) -> Any:
    if not (old and isinstance(old, str) and isinstance(new, str)):
        return ev.unknown("replace() with these arguments", old, new)
    return _join_texts(ev, new, _parts(ev, text, text.split(old)))


def _get(ev: Evaluator, owner: dict[Any, Any], key: Any, default: Any = None, /) -> Any:
    return owner.get(key, default) if isinstance(key, PLAIN) else ev.unknown("get() of something unknown", owner, key)


def _update_dict(ev: Evaluator, owner: dict[Any, Any], /, *others: Any, **named: Any) -> Any:
    if not all(isinstance(other, dict) for other in others):
        return ev.unknown("update() with something unknown", owner, *others, *named.values())
    for other in (*others, named):
        ev.budget.spend(len(other) * ENTRY_SIZE)
        owner.update(other)
    return None


def _extend(ev: Evaluator, owner: list[Any], values: Any, /) -> Any:
    entries = ev.entries(values)
    return ev.unknown("", entries, owner) if isinstance(entries, Unknown) else owner.extend(entries)


def _int(ev: Evaluator, value: Any, /) -> Any:
    return attempt(int, value) if isinstance(value, str) and len(value) <= 20 else ev.unknown("int()", value)


def _dict(ev: Evaluator, /, *given: Any, **named: Any) -> Any:
    if given == (Library("os.environ"),):
        return ev.state.unknown("the whole environment")
    if len(given) > 1 or not all(isinstance(entries, dict) for entries in given):
        return ev.unknown("dict() of such a value", *given, *named.values())
    result = {**(given[0] if given else {}), **named}
    ev.budget.spend(len(result) * ENTRY_SIZE)
    return result


# Commands and code


def _system(ev: Evaluator, command: Any) -> Unknown:
    if isinstance(command, str):
        ipython.check_script(ev, command, "os.system()")
        containers.scan(ev, command)
    return ev.state.unknown("os.system() is not run")


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "str": lambda ev, value="", /: ev.as_text(value),
    "int": _int, "dict": _dict, "open": _open,
    "os.getenv": _getenv, "os.environ.get": _getenv, "os.environ.setdefault": _setdefault,
    "os.environ.update": _update,
    "json.dump": _dump, "json.dumps": _json_text,
    "os.makedirs": lambda ev, *args, **named: None, "os.mkdir": lambda ev, *args, **named: None,
    "os.chdir": lambda ev, path: ev.state.change_folder(_path_function("os.fspath", ev, path)),
    "os.system": _system,
    "os.getcwd": lambda ev: ev.state.folder,
    "pathlib.Path": lambda ev, *args: _path(ev, *(args or ["."])),
    "pathlib.Path.home": lambda ev: _path(ev, ev.state.home),
    "pathlib.Path.cwd": lambda ev: _path(ev, ev.state.folder),
    "os.getuid": lambda ev: _id(ev, "uid"), "os.getgid": lambda ev: _id(ev, "gid"),
    "platform.machine": lambda ev: concat(os.uname().machine),
    "sys.exit": lambda ev, *args: ev.fail("SystemExit: sys.exit()"),
    "get_ipython": lambda ev: Library("get_ipython()"),
}  # fmt: skip
"""What functions do, by their dotted names: of the evaluator and their arguments."""
_FUNCTIONS |= {name: _one_path(name) for name in _PATH_FUNCTIONS}
_FUNCTIONS["os.path.join"] = partial(_path_function, "os.path.join")
_METHODS: dict[str, Callable[..., Any]] = {
    "str.format": _format, "str.join": _join_texts, "str.replace": _replace,
    "list.append": lambda ev, owner, item, /: owner.append(item), "list.extend": _extend,
    "dict.get": _get, "dict.update": _update_dict, "dict.copy": lambda ev, owner, /: _dict(ev, owner),
    "dict.keys": lambda ev, owner: View(owner, "keys"), "dict.values": lambda ev, owner: View(owner, "values"),
    "dict.items": lambda ev, owner: View(owner, "items"),
    "PosixPath.joinpath": _path, "PosixPath.open": _open, "PosixPath.expanduser": _expand_path,
    "PosixPath.resolve": _resolve,
    "PosixPath.write_text": lambda ev, path, data, *args, **named: _write(ev, _open(ev, path, "w"), data),
    "TextIOWrapper.write": _write, "TextIOWrapper.close": _close, "TextIOWrapper.flush": lambda ev, file: None,
}  # fmt: skip
_METHODS |= {f"str.{name}": partial(_text_method, name) for name in _TEXT_METHODS}
_SIGNATURES = {function: signature(function) for function in (*_FUNCTIONS.values(), *_METHODS.values())}


def call(ev: Evaluator, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    """Return the result of a function, by its dotted name. Raises SimulatedException and Exhausted."""
    function = _FUNCTIONS.get(name)
    if function is not None and _takes(function, args, named):
        return function(ev, *args, **named)
    if name.startswith("get_ipython()"):
        return _call_ipython(ev, name, args)
    reason = f"{name}() is not followed"
    if name in _HARMLESS and "file" not in named:
        return ev.state.unknown(reason)
    if name in ("exec", "eval"):
        ev.invalidate_namespace(reason)
    elif name == "os.environ.pop" and args and isinstance(args[0], str):
        ev.state.set_environment(args[0], ev.state.unknown(reason))
    elif name.startswith("os.environ."):
        ev.state.lose_variables(reason)
    elif name.startswith("os."):
        mark_escaped(ev, Library(name))
    return ev.unknown(reason, *args, *named.values())


def _takes(function: Callable[..., Any], args: list[Any], named: dict[str, Any]) -> bool:
    """Check whether a function takes these arguments."""
    try:
        _SIGNATURES[function].bind(None, *args, **named)
    except TypeError:
        return False
    return True


def call_method(ev: Evaluator, owner: Any, name: str, args: list[Any], named: dict[str, Any]) -> Any:
    """Return ``owner.name(…)``. Raises SimulatedException."""
    if not has_attribute(owner, name):
        return ev.may_fail(f"'{name}' is not a method of {_described(owner)}")
    function = _METHODS.get(f"{type_name(owner)}.{name}")
    if function is not None and _takes(function, [owner, *args], named):
        return function(ev, owner, *args, **named)
    reason = f"{name}() of a {type_name(owner)} is not followed"
    if isinstance(owner, PurePath) and name in _PATH_METHODS:
        return ev.state.unknown(reason)
    if isinstance(owner, PurePath):
        ev.state.invalidate_files("a file may have changed")
    if isinstance(owner, Unknown) and name == "chdir":
        ev.state.lose_folder()
    if isinstance(owner, Unknown) and name in ("write_text", "write_bytes"):
        ev.state.invalidate_files("a file at an unknown path is written")
    return ev.unknown(reason, owner, *args, *named.values())


def _call_ipython(ev: Evaluator, name: str, args: list[Any]) -> Any:
    """Follow ``get_ipython().run_line_magic(…)`` and the like, as in notebooks that were converted to scripts."""
    method = name.rpartition(".")[2]
    words = [word for word in args if isinstance(word, str)]
    if method in ("run_line_magic", "magic", "line_magic") and words and len(words) == len(args):
        return ipython.run_line(ev, "%" + " ".join(words).lstrip("%"))
    if method in ("system", "getoutput") and words:
        return ipython.run_line(ev, f"!{words[0]}")
    if method == "run_cell_magic" and len(words) == len(args) == 3:
        return ipython.run_cell_magic(ev, f"{words[0]} {words[1]}".rstrip(), words[2])
    return ev.unknown(f"{name}() is not followed", Library(name), *args)
