"""Messages for the user's next command, of programs that work in the background: ``guard/untold``, one a line."""

from __future__ import annotations

import os

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import best_effort, files
from taoprofiles.storage.paths import Context

_KEPT = 20
"""Messages that are kept; those of the guard are also in its log."""


def add_message(context: Context, line: str) -> None:
    """Add a message that the user's next command shows. Needs the lock."""
    text = "".join(f"{old}\n" for old in [*_read_lines(context.pending_messages), " ".join(line.splitlines())][-_KEPT:])
    best_effort.write(context.pending_messages, text.encode("utf-8", "backslashreplace"))


def take_messages(context: Context) -> list[str]:
    """Return the messages and delete them; of two commands at the same time only one gets them."""
    path = f"{context.pending_messages}-{os.getpid()}"
    if not best_effort.rename(context.pending_messages, path):
        return []
    lines = _read_lines(path)
    best_effort.unlink_quietly(path)
    return lines


def _read_lines(path: str) -> list[str]:
    try:
        return (files.read(path, 1 << 16) or b"").decode("utf-8", "replace").splitlines()
    except TaoprofError:
        return []
