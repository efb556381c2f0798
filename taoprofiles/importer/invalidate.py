"""Code that is not followed: everything that it may change becomes unknown.

One assumption is made, or nothing would be known of any notebook: a call of another library changes only what it is
given, and what is not followed does not raise. The user would have corrected a cell that fails.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from taoprofiles.importer import cells, ipython
from taoprofiles.importer.state import names_mounts_file
from taoprofiles.importer.values import (
    File,
    Function,
    Library,
    Method,
    PurePath,
    SimulatedException,
    Unknown,
    View,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taoprofiles.importer.evaluator import Evaluator

_SETS_VARIABLE = re.compile(r"%(?:set_)?env\s+([A-Za-z_]\w*)\s*[= ]")
_READS_ENVIRONMENT = frozenset("get keys values items copy".split())
_JUMPS: dict[type[ast.AST], str] = {ast.Return: "return", ast.Break: "loop", ast.Continue: "loop"}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _children(node: ast.AST) -> Iterable[ast.AST]:
    return () if isinstance(node, (ast.Name, ast.Constant)) else ast.iter_child_nodes(node)


def bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that code binds or deletes in its own scope."""
    names: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        inner = _children(node)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, _COMPREHENSIONS):
            names |= {walrus.target.id for walrus in ast.walk(node) if isinstance(walrus, ast.NamedExpr)}
            inner = ()
        elif isinstance(node, ast.Global | ast.Nonlocal):
            names.update(node.names)
        else:  # a function, a class, an exception, a pattern
            name = getattr(node, "name", getattr(node, "rest", None))
            names |= {name} if isinstance(name, str) else set()
        waiting += () if isinstance(node, _SCOPES) else inner
    return names


def jumps(nodes: Iterable[ast.AST]) -> set[str]:
    """Return "loop" and "return" for the jumps by which code may leave a loop or function around it."""
    kinds: set[str] = set()
    waiting = [(node, False) for node in nodes]
    while waiting:
        node, in_loop = waiting.pop()
        kind = _JUMPS.get(type(node))
        if kind is not None and not (kind == "loop" and in_loop):
            kinds.add(kind)
        if not isinstance(node, _SCOPES):
            in_loop = in_loop or isinstance(node, (ast.For, ast.While, ast.AsyncFor))
            waiting += [(child, in_loop) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
    return kinds


def escape(ev: Evaluator, *values: Any) -> None:
    """Pass values to code that is not followed: it may change lists and dictionaries, and call functions."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        ev.budget.step()
        if isinstance(value, Method):
            waiting.append(value.owner)
        elif isinstance(value, Function):
            if value not in ev.escaped:
                ev.escaped.append(value)
                waiting += value.defaults.values()
        elif isinstance(value, View):
            waiting.append(value.owner)
        elif names_mounts_file(value):
            ev.state.lose_mounts_file("perhaps written by code that is not followed")
        elif isinstance(value, File) and not value.mode.startswith("r"):
            ev.state.write_file(value.path, ev.state.unknown("written by code that is not followed"))
        elif isinstance(value, (list, dict, tuple)) and ev.state.known(value) is value:
            ev.budget.add(len(value))
            waiting += value.values() if isinstance(value, dict) else value
            if not isinstance(value, tuple):
                ev.state.lost[id(value)] = (value, ev.state.unknown("changed by code that is not followed"))


def call_unknown(ev: Evaluator, reason: str, *values: Any) -> Unknown:
    """Return the result of a call that is not followed. It may change its arguments and call what escaped before."""
    unknown = ev.state.unknown(reason, *values)
    escape(ev, *values)
    if ev.escaped:
        invalidate(ev, [], calls=True)
    return unknown


def not_followed(ev: Evaluator, statement: ast.stmt, what: str = "") -> None:
    """Invalidate what a statement may change, and name its line. Raises NotFollowed where the statement may jump."""
    ev.state.not_followed[ev.state.location] = what or f"'{_keyword(statement)}'"
    invalidate(ev, [statement])


def _keyword(statement: ast.stmt) -> str:
    keywords = {"ClassDef": "class", "FunctionDef": "def", "AsyncFunctionDef": "async def", "Delete": "del"}
    name = type(statement).__name__
    return keywords.get(name, name.lower().replace("trystar", "try").replace("async", "async "))


def invalidate(ev: Evaluator, nodes: list[ast.AST], *, calls: bool = False, own: bool = True) -> None:
    """Make unknown what code may change: names, lists and dictionaries, variables, the folder, mounts files.

    ``own`` is true for code of the current scope. ``calls`` is true for code that calls what escaped before.
    """
    names = bound_names(nodes) if own else set[str]()
    walk = _Walk(ev, names)
    walk.follow(nodes, calls=calls)
    for name in sorted(names):
        ev.bind(name, walk.reason)


class _Walk:
    """Goes through code, and through the functions that it may call."""

    def __init__(self, ev: Evaluator, names: set[str]) -> None:
        self._ev = ev
        self._names = names
        self.reason = ev.state.unknown("set by code that is not followed")
        self._waiting: list[ast.AST] = []
        self._functions: set[int] = set()
        self._visited: set[str] = set()
        self._calls = self._mentions_mounts_file = False

    def follow(self, nodes: list[ast.AST], *, calls: bool) -> None:
        self._waiting = list(nodes)
        self._calls = calls
        while self._waiting or self._add_escaped():
            while self._waiting:
                node = self._waiting.pop()
                self._ev.budget.step()
                visit = _VISITS.get(type(node))
                if visit is not None:
                    visit(self, node)
                self._waiting += _children(node)
        if self._calls and self._mentions_mounts_file:
            self._ev.state.lose_mounts_file("perhaps written by code that is not followed")

    def _constant(self, node: ast.Constant) -> None:
        self._mentions_mounts_file |= names_mounts_file(node.value)

    def _subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load) and self._is_environ(node.value):
            self._set_variables([node.slice])

    def _aug_assign(self, node: ast.AugAssign) -> None:
        if self._is_environ(node.target):
            self._set_variables(node.value.keys if isinstance(node.value, ast.Dict) else [None])

    def _global(self, node: ast.Global) -> None:
        self._ev.state.names.update(dict.fromkeys(node.names, self.reason))

    def _import_from(self, node: ast.ImportFrom) -> None:
        self._ev.state.has_unknown_names |= node.names[0].name == "*"

    def _name(self, node: ast.Name) -> None:
        if node.id in self._visited:
            return
        self._visited.add(node.id)
        value = self._ev.lookup(node.id)
        self._mentions_mounts_file |= names_mounts_file(value)
        if isinstance(value, Function):
            self._add_function(value)
        elif not isinstance(value, (str, PurePath, Library)):
            escape(self._ev, value)

    def _add_function(self, function: Function) -> None:
        if id(function) not in self._functions:
            self._functions.add(id(function))
            self._waiting += function.body
            escape(self._ev, *function.defaults.values())

    def _add_escaped(self) -> bool:
        """Add the code that a call of something unknown may run; return whether there is more of it."""
        for escaped in self._ev.escaped if self._calls else ():
            if isinstance(escaped, Function):
                self._add_function(escaped)
            elif id(escaped) not in self._functions:
                self._functions.add(id(escaped))
                self._waiting.append(escaped)
        return bool(self._waiting)

    def _call(self, node: ast.Call) -> None:
        self._calls = True
        number = cells.magic_number(node)
        if number is not None:
            self._magic(self._ev.magics[number] if number < len(self._ev.magics) else "")
            return
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if isinstance(node.func, ast.Attribute) and self._is_environ(node.func.value):
            if name not in _READS_ENVIRONMENT:
                self._environ_method(node)
        elif name in ("chdir", "cd", "run_line_magic", "magic"):
            self._ev.state.folder = self._ev.state.unknown("a folder that is perhaps changed")
            if name.endswith("magic"):
                self._set_variables([None])
        elif name in ("exec", "eval"):
            self._ev.state.note(f"may set variables that are not known: {name}() is not followed")
        self._ev.state.created.clear()  # such as os.rmdir()

    def _environ_method(self, node: ast.Call) -> None:
        keys: list[ast.expr | None] = [None if word.arg is None else ast.Constant(word.arg) for word in node.keywords]
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Dict):
            keys += first.keys
        elif first is not None or not keys:
            keys.append(first)
        self._set_variables(keys)

    def _is_environ(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id == "environ" or self._ev.lookup(node.id) == Library("os.environ")
        return isinstance(node, ast.Attribute) and node.attr == "environ"

    def _set_variables(self, keys: Iterable[ast.expr | None]) -> None:
        state = self._ev.state
        for key in keys:
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                state.invalidate_environment("set by code that is not followed")
            elif key.value and "=" not in key.value and "\0" not in key.value:
                state.set_environment(key.value, self.reason)

    def _magic(self, text: str) -> None:
        if text.startswith(("%cd", "cd ")):
            self._ev.state.folder = self._ev.state.unknown("a folder that is perhaps changed")
        elif text.startswith("!"):
            try:
                ipython.check_command(self._ev, text)
            except SimulatedException:
                pass
        match = _SETS_VARIABLE.match(text)
        if match:
            self._ev.state.set_environment(match[1], self.reason)
        elif text.startswith(("%env ", "%set_env ")):
            self._set_variables([None])


_VISITS: dict[type[ast.AST], Callable[[_Walk, Any], None]] = {
    ast.Name: _Walk._name, ast.Call: _Walk._call, ast.Constant: _Walk._constant, ast.Subscript: _Walk._subscript,
    ast.AugAssign: _Walk._aug_assign, ast.Global: _Walk._global, ast.ImportFrom: _Walk._import_from,
}  # fmt: skip
