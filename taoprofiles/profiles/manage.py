"""Creating and changing profiles. The history keeps every text that a profile had before a change."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.items import InlineTable

from taoprofiles.errors import InvalidProfileError, InvalidStateError, TaoprofError, UsageError
from taoprofiles.launcher.argv import MAIN_PROGRAMS
from taoprofiles.profiles import convert, layouts
from taoprofiles.profiles.layouts import USER_ENV
from taoprofiles.profiles.model import TABLES, Docker, Profile, as_bytes, from_data, load, to_toml
from taoprofiles.profiles.rendering import find_placeholder
from taoprofiles.profiles.store import PROJECT_FILE, Base, Store, check_name, read_project_file
from taoprofiles.storage import atomic, files
from taoprofiles.storage.journal import Entry, History
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taoprofiles.profiles.rendering import Template
    from taoprofiles.storage.paths import Context

_NO_VALUES = ("description", "extends", "project", "on_start", "on_end")
"""Keys whose texts are written by people for people, commands, or names of what exists."""
NEW_DOCKER = Docker(user="auto", shm_size="16G", ulimits={"memlock": -1, "stack": 67108864})
"""What NVIDIA's notebooks and documentation recommend; without ``user`` the results belong to root."""
NEW_ENV = {"HOME": "/tmp", **USER_ENV}  # noqa: S108 - in the container
"""The image does not know the user's id: without a writable HOME and a name, matplotlib, torch and wandb stop."""


def new(
    context: Context,
    name: str,
    *,
    project_dir: str,
    notebook_dir: str | None = None,
    network: str | None = None,
    layout: str | None = None,
    description: str = "",
    image: str | None = None,
) -> tuple[Profile, str]:
    """Create a profile for a project folder; return it and the reason for its layout.

    Folders are relative to the current one. Raises UsageError if the name exists or a path cannot be stored.
    """
    check_name(name)
    network = name if network is None else network
    chosen, reason = layout or "", "as requested"
    if layout is None:
        path = context.environ.get("PATH")
        has_launcher = any(shutil.which(program, path=path) for program in MAIN_PROGRAMS)
        has_launcher = has_launcher or files.exists(context.mapping_file)
        chosen, reason = layouts.choose(network, image=image, has_launcher=has_launcher)
    data = {
        "schema": 1,
        "layout": chosen,
        "network": network,
        "description": description,
        "image": image,
        "project_dir": convert.path_expression(context, project_dir),
        "notebook_dir": None if notebook_dir is None else convert.path_expression(context, notebook_dir),
        "container": {} if layouts.env(chosen) else {"env": NEW_ENV},
        "docker": NEW_DOCKER.model_dump(exclude_none=True),
    }
    profile = from_data(data, name=name)
    write(context, "new", name, to_toml(profile).encode(), replace=False)
    return profile, reason


def write(
    context: Context, action: str, name: str, text: bytes, *, replace: bool, expected: bytes | None = None
) -> None:
    """Write a profile's text and record ``action``; with ``expected``, only if the profile still has that text.

    Raises InvalidProfileError before anything is written, UsageError if the name exists and ``replace`` is false.
    """
    store = Store(context)
    store.validate(name, store.source(name, text))
    with Lock(context.lock):
        before = store.text_or_none(name)
        if before is not None and not replace:
            raise name_exists_error(action, name)
        if expected is not None and before != expected:
            raise TaoprofError(f"profile '{name}' was changed by another program in the meantime")
        _replace(context, action, name, before, text, check_paths=expected is not None)


def write_project_file(context: Context, profile: Profile, folder: str, *, name: str) -> tuple[str, list[str]]:
    """Write the project file of a folder from a profile of the user, which becomes its trusted copy.

    Return the file's path and what was left out. Raises UsageError if there is a file already.
    """
    path = os.path.join(folder, PROJECT_FILE)
    if files.exists(path):
        raise UsageError(f"'{path}' already exists", hint=f"to use it: taoprof trust {folder}")
    text, omitted = convert.to_project_file(context, profile, folder)
    atomic.replace(path, text.encode(), attributes=atomic.FileAttributes(0o644, context.uid, context.gid))
    try:
        mounts = convert.project_renderer(context, profile, name, path).mapping()["Mounts"]
        outside = [mount["source"] for mount in mounts if not is_inside(mount["source"], folder)]
        copy = convert.from_project_file(context, read_project_file(path), folders=outside, name=name)
        write(context, "trust", name, to_toml(copy).encode(), replace=True)
    except BaseException:  # the profile stays as it was
        files.unlink_quietly(path)
        raise
    return path, omitted


def require_own(name: str, template: Template) -> None:
    """Raise UsageError for a profile that is the trusted copy of a project file."""
    project = template["project"]
    if project is not None and template["extends"] is None:
        hint = f"change that file, then run 'taoprof trust'; for values of your own: taoprof new MINE --extends {name}"
        raise UsageError(f"profile '{name}' is a copy of the project file '{project['file']}'", hint=hint)


def name_exists_error(action: str, name: str) -> UsageError:
    """Return the error for a new profile whose name exists."""
    if action in ("save", "import"):
        way = "to replace it (the history keeps the old one): --force"
    else:
        way = f"to delete it first ('taoprof undo' restores it): taoprof remove {name}"
    hint = f"to see it: taoprof show {name}; {way}"
    return UsageError(f"profile '{name}' already exists", hint=hint)


def save(context: Context, name: str, *, replace: bool) -> list[str]:
    """Create the custom profile ``name`` that renders the mapping file as it is now; return messages about it.

    Raises InvalidStateError if there is no mapping file, or one that a profile cannot express.
    """
    check_name(name)
    content = files.read_mapping_file(context)
    if content is None:
        raise InvalidStateError(f"there is no mapping file to save ('{context.mapping_file}')")
    profile, messages = convert.from_mounts_file(context, content, name=name, where=context.mapping_file)
    write(context, "save", name, to_toml(profile).encode(), replace=replace)
    return messages


def copy(context: Context, name: str, to: str) -> None:
    """Create ``to`` as a copy of ``name``, comments included; its paths stay those of the same network.

    Raises UsageError for the copy of a project file: with two of them, 'trust --revoke' would leave one.
    """
    store = Store(context)
    require_own(name, store.template(name, store.source(name, store.text(name))))
    write(context, "copy", to, _text_with_network(store, name), replace=False)


def extend(context: Context, name: str, to: str) -> None:
    """Create ``to`` as a profile that extends ``name``. Raises NotFoundError, InvalidProfileError."""
    Store(context).text(name)
    write(context, "new", to, f'schema = 1\nextends = "{name}"\n'.encode(), replace=False)


def rename(context: Context, name: str, to: str) -> None:
    """Rename a profile. If it is active it stays active, with the same mapping; those that extend it follow."""
    Store(context).text(name)
    with Lock(context.lock):
        move(context, "rename", name, to)


def move(context: Context, action: str, name: str, to: str) -> None:
    """Rename a profile and record it as ``action``. Needs the lock."""
    store = Store(context)
    if files.exists(store.path(to)):
        raise UsageError(f"profile '{to}' already exists", hint=f"to see it: taoprof show {to}")
    before, text = store.text(name), _text_with_network(store, name)
    renaming = entry_of(context, action, to, before, text) | {"was": name}
    entries, following = [], []
    for other in store.extending(name):
        old = store.text(other)
        new = as_bytes(_with_keys(other, old.decode(), {"extends": to}))
        following.append((other, old, new))
        entries.append(entry_of(context, "set", other, old, new))
    entries.append(renaming)  # after the others, so that 'undo' takes this one, and they follow again
    active = active_entry(context)
    if active is not None and active.profile == name:
        entries.append({**renaming, "target": "mapping", "before": active.after, "after": active.after})

    def do() -> None:
        store.write(name, text, expected=before)
        if following:  # until the last is written both names have a profile: each extends one, whatever is interrupted
            store.write(to, text, expected=None)
        written: list[tuple[str, bytes, bytes]] = []
        try:
            for other, old, new in following:
                store.write(other, new, expected=old)
                written.append((other, old, new))
            files.rename(store.path(name), store.path(to))
        except BaseException:
            for other, old, new in written:
                store.write(other, old, expected=new)
            if following:
                files.remove(store.path(to))
            raise

    History(context).record_and(entries, do)


def remove(context: Context, name: str, *, force: bool) -> None:
    """Remove a profile; the history keeps it.

    Raises UsageError for the active one, and for one that others extend, unless ``force``.
    """
    store = Store(context)
    store.text(name)
    with Lock(context.lock):
        before = store.text(name)
        active = active_entry(context)
        if active is not None and active.profile == name and not force:
            raise UsageError(
                f"'{name}' is the active profile",
                hint=f"switch to another one first, or 'taoprof remove {name} --force'",
            )
        if not force:
            require_not_extended(store, name)
        entries = [entry_of(context, "remove", name, before, None)]
        History(context).record_and(entries, lambda: files.remove(store.path(name)))


def require_not_extended(store: Store, name: str) -> None:
    """Raise UsageError if other profiles extend ``name``: without it they are not valid."""
    if others := store.extending(name):
        verb = "extends" if len(others) == 1 else "extend"
        raise UsageError(
            f"'{name}' cannot be removed: {', '.join(map(repr, others))} {verb} it",
            hint=f"remove that first, or give it values of its own: taoprof edit {others[0]}",
        )


def check_extending(store: Store, name: str, text: bytes) -> None:
    """Raise UsageError if a profile that extends ``name`` is valid, and would not be with the new ``text``."""
    for other in store.extending(name):
        source = store.source(other)
        with suppress(InvalidProfileError):
            store.validate(other, source)
            try:
                store.validate(other, source._replace(base=Base(name, store.path(name), text)))
            except InvalidProfileError as error:
                what = f"profile '{name}' not changed: '{other}', which extends it, would not be valid"
                raise UsageError(what, problems=error.problems, hint=f"change it first: taoprof edit {other}") from None


def set_keys(context: Context, name: str, settings: Mapping[str, str | None]) -> bool:
    """Set keys of a profile in its file, keeping comments and order; None removes a key. Return whether it changed.

    A key is one of the format ("project_dir", "docker.shm_size") or the name of a variable. Raises UsageError for any
    other key, InvalidProfileError if the result is not valid.
    """
    store = Store(context)
    store.text(name)
    with Lock(context.lock):
        before = store.text(name)
        require_own(name, store.validate(name, store.source(name, before)))
        for key in {"project_dir", "notebook_dir"} & settings.keys():
            value = settings[key]
            if value and not re.search(r"\$[{$]", value):  # an expression stays one
                settings = {**settings, key: convert.path_expression(context, value)}
        text = as_bytes(_with_keys(name, before.decode(), settings))
        try:
            store.validate(name, store.source(name, text))
        except InvalidProfileError as error:  # the file is as valid as before
            error.message, error.hint = f"profile '{name}' not changed: it would not be valid", ""
            raise
        _replace(context, "set", name, before, text, check_paths=True)
    return before != text


def _check_placeholders(context: Context, name: str, before: bytes | None, text: bytes) -> None:
    """Raise InvalidProfileError if a value of the new text is a placeholder that the old text does not have.

    Every value comes in by this function: from a command, an answer, an editor, or an imported or trusted file.
    """

    def unnumbered(problem: str) -> str:
        return re.sub(r"\[\d+\]", "", problem)  # a mount before it may have been removed

    known = set() if before is None else set(map(unnumbered, _find_placeholders(context, before)))
    if problems := [problem for problem in _find_placeholders(context, text) if unnumbered(problem) not in known]:
        done = "created" if before is None else "changed"
        hint = "write the real value; a value of your environment is ${env:NAME}"
        raise InvalidProfileError(f"profile '{name}' not {done}: values are missing", problems=problems, hint=hint)


def _find_placeholders(context: Context, text: bytes) -> list[str]:
    """Return the problems of placeholders in the place of values, such as /path/to/data. A path that exists is none.

    Comments and commands may have such words.
    """

    def find(key: str, value: object) -> Iterator[str]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for inner, item in items:
            yield from find(f"{key}[{inner}]" if isinstance(inner, int) else f"{key}.{inner}".lstrip("."), item)
        if isinstance(value, str):
            text = re.sub(r"\$\{[^{}]*\}", "\0", value)
            if placeholder := find_placeholder(text, context.expand_user(value)):
                yield f"{key}: '{placeholder}' is a placeholder"

    values, _ = load(text)  # nothing of a profile that was not valid before
    return [*find("", {key: values[key] for key in values if key not in _NO_VALUES})]


def _check_paths(store: Store, name: str, before: bytes, text: bytes) -> None:
    """Raise InvalidProfileError if the new text has a mount whose path is not absolute, and the old one had not."""
    problems = _relative_paths(store, name, text)
    if set(problems) - set(_relative_paths(store, name, before)):
        message = f"profile '{name}' not changed: it would not be valid"
        raise InvalidProfileError(message, problems=problems, hint="write a whole path, such as ~/tao/kitti")


def _relative_paths(store: Store, name: str, text: bytes) -> list[str]:
    """Return the problems of the mounts whose paths are not absolute, if the profile can be rendered otherwise."""
    try:
        store.renderer(name, store.source(name, text)).mapping()
    except InvalidProfileError as error:
        return [problem for problem in error.problems if problem.endswith("is not an absolute path")]
    return []


def entry_of(context: Context, action: str, name: str, before: bytes | None, after: bytes | None) -> dict[str, Any]:
    """Return the history entry of a changed profile, with both texts stored; None means no profile."""
    history = History(context)
    digests = [None if text is None else history.store_content(text) for text in (before, after)]
    return {"action": action, "target": "profile", "profile": name, "before": digests[0], "after": digests[1]}


def _replace(context: Context, action: str, name: str, before: bytes | None, text: bytes, *, check_paths: bool) -> None:
    """Check the new text of a profile, None before for a new one, write it and record that. Needs the lock."""
    _check_placeholders(context, name, before, text)
    if before is not None:
        check_extending(Store(context), name, text)
        if check_paths:
            _check_paths(Store(context), name, before, text)
    if before != text:
        entries = [entry_of(context, action, name, before, text)]
        History(context).record_and(entries, lambda: Store(context).write(name, text, expected=before))


def active_entry(context: Context) -> Entry | None:
    """Return the history entry that describes the mapping file; None if there is none, or another program wrote it."""
    return History(context).current_entry(files.read_mapping_file(context))


def _text_with_network(store: Store, name: str) -> bytes:
    """Return a profile's text with its network written out, so that another name does not change its paths."""
    text = store.text(name)
    profile = store.profile(name, store.source(name, text))
    if profile.layout == "custom" or profile.network is not None:
        return text
    document = tomlkit.parse(text.decode())
    document["network"] = name
    return tomlkit.dumps(document).encode()


def without_keys(text: bytes, keys: Sequence[str]) -> bytes:
    """Return a profile's text without some keys, such as ``notify`` or ``variables.PATH``."""
    document = tomlkit.parse(text.decode())
    for key in keys:
        *tables, last = key.split(".")
        table: Any = document
        for step in tables:
            table = table[step]
        del table[last]
    return tomlkit.dumps(document).encode()


def _with_keys(name: str, text: str, settings: Mapping[str, str | None]) -> str:
    document = tomlkit.parse(text)
    for key, value in settings.items():
        *tables, last = _location(name, key)
        table: Any = document
        for step in tables:
            if step not in table:
                table[step] = tomlkit.inline_table() if isinstance(table, InlineTable) else tomlkit.table()
            table = table[step]
            if not isinstance(table, dict):
                raise UsageError(f"'{key}' cannot be set: '{step}' is a value and has no keys")
        if value is not None:
            table[last] = _typed(tables, last, value)
        elif last in table:
            del table[last]
        else:
            raise UsageError(f"profile '{name}' does not set '{key}'")
    return tomlkit.dumps(document)


def _location(name: str, key: str) -> list[str]:
    """Return the tables and the key in the file of profile ``name`` for a key of ``set``."""
    top, _, rest = key.partition(".")
    tables = {*TABLES, "variables", "images"}
    if key in Profile.model_fields and key not in tables:
        return [key]
    if top in ("variables", "images") and rest:
        return [top, rest]
    if key.startswith("container.env.") and key != "container.env.":
        return ["container", "env", key.removeprefix("container.env.")]
    if top in ("docker", "slurm", "kubernetes") and rest:
        return key.split(".", 2)  # a claim's key is a path
    if key.replace("_", "A").isalnum() and key.upper() == key:
        return ["variables", key]
    table = re.split(r"[.\[]", key)[0]
    what = "is neither a key of a profile nor the name of a variable"
    hint = "such as NUM_GPUS, project_dir, docker.shm_size or container.env.NAME"
    if table in tables:
        what = f"cannot be set: '{table}' is a table, which 'set' changes only key by key"
    if re.fullmatch(r"[a-z][a-z0-9_]*", key):
        hint = f"a variable has capitals: {key.upper()}; a key is {hint.partition(', ')[2]}"
    if table == "mounts":
        what, hint = "cannot be set: 'set' does not change mounts", f"taoprof edit {name}"
    raise UsageError(f"'{key}' {what}", hint=hint)


def _typed(tables: list[str], key: str, value: str) -> str | int | bool:
    if key == "job_record" and not tables and value in ("true", "false"):
        return value == "true"
    if tables[:1] != ["docker"]:
        return value
    if key in ("privileged", "tty") and value in ("true", "false"):
        return value == "true"
    if len(tables) == 2:
        try:
            return int(value)
        except ValueError:
            pass  # the validation reports it
    return value
