"""The form of a profile: its keys, what each may hold, and the way from TOML to a template and back."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from taoprofiles.values import layouts
from taoprofiles.values.expand import Expander, ExpressionError
from taoprofiles.values.template import LIMIT, not_valid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from taoprofiles.values.template import Template

DEPTH_LIMIT = 32
"""Parts of a dotted key. The form has three; tomllib keeps each beginning of a key, which grows with its square."""

_TOKEN = re.compile(
    r'''#[^\n]*+|"""(?:[^"\\]++|\\.?|"(?!""))*+(?:"{3,5}|\Z)|"(?:[^"\\\n]++|\\.?)*+"?'''
    r"""|'''(?:[^']++|'(?!''))*+(?:'{3,5}|\Z)|'[^'\n]*+'?|[^\w \t-]""",
    re.DOTALL,
)
"""What is not part of a bare key: comments, texts, and each other character. It never goes back, so time is linear."""

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


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Mount(_Form):
    """A folder of the host and where the container sees it."""

    source: Text = Field(description="Folder or file on the host: absolute, or starting with ~ or a ${VARIABLE}.")
    destination: Text = Field(description="Absolute path inside the container.")


class Container(_Form):
    """What the container gets beside its mounts."""

    env: dict[VariableName, Text] = Field(default={}, description="Environment variables: the mapping's Envs.")


class Docker(_Form):
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


class Profile(_Form):
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


def parse(content: bytes, *, name: str, path: str) -> Profile:
    """Read a profile file. Raises InvalidProfileError with every problem in it; values are not repeated in those."""
    if len(content) > LIMIT:
        raise not_valid(name, path, [f"the file has {len(content)} bytes; a profile has at most {LIMIT}"])
    try:
        text = content.decode("utf-8")
        if _too_deep(text):
            raise RecursionError
        profile = Profile.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise not_valid(name, path, list(_problems(error))) from None
    except UnicodeDecodeError as error:
        raise not_valid(name, path, [f"not UTF-8 text, at byte {error.start}"]) from None
    except RecursionError:
        raise not_valid(name, path, ["nested too deeply"]) from None
    except tomllib.TOMLDecodeError as error:
        raise not_valid(name, path, [str(error)]) from None
    except ValueError:  # Python reads at most 4300 digits
        raise not_valid(name, path, ["it has a number of too many digits"]) from None
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


def _too_deep(text: str) -> bool:
    """Whether a dotted key or table header has more than DEPTH_LIMIT parts; the parser must not see it then."""
    dots = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first == ".":
            dots += 1
            if dots >= DEPTH_LIMIT:
                return True
        elif first not in "\"'":  # a quoted part
            dots = 0
    return False


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


def _problems(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        where = ""
        for step in fault["loc"]:
            if step in ("<text>", "<number>", "<list>", "[key]"):
                continue  # which form of a value was meant is of no use to the reader
            key = str(step) if len(str(step)) <= 80 else f"{str(step)[:80]}…"
            where += f"[{step}]" if isinstance(step, int) else f".{key}" if where else key
        yield f"{where}: {_explain(fault, where)}" if where else str(fault["msg"]).removeprefix("Value error, ")


def _explain(fault: Mapping[str, Any], where: str) -> str:
    kind = fault["type"]
    if kind == "extra_forbidden":
        known = _keys_beside(where)
        close = difflib.get_close_matches(where.rpartition(".")[2], known, n=1)
        return f"unknown key; did you mean '{close[0]}'?" if close else f"unknown key; known are {', '.join(known)}"
    places = {
        "schema": "must be 1",
        "docker.shm_size": 'must be a number with b, k, m or g, such as "16G", or a whole number of bytes',
    }
    bounds = fault.get("ctx", {})
    told = {
        "missing": "missing",
        "string_type": "must be text; put it in quotes",
        "int_type": "must be a whole number, without quotes",
        "bool_type": "must be true or false, without quotes",
        "dict_type": "must be a table",
        "model_type": "must be a table",
        "list_type": "must be a list",
        "literal_error": f"must be {bounds.get('expected')}",
        "less_than_equal": f"must be at most {bounds.get('le')}",
        "greater_than_equal": f"must be at least {bounds.get('ge')}",
        "string_pattern_mismatch": "may hold only letters, digits and '_' (in a network also '.' and '-'), at most 256 "
        "of them, and not start with a sign",
    }
    if kind == "string_pattern_mismatch" and where.endswith("_dir"):
        return "must name a folder, and not '/'"
    return places.get(where) or told.get(kind) or str(fault["msg"])[:1].lower() + str(fault["msg"])[1:]


def _keys_beside(where: str) -> list[str]:
    models: dict[str, type[BaseModel]] = {"mounts": Mount, "container": Container, "docker": Docker}
    table = where.partition(".")[0].partition("[")[0] if "." in where else ""
    model = models.get(table, Profile)
    return [field.alias or name for name, field in model.model_fields.items()]
