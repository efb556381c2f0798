"""Which names hold secrets, and what is shown for their values."""

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
