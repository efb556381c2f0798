"""How far a stranger's file is followed: what it may cost, what cannot be told, and where in it one is."""

from __future__ import annotations

from typing import NamedTuple

STEPS = 20_000
"""Steps in one cell. A set-up cell takes a few hundred."""
ALL_STEPS = 200_000
SIZE = 1 << 21
"""Characters and entries made in all."""
ENTRY = 4
"""What an entry of a dictionary, or a tuple, counts for."""
PIECE = 16
"""What a text cut out of another counts for, beside its characters."""
TEXT = 1 << 16
ENTRIES = 10_000
PARTS = 1000
"""Pieces of different origins in one text. A path has two or three."""
DEPTH = 60
CALLS = 12


class Place(NamedTuple):
    """A cell (0 in a script) and a line of it, from 1."""

    cell: int
    line: int

    @property
    def packed(self) -> int:
        """The place as one number; ``unpacked`` gives it back."""
        return (self.cell << 20) + min(self.line, (1 << 20) - 1)

    @classmethod
    def unpacked(cls, number: int) -> Place:
        """Give the place of which ``number`` is the packed form."""
        return cls(*divmod(number, 1 << 20))

    def __str__(self) -> str:
        """Say it as people look for it."""
        return f"cell {self.cell}, line {self.line}" if self.cell else f"line {self.line}"


class Unknown:
    """A value that cannot be told without running the code: why, and where.

    ``may_be`` are the lists, dictionaries and functions that it perhaps is, or has: a change of it is one of theirs.
    """

    __slots__ = ("may_be", "place", "reason")

    def __init__(self, reason: str, place: Place, may_be: tuple[object, ...] = ()) -> None:
        self.reason, self.place, self.may_be = reason, place, may_be


class Raised(Exception):
    """An exception that the stranger's code would raise there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        """Say it as a traceback's last line does."""
        return f"{self.kind}: {self.message}"


class Jump(Exception):
    """A return, break or continue on its way."""

    def __init__(self, kind: str, value: object = None) -> None:
        super().__init__(kind)
        self.kind, self.value = kind, value

    @property
    def leaves(self) -> str:
        """What it leaves, in the words of ``Memory.doubts``."""
        return "return" if self.kind == "return" else "loop"


class Exhausted(Exception):
    """Too many steps, or too much made: the code is not followed any further."""


class Budget:
    """Counts steps and sizes. Raises Exhausted."""

    def __init__(self) -> None:
        self._all, self._size, self._cell = ALL_STEPS, SIZE, STEPS
        self.is_lifted = False
        """For what must be done to the end, and is short enough."""

    def next_cell(self) -> None:
        """Begin a cell, with steps of its own."""
        self._cell = STEPS

    def step(self) -> None:
        """Count one step."""
        self._all -= 1
        self._cell -= 1
        if (self._all < 0 or self._cell < 0) and not self.is_lifted:
            raise Exhausted

    def made(self, size: int) -> None:
        """Count what was made."""
        self._size -= size
        if self._size < 0 and not self.is_lifted:
            raise Exhausted
