"""What a notebook, a script or a Compose file sets up, and the profile that is as general as the file itself."""

from __future__ import annotations

import copy
import difflib
import os
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import InvalidProfileError, InvalidStateError, UsageError
from taoprofiles.importer import ipython
from taoprofiles.importer.containers import COMPOSE_FILES, images, merge, read_compose, scan
from taoprofiles.importer.evaluator import Evaluator
from taoprofiles.importer.state import (
    MAY_SET,
    MOUNTS_FILES,
    Origin,
    Segment,
    SourceLocation,
    State,
    TracedStr,
    Unknown,
    concat,
    doubt,
    join_path,
    names_mounts_file,
    normal_path,
    placeholder_reason,
    segments,
    suggestion,
)
from taoprofiles.launcher.behaviour import runs_without_docker
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
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from taoprofiles.importer.containers import StartedContainer
    from taoprofiles.importer.state import WrittenFile
    from taoprofiles.profiles.rendering import Template
    from taoprofiles.storage.paths import Context

    Judge: TypeAlias = Callable[[str], str]

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


class Question(NamedTuple):
    """A value that the user has to give: ``name`` is a variable, or the destination of a mount.

    ``text`` is the text in its place, "" if that is not known; ``reason`` says why it must be asked. ``suggestion`` is
    the value that is probably meant, or "".
    """

    name: str
    location: SourceLocation
    text: str
    reason: str
    suggestion: str = ""


class SourceFile:
    """A notebook, script or Compose file that is read once and can be evaluated with different values.

    Nothing of it is run. ``path`` is None for input from a pipe, which counts as a file in the current folder. Raises
    InvalidStateError.
    """

    def __init__(self, context: Context, content: bytes, *, where: str, path: str | None) -> None:
        self._context, self._kind = context, find_kind(where, content)
        self.is_notebook = _is_notebook(content) or where.endswith(".ipynb")
        read = ipython.read_notebook if self.is_notebook else ipython.read_script
        self._code = read(content, where)
        folder = context.folder if path is None else os.path.dirname(context.absolute(path))
        self._folder = os.path.normpath(folder)
        self._name = "" if path is None else os.path.basename(path)

    def evaluate(self, user_values: Mapping[str, str]) -> ImportResult:
        """Evaluate the code with the user's values by name. Raises UsageError for an empty folder."""
        user_values = {name: self._expanded(name, value) for name, value in user_values.items()}
        folder = TracedStr([Segment(self._folder, "folder")])
        state = State(self._context, folder, user_values)
        if not self.is_notebook:  # where Python's __file__ does not exist
            unknown = state.unknown("a script from a pipe has no path")
            state.names["__file__"] = join_path(folder, self._name) if self._name else unknown
        evaluator = Evaluator(state)
        for cell in self._code.cells:
            state.location = SourceLocation(cell.number, 1)
            if self._code.language != "python":
                state.note(f"the notebook is in {self._code.language}, of which nothing is evaluated")
                break
            if self._kind == "shell":
                scan(evaluator, cell.source, sets_variables=True)
            elif self._kind == "compose":
                state.location = SourceLocation(0, 0)
                read_compose(evaluator, cell.source, self._folder)
            else:
                evaluator.run_cell(cell)
        return ImportResult(state, self._code.cells)

    def _expanded(self, name: str, value: str) -> str:
        """Expand ``~`` in a value that the user gave, and resolve a folder as a shell does. Raises UsageError."""
        is_folder = name.startswith("/") or is_path_variable(name)
        if is_folder and not value:
            raise UsageError(f"'' is not a folder for {name}", hint=f"such as --set {shlex.quote(name)}=~/tao/kitti")
        if is_folder:
            text, problem = resolve_path(self._context, value)
        else:
            text, placeholder = self._context.expand_user(value), find_placeholder(value)
            problem = f"'{placeholder}' is a placeholder" if placeholder else ""
        if problem:
            example = "~/tao/kitti" if is_folder else "VALUE"
            raise UsageError(f"{name}: {problem}", hint=f"such as --set {shlex.quote(name)}={example}")
        return text


def find_kind(path: str, content: bytes) -> str:
    """Return the kind of a file's code: python (also of a notebook), shell or compose; "" for any other file."""
    interpreter = content.split(b"\n", 1)[0] if content.startswith(b"#!") else b""
    if path.endswith(_COMPOSE):  # most YAML files are specs
        is_compose = os.path.basename(path) in COMPOSE_FILES or re.search(rb"^services:", content, re.M)
        return "compose" if is_compose else ""
    if path.endswith(_SHELL_SCRIPTS) or (re.search(rb"sh\b", interpreter) and b"python" not in interpreter):
        return "shell"
    is_python = path.endswith((".ipynb", ".py")) or b"python" in interpreter or _is_notebook(content)
    return "python" if is_python else ""


def _is_notebook(content: bytes) -> bool:
    """Check whether a file is meant to be a notebook: a JSON object with cells."""
    head = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith(b"{") and b'"cells"' in head


class ImportResult:
    """The result of the static evaluation. Strings in ``mapping`` and ``variables`` are ``TracedStr``.

    - ``mapping``: what the mounts file holds in the end, or what the containers of TAO's images get that are started
      without the launcher; None if there is neither. ``container`` is the first of these, else None, and ``images`` are
      those of the other tasks
    - ``variables``: the environment variables that are known; ``left_out``: the others, with the reason
    - ``questions``: what must be answered before a profile can be built
    - ``notes``: remarks
    - ``needs_no_mounts``: the launcher runs its tasks without a container, as in NVIDIA's notebooks for Colab
      (https://github.com/NVIDIA-AI-IOT/nvidia-tao)
    - ``may_write``: the lines that may write the mounts file, if no write of it was followed
    - ``mapping_line``: where a line has the key of a mapping first
    """

    def __init__(self, state: State, code: list[ipython.Cell]) -> None:
        self.state = state
        written = _mounts_file(state)
        self.mapping: Any = None if written is None else written.value
        self._location = SourceLocation(0, 0) if written is None else written.location
        self.container: StartedContainer | None = None
        self.notes = [f"{location}: {text}" for location, text in dict.fromkeys(state.notes)]
        if written is None and state.containers:
            self.container = merge(self.notes, state.containers)
            self.mapping, self._location = self.container.mapping, self.container.location
        if written is not None and written.path.rpartition("/")[0] != state.context.home.rstrip("/"):
            self.notes.append(f"{written.location}: {_elsewhere(written.path)}")
        self.images = images(state.containers) if self.container else {}
        self.variables: dict[str, str] = {}
        self.left_out: list[tuple[str, str]] = []
        self.questions = self._find_questions()
        self._take_variables()
        self.mapping_line = _find_line(code, lambda line: '"Mounts"' in line or "'Mounts'" in line)
        self.needs_no_mounts = runs_without_docker(self.variables)
        self.may_write = [] if self.needs_no_mounts else self._find_writes(_find_line(code, names_mounts_file))

    def _find_writes(self, naming_line: SourceLocation | None) -> list[str]:
        calls = [f"{location}: {text}" for location, text in self.state.calls.items()]
        if naming_line is None and not calls and not self.state.has_unknown_names:
            return []
        lines = [*self.notes, *self.not_followed(), *calls[:_SHOWN]]
        if not lines and naming_line is not None:  # as in a branch for a variable that is not set
            lines = [f"{naming_line}: names a mounts file, but nothing is known to be written there"]
        return lines

    def not_followed(self, *, in_functions: bool = True) -> list[str]:
        """Return a note that names the statements that are not followed, if there are any."""
        statements = [
            f"{location}: {text}" for location, text in self.state.not_followed.items()
            if in_functions or location not in self.state.in_functions
        ]  # fmt: skip
        more = f"; and {len(statements) - _SHOWN} more" if len(statements) > _SHOWN else ""
        text = "; ".join(statements[:_SHOWN])
        return [f"not evaluated, so what they set is unknown: {text}{more}"] if statements else []

    @property
    def names(self) -> list[str]:
        """The names that can be given: the variables that are set, and Python's names of texts."""
        state = self.state
        python = [
            name for name, value in state.names.items()
            if name != "__file__" and (isinstance(value, str) or (isinstance(value, Unknown) and not value.source))
        ]  # fmt: skip
        return [*(name for name in state.history if name in state.accessed), *state.unset, *python]

    @property
    def unused(self) -> list[str]:
        """The given values that had no effect."""
        state = self.state
        return [name for name in state.user_values if name not in state.applied and not name.startswith("/")]

    def missing_secrets(self) -> list[str]:
        """Return the secrets that a container takes from the environment (``--env NAME``), and that are not there."""
        envs = self.container.mapping.get("Envs", []) if self.container else []
        parts = [part for item in envs if isinstance(item["value"], str) for part in segments(item["value"])]
        environ = self.state.context.environ
        return [part.name for part in parts if part.kind == "env" and part.name not in environ]

    def context_with_secrets(self) -> Context:
        """Return a context in which all secrets exist that the containers take from the environment."""
        complete = copy.copy(self.state.context)
        complete.environ = {**dict.fromkeys(self.missing_secrets(), "-"), **complete.environ}
        return complete

    def _find_questions(self) -> list[Question]:
        questions: dict[str, Question] = {}
        if isinstance(self.mapping, Unknown):
            questions = self._unset_before(self.mapping.location)
            if not questions:
                self._ask_unknown(questions, self.mapping, "")
        elif isinstance(self.mapping, dict):
            for name, values, judge in _needed_values(self.mapping, self.state.user_values):
                for value in values:
                    if isinstance(value, Unknown):
                        self._ask_unknown(questions, value, name)
                    elif value is None:
                        questions.setdefault(name, Question(name, self._location, "", "it has no value (null)"))
                    elif isinstance(value, str):  # anything else is an error, not a question
                        whole = [Origin(name, value, self._location)] if value != name else []  # not of a destination
                        for origin in (*whole, *self.state.origins(value)):
                            self._ask_doubtful(questions, origin, judge(origin.value))
        return list(questions.values())

    def _unset_before(self, written: SourceLocation) -> dict[str, Question]:
        """Return questions for the variables that the cell needs, and does not have, to write the mounts file."""
        environ = self.state.context.environ
        questions = {}
        for name, location in self.state.unset.items():
            if location.cell == written.cell and location.line <= written.line:
                where, value = ("your environment", "") if is_secret(name) else ("the code", environ.get(name, ""))
                questions[name] = Question(name, location, "", f"it is not set in {where}", value)
        return questions

    def _ask_doubtful(self, questions: dict[str, Question], origin: Origin, reason: str) -> None:
        if reason:
            text = str(origin.value)
            proposal = suggestion(text, self.state.context.environ)
            questions.setdefault(origin.name, Question(origin.name, origin.location, text, reason, proposal))

    def _ask_unknown(self, questions: dict[str, Question], unknown: Unknown, destination: str) -> None:
        unknown = unknown.origin or unknown
        history = self.state.history.items()
        name = next((name for name, values in history if any(item.value is unknown for item in values)), destination)
        name = name or next((name for name, value in self.state.names.items() if value is unknown), "")
        if name == destination and not name.startswith("/"):  # a section of the mapping, which nobody can give
            unset = self.state.unset_values.items()
            name = next((variable for variable, value in unset if value is unknown), name)
        questions.setdefault(name, Question(name, unknown.location, "", unknown.reason))

    def _take_variables(self) -> None:
        asked_names = {question.name for question in self.questions}
        known = asked_names | {*self.state.user_values}
        for name, definitions in self.state.history.items():
            if name not in self.state.accessed:
                continue
            value, location, _ = definitions[-1]
            if isinstance(value, Unknown):
                self.left_out.append((name, f"{value.location}: {value.reason}"))
                continue
            origins = [Origin(name, value, location), *self.state.origins(value)]
            missing = [item for item in origins if placeholder_reason(item.value) and item.name not in known]
            if missing:
                cause = missing[0]
                self.left_out.append((name, f"{cause.location}: a placeholder, '{str(cause.value)[:60]}'"))
                continue
            self.variables[name] = value
            reason = "" if name in asked_names else doubt(value)
            if reason and not (is_secret(name) and "$" in reason):  # which is a part of the secret
                self.notes.append(f"{location}: {name}: {reason}")


def _mounts_file(state: State) -> WrittenFile | None:
    """Return the last mounts file written, of the name that the launcher looks for first."""
    written = [file for name in reversed(MOUNTS_FILES) for file in state.files if file.path.endswith(name)]
    return written[-1] if written else None


def _elsewhere(path: str) -> str:
    """Return a message about a mounts file that the code writes somewhere else than in the home."""
    why = ", because open() does not expand '~'" if "/~/" in path else ""
    return f"the mounts file is written to '{path}'{why}; tao reads only '~/.tao_mounts.json'"


def _needed_values(mapping: dict[str, Any], user_values: Mapping[str, str]) -> Iterator[tuple[str, list[Any], Judge]]:
    """Yield the values of a mapping that a profile needs, with the name under which they can be given.

    The function with them returns why a value must be asked for, or "".
    """
    mounts = mapping.get("Mounts")
    if isinstance(mounts, Unknown):
        yield "", [mounts], doubt
    for number, mount in enumerate(mounts if isinstance(mounts, list) else []):
        if isinstance(mount, Unknown):
            yield f"Mounts[{number}]", [mount], doubt
        elif isinstance(mount, dict):
            destination = mount.get("destination")
            name = str(destination) if isinstance(destination, str) else f"Mounts[{number}]"
            if name in user_values:
                mount["source"] = TracedStr(segments(user_values[name]))
            yield name, [mount.get("source"), destination], doubt
    for section in (key for key in mapping if key != "Mounts"):
        leaves = [leaf for leaf in _leaves(mapping[section]) if isinstance(leaf, (str, Unknown))]
        yield str(section), leaves, placeholder_reason


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def _find_line(code: list[ipython.Cell], matches: Callable[[str], bool]) -> SourceLocation | None:
    lines = ((cell.number, enumerate(cell.source.splitlines(), 1)) for cell in code)
    return next(
        (SourceLocation(cell, number) for cell, texts in lines for number, text in texts if matches(text)), None
    )


# The profile


def reject_unused_values(result: ImportResult, where: str) -> None:
    """Raise UsageError if a given value had no effect."""
    if result.unused:
        names = ", ".join(result.names[:12]) or "none"
        close = difflib.get_close_matches(result.unused[0], result.names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else ""
        raise UsageError(f"no variable '{result.unused[0]}' in '{where}'; variables: {names}", hint=hint)


def build(
    result: ImportResult, *, name: str, where: str, command: str = COMMAND, run_once: str = RUN_ONCE
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
        raise InvalidStateError(message, problems=result.may_write, hint=run_once)
    if result.questions:
        raise _unanswered_error(result, where, command, run_once)
    profile, notes = _ProfileBuilder(result, name=name, where=where).profile()
    notes += [f"the container gets {name} from the environment: export {name}=…" for name in result.missing_secrets()]
    return profile, [*result.notes, *result.not_followed(in_functions=False), *notes]


def _unanswered_error(result: ImportResult, where: str, command: str, run_once: str) -> UsageError | InvalidStateError:
    """Return the error that names the values that the user has to give."""
    problems = [
        f"{question.name or 'the mapping'}: {question.reason}"
        + (f", '{question.text[:80]}'" if question.text else "")
        + f" ({question.location})"
        for question in result.questions
    ]
    if any(not question.name for question in result.questions):
        problems += result.not_followed()
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
    def __init__(self, result: ImportResult, *, name: str, where: str) -> None:
        self._context, self._result = result.context_with_secrets(), result
        self._name, self._where = name, where
        self._notes: list[str] = []
        self._variables = self._kept_variables()

    def profile(self) -> tuple[Profile, list[str]]:
        whole = from_mapping(
            self._context,
            self._mapping(),
            name=self._name,
            where=self._where,
            express=self._expression,
            variables={name: self._expression(value, path=True) for name, value in self._variables.items()},
        )
        custom = whole.model_dump(by_alias=True, exclude_defaults=True)
        container = self._result.container
        if container is not None:
            custom |= {"image": container.image, "images": self._result.images}
            custom |= {"gpus": container.gpus} if container.gpus else {}
            for mount in custom.get("mounts", []):
                if mount["destination"] in container.read_only:
                    mount["read_only"] = True
        candidates = [self._with_layout(custom, layout) for layout in ("local", "host")]
        data = min((data for data in [*candidates, custom] if data is not None), key=_size)
        try:
            profile = from_data({**data, "schema": 1}, name=self._name)
            self._renderer(template(profile, name=self._name)).mapping()  # such as a ':' in a path
        except InvalidProfileError as error:
            raise InvalidStateError(f"'{self._where}' cannot become a profile", problems=error.problems) from None
        return profile, self._notes

    def _kept_variables(self) -> dict[str, str]:
        kept: dict[str, str] = {}
        for name, value in self._result.variables.items():
            if self._is_machine_variable(name):
                continue
            if not is_variable_name(name) or len(name) > 256:
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
            if not self._is_machine_variable(name):
                left_out.setdefault(reason, []).append(name)
        for reason, names in left_out.items():
            self._notes.append(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left out: {reason}")
        return kept

    def _is_machine_variable(self, name: str) -> bool:
        """Check whether a variable is one of the machine, and note that."""
        is_one = name in _MACHINE_VARIABLES or name.startswith("TAOPROF_")
        self._notes += [_LEFT_OUT_MESSAGE.format(name)] if is_one else []
        return is_one

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
        mounts, notes = last_mounts(self._context, list(map(self._absolute, mapping["Mounts"])))
        self._notes += notes
        return {**mapping, "Mounts": mounts}

    def _absolute(self, mount: Any) -> Any:
        """Return a mount with its source absolute, relative to the notebook's folder, and anything else as it is."""
        if not (isinstance(mount, dict) and isinstance(mount.get("source"), str)):
            return mount
        source: str = mount["source"]
        folder = self._result.state.folder
        if source.startswith("~") and not source.startswith("~/") and source != "~":
            source = mount["source"] = self._context.expand_user(source)  # another user's home
        if source.startswith(("/", "~/")) or source == "~" or not isinstance(folder, str):
            return mount
        absolute = normal_path(join_path(folder, source))
        self._notes.append(f"the source '{source}' becomes '{absolute}', relative to the file's folder")
        return {**mount, "source": absolute}

    # Expressions

    def _expression(self, value: str, path: bool) -> str:
        """Return the expression of a text: of a variable's former value, that of what it was made of."""
        waiting = [*reversed(segments(value))]
        result = ""
        while waiting:
            part = waiting.pop()
            if part.kind == "variable":
                history = self._result.state.history[part.name]
                if part.name in self._variables and part.version == len(history) - 1:
                    result += f"${{{part.name}}}"
                    continue
                earlier = history[part.version].value
                if isinstance(earlier, str) and earlier == part.text:
                    waiting += reversed(segments(earlier))
                    continue
            if part.kind == "env" and is_secret(part.name):
                result += f"${{env:{part.name}}}"
                continue
            is_whole = not waiting or waiting[-1].text.startswith("/") or len(part.text) > len(self._context.home)
            result += escape_dollars(self._context.short(part.text) if path and not result and is_whole else part.text)
        return result

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
