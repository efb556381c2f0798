"""Variables written down for another program, so that it reads back just the same values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FORMATS = ("bash", "fish", "dotenv", "json")


def write(variables: Mapping[str, str], form: str, *, hidden: Sequence[str] = ()) -> str:
    """Write variables in one of FORMATS. ``hidden`` are named in a comment where the form has comments."""
    if form == "json":
        return json.dumps(variables, indent=2) + "\n"
    line = {"bash": _bash, "fish": _fish, "dotenv": _dotenv}[form]
    lines = [line(name, value) for name, value in variables.items()]
    return "\n".join([*lines, *(f"# {name}=***: a secret, left out" for name in hidden)]) + "\n"


def notebook_cell(
    name: str,
    variables: Mapping[str, str],
    mapping: dict[str, Any],
    *,
    hidden: Sequence[str],
    hidden_env: Sequence[str],
) -> str:
    """Write the cell that takes the place of a notebook's first two: the variables, and the mapping.

    It needs no taoprofiles. The mapping goes into a file of the profile's own, which ``LAUNCHER_MOUNTS`` names, so that
    another notebook's does not take its place. What is hidden is read from the kernel's environment, if it is there.
    """
    items = "".join(f"    {key!a}: {value!a},\n" for key, value in variables.items())
    left_out = dict.fromkeys((*hidden, *hidden_env))
    notes = "".join(f"# {key}: a secret, left out; set it here or before\n" for key in left_out)
    shown = {**mapping}
    if "Envs" in mapping:
        shown["Envs"] = [
            {
                **env,
                "value": _Code(f'os.environ.get({env["variable"]!a}, "")')
                if env["variable"] in hidden_env
                else env["value"],
            }
            for env in mapping["Envs"]
        ]
    return f"""\
# Profile {name!a}, written by 'taoprof env {name} --format notebook'.
import json
import os

{notes}os.environ.update({{
{items}}})
mapping = {_python(shown)}
folder = os.path.join(os.path.expanduser("~"), ".cache", "taoprofiles")
os.makedirs(folder, mode=0o700, exist_ok=True)
os.environ["LAUNCHER_MOUNTS"] = os.path.join(folder, {name!a} + ".mounts.json")
beside = os.environ["LAUNCHER_MOUNTS"] + f".{{os.getpid()}}"
with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as mounts_file:
    json.dump(mapping, mounts_file, indent=4)
os.replace(beside, os.environ["LAUNCHER_MOUNTS"])
"""


class _Code(str):
    """An expression, to be written as it is."""


def _python(value: Any, indent: str = "") -> str:
    inner = indent + "    "
    if isinstance(value, dict):
        items = [f"{inner}{key!a}: {_python(one, inner)},\n" for key, one in value.items()]
        return "{\n" + "".join(items) + indent + "}" if items else "{}"
    if isinstance(value, list):
        items = [f"{inner}{_python(one, inner)},\n" for one in value]
        return "[\n" + "".join(items) + indent + "]" if items else "[]"
    return str(value) if isinstance(value, _Code) else ascii(value)


def shell_word(value: str) -> str:
    """Write a word for bash or zsh, in quotes."""
    if value.isprintable():
        return "'" + value.replace("'", "'\\''") + "'"
    # $'…' for what a terminal would obey: bash and zsh read the escapes back, byte by byte, in any locale.
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
