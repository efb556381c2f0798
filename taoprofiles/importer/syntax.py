"""Small questions to a piece of Python's tree."""

from __future__ import annotations

import ast
import builtins
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taoprofiles.importer.interpreter import Interpreter
    from taoprofiles.importer.limits import Raised

_LIBRARYS = {"JSONDecodeError": ValueError, "UsageError": Exception, "UnsupportedOperation": OSError}
"""Exceptions that are not built in, by what they are besides: json's, IPython's, io's."""


def catches(ev: Interpreter, handler: ast.ExceptHandler, error: Raised) -> bool | None:
    """Whether an except clause takes an exception; None where that is not known."""
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    told = [_is_a(ev, error.kind, getattr(one, "id", getattr(one, "attr", ""))) for one in types]
    return True if True in told else None if None in told else False


def _is_a(ev: Interpreter, name: str, of: str) -> bool | None:
    if name == of:
        return True
    if of in ("Exception", "BaseException") and name in ev.memory.names:
        return True  # an exception of the code's own; it is hardly one that Exception does not take
    kind, parent = (None if one in ev.memory.names else _exception(one) for one in (name, of))
    return issubclass(kind, parent) if kind is not None and parent is not None else None


def _exception(name: str) -> type[BaseException] | None:
    found = _LIBRARYS.get(name, getattr(builtins, name, None))
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def bound(node: ast.AST) -> list[str]:
    """Name what a piece of code itself binds or unbinds."""
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    name = getattr(node, "name", getattr(node, "rest", None))  # of a function, a class, an exception, a pattern
    return [name] if isinstance(name, str) else []


def is_environ(node: ast.expr) -> bool:
    """Whether an expression is ``os.environ``, by its name."""
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )
