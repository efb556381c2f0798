"""The exceptions that taoprofiles raises, each with a stable code, an exit status and a hint.

The prompt loads this module, so it imports nothing. ``HeldError`` is in ``holds/hold.py``.
"""

from __future__ import annotations


class TaoprofError(Exception):
    """Base class of all errors.

    ``message`` says what failed and why, on one line; ``problems`` has one line for each problem if there are several;
    ``hint`` is what to do next. ``code`` never changes once published; ``status`` is the exit status.
    """

    code = "failed"
    status = 1

    def __init__(self, message: str, *, problems: list[str] | tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.problems = list(problems)
        self.hint = hint
        self.more: dict[str, object] = {}

    def __str__(self) -> str:
        """Return everything on one line, for tracebacks and logs."""
        text = self.message
        if self.problems:
            text += ": " + "; ".join(self.problems)
        return f"{text} (hint: {self.hint})" if self.hint else text


class UsageError(TaoprofError):
    """The command line, or a call, is invalid."""

    code = "usage"
    status = 2


class InvalidProfileError(TaoprofError):
    """A profile is invalid, or cannot be rendered on this machine."""

    code = "invalid-profile"
    status = 3


class InvalidStateError(TaoprofError):
    """Another input is invalid: the mapping file, the history, HOME."""

    code = "invalid-state"
    status = 3


class CannotRenderError(TaoprofError):
    """A valid profile has what the target of ``render`` cannot express, or a secret where it would be shown."""

    code = "cannot-render"
    status = 3


class NotFoundError(TaoprofError):
    """There is no profile, hold or history entry of that name."""

    code = "not-found"
    status = 4


class BusyError(TaoprofError):
    """Another taoprof command held the lock until the timeout."""

    code = "busy"
    status = 7


class UntrustedError(TaoprofError):
    """A project file was not trusted with 'taoprof trust', or has changed since."""

    code = "untrusted"
    status = 9


class GuardRunningError(TaoprofError):
    """Another guard is running."""

    code = "guarded"
    status = 8


def reason_of(error: Exception) -> str:
    """Return why the system refused something, for the end of a message: its text, without the path and the number."""
    return str(getattr(error, "strerror", None) or error).lower()
