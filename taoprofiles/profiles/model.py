"""The form of a profile: its keys, what each may hold, and the way from TOML to a template and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import Discriminator, Field, Tag, model_validator

from taoprofiles.profiles import layouts, toml_model
from taoprofiles.profiles.expressions import Expander, ExpressionError
from taoprofiles.profiles.rendering import not_valid
from taoprofiles.profiles.toml_model import Form, FormError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taoprofiles.profiles.rendering import Template

Text = Annotated[str, Field(max_length=4096)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}$")]
Whole = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
"""What Docker's engine takes for a number."""
Port = Annotated[int, Field(ge=0, le=65535)]


# The unions have tags, so that a wrong value is told of once, and not once for each form that it might have had.
Size = Annotated[
    Annotated[str, Field(pattern=r"^ *[0-9]+(\.[0-9]+)? *([bkmgBKMG][bB]?)?$", max_length=32), Tag("<text>")]
    | Annotated[int, Field(ge=0, le=(1 << 63) - 1), Tag("<number>")],
    Discriminator(lambda value: "<number>" if type(value) is int else "<text>"),
]
"""What the launcher's Docker SDK reads as a size: ``parse_bytes`` of docker 4.3.1, which knows no unit beyond g."""
Ports = Annotated[
    Annotated[Port, Tag("<number>")] | Annotated[list[Port], Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, list) else "<number>"),
]


Folder = Annotated[str, Field(pattern=r"^/*[^/]", max_length=4096)]
"""A folder that has a name: an empty one, or ``/``, would mount the whole machine."""


class Mount(Form):
    """A folder of the host and where the container sees it."""

    source: Text = Field(description="Folder or file on the host: absolute, or starting with ~ or a ${VARIABLE}.")
    destination: Text = Field(description="Absolute path inside the container.")


class Container(Form):
    """What the container gets beside its mounts."""

    env: dict[VariableName, Text] = Field(default={}, description="Environment variables: the mapping's Envs.")


class Docker(Form):
    """The mapping's DockerOptions, all that the launcher takes (VALID_DOCKER_ARGS of nvidia-tao 6.26.3)."""

    user: Text | None = Field(default=None, description='User in the container: "auto" is the caller\'s uid:gid.')
    shm_size: Size | None = Field(default=None, description='Shared memory, such as "16G"; Docker has 64 MB.')
    ulimits: dict[Text, Whole] | None = Field(default=None, description="Limits, soft and hard alike; -1 is unlimited.")
    ports: dict[Text, Ports] | None = Field(
        default=None, description="Container port to host port; Docker publishes it on the machine."
    )
    network: Text | None = Field(default=None, description='Docker network, such as "host".')
    privileged: bool | None = Field(default=None, description="All rights on the host's devices.")
    tty: bool | None = Field(default=None, description="A terminal for the task; launcher 5.0.0 and later.")


class Profile(Form):
    """One project's set-up, as it stands in a profile file."""

    # No Literal, for which true is 1 as well.
    schema_: int = Field(default=1, ge=1, le=1, alias="schema", description="The version of this form.")
    description: Text = Field(default="", description="A line for people.")
    layout: Literal["local", "host", "custom"] = Field(
        description="What the variables and mounts follow from: local (TensorFlow networks), host (PyTorch networks), "
        "custom (only what the profile says)."
    )
    project_dir: Folder | None = Field(default=None, description="The project's folder. Needed by local and host.")
    notebook_dir: Folder | None = Field(
        default=None, description="The folder of the notebook and of its specs/. Default: project_dir."
    )
    network: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)] | None = Field(
        default=None, description="The network's name, used in paths. Default: the profile's name."
    )
    variables: dict[VariableName, Text] = Field(default={}, description="Override or add to what the layout derives.")
    mounts: list[Mount] | None = Field(default=None, description="Replace the layout's mounts.")
    container: Container = Field(default=Container())
    docker: Docker = Field(default=Docker())

    @model_validator(mode="after")
    def _project_dir_is_there(self) -> Profile:
        if self.layout != "custom" and self.project_dir is None:
            raise ValueError(f"project_dir: missing; layout '{self.layout}' derives everything from it")
        return self


_TABLES: dict[str, type[Form]] = {"mounts": Mount, "container": Container, "docker": Docker}
_PLACES = {
    "schema": "must be 1",
    "docker.shm_size": 'must be a number with b, k, m or g, such as "16G", or a whole number of bytes',
}


def parse(content: bytes, *, name: str, path: str) -> Profile:
    """Read a profile file. Raises InvalidProfileError with every problem in it; values are not repeated in those."""
    try:
        profile = toml_model.parse(Profile, content, tables=_TABLES, places=_PLACES)
    except FormError as error:
        raise not_valid(name, path, error.problems) from None
    problems = list(_unresolvable(template(profile, name=name)))
    if problems:
        raise not_valid(name, path, problems)
    return profile


def to_toml(profile: Profile) -> str:
    """Write a profile, so that ``parse`` gives back the same."""
    return tomli_w.dumps({"schema": 1, **profile.model_dump(by_alias=True, exclude_defaults=True)})


def template(profile: Profile, *, name: str) -> Template:
    """Apply the layout. ``name`` is the profile's, for the network that it does not name."""
    project = _folder(profile.project_dir)
    variables = layouts.variables(
        profile.layout,
        project_dir=project,
        notebook_dir=_folder(profile.notebook_dir) or project,
        network=profile.network or name,
    )
    given = profile.mounts
    return {
        "description": profile.description,
        "layout": profile.layout,
        "project_dir": profile.project_dir,
        "variables": variables | profile.variables,
        "mounts": layouts.mounts(profile.layout) if given is None else [(m.source, m.destination) for m in given],
        "env": profile.container.env,
        "docker": profile.docker.model_dump(exclude_none=True),
    }


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of a profile file."""
    schema = Profile.model_json_schema()
    _close(schema)
    by_layout = {
        "if": {"properties": {"layout": {"const": "custom"}}, "required": ["layout"]},
        "else": {"properties": {"project_dir": {"type": "string"}}, "required": ["project_dir"]},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, **by_layout}


def _close(schema: object) -> None:
    """Refuse names that a pattern does not take; pydantic only says what holds for those that it takes."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for part in schema.values():
            _close(part)
    elif isinstance(schema, list):
        for part in schema:
            _close(part)


def _folder(path: str | None) -> str:
    return "" if path is None else path.rstrip("/") or "/"


class _AnyEnvironment(dict[str, str]):
    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return "/"


def _unresolvable(made: Template) -> Iterator[str]:
    """Find what no environment can mend: unknown names, circles, malformed references."""
    expander = Expander(made["variables"], _AnyEnvironment(), "/")

    def text(expression: str) -> Callable[[], str]:
        return lambda: expander.text(expression, path=False)

    checks: dict[str, Callable[[], str]] = {}
    for name in made["variables"]:
        checks[f"variables.{name}"] = lambda name=name: expander.variable(name)  # type: ignore[misc]
    for number, (source, destination) in enumerate(made["mounts"]):
        checks[f"mounts[{number}].source"] = text(source)
        checks[f"mounts[{number}].destination"] = text(destination)
    for name, expression in made["env"].items():
        checks[f"container.env.{name}"] = text(expression)
    checks["docker.user"] = text(made["docker"].get("user", ""))
    for where, check in checks.items():
        try:
            check()
        except ExpressionError as error:
            yield f"{where}: {error}"
