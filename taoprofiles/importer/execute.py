"""The meaning of statements and of magics: a cell after the other, as a person runs them, with nothing being run.

A cell that would raise ends there, and the next one goes on. Where it cannot be told whether code would run, what it
sets becomes unknown.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from taoprofiles.importer import imports, magics
from taoprofiles.importer.assign import Assigner
from taoprofiles.importer.cells import Cell, CellError, magic_number, prepare
from taoprofiles.importer.doubts import perhaps, taking
from taoprofiles.importer.forget import forget, forget_names
from taoprofiles.importer.limits import CALLS, Budget, Exhausted, Jump, Place, Raised, Unknown
from taoprofiles.importer.state import Memory
from taoprofiles.importer.syntax import catches
from taoprofiles.importer.values import File, Function

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


_LEAVES = {ast.Return: "return", ast.Break: "loop", ast.Continue: "loop", ast.Raise: "raise"}


class Executor(Assigner):
    """Follows cells in a memory. ``noted`` of the memory says what was not understood, or would fail."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory, Budget())
        self._calls = 0
        self._handled: list[Raised | None] = []
        """The exceptions whose handlers are followed; None for one that is not known."""

    def cell(self, cell: Cell) -> None:
        """Follow one cell to its end, or to where it would fail."""
        memory = self.memory
        memory.place = Place(cell.number, 1)
        self.budget.next_cell()
        memory.doubts.clear()
        self.tries = 0
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
        except Jump:
            pass  # a return outside of a function, which Python would not have taken

    # Statements

    def block(self, statements: list[ast.stmt]) -> None:
        """Follow statements in their order."""
        for statement in statements:
            self.budget.step()
            self.memory.place = Place(self.memory.place.cell, statement.lineno)
            method = getattr(self, f"_do_{type(statement).__name__.lower()}", None)
            if method is None:
                self._pass_over(statement)
            else:
                method(statement)

    def _pass_over(self, statement: ast.stmt) -> None:
        """Reckon with everything that a statement of another kind may do, jumps included."""
        forget(self, statement)
        why = self.unknown(f"'{type(statement).__name__}' is not followed")
        for inner in ast.walk(statement):
            kind = _LEAVES.get(type(inner))
            if kind is not None and (kind != "raise" or self.tries):
                self.memory.doubts.setdefault(kind, why)

    def _do_expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _do_pass(self, node: ast.Pass) -> None:
        pass

    def _do_import(self, node: ast.Import) -> None:
        for name, value in imports.names(self, node):
            self.bind(name, value)

    _do_importfrom = _do_import

    # Control

    def _do_if(self, node: ast.If) -> None:
        truth = self.truth(self.value(node.test))
        if not isinstance(truth, Unknown):
            self.block(node.body if truth else node.orelse)
            return
        for branch in (node.body, node.orelse):
            with perhaps(self, truth):
                self.block(branch)

    def _do_for(self, node: ast.For) -> None:
        over = self.value(node.iter)
        entries = self.entries(over)
        if isinstance(entries, Unknown):
            self._rounds(node, entries, node.target)
            return
        with taking(self, "loop") as left:
            for entry in _live(over) if isinstance(over, list) else entries:
                self.budget.step()
                if self.told(over) is not over:
                    left.append(self.unknown("a loop over a list that is changed in it"))
                    break
                self.assign(node.target, entry)
                if self._round(node.body):
                    return
        self._else(node, left)

    def _do_while(self, node: ast.While) -> None:
        with taking(self, "loop") as left:
            while True:
                self.budget.step()
                truth = self.truth(self.value(node.test))
                if isinstance(truth, Unknown):
                    self._rounds(node, truth)
                    return
                if not truth:
                    break
                if self._round(node.body):
                    return
        self._else(node, left)

    def _else(self, node: ast.For | ast.While, left: list[Unknown]) -> None:
        if left:
            with perhaps(self, left[0]):
                self.block(node.orelse)
        else:
            self.block(node.orelse)

    def _rounds(self, node: ast.For | ast.While, why: Unknown, target: ast.expr | None = None) -> None:
        """Follow a loop of which nobody knows how often it goes round.

        Twice, so that what one round changes is found by the next (loops within it go round with it); what it binds is
        not known even in the first.
        """
        rounds = 2 if self.memory.unsure is None else 1
        forget_names(self, node)
        with taking(self, "loop"):
            for _ in range(rounds):
                with perhaps(self, why):
                    if target is not None:
                        self.assign(target, why)
                    elif isinstance(node, ast.While):
                        self.value(node.test)
                    self.block(node.body)
        with perhaps(self, why):
            self.block(node.orelse)

    def _round(self, body: list[ast.stmt]) -> bool:
        """Follow a loop's body once; tell whether it breaks out."""
        try:
            self.block(body)
        except Jump as jump:
            if jump.kind == "return":
                raise
            return jump.kind == "break"
        return False

    def _do_break(self, node: ast.Break) -> None:
        raise Jump("break")

    def _do_continue(self, node: ast.Continue) -> None:
        raise Jump("continue")

    def _do_return(self, node: ast.Return) -> None:
        raise Jump("return", None if node.value is None else self.value(node.value))

    def _do_with(self, node: ast.With) -> None:
        strange: Unknown | None = None
        suppresses = False
        for item in node.items:
            value = self.value(item.context_expr)
            if not isinstance(value, File):
                strange = self.unknown("a 'with' that may catch exceptions")
            called = item.context_expr.func if isinstance(item.context_expr, ast.Call) else None
            suppresses |= getattr(called, "id", getattr(called, "attr", "")) == "suppress"
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value)
        self.tries += suppresses
        try:
            with taking(self, *(["raise"] if suppresses else [])):
                self.block(node.body)
        except Raised:
            if strange is None:
                raise
            self.memory.doubts.setdefault("raise", strange)
        finally:
            self.tries -= suppresses

    def _do_try(self, node: ast.Try) -> None:
        error: Raised | None = None
        try:
            self.tries += 1
            try:
                with taking(self, "raise") as might:
                    self.block(node.body)
            except Raised as raised:
                error = raised
            finally:
                self.tries -= 1
            if error is None and not might:
                self.block(node.orelse)
            elif error is None:
                for handler in node.handlers:
                    with perhaps(self, might[0]):
                        self._handle(handler, None)
                with perhaps(self, might[0]):
                    self.block(node.orelse)
            else:
                self._catch(node, error, might)
        finally:
            self.block(node.finalbody)

    def _catch(self, node: ast.Try, error: Raised, might: list[Unknown]) -> None:
        """Follow the handlers for an exception; ``might`` says that it may also have been another one."""
        doubt = might[0] if might else None
        for handler in node.handlers:
            takes = catches(self, handler, error)
            if takes and doubt is None:
                self._handle(handler, error)
                return
            if takes is not False or might:
                doubt = doubt or self.unknown(f"an exception of which kind is not known: {error.kind}")
                with perhaps(self, doubt):
                    self._handle(handler, error)
                if takes:
                    return
        if doubt is None:
            raise error
        self.memory.doubts.setdefault("raise", doubt)

    def _handle(self, handler: ast.ExceptHandler, error: Raised | None) -> None:
        if handler.name:
            self.bind(handler.name, self.unknown("an exception"))
        self._handled.append(error)
        try:
            self.block(handler.body)
        finally:
            self._handled.pop()
            if handler.name:
                self._scope(handler.name).pop(handler.name, None)  # as Python does

    def _do_raise(self, node: ast.Raise) -> None:
        if node.exc is None and self._handled and self._handled[-1] is not None:
            raise self._handled[-1]
        what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        raise Raised(str(getattr(what, "id", getattr(what, "attr", ""))) or "an exception", "raised by the code itself")

    def _do_assert(self, node: ast.Assert) -> None:
        truth = self.truth(self.value(node.test))
        if truth is False:
            raise Raised("AssertionError", "")
        if isinstance(truth, Unknown) and self.tries:
            self.memory.doubts.setdefault("raise", truth)

    def _do_functiondef(self, node: ast.FunctionDef) -> None:
        plain = not node.decorator_list and not any(
            isinstance(one, (ast.Yield, ast.YieldFrom)) for one in ast.walk(node)
        )
        made = self.function(node.args, node.body) if plain else self.unknown(f"{node.name}()")
        self.bind(node.name, self.code(node, node.name) if isinstance(made, Unknown) else made)

    def _do_classdef(self, node: ast.ClassDef) -> None:
        forget(self, node, names=False)
        self.bind(node.name, self.code(node, f"the class {node.name}"))

    def call_own(self, function: Function, positional: list[Any], named: dict[str, Any]) -> Any:
        """Call a function that the code defines."""
        scope = dict(function.defaults)
        if len(positional) > len(function.parameters):
            raise Raised("TypeError", "too many positional arguments")
        scope.update(zip(function.parameters, positional, strict=False))
        strange = named.keys() - set(function.parameters[len(positional) :])
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
        value: Any = None
        try:
            with taking(self, "return", "loop") as perhaps_left:
                if isinstance(function.body, ast.expr):
                    value = self.value(function.body)
                else:
                    self.block(function.body)
        except Jump as jump:
            value = jump.value
        finally:
            self.scopes = outer
            self.memory.place = place
            self._calls -= 1
        return self.unknown("", perhaps_left[0], value) if perhaps_left else value

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


def _live(entries: list[Any]) -> Iterator[Any]:
    """Go through a list as Python does: what is added to it meanwhile comes as well."""
    at = 0
    while at < len(entries):
        yield entries[at]
        at += 1
