"""What a command returns; ``output.py`` alone makes text or JSON of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Result:
    """``data`` is for programs; ``lines`` for people; ``raw`` instead of lines for text that another program reads.

    ``messages`` are notes and warnings beside the answer. ``status`` is the exit status.
    """

    __slots__ = ("data", "lines", "messages", "raw", "status")

    def __init__(
        self,
        data: dict[str, Any],
        lines: list[str] | None = None,
        *,
        raw: str | None = None,
        messages: list[str] | None = None,
        status: int = 0,
    ) -> None:
        self.data = data
        self.lines = lines or []
        self.raw = raw
        self.messages = messages or []
        self.status = status
