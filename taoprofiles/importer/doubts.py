"""Code of which it is not known whether it runs: both ways are followed, and what they leave is in doubt.

One assumption is made, or nothing could be told of any notebook: what is not understood does not raise, unless the code
itself reckons with that (``try``, ``contextlib.suppress``). A cell that failed there would have been mended.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from taoprofiles.importer.limits import Jump, Raised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taoprofiles.importer.interpreter import Interpreter
    from taoprofiles.importer.limits import Unknown


@contextmanager
def perhaps(ev: Interpreter, why: Unknown) -> Iterator[None]:
    """Follow code that perhaps runs. Where it would jump or raise, what comes behind it is in doubt as well."""
    with ev.memory.doubting(why):
        try:
            yield
        except Jump as jump:
            before = ev.memory.doubts.get(jump.leaves)
            ev.memory.doubts[jump.leaves] = ev.memory.unknown("", before or why, jump.value)
        except Raised:
            if ev.tries:
                ev.memory.doubts.setdefault("raise", why)


@contextmanager
def taking(ev: Interpreter, *kinds: str) -> Iterator[list[Unknown]]:
    """Follow what jumps of these kinds do not leave. In the end the list has why one was perhaps taken."""
    doubts = ev.memory.doubts
    outer = {kind: doubts.pop(kind) for kind in kinds if kind in doubts}
    taken: list[Unknown] = []
    try:
        with ev.memory.doubting(next(iter(outer.values()), None)):
            yield taken
    finally:
        taken += [doubts.pop(kind) for kind in kinds if kind in doubts]
        doubts.update(outer)
