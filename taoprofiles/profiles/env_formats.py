"""Variables in the syntax of shells and other programs, which read back exactly the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from taoprofiles.storage.paths import to_bytes

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:=@%+,-]+\Z")


def write(variables: Mapping[str, str], form: str, *, hidden: Sequence[str] = ()) -> str:
    """Return variables in one of ENV_FORMATS; ``hidden`` names are in a comment if the format has comments."""
    if form == "json":
        return json.dumps(variables, indent=2) + "\n"
    line = {"bash": _bash, "fish": _fish, "dotenv": _dotenv}[form]
    lines = [line(name, value) for name, value in variables.items()]
    return "\n".join([*lines, *(f"# {name}=***: a secret, left out" for name in hidden)]) + "\n"


def shell_word(value: str) -> str:
    """Return a word for bash and zsh, quoted unless it needs no quotes."""
    return value if _PLAIN_WORD.match(value) else _quoted(value)


def fish_word(value: str) -> str:
    """Return a quoted word for fish."""
    if value.isprintable():
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    # fish reads \Xhh outside quotes as that byte.
    return "".join(
        chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else f"\\X{byte:02x}" for byte in to_bytes(value)
    )


def _quoted(value: str) -> str:
    if value.isprintable():
        return "'" + value.replace("'", "'\\''") + "'"
    # $'…' for control characters, which a terminal would execute: the escapes are bytes, in any locale.
    escapes = {byte: chr(byte) for byte in range(0x20, 0x7F)} | {ord("'"): "\\'", ord("\\"): "\\\\"}
    return "$'" + "".join(escapes.get(byte, f"\\{byte:03o}") for byte in to_bytes(value)) + "'"


def _bash(name: str, value: str) -> str:
    return f"export {name}={_quoted(value)}"


def _fish(name: str, value: str) -> str:
    return f"set -gx {name} {fish_word(value)}"


def _dotenv(name: str, value: str) -> str:
    # The syntax that python-dotenv and Docker Compose read alike: single quotes take everything but a quote.
    if "'" not in value and "\\" not in value and value.isprintable():
        return f"{name}='{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'{name}="{escaped}"'
