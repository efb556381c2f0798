"""The copy of a project file that a user has trusted: the keys that it may have, and its paths; writing such a file.

The copy cannot leave the project's folder and the folders that were allowed: the renderer checks that at every use,
since links may change.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidProfileError, UsageError
from taoprofiles.masking import is_secret
from taoprofiles.profiles import layouts, manage, model
from taoprofiles.profiles.project import FILE, read
from taoprofiles.profiles.rendering import Renderer, escape_dollars, expressions, references
from taoprofiles.storage import atomic, files
from taoprofiles.storage.paths import is_inside
from taoprofiles.system.filesystem import real_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from taoprofiles.profiles.model import Profile
    from taoprofiles.profiles.project import ProjectFile
    from taoprofiles.storage.paths import Context

ALLOWED = {
    *("schema", "description", "layout", "project_dir", "notebook_dir", "network"),
    *("image", "images", "gpus", "variables", "mounts", "container.env"),
    *("docker.user", "docker.shm_size", "docker.ulimits", "docker.ports", "docker.network", "docker.tty"),
}
"""Keys of a project's profile. A new key of the format is not allowed until it is added here."""

_ALLOWED_VARIABLE = re.compile(
    r"(LOCAL|HOST|USER)_[A-Z0-9_]+|(DATA|SPECS|RESULTS|MODEL|EXPERIMENT|NOTEBOOK|DATA_DOWNLOAD)_DIR|NUM_GPUS"
)
"""``env``, ``run`` and ``shell`` set variables on the host, where PATH, LD_PRELOAD or GIT_DIR would run something."""


def to_profile(context: Context, file: ProjectFile, *, folders: Sequence[str], name: str) -> Profile:
    """Return the profile to store for a project file; its mounts may be in its folder and in ``folders``.

    Raises InvalidProfileError with everything that a project's profile may not have.
    """
    try:
        profile = model.parse(file.text, name=name, path=file.path)
    except InvalidProfileError as error:
        error.message, error.hint = f"the project file {context.short(file.path)} is not valid", ""
        raise
    problems = list(_refusals(context, profile, name))
    if problems:
        raise InvalidProfileError(
            f"the project file {context.short(file.path)} cannot be trusted",
            problems=problems,
            hint=f'such values belong into a profile of your own, with: extends = "{name}"',
        )
    source = {
        "file": file.path,
        "sha256": file.sha256,
        "folders": [escape_dollars(folder) for folder in (file.folder, *real_paths(folders))],
        "environment": environment(profile, name),
    }
    data = _with_paths(profile, lambda path: _absolute(context, path, file.folder))
    return model.from_data({**data, "project": source}, name=name)


def environment(profile: Profile, name: str) -> list[str]:
    """Return the variables of the environment to which a profile refers, sorted."""
    texts = expressions(model.template(profile, name=name))
    return sorted({variable for text in texts for kind, variable in references(text) if kind == "env"})


def to_text(context: Context, profile: Profile, folder: str) -> tuple[str, list[str]]:
    """Return a profile as the text of a project file in ``folder``, and the keys left out that it may not have."""
    data = _with_paths(profile, lambda path: _relative(context, path, folder))
    data.pop("project", None)
    omitted = _not_allowed(data)
    for key in omitted:
        table, _, name = key.partition(".")
        if name:
            del data[table][name]
        else:
            del data[key]
    secret, secret_env = _renderer(context, profile, FILE).secrets()
    for where, values, secrets in (
        ("", data.get("variables", {}), secret),
        ("container.env.", data.get("container", {}).get("env", {}), secret_env),
    ):
        for name in list(values):
            if name in secrets or not (where or _ALLOWED_VARIABLE.fullmatch(name)):
                omitted.append(where + name)
                del values[name]
    text = model.to_toml(model.from_data({"schema": 1, **data}, name=FILE))
    return text, omitted


def _refusals(context: Context, profile: Profile, name: str) -> list[str]:
    data = profile.model_dump(by_alias=True, exclude_defaults=True)
    problems = [f"{key}: not allowed in a project file" for key in _not_allowed(data)]
    problems += [
        f"variables.{variable}: not allowed in a project file: the name must begin with LOCAL_, HOST_ or USER_, or be "
        "one of NVIDIA's notebooks; others act on your own programs"
        for variable in profile.variables
        if not _ALLOWED_VARIABLE.fullmatch(variable)
    ]
    for variable in environment(profile, name):
        if is_secret(variable, context.environ.get(variable, "")):
            problems.append(f"${{env:{variable}}}: a secret of yours")
    # It would be masked where it is shown to be trusted, and pass through the environment of docker and sbatch.
    secret, secret_env = _renderer(context, profile, name).secrets()
    keys = [key for key in profile.variables if key in secret]
    keys += [f"container.env.{key}" for key in profile.container.env if key in secret_env]
    return problems + [f"{key}: not allowed in a project file: it is a secret, or refers to one" for key in keys]


def _not_allowed(data: dict[str, Any]) -> list[str]:
    """Return the keys of a profile's data that a project file may not have, those of its tables as ``docker.user``."""
    tables = ("container", "docker")
    keys = [f"{key}.{name}" for key in tables for name in data.get(key, {})]
    return [key for key in (*data, *keys) if key not in ALLOWED and key not in tables]


def _renderer(context: Context, profile: Profile, name: str) -> Renderer:
    return Renderer(model.template(profile, name=name), context, name=name, path=FILE)


def _with_paths(profile: Profile, convert: Callable[[str], str]) -> dict[str, Any]:
    """Return a profile's data with each of its paths on the host converted."""
    data = profile.model_dump(by_alias=True, exclude_defaults=True)
    for key in ("project_dir", "notebook_dir"):
        if key in data:
            data[key] = convert(data[key])
    for mount in data.get("mounts", ()):
        mount["source"] = convert(mount["source"])
    for name, value in data.get("variables", {}).items():
        if layouts.is_host_variable(name):
            data["variables"][name] = convert(value)
    return {"schema": 1, **data}


def _absolute(context: Context, path: str, folder: str) -> str:
    if path.startswith(("/", "~", "$")):
        return path
    return escape_dollars(context.short(os.path.normpath(os.path.join(folder, path.replace("$$", "$")))))


def _relative(context: Context, path: str, folder: str) -> str:
    if "${" in path:
        return path
    whole = os.path.normpath(context.expand_user(path.replace("$$", "$")))
    if is_inside(whole, folder):
        return escape_dollars(os.path.relpath(whole, folder))
    return path


def write(context: Context, profile: Profile, folder: str, *, name: str) -> tuple[str, list[str]]:
    """Write the project file of a folder from a profile of the user, which becomes its trusted copy.

    Return the file's path and what was left out. Raises UsageError if there is a file already.
    """
    path = os.path.join(folder, FILE)
    if files.exists(path):
        raise UsageError(f"'{path}' already exists", hint=f"to use it: taoprof trust {folder}")
    text, omitted = to_text(context, profile, folder)
    atomic.replace(path, text.encode(), attributes=atomic.FileAttributes(0o644, context.uid, context.gid))
    try:
        mounts = Renderer(model.template(profile, name=name), context, name=name, path=path).mapping()["Mounts"]
        outside = [mount["source"] for mount in mounts if not is_inside(mount["source"], folder)]
        copy = to_profile(context, read(path), folders=outside, name=name)
        manage.write(context, "trust", name, model.to_toml(copy).encode(), replace=True)
    except BaseException:  # the profile stays as it was
        files.unlink_quietly(path)
        raise
    return path, omitted
