"""The loops inside of comprehensions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from taoprofiles.reading.bounds import Unknown

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taoprofiles.reading.interpreter import Interpreter


def follow(ev: Interpreter, generators: list[ast.comprehension], do: Callable[[], None]) -> Unknown | None:
    """Do something for each round of a comprehension; give the reason where it cannot be followed."""
    if not generators:
        do()
        ev.budget.made(1)
        return None
    first = generators[0]
    entries = ev.entries(ev.value(first.iter))
    if isinstance(entries, Unknown):
        return entries
    ev.scopes.append({})
    try:
        for entry in entries:
            ev.budget.step()
            if not unpack(first.target, entry, ev.scopes[-1]):
                return ev.unknown("what a loop's entries are taken apart to")
            tests = [ev.truth(ev.value(test)) for test in first.ifs]
            strange = next((test for test in tests if isinstance(test, Unknown)), None)
            if strange is not None:
                return strange
            if all(tests):
                found = follow(ev, generators[1:], do)
                if found is not None:
                    return found
    finally:
        ev.scopes.pop()
    return None


def unpack(target: ast.expr, value: Any, into: dict[str, Any]) -> bool:
    """Bind plain names to a value, or to the parts of one; false where that is not understood."""
    if isinstance(target, ast.Name):
        into[target.id] = value
        return True
    if isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (list, tuple)):
        if len(value) != len(target.elts):
            return False
        return all(unpack(part, one, into) for part, one in zip(target.elts, value, strict=True))
    return False
