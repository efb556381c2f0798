"""The static evaluator of expressions. Nothing that the code names is ever called or imported."""

from __future__ import annotations

import ast
import builtins
import operator
from typing import TYPE_CHECKING, Any

from taoprofiles.importer import ipython, library, operators, statements
from taoprofiles.importer.cells import Cell, CellError, magic_number, prepare
from taoprofiles.importer.invalidate import bound_names, call_unknown, escape, invalidate
from taoprofiles.importer.state import PLACEHOLDER_NAME, State, is_placeholder
from taoprofiles.importer.values import (
    CALLS_LIMIT,
    DEPTH_LIMIT,
    ENTRIES_LIMIT,
    ENTRY_SIZE,
    NUMBER_BITS,
    PLAIN,
    TEXT_LIMIT,
    TEXTS_LIMIT,
    Budget,
    ControlFlow,
    Exhausted,
    Function,
    Id,
    Library,
    Method,
    NotFollowed,
    PurePath,
    Segment,
    SimulatedException,
    SourceLocation,
    TracedStr,
    Unknown,
    View,
    concat,
    segments,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_IPYTHON_NAMES = frozenset("display In Out _ __ ___ _i _ii _iii _oh _ih _dh exit quit".split())
"""Names that IPython adds to Python's own."""


class Evaluator:
    """Evaluates cells one after the other.

    Methods raise SimulatedException where the code would raise, and Exhausted beyond the limits.
    """

    def __init__(self, state: State) -> None:
        self.state: State = state
        self.budget = Budget()
        self.locals: dict[str, Any] | None = None
        """The names of the function that is followed, None outside of functions."""
        self.local_names: frozenset[str] = frozenset()
        self.magics: list[str] = []
        """The line magics and commands of all cells so far."""
        self.escaped: list[Function | ast.AST] = []
        """Functions and code of the file that a call of something unknown may run."""
        self._depth = 0
        self._calls = 0
        self._texts = 0

    def run_cell(self, cell: Cell) -> None:
        """Follow one cell to its end, or to where it would fail."""
        state = self.state
        state.location = SourceLocation(cell.number, 1)
        self.budget.start_cell()
        try:
            prepared = prepare(cell.source, self.magics)
        except CellError as error:
            state.notes.append((SourceLocation(cell.number, error.line), error.message))
            return
        try:
            if prepared.cell_magic is not None:
                ipython.run_cell_magic(self, prepared.cell_magic, prepared.body)
            statements.run(self, prepared.tree.body)
        except SimulatedException as error:
            state.note(f"the cell ends here, as it would when run: {error}")
        except (Exhausted, RecursionError):
            state.note("not followed any further: it takes too many steps")
            self.locals = None
            self._invalidate_cell(prepared.tree)
        except (ControlFlow, NotFollowed):
            pass  # a return outside of a function, which Python would not have taken

    def _invalidate_cell(self, tree: ast.Module) -> None:
        budget, self.budget = self.budget, Budget()
        self.budget.start_cell(is_followed=False)
        try:
            invalidate(self, [tree], calls=True)
        except (Exhausted, RecursionError):  # a magic that expands itself
            self.state.invalidate_environment("a cell that is not followed")
            self.state.lose_mounts_file("a cell that is not followed")
            self.state.names.clear()
            self.state.has_unknown_names = True
        finally:
            self.budget = budget

    # Names

    def lookup(self, name: str) -> Any:
        """Return the value of a name, None if it has none."""
        if self.locals is not None and name in self.locals:
            return self.locals[name]
        return self.state.names.get(name)

    def bind(self, name: str, value: Any) -> None:
        """Bind a name in the current scope."""
        state = self.state
        if self.locals is not None:
            self.locals[name] = value
            return
        if name in state.given and isinstance(value, (str, Unknown)):
            value = state.answered(name, value)
        elif isinstance(value, str) and is_placeholder(value):
            # One question, however many variables are made of it.
            number = (state.location.cell << 20) + min(state.location.line, (1 << 20) - 1)
            value = TracedStr([Segment(str(value), "name", name, number)])
        state.names[name] = value

    # Conversions that several modules need

    def unknown(self, reason: str, *values: Any) -> Unknown:
        """Return an unknown value that depends on ``values``, which code that is not followed then has."""
        result = self.state.unknown(reason, *values)
        escape(self, *values)
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
        for text in texts:
            if not isinstance(text, str):
                return self.state.unknown("a text made of something unknown", text)
        size = sum(map(len, texts))
        self.budget.add(size + sum(len(segments(text)) for text in texts))
        return concat(*texts) if size <= TEXT_LIMIT else self.state.unknown("a very long text")

    def entries(self, value: Any) -> list[Any] | Unknown:
        """Return the items that a loop over ``value`` yields."""
        value = self.state.known(value)
        if isinstance(value, View):
            lost = self.state.known(value.owner)
            value = lost if isinstance(lost, Unknown) else value.entries
        if isinstance(value, (list, tuple, range, dict)):
            if len(value) > ENTRIES_LIMIT:
                return self.unknown(f"a loop over more than {ENTRIES_LIMIT} entries", value)
            self.budget.add(len(value) * ENTRY_SIZE)
            return list(value)
        if value is None or isinstance(value, (int, float)):
            raise SimulatedException("TypeError", f"'{type_name(value)}' object is not iterable")
        return self.unknown(f"a loop over a {type_name(value)}", value)

    def truth(self, value: Any) -> bool | Unknown:
        """Return ``bool(value)``."""
        value = self.state.known(value)
        if isinstance(value, (*PLAIN, list, tuple, dict, range)):
            return bool(value)
        return self.state.unknown(f"whether a {type_name(value)} is true", value)

    # Expressions

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression, Unknown for one that is not followed."""
        self.budget.step()
        self._depth += 1
        try:
            if self._depth > DEPTH_LIMIT:
                invalidate(self, [node])
                return self.state.unknown("nested too deeply")
            if hasattr(node, "lineno"):
                self.state.location = SourceLocation(self.state.location.cell, node.lineno)
            evaluate = _EXPRESSIONS.get(type(node))
            if evaluate is None:
                return self._not_followed(node)
            return self.state.known(evaluate(self, node))
        finally:
            self._depth -= 1

    def _not_followed(self, node: ast.expr) -> Unknown:
        invalidate(self, [node])
        if isinstance(node, (ast.Lambda, ast.GeneratorExp)):
            self.escaped.append(node)
        return self.state.unknown(f"{_NAMES.get(type(node), 'an expression')} is not followed")

    def text(self, expression: str) -> str | Unknown:
        """Evaluate an expression given as text, and return ``str()`` of it, as IPython's formatter does."""
        try:
            node = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise SimulatedException("SyntaxError", "invalid syntax") from None
        if self._texts > TEXTS_LIMIT:
            raise Exhausted
        location = self.state.location
        self._texts += 1
        try:
            value = self.value(node)
        finally:
            self._texts -= 1
            self.state.location = location
        return value if isinstance(value, Unknown) else self.as_text(value)

    def _constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, str):
            self.budget.add(len(node.value))
            is_short = len(node.value) <= TEXT_LIMIT
            return TracedStr([Segment(node.value)]) if is_short else self.state.unknown("a very long text")
        if isinstance(node.value, int) and node.value.bit_length() > NUMBER_BITS:
            return self.state.unknown("a very large number")
        return node.value if isinstance(node.value, PLAIN) else self.state.unknown("a constant of another type")

    def _name(self, node: ast.Name) -> Any:
        name = node.id
        if self.locals is not None and name in self.local_names:
            if name not in self.locals:
                raise SimulatedException("UnboundLocalError", f"local variable '{name}' is not set")
            return self.locals[name]
        if name in self.state.names:
            return self.state.names[name]
        if name == "__name__":
            return TracedStr([Segment("__main__")])
        if name in library.BUILTINS:
            return Library(name)
        if self.state.has_unknown_names:
            return self.state.unknown(f"{name} is perhaps set by code that is not followed")
        if PLACEHOLDER_NAME.match(name):
            return TracedStr([Segment("FIXME")])  # the user has to replace it by a value
        if hasattr(builtins, name) or name in _IPYTHON_NAMES:
            return self.state.unknown(f"{name} is not followed")
        raise SimulatedException("NameError", f"name '{name}' is not defined")

    def _joined_str(self, node: ast.JoinedStr) -> Any:
        return self.join([self.value(part) for part in node.values])

    def _formatted_value(self, node: ast.FormattedValue) -> Any:
        value = self.value(node.value)
        specification = None if node.format_spec is None else self.value(node.format_spec)
        if node.conversion not in (-1, ord("s")):
            return self.unknown("a format that is not followed", value)
        value = value if node.conversion == -1 else self.as_text(value)
        return operators.format_value(self, value, specification or "")

    def _list(self, node: ast.List) -> Any:
        return self._items(node.elts)

    def _tuple(self, node: ast.Tuple) -> Any:
        items = self._items(node.elts)
        return tuple(items) if isinstance(items, list) else items

    def _items(self, nodes: list[ast.expr]) -> list[Any] | Unknown:
        """Return the values of a display or of arguments, ``*values`` among them."""
        items: list[Any] = []
        unknown: Unknown | None = None
        for node in nodes:
            if isinstance(node, ast.Starred):
                entries = self.entries(self.value(node.value))
                unknown = entries if isinstance(entries, Unknown) else unknown
                items += [] if isinstance(entries, Unknown) else entries
            else:
                items.append(self.value(node))
        self.budget.add(len(items))
        return items if unknown is None else self.unknown("", unknown, *items)

    def _dict(self, node: ast.Dict) -> Any:
        result: dict[Any, Any] = {}
        skipped: list[Any] = []
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            key = None if key_node is None else self.value(key_node)
            value = self.value(value_node)
            if key_node is None:
                result |= value if isinstance(value, dict) else {}
                skipped += [] if isinstance(value, dict) else [value]
            elif isinstance(key, PLAIN):
                result[str(key) if isinstance(key, str) else key] = value
            else:
                skipped += [key, value]
        self.budget.add(len(result) * ENTRY_SIZE)
        return self.unknown("a dictionary with a key that is not known", *skipped, result) if skipped else result

    def _bool_op(self, node: ast.BoolOp) -> Any:
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

    def _unary_op(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return truth if isinstance(truth, Unknown) else not truth
        if isinstance(value, (int, float)) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return -value if isinstance(node.op, ast.USub) else +value
        return self.unknown("an operator that is not followed", value)

    def _bin_op(self, node: ast.BinOp) -> Any:
        return operators.operate(self, node.op, self.value(node.left), self.value(node.right))

    def _if_exp(self, node: ast.IfExp) -> Any:
        truth = self.truth(self.value(node.test))
        if not isinstance(truth, Unknown):
            return self.value(node.body if truth else node.orelse)
        invalidate(self, [node.body, node.orelse])
        return truth

    def _compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        for number, (op, right_node) in enumerate(zip(node.ops, node.comparators, strict=True), 1):
            right = self.value(right_node)
            result = self._compared(op, left, right)
            if isinstance(result, Unknown):
                invalidate(self, [*node.comparators[number:]])
            if result is not True:
                return result
            left = right
        return True

    def _compared(self, op: ast.cmpop, left: Any, right: Any) -> bool | Unknown:
        if isinstance(op, (ast.In, ast.NotIn)):
            inside = operators.contains(self, self.state.known(right), left)
            return inside if isinstance(inside, Unknown) else inside is isinstance(op, ast.In)
        if isinstance(left, Unknown) or isinstance(right, Unknown):
            return self.state.unknown("", left, right)
        if isinstance(op, (ast.Eq, ast.NotEq)):
            is_plain = isinstance(left, PLAIN) and isinstance(right, PLAIN)
            return (left == right) is isinstance(op, ast.Eq) if is_plain else self.state.unknown("a comparison")
        if isinstance(op, (ast.Is, ast.IsNot)):
            if (left is None or right is None) and not any(isinstance(side, Library) for side in (left, right)):
                return (left is right) is isinstance(op, ast.Is)
            return self.state.unknown("a comparison of identity")
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if not numbers and not (isinstance(left, str) and isinstance(right, str)):
            return self.state.unknown("a comparison of different types")
        return bool(_ORDER[type(op)](left, right))

    def _attribute(self, node: ast.Attribute) -> Any:
        return operators.attribute(self, self.value(node.value), node.attr)

    def _subscript(self, node: ast.Subscript) -> Any:
        owner = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            invalidate(self, [node.slice])
            return self.unknown("a slice is not followed", owner)
        return operators.entry(self, owner, self.value(node.slice))

    def _named_expr(self, node: ast.NamedExpr) -> Any:
        value = self.value(node.value)
        self.bind(node.target.id, value)
        return value

    # Calls

    def _call(self, node: ast.Call) -> Any:
        number = magic_number(node)
        if number is not None and number < len(self.magics):
            return ipython.run_line(self, self.magics[number].strip())
        location = SourceLocation(self.state.location.cell, node.lineno)
        function = self.value(node.func)
        positional = self._items(node.args)
        named: dict[str, Any] = {}
        unknown = [positional] if isinstance(positional, Unknown) else []
        for keyword in node.keywords:
            value = self.value(keyword.value)
            if keyword.arg is not None:
                named[keyword.arg] = value
            elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
                named |= value
            else:
                unknown.append(value)
        self.state.location = location
        if isinstance(positional, Unknown) or unknown:
            invalidate(self, [node], calls=True)
            return call_unknown(self, "a call with arguments that are not known", function, *unknown, *named.values())
        return self.call(function, positional, named)

    def call(self, function: Any, positional: list[Any], named: dict[str, Any]) -> Any:
        """Return the result of a call."""
        if isinstance(function, Function):
            return self._call_function(function, positional, named)
        if isinstance(function, Library):
            return library.call(self, function.name, positional, named)
        if isinstance(function, Method):
            owner = self.state.known(function.owner)
            if not isinstance(owner, Unknown):
                return library.call_method(self, owner, function.name, positional, named)
        if isinstance(function, Unknown):
            self.state.calls[self.state.location] = f"a call is not followed ({function.reason})"
        return call_unknown(self, "a call that is not followed", function, *positional, *named.values())

    def _call_function(self, function: Function, positional: list[Any], named: dict[str, Any]) -> Any:
        """Call a function of the file itself."""
        scope = dict(function.defaults)
        if len(positional) > len(function.parameters):
            raise SimulatedException("TypeError", "too many positional arguments")
        scope.update(zip(function.parameters, positional, strict=False))
        unexpected = named.keys() - set(function.parameters[len(positional) :])
        missing = set(function.parameters) - scope.keys() - named.keys()
        if unexpected or missing:
            raise SimulatedException("TypeError", "arguments that do not fit the function")
        scope.update(named)
        if self._calls >= CALLS_LIMIT:
            raise Exhausted
        outer = self.locals, self.local_names, self.state.location
        self.locals, self.local_names = scope, function.local_names
        self.state.location = SourceLocation(function.cell, self.state.location.line)
        self._calls += 1
        try:
            statements.run(self, function.body)
        except ControlFlow as jump:
            return jump.value
        except NotFollowed:
            invalidate(self, [*function.body], calls=True)
            return self.state.unknown("the result of a function that is not followed to its end")
        finally:
            self._calls -= 1
            self.locals, self.local_names, self.state.location = outer
        return None

    def define(self, node: ast.FunctionDef) -> Function | None:
        """Return the function that a definition makes, None if it uses what is not followed."""
        arguments = node.args
        inner = [part for statement in node.body for part in ast.walk(statement)]
        plain = not (arguments.vararg or arguments.kwarg or arguments.posonlyargs or node.decorator_list)
        if not plain or any(isinstance(part, _NOT_IN_FUNCTIONS) for part in inner):
            return None
        names = [parameter.arg for parameter in arguments.args]
        values = [self.value(default) for default in arguments.defaults]
        defaults = dict(zip(reversed(names), reversed(values), strict=False))
        for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            names.append(parameter.arg)
            if default is not None:
                defaults[parameter.arg] = self.value(default)
        local_names = frozenset(names) | bound_names(node.body)
        return Function(names, defaults, node.body, local_names, self.state.location.cell)


_NOT_IN_FUNCTIONS = (
    ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
    ast.Lambda, ast.GeneratorExp,
)  # fmt: skip
_NAMES: dict[type[ast.expr], str] = {
    ast.Lambda: "a lambda", ast.ListComp: "a comprehension", ast.DictComp: "a comprehension",
    ast.SetComp: "a comprehension", ast.GeneratorExp: "a generator", ast.Set: "a set",
}  # fmt: skip
_EXPRESSIONS: dict[type[ast.expr], Callable[[Evaluator, Any], Any]] = {
    ast.Constant: Evaluator._constant, ast.Name: Evaluator._name, ast.JoinedStr: Evaluator._joined_str,
    ast.FormattedValue: Evaluator._formatted_value, ast.List: Evaluator._list, ast.Tuple: Evaluator._tuple,
    ast.Dict: Evaluator._dict, ast.BoolOp: Evaluator._bool_op, ast.UnaryOp: Evaluator._unary_op,
    ast.BinOp: Evaluator._bin_op, ast.IfExp: Evaluator._if_exp, ast.Compare: Evaluator._compare,
    ast.Attribute: Evaluator._attribute, ast.Subscript: Evaluator._subscript, ast.NamedExpr: Evaluator._named_expr,
    ast.Call: Evaluator._call,
}  # fmt: skip
