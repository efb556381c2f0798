"""Imports: of the modules that are understood something is known, of all others nothing; none is loaded."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

from taoprofiles.importer.calls import MODULES
from taoprofiles.importer.limits import Raised
from taoprofiles.importer.values import Known

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from taoprofiles.importer.interpreter import Interpreter


def names(ev: Interpreter, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Any]]:
    """Give each name that an import binds, with its value. Raises Raised."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            module, whole = node.module or "", f"{node.module}.{alias.name}"
            known = module in MODULES and not node.level
            if alias.name == "*":
                if not known:
                    ev.memory.may_set(f"from {module} import *")
                continue
            bound, name = alias.asname or alias.name, whole
        else:
            module, first = alias.name, alias.name.partition(".")[0]
            known = module in MODULES or first in MODULES
            bound, name = alias.asname or first, module if alias.asname else first
        if module.startswith("google.colab"):  # how a notebook asks whether it runs there
            raise Raised("ModuleNotFoundError", f"No module named '{module}'")
        yield bound, Known(name) if known else ev.unknown(f"'{module}' is not followed")


def may_fail(node: ast.AST) -> bool:
    """Whether it is an import of which nobody knows whether it succeeds here."""
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        modules = [node.module or ""]
    else:
        return False
    return any(module.partition(".")[0] not in sys.stdlib_module_names for module in modules)
