"""Text that a shell, a YAML parser or another program reads back unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taoprofiles.storage.paths import to_bytes

if TYPE_CHECKING:
    from taoprofiles.export.plan import Word

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:=@%+,-]+\Z")
_PLAIN_SCALAR = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z")
_YAML_WORDS = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null", "inf", "nan"))


def command_line(program: str, options: Sequence[Sequence[str]], last: Sequence[Word]) -> str:
    """Return a command for bash or zsh: each option on a line of its own, then the words ``last``.

    The value of a secret is a variable of the shell; without it the shell refuses the command.
    """
    words = [
        "".join(shell_word(part) if isinstance(part, str) else f'"${{{part.name}:?}}"' for part in word) or "''"
        for word in last
    ]
    lines = [program, *(" ".join(map(shell_word, option)) for option in options), " ".join(words)]
    return " \\\n    ".join(lines) + "\n"


def double_dollars(text: str) -> str:
    """Return the text without expansion of ``$NAME`` in Compose and ``$(NAME)`` in Kubernetes."""
    return text.replace("$", "$$")


def without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are set."""
    return {key: value for key, value in fields.items() if value not in (None, [], {})}


def to_yaml(document: dict[str, Any]) -> str:
    """Return a document as YAML, the keys in their order, with the same meaning in YAML 1.1 and 1.2."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_text(dumper: Dumper, value: str) -> yaml.ScalarNode:
        # The versions differ in which bare words are numbers or booleans (0o7, 1e3, yes): quoted, all are text.
        is_plain = _PLAIN_SCALAR.match(value) and value.lower() not in _YAML_WORDS
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_plain else '"')

    Dumper.add_representer(str, represent_text)
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    return text


def format_variables(variables: Mapping[str, str], form: str, *, hidden: Sequence[str] = ()) -> str:
    """Return variables in one of ENV_FORMATS; ``hidden`` names are in a comment if the format has comments."""
    if form == "json":
        return json.dumps(variables, indent=2) + "\n"
    styles = {"bash": ("export {}={}", _quoted), "fish": ("set -gx {} {}", fish_word), "dotenv": ("{}={}", _dotenv)}
    line, quote = styles[form]
    lines = [line.format(name, quote(value)) for name, value in variables.items()]
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


def _dotenv(value: str) -> str:
    # The syntax that python-dotenv and Docker Compose read alike: single quotes take everything but a quote.
    if "'" not in value and "\\" not in value and value.isprintable():
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
