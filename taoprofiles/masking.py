"""Names that hold secrets, and masking of their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MASK = "***"
MIN_SECRET_LENGTH = 4
"""Minimum length of a known value that is masked; a shorter one occurs in any text."""

_WORDS = ("KEY", "TOKEN", "SECRET", "PASS", "PWD", "CREDENTIAL", "AUTH")
_NOT_SECRET = ("KEYPOINT",)  # TAO's pose networks: KEYPOINT_DIR is a folder
_FOLDERS = ("PWD", "OLDPWD")  # the shell's current and previous folder


def mask_command(words: Sequence[str], known: Iterable[str] = ()) -> list[str]:
    """Return a command with secrets masked: values of secret options and variables, and ``known`` values.

    ``-k`` is the encryption key of every TAO task.
    """
    values = [value for value in known if len(value) >= MIN_SECRET_LENGTH]
    shown: list[str] = []
    before = ""
    for word in words:
        name, equals, _ = word.partition("=")
        if before.startswith("-") and "=" not in before and is_secret_argument(before):
            masked = MASK
        elif equals and is_secret_argument(name):
            masked = f"{name}={MASK}"
        elif word.startswith("-k") and len(word) > 2:  # argparse takes -kVALUE and -k=VALUE as well
            masked = f"-k{MASK}"
        else:
            masked = mask_text(word)
            for value in values:
                masked = masked.replace(value, MASK)
        shown.append(masked)
        before = word
    return shown


def mask_text(text: str) -> str:
    """Return a text with its secrets masked: the password of a URL, and ``api_key: …`` of a list in braces."""
    if "://" not in text and "{" not in text:
        return text
    import re  # imported here, since 'use' does not need it and must start fast

    def masked(match: re.Match[str]) -> str:
        return match[1] + MASK if is_secret(match[2]) else match[0]

    text = re.sub(r"(://[^\s/@:]*:)[^\s/]+(?=@)", rf"\1{MASK}", text)
    return re.sub(r"""(([\w.-]++)["']?\s*+:\s*+)(?!//)("[^"]*+"|'[^']*+'|[^,\s{}\[\]]++)""", masked, text)


def is_secret_argument(key: str) -> bool:
    """Check whether an option, or a key of a spec, has a secret value; ``-k`` is the encryption key of TAO's tasks."""
    return key == "-k" or is_secret(key if key.startswith("--") else key.rpartition(".")[2])


def is_secret(name: str, value: str = "") -> bool:
    """Check whether the value of a variable must not be shown: by its name, or since it is a URL with a password."""
    if "://" in value and "@" in value and mask_text(value) != value:
        return True
    upper = name.upper()
    for word in _NOT_SECRET:
        upper = upper.replace(word, "")
    return upper not in _FOLDERS and any(word in upper for word in _WORDS)


def printable(text: str) -> str:
    """Return the text with every character escaped that a terminal would obey or show as something else."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\u00a0\u3000" else _escape(c) for c in text)


def _escape(character: str) -> str:
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    code = ord(character)
    return known or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
