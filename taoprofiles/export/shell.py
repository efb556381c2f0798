"""Command lines for a person's shell: bash or zsh."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taoprofiles.export.plan import Secret
from taoprofiles.profiles.env_formats import shell_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taoprofiles.export.plan import Word

_PLAIN = re.compile(r"[A-Za-z0-9_./:=@%+,-]+\Z")


def quoted(word: Word) -> str:
    """Write one word. The value of a secret is the shell's own variable; without it the shell refuses the line."""
    written = "".join(f'"${{{piece.name}:?}}"' if isinstance(piece, Secret) else _text(piece) for piece in word)
    return written or "''"


def command_line(program: str, options: Sequence[Sequence[Word]], last: Sequence[Word]) -> str:
    """Write a command: each option on a line of its own, then ``last``."""
    lines = [program, *("    " + " ".join(map(quoted, option)) for option in options)]
    return " \\\n".join([*lines, "    " + " ".join(map(quoted, last))]) + "\n"


def _text(text: str) -> str:
    return text if _PLAIN.match(text) else shell_word(text)
