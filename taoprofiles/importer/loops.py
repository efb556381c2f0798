"""The loops inside of comprehensions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from taoprofiles.importer.doubts import perhaps
from taoprofiles.importer.interpreter import COMPREHENSION
from taoprofiles.importer.limits import Unknown

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taoprofiles.importer.interpreter import Interpreter


def follow(ev: Interpreter, generators: list[ast.comprehension], do: Callable[[], None]) -> Unknown | None:
    """Do something for each round of a comprehension; give the reason where it is not known what it does."""
    if not generators:
        do()
        ev.budget.made(1)
        return None
    first = generators[0]
    entries = ev.entries(ev.value(first.iter))
    strange = entries if isinstance(entries, Unknown) else None
    ev.scopes.append({COMPREHENSION: True})
    try:
        for entry in [entries] if isinstance(entries, Unknown) else entries:
            ev.budget.step()
            if not unpack(ev, first.target, entry):
                strange = strange or ev.unknown("what a loop's entries are taken apart to")
            found = strange or _tested(ev, first.ifs)
            if isinstance(found, Unknown):
                with perhaps(ev, found):
                    follow(ev, generators[1:], do)
                strange = found
            elif found:
                strange = follow(ev, generators[1:], do) or strange
    finally:
        ev.scopes.pop()
    return strange


def _tested(ev: Interpreter, tests: list[ast.expr]) -> bool | Unknown:
    for test in tests:
        truth = ev.truth(ev.value(test))
        if truth is not True:
            return truth
    return True


def unpack(ev: Interpreter, target: ast.expr, value: Any) -> bool:
    """Bind plain names to a value, or to the parts of one; false where that is not understood."""
    if isinstance(target, ast.Name):
        ev.scopes[-1][target.id] = value
        return True
    if isinstance(target, (ast.Tuple, ast.List)):
        fits = isinstance(value, (list, tuple)) and len(value) == len(target.elts)
        parts = value if fits else [ev.unknown("a part of something unknown", value)] * len(target.elts)
        told = [unpack(ev, part, one) for part, one in zip(target.elts, parts, strict=True)]
        return fits and all(told)
    return False
