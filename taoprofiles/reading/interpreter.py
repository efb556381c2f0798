"""What every part of the interpreter needs of it: the memory, the budget, and the plain questions about values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from taoprofiles.reading.bounds import ENTRIES, ENTRY, PIECE, TEXT, Raised, Unknown
from taoprofiles.reading.traced import Part, Text, concat, cut, parts
from taoprofiles.reading.values import PLAIN, Dumped, Id, PurePath, holds_unknown, kind

if TYPE_CHECKING:
    import ast
    from typing import Any

    from taoprofiles.reading.bounds import Budget
    from taoprofiles.reading.memory import Memory


class Interpreter(ABC):
    """See ``evaluate.py`` and ``execute.py``. Methods raise Raised where the code would raise, and Exhausted."""

    def __init__(self, memory: Memory, budget: Budget) -> None:
        self.memory, self.budget = memory, budget
        self.scopes: list[dict[str, Any]] = []
        self.magics: list[str] = []
        """The line magics and commands of all cells so far."""

    @abstractmethod
    def value(self, node: ast.expr) -> Any:
        """Give the value of an expression; Unknown for what is not understood."""

    @abstractmethod
    def text(self, expression: str) -> str | Unknown:
        """Evaluate an expression given as text, and give ``str()`` of it, as IPython's formatter does."""

    def unknown(self, reason: str, *of: Any) -> Unknown:
        """Make an unknown value of here."""
        return self.memory.unknown(reason, *of)

    def as_text(self, value: Any) -> str | Unknown:
        """Give ``str(value)``."""
        if isinstance(value, (str, Unknown)):
            return value
        if isinstance(value, PurePath):
            return value.text
        if isinstance(value, PLAIN):
            return Text([value.part if isinstance(value, Id) else Part(str(value))])
        return self.unknown(f"the text of a {kind(value)}")

    def as_repr(self, value: Any) -> str | Unknown:
        """Give ``repr(value)``, of what is plain."""
        if not isinstance(value, PLAIN):
            return self.unknown(f"the form of a {kind(value)}", value)
        return (
            concat(repr(str(value) if isinstance(value, str) else value)) if not isinstance(value, Id) else str(value)
        )

    def join(self, texts: list[Any]) -> str | Unknown:
        """Put texts together; if one is unknown, all is."""
        for text in texts:
            if not isinstance(text, str):
                return self.unknown("a text put together of something else", text)
        if len(texts) == 1:
            text = texts[0]
            return text if isinstance(text, Text) else concat(text)
        if any(isinstance(text, Dumped) and holds_unknown(text.value) for text in texts):
            return self.unknown("the JSON text of something unknown")
        size = sum(map(len, texts))
        self.budget.made(size)
        return concat("", *texts) if size <= TEXT else self.unknown("a very long text")

    def entries(self, value: Any) -> list[Any] | Unknown:
        """Give what a loop over ``value`` goes through."""
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
        if isinstance(value, (*PLAIN, list, tuple, dict, range)):
            return bool(value)
        return value if isinstance(value, Unknown) else True

    def spoil(self, values: list[Any]) -> None:
        """Make unknown what a call of something unknown may have changed."""
        for value in values:
            if not isinstance(value, (dict, list)) or not value:
                continue
            self.budget.made(len(value))
            reason = self.unknown("changed by a call that is not followed")
            if isinstance(value, dict):
                value.update(dict.fromkeys(value, reason))
            elif not (isinstance(value[0], Unknown) and value[0] is value[-1]):  # that was done before
                value[:] = [reason] * len(value)
