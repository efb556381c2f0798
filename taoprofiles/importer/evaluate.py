"""The meaning of expressions: a part of Python, over its tree. Nothing is ever called that the code names."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING

from taoprofiles.importer import calls, library, loops
from taoprofiles.importer.doubts import perhaps
from taoprofiles.importer.forget import forget
from taoprofiles.importer.interpreter import GLOBALS, Interpreter
from taoprofiles.importer.limits import DEPTH, ENTRY, TEXT, Budget, Place, Raised, Unknown
from taoprofiles.importer.provenance import Part, Text
from taoprofiles.importer.state import PLACEHOLDER_NAME
from taoprofiles.importer.values import PLAIN, Code, Function, Iterated, Known, Method, equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from taoprofiles.importer.state import Memory

_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
BUILTINS = frozenset("str int float bool len dict list tuple range print open isinstance enumerate zip sorted "
                     "any all min max repr reversed get_ipython exec eval".split())  # fmt: skip


_KERNELS = frozenset("display In Out _ __ ___ _i _ii _iii _oh _ih _dh exit quit".split())
"""Names that IPython adds to Python's own."""


class Evaluator(Interpreter):
    """Evaluates expressions in a memory. Each method raises Raised where the code would raise, and Exhausted."""

    def __init__(self, memory: Memory, budget: Budget) -> None:
        super().__init__(memory, budget)
        self._depth = 0

    def value(self, node: ast.expr) -> Any:
        """Give the value of an expression; Unknown for what is not understood."""
        self.budget.step()
        self._depth += 1
        try:
            if self._depth > DEPTH:
                return self.unknown("nested too deeply")
            if hasattr(node, "lineno"):
                self.memory.place = Place(self.memory.place.cell, node.lineno)
            method = getattr(self, f"_{type(node).__name__.lower()}", None)
            return self._strange(node) if method is None else self.told(method(node))
        finally:
            self._depth -= 1

    def _strange(self, node: ast.expr) -> Unknown:
        """Follow the parts of an expression of another kind, for what they change."""
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                self.value(part)
            elif isinstance(part, ast.comprehension):
                forget(self, node)
        return self.unknown(f"a {type(node).__name__}")

    def text(self, expression: str) -> str | Unknown:
        """Evaluate an expression given as text, and give ``str()`` of it, as IPython's formatter does."""
        try:
            node = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise Raised("SyntaxError", "invalid syntax") from None
        place = self.memory.place
        try:
            value = self.value(node)
        finally:
            self.memory.place = place
        return value if isinstance(value, Unknown) else self.as_text(value)

    # Names and constants

    def _constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, str):
            self.budget.made(len(node.value))
            return Text([Part(node.value)]) if len(node.value) <= TEXT else self.unknown("a very long text")
        if isinstance(node.value, int) and abs(node.value).bit_length() > 256:
            return self.unknown("a very large number")
        return node.value if isinstance(node.value, PLAIN) else self.unknown("a constant of another kind")

    def _name(self, node: ast.Name) -> Any:
        for scope in (*reversed(self.scopes), self.memory.names):
            if node.id in scope.get(GLOBALS, ()) and node.id in self.memory.names:
                return self.memory.names[node.id]
            if node.id in scope:
                return scope[node.id]
        if node.id == "__name__":
            return Text([Part("__main__")])
        if node.id in BUILTINS:
            return Known(node.id)
        if PLACEHOLDER_NAME.match(node.id):
            return Text([Part("FIXME")])  # what a person puts a value in the place of
        import builtins

        if hasattr(builtins, node.id) or node.id in _KERNELS:
            return self.unknown(f"{node.id} is not followed")
        raise Raised("NameError", f"name '{node.id}' is not defined")

    def _joinedstr(self, node: ast.JoinedStr) -> Any:
        return self.join([self.value(part) for part in node.values])

    def _formattedvalue(self, node: ast.FormattedValue) -> Any:
        value = self.value(node.value)
        if node.conversion not in (-1, ord("s")):
            value = self.as_repr(value, is_ascii=node.conversion == ord("a"))
        if node.format_spec is not None:
            return library.formatted(self, value, self.value(node.format_spec))
        return value if isinstance(value, Unknown) else self.as_text(value)

    # Collections

    def _list(self, node: ast.List) -> Any:
        return self._items(node.elts)

    def _tuple(self, node: ast.Tuple) -> Any:
        found = self._items(node.elts)
        return tuple(found) if isinstance(found, list) else found

    def _items(self, nodes: list[ast.expr], *, is_call: bool = False) -> list[Any] | Unknown:
        found: list[Any] = []
        strange: Unknown | None = None
        for node in nodes:
            if isinstance(node, ast.Starred):
                inner = self.entries(self.value(node.value))
                if isinstance(inner, Unknown):
                    strange = inner
                else:
                    found += inner
            else:
                found.append(self._argument(node) if is_call else self.value(node))
        self.budget.made(len(found))
        return found if strange is None else self.unknown("", strange, *found)

    def _dict(self, node: ast.Dict) -> Any:
        made: dict[Any, Any] = {}
        strange: list[Any] = []
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            key = None if key_node is None else self.value(key_node)
            value = self.value(value_node)
            if key_node is None:
                made |= value if isinstance(value, dict) else {}
                strange += [] if isinstance(value, dict) else [value]
            elif isinstance(key, PLAIN):
                made[str(key) if isinstance(key, str) else key] = value
            else:
                strange += [key, value]
        self.budget.made(len(made) * ENTRY)
        return self.unknown("a key of another kind", *strange, made) if strange else made

    def _listcomp(self, node: ast.ListComp) -> Any:
        found: list[Any] = []
        reason = loops.follow(self, node.generators, lambda: found.append(self.value(node.elt)))
        return self.unknown("", reason, *found) if reason else found

    def _generatorexp(self, node: ast.GeneratorExp) -> Any:
        """One that is not gone through at once: when it is, its names may have other values."""
        forget(self, node, names=False)
        why = self.unknown("a generator that is kept for later")
        for one in ast.walk(node):
            if isinstance(one, ast.NamedExpr):
                self.bind(one.target.id, why)
        return why

    def _argument(self, node: ast.expr) -> Any:
        """Give an argument. A generator is gone through, by whatever can go through it."""
        if not isinstance(node, ast.GeneratorExp) or any(isinstance(one, ast.NamedExpr) for one in ast.walk(node)):
            return self.value(node)
        found: list[Any] = []
        reason = loops.follow(self, node.generators, lambda: found.append(self.value(node.elt)))
        return self.unknown("", reason, *found) if reason else Iterated(found)

    def _dictcomp(self, node: ast.DictComp) -> Any:
        made: dict[Any, Any] = {}
        strange: list[Any] = []

        def put() -> None:
            key, value = self.value(node.key), self.value(node.value)
            if isinstance(key, PLAIN):
                made[str(key) if isinstance(key, str) else key] = value
            else:
                strange.append(key)

        reason = loops.follow(self, node.generators, put)
        return reason or (self.unknown("a key of another kind", *strange) if strange else made)

    # Operators

    def _boolop(self, node: ast.BoolOp) -> Any:
        value: Any = None
        for number, part in enumerate(node.values, 1):
            value = self.value(part)
            truth = self.truth(value)
            if isinstance(truth, Unknown):
                return self.unknown("", truth, value, *self._perhaps(truth, *node.values[number:]))
            if truth is isinstance(node.op, ast.Or):
                return value
        return value

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return truth if isinstance(truth, Unknown) else not truth
        if isinstance(value, (int, float)) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return -value if isinstance(node.op, ast.USub) else +value
        return self.unknown("an operator", value)

    def _binop(self, node: ast.BinOp) -> Any:
        return library.operate(self, node.op, self.value(node.left), self.value(node.right))

    def _ifexp(self, node: ast.IfExp) -> Any:
        truth = self.truth(self.value(node.test))
        if not isinstance(truth, Unknown):
            return self.value(node.body if truth else node.orelse)
        return self.unknown("", truth, *self._perhaps(truth, node.body), *self._perhaps(truth, node.orelse))

    def _perhaps(self, why: Unknown, *nodes: ast.expr) -> list[Any]:
        """Follow expressions that perhaps are worked out, for what they change, and give their values."""
        found: list[Any] = []
        with perhaps(self, why):
            for node in nodes:
                found.append(self.value(node))
        return found

    def _compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        for number, (op, right_node) in enumerate(zip(node.ops, node.comparators, strict=True), 1):
            right = self.value(right_node)
            told = self._compared(op, left, right)
            if isinstance(told, Unknown):
                self._perhaps(told, *node.comparators[number:])
            if told is not True:
                return told
            left = right
        return True

    def _compared(self, op: ast.cmpop, left: Any, right: Any) -> bool | Unknown:
        if isinstance(op, (ast.In, ast.NotIn)):
            inside = library.contains(self, right, left)
            return inside if isinstance(inside, Unknown) else inside is isinstance(op, ast.In)
        if isinstance(left, Unknown) or isinstance(right, Unknown):
            return self.unknown("", left, right)
        if isinstance(op, (ast.Eq, ast.NotEq)):
            same = equal(left, right, self.budget)
            return (
                self.unknown("a comparison with something unknown") if same is None else same is isinstance(op, ast.Eq)
            )
        if isinstance(op, (ast.Is, ast.IsNot)):
            if isinstance(left, Known) or isinstance(right, Known):
                return self.unknown("a comparison of something of a module")
            same = left is right if left is None or right is None or isinstance(left, bool) else None
            return self.unknown("a comparison of what is not None") if same is None else same is isinstance(op, ast.Is)
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if not numbers and not (isinstance(left, str) and isinstance(right, str)):
            return self.unknown("a comparison of different kinds")
        return bool(_ORDER[type(op)](left, right))

    # Attributes, entries, calls

    def _attribute(self, node: ast.Attribute) -> Any:
        value = self.value(node.value)
        return library.attribute(self, value, node.attr)

    def _subscript(self, node: ast.Subscript) -> Any:
        of = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            bounds = [None if part is None else self.value(part) for part in _ends(node.slice)]
            return library.sliced(self, of, bounds)
        return library.entry(self, of, self.value(node.slice))

    def _namedexpr(self, node: ast.NamedExpr) -> Any:
        value = self.value(node.value)
        self.bind(node.target.id, value)
        return value

    def _lambda(self, node: ast.Lambda) -> Any:
        return self.function(node.args, node.body)

    def function(self, arguments: ast.arguments, body: list[ast.stmt] | ast.expr) -> Any:
        """Make a function of the code's own, if its parameters are plain."""
        if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
            return self.code(body if isinstance(body, ast.expr) else ast.Module(body, []), "a function with *")
        names = [parameter.arg for parameter in arguments.args]
        defaults = dict(zip(reversed(names), [self.value(one) for one in reversed(arguments.defaults)], strict=False))
        for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            names.append(parameter.arg)
            if default is not None:
                defaults[parameter.arg] = self.value(default)
        return Function(names, defaults, body, cell=self.memory.place.cell, around=[*self.scopes])

    def _call(self, node: ast.Call) -> Any:
        place = Place(self.memory.place.cell, node.lineno)
        function = self.value(node.func)
        positional = self._items(node.args, is_call=True)
        if isinstance(positional, Unknown):
            self.spoil([function, positional, *map(self.value, [keyword.value for keyword in node.keywords])])
            return positional
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            if keyword.arg is not None:
                named[keyword.arg] = value
            elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
                named |= value
            else:
                return self.unknown("arguments that are taken apart", value)
        self.memory.place = place
        if isinstance(function, Function):
            return self.call_own(function, positional, named)
        if isinstance(function, Known) and function.name.startswith("get_ipython()."):
            return self.call_magic(function.name.partition(".")[2], positional)
        if isinstance(function, (Known, Method)):
            return calls.call(self, function, positional, named)
        self.spoil([function, *positional, *named.values()])
        return self.unknown("a call of something unknown", function)

    def forget(self, *nodes: ast.AST) -> None:
        """Make unknown what code changes outside of itself, where it is perhaps called."""
        forget(self, *nodes, names=False)

    def code(self, node: ast.AST, what: str) -> Code:
        """Make the value of a function or class that is not followed."""
        return Code(f"{what} is not followed", self.memory.place, node)

    def call_magic(self, function: str, positional: list[Any]) -> Any:
        """Call a method of ``get_ipython()``. What can follow magics does so (``execute.py``)."""
        return self.unknown(f"get_ipython().{function}()")

    def call_own(self, function: Function, positional: list[Any], named: dict[str, Any]) -> Any:
        """Call a function of the code's own. What can follow statements does so (``execute.py``)."""
        return self.unknown("a function of the notebook's own")


def _ends(node: ast.Slice) -> Iterator[ast.expr | None]:
    return iter((node.lower, node.upper, node.step))
