"""Sizes as Docker's users write them."""

from __future__ import annotations

import re


def in_bytes(size: str | int) -> int | None:
    """Read a size such as "16G" as the launcher's Docker SDK does (``parse_bytes`` of docker 4.3.1); None for none."""
    if isinstance(size, int):
        return size
    found = re.match(r"\s*([0-9.]+)\s*([bkmg]?)", size.lower())
    return int(float(found[1]) * 1024 ** "bkmg".index(found[2] or "b")) if found else None
