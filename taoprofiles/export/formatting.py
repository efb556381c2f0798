"""Text that a shell or a YAML parser reads back unchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from taoprofiles.export.plan import Secret, Word
from taoprofiles.profiles.env_formats import shell_word

_PLAIN_SCALAR = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z")
_YAML_WORDS = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null", "inf", "nan"))


def command_line(program: str, options: Sequence[Sequence[str]], last: Sequence[Word]) -> str:
    """Return a command for bash or zsh: each option on a line of its own, then the words ``last``.

    The value of a secret is a variable of the shell; without it the shell refuses the command.
    """
    words = [
        "".join(f'"${{{part.name}:?}}"' if isinstance(part, Secret) else shell_word(part) for part in word) or "''"
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
