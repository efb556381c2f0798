"""Making and keeping profiles. Every text that a profile had before a change stays in the history."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import InvalidStateError, TaoprofError, UsageError
from taoprofiles.mounts import mapping
from taoprofiles.profiles import layouts
from taoprofiles.profiles.convert import as_expression, from_data, from_mapping
from taoprofiles.profiles.model import Docker, Profile, parse, to_toml
from taoprofiles.profiles.store import Store, check_name
from taoprofiles.storage import files
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

NEW_DOCKER = Docker(user="auto", shm_size="16G", ulimits={"memlock": -1, "stack": 67108864})
"""What NVIDIA's notebooks and documentation recommend; without ``user`` the results belong to root."""
NEW_ENV = {"HOME": "/tmp"}  # noqa: S108 - in the container
"""The image does not know the user's id: without a HOME that can be written to, matplotlib, torch and wandb stop."""


def new(
    context: Context,
    name: str,
    *,
    project_dir: str,
    notebook_dir: str | None = None,
    network: str | None = None,
    layout: str | None = None,
    description: str = "",
    timeout: float = DEFAULT_TIMEOUT,
) -> tuple[Profile, str]:
    """Make a profile for a project folder; return it and why it got its layout.

    Folders are relative to the current one. Raises UsageError where the name is taken or a path cannot be written.
    """
    check_name(name)
    network = name if network is None else network
    chosen, why = layouts.choose(network)
    if layout is not None:
        chosen, why = layout, "as asked"
    data: dict[str, Any] = {"schema": 1, "layout": chosen, "network": network}
    if description:
        data["description"] = description
    data["project_dir"] = as_expression(context, project_dir)
    if notebook_dir is not None:
        data["notebook_dir"] = as_expression(context, notebook_dir)
    data["container"] = {"env": NEW_ENV}
    data["docker"] = NEW_DOCKER.model_dump(exclude_none=True)
    profile = from_data(data, name=name)
    write(context, "new", name, to_toml(profile).encode(), replace=False, timeout=timeout)
    return profile, why


def write(
    context: Context,
    action: str,
    name: str,
    text: bytes,
    *,
    replace: bool,
    expected: bytes | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Write a profile's text and record it. ``expected``: fail if the profile's text is another one by now.

    Raises InvalidProfileError before anything is written, UsageError where the name is taken and ``replace`` is false.
    """
    store = Store(context)
    store.validate(name, text)
    with Lock(context.lock, timeout):
        before = store.text_or_none(name)
        if before is not None and not replace:
            raise taken(action, name)
        if expected is not None and before != expected:
            raise TaoprofError(f"profile '{name}' was changed by somebody else in the meantime")
        put(context, action, name, before, text)


def taken(action: str, name: str) -> UsageError:
    """Make the error for a new profile's name that is taken."""
    away = "--force" if action in ("save", "import") else f"'taoprof remove {name}'"
    hint = f"'taoprof show {name}' shows it; {away} replaces it, and the history keeps it"
    return UsageError(f"there is a profile '{name}' already", hint=hint)


def put(context: Context, action: str, name: str, before: bytes | None, text: bytes) -> None:
    """Replace a profile's text, which is ``before``, and record it. Needs the lock and a valid ``text``."""
    if before != text:
        entries = [entry_of(context, action, name, before, text)]
        History(context).record_and(entries, lambda: Store(context).write(name, text, expected=before))


def save(context: Context, name: str, *, replace: bool, timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
    """Make the mapping file, as it is now, the custom profile ``name``, which then renders the same mapping.

    Returns what the file holds.
    Raises InvalidStateError where there is no mapping file, or one that no profile can stand for.
    """
    check_name(name)
    content = files.read_mapping_file(context)
    if content is None:
        raise InvalidStateError(f"there is no mapping file to save ('{context.mapping_file}')")
    found = mapping.parse(content, context.mapping_file)
    profile = from_mapping(context, found, name=name, where=context.mapping_file)
    write(context, "save", name, to_toml(profile).encode(), replace=replace, timeout=timeout)
    return found


def copy(context: Context, name: str, to: str, *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Make ``to`` a copy of ``name``, comments included; its paths stay those of the same network."""
    text = _pinned(Store(context), name)
    write(context, "copy", to, text, replace=False, timeout=timeout)


def rename(context: Context, name: str, to: str, *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Give a profile another name. If it is active it stays so, and its mapping stays what it was."""
    Store(context).text(name)
    with Lock(context.lock, timeout):
        move(context, "rename", name, to)


def move(context: Context, action: str, name: str, to: str) -> None:
    """Rename a profile and record it as ``action``. Needs the lock."""
    store = Store(context)
    if os.path.lexists(store.path(to)):
        raise UsageError(f"there is a profile '{to}' already", hint=f"'taoprof show {to}' shows it")
    before, text = store.text(name), _pinned(store, name)
    entries = [entry_of(context, action, to, before, text) | {"was": name}]
    active = History(context).in_force(files.read_mapping_file(context))
    if active is not None and active.profile == name:
        digest = active.after
        entries.append({**entries[0], "target": "mapping", "before": digest, "after": digest})

    def do() -> None:
        store.write(name, text, expected=before)
        files.rename(store.path(name), store.path(to))

    History(context).record_and(entries, do)


def remove(context: Context, name: str, *, force: bool, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Take a profile away; the history keeps it. Raises UsageError for the active one unless ``force``."""
    store = Store(context)
    store.text(name)
    with Lock(context.lock, timeout):
        before = store.text(name)
        active = History(context).in_force(files.read_mapping_file(context))
        if active is not None and active.profile == name and not force:
            raise UsageError(
                f"'{name}' is the active profile",
                hint=f"switch to another one first, or 'taoprof remove {name} --force'",
            )
        entries = [entry_of(context, "remove", name, before, None)]
        History(context).record_and(entries, lambda: files.remove(store.path(name)))


def entry_of(context: Context, action: str, name: str, before: bytes | None, after: bytes | None) -> dict[str, Any]:
    """Return the history entry of a changed profile, with both texts stored; None stands for no profile."""
    history = History(context)
    digests = [None if text is None else history.keep(text) for text in (before, after)]
    return {"action": action, "target": "profile", "profile": name, "before": digests[0], "after": digests[1]}


def _pinned(store: Store, name: str) -> bytes:
    """Give a profile's text with its network spelt out, so that another name leaves its paths as they are."""
    import tomlkit

    text = store.text(name)
    profile = parse(text, name=name, path=store.path(name))
    if profile.layout == "custom" or profile.network is not None:
        return text
    document = tomlkit.parse(text.decode())
    document["network"] = name
    return tomlkit.dumps(document).encode()
