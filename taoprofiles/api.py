"""What other Python programs call: the same operations as the command line's, as functions."""

from __future__ import annotations

from taoprofiles.operations import switch
from taoprofiles.operations.situation import Situation, look
from taoprofiles.state.locks import DEFAULT_TIMEOUT
from taoprofiles.state.paths import Context

__all__ = ["current", "use"]


def use(name: str, *, dry_run: bool = False, mkdir: bool = False, timeout: float = DEFAULT_TIMEOUT) -> switch.Switch:
    """Switch the mapping file to the profile ``name``; "-" is the one before. See ``switch.use`` for what it raises."""
    return switch.use(Context(), name, dry_run=dry_run, mkdir=mkdir, timeout=timeout)


def current() -> Situation:
    """Tell which profile is active: ``.name`` and ``.state`` (active, drifted, unmanaged, none)."""
    return look(Context())
