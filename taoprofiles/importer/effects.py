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
from taoprofiles.importer.state import MAY_SET, Function, Library, NotFollowed, OpenFile, View, names_mounts_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taoprofiles.importer.evaluator import Evaluator

_SETS_VARIABLE = re.compile(r"%(?:set_)?env\s+(?:([A-Za-z_]\w*)\s*[= ])?")
_RUNS_LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.GeneratorExp)
_ENVIRON = ("environ", "environb")
_READS = frozenset("get keys values items copy".split())
"""Methods of ``os.environ`` that change nothing."""
_CHANGES_FOLDER = frozenset("chdir fchdir cd run_line_magic magic".split())
_KEYWORDS = {
    ast.ClassDef: "class", ast.FunctionDef: "def", ast.AsyncFunctionDef: "async def", ast.Delete: "del",
    ast.AugAssign: "an assignment", ast.AsyncFor: "async for", ast.AsyncWith: "async with",
}  # fmt: skip
_UNKNOWN_CODE = "by code that import cannot evaluate"


def bound_names(node: ast.AST) -> list[str]:
    """Return the names that a node itself binds or deletes, not those of its parts."""
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    if isinstance(node, ast.Global | ast.Nonlocal):
        return node.names
    # A function, a class, an exception, a pattern.
    return [name for name in (getattr(node, "name", None), getattr(node, "rest", None)) if name]


def is_namespace_call(node: ast.Call) -> bool:
    """Check whether a call returns the dictionary of the names: ``vars()`` or ``locals()``."""
    return isinstance(node.func, ast.Name) and node.func.id in ("vars", "locals") and not node.args


def mark_escaped(ev: Evaluator, *values: Any) -> None:
    """Mark values as passed to code that is not followed: it may change lists and dictionaries, and call functions."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        ev.budget.spend()
        if isinstance(value, View):
            waiting.append(value.owner)
        elif isinstance(value, Function) and not value.is_escaped:
            value.is_escaped = True
            waiting += [parameter.default for parameter in value.signature.parameters.values()]
            invalidate(ev, value.body, later=True)
        elif isinstance(value, Library):
            _escape_library(ev, value.name)
        elif names_mounts_file(value):
            ev.state.invalidate_mounts_file(f"may be written {_UNKNOWN_CODE}")
        elif isinstance(value, OpenFile) and not value.closed and not value.mode.startswith("r"):
            ev.state.write_file(value.path, ev.state.unknown(f"written {_UNKNOWN_CODE}"))
        elif isinstance(value, (list, dict, tuple)) and ev.state.known(value) is value:
            ev.budget.spend(len(value))
            waiting += value.values() if isinstance(value, dict) else value
            if not isinstance(value, tuple):
                ev.state.invalidated[id(value)] = value, ev.state.unknown(f"changed {_UNKNOWN_CODE}")


def _escape_library(ev: Evaluator, name: str) -> None:
    reason = f"{name} is used {_UNKNOWN_CODE}"
    is_os = name in ("os", "os.path", "pathlib") or name.startswith(("os.__", "os.path.__"))
    if is_os:
        ev.state.deferred.all_variables = True
        ev.state.lose_folder(later=True)
    if is_os or name in ("sys", "sys.modules", "exec", "eval") or name.startswith(("get_ipython()", "sys.__dict")):
        ev.invalidate_namespace(reason)
    elif name.rpartition(".")[2] in _CHANGES_FOLDER:
        ev.state.lose_folder(later=True)
    elif name.startswith("os.environ") and name.removeprefix("os.environ.") not in _READS:
        ev.state.lose_variables(reason, later=True)


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
    code = _Code(ev)
    code.scan(nodes, later=later)
    ev.state.deferred.bound |= code.bound_later
    for name, value in code.bound.items():
        is_global = name in code.bound_later
        before = ev.state.names.get(name) if is_global else ev.lookup(name)
        if not isinstance(value, Library) or before != value:  # not such as a second 'import os'
            mark_escaped(ev, before)
            ev.bind(name, value if before is None else code.unknown, is_global=is_global)


def _only_reads(node: ast.AST, part: ast.AST) -> bool:
    """Check whether a node only reads a part that is a module or ``os.environ``, or changes it in a known way."""
    if isinstance(node, ast.Attribute):
        return isinstance(node.ctx, ast.Load) and not node.attr.startswith("__")
    if isinstance(node, ast.Dict):
        return any(key is None and value is part for key, value in zip(node.keys, node.values, strict=True))
    if isinstance(node, ast.Call):
        is_method = part is node.func and isinstance(part, ast.Attribute)
        return is_method or (isinstance(node.func, ast.Name) and node.func.id == "dict")
    return isinstance(node, ast.Subscript | ast.Compare) or (isinstance(node, ast.keyword) and node.arg == "env")


def _changed_variables(method: str, node: ast.Call) -> list[str]:
    """Return the variables that a call of a method of ``os.environ`` changes, none if it does not show all of them."""
    first = node.args[0] if node.args else None
    keys: list[ast.expr | None] = []
    if method in ("pop", "setdefault"):
        keys = [first]
    elif method == "update" and isinstance(first, ast.Dict | None):
        keys = [*(first.keys if first else []), *(ast.Constant(word.arg) for word in node.keywords)]
    names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
    return [name for name in names if isinstance(name, str)] if all(isinstance(n, str) for n in names) else []


class _Code:
    """The effects of code, which are found without following it."""

    def __init__(self, ev: Evaluator) -> None:
        self._ev, self._state, self._later = ev, ev.state, False
        self.unknown = ev.state.unknown(f"set {_UNKNOWN_CODE}")
        self.bound: dict[str, Any] = {}
        """The names that the code binds."""
        self.bound_later: set[str] = set()
        self._followed: set[ast.expr] = set()
        """Methods of ``os.environ`` whose call shows which variables it changes."""

    def scan(self, nodes: Iterable[ast.AST], *, later: bool) -> None:
        """Visit nodes with all their parts."""
        outer = self._later
        waiting = [(node, later, False) for node in nodes][::-1]
        while waiting:
            node, self._later, is_read_only = waiting.pop()
            self._ev.budget.spend()
            self._visit(node, is_read_only=is_read_only)
            later = self._later or isinstance(node, _RUNS_LATER)
            parts = [(part, later, _only_reads(node, part)) for part in ast.iter_child_nodes(node)]
            waiting += reversed(parts)
        self._later = outer

    def _visit(self, node: ast.AST, *, is_read_only: bool) -> None:
        self._bind(node)
        if isinstance(node, ast.Name):
            self._mention(node.id, is_read_only=is_read_only or not isinstance(node.ctx, ast.Load))
        elif isinstance(node, ast.Attribute):
            if self._is_environ(node.value) and node.attr not in _READS and node not in self._followed:
                self._state.lose_variables(self.unknown.reason, later=self._later or not is_read_only)
            elif node.attr in _ENVIRON and not is_read_only:  # something else may have it from now on
                self._state.lose_variables(self.unknown.reason, later=True)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if names_mounts_file(node.value) or ipython.mounts_files_in_doubt(self._ev, node.value):
                self._lose_mounts_file()
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and self._is_environ(node.value):
            key = node.slice.value if isinstance(node.slice, ast.Constant) else None
            self._lose_variables(key if isinstance(key, str) else None)
        elif isinstance(node, ast.Call):
            self._call(node)

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._state.has_unknown_names |= node.names[0].name == "*"
            for name, value in self._ev.imported(node):
                if value == Library("os.environ") and name not in _ENVIRON:  # what is done by another name is not seen
                    self._state.lose_variables(self.unknown.reason, later=True)
                if not self._later:
                    self.bound[name] = value if self.bound.get(name, value) == value else self.unknown
        elif not self._later and not isinstance(node, ast.alias):
            self.bound |= dict.fromkeys(bound_names(node), self.unknown)
        elif isinstance(node, ast.Global | ast.Nonlocal | ast.NamedExpr):
            names = [node.target.id] if isinstance(node, ast.NamedExpr) else node.names
            self.bound |= dict.fromkeys(names, self.unknown)
            self.bound_later.update(names)

    def _mention(self, name: str, *, is_read_only: bool) -> None:
        value = self._lookup(name)
        if name in ("exec", "eval"):
            self._lose_namespace(f"{name}() is not followed")
        elif name == "globals":  # which gives the names, and no variable but by the name 'environ'
            self._state.note(f"{MAY_SET}: globals() is not followed")
            self._state.deferred.all_names |= self._later
            self._lose_names("globals() is not followed")
        if self._later:
            self._state.deferred.mentioned.add(name)
        if names_mounts_file(value):
            self._lose_mounts_file()
        elif name in _ENVIRON and not is_read_only:
            self._state.lose_variables(self.unknown.reason, later=True)
        elif not is_read_only or not isinstance(value, Library):
            mark_escaped(self._ev, value)

    def _lookup(self, name: str) -> Any:
        return self._state.names.get(name) if self._later else self._ev.lookup(name)

    def _is_environ(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in _ENVIRON or self._lookup(node.id) == Library("os.environ")
        return isinstance(node, ast.Attribute) and node.attr in _ENVIRON

    def _call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        number = ipython.magic_number(node)
        if number is not None:
            self._magic(self._ev.magics[number] if number < len(self._ev.magics) else "")
        elif is_namespace_call(node):
            self._lose_namespace(f"{name}() is not followed")
        elif isinstance(node.func, ast.Attribute) and self._is_environ(node.func.value):
            variables = _changed_variables(name, node)
            self._followed |= {node.func} if variables else set()
            for variable in variables:
                self._lose_variables(variable)
        elif name in _CHANGES_FOLDER:
            self._state.lose_folder(later=self._later)
            if name.endswith("magic"):
                self._lose_variables()

    def _magic(self, text: str) -> None:
        for name in re.findall(r"\$([^\W\d]\w*)", text):
            self._mention(name, is_read_only=True)
        for expression in re.findall(r"\{([^{}]+)\}", text):
            with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                self.scan([ast.parse(expression.strip(), mode="eval")], later=self._later)
        if match := _SETS_VARIABLE.match(text):
            self._lose_variables(match[1])
        elif text.startswith(("%cd", "cd ")):
            self._state.lose_folder(later=self._later)
        elif ipython.sets_names(text) or ipython.restored_names(text):
            self._lose_namespace(f"'{text.split(maxsplit=1)[0]}' is not followed")
        elif ipython.mounts_files_in_doubt(self._ev, ipython.SHELL_MAGIC.sub("", text, count=1)):
            self._lose_mounts_file()

    def _lose_variables(self, name: str | None = None) -> None:
        """Make a variable unknown, all of them for None."""
        if name is None:
            self._state.lose_variables(self.unknown.reason, later=self._later)
        elif name and "=" not in name and "\0" not in name:
            self._state.deferred.variables |= {name} if self._later else set()
            self._state.set_environment(name, self.unknown)

    def _lose_names(self, reason: str) -> None:
        if self._later:
            self._state.deferred.bound.update(
                key for key, value in self._state.names.items() if not isinstance(value, Library)
            )
        self._ev.lose_names(reason)

    def _lose_namespace(self, reason: str) -> None:
        if self._later:
            self._state.deferred.all_variables = self._state.deferred.folder = True
        self._state.lose_variables(reason)
        self._state.lose_folder()
        self._lose_names(reason)

    def _lose_mounts_file(self) -> None:
        self._state.deferred.mounts_file |= self._later
        self._state.invalidate_mounts_file(f"may be written {_UNKNOWN_CODE}")
