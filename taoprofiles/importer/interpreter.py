"""What every part of the interpreter needs of it: the memory, the budget, and the plain questions about values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from taoprofiles.importer.limits import ENTRIES, ENTRY, PIECE, TEXT, Raised, Unknown
from taoprofiles.importer.provenance import Part, Text, concat, cut, parts
from taoprofiles.importer.values import (
    PLAIN,
    Code,
    Function,
    Id,
    Iterated,
    Known,
    Method,
    PurePath,
    View,
    kind,
    lose,
    spoilt,
)

if TYPE_CHECKING:
    import ast
    from typing import Any

    from taoprofiles.importer.limits import Budget
    from taoprofiles.importer.state import Memory


GLOBALS, NONLOCALS, COMPREHENSION = "·globals·", "·nonlocals·", "·comprehension·"
"""Where a scope keeps the names that it declares as another one's; and the mark of a comprehension's."""


class Interpreter(ABC):
    """See ``evaluate.py`` and ``execute.py``. Methods raise Raised where the code would raise, and Exhausted."""

    def __init__(self, memory: Memory, budget: Budget) -> None:
        self.memory, self.budget = memory, budget
        self.scopes: list[dict[str, Any]] = []
        self.magics: list[str] = []
        """The line magics and commands of all cells so far."""
        self.tries = 0
        """How many of the code's own ``try`` are around what is followed: there, what is unknown perhaps raises."""

    @abstractmethod
    def value(self, node: ast.expr) -> Any:
        """Give the value of an expression; Unknown for what is not understood."""

    @abstractmethod
    def text(self, expression: str) -> str | Unknown:
        """Evaluate an expression given as text, and give ``str()`` of it, as IPython's formatter does."""

    @abstractmethod
    def bind(self, name: str, value: Any) -> None:
        """Bind a name in the scope that Python would take."""

    @abstractmethod
    def forget(self, *nodes: ast.AST) -> None:
        """Make unknown what code changes outside of itself, where it is perhaps called (``forget.py``)."""

    def unknown(self, reason: str, *of: Any) -> Unknown:
        """Make an unknown value of here. What makes one may have raised, where the code reckons with that."""
        made = self.memory.unknown(reason, *of)
        if self.tries:
            self.memory.doubts.setdefault("raise", made)
        return made

    def told(self, value: Any) -> Any:
        """Give a value, or Unknown for a list or dictionary that is unknown as a whole."""
        return (spoilt(value) or value) if isinstance(value, (list, dict)) else value

    def as_text(self, value: Any) -> str | Unknown:
        """Give ``str(value)``."""
        if isinstance(value, (str, Unknown)):
            return value
        if isinstance(value, PurePath):
            return value.text
        if isinstance(value, PLAIN):
            return Text([value.part if isinstance(value, Id) else Part(str(value))])
        return self.unknown(f"the text of a {kind(value)}")

    def as_repr(self, value: Any, *, is_ascii: bool = False) -> str | Unknown:
        """Give ``repr(value)`` or ``ascii(value)``, of what is plain."""
        if not isinstance(value, PLAIN):
            return self.unknown(f"the form of a {kind(value)}", value)
        how = ascii if is_ascii else repr
        return concat(how(str(value) if isinstance(value, str) else value)) if not isinstance(value, Id) else str(value)

    def path_argument(self, args: list[Any], number: int = 0) -> str | Unknown:
        """Give an argument that must be text or a path. Raises Raised for another kind."""
        if number >= len(args):
            raise Raised("TypeError", "missing 1 required positional argument")
        value = args[number]
        if isinstance(value, PurePath):
            return value.text
        if isinstance(value, (str, Unknown)):
            return value
        if not isinstance(value, (*PLAIN, list, tuple, dict)):
            return self.unknown(f"a path that is a {kind(value)}")
        raise Raised("TypeError", f"expected str, bytes or os.PathLike object, not {kind(value)}")

    def join(self, texts: list[Any]) -> str | Unknown:
        """Put texts together; if one is unknown, all is."""
        for text in texts:
            if not isinstance(text, str):
                return self.unknown("a text put together of something else", text)
        if len(texts) == 1:
            text = texts[0]
            return text if isinstance(text, Text) else concat(text)
        size = sum(map(len, texts))
        self.budget.made(size)
        return concat("", *texts) if size <= TEXT else self.unknown("a very long text")

    def entries(self, value: Any) -> list[Any] | Unknown:
        """Give what a loop over ``value`` goes through; an iterator is at its end then."""
        if isinstance(value, Iterated):
            left, value.entries = value.entries, []
            return left
        value = self.told(value)
        if isinstance(value, View):
            lost = spoilt(value.of)
            value = lost or value.entries
        if isinstance(value, (list, tuple, range, dict)):
            if len(value) > ENTRIES:
                return self.unknown(f"a loop of more than {ENTRIES} rounds")
            self.budget.made(len(value) * ENTRY)
            return list(value)
        if isinstance(value, str):
            if len(value) > ENTRIES:
                return self.unknown(f"a loop of more than {ENTRIES} rounds")
            self.budget.made(len(value) * (PIECE + len(parts(value))))
            return [cut(value, at, at + 1) for at in range(len(value))]
        if value is None or isinstance(value, (int, float)):
            raise Raised("TypeError", f"'{kind(value)}' object is not iterable")
        return self.unknown(f"a loop over a {kind(value)}", value)

    def truth(self, value: Any) -> bool | Unknown:
        """Give ``bool(value)``."""
        value = self.told(value)
        if isinstance(value, (*PLAIN, list, tuple, dict, range)):
            return bool(value)
        if isinstance(value, Known):
            return self.unknown(f"whether {value.name} is true")
        return value if isinstance(value, Unknown) else True

    def spoil(self, values: list[Any]) -> None:
        """Make unknown what a call of something unknown may have changed, deep down, and by what it may call."""
        waiting, seen = list(values), set[int]()
        reason = self.unknown("changed by a call that is not followed") if waiting else None
        while waiting and reason is not None:
            value = waiting.pop()
            self.budget.step()
            if isinstance(value, Method):
                waiting.append(value.of)
            elif isinstance(value, (Function, Code)) and id(value) not in seen:
                seen.add(id(value))
                self.forget(*value.nodes)
            elif isinstance(value, Unknown) and id(value) not in seen:
                seen.add(id(value))
                waiting += value.may_be
            elif isinstance(value, (Iterated, View)):
                waiting += value.entries
            elif isinstance(value, (tuple, list, dict)) and self.told(value) is value:
                self.budget.made(len(value))
                waiting += value.values() if isinstance(value, dict) else value
                if not isinstance(value, tuple):
                    lose(value, reason)
