"""How the model says no: by doing what the launcher does, and telling what Python says to it.

Where the launcher asks a list for its ``keys()``, so does the model; the AttributeError's text is then the launcher's.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from taoprofiles.launcher.prediction import Place, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDS = (AssertionError, AttributeError, LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError)


class RefusedError(Exception):
    """It ends here, without a container."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def refuse(kind: str, message: str, place: Place, status: int = 1) -> RefusedError:
    """Give what to raise where the launcher has an exception of its own for it."""
    return RefusedError(Refusal(kind, message, place, status))


@contextmanager
def refusing(section: str, index: int | None = None, key: str = "") -> Iterator[None]:
    """Turn what Python has to say inside into the refusal that it is for the launcher."""
    try:
        yield
    except _ENDS as error:
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raise refuse(type(error).__name__, message, Place(section, index, key)) from None
