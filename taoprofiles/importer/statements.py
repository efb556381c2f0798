"""The statements that the evaluator follows. Every other statement makes unknown what it may change."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from taoprofiles.importer import operators
from taoprofiles.importer.invalidate import escape, invalidate, jumps, not_followed
from taoprofiles.importer.values import (
    ENTRY_SIZE,
    PLAIN,
    ControlFlow,
    File,
    Library,
    NotFollowed,
    SimulatedException,
    SourceLocation,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taoprofiles.importer.evaluator import Evaluator

MODULES = frozenset("os os.path pathlib json sys platform pprint shutil".split())
"""The modules of which functions are followed; of all others nothing is known. None is imported."""


def run(ev: Evaluator, body: list[ast.stmt]) -> None:
    """Follow statements. Raises SimulatedException, ControlFlow, NotFollowed and Exhausted."""
    for statement in body:
        ev.budget.step()
        ev.state.location = SourceLocation(ev.state.location.cell, statement.lineno)
        follow = _STATEMENTS.get(type(statement))
        if follow is None:
            _skip(ev, statement)
        else:
            follow(ev, statement)


def _skip(ev: Evaluator, statement: ast.stmt, what: str = "") -> None:
    not_followed(ev, statement, what)
    kinds = jumps([statement])
    if kinds and (ev.locals is not None or "loop" in kinds):
        raise NotFollowed(kinds)


def _expr(ev: Evaluator, node: ast.Expr) -> None:
    ev.value(node.value)


def _pass(ev: Evaluator, node: ast.Pass | ast.Global) -> None:
    """Do nothing. ``global`` is met outside of functions only."""


def _import(ev: Evaluator, node: ast.Import | ast.ImportFrom) -> None:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            module, value = node.module or "", f"{node.module}.{alias.name}"
            known = module in MODULES and not node.level
            name = alias.asname or alias.name
        else:
            module, first = alias.name, alias.name.partition(".")[0]
            known = module in MODULES or first in MODULES
            name, value = alias.asname or first, module if alias.asname else first
        if module.startswith("google.colab"):  # notebooks ask in this way whether they run there
            raise SimulatedException("ModuleNotFoundError", f"No module named '{module}'")
        if alias.name == "*":
            ev.state.has_unknown_names = True
            ev.state.note(f"may set variables that are not known: 'from {module} import *' is not followed")
            invalidate(ev, [ast.Name(bound, ast.Store()) for bound in ev.state.names])
        else:
            ev.bind(name, Library(value) if known else ev.state.unknown(f"'{module}' is not followed"))


# Assignments


def _assign(ev: Evaluator, node: ast.Assign) -> None:
    value = ev.value(node.value)
    for target in node.targets:
        assign(ev, target, value)


def _ann_assign(ev: Evaluator, node: ast.AnnAssign) -> None:
    if node.value is not None:
        assign(ev, node.target, ev.value(node.value))


def assign(ev: Evaluator, target: ast.expr, value: Any) -> None:
    """Assign a value to a target."""
    if isinstance(target, ast.Name):
        ev.bind(target.id, value)
    elif isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
        owner = ev.value(target.value)
        _set_entry(ev, owner, ev.value(target.slice), value, target)
    elif isinstance(target, (ast.Tuple, ast.List)) and not any(isinstance(part, ast.Starred) for part in target.elts):
        entries = ev.entries(value)
        if isinstance(entries, list) and len(entries) != len(target.elts):
            raise SimulatedException("ValueError", f"{len(entries)} values for {len(target.elts)} names")
        for number, part in enumerate(target.elts):
            assign(ev, part, entries[number] if isinstance(entries, list) else entries)
    else:
        _assign_elsewhere(ev, target, value)


def _assign_elsewhere(ev: Evaluator, target: ast.expr, value: Any) -> None:
    """Assign to an attribute, a slice or a starred name, which are not followed."""
    escape(ev, value)
    owner = ev.value(target.value) if isinstance(target, ast.Attribute) else None
    if isinstance(owner, Library):
        ev.state.invalidate_environment(f"an assignment to {owner.name}.{getattr(target, 'attr', '')}")
    invalidate(ev, [target])


def _set_entry(ev: Evaluator, owner: Any, key: Any, value: Any, target: ast.expr) -> None:
    if owner == Library("os.environ"):
        ev.state.location = SourceLocation(ev.state.location.cell, target.lineno)
        ev.state.set_environment(key, value)
    elif isinstance(owner, dict) and isinstance(key, PLAIN):
        owner[str(key) if isinstance(key, str) else key] = value
    elif isinstance(owner, list) and isinstance(key, int):
        if not -len(owner) <= key < len(owner):
            raise SimulatedException("IndexError", "list assignment index out of range")
        owner[key] = value
    elif owner is None:
        raise SimulatedException("TypeError", "'NoneType' object does not support item assignment")
    else:
        escape(ev, owner, value)


def _aug_assign(ev: Evaluator, node: ast.AugAssign) -> None:
    target = node.target
    owner = key = None
    if isinstance(target, ast.Name):
        old = ev.value(ast.copy_location(ast.Name(target.id, ast.Load()), target))
    elif isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
        owner, key = ev.value(target.value), ev.value(target.slice)
        old = ev.state.known(operators.entry(ev, owner, key))
    else:
        _skip(ev, node)
        return
    new = ev.value(node.value)
    if isinstance(old, list) and isinstance(node.op, ast.Add) and isinstance(new, (list, tuple)):
        ev.budget.add(len(new) * ENTRY_SIZE)
        old.extend(new)
    elif not isinstance(old, (str, int, float, tuple, type(None), Unknown)):
        escape(ev, old, new)
        _skip(ev, node)
    elif isinstance(target, ast.Name):
        ev.bind(target.id, operators.operate(ev, node.op, old, new))
    else:
        _set_entry(ev, owner, key, operators.operate(ev, node.op, old, new), target)


# Control flow


def _if(ev: Evaluator, node: ast.If) -> None:
    truth = ev.truth(ev.value(node.test))
    if not isinstance(truth, Unknown):
        run(ev, node.body if truth else node.orelse)
        return
    ev.state.location = SourceLocation(ev.state.location.cell, node.lineno)
    _skip(ev, node, f"'if' ({truth.reason})")


def _for(ev: Evaluator, node: ast.For) -> None:
    over = ev.value(node.iter)
    entries = ev.entries(over)
    if isinstance(entries, Unknown):
        _skip_loop(ev, node, f"'for' ({entries.reason})")
        return
    live = _live(over) if isinstance(over, list) else entries
    size = len(over) if isinstance(over, dict) else 0
    for entry in live:
        ev.budget.step()
        if isinstance(ev.state.known(over), Unknown):
            _skip_loop(ev, node, "'for' over a list that is changed")
            return
        if isinstance(over, dict) and len(over) != size:
            raise SimulatedException("RuntimeError", "dictionary changed size during iteration")
        assign(ev, node.target, entry)
        try:
            run(ev, node.body)
        except ControlFlow as jump:
            if jump.kind == "return":
                raise
            if jump.kind == "break":
                return
        except NotFollowed:
            _skip_loop(ev, node, "'for' that perhaps ends early")
            return
    run(ev, node.orelse)


def _skip_loop(ev: Evaluator, node: ast.For, what: str) -> None:
    ev.state.location = SourceLocation(ev.state.location.cell, node.lineno)
    _skip(ev, node, what)


def _live(entries: list[Any]) -> Iterable[Any]:
    """Iterate over a list as Python does: entries that the loop adds are included."""
    position = 0
    while position < len(entries):
        yield entries[position]
        position += 1


def _break(ev: Evaluator, node: ast.Break) -> None:
    raise ControlFlow("break")


def _continue(ev: Evaluator, node: ast.Continue) -> None:
    raise ControlFlow("continue")


def _return(ev: Evaluator, node: ast.Return) -> None:
    raise ControlFlow("return", None if node.value is None else ev.value(node.value))


def _with(ev: Evaluator, node: ast.With) -> None:
    opened = [getattr(item.context_expr, "func", None) for item in node.items]
    if not all(getattr(function, "id", getattr(function, "attr", "")) == "open" for function in opened):
        _skip(ev, node)
        return
    for item in node.items:
        value = ev.value(item.context_expr)
        if not isinstance(value, File):
            _skip(ev, node)
            return
        if item.optional_vars is not None:
            assign(ev, item.optional_vars, value)
    run(ev, node.body)


def _raise(ev: Evaluator, node: ast.Raise) -> None:
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    name = str(getattr(raised, "id", getattr(raised, "attr", ""))) or "an exception"
    raise SimulatedException(name, "raised by the code itself")


def _assert(ev: Evaluator, node: ast.Assert) -> None:
    if ev.truth(ev.value(node.test)) is False:
        raise SimulatedException("AssertionError", "")


def _function_def(ev: Evaluator, node: ast.FunctionDef) -> None:
    function = ev.define(node)
    if function is None:
        _class_def(ev, node)
    else:
        ev.bind(node.name, function)


def _class_def(ev: Evaluator, node: ast.ClassDef | ast.FunctionDef) -> None:
    """Bind a class or function that is not followed: any call of something unknown may run its code."""
    not_followed(ev, ast.copy_location(ast.Expr(ast.Constant(None)), node), f"'{_word(node)} {node.name}'")
    invalidate(ev, [node], own=False)
    ev.escaped.append(node)
    ev.bind(node.name, ev.state.unknown(f"{node.name} is not followed"))


def _word(node: ast.ClassDef | ast.FunctionDef) -> str:
    return "class" if isinstance(node, ast.ClassDef) else "def"


_STATEMENTS: dict[type[ast.stmt], Callable[[Evaluator, Any], None]] = {
    ast.Expr: _expr, ast.Pass: _pass, ast.Global: _pass, ast.Import: _import, ast.ImportFrom: _import,
    ast.Assign: _assign, ast.AnnAssign: _ann_assign, ast.AugAssign: _aug_assign, ast.If: _if, ast.For: _for,
    ast.Break: _break, ast.Continue: _continue, ast.Return: _return, ast.With: _with, ast.Raise: _raise,
    ast.Assert: _assert, ast.FunctionDef: _function_def, ast.ClassDef: _class_def,
}  # fmt: skip
