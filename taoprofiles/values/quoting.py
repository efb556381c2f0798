"""Variables written down for another program, so that it reads back just the same values."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMATS = ("bash", "fish", "dotenv", "json", "notebook")


def write(variables: Mapping[str, str], form: str, *, hidden: Sequence[str] = ()) -> str:
    """Write variables in one of FORMATS. ``hidden`` are named in a comment where the form has comments."""
    if form == "json":
        return json.dumps(variables, indent=2) + "\n"
    if form == "notebook":
        items = "".join(f"    {name!a}: {value!a},\n" for name, value in variables.items())
        notes = "".join(f"# {name}: a secret, left out\n" for name in hidden)
        return f"import os\n\n{notes}os.environ.update({{\n{items}}})\n"
    line = {"bash": _bash, "fish": _fish, "dotenv": _dotenv}[form]
    lines = [line(name, value) for name, value in variables.items()]
    return "\n".join([*lines, *(f"# {name}=***: a secret, left out" for name in hidden)]) + "\n"


def _bash(name: str, value: str) -> str:
    if value.isprintable():
        return f"export {name}='" + value.replace("'", "'\\''") + "'"
    # $'…' for what a terminal would obey: bash and zsh read the escapes back, byte by byte, in any locale.
    return f"export {name}=$'" + "".join(_ansi_c(byte) for byte in value.encode()) + "'"


def _ansi_c(byte: int) -> str:
    if byte in b"'\\":
        return "\\" + chr(byte)
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}"


def _fish(name: str, value: str) -> str:
    if value.isprintable():
        return f"set -gx {name} '" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    # Outside of quotes fish reads \Xhh as that byte.
    return f"set -gx {name} " + "".join(_fish_byte(byte) for byte in value.encode())


def _fish_byte(byte: int) -> str:
    return chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"\\X{byte:02x}"


def _dotenv(name: str, value: str) -> str:
    # The part of the form that python-dotenv and Docker Compose read alike: single quotes take all but a quote.
    if "'" not in value and "\\" not in value and value.isprintable():
        return f"{name}='{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'{name}="{escaped}"'
