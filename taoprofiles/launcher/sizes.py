"""Sizes as Docker's users write them, and as the launcher's Docker SDK reads them (``parse_bytes`` of docker 4.3.1)."""

from __future__ import annotations

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class SizeError(ValueError):
    """What the SDK refuses, in its own words."""


def parse(text: str) -> int:
    """Give a size such as ``16G``, ``1.5 g`` or ``64MB`` in bytes, the unit where none stands; 0 for no text.

    Raises SizeError; and OverflowError or ValueError for infinity and the like, which Python then says no to.
    """
    if not text:
        return 0
    if text[-2:].isalpha() and len(text) > 1 and text[-1] in "bB":
        text = text[:-1]
    unit = text[-1].lower()
    number, unit = (text, "b") if unit.isdigit() else (text[:-1], unit)
    if unit not in _UNITS:
        raise SizeError(
            f"The specified value for memory ({text}) should specify the units. "
            "The postfix should be one of the `b` `k` `m` `g` characters"
        )
    try:
        size = float(number)
    except ValueError:
        message = f"Failed converting the string value for memory ({number}) to an integer."
        raise SizeError(message) from None
    return int(size * _UNITS[unit])


def in_bytes(size: object) -> int | None:
    """Give the bytes of a size, a text or a number; None for what is none."""
    try:
        return parse(size) if isinstance(size, str) else int(size) if isinstance(size, int) else None
    except (ValueError, OverflowError):
        return None
