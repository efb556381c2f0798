"""Build the profile of a notebook or Python script, as general as the file itself."""

from __future__ import annotations

import copy
import difflib
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import InvalidProfileError, InvalidStateError, UsageError
from taoprofiles.importer import cells
from taoprofiles.importer.containers import COMPOSE_FILES
from taoprofiles.importer.result import ImportResult, evaluate_cells
from taoprofiles.importer.state import MAY_SET
from taoprofiles.importer.values import Segment, concat, join_path, normal_path, segments
from taoprofiles.masking import is_secret
from taoprofiles.profiles import layouts
from taoprofiles.profiles.convert import from_mapping, last_mounts, resolve_path
from taoprofiles.profiles.model import Profile, from_data, template
from taoprofiles.profiles.rendering import (
    Renderer,
    escape_dollars,
    find_placeholder,
    is_path_variable,
    is_variable_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taoprofiles.importer.result import Question
    from taoprofiles.profiles.rendering import Template
from taoprofiles.storage.paths import Context

_MACHINE_VARIABLES = frozenset(
    "HOME PATH PYTHONPATH LD_LIBRARY_PATH LD_PRELOAD USER LOGNAME SHELL PWD TMPDIR DOCKER_HOST LAUNCHER_MOUNTS".split()
)
"""Variables of the machine or the launcher: setting them in a profile would break the run."""

_LEFT_OUT_MESSAGE = "{} not imported: a run uses this machine's value"

_SHELL_SCRIPTS = (".sh", ".bash", ".zsh")
_COMPOSE = (".yaml", ".yml")
_LONGEST = 4096
_SHOWN = 12
RUN_ONCE = "run it once, then: taoprof import --name NAME"
COMMAND = "taoprof import FILE"

STDIN = "standard input"
"""The name of standard input in messages."""


class Source:
    """A notebook, script or Compose file that is read once and can be evaluated with different values.

    Nothing of it is run. ``path`` is None for input from a pipe, which counts as a file in the current folder. Raises
    InvalidStateError.
    """

    def __init__(self, context: Context, content: bytes, *, where: str, path: str | None) -> None:
        self._context, self._kind = context, find_kind(where, content) or "python"
        self.is_notebook = is_notebook(content) or where.endswith(".ipynb")
        self._code = cells.read(content, where) if self.is_notebook else cells.script(content, where)
        folder = context.folder if path is None else os.path.dirname(context.absolute(path))
        self._folder = os.path.normpath(folder)

    def evaluate(self, user_values: Mapping[str, str]) -> ImportResult:
        """Evaluate the code with the user's values by name. Raises UsageError for an empty folder."""
        user_values = {name: self._expanded(name, value) for name, value in user_values.items()}
        return evaluate_cells(self._code, self._context, self._folder, user_values, self._kind)

    def _expanded(self, name: str, value: str) -> str:
        """Expand ``~`` in a value that the user gave, and resolve a folder as a shell does. Raises UsageError."""
        is_folder = name.startswith("/") or is_path_variable(name)
        if is_folder and not value:
            raise UsageError(f"'' is not a folder for {name}", hint=f"such as --set {shlex.quote(name)}=~/tao/kitti")
        if is_folder:
            text, problem = resolve_path(self._context, value)
        else:
            text, left = self._context.expand_user(value), find_placeholder(value)
            problem = f"'{left}' is a placeholder" if left else ""
        if problem:
            example = "~/tao/kitti" if is_folder else "VALUE"
            raise UsageError(f"{name}: {problem}", hint=f"such as --set {shlex.quote(name)}={example}")
        return text


def reject_unused_values(result: ImportResult, where: str) -> None:
    """Raise UsageError if a given value had no effect."""
    if result.unused:
        names = ", ".join(result.names[:12]) or "none"
        close = difflib.get_close_matches(result.unused[0], result.names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else ""
        raise UsageError(f"no variable '{result.unused[0]}' in '{where}'; variables: {names}", hint=hint)


def find_kind(path: str, content: bytes) -> str:
    """Return the kind of a file's code: python (also of a notebook), shell or compose; "" for any other file."""
    interpreter = content.split(b"\n", 1)[0] if content.startswith(b"#!") else b""
    if path.endswith(_COMPOSE):  # most YAML files are specs
        is_compose = os.path.basename(path) in COMPOSE_FILES or re.search(rb"^services:", content, re.M)
        return "compose" if is_compose else ""
    if path.endswith(_SHELL_SCRIPTS) or (re.search(rb"sh\b", interpreter) and b"python" not in interpreter):
        return "shell"
    is_python = path.endswith((".ipynb", ".py")) or b"python" in interpreter or is_notebook(content)
    return "python" if is_python else ""


def is_notebook(content: bytes) -> bool:
    """Check whether a file is meant to be a notebook: a JSON object with cells."""
    head = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith(b"{") and b'"cells"' in head


def may_write(result: ImportResult) -> list[str]:
    """Return the lines that may write the mounts file, for code in which no write of it was followed."""
    if not result.may_write:
        return []
    lines = [*result.notes, *_not_followed(result.not_followed), *result.calls[:_SHOWN]]
    if not lines and result.naming_line is not None:  # as in a branch for a variable that is not set
        lines = [f"{result.naming_line}: names a mounts file, but nothing is known to be written there"]
    return lines


def build(
    context: Context, result: ImportResult, *, name: str, where: str, command: str = COMMAND, run_once: str = RUN_ONCE
) -> tuple[Profile, list[str]]:
    """Build the profile; return it with notes about what differs from the file.

    ``command`` is the command as it was given, and ``run_once`` names the one after the file was run, for hints.

    It has a layout if that renders the same; its values refer to variables where the file does. Raises
    InvalidStateError if no profile can render the same, UsageError if questions are not answered.
    """
    if result.mapping is None and result.needs_no_mounts:
        what = f"'{where}' sets TAO_DOCKER_DISABLE=1: its tasks run without a container and need no mounts file"
        raise InvalidStateError(what, hint="to train in containers on this machine: taoprof new NAME")
    if result.mapping is None and not result.may_write:
        hint = "to create a profile for a project folder: taoprof new NAME"
        if result.mapping_line is not None:
            hint = f"{result.mapping_line} has a mapping: run it once, then import what it wrote: taoprof import FILE"
        what = f"'{where}' writes no mounts file and starts no TAO image: no line of it names ~/.tao_mounts.json"
        raise InvalidStateError(what, problems=result.notes, hint=hint)
    if result.mapping is None:
        message = f"'{where}' writes no mounts file (~/.tao_mounts.json) in code that import can evaluate"
        raise InvalidStateError(message, problems=may_write(result), hint=run_once)
    if result.questions:
        raise _unanswered_error(result, where, command, run_once)
    profile, notes = _ProfileBuilder(with_secrets(context, result), result, name=name, where=where).profile()
    notes += [f"the container gets {name} from the environment: export {name}=…" for name in _missing(context, result)]
    return profile, [*result.notes, *_not_followed(result.top_level_not_followed), *notes]


def with_secrets(context: Context, result: ImportResult) -> Context:
    """Return a context in which the secrets exist that a container takes from the environment (``--env NAME``)."""
    complete = copy.copy(context)
    complete.environ = {**dict.fromkeys(_missing(context, result), "-"), **context.environ}
    return complete


def _missing(context: Context, result: ImportResult) -> list[str]:
    envs = result.container.mapping.get("Envs", []) if result.container else []
    parts = [part for item in envs if isinstance(item["value"], str) for part in segments(item["value"])]
    return [part.name for part in parts if part.kind == "env" and part.name not in context.environ]


def _not_followed(statements: list[str]) -> list[str]:
    """Return a note that names statements that are not followed."""
    shown = "; ".join(statements[:_SHOWN])
    more = f"; and {len(statements) - _SHOWN} more" if len(statements) > _SHOWN else ""
    return [f"not evaluated, so what they set is unknown: {shown}{more}"] if shown else []


def _unanswered_error(result: ImportResult, where: str, command: str, run_once: str) -> UsageError | InvalidStateError:
    """Return the error that names the values that the user has to give."""
    problems = [
        f"{question.name or 'the mapping'}: {question.reason}"
        + (f", '{question.text[:80]}'" if question.text else "")
        + f" ({question.location})"
        for question in result.questions
    ]
    if any(not question.name for question in result.questions):
        problems += _not_followed(result.not_followed)
        return InvalidStateError(f"cannot import '{where}': its mapping is unknown", problems=problems, hint=run_once)
    count = len(result.questions)
    missing = "one value is missing" if count == 1 else f"{count} values are missing"
    secrets = [question.name for question in result.questions if is_secret(question.name)]
    options = set_options(question for question in result.questions if question.name not in secrets)
    hint = f"{command} {options}".strip()
    if secrets:  # not on the command line, where others can see it
        hint = f"set {', '.join(secrets)} in your environment, then: {hint}"
    notes = [note for note in result.notes if MAY_SET in note]
    if notes:
        hint = f"{hint}; or {run_once}"
    return UsageError(f"cannot import '{where}': {missing}", problems=[*problems, *notes], hint=hint)


def set_options(questions: Iterable[Question]) -> str:
    """Return the options that give these values, quoted for a shell."""
    return " ".join(
        f"--set {shlex.quote(question.name)}={shlex.quote(question.suggestion) if question.suggestion else '…'}"
        for question in questions
    )


class _ProfileBuilder:
    def __init__(self, context: Context, result: ImportResult, *, name: str, where: str) -> None:
        self._context, self._result, self._name, self._where = context, result, name, where
        self._notes: list[str] = []
        self._variables = self._kept_variables()

    def profile(self) -> tuple[Profile, list[str]]:
        variables = {name: self._expression(value, path=True) for name, value in self._variables.items()}
        whole = from_mapping(
            self._context,
            self._mapping(),
            name=self._name,
            where=self._where,
            express=self._expression,
            variables=variables,
        )
        custom = whole.model_dump(by_alias=True, exclude_defaults=True)
        container = self._result.container
        if container is not None:
            custom |= {"image": container.image} | ({"gpus": container.gpus} if container.gpus else {})
            custom |= {"images": self._result.images} if self._result.images else {}
            for mount in custom.get("mounts", []):
                if mount["destination"] in container.read_only:
                    mount["read_only"] = True
        candidates = [self._with_layout(custom, layout) for layout in ("local", "host")]
        data = min((data for data in [*candidates, custom] if data is not None), key=_size)
        try:
            profile = from_data(_ordered(data), name=self._name)
            self._renderer(template(profile, name=self._name)).mapping()  # such as a ':' in a path
        except InvalidProfileError as error:
            raise InvalidStateError(f"'{self._where}' cannot become a profile", problems=error.problems) from None
        return profile, self._notes

    def _kept_variables(self) -> dict[str, str]:
        kept: dict[str, str] = {}
        for name, value in self._result.variables.items():
            if _is_machine_variable(name):
                self._notes.append(_LEFT_OUT_MESSAGE.format(name))
            elif not is_variable_name(name) or len(name) > 256:
                self._notes.append(f"'{name[:60]}' is left out: it is not a valid variable name")
            elif len(value) > _LONGEST or re.search("[\0\ud800-\udfff]", value):
                self._notes.append(
                    f"{name} is left out: its value is longer than {_LONGEST} characters or is not valid text"
                )
            else:
                kept[name] = value
                if value.startswith("~"):
                    self._notes.append(f"{name} begins with '~', which Python does not expand; the profile does")
        left_out: dict[str, list[str]] = {}
        for name, reason in self._result.left_out:
            if _is_machine_variable(name):
                self._notes.append(_LEFT_OUT_MESSAGE.format(name))
            else:
                left_out.setdefault(reason, []).append(name)
        for reason, names in left_out.items():
            self._notes.append(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left out: {reason}")
        return kept

    def _mapping(self) -> dict[str, Any]:
        """Return the mapping as the launcher reads it: absolute sources, and one mount for each folder."""
        mapping = self._result.mapping
        if not isinstance(mapping, dict):
            raise InvalidStateError(f"'{self._where}' writes a mounts file that is not a JSON object")
        if not isinstance(mapping.get("Mounts"), list):
            return mapping
        docker = mapping.get("DockerOptions")
        if isinstance(docker, dict) and isinstance(docker.get("user"), str) and _is_calling_user(docker["user"]):
            mapping = {**mapping, "DockerOptions": {**docker, "user": "auto"}}
        mounts, notes = last_mounts(self._context, [self._absolute(mount) or mount for mount in mapping["Mounts"]])
        self._notes += notes
        return {**mapping, "Mounts": mounts}

    def _absolute(self, mount: Any) -> dict[str, Any] | None:
        """Return a mount with its source absolute, relative to the notebook's folder; None if it is not a mount."""
        if not (isinstance(mount, dict) and isinstance(mount.get("source"), str)):
            return None
        source: str = mount["source"]
        if source.startswith("~") and not source.startswith("~/") and source != "~":
            source = mount["source"] = self._context.expand_user(source)  # another user's home
        if source.startswith(("/", "~/")) or source == "~" or not isinstance(self._result.folder, str):
            return mount
        absolute = normal_path(join_path(self._result.folder, source))
        self._notes.append(f"the source '{source}' becomes '{absolute}', relative to the file's folder")
        return {**mount, "source": absolute}

    # Expressions

    def _expression(self, value: str, path: bool) -> str:
        pieces = [part for part in segments(value) if part.text]
        return "".join(
            self._piece(part, pieces[number + 1 :], path=path and number == 0) for number, part in enumerate(pieces)
        )

    def _piece(self, part: Segment, rest: list[Segment], *, path: bool) -> str:
        if part.kind == "variable":
            if self._result.is_current(part.name, part.version) and part.name in self._variables:
                return f"${{{part.name}}}"
            earlier = self._result.definition(part.name, part.version).value
            if isinstance(earlier, str) and earlier == part.text:
                inner = list(segments(earlier))
                return "".join(
                    self._piece(segment, [*inner[number + 1 :], *rest], path=path and number == 0)
                    for number, segment in enumerate(inner)
                )
        if part.kind == "env" and is_secret(part.name):
            return f"${{env:{part.name}}}"
        ends = not rest or rest[0].text.startswith("/")
        if path and (ends or len(part.text) > len(self._context.home)):
            return escape_dollars(self._context.short(part.text))
        return escape_dollars(part.text)

    def _renderer(self, profile_template: Template) -> Renderer:
        return Renderer(profile_template, self._context, name=self._name, path=self._where)

    # Layouts

    def _with_layout(self, custom: dict[str, Any], layout: str) -> dict[str, Any] | None:
        """Return the same profile with a layout, None if the layout does not fit."""
        wanted = layouts.variables(layout, project_dir="", notebook_dir="", network="")
        project = self._variables.get("LOCAL_PROJECT_DIR", "")
        if not wanted.keys() <= self._variables.keys() or not project.strip("/").strip("~"):
            return None
        specs = self._variables["LOCAL_SPECS_DIR" if layout == "local" else "HOST_SPECS_DIR"]
        work = self._variables["LOCAL_EXPERIMENT_DIR" if layout == "local" else "HOST_RESULTS_DIR"]
        network = work.removeprefix(project.rstrip("/") + "/").partition("/")[0] if work != project else ""
        data: dict[str, Any] = {
            **custom,
            "layout": layout,
            "project_dir": self._expression(concat(project), path=True),
            "network": network or self._name,
        }
        if specs.endswith("/specs") and specs != f"{project}/specs":
            data["notebook_dir"] = self._expression(concat(specs.removesuffix("/specs")), path=True)
        try:
            real = self._rendered(custom)[1]
            own = {key: value for key, value in data.items() if key not in ("variables", "mounts")}
            own["variables"], mounts = self._overriding(own, custom["variables"])
        except (InvalidProfileError, ValueError):
            return None  # such as a network of a name that no profile takes
        if mounts != real:
            own["mounts"] = custom["mounts"]
        return {key: value for key, value in own.items() if value}

    def _overriding(self, own: dict[str, Any], expressions: dict[str, str]) -> tuple[dict[str, str], Any]:
        """Return the variables that must override the layout; overriding one may change others."""
        differing: dict[str, str] = {}
        while True:
            values, mounts = self._rendered({**own, "variables": differing})
            more = {name for name in expressions if values.get(name) != self._variables[name]} - differing.keys()
            if not more:
                return {name: text for name, text in expressions.items() if name in differing}, mounts
            differing |= {name: expressions[name] for name in more}

    def _rendered(self, data: dict[str, Any]) -> tuple[dict[str, str], list[dict[str, str]]]:
        profile_template = template(Profile.model_validate({**data, "schema": 1}), name=self._name)
        profile_template["env"], profile_template["docker"] = {}, {}
        renderer = self._renderer(profile_template)
        return renderer.variables(), renderer.mapping()["Mounts"]


def _size(data: dict[str, Any]) -> int:
    """Return how much a profile states itself, instead of using a layout."""
    return len(data.get("variables", {})) + 2 * len(data.get("mounts", [])) + sum("_dir" in key for key in data)


def _is_calling_user(user: str) -> bool:
    """Check whether a user consists of the caller's uid and gid, not of literal numbers."""
    return [part.kind or part.text for part in segments(user) if part.text] == ["uid", ":", "gid"]


def _is_machine_variable(name: str) -> bool:
    return name in _MACHINE_VARIABLES or name.startswith("TAOPROF_")


def _ordered(data: dict[str, Any]) -> dict[str, Any]:
    """Return the keys in reading order; TOML's tables come last."""
    order = ("schema", "description", "layout", "network", "project_dir", "notebook_dir")
    return {"schema": 1, **{key: data[key] for key in (*order, *data) if key in data and key != "schema"}}
