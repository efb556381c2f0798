"""Making unknown what a piece of code may set, where it is not known whether or how often it would run."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taoprofiles.reading.interpreter import Interpreter


def forget(ev: Interpreter, *nodes: ast.AST) -> None:
    """Make unknown what a piece of code may set."""
    reason = ev.unknown("set in code that is not followed to its end")
    scope = ev.scopes[-1] if ev.scopes else ev.memory.names
    before, ev.memory.unsure = ev.memory.unsure, reason
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            scope[node.id] = reason
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and _is_environ(node.value):
            if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                ev.memory.set_environment(node.slice.value or "_", reason)
        elif isinstance(node, ast.Name) and isinstance(scope.get(node.id), (list, dict)):
            ev.spoil([scope[node.id]])
    ev.memory.unsure = before


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )
