"""Setting single keys of a profile in its file, with the comments and the order that its owner gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.items import InlineTable

from taoprofiles.errors import UsageError
from taoprofiles.profiles.convert import as_bytes
from taoprofiles.profiles.manage import put
from taoprofiles.profiles.model import Profile
from taoprofiles.profiles.store import Store
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context


def change(context: Context, name: str, settings: dict[str, str | None], *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Set keys of a profile in its file, keeping its comments; None takes the key away.

    A key is one of the form ("project_dir", "docker.shm_size") or the name of a variable. Raises UsageError for a key
    that is neither, InvalidProfileError where the result would not be valid.
    """
    store = Store(context)
    store.text(name)
    with Lock(context.lock, timeout):
        before = store.text(name)
        store.validate(name, before)
        text = as_bytes(_changed(name, before.decode(), settings))
        store.validate(name, text)
        put(context, "set", name, before, text)


def _changed(name: str, before: str, settings: dict[str, str | None]) -> str:
    document = tomlkit.parse(before)
    for key, value in settings.items():
        *tables, last = _place(key)
        table: Any = document
        for step in tables:
            if step not in table:
                table[step] = tomlkit.inline_table() if isinstance(table, InlineTable) else tomlkit.table()
            table = table[step]
            if not isinstance(table, dict):
                raise UsageError(f"'{key}' cannot be set: '{step}' is a value, and has no keys")
        if value is None:
            if last not in table:
                raise UsageError(f"profile '{name}' does not set '{key}'")
            del table[last]
        else:
            table[last] = _typed(tables, last, value)
    return tomlkit.dumps(document)


def _place(key: str) -> list[str]:
    """Find where in the file a key of ``set`` stands."""
    top, _, rest = key.partition(".")
    if key in Profile.model_fields and key not in ("variables", "mounts", "container", "docker"):
        return [key]
    if top == "variables" and rest:
        return [top, rest]
    if key.startswith("container.env.") and key != "container.env.":
        return ["container", "env", key.removeprefix("container.env.")]
    if top == "docker" and rest:
        return key.split(".")
    if key.replace("_", "A").isalnum() and key.upper() == key:
        return ["variables", key]
    raise UsageError(
        f"'{key}' is neither a key of a profile nor the name of a variable",
        hint="such as NUM_GPUS, project_dir, docker.shm_size or container.env.NAME; 'taoprof edit' changes mounts",
    )


def _typed(tables: list[str], key: str, value: str) -> str | int | bool:
    if tables[:1] != ["docker"]:
        return value
    if key in ("privileged", "tty") and value in ("true", "false"):
        return value == "true"
    if len(tables) == 2:
        try:
            return int(value)
        except ValueError:
            pass  # the check of the whole says what is wrong with it
    return value
