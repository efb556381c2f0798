"""Making unknown what a piece of code may set, where it cannot be followed."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from taoprofiles.importer.cells import magic_number
from taoprofiles.importer.syntax import bound, is_environ
from taoprofiles.importer.values import Code, Function

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from taoprofiles.importer.interpreter import Interpreter

_SETS = re.compile(r"%(?:set_)?env\s+([A-Za-z_]\w*)")
_READ = frozenset("get keys values items copy".split())
"""Methods of the environment that change nothing."""


def forget_names(ev: Interpreter, node: ast.AST) -> None:
    """Make unknown the names that a piece of code binds, as it perhaps runs."""
    reason = ev.unknown("set in code that is not followed to its end")
    with ev.memory.doubting(reason):
        for inner in ast.walk(node):
            ev.budget.step()
            for name in bound(inner):
                ev.bind(name, reason)


def forget(ev: Interpreter, *nodes: ast.AST, names: bool = True) -> None:
    """Make unknown what a piece of code may set; ``names`` is false where those that it binds are its own."""
    reason = ev.unknown("set in code that is not followed to its end")
    changed: list[Any] = []
    with ev.memory.doubting(reason):
        for inner in _reached(ev, nodes):
            ev.budget.step()
            for name in _variables(ev, inner):
                ev.memory.set_environment(name, reason)
            if names:
                for name in bound(inner):
                    ev.bind(name, reason)
            if isinstance(inner, ast.Global):
                ev.memory.names.update(dict.fromkeys(inner.names, reason))
            if isinstance(inner, ast.Name):
                changed.append(_looked_up(ev, inner.id))
        ev.spoil([one for one in changed if isinstance(one, (list, dict))])


def _reached(ev: Interpreter, nodes: tuple[ast.AST, ...]) -> Iterator[ast.AST]:
    """Give every node of the code, and of the functions of its own that it names."""
    waiting, seen = list(nodes), set()
    while waiting:
        for node in ast.walk(waiting.pop()):
            yield node
            named = _looked_up(ev, node.id) if isinstance(node, ast.Name) else None
            if isinstance(named, (Function, Code)) and id(named) not in seen:
                seen.add(id(named))
                waiting += named.nodes


def _looked_up(ev: Interpreter, name: str) -> Any:
    return next((scope[name] for scope in (*reversed(ev.scopes), ev.memory.names) if name in scope), None)


def _variables(ev: Interpreter, node: ast.AST) -> list[str]:
    """Name the environment variables that a piece of code sets itself; it is noted where their names are not known."""
    keys: list[ast.expr | None] = []
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and is_environ(node.value):
        keys = [node.slice]
    elif isinstance(node, ast.AugAssign) and is_environ(node.target):
        keys = list(node.value.keys) if isinstance(node.value, ast.Dict) else [None]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if is_environ(node.func.value) and node.func.attr not in _READ:
            first = node.args[0] if node.args else None
            keys = [ast.Constant(word.arg) for word in node.keywords if word.arg is not None]
            keys += list(first.keys) if isinstance(first, ast.Dict) else [first] if first or not keys else []
        elif node.func.attr == "chdir":
            ev.memory.change_folder(ev.unknown("a folder that is perhaps changed to"))
    number = magic_number(node)
    magic = ev.magics[number] if number is not None and number < len(ev.magics) else ""
    if magic.startswith("%cd"):
        ev.memory.change_folder(ev.unknown("a folder that is perhaps changed to"))
    found = _SETS.match(magic)
    told = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    if len(told) < len(keys):
        ev.memory.may_set("os.environ")
    return [key for key in told if key and "=" not in key and "\0" not in key] + ([found[1]] if found else [])
