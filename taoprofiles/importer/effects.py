"""Code that is not followed: everything that it may change becomes unknown.

One assumption is made, or nothing would be known of any notebook: a call of another library changes only what it is
given, and what is not followed does not raise. The user would have corrected a cell that fails.
"""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taoprofiles.importer import ipython
from taoprofiles.importer.state import (
    Function,
    Library,
    NotFollowed,
    OpenFile,
    View,
    names_mounts_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taoprofiles.importer.evaluator import Evaluator

_SETS_VARIABLE = re.compile(r"%(?:set_)?env\s+([A-Za-z_]\w*)\s*[= ]")
_RUNS_LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.GeneratorExp)
_READS = frozenset("get keys values items copy".split())
_CHANGES_FOLDER = frozenset("chdir fchdir cd run_line_magic magic".split())
_KEYWORDS = {
    ast.ClassDef: "class", ast.FunctionDef: "def", ast.AsyncFunctionDef: "async def", ast.Delete: "del",
    ast.AugAssign: "an assignment", ast.AsyncFor: "async for", ast.AsyncWith: "async with",
}  # fmt: skip


def bound_names(parts: Iterable[ast.AST]) -> set[str]:
    """Return the names that nodes bind or delete; the nodes inside of them are not looked at."""
    names: set[str] = set()
    for node in parts:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Global | ast.Nonlocal):
            names.update(node.names)
        elif isinstance(node, ast.NamedExpr):
            names.add(node.target.id)
        else:  # a function, a class, an exception, a pattern
            names |= {name for name in (getattr(node, "name", None), getattr(node, "rest", None)) if name}
    return names


def is_namespace_call(node: ast.Call) -> bool:
    """Check whether a call returns the dictionary of the names: ``vars()`` or ``locals()``."""
    return isinstance(node.func, ast.Name) and node.func.id in ("vars", "locals") and not node.args


def mark_escaped(ev: Evaluator, *values: Any) -> None:
    """Mark values as passed to code that is not followed: it may change lists and dictionaries, and call functions."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        ev.budget.step()
        if isinstance(value, View):
            waiting.append(value.owner)
        elif isinstance(value, Function):
            _escape_function(ev, value)
        elif isinstance(value, Library):
            _escape_library(ev, value)
        elif names_mounts_file(value):
            ev.state.invalidate_mounts_file("may be written by code that import cannot evaluate")
        elif isinstance(value, OpenFile) and not value.closed and not value.mode.startswith("r"):
            ev.state.write_file(value.path, ev.state.unknown("written by code that import cannot evaluate"))
        elif isinstance(value, (list, dict, tuple)) and ev.state.known(value) is value:
            ev.budget.add(len(value))
            waiting += value.values() if isinstance(value, dict) else value
            if not isinstance(value, tuple):
                ev.state.invalidated[id(value)] = (
                    value,
                    ev.state.unknown("changed by code that import cannot evaluate"),
                )


def _escape_function(ev: Evaluator, function: Function) -> None:
    if not function.is_escaped:
        function.is_escaped = True
        mark_escaped(ev, *function.defaults.values())
        invalidate(ev, function.body, later=True)


def _escape_library(ev: Evaluator, value: Library) -> None:
    name = value.name
    if name in ("os", "os.path", "pathlib") or name.startswith(("os.__", "os.path.__")):
        ev.state.deferred.folder = ev.state.deferred.all_variables = True
        ev.state.folder = ev.state.unknown("the current folder may have changed")
        ev.state.invalidate_environment(f"{name} is used by code that import cannot evaluate")
    elif name in ("sys", "sys.modules", "exec", "eval") or name.startswith(("get_ipython()", "sys.__dict")):
        ev.invalidate_namespace(f"{name} is used by code that import cannot evaluate")
    elif name.rpartition(".")[2] in _CHANGES_FOLDER:
        ev.state.folder = ev.state.unknown("the current folder may have changed")
    if value.name.startswith("os.environ") and value.name.removeprefix("os.environ.") not in _READS:
        ev.state.deferred.all_variables = True
        ev.state.invalidate_environment("os.environ is used by code that import cannot evaluate")


def skip(ev: Evaluator, statement: ast.stmt, what: str = "") -> None:
    """Invalidate what a statement may change, and name its line. Raises NotFollowed if it may end a function."""
    keyword = _KEYWORDS.get(type(statement), type(statement).__name__.lower().replace("trystar", "try"))
    ev.state.not_followed[ev.state.location] = what or f"'{keyword}'"
    if ev.locals is not None:  # its names end with the function, and other effects have notes of their own
        ev.state.in_functions.add(ev.state.location)
    invalidate_statement(ev, statement)


def invalidate_statement(ev: Evaluator, statement: ast.stmt) -> None:
    """Invalidate what a statement may change. Raises NotFollowed if it may end a function."""
    invalidate(ev, [statement])
    if ev.locals is not None and any(isinstance(part, ast.Return) for part in ast.walk(statement)):
        raise NotFollowed


def invalidate(ev: Evaluator, nodes: Iterable[ast.AST], *, later: bool = False) -> None:
    """Make unknown what code may change: names, lists and dictionaries, variables, the folder, mounts files.

    ``later`` is true for code that does not run here, and may run whenever something unknown is called.
    """
    parts = [part for node in nodes for part in ast.walk(node)]
    outer = ev.locals
    ev.locals = None if later else outer  # such code stands outside of the functions that are followed
    try:
        code = _Code(ev, later=later)
        for part in parts:
            ev.budget.step()
            code.visit(part)
        for part in [] if later else parts:
            if isinstance(part, _RUNS_LATER):
                invalidate(ev, [part], later=True)
        if later:
            parts = [part for part in parts if isinstance(part, ast.Global | ast.Nonlocal | ast.NamedExpr)]
            ev.state.deferred.bound |= bound_names(parts) | code.names
        for part in parts:
            if isinstance(part, ast.Import | ast.ImportFrom):
                for name, value in ev.imported(part):
                    code.bind(name, value)
        bound = bound_names(part for part in parts if not isinstance(part, ast.alias))
        for name in sorted(bound):
            code.bind(name, code.unknown)
        for name in sorted(code.names - bound):
            code.lose(name)
    finally:
        ev.locals = outer


def _only_read(node: ast.AST) -> list[ast.expr]:
    """Return the parts of a node that it only reads, or changes in a way that ``_Code`` knows, if one is os.environ."""
    if isinstance(node, ast.Subscript):
        return [node.value]
    if isinstance(node, ast.Compare):
        return node.comparators
    if isinstance(node, ast.Dict):
        return [value for key, value in zip(node.keys, node.values, strict=True) if key is None]
    if isinstance(node, ast.keyword):
        return [node.value] if node.arg == "env" else []
    if isinstance(node, ast.Call):
        is_dict = isinstance(node.func, ast.Name) and node.func.id == "dict"
        return [node.func.value] if isinstance(node.func, ast.Attribute) else node.args if is_dict else []
    return []


def _owner(node: ast.AST) -> list[ast.expr]:
    """Return the value of which a node reads an attribute, in a way that gives no more than this attribute."""
    is_plain = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and not node.attr.startswith("__")
    return [node.value] if isinstance(node, ast.Attribute) and is_plain else []


class _Code:
    """The effects of code, found without following it, of which each node is visited after the node around it."""

    def __init__(self, ev: Evaluator, *, later: bool) -> None:
        self._ev, self._state, self._later = ev, ev.state, later
        self.unknown = ev.state.unknown("set by code that import cannot evaluate")
        self.names: set[str] = set()
        """Names that the code may bind by globals()."""
        self._harmless: set[int] = set()
        """Nodes, by id(), that mention ``os.environ`` and only read it, or change only what is known."""
        self._attribute_owners: set[int] = set()
        """Names, by id(), of which an attribute is read."""

    def bind(self, name: str, value: Any) -> None:
        """Bind a name. If it was a module's, what the code sets through it later on, as os.environ, is not known."""
        before = self._ev.lookup(name)
        if isinstance(value, Library) and before == value:
            return  # such as a second 'import os'
        mark_escaped(self._ev, before)
        if isinstance(before, Library) and not isinstance(value, Library):
            self._state.deferred.all_variables = True
            self._lose_variables([None])
            self._invalidate_mounts_file()
        self._ev.bind(name, value)

    def lose(self, name: str) -> None:
        """Make a name unknown that exec() or globals() may bind; like any other call, they are not given its value."""
        before = self._ev.lookup(name)
        if isinstance(before, Function):
            mark_escaped(self._ev, before)
        self._ev.bind(name, self.unknown)

    def visit(self, node: ast.AST) -> None:
        self._harmless.update(map(id, _only_read(node)))
        self._attribute_owners.update(map(id, _owner(node)))
        if isinstance(node, ast.Name | ast.Attribute) and self._is_environ(node):
            if id(node) not in self._harmless:
                self._state.deferred.all_variables = True  # something else may have it from now on
                self._lose_variables([None])
        elif isinstance(node, ast.Name):
            self._mention(node.id, is_read=isinstance(node.ctx, ast.Load) and id(node) not in self._attribute_owners)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self._constant(node.value)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and self._is_environ(node.value):
            self._lose_variables([node.slice])
        elif isinstance(node, ast.ImportFrom):
            self._state.has_unknown_names |= node.names[0].name == "*"
        elif isinstance(node, ast.Call):
            self._call(node)

    def _constant(self, text: str) -> None:
        if names_mounts_file(text) or ipython.may_write_mounts_file(self._ev, text):
            self._invalidate_mounts_file()

    def _mention(self, name: str, *, is_read: bool = False) -> None:
        value = self._ev.lookup(name)
        if name == "globals":
            self._state.may_set("globals() is not followed")
            self.names |= {key for key, value in self._state.names.items() if not isinstance(value, Library)}
        if self._later:
            self._state.deferred.mentioned.add(name)
        if names_mounts_file(value):
            self._invalidate_mounts_file()
        elif is_read or not isinstance(value, Library):
            mark_escaped(self._ev, value)

    def _is_environ(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id == "environ" or self._ev.lookup(node.id) == Library("os.environ")
        return isinstance(node, ast.Attribute) and node.attr in ("environ", "environb")

    def _call(self, node: ast.Call) -> None:
        number = ipython.magic_number(node)
        if number is not None:
            self._magic(self._ev.magics[number] if number < len(self._ev.magics) else "")
            return
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if isinstance(node.func, ast.Attribute) and self._is_environ(node.func.value):
            self._environ_method(name, node)
        elif name in _CHANGES_FOLDER:
            self._lose_folder()
            self._lose_variables([None] if name.endswith("magic") else [])
        elif isinstance(node.func, ast.Name) and (name in ("exec", "eval") or is_namespace_call(node)):
            self._lose_namespace(f"{name}() is not followed")

    def _environ_method(self, name: str, node: ast.Call) -> None:
        first = node.args[0] if node.args else None
        if name in ("setdefault", "pop"):
            self._lose_variables([first])
        elif name == "update" and isinstance(first, ast.Dict | None):
            keys = [None if word.arg is None else ast.Constant(word.arg) for word in node.keywords]
            self._lose_variables([*keys, *(first.keys if first else [])])
        elif name not in _READS:
            self._lose_variables([None])

    def _lose_variables(self, keys: Iterable[ast.expr | None], reason: str = "") -> None:
        """Make variables unknown, all of them for a key that is not a literal."""
        for key in keys:
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                self._state.deferred.all_variables |= self._later
                self._state.invalidate_environment(reason or self.unknown.reason)
            elif key.value and "=" not in key.value and "\0" not in key.value:
                self._state.deferred.variables |= {key.value} if self._later else set()
                self._state.set_environment(key.value, self.unknown)

    def _lose_folder(self) -> None:
        self._state.deferred.folder |= self._later
        self._state.folder = self._state.unknown("the current folder may have changed")

    def _lose_namespace(self, reason: str) -> None:
        self._state.has_unknown_names = True
        self.names |= {key for key, value in self._state.names.items() if not isinstance(value, Library)}
        self._lose_variables([None], reason)
        self._lose_folder()

    def _magic(self, text: str) -> None:
        for name in re.findall(r"\$([^\W\d]\w*)", text):
            self._mention(name)
        for expression in re.findall(r"\{([^{}]+)\}", text):
            with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                for part in ast.walk(ast.parse(expression.strip(), mode="eval")):
                    self.visit(part)
        match = _SETS_VARIABLE.match(text)
        if match:
            self._lose_variables([ast.Constant(match[1])])
        elif text.startswith(("%env ", "%set_env ")):
            self._lose_variables([None])
        elif text.startswith(("%cd", "cd ")):
            self._lose_folder()
        elif ipython.sets_names(text) or ipython.restored_names(text):
            self._lose_namespace(f"'{text.split(maxsplit=1)[0]}' is not followed")
        elif ipython.may_write_mounts_file(self._ev, ipython.SHELL_MAGIC.sub("", text, count=1)):
            self._invalidate_mounts_file()

    def _invalidate_mounts_file(self) -> None:
        self._state.deferred.mounts_file |= self._later
        self._state.invalidate_mounts_file("may be written by code that import cannot evaluate")
