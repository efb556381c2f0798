"""The meaning of statements and of magics: a cell after the other, as a person runs them, with nothing being run.

A cell that would raise ends there, and the next one goes on. Where it cannot be told whether code would run, what it
sets becomes unknown.
"""

from __future__ import annotations

import ast
from contextlib import contextmanager
from typing import TYPE_CHECKING

from taoprofiles.reading import calls, imports, magics
from taoprofiles.reading.bounds import CALLS, Budget, Exhausted, Place, Raised, Unknown
from taoprofiles.reading.cells import Cell, CellError, magic_number, prepare
from taoprofiles.reading.evaluate import Evaluator
from taoprofiles.reading.forget import forget
from taoprofiles.reading.library import operate
from taoprofiles.reading.memory import Memory, is_placeholder
from taoprofiles.reading.syntax import catches, loaded
from taoprofiles.reading.traced import Part, Text
from taoprofiles.reading.values import PLAIN, Function, Known

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


GLOBALS = "·globals·"
"""Where a function's scope keeps the names that it declares as global."""


class _Jump(Exception):
    """A return, break or continue on its way."""

    def __init__(self, kind: str, value: Any = None) -> None:
        super().__init__(kind)
        self.kind, self.value = kind, value


class Executor(Evaluator):
    """Follows cells in a memory. ``noted`` of the memory says what was not understood, or would fail."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory, Budget())
        self._calls = 0

    def cell(self, cell: Cell) -> None:
        """Follow one cell to its end, or to where it would fail."""
        memory = self.memory
        memory.place = Place(cell.number, 1)
        self.budget.next_cell()
        memory.unsure = None
        self.scopes.clear()
        try:
            prepared = prepare(cell.source, self.magics)
        except CellError as error:
            memory.noted.append((Place(cell.number, error.line), error.message))
            return
        try:
            if prepared.cell_magic is not None:
                magics.cell(self, prepared.cell_magic, prepared.body)
            self.block(prepared.tree.body)
        except Raised as error:
            memory.noted.append((memory.place, f"the cell ends here, as it would when run: {error}"))
        except (Exhausted, RecursionError):
            memory.noted.append((memory.place, "it goes on for too long to be followed"))
            self.budget.is_lifted = True
            forget(self, prepared.tree)
            self.budget.is_lifted = False
        except _Jump:
            pass  # a return outside of a function, which Python would not have taken

    # Statements

    def block(self, statements: list[ast.stmt]) -> None:
        """Follow statements in their order."""
        for statement in statements:
            self.budget.step()
            self.memory.place = Place(self.memory.place.cell, statement.lineno)
            method = getattr(self, f"_do_{type(statement).__name__.lower()}", None)
            if method is None:
                forget(self, statement)
            else:
                method(statement)

    def _do_expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _do_pass(self, node: ast.Pass) -> None:
        pass

    def _do_import(self, node: ast.Import) -> None:
        for name, value in imports.names(self, node):
            self._bind(name, value)

    _do_importfrom = _do_import

    def _do_assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self._assign(target, value)

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assign(node.target, self.value(node.value))

    def _do_augassign(self, node: ast.AugAssign) -> None:
        old = self.value(loaded(node.target))
        new = self.value(node.value)
        if isinstance(old, Known) and old.name == "os.environ":
            calls.call(self, Known("os.environ.update"), [new], {})
            return
        if isinstance(old, list) and isinstance(node.op, ast.Add) and self.memory.unsure is None:
            entries = self.entries(new)
            if isinstance(entries, list):
                old.extend(entries)  # in place, for whoever else has the list
                return
        if isinstance(old, Known) and old.name == "os.environ" and isinstance(node.op, ast.BitOr):
            calls.call(self, Known("os.environ.update"), [new], {})
            return
        self._assign(node.target, operate(self, node.op, old, new))

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, value)
        elif isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
            of, key = self.value(target.value), self.value(target.slice)
            if isinstance(of, Known) and of.name == "os.environ":
                self.memory.place = Place(self.memory.place.cell, target.lineno)
                self.memory.set_environment(key, value)
            else:
                self._put(of, key, value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = value if isinstance(value, (list, tuple)) and len(value) == len(target.elts) else None
            for number, part in enumerate(target.elts):
                self._assign(
                    part, self.unknown("a part of something unknown", value) if parts is None else parts[number]
                )
        elif isinstance(target, ast.Attribute):
            self.value(target.value)  # an attribute of something that is not followed
        else:
            forget(self, target)

    def _bind(self, name: str, value: Any) -> None:
        scope = self.scopes[-1] if self.scopes else self.memory.names
        if name in scope.get(GLOBALS, ()):
            scope = self.memory.names
        if self.memory.unsure is not None:
            old = scope.get(name)
            same = isinstance(old, PLAIN) and isinstance(value, PLAIN) and old == value
            value = value if same else self.memory.unsure
        elif scope is self.memory.names and name in self.memory.given and isinstance(value, (str, Unknown)):
            value = self.memory.answered(name, value)
        elif scope is self.memory.names and isinstance(value, str) and is_placeholder(value):
            # One question for it, however many variables are made of it.
            value = Text([Part(str(value), "name", name, self.memory.place.packed)])
        scope[name] = value

    def _put(self, of: Any, key: Any, value: Any) -> None:
        if self.memory.unsure is not None:
            value = self.memory.unsure
        if isinstance(of, dict) and isinstance(key, PLAIN):
            of[str(key) if isinstance(key, str) else key] = value
        elif isinstance(of, list) and isinstance(key, int) and not isinstance(key, bool):
            if not -len(of) <= key < len(of):
                raise Raised("IndexError", "list assignment index out of range")
            of[key] = value
        elif of is None:
            raise Raised("TypeError", "'NoneType' object does not support item assignment")
        else:
            self.spoil([of])

    def _do_delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
                of, key = self.value(target.value), self.value(target.slice)
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
            elif isinstance(target, ast.Name):
                (self.scopes[-1] if self.scopes else self.memory.names).pop(target.id, None)

    # Control

    def _do_if(self, node: ast.If) -> None:
        truth = self.truth(self.value(node.test))
        if not isinstance(truth, Unknown):
            self.block(node.body if truth else node.orelse)
            return
        with self._unsure(truth):
            self.block(node.body)
            self.block(node.orelse)

    @contextmanager
    def _unsure(self, why: Unknown) -> Iterator[None]:
        """Follow code of which nobody knows whether it runs: what it would raise, or jump to, does not happen."""
        before = self.memory.unsure
        self.memory.unsure = before or why
        try:
            yield
        except (Raised, _Jump):
            pass
        finally:
            self.memory.unsure = before

    def _do_for(self, node: ast.For) -> None:
        entries = self.entries(self.value(node.iter))
        if isinstance(entries, Unknown):
            forget(self, node)
            return
        for entry in entries:
            self.budget.step()
            self._assign(node.target, entry)
            if self._round(node.body):
                return
        self.block(node.orelse)

    def _do_while(self, node: ast.While) -> None:
        while True:
            self.budget.step()
            truth = self.truth(self.value(node.test))
            if isinstance(truth, Unknown):
                forget(self, node)
                return
            if not truth:
                self.block(node.orelse)
                return
            if self._round(node.body):
                return

    def _round(self, body: list[ast.stmt]) -> bool:
        """Follow a loop's body once; tell whether it breaks out."""
        try:
            self.block(body)
        except _Jump as jump:
            if jump.kind == "return":
                raise
            return jump.kind == "break"
        return False

    def _do_break(self, node: ast.Break) -> None:
        raise _Jump("break")

    def _do_continue(self, node: ast.Continue) -> None:
        raise _Jump("continue")

    def _do_return(self, node: ast.Return) -> None:
        raise _Jump("return", None if node.value is None else self.value(node.value))

    def _do_with(self, node: ast.With) -> None:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars is not None:
                self._assign(item.optional_vars, value)
        self.block(node.body)

    def _do_try(self, node: ast.Try) -> None:
        try:
            try:
                self.block(node.body)
            except Raised as error:
                handler = next((one for one in node.handlers if catches(one, error)), None)
                if handler is None:
                    raise
                if handler.name:
                    self._bind(handler.name, self.unknown("an exception"))
                self.block(handler.body)
            else:
                self.block(node.orelse)
                if any(imports.may_fail(one) for statement in node.body for one in ast.walk(statement)):
                    forget(self, *node.handlers)
        finally:
            self.block(node.finalbody)

    def _do_raise(self, node: ast.Raise) -> None:
        what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        raise Raised(str(getattr(what, "id", "") or "Exception"), "raised by the code itself")

    def _do_assert(self, node: ast.Assert) -> None:
        if self.truth(self.value(node.test)) is False:
            raise Raised("AssertionError", "")

    def _do_global(self, node: ast.Global) -> None:
        if self.scopes:
            self.scopes[-1].setdefault(GLOBALS, set()).update(node.names)

    def _do_functiondef(self, node: ast.FunctionDef) -> None:
        plain = not node.decorator_list and not any(
            isinstance(one, (ast.Yield, ast.YieldFrom)) for one in ast.walk(node)
        )
        self._bind(node.name, self.function(node.args, node.body) if plain else self.unknown(f"{node.name}()"))

    def _do_classdef(self, node: ast.ClassDef) -> None:
        forget(self, node, names=False)
        self._bind(node.name, self.unknown(f"the class {node.name}"))

    def call_own(self, function: Function, positional: list[Any], named: dict[str, Any]) -> Any:
        """Call a function that the code defines."""
        scope = dict(function.defaults)
        if len(positional) > len(function.parameters):
            raise Raised("TypeError", "too many positional arguments")
        scope.update(zip(function.parameters, positional, strict=False))
        strange = named.keys() - set(function.parameters)
        missing = set(function.parameters) - scope.keys() - named.keys()
        if strange or missing:
            raise Raised("TypeError", "arguments that do not fit the function")
        scope.update(named)
        if self._calls >= CALLS:
            raise Exhausted
        self._calls += 1
        # A function sees its own names and those around it, not those of whoever calls it.
        outer, self.scopes = self.scopes, [*function.around, scope]
        place, self.memory.place = self.memory.place, Place(function.cell, self.memory.place.line)
        try:
            if isinstance(function.body, ast.expr):
                return self.value(function.body)
            self.block(function.body)
        except _Jump as jump:
            return jump.value
        finally:
            self.scopes = outer
            self.memory.place = place
            self._calls -= 1
        return None

    def call_magic(self, function: str, positional: list[Any]) -> Any:
        """Call a method of ``get_ipython()``, as notebooks that were made into scripts have it."""
        words = [word for word in positional if isinstance(word, str)]
        if function in ("run_line_magic", "magic", "line_magic") and words and len(words) == len(positional):
            return magics.line(self, "%" + " ".join(words).lstrip("%"))
        return self.unknown(f"get_ipython().{function}() is not run")

    def _call(self, node: ast.Call) -> Any:
        number = magic_number(node)
        if number is None or number >= len(self.magics):
            return super()._call(node)
        return magics.line(self, self.magics[number].strip())
