"""The static evaluator of statements and expressions. Nothing that the code names is ever called or imported."""

from __future__ import annotations

import ast
import builtins
import operator
import sys
from inspect import Parameter, Signature
from typing import Any

from taoprofiles.importer import containers, functions, ipython
from taoprofiles.importer.effects import (
    bound_names,
    invalidate,
    invalidate_statement,
    is_namespace_call,
    mark_escaped,
    skip,
)
from taoprofiles.importer.ipython import Cell, CellError, magic_number, prepare
from taoprofiles.importer.state import (
    DEPTH_LIMIT,
    ENTRY_SIZE,
    MAY_SET,
    NUMBER_BITS,
    PLACEHOLDER_NAME,
    PLAIN,
    TEXT_LIMIT,
    Budget,
    Exhausted,
    Function,
    Id,
    Library,
    NotFollowed,
    OpenFile,
    PurePath,
    Returned,
    Segment,
    SimulatedException,
    SourceLocation,
    State,
    TracedStr,
    Unknown,
    View,
    attempt,
    concat,
    doubt,
    names_mounts_file,
    segments,
    type_name,
)

_IPYTHON_NAMES = frozenset("display In Out _ __ ___ _i _ii _iii _oh _ih _dh exit quit".split())
"""Names that IPython adds to Python's own."""
_WRITE_NO_MOUNTS_FILE = sys.stdlib_module_names - {"importlib", "runpy", "shutil", "subprocess"} | frozenset(
    "IPython PIL cv2 matplotlib numpy pandas requests sklearn tensorflow torch tqdm wandb yaml".split()
)
"""Modules that write the mounts file only if its path is passed to them."""
_NOT_IN_FUNCTIONS = (
    ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
    ast.Lambda, ast.GeneratorExp,
)  # fmt: skip
_EXPRESSIONS: dict[type[ast.expr], str] = {
    ast.Lambda: "a lambda", ast.ListComp: "a comprehension", ast.DictComp: "a comprehension",
    ast.SetComp: "a comprehension", ast.GeneratorExp: "a generator", ast.Set: "a set", ast.Starred: "'*'",
    ast.NamedExpr: "':='", ast.Slice: "a slice",
}  # fmt: skip


class Evaluator:
    """Evaluates cells one after the other.

    Methods raise SimulatedException if the code would raise, and Exhausted beyond the limits.
    """

    def __init__(self, state: State) -> None:
        self.state: State = state
        self.budget = Budget()
        self.locals: dict[str, Any] | None = None
        """The names of the function that is followed, None outside of functions."""
        self.local_names: frozenset[str] = frozenset()
        self.magics: list[str] = []
        """The line magics and commands of all cells so far."""
        self._depth = 0
        self._gave_up = False

    def run_cell(self, cell: Cell) -> None:
        """Follow one cell to its end, or up to the line that would fail."""
        if self._gave_up:
            return
        state = self.state
        state.location = SourceLocation(cell.number, 1)
        self._may_have_failed = False
        try:
            prepared = prepare(cell.source, self.magics)
        except CellError as error:
            message, line = error.args
            state.notes.append((SourceLocation(cell.number, line), message))
            return
        try:
            if prepared.cell_magic is not None:
                ipython.run_cell_magic(self, prepared.cell_magic, prepared.body)
            self.run(prepared.tree.body)
        except SimulatedException as error:
            state.note(f"the {state.unit} ends here, as it would when run: {error}")
        except (Exhausted, RecursionError) as error:
            self._gave_up = True
            reason = str(error) if isinstance(error, Exhausted) else ""
            state.invalidate_all(f"skipped from here on: {reason or 'too many steps'}")

    def may_fail(self, reason: str) -> Unknown:
        """Return the value of an expression that may raise: what the rest of the cell changes is unknown."""
        self._may_have_failed = True
        self.state.note(f"the rest of the {self.state.unit} is not evaluated: {reason}")
        return self.state.unknown(reason)

    def missing_variable(self, name: str) -> Unknown:
        """Return the value of an environment variable that the code needs and does not set."""
        self.state.unset[name] = self.state.location
        return self.may_fail(f"{name} is not set in the code")

    def fail(self, error: str) -> Unknown:
        """Raise SimulatedException, unless it may depend on a variable that is set where the code runs."""
        if not self.state.unset:
            raise SimulatedException(error)
        return self.may_fail(f"{error}, which may depend on {', '.join(self.state.unset)}")

    # Names

    def lookup(self, name: str) -> Any:
        """Return the value of a name, None if it has none."""
        if self.locals is not None and name in self.locals:
            return self.locals[name]
        return self.state.names.get(name)

    def bind(self, name: str, value: Any, *, is_global: bool = False) -> None:
        """Bind a name in the current scope."""
        state = self.state
        if self.locals is not None and not is_global:
            self.locals[name] = value
            return
        if name in state.deferred.mentioned:
            state.deferred.mounts_file |= names_mounts_file(value)
            if not isinstance(value, Library):  # code that uses 'os.path' must not lose the environment at 'import os'
                mark_escaped(self, value)
        if name in state.deferred.bound or (state.deferred.all_names and not isinstance(value, Library)):
            value = state.unknown(f"{name} may be set by code that import cannot evaluate")
        if name in state.user_values and isinstance(value, (str, Unknown)):
            value = state.with_user_value(name, value)
        elif isinstance(value, str) and doubt(value):
            # One question, however many variables are made of it.
            number = (state.location.cell << 20) + min(state.location.line, (1 << 20) - 1)
            value = TracedStr([Segment(str(value), "name", name, number)])
        state.names[name] = value

    def invalidate_namespace(self, reason: str) -> None:
        """Make unknown what any code may change: the names of the notebook, the variables and the folder."""
        self.state.lose_variables(reason)
        self.state.lose_folder()
        self.lose_names(reason)

    def lose_names(self, reason: str) -> None:
        """Make unknown all names but those of modules, and names that the code does not bind."""
        self.state.has_unknown_names = True
        for scope in (self.state.names, self.locals or {}):
            for name, value in list(scope.items()):
                if isinstance(value, Function):
                    mark_escaped(self, value)
                if not isinstance(value, Library):
                    scope[name] = self.state.with_user_value(name, self.state.unknown(reason))

    # Conversions that several modules need

    def unknown(self, reason: str, *values: Any, source: str = "") -> Unknown:
        """Return an unknown value that depends on ``values``, which code that is not followed then has."""
        result = self.state.unknown(reason, *values, source=source)
        mark_escaped(self, *values)
        return result

    def as_text(self, value: Any) -> str | Unknown:
        """Return ``str(value)``."""
        if isinstance(value, (str, Unknown)):
            return value
        if isinstance(value, PurePath):
            return value.text
        if isinstance(value, PLAIN):
            return TracedStr([value.segment if isinstance(value, Id) else Segment(str(value))])
        return self.state.unknown(f"the text of a {type_name(value)}")

    def part(self, text: str, result: str) -> str | Unknown:
        """Return what was made of ``text``, Unknown if that is a placeholder and the result does not show it."""
        is_lost = self.state.holds_placeholder(text) and not self.state.holds_placeholder(result)
        return self.state.unknown("a part of a placeholder") if is_lost else result

    def join(self, texts: list[Any]) -> str | Unknown:
        """Return the concatenation of texts, Unknown if one of them is."""
        if not all(isinstance(text, str) for text in texts):
            mark_escaped(self, *texts)  # such as the name of a mounts file
            return self.state.ending(texts[-1], *texts)
        size = sum(map(len, texts))
        self.budget.spend(size + sum(len(segments(text)) for text in texts))
        return concat(*texts) if size <= TEXT_LIMIT else self.state.unknown("a very long text")

    def entries(self, value: Any) -> list[Any] | Unknown:
        """Return the items that a loop over ``value`` yields."""
        value = self.state.known(value)
        if isinstance(value, View):
            owner = self.state.known(value.owner)
            value = owner if isinstance(owner, Unknown) else list(getattr(owner, value.name)())
        if isinstance(value, (list, tuple, dict)):
            self.budget.spend(len(value) * ENTRY_SIZE)
            return list(value)
        if value is None or isinstance(value, (int, float)):
            raise SimulatedException(f"TypeError: '{type_name(value)}' object is not iterable")
        return self.unknown(f"a loop over a {type_name(value)}", value)

    def truth(self, value: Any) -> bool | Unknown:
        """Return ``bool(value)``."""
        value = self.state.known(value)
        if isinstance(value, (*PLAIN, list, tuple, dict)):
            return bool(value)
        return self.state.unknown(f"whether a {type_name(value)} is true", value)

    # Expressions

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression, Unknown for one that is not followed."""
        self.budget.spend()
        outer = self.state.location
        if hasattr(node, "lineno"):
            self.state.location = outer._replace(line=node.lineno)
        evaluate = getattr(self, f"_{type(node).__name__.lower()}", None)
        if evaluate is None or self._depth >= DEPTH_LIMIT:
            invalidate(self, [node])
            kind = _EXPRESSIONS.get(type(node), "an expression")
            value: Any = self.state.unknown("nested too deeply" if evaluate else f"{kind} is not followed")
        else:
            self._depth += 1
            try:
                value = self.state.known(evaluate(node))
            finally:
                self._depth -= 1
        self.state.location = outer  # after an exception it stays, for the message
        return value

    def text(self, expression: str) -> str | Unknown:
        """Evaluate an expression given as text, and return ``str()`` of it, as IPython's formatter does."""
        try:
            node = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise SimulatedException("SyntaxError: invalid syntax") from None
        return self.as_text(self.value(node))

    def _constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, str):
            self.budget.spend(len(node.value))
            return concat(node.value)
        if isinstance(node.value, int) and node.value.bit_length() > NUMBER_BITS:
            return self.state.unknown("a very large number")
        return node.value if isinstance(node.value, PLAIN) else self.state.unknown("a constant of another type")

    def _name(self, node: ast.Name) -> Any:
        name = node.id
        if self.locals is not None and name in self.local_names:
            return self.locals[name] if name in self.locals else self.state.unknown(f"{name} may not be set")
        if name in self.state.names:
            return self.state.names[name]
        if name == "__name__":
            return TracedStr([Segment("__main__")])
        if name in functions.BUILTINS:
            return Library(name)
        if name == "globals":
            self.invalidate_namespace("globals() is not followed")
        if self.state.has_unknown_names:
            return self.state.unknown(f"{name} may be set by code that import cannot evaluate")
        if PLACEHOLDER_NAME.match(name):
            return TracedStr([Segment("FIXME")])  # the user has to replace it by a value
        if hasattr(builtins, name) or name in _IPYTHON_NAMES:
            return self.state.unknown(f"{name} is not followed")
        raise SimulatedException(f"NameError: name '{name}' is not defined")

    def _joinedstr(self, node: ast.JoinedStr) -> Any:
        return self.join([self.value(part) for part in node.values])

    def _formattedvalue(self, node: ast.FormattedValue) -> Any:
        value = self.value(node.value)
        if node.format_spec is None and node.conversion in (-1, ord("s")):
            return self.as_text(value)
        invalidate(self, [node.format_spec] if node.format_spec else [])
        return self.unknown("a format that is not followed", value)

    def _list(self, node: ast.List) -> Any:
        items = [self.value(item) for item in node.elts]
        self.budget.spend(len(items))
        if any(isinstance(item, ast.Starred) for item in node.elts):
            return self.unknown("a list with '*' is not followed", *items)
        return items

    def _tuple(self, node: ast.Tuple) -> Any:
        items = self._list(ast.List(node.elts))
        return items if isinstance(items, Unknown) else tuple(items)

    def _starred(self, node: ast.Starred) -> Any:
        return self.value(node.value)

    def _dict(self, node: ast.Dict) -> Any:
        keys = [None if key is None else self.value(key) for key in node.keys]
        values = [self.value(value) for value in node.values]
        self.budget.spend(len(keys) * ENTRY_SIZE)
        if None in node.keys or not all(isinstance(key, PLAIN) for key in keys):
            values = [value for value in values if value != Library("os.environ")]
            return self.unknown("a dictionary with '**', or with a key that is not known", *keys, *values)
        return {str(key) if isinstance(key, str) else key: value for key, value in zip(keys, values, strict=True)}

    def _boolop(self, node: ast.BoolOp) -> Any:
        value: Any = None
        for number, part in enumerate(node.values, 1):
            value = self.value(part)
            truth = self.truth(value)
            if isinstance(truth, Unknown):
                invalidate(self, [*node.values[number:]])
                return self.unknown("", truth, value)
            if truth is isinstance(node.op, ast.Or):
                return value
        return value

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return truth if isinstance(truth, Unknown) else not truth
        if isinstance(value, (int, float)) and isinstance(node.op, ast.USub):
            return -value
        return self.unknown("an operator that is not followed", value)

    def _binop(self, node: ast.BinOp) -> Any:
        return functions.operate(self, node.op, self.value(node.left), self.value(node.right))

    def _ifexp(self, node: ast.IfExp) -> Any:
        truth = self.truth(self.value(node.test))
        if not isinstance(truth, Unknown):
            return self.value(node.body if truth else node.orelse)
        invalidate(self, [node.body, node.orelse])
        return truth

    def _compare(self, node: ast.Compare) -> Any:
        left, right = self.value(node.left), self.value(node.comparators[0])
        if len(node.ops) > 1:
            invalidate(self, node.comparators)
            return self.state.unknown("a comparison of more than two values")
        return functions.compare(self, node.ops[0], left, right)

    def _attribute(self, node: ast.Attribute) -> Any:
        return functions.attribute(self, self.value(node.value), node.attr)

    def _subscript(self, node: ast.Subscript) -> Any:
        return functions.entry(self, self.value(node.value), self.value(node.slice))

    # Calls

    def _call(self, node: ast.Call) -> Any:
        number = magic_number(node)
        if number is not None and number < len(self.magics):
            return ipython.run_line(self, self.magics[number].strip())
        if is_namespace_call(node):
            self.invalidate_namespace("the names are used as a dictionary")
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        function = self.value(node.func.value if isinstance(node.func, ast.Attribute) else node.func)
        if method and isinstance(function, Library):
            function, method = functions.attribute(self, function, method), ""
        positional = [self.value(argument) for argument in node.args]
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
        if None in named or any(isinstance(argument, ast.Starred) for argument in node.args):
            invalidate(self, [node])
            return self.unknown("a call with '*' is not followed", function, *positional, *named.values())
        return self._result(function, method, positional, {str(name): value for name, value in named.items()})

    def _result(self, function: Any, method: str, positional: list[Any], named: dict[str, Any]) -> Any:
        """Return the result of a call of a function, or of a method of a value."""
        if isinstance(function, Function) and not method:
            return self._call_function(function, positional, named)
        if isinstance(function, Library):
            return functions.call(self, function.name, positional, named)
        if isinstance(function, Unknown):
            if function.source == "dotenv":  # load_dotenv() sets what a file '.env' has
                self.state.note(f"{MAY_SET}: {function.reason}")
            if function.source and function.source.partition(".")[0] not in _WRITE_NO_MOUNTS_FILE:
                self.state.calls[self.state.location] = f"a call is not followed ({function.reason})"
            named.pop("env", None)  # of a program that is started
            if function.source == "subprocess" and positional:
                containers.start(self, positional[0])
        if method:
            return functions.call_method(self, self.state.known(function), method, positional, named)
        return self.unknown("a call that is not followed", function, *positional, *named.values())

    def _call_function(self, function: Function, positional: list[Any], named: dict[str, Any]) -> Any:
        """Call a function of the file itself."""
        try:
            bound = function.signature.bind(*positional, **named)
        except TypeError as error:
            raise SimulatedException(f"TypeError: {function.name}(): {error}") from None
        bound.apply_defaults()
        outer = self.locals, self.local_names, self.state.location
        self.locals, self.local_names = bound.arguments, function.local_names
        self.state.location = SourceLocation(function.cell, self.state.location.line)
        try:
            self.run(function.body)
        except Returned as returned:
            return returned.args[0]
        except NotFollowed:
            invalidate(self, function.body)
            return self.state.unknown("the result of a function that is not followed to its end")
        finally:
            self.locals, self.local_names, self.state.location = outer
        return None

    # Statements

    def run(self, body: list[ast.stmt]) -> None:
        """Follow statements. Raises SimulatedException, Returned, NotFollowed and Exhausted."""
        outer = self.state.location
        for statement in body:
            self.budget.spend()
            self.state.location = outer._replace(line=statement.lineno)
            follow = getattr(self, f"_run_{type(statement).__name__.lower()}", None)
            if self._may_have_failed:
                invalidate_statement(self, statement)
            elif follow is None:
                skip(self, statement)
            else:
                follow(statement)
        self.state.location = outer

    def _run_expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _run_pass(self, node: ast.Pass) -> None:
        pass

    def _run_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, value in self.imported(node):
            self.bind(name, value)

    def _run_importfrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").startswith("google.colab"):  # notebooks ask in this way whether they run there
            raise SimulatedException(f"ModuleNotFoundError: No module named '{node.module}'")
        if node.names[0].name == "*":
            self.state.note(f"{MAY_SET}: 'from {node.module} import *' is not followed")
            self.lose_names("set by code that import cannot evaluate")
        for alias in node.names if node.module in functions.MODULES and not node.level else ():
            if alias.name != "*" and not functions.has_attribute(Library(node.module or ""), alias.name):
                self.may_fail(f"'{alias.name}' is not in {node.module}")
        self._run_import(node)

    def imported(self, node: ast.Import | ast.ImportFrom) -> list[tuple[str, Any]]:
        """Return the names that an import binds, each with its value."""
        bound: list[tuple[str, Any]] = []
        for alias in node.names:
            first = alias.name.partition(".")[0]
            if isinstance(node, ast.Import):
                name, source, value = first, alias.name, alias.name if alias.asname else first
                is_known = first in functions.MODULES
            else:
                name, source, value = alias.name, node.module or alias.name, f"{node.module}.{alias.name}"
                is_known = source in functions.MODULES and not node.level
            if source.partition(".")[0] == "__main__":  # which has all names of the notebook
                raise Exhausted("the notebook is imported as a module")
            unknown = self.state.unknown(f"'{source}' is not followed", source=source)
            bound.append((alias.asname or name, Library(value) if is_known else unknown))
        return [pair for pair in bound if pair[0] != "*"]

    def _run_assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.assign(target, value)

    def _run_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.value(node.value))

    def assign(self, target: ast.expr, value: Any) -> None:
        """Assign a value to a target."""
        if isinstance(target, ast.Name):
            self.bind(target.id, value)
        elif isinstance(target, ast.Subscript):
            owner = self.value(target.value)
            self._set_entry(owner, self.value(target.slice), value, target)
        elif isinstance(target, (ast.Tuple, ast.List)) and not any(isinstance(e, ast.Starred) for e in target.elts):
            entries = self.entries(value)
            if isinstance(entries, list) and len(entries) != len(target.elts):
                raise SimulatedException(f"ValueError: {len(entries)} values for {len(target.elts)} names")
            for number, part in enumerate(target.elts):
                self.assign(part, entries[number] if isinstance(entries, list) else entries)
        elif isinstance(target, ast.Attribute):
            mark_escaped(self, self.value(target.value), value)
        else:  # '*names'
            mark_escaped(self, value)
            invalidate(self, [target])

    def _set_entry(self, owner: Any, key: Any, value: Any, target: ast.expr) -> None:
        if owner == Library("os.environ"):
            self.state.location = SourceLocation(self.state.location.cell, target.lineno)
            self.state.set_environment(key, value)
        elif isinstance(owner, (list, dict, type(None))) and isinstance(key, PLAIN):
            attempt(operator.setitem, owner, str(key) if isinstance(key, str) else key, value)
        else:
            mark_escaped(self, owner, value)

    def _run_augassign(self, node: ast.AugAssign) -> None:
        target, owner, key = node.target, None, None
        if isinstance(target, ast.Attribute):
            skip(self, node)
            return
        if isinstance(target, ast.Subscript):
            owner, key = self.value(target.value), self.value(target.slice)
            old = self.state.known(functions.entry(self, owner, key))
        else:
            old = self.value(target)
        new = self.value(node.value)
        if isinstance(old, list) and isinstance(node.op, ast.Add) and isinstance(new, (list, tuple)):
            self.budget.spend(len(new) * ENTRY_SIZE)
            old.extend(new)
        elif not isinstance(old, (*PLAIN, tuple, Unknown)):
            mark_escaped(self, old, new)
            skip(self, node)
        elif isinstance(target, ast.Name):
            self.bind(target.id, functions.operate(self, node.op, old, new))
        else:
            self._set_entry(owner, key, functions.operate(self, node.op, old, new), target)

    def _run_if(self, node: ast.If) -> None:
        truth = self.truth(self.value(node.test))
        if isinstance(truth, Unknown):
            skip(self, node, f"'if' ({truth.reason})")
        else:
            self.run(node.body if truth else node.orelse)

    def _run_for(self, node: ast.For) -> None:
        over = self.value(node.iter)
        entries = self.entries(over)
        owner = over.owner if isinstance(over, View) else over
        before = self._identities(owner)
        has_jump = any(isinstance(part, ast.Break | ast.Continue) for part in ast.walk(node))
        reason = "'break' or 'continue'" if has_jump else entries.reason if isinstance(entries, Unknown) else ""
        for entry in entries if isinstance(entries, list) and not has_jump else []:
            self.budget.spend()
            self.budget.spend(len(before) >> 6)
            self.assign(node.target, entry)
            self.run(node.body)
            if self._identities(owner) != before:
                reason = "what it goes over is changed"
                break
        if reason:
            skip(self, node, f"'for' ({reason})")
        else:
            self.run(node.orelse)

    def _identities(self, owner: Any) -> list[int]:
        """Return the identities of all entries of a list or dictionary, none if they are not known any more."""
        entries = self.state.known(owner)
        entries = [*entries, *entries.values()] if isinstance(entries, dict) else entries
        return list(map(id, entries)) if isinstance(entries, list | tuple) else []

    def _run_return(self, node: ast.Return) -> None:
        raise Returned(None if node.value is None else self.value(node.value))

    def _run_with(self, node: ast.With) -> None:
        opened = node.items[0].context_expr
        function = opened.func if isinstance(opened, ast.Call) and len(node.items) == 1 else None
        is_open = getattr(function, "id", getattr(function, "attr", "")) == "open"
        file = self.value(opened) if is_open else None
        if not isinstance(file, OpenFile):
            skip(self, node)
            return
        if node.items[0].optional_vars is not None:
            self.assign(node.items[0].optional_vars, file)
        self.run(node.body)
        file.closed = True

    def _run_raise(self, node: ast.Raise) -> None:
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        name = str(getattr(raised, "id", getattr(raised, "attr", ""))) or "an exception"
        self.fail(f"{name}: raised by the code itself")

    def _run_assert(self, node: ast.Assert) -> None:
        if self.truth(self.value(node.test)) is False:
            self.fail("AssertionError: ")

    def _run_functiondef(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        parts = [part for statement in node.body for part in ast.walk(statement)]
        other = arguments.vararg or arguments.kwarg or arguments.posonlyargs or arguments.kwonlyargs
        uses_globals = any(isinstance(part, ast.Name) and part.id == "globals" for part in parts)
        if other or uses_globals or node.decorator_list or any(isinstance(part, _NOT_IN_FUNCTIONS) for part in parts):
            self._run_classdef(node)
            return
        names = [parameter.arg for parameter in arguments.args]
        defaults = [self.value(default) for default in arguments.defaults]
        defaults = [Parameter.empty] * (len(names) - len(defaults)) + defaults
        parameters = [
            Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default)
            for name, default in zip(names, defaults, strict=True)
        ]
        local_names = frozenset([*names, *(name for part in parts for name in bound_names(part))])
        self.bind(
            node.name, Function(node.name, Signature(parameters), node.body, local_names, self.state.location.cell)
        )

    def _run_classdef(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        """Bind a class or function that is not followed: any call of something unknown may run its code."""
        word = "class" if isinstance(node, ast.ClassDef) else "def"
        self.state.not_followed[self.state.location] = f"'{word} {node.name}'"
        invalidate(self, [node], later=True)
        self.bind(node.name, self.state.unknown(f"{node.name} is not followed"))
