"""Conversion to the profile format: from a mapping, paths and a project file; a copy without secrets.

The trusted copy of a project file cannot leave the project's folder and the folders that were allowed: the renderer
checks that at every use, since links may change.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import InvalidProfileError, InvalidStateError, UsageError
from taoprofiles.launcher.behaviour import ENTRY_KEYS, SECTIONS
from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.masking import is_copied, is_secret
from taoprofiles.mounts.mapping import parse as parse_mapping
from taoprofiles.profiles import layouts, rendering
from taoprofiles.profiles.model import OWNER_KEYS, Profile, from_data, parse, template, to_toml
from taoprofiles.profiles.store import PROJECT_FILE, ProjectFile
from taoprofiles.storage.files import folder_exists
from taoprofiles.storage.paths import is_inside
from taoprofiles.system.filesystem import answers, no_answer, real_paths, try_real_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from taoprofiles.storage.paths import Context

    Expression: TypeAlias = Callable[[str, bool], str]

_REFERENCE = re.compile(r"\$\{[^{}]*\}")


def from_mapping(
    context: Context,
    mapping: Mapping[str, Any],
    *,
    name: str,
    where: str,
    express: Expression | None = None,
    variables: dict[str, str] | None = None,
) -> Profile:
    """Return a custom profile that renders ``mapping``, which comes from the file ``where``.

    ``express(text, is_path)`` writes a text as an expression, by default as a literal; a leading ``~`` counts in a
    path. ``variables`` are those that the expressions refer to. Raises InvalidStateError with every part of the mapping
    that a profile cannot express.
    """
    express = express or (lambda text, is_path: rendering.escape_dollars(context.short(text) if is_path else text))
    problems = [f"{key}: not a key that the launcher takes" for key in mapping if key not in SECTIONS]
    if "Mounts" not in mapping:
        problems.append("Mounts: missing; the launcher needs it")
    data: dict[str, Any] = {"schema": 1, "layout": "custom"}
    if variables:
        data["variables"] = variables
    data["mounts"] = _mounts(mapping, express, problems)
    if env := _env(mapping, express, problems):
        data["container"] = {"env": env}
    data["docker"] = _docker(mapping, express, problems)
    if not problems:
        try:
            return from_data(data, name=name)
        except InvalidProfileError as error:
            problems = error.problems
        except UsageError:
            problems = ["it contains a text that is not valid Unicode"]
    raise InvalidStateError(
        f"'{where}' cannot become a profile",
        problems=problems,
        hint="correct the file, or start from the project folder: 'taoprof new'",
    )


def from_mounts_file(context: Context, content: bytes, *, name: str, where: str) -> tuple[Profile, list[str]]:
    """Return a custom profile for the content of the mounts file ``where``, and messages about what it leaves out.

    Raises InvalidStateError for what is not a mapping, and with every part that a profile cannot express.
    """
    parsed = parse_mapping(content, where)
    keys = {
        f"{section}[{number}].{key}"
        for section, known in ENTRY_KEYS.items()
        if isinstance(parsed.get(section), list)
        for number, item in enumerate(parsed[section])
        if isinstance(item, dict)
        for key in item.keys() - known
    }
    messages = [f"{key} is left out: the launcher does not read it" for key in sorted(keys)]
    if isinstance(parsed.get("Mounts"), list):
        parsed["Mounts"], more = last_mounts(context, parsed["Mounts"])
        messages += more
    return from_mapping(context, parsed, name=name, where=where), messages


def _mounts(mapping: Mapping[str, Any], express: Expression, problems: list[str]) -> list[dict[str, str]]:
    mounts = []
    for number, (source, destination) in _items(mapping, "Mounts"):
        if not (isinstance(source, str) and isinstance(destination, str)):
            problems.append(f"Mounts[{number}]: needs a source and a destination")
            continue
        if rendering.is_windows_path(source):
            problems.append(f"Mounts[{number}].source: '{source}' is a Windows path")
        elif not source.startswith(("/", "~/")) and source != "~":
            problems.append(f"Mounts[{number}].source: '{source}' depends on the folder in which tao is started")
        mounts.append({"source": express(source, True), "destination": express(destination, False)})
    return mounts


def _env(mapping: Mapping[str, Any], express: Expression, problems: list[str]) -> dict[str, str]:
    env = {}
    for number, (variable, value) in _items(mapping, "Envs"):
        if not isinstance(variable, str) or value is None:
            problems.append(f"Envs[{number}]: needs a variable and a value")
            continue
        # The launcher converts the value in the same way; a string may know its origin, and str() would lose that.
        env[variable] = express(value if isinstance(value, str) else str(value), False)
    return env


def _docker(mapping: Mapping[str, Any], express: Expression, problems: list[str]) -> Any:
    options = mapping.get("DockerOptions", {})
    if not isinstance(options, dict):
        return options  # refused when the profile is validated
    problems += [f"DockerOptions.{key}: is null" for key, value in options.items() if value is None]
    return options | {"user": express(options["user"], False)} if isinstance(options.get("user"), str) else options


def _items(mapping: Mapping[str, Any], section: str) -> Iterator[tuple[int, tuple[Any, Any]]]:
    """Yield the two values of each item of Mounts or Envs with its number; None for a value that is missing."""
    items = mapping.get(section, [])
    first, second = ENTRY_KEYS[section]
    for number, item in enumerate(items if isinstance(items, list) else [items]):
        yield number, (item.get(first), item.get(second)) if isinstance(item, dict) else (None, None)


def last_mounts(context: Context, mounts: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Return the mounts that the launcher makes, which are one for each source, and messages about the others."""
    by_source: dict[str, Any] = {}
    messages = []
    sources = [mount.get("source") if isinstance(mount, dict) else None for mount in mounts]
    texts = [context.expand_user(source) for source in sources if isinstance(source, str)]
    try:
        resolved = real_paths(texts)  # at once: each question has a thread of its own
    except ValueError:  # one of them cannot be a path
        resolved = map(try_real_path, texts)
    for number, (source, mount) in enumerate(zip(sources, mounts, strict=True)):
        real = next(resolved) if isinstance(source, str) else f"<{number}>"
        before = by_source.pop(real, mount)
        if before != mount:
            messages.append(
                f"'{source}' is mounted on '{before.get('destination')}' and on '{mount.get('destination')}', and "
                "the launcher uses only the last mount of a folder"
            )
        by_source[real] = mount
    return list(by_source.values()), messages


def to_share(profile: Profile) -> tuple[Profile, list[str], list[str]]:
    """Return the profile with references to the environment instead of literal secrets, and without OWNER_KEYS.

    Also the names of these secrets, and the keys that were left out: notifications and hooks, which are the owner's.
    """
    data = profile.model_dump(by_alias=True, exclude_defaults=True)
    hidden: list[str] = []
    tables = (data.get("variables", {}), data.get("container", {}).get("env", {}))
    copies = {value for values in tables for name, value in values.items() if is_copied(name, value)}
    for values in tables:
        for name, value in values.items():
            text = _REFERENCE.sub("", value)
            if text and (value in copies or is_secret(name, text)):
                values[name] = f"${{env:{name}}}"
                hidden.append(name)
    left_out = [key for key in OWNER_KEYS if data.pop(key, None)]
    return Profile.model_validate({"schema": 1, **data}), hidden, left_out


def path_expression(context: Context, path: str) -> str:
    """Return a folder as a profile stores it: absolute, with ``~`` for the home.

    ``path`` is what ``resolve_path`` takes. Raises UsageError for ``/``, and for what cannot be a folder.
    """
    if not path.strip("/"):
        raise UsageError(f"'{path}' cannot be a project folder", hint="such as ~/tao/kitti")
    absolute, problem = resolve_path(context, path)
    existing = "" if problem else existing_part(absolute)
    if problem or not folder_exists(existing):
        raise UsageError(problem or f"'{existing}' is not a folder", hint="such as ~/tao/kitti")
    return rendering.escape_dollars(context.short(absolute))


def resolve_path(context: Context, text: str) -> tuple[str, str]:
    """Return the absolute path that a person means by ``text``, and why it cannot be one, "" if it can.

    ``~``, variables, quotes and backslashes are read as a shell does, unless there is something of that very name.
    """
    plain = without_quotes(text)
    path = meant = ""
    for spelling in (text, plain, re.sub(r"\\(.)", r"\1", plain)):
        for meant in (spelling, expand_variables(spelling, context.environ)):
            path = os.path.normpath(context.absolute(meant))
            exists = answers(os.path.exists, [path]).get(path)
            if exists is None:
                return path, no_answer(path)
            if exists or os.path.lexists(path):
                return path, "" if path != "/" else "'/' is the whole file system, not a folder of a project"
    if placeholder := rendering.find_placeholder(meant):
        return path, f"'{placeholder}' is a placeholder"
    if "$" in meant:
        return path, f"'{meant}' refers to a variable that is not set"
    user = context.expand_user(meant).partition("/")[0]
    return path, f"there is no user '{user[1:]}' ('{meant}')" if user.startswith("~") else ""


def without_quotes(text: str) -> str:
    """Return ``text`` without the quotes around it, if there are any."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def existing_part(path: str) -> str:
    """Return the longest part of an absolute path that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


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


def from_project_file(context: Context, file: ProjectFile, *, folders: Sequence[str], name: str) -> Profile:
    """Return the profile to store for a project file; its mounts may be in its folder and in ``folders``.

    Raises InvalidProfileError with everything that a project's profile may not have.
    """
    try:
        profile = parse(file.text, name=name, path=file.path)
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
        "folders": [rendering.escape_dollars(folder) for folder in (file.folder, *real_paths(folders))],
        "environment": rendering.environment_names(template(profile, name=name)),
    }
    data = _with_paths(profile, lambda path: _absolute(context, path, file.folder))
    return from_data({**data, "project": source}, name=name)


def to_project_file(context: Context, profile: Profile, folder: str) -> tuple[str, list[str]]:
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
    secret, secret_env = project_renderer(context, profile, PROJECT_FILE).secrets()
    for where, values, secrets in (
        ("", data.get("variables", {}), secret),
        ("container.env.", data.get("container", {}).get("env", {}), secret_env),
    ):
        for name in list(values):
            if name in secrets or not (where or _ALLOWED_VARIABLE.fullmatch(name)):
                omitted.append(where + name)
                del values[name]
    text = to_toml(from_data({"schema": 1, **data}, name=PROJECT_FILE))
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
    for variable in rendering.environment_names(template(profile, name=name)):
        if is_secret(variable, context.environ.get(variable, "")):
            problems.append(f"${{env:{variable}}}: a secret of yours")
    # It would be masked where it is shown to be trusted, and pass through the environment of docker and sbatch.
    secret, secret_env = project_renderer(context, profile, name).secrets()
    keys = [key for key in profile.variables if key in secret]
    keys += [f"container.env.{key}" for key in profile.container.env if key in secret_env]
    return problems + [f"{key}: not allowed in a project file: it is a secret, or refers to one" for key in keys]


def _not_allowed(data: dict[str, Any]) -> list[str]:
    """Return the keys of a profile's data that a project file may not have, those of its tables as ``docker.user``."""
    tables = ("container", "docker")
    keys = [f"{key}.{name}" for key in tables for name in data.get(key, {})]
    return [key for key in (*data, *keys) if key not in ALLOWED and key not in tables]


def project_renderer(context: Context, profile: Profile, name: str, path: str = PROJECT_FILE) -> rendering.Renderer:
    """Return the renderer of the profile in a project file."""
    return rendering.Renderer(template(profile, name=name), context, name=name, path=path)


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
    return rendering.escape_dollars(context.short(os.path.normpath(os.path.join(folder, path.replace("$$", "$")))))


def _relative(context: Context, path: str, folder: str) -> str:
    if "${" in path:
        return path
    whole = os.path.normpath(context.expand_user(path.replace("$$", "$")))
    if is_inside(whole, folder):
        return rendering.escape_dollars(os.path.relpath(whole, folder))
    return path
