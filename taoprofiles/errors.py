"""The exceptions that taoprofiles raises, each with a stable code, an exit status and a hint."""

from __future__ import annotations

TYPE_CHECKING = False  # for the prompt: importing typing would take 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class TaoprofError(Exception):
    """Anything that taoprofiles refuses or could not do.

    ``message`` says what, where and why on one line; ``problems`` lists every single fault, one line each, where there
    are several; ``hint`` is a next step to paste. ``code`` never changes once published, ``status`` is the exit status.
    """

    code = "failed"
    status = 1

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.problems = list(problems)
        self.hint = hint
        self.more: dict[str, Any] = {}

    def __str__(self) -> str:
        """Give all of it on one line, for tracebacks and logs."""
        text = self.message
        if self.problems:
            text += ": " + "; ".join(self.problems)
        return f"{text} (hint: {self.hint})" if self.hint else text


class UsageError(TaoprofError):
    """The command line, or a call, asks for something that cannot be meant."""

    code = "usage"
    status = 2


class InvalidProfileError(TaoprofError):
    """A profile cannot be read, or cannot be rendered here and now."""

    code = "invalid-profile"
    status = 3


class InvalidStateError(TaoprofError):
    """Something else that taoprofiles reads is not what it should be: the mapping file, the history, HOME."""

    code = "invalid-state"
    status = 3


class CannotRenderError(TaoprofError):
    """A profile that is valid says what the target of ``render`` has no way to say, or holds a secret there."""

    code = "cannot-render"
    status = 3


class NotFoundError(TaoprofError):
    """There is no profile or history entry of that name."""

    code = "not-found"
    status = 4


class HeldError(TaoprofError):
    """Work that goes on needs the mapping, the results folder or the GPUs; ``holds`` are the Hold objects."""

    code = "held"
    status = 5

    def __init__(
        self, message: str, *, problems: Sequence[str] = (), hint: str = "", holds: Sequence[Any] = ()
    ) -> None:
        super().__init__(message, problems=problems, hint=hint)
        self.holds = list(holds)
        self.holders: list[dict[str, Any]] = [hold.as_dict() for hold in holds]
        self.more = {"holders": self.holders}


class BusyError(TaoprofError):
    """Another taoprof command held the lock for the whole of the time allowed."""

    code = "busy"
    status = 7


class GuardedError(TaoprofError):
    """Another guard has this place, and is at work."""

    code = "guarded"
    status = 8
