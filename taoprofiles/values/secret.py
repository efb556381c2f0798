"""Which names hold secrets, and how their values are shown."""

from __future__ import annotations

MASK = "***"

_WORDS = ("KEY", "TOKEN", "SECRET", "PASS", "PWD", "CREDENTIAL", "AUTH")
_HARMLESS = ("KEYPOINT",)  # TAO's pose networks: KEYPOINT_DIR is a folder


def is_secret(name: str) -> bool:
    """Tell whether the value of the variable ``name`` must not be shown."""
    upper = name.upper()
    for word in _HARMLESS:
        upper = upper.replace(word, "")
    return any(word in upper for word in _WORDS)


def shown(name: str, value: str, *, reveal: bool) -> str:
    """Give ``value`` as it may be shown: masked if ``name`` holds a secret, unless it was asked for."""
    return value if reveal or not is_secret(name) else MASK
