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
    """A value that cannot be told without running the code: why, where, and what a person could give instead."""

    __slots__ = ("names", "place", "reason")

    def __init__(self, reason: str, place: Place, names: frozenset[str] = frozenset()) -> None:
        self.reason, self.place, self.names = reason, place, names


_PARENTS = {
    "KeyError": ("LookupError",),
    "IndexError": ("LookupError",),
    "FileNotFoundError": ("OSError", "IOError", "EnvironmentError"),
    "ModuleNotFoundError": ("ImportError",),
    "JSONDecodeError": ("ValueError",),
    "ZeroDivisionError": ("ArithmeticError",),
    "OverflowError": ("ArithmeticError",),
}


class Raised(Exception):
    """An exception that the stranger's code would raise there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message

    @property
    def family(self) -> set[str]:
        """The names by which it can be caught."""
        return {self.kind, *_PARENTS.get(self.kind, ()), "Exception", "BaseException"}

    def __str__(self) -> str:
        """Say it as a traceback's last line does."""
        return f"{self.kind}: {self.message}"


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
