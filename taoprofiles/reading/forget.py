"""Making unknown what a piece of code may set, where it is not known whether or how often it would run."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from taoprofiles.reading.cells import magic_number
from taoprofiles.reading.syntax import bound, is_environ

if TYPE_CHECKING:
    from taoprofiles.reading.interpreter import Interpreter

_SETS = re.compile(r"%(?:set_)?env\s+([A-Za-z_]\w*)")


def forget(ev: Interpreter, *nodes: ast.AST, names: bool = True) -> None:
    """Make unknown what a piece of code may set; the names that it sets are perhaps its own."""
    reason = ev.unknown("set in code that is not followed to its end")
    scope = ev.scopes[-1] if ev.scopes else ev.memory.names
    before, ev.memory.unsure = ev.memory.unsure, reason
    spoilt: set[int] = set()
    try:
        for node in (inner for outer in nodes for inner in ast.walk(outer)):
            ev.budget.step()
            for name in _variables(ev, node):
                ev.memory.set_environment(name, reason)
            if names:
                scope.update(dict.fromkeys(bound(node), reason))
            if isinstance(node, ast.Name) and isinstance(scope.get(node.id), (list, dict)):
                if id(scope[node.id]) not in spoilt:
                    ev.spoil([scope[node.id]])
                spoilt.add(id(scope[node.id]))
    finally:
        ev.memory.unsure = before


def _variables(ev: Interpreter, node: ast.AST) -> list[str]:
    """Name the environment variables that a piece of code sets itself."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and is_environ(node.value):
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        return [key] if isinstance(key, str) and key and "=" not in key else []
    number = magic_number(node)
    found = _SETS.match(ev.magics[number]) if number is not None and number < len(ev.magics) else None
    return [found[1]] if found is not None else []
