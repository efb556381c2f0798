"""From other forms to the form of a profile: a mapping, a path of this machine, a profile that may leave it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import InvalidProfileError, InvalidStateError, UsageError
from taoprofiles.masking import is_secret
from taoprofiles.profiles.expressions import escape
from taoprofiles.profiles.model import Profile, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from taoprofiles.storage.paths import Context

    Expression: TypeAlias = Callable[[str, bool], str]

_REFERENCE = re.compile(r"\$\{[^{}]*\}")
_SECTIONS = ("Mounts", "Envs", "DockerOptions")


def from_data(data: dict[str, Any], *, name: str) -> Profile:
    """Check data of the profile form. Raises InvalidProfileError, UsageError."""
    import tomli_w

    return parse(as_bytes(tomli_w.dumps(data)), name=name, path="not yet written")


def as_bytes(text: str) -> bytes:
    """Encode a profile's text. Raises UsageError where an argument or a name that went into it is no text."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UsageError("what was given is not valid UTF-8, and a profile is a text file") from None


def from_mapping(
    context: Context,
    found: dict[str, Any],
    *,
    name: str,
    where: str,
    express: Expression | None = None,
    variables: dict[str, str] | None = None,
) -> Profile:
    """Turn a mapping into a custom profile that renders it. Raises InvalidStateError with all that has no place.

    ``express`` writes a text as an expression, as a literal by default; ``path`` tells it that a leading ``~`` counts.
    ``variables`` are those that it may refer to.
    """
    express = express or (lambda text, path: escape(context.short(text) if path else text))
    problems = [f"{key}: not a key that the launcher takes" for key in found if key not in _SECTIONS]
    if "Mounts" not in found:
        problems.append("Mounts: missing; the launcher needs it")
    mounts, env = found.get("Mounts", []), found.get("Envs", [])
    given: dict[str, Any] = {"schema": 1, "layout": "custom", "mounts": [], "docker": found.get("DockerOptions", {})}
    if variables:
        given["variables"] = variables
    for number, item in enumerate(mounts if isinstance(mounts, list) else [mounts]):
        if not (isinstance(item, dict) and isinstance(item.get("source"), str)):
            problems.append(f"Mounts[{number}]: needs a source and a destination")
            continue
        source, destination = item["source"], item.get("destination")
        if not isinstance(destination, str):
            problems.append(f"Mounts[{number}]: needs a source and a destination")
            continue
        if not source.startswith(("/", "~/")) and source != "~":
            problems.append(f"Mounts[{number}].source: '{source}' depends on the folder that tao is started in")
        given["mounts"].append({"source": express(source, True), "destination": express(destination, False)})
    envs = _envs(env if isinstance(env, list) else [env], express, problems)
    if envs:
        given["container"] = {"env": envs}
    if isinstance(given["docker"], dict) and isinstance(given["docker"].get("user"), str):
        given["docker"] = given["docker"] | {"user": express(given["docker"]["user"], False)}
    if not problems:
        try:
            return from_data(given, name=name)
        except InvalidProfileError as error:
            problems = error.problems
        except (UsageError, TypeError):  # which UTF-8 or TOML cannot hold
            problems = ["holds a null, or a text that is not valid Unicode"]
    raise InvalidStateError(
        f"'{where}' cannot become a profile",
        problems=problems,
        hint="correct the file, or start from the project folder: 'taoprof new'",
    )


def _envs(listed: list[Any], express: Expression, problems: list[str]) -> dict[str, str]:
    envs: dict[str, str] = {}
    for number, item in enumerate(listed):
        if not (isinstance(item, dict) and isinstance(item.get("variable"), str) and item.get("value") is not None):
            problems.append(f"Envs[{number}]: needs a variable and a value")
            continue
        value = item["value"]  # the launcher makes text of it in the same way
        envs[item["variable"]] = express(value if isinstance(value, str) else str(value), False)
    return envs


def ignored(found: dict[str, Any]) -> list[str]:
    """Tell which keys of a mapping are left out of the profile, since the launcher does not look at them."""
    keys = {
        f"{section}[{number}].{key}"
        for section, known in (("Mounts", {"source", "destination"}), ("Envs", {"variable", "value"}))
        for number, item in enumerate(found.get(section) or [])
        for key in item.keys() - known
    }
    return [f"{key} is left out: the launcher does not look at it" for key in sorted(keys)]


def without_secrets(profile: Profile) -> tuple[Profile, list[str]]:
    """Give the profile with its literal secrets replaced by references to the environment, and their names."""
    data = profile.model_dump(by_alias=True, exclude_defaults=True)
    hidden: list[str] = []
    for values in (data.get("variables", {}), data.get("container", {}).get("env", {})):
        for name, value in values.items():
            if is_secret(name) and _REFERENCE.sub("", value):
                values[name] = f"${{env:{name}}}"
                hidden.append(name)
    return Profile.model_validate({"schema": 1, **data}), hidden


def as_expression(context: Context, path: str) -> str:
    """Write a path as a profile holds it: absolute, ``~`` for the home."""
    if not path.strip("/"):
        raise UsageError(f"'{path}' is no folder for a project", hint="such as --project-dir ~/tao/kitti")
    absolute = os.path.normpath(os.path.join(context.folder, os.path.expanduser(path)))
    return escape(context.short(absolute))
