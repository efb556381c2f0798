"""The meaning of assignment, in all its forms: which scope has a name, and what is changed in place."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from taoprofiles.importer import calls
from taoprofiles.importer.evaluate import Evaluator
from taoprofiles.importer.forget import forget
from taoprofiles.importer.interpreter import COMPREHENSION, GLOBALS, NONLOCALS
from taoprofiles.importer.library import entry, operate
from taoprofiles.importer.limits import Place, Raised, Unknown
from taoprofiles.importer.provenance import Part, Text
from taoprofiles.importer.state import is_placeholder
from taoprofiles.importer.values import PLAIN, Known, can_change, kind

if TYPE_CHECKING:
    from typing import Any

_IN_PLACE = (ast.Add, ast.Mult, ast.BitOr)
"""What ``+=``, ``*=`` and ``|=`` do to a list or a dictionary, whoever else has it sees."""


class Assigner(Evaluator):
    """Follows statements that bind names, and that change lists, dictionaries and the environment."""

    def _do_assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.assign(target, value)

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.value(node.value))

    def _do_augassign(self, node: ast.AugAssign) -> None:
        target = node.target
        if isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
            of, key = self.value(target.value), self.value(target.slice)
            old = self.entry_of(of, key)
            made = self._augmented(node.op, old, self.value(node.value))
            self._put(of, key, made, target)
        elif isinstance(target, ast.Name):
            old = self.value(ast.copy_location(ast.Name(target.id, ast.Load()), target))
            new = self.value(node.value)
            if isinstance(old, Known) and old.name == "os.environ" and isinstance(node.op, ast.BitOr):
                calls.call(self, Known("os.environ.update"), [new], {})
                return
            made = self._augmented(node.op, old, new)
            if made is not old or not isinstance(old, (list, dict)):  # else whoever else has it sees it as well
                self.bind(target.id, made)
        elif isinstance(target, ast.Attribute) and target.attr == "environ" and isinstance(node.op, ast.BitOr):
            update = ast.Attribute(ast.Attribute(target.value, target.attr, ast.Load()), "update", ast.Load())
            self.value(ast.fix_missing_locations(ast.copy_location(ast.Call(update, [node.value], []), node)))
        else:
            self.value(node.value)
            forget(self, target)

    def entry_of(self, of: Any, key: Any) -> Any:
        """Give ``of[key]``, Unknown for a list or dictionary that is unknown as a whole. Raises Raised."""
        return self.told(entry(self, of, key))

    def _augmented(self, op: ast.operator, old: Any, new: Any) -> Any:
        if isinstance(old, Unknown):
            self.spoil([old])
        if not isinstance(old, (list, dict)) or not isinstance(op, _IN_PLACE):
            return operate(self, op, old, new)
        extends = isinstance(op, ast.Add) and isinstance(old, list)
        made: Any = self.entries(new) if extends else operate(self, op, old, new)
        if isinstance(made, Unknown) or self.memory.unsure is not None:
            self.spoil([old])
        elif isinstance(old, dict):
            old.update(made)
        elif extends:
            old.extend(made)
        else:
            old[:] = made
        return old

    def assign(self, target: ast.expr, value: Any) -> None:
        """Bind a target of any form to a value. Raises Raised."""
        if isinstance(target, ast.Name):
            self.bind(target.id, value)
        elif isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
            self._put(self.value(target.value), self.value(target.slice), value, target)
        elif isinstance(target, ast.Subscript):
            self.spoil([self.value(target.value)])
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = value if isinstance(value, (list, tuple)) and len(value) == len(target.elts) else None
            if any(isinstance(one, ast.Starred) for one in target.elts):
                parts = None
            for number, part in enumerate(target.elts):
                self.assign(
                    part, self.unknown("a part of something unknown", value) if parts is None else parts[number]
                )
        elif isinstance(target, ast.Starred):
            self.assign(target.value, self.unknown("what is left over", value))
        elif isinstance(target, ast.Attribute):
            of = self.value(target.value)
            self.spoil([value] if can_change(value) else [])  # who gets at it there is not followed
            if isinstance(of, Known):
                self.memory.may_set(f"an assignment to {of.name}.{target.attr}")
        else:
            forget(self, target)

    def bind(self, name: str, value: Any) -> None:
        """Bind a name in the scope that Python would take."""
        scope = self._scope(name)
        if self.memory.unsure is not None:
            old = scope.get(name)
            same = isinstance(old, PLAIN) and isinstance(value, PLAIN) and old == value and kind(old) == kind(value)
            if isinstance(old, Known) and isinstance(value, Known):
                same = old.name == value.name
            value = value if same else self.unknown("", self.memory.unsure, old, value)
        elif scope is self.memory.names and name in self.memory.given and isinstance(value, (str, Unknown)):
            value = self.memory.answered(name, value)
        elif scope is self.memory.names and isinstance(value, str) and is_placeholder(value):
            # One question for it, however many variables are made of it.
            value = Text([Part(str(value), "name", name, self.memory.place.packed)])
        scope[name] = value

    def _scope(self, name: str) -> dict[str, Any]:
        scopes = [scope for scope in self.scopes if COMPREHENSION not in scope]
        if not scopes or name in scopes[-1].get(GLOBALS, ()):
            return self.memory.names
        if name in scopes[-1].get(NONLOCALS, ()):
            return next((scope for scope in reversed(scopes[:-1]) if name in scope), scopes[-1])
        return scopes[-1]

    def _put(self, of: Any, key: Any, value: Any, target: ast.expr) -> None:
        if isinstance(of, Known) and of.name == "os.environ":
            self.memory.place = Place(self.memory.place.cell, target.lineno)
            self.memory.set_environment(key, value)
            return
        unsure = self.memory.unsure
        if isinstance(of, dict) and isinstance(key, PLAIN) and (unsure is None or key in of):
            old = of.get(key)
            of[str(key) if isinstance(key, str) else key] = (
                value if unsure is None else self.unknown("", unsure, old, value)
            )
        elif isinstance(of, list) and isinstance(key, int):
            if not -len(of) <= key < len(of):
                raise Raised("IndexError", "list assignment index out of range")
            of[key] = value if unsure is None else self.unknown("", unsure, of[key], value)
        elif of is None:
            raise Raised("TypeError", "'NoneType' object does not support item assignment")
        else:
            self.spoil([of, value])

    def _do_delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._unbind(target.id)
            elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Slice):
                self.spoil([self.value(target.value)])
            elif isinstance(target, ast.Subscript):
                self._delete(self.value(target.value), self.value(target.slice))
            elif isinstance(target, ast.Attribute):
                self.value(target.value)
            else:
                forget(self, target)

    def _unbind(self, name: str) -> None:
        scope = self._scope(name)
        if self.memory.unsure is not None:
            scope[name] = self.memory.unsure
        elif scope.pop(name, self) is self:
            raise Raised("NameError", f"name '{name}' is not defined")

    def _delete(self, of: Any, key: Any) -> None:
        if isinstance(of, Known) and of.name == "os.environ" and isinstance(key, str):
            if self.memory.environment(key) is None:
                raise Raised("KeyError", repr(str(key)))
            self.memory.remove_environment(str(key))
        elif isinstance(of, (dict, list)) and isinstance(key, (str, int)) and self.memory.unsure is None:
            self.budget.made(len(of))
            try:
                of.pop(key)  # type: ignore[arg-type]
            except (KeyError, IndexError, TypeError) as error:
                raise Raised(type(error).__name__, str(error)) from None
        else:
            self.spoil([of])

    def _do_global(self, node: ast.Global) -> None:
        if self.scopes:
            self.scopes[-1].setdefault(GLOBALS, set()).update(node.names)

    def _do_nonlocal(self, node: ast.Nonlocal) -> None:
        self.scopes[-1].setdefault(NONLOCALS, set()).update(node.names)
