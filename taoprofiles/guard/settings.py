"""The settings of the guard: what may stand in ``config.toml``, its default, and its meaning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taoprofiles.errors import InvalidStateError
from taoprofiles.profiles import toml_model
from taoprofiles.profiles.toml_model import Form, FormError


class Settings(Form):
    """All keys of the file; each has a default, so that a person without one has a guard that works."""

    seal: bool = Field(default=True, description="Make the mapping file read-only while it is held.")
    restores: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=5, description="Foreign writes a minute that are undone while the file is held; 0: none, only tell."
    )
    notices: bool = Field(default=True, description="Show a notice on the desktop when a foreign write is undone.")


def parse(content: bytes, path: str) -> Settings:
    """Read the settings file. Raises InvalidStateError with every fault in it."""
    try:
        return toml_model.parse(Settings, content)
    except FormError as error:
        raise InvalidStateError(
            f"the settings are not valid ({path})",
            problems=error.problems,
            hint="edit it, then 'systemctl --user reload taoprofd'",
        ) from None
