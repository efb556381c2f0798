"""The model of a profile file, its validation in words for the author, and its conversion to a template and to TOML."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from taoprofiles.errors import InvalidProfileError, UsageError
from taoprofiles.masking import shorten
from taoprofiles.profiles import layouts, rendering

if TYPE_CHECKING:
    from taoprofiles.profiles.rendering import Template
    from taoprofiles.profiles.store import Base

DOTS_LIMIT = 200
"""Dots on one line. tomllib stores each prefix of a dotted key, so the memory grows with the square of its parts."""

Text = Annotated[str, Field(max_length=4096)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}$")]
Whole = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
"""A number of Docker's engine: 64 bits."""
Port = Annotated[int, Field(ge=0, le=65535)]


# The unions have tags, so that a wrong value is one problem and not one for each type that it might have had.
Size = Annotated[
    Annotated[str, Field(pattern=r"^ *[0-9]+(\.[0-9]+)? *([bkmgBKMG][bB]?)?$", max_length=32), Tag("<text>")]
    | Annotated[int, Field(ge=0, le=(1 << 63) - 1), Tag("<number>")],
    Discriminator(lambda value: "<number>" if type(value) is int else "<text>"),
]
"""A size of the launcher's Docker SDK: ``parse_bytes`` of docker 4.3.1, which has no unit above g."""
Ports = Annotated[
    Annotated[Port, Tag("<number>")] | Annotated[list[Port], Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, list) else "<number>"),
]


Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][^\s#\"'\\]*$", max_length=256)]
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DNS_NAME = rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*$"
_CLAIM = rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*(/[^/].*)?$"
DnsLabel = Annotated[str, Field(pattern=rf"^{_DNS_LABEL}$")]
Gpus = Annotated[
    Annotated[str, Field(pattern=r"^(all|none|[0-9]+|[0-9A-Za-z-]+,([0-9A-Za-z-]+(,[0-9A-Za-z-]+)*)?)$"), Tag("<text>")]
    | Annotated[int, Field(ge=0, le=1024), Tag("<number>")],
    Discriminator(lambda value: "<number>" if type(value) is int else "<text>"),
]
"""What ``taoprof run --gpus`` takes; a number is a count."""
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9\[/.~][^\s\x00-\x1f\x7f]*$", max_length=4096)]
"""The name of an image, or a squashfs file for Slurm; what cannot be taken for an option or for two words."""
TaskName = Annotated[str, Field(pattern=r"^\S+( \S+)*$", max_length=256)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


Targets = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[Text], Field(max_length=20), Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, list) else "<text>"),
]
Folder = Annotated[str, Field(pattern=r"^/*[^/]", max_length=4096)]
"""A folder other than ``/`` and "", which would mount the whole machine."""


class StrictModel(BaseModel):
    """A table without unknown keys and without conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Mount(StrictModel):
    """A folder of the host and its path in the container."""

    source: Text = Field(description="Folder or file on the host: absolute, or starting with ~ or a ${VARIABLE}.")
    destination: Text = Field(description="Absolute path inside the container.")
    read_only: bool = Field(
        default=False, description="The container cannot write to it. Not with the launcher, which has no such option."
    )


class Container(StrictModel):
    """The environment of the container."""

    env: dict[VariableName, Text] = Field(default={}, description="Environment variables: the mapping's Envs.")


class Docker(StrictModel):
    """The mapping's DockerOptions: VALID_DOCKER_ARGS of nvidia-tao 6.26.3."""

    user: Text | None = Field(default=None, description='User in the container: "auto" is the caller\'s uid:gid.')
    shm_size: Size | None = Field(default=None, description='Shared memory, such as "16G"; Docker has 64 MB.')
    ulimits: dict[Text, Whole] | None = Field(default=None, description="Limits, soft and hard alike; -1 is unlimited.")
    ports: dict[Text, Ports] | None = Field(
        default=None, description="Container port to host port; Docker publishes it on the machine."
    )
    network: Text | None = Field(default=None, description='Docker network, such as "host".')
    privileged: bool | None = Field(default=None, description="All rights on the host's devices.")
    tty: bool | None = Field(default=None, description="A terminal for the task; launcher 5.0.0 and later.")


class Project(StrictModel):
    """The project file of which a profile is a trusted copy. 'taoprof trust' writes this table."""

    file: Text = Field(description="Path of the project file.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(description="Hash of its content when trusted.")
    folders: list[Text] = Field(description="Folders in which the mounts' sources must be, without links.")
    own: list[Text] = Field(default=[], description="Further ones, of a profile of the user that extends it.")
    environment: list[Text] = Field(default=[], description="Variables of the environment that the file refers to.")


class Slurm(StrictModel):
    """How a job is submitted to Slurm. The values are words of ``#SBATCH`` lines, so they have no blanks."""

    partition: Word | None = Field(default=None, description="The partition, as in 'sinfo'; default: the cluster's.")
    account: Word | None = Field(default=None, description="The account that is charged.")
    time: Word | None = Field(default=None, description='The time limit, such as "1-12:00:00".')
    options: list[Annotated[str, Field(pattern=r"^--?[A-Za-z][^\s#\"'\\]*$", max_length=4096)]] = Field(
        default=[], description='Further options of sbatch, such as "--mem=64G".'
    )


class Kubernetes(StrictModel):
    """How a job is submitted to Kubernetes."""

    context: Word | None = Field(default=None, description="The context of kubectl; default: the current one.")
    namespace: DnsLabel | None = Field(default=None, description="The namespace; default: the context's.")
    pull_secret: Annotated[str, Field(pattern=_DNS_NAME, max_length=253)] | None = Field(
        default=None, description="The Secret with the registry's login; default for nvcr.io: nvcr-io."
    )
    claims: dict[Text, Annotated[str, Field(pattern=_CLAIM, max_length=4096)]] = Field(
        default={},
        description="By destination of a mount: the PersistentVolumeClaim to use instead of the node's folder, with a "
        'folder in it: "NAME" or "NAME/FOLDER".',
    )


class Profile(StrictModel):
    """The content of a profile file: the set-up of one project."""

    # Not a Literal, which accepts true for 1.
    schema_: int = Field(default=1, ge=1, le=1, alias="schema", description="The version of this format.")
    description: Text = Field(default="", description="A line for people.")
    extends: Name | None = Field(
        default=None, description="The profile whose values count where this one has none; it extends no other itself."
    )
    layout: Literal["local", "host", "tao7", "custom"] = Field(
        description="What the variables and mounts follow from: local (TensorFlow networks), host (PyTorch networks), "
        "tao7 (TAO 7, which has no launcher), custom (only what the profile says)."
    )
    project_dir: Folder | None = Field(
        default=None, description="The project's folder. Needed by all layouts but custom."
    )
    notebook_dir: Folder | None = Field(
        default=None, description="The folder of the notebook and of its specs/. Default: project_dir."
    )
    network: Name | None = Field(
        default=None, description="The network's name, used in paths. Default: the profile's name."
    )
    image: Image | None = Field(
        default=None, description="Container image in which 'run' and 'render' start a task without the launcher."
    )
    gpus: Gpus | None = Field(
        default=None, description='GPUs of a run, as --gpus takes them: "all", 2 (any two), "0,1" or "none".'
    )
    images: dict[TaskName, Image] = Field(
        default={}, description='Images of single tasks, by the first words of the command: "dino gen_trt_engine".'
    )
    variables: dict[VariableName, Text] = Field(default={}, description="Override or add to what the layout derives.")
    mounts: list[Mount] | None = Field(default=None, description="Replace the layout's mounts.")
    container: Container = Field(default=Container())
    docker: Docker = Field(default=Docker())
    notify: Targets = Field(
        default=[], description='Who is told when a run ends: "desktop", a URL of Apprise, or a list of them.'
    )
    on_start: Text = Field(default="", description="Command line of /bin/sh, before the command of a run starts.")
    on_end: Text = Field(default="", description="Command line of /bin/sh, after a run has ended.")
    project: Project | None = Field(default=None, description="Written by 'taoprof trust': where the profile is from.")
    job_record: bool | None = Field(
        default=None,
        description="Keep the job records of NVIDIA's TAO skill bank; default: if it has a folder for them.",
    )
    slurm: Slurm = Field(default=Slurm(), description="For run --on slurm, and render.")
    kubernetes: Kubernetes = Field(default=Kubernetes(), description="For run --on kubernetes, and render.")

    @model_validator(mode="after")
    def _require_project_dir(self) -> Profile:
        if self.layout != "custom" and self.project_dir is None:
            raise ValueError(f"project_dir: missing; layout '{self.layout}' derives everything from it")
        return self


OWNER_KEYS = ("notify", "on_start", "on_end")
"""The keys by which a profile sends something elsewhere or runs a program: never taken from others without consent."""

TABLES: dict[str, type[StrictModel]] = {
    "mounts": Mount,
    "container": Container,
    "docker": Docker,
    "project": Project,
    "slurm": Slurm,
    "kubernetes": Kubernetes,
}


def parse(content: bytes, *, name: str, path: str, base: Base | None = None) -> Profile:
    """Parse a profile file; ``base`` is the profile that it extends, whose values it has where it sets none.

    Raises InvalidProfileError with every problem, without values: they may be secret.
    """
    data, problems = load(content)
    if not problems and data.get("extends") != (base.name if base else None):
        problems = ['extends: write it as extends = "NAME", on a line of its own before the first [table]']
    if base is not None and not problems:
        base_data, problems = _load_base(base, name)
        data = _with_own_folders(merged(base_data, data), data)
    if problems:
        raise rendering.invalid_profile_error(name, path, problems)
    return _validate(data, name, path)


def merged(base: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a profile that extends ``base``: tables are merged by key, anything else is replaced."""
    result = dict(base)
    for key, value in data.items():
        below = result.get(key)
        is_table = isinstance(below, dict) and isinstance(value, dict)
        result[key] = merged(below, value) if is_table else value  # type: ignore[arg-type]
    return result


def _with_own_folders(data: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``data`` of a profile that extends a project's: its mounts may be in ``own`` folders too."""
    project = data.get("project")
    if not isinstance(project, dict) or not isinstance(project.get("folders"), list):
        return data
    if "mounts" in own:
        return {key: value for key, value in data.items() if key != "project"}
    variables = own.get("variables")
    names = filter(layouts.is_host_variable, variables if isinstance(variables, dict) else ())
    values = (own.get("project_dir"), own.get("notebook_dir"), *(f"${{{name}}}" for name in names))
    folders = [value for value in values if isinstance(value, str)]
    return {**data, "project": {**project, "own": folders}}


def _load_base(base: Base, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return what a profile inherits from ``base``: all but its description; and the problems."""
    if base.name == name:
        return {}, ["extends: a profile cannot extend itself"]
    if base.text is None:
        return {}, [f"extends: there is no profile '{base.name}'"]
    data, problems = load(base.text)
    if not problems and "extends" in data:
        return {}, [f"extends: '{base.name}' extends another profile itself; only one level is possible"]
    try:
        if not problems:
            _validate(data, base.name, rendering.NOT_WRITTEN)
    except InvalidProfileError as error:
        problems = error.problems
    inherited = {"network": base.name} | {key: value for key, value in data.items() if key != "description"}
    return inherited, [f"extends: '{base.name}' is not valid: {problem}" for problem in problems]


def load(content: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return the data of a profile's file, and what is wrong with it; then the data is {}."""
    if len(content) > rendering.SIZE_LIMIT:
        return {}, [f"the file has {len(content)} bytes; at most {rendering.SIZE_LIMIT} are read"]
    try:
        text = content.decode("utf-8")
        if any(line.count(".") > DOTS_LIMIT for line in text.splitlines() if not line.startswith("#")):
            raise RecursionError
        return tomllib.loads(text), []
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text, at byte {error.start}"
    except RecursionError:
        problem = "nested too deeply"
    except tomllib.TOMLDecodeError as error:
        problem = str(error)
    except ValueError:  # Python reads at most 4300 digits
        problem = "it has a number of too many digits"
    return {}, [problem]


def from_data(data: Mapping[str, Any], *, name: str) -> Profile:
    """Validate the data of a profile. Raises InvalidProfileError, or UsageError if a text is not valid Unicode."""
    as_bytes(json.dumps(data, ensure_ascii=False))
    return _validate(data, name, rendering.NOT_WRITTEN)


def as_bytes(text: str) -> bytes:
    """Encode a profile's text. Raises UsageError if an argument or name in it is not valid Unicode."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UsageError("an argument is not valid UTF-8, and a profile is a text file") from None


def to_toml(profile: Profile) -> str:
    """Return a profile as TOML, from which ``parse`` returns an equal one."""
    return tomli_w.dumps({"schema": 1, **profile.model_dump(by_alias=True, exclude_defaults=True)})


def template(profile: Profile, *, name: str) -> Template:
    """Apply the layout to a profile; ``name`` is the profile's, the default of its network."""
    project = _without_slash(profile.project_dir)
    variables = layouts.variables(
        profile.layout,
        project_dir=project,
        notebook_dir=_without_slash(profile.notebook_dir) or project,
        network=profile.network or name,
    )
    mounts = profile.mounts
    return {
        "description": profile.description,
        "extends": profile.extends,
        "layout": profile.layout,
        "project_dir": profile.project_dir,
        "variables": variables | profile.variables,
        "mounts": layouts.mounts(profile.layout)
        if mounts is None
        else [(mount.source, mount.destination, mount.read_only) for mount in mounts],
        "env": layouts.env(profile.layout) | profile.container.env,
        "docker": layouts.docker(profile.layout) | profile.docker.model_dump(exclude_none=True),
        "gpus": None if profile.gpus is None else "none" if profile.gpus == 0 else str(profile.gpus),
        "project": None if profile.project is None else profile.project.model_dump(),
        "images": ({"": profile.image} if profile.image is not None else {}) | profile.images,
        "notify": [profile.notify] if isinstance(profile.notify, str) else profile.notify,
        "on_start": profile.on_start,
        "on_end": profile.on_end,
        "job_record": profile.job_record,
        "clusters": {
            "slurm": profile.slurm.model_dump(exclude_defaults=True),
            "kubernetes": profile.kubernetes.model_dump(exclude_defaults=True),
        },
    }


def origins(template: Template, texts: Sequence[tuple[str, bytes]]) -> dict[str, str | None]:
    """Return for each key of a template the profile that sets it; None is the layout.

    ``texts`` are the names and texts of the profile and of the one that it extends, if any.
    """
    loaded = [(name, load(text)[0]) for name, text in texts]
    paths: list[tuple[str, ...]] = [(key,) for key in ("layout", "project_dir", "mounts") if template[key]]
    paths += [("variables", name) for name in template["variables"]]
    paths += [("container", "env", name) for name in template["env"]]
    paths += [("docker", name) for name in template["docker"]]
    paths += [(table, key) for table, keys in template["clusters"].items() for key in keys]
    paths += [("gpus",)] if template["gpus"] is not None else []
    paths += [(key,) for key in OWNER_KEYS if template[key]]  # type: ignore[literal-required]
    paths += [("images", name) if name else ("image",) for name in template["images"]]

    def sets(data: Any, path: tuple[str, ...]) -> bool:
        for step in path:
            if not isinstance(data, dict) or step not in data:
                return False
            data = data[step]
        return True

    return {".".join(path): next((name for name, data in loaded if sets(data, path)), None) for path in paths}


_EXTENDS = {"properties": {"extends": {"type": "string"}}, "required": ["extends"]}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a profile file."""
    schema = Profile.model_json_schema()
    _forbid_other_names(schema)
    schema["required"].remove("layout")  # it may be inherited, as the folder may
    by_layout = {
        "if": {"anyOf": [{"properties": {"layout": {"const": "custom"}}, "required": ["layout"]}, _EXTENDS]},
        "else": {"properties": {"project_dir": {"type": "string"}}, "required": ["layout", "project_dir"]},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, **by_layout}


def _forbid_other_names(schema: object) -> None:
    """Forbid names that do not match a pattern; pydantic only says what applies to those that do."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for part in schema.values():
            _forbid_other_names(part)
    elif isinstance(schema, list):
        for part in schema:
            _forbid_other_names(part)


def _without_slash(path: str | None) -> str:
    return "" if path is None else path.rstrip("/") or "/"


def _validate(data: Mapping[str, Any], name: str, path: str) -> Profile:
    """Return the profile. Raises InvalidProfileError, also for references that no environment can resolve."""
    try:
        profile = Profile.model_validate(data)
    except ValidationError as error:
        raise rendering.invalid_profile_error(name, path, list(_faults(error))) from None
    problems = list(_reference_problems(template(profile, name=name)))
    if problems:
        raise rendering.invalid_profile_error(name, path, problems)
    return profile


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        where = ""
        for step in fault["loc"]:
            if step in ("<text>", "<number>", "<list>", "[key]"):
                continue  # a tag of a union
            key = shorten(str(step), 80) or '""'
            where += f"[{step}]" if isinstance(step, int) else f".{key}" if where else key
        message = str(fault["msg"])
        yield f"{where}: {_explain(fault, where)}" if where else message.removeprefix("Value error, ")


def _explain(fault: Mapping[str, Any], where: str) -> str:
    kind, message = fault["type"], str(fault["msg"])
    if kind == "extra_forbidden":
        table = where.partition(".")[0].partition("[")[0] if "." in where else ""
        known = [field.alias or name for name, field in TABLES.get(table, Profile).model_fields.items()]
        close = difflib.get_close_matches(where.rpartition(".")[2], known, n=1)
        return f"unknown key; did you mean '{close[0]}'?" if close else f"unknown key; known are {', '.join(known)}"
    key = "images." if where.startswith("images.") else where
    if key in _BY_KEY:
        return _BY_KEY[key]
    if kind == "string_pattern_mismatch":
        return next(text for start, text in _BY_PATTERN.items() if where.startswith(start))
    return _BY_KIND[kind].format(**fault.get("ctx", {})) if kind in _BY_KIND else message[:1].lower() + message[1:]


_BY_KEY = {
    "schema": "must be 1",
    "extends": "must be the name of a profile",
    "docker.shm_size": 'must be a number with b, k, m or g, such as "16G", or a whole number of bytes',
    "gpus": 'must be "all", "none", a count, or a list such as "0,1" (a single GPU: "1,")',
    "image": "must be the name of an image",
    "images.": "must be the name of an image, by the first words of a command",
    "network": "may contain only letters, digits, '.', '_' and '-', and must start with a letter or digit",
}
_BY_PATTERN = {
    "project_dir": "must name a folder, and not '/'",
    "notebook_dir": "must name a folder, and not '/'",
    "slurm.options": "must be one word without quotes, '#' and '\\', such as --mem=64G",
    "slurm.": "must be one word without quotes, '#' and '\\'",
    "kubernetes.claims": "must be a Kubernetes name of lower-case letters, digits and '-', or NAME/FOLDER",
    "kubernetes.": "must be a Kubernetes name of lower-case letters, digits and '-'",
    "": "may contain only letters, digits and '_', at most 256 of them, and must not start with a digit",
}
_BY_KIND = {
    "missing": "missing",
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "less_than_equal": "must be at most {le}",
    "greater_than_equal": "must be at least {ge}",
}


def _reference_problems(template: Template) -> Iterator[str]:
    """Yield unknown names, circles and malformed references."""
    expander = rendering.Expander(template["variables"], None, "/")
    texts = rendering.expressions(template)
    texts |= {f"variables.{name}": f"${{{name}}}" for name in template["variables"]}  # so that a chain begins with it
    texts |= {f"notify[{number}]": text for number, text in enumerate(template["notify"])}
    for where, expression in texts.items():
        try:
            expander.text(expression, path=False)
        except rendering.ExpressionError as error:
            yield f"{where}: {error}"
