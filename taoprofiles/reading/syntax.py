"""Small questions to a piece of Python's tree."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taoprofiles.reading.bounds import Raised


def loaded(target: ast.expr) -> ast.expr:
    """Give the expression that reads what a target sets."""
    copy: ast.expr = type(target)(**{field: getattr(target, field) for field in target._fields})
    copy.ctx = ast.Load()  # type: ignore[attr-defined]
    return ast.copy_location(copy, target)


def catches(handler: ast.ExceptHandler, error: Raised) -> bool:
    """Whether an except clause takes an exception."""
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return not error.family.isdisjoint(getattr(one, "id", getattr(one, "attr", "")) for one in types)


def bound(node: ast.AST) -> list[str]:
    """Name what a piece of code itself binds."""
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    name = getattr(node, "name", None)  # of a function, a class, an exception, a pattern
    return [name] if isinstance(name, str) else []


def is_environ(node: ast.expr) -> bool:
    """Whether an expression is ``os.environ``, by its name."""
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )
