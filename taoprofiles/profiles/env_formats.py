"""Variables in the syntax of shells and other programs, which read back exactly the same values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMATS = ("bash", "fish", "dotenv", "json")


def write(variables: Mapping[str, str], form: str, *, hidden: Sequence[str] = ()) -> str:
    """Return variables in one of FORMATS; ``hidden`` names are in a comment if the format has comments."""
    if form == "json":
        return json.dumps(variables, indent=2) + "\n"
    line = {"bash": _bash, "fish": _fish, "dotenv": _dotenv}[form]
    lines = [line(name, value) for name, value in variables.items()]
    return "\n".join([*lines, *(f"# {name}=***: a secret, left out" for name in hidden)]) + "\n"


def shell_word(value: str) -> str:
    """Return a word quoted for bash and zsh."""
    if value.isprintable():
        return "'" + value.replace("'", "'\\''") + "'"
    # $'…' for control characters, which a terminal would execute: the escapes are bytes, in any locale.
    return "$'" + "".join(_ansi_c(byte) for byte in value.encode()) + "'"


def _bash(name: str, value: str) -> str:
    return f"export {name}={shell_word(value)}"


def _ansi_c(byte: int) -> str:
    if byte in b"'\\":
        return "\\" + chr(byte)
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}"


def _fish(name: str, value: str) -> str:
    if value.isprintable():
        return f"set -gx {name} '" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    # fish reads \Xhh outside quotes as that byte.
    return f"set -gx {name} " + "".join(_fish_byte(byte) for byte in value.encode())


def _fish_byte(byte: int) -> str:
    return chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"\\X{byte:02x}"


def _dotenv(name: str, value: str) -> str:
    # The syntax that python-dotenv and Docker Compose read alike: single quotes take everything but a quote.
    if "'" not in value and "\\" not in value and value.isprintable():
        return f"{name}='{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'{name}="{escaped}"'
