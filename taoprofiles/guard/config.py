"""The settings file, ``config.toml`` beside the profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.guard.settings import Settings, parse
from taoprofiles.storage import files

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

_LIMIT = 1 << 20


def load(context: Context) -> Settings:
    """Read the settings; the defaults where there is no file. Raises InvalidStateError, TaoprofError."""
    content = files.read(context.settings, _LIMIT)
    return Settings() if content is None else parse(content, context.settings)
