"""The only module that prints: results and errors, as text for people or as one JSON envelope for programs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

    from taoprofiles.cli.result import Result
    from taoprofiles.errors import TaoprofError

ENVELOPE = 1
"""The version of the JSON envelope. New keys may come; a key never changes its meaning."""
LINE_LIMIT = 500
SHOWN_PROBLEMS = 20


def emit(command: str, result: Result, *, as_json: bool) -> int:
    """Print a result: the answer on stdout, the messages on stderr. Returns the exit status."""
    if as_json:
        _print_json(_envelope(command, ok=True, data=result.data, messages=result.messages))
        return result.status
    for message in result.messages:
        _print_line(sys.stderr, f"taoprof: {message}")
    if result.raw is not None:
        # Read by a program, so it stays as it is; a terminal must still not be driven by what a file says.
        # UTF-8 whatever the locale says: that is what TOML, JSON and a shell's variables are written in.
        text = "\n".join(printable(line) for line in result.raw.split("\n")) if sys.stdout.isatty() else result.raw
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))  # a path may be no text
    for line in result.lines:
        _print_line(sys.stdout, line)
    return result.status


def emit_error(command: str, error: TaoprofError, *, as_json: bool) -> int:
    """Print an error: on stderr as text, or on stdout as the envelope. Returns the exit status."""
    if as_json:
        told = {
            "code": error.code,
            "message": error.message,
            "problems": error.problems[:100],
            "hint": error.hint,
            "status": error.status,
            **error.more,
        }
        _print_json(_envelope(command, ok=False, data=None, messages=[], error=told))
        return error.status
    sys.stderr.write(f"taoprof: {_red('error:')} ")
    for line in error_lines(error):
        _print_line(sys.stderr, line)
    return error.status


def error_lines(error: TaoprofError) -> list[str]:
    """Say an error in lines that a terminal can be given: the message, the problems, and the hint."""
    lines = [error.message + (":" if error.problems else "")]
    lines += [f"  {problem}" for problem in error.problems[:SHOWN_PROBLEMS]]
    if len(error.problems) > SHOWN_PROBLEMS:
        lines.append(f"  … and {len(error.problems) - SHOWN_PROBLEMS} more")
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return [cut(line) for line in lines]


def note(text: str, *, end: str = "\n") -> None:
    """Say something beside the answer, on stderr, while a command is at work."""
    sys.stderr.write(printable(text) + end)
    sys.stderr.flush()


def cut(line: str) -> str:
    """Leave the middle of a long line out: what was given may be a megabyte, and both ends tell what it is about."""
    line = printable(line)
    return line if len(line) <= LINE_LIMIT else f"{line[: LINE_LIMIT - 103]} … {line[-100:]}"


def printable(text: str) -> str:
    """Write every character that a terminal would obey, or show as something else, as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\u00a0\u3000" else _escape(c) for c in text)


def table(rows: Sequence[Sequence[str]], *, indent: str = "") -> list[str]:
    """Align columns, by their width on a terminal: Chinese characters take two places."""
    safe = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*safe, strict=True)]
    return [
        (
            indent + "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        ).rstrip()
        for row in safe
    ]


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _escape(character: str) -> str:
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    code = ord(character)
    return known or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _envelope(
    command: str, *, ok: bool, data: dict[str, Any] | None, messages: list[str], error: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"schema": ENVELOPE, "ok": ok, "command": command, "data": data, "messages": messages, "error": error}


def _print_json(envelope: dict[str, Any]) -> None:
    import json

    sys.stdout.write(json.dumps(envelope, indent=2) + "\n")


def _print_line(stream: TextIO, line: str) -> None:
    stream.write(printable(line) + "\n")


def _red(word: str) -> str:
    if os.environ.get("NO_COLOR"):
        colour = False
    elif os.environ.get("FORCE_COLOR"):
        colour = True
    else:
        colour = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return f"\x1b[31m{word}\x1b[0m" if colour else word
