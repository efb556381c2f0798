"""What a notebook or a Python script sets up, and the values that only the user knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.importer import cells
from taoprofiles.importer.containers import images, merge, read_compose, scan
from taoprofiles.importer.evaluator import Evaluator
from taoprofiles.importer.state import (
    MOUNTS_FILES,
    Origin,
    State,
    doubt,
    names_mounts_file,
    placeholder_reason,
    suggestion,
)
from taoprofiles.importer.values import Segment, SourceLocation, TracedStr, Unknown, segments
from taoprofiles.launcher.host import runs_without_docker
from taoprofiles.masking import is_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from taoprofiles.importer.containers import Container
    from taoprofiles.importer.state import Definition, WrittenFile
    from taoprofiles.storage.paths import Context

    Judge: TypeAlias = Callable[[str], str]


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


class ImportResult:
    """The result of the static evaluation.

    - ``mapping``: what the mounts file holds in the end, or what the containers of TAO's images get that are started
      without the launcher; None if there is neither. ``container`` is the first of these, else None, and ``images`` are
      those of the other tasks
    - ``variables``: the environment
      variables that are known. Strings in both are ``TracedStr``
    - ``questions``: what must be answered before a profile can be built
    - ``left_out``: the variables without a known value, with the reason
    - ``not_followed``, ``calls``: the statements and the calls that are not followed, each with its location;
      ``top_level_not_followed``: the statements of these that are not in a function
    - ``notes``: other remarks
    - ``needs_no_mounts``: the launcher runs its tasks without a container, as in NVIDIA's notebooks for Colab
      (https://github.com/NVIDIA-AI-IOT/nvidia-tao)
    - ``may_write``: false if nothing can write a mounts file; ``naming_line`` is where a line names one first, and
      ``mapping_line`` where one has the key of a mapping
    """

    def __init__(self, state: State, naming_line: SourceLocation | None) -> None:
        self._state = state
        self.mapping_line: SourceLocation | None = None
        written = _mounts_file(state)
        self.mapping: Any = None if written is None else written.value
        self.location = SourceLocation(0, 0) if written is None else written.location
        self.container: Container | None = None
        self.images: dict[str, str] = {}
        differences: list[str] = []
        if written is None and state.containers:
            self.container = merge(differences, state.containers)
            self.images = images(state.containers)
            self.mapping, self.location = self.container.mapping, self.container.location
        self.folder = state.folder
        self.variables: dict[str, str] = {}
        self.left_out: list[tuple[str, str]] = []
        self.notes = [*(f"{location}: {text}" for location, text in dict.fromkeys(state.notes)), *differences]
        statements = {location: f"{location}: {text}" for location, text in state.not_followed.items()}
        self.not_followed = [*statements.values()]
        self.top_level_not_followed = [
            text for location, text in statements.items() if location not in state.in_functions
        ]
        self.calls = [f"{location}: {text}" for location, text in state.calls.items()]
        self.naming_line = naming_line
        if written is not None and written.path.rpartition("/")[0] != state.context.home.rstrip("/"):
            self.notes.append(f"{written.location}: {_elsewhere(written.path)}")
        self.questions = self._find_questions()
        self._take_variables()
        self.needs_no_mounts = runs_without_docker(self.variables)
        unfollowed = naming_line is not None or bool(self.calls) or state.has_unknown_names
        self.may_write = unfollowed and not self.needs_no_mounts

    @property
    def names(self) -> list[str]:
        """The names that can be given: the variables that are set, and Python's names of texts."""
        state = self._state
        python = [
            name for name, value in state.names.items()
            if isinstance(value, str) or (isinstance(value, Unknown) and not value.source)
        ]  # fmt: skip
        return [*(name for name in state.history if name in state.accessed), *state.unset, *python]

    @property
    def unused(self) -> list[str]:
        """The given values that had no effect."""
        state = self._state
        return [name for name in state.user_values if name not in state.applied and not name.startswith("/")]

    def is_current(self, name: str, version: int) -> bool:
        """Check whether a version of a variable is the value that it has in the end."""
        return name in self.variables and len(self._state.history[name]) - 1 == version

    def definition(self, name: str, version: int) -> Definition:
        """Return one version of a variable."""
        return self._state.history[name][version]

    def _find_questions(self) -> list[Question]:
        asked: dict[str, Question] = {}
        if isinstance(self.mapping, Unknown):
            asked = self._unset_before(self.mapping.location)
            if not asked:
                self._ask_unknown(asked, self.mapping, "")
        elif isinstance(self.mapping, dict):
            for name, values, judge in _needed_values(self.mapping, self._state.user_values):
                for value in values:
                    if isinstance(value, Unknown):
                        self._ask_unknown(asked, value, name)
                    elif value is None:
                        asked.setdefault(name, Question(name, self.location, "", "it has no value (null)"))
                    elif isinstance(value, str):  # anything else is an error, not a question
                        whole = Origin(name, value, self.location)  # not of a destination, which names its source
                        for origin in (
                            [whole, *self._state.origins(value)] if value != name else self._state.origins(value)
                        ):
                            self._ask_doubtful(asked, origin, judge(origin.value))
        return list(asked.values())

    def _unset_before(self, written: SourceLocation) -> dict[str, Question]:
        """Return questions for the variables that the cell needs, and does not have, to write the mounts file."""
        environ = self._state.context.environ
        questions = {}
        for name, location in self._state.unset.items():
            if location.cell == written.cell and location.line <= written.line:
                where, value = ("your environment", "") if is_secret(name) else ("the code", environ.get(name, ""))
                questions[name] = Question(name, location, "", f"it is not set in {where}", value)
        return questions

    def _ask_doubtful(self, asked: dict[str, Question], origin: Origin, reason: str) -> None:
        if reason:
            text = str(origin.value)
            proposal = suggestion(text, self._state.context.environ)
            asked.setdefault(origin.name, Question(origin.name, origin.location, text, reason, proposal))

    def _ask_unknown(self, asked: dict[str, Question], unknown: Unknown, destination: str) -> None:
        unknown = unknown.origin or unknown
        history = self._state.history.items()
        name = next((name for name, values in history if any(item.value is unknown for item in values)), destination)
        name = name or next((name for name, value in self._state.names.items() if value is unknown), "")
        if name == destination and not name.startswith("/"):  # a section of the mapping, which nobody can give
            unset = self._state.unset_values.items()
            name = next((variable for variable, value in unset if value is unknown), name)
        asked.setdefault(name, Question(name, unknown.location, "", unknown.reason))

    def _take_variables(self) -> None:
        asked = {question.name for question in self.questions}
        for name, definitions in self._state.history.items():
            if name not in self._state.accessed:
                continue
            value, location = definitions[-1]
            if isinstance(value, Unknown):
                self.left_out.append((name, f"{value.location}: {value.reason}"))
                continue
            origins = [Origin(name, value, location), *self._state.origins(value)]
            known = asked | {*self._state.user_values}
            missing = [item for item in origins if placeholder_reason(item.value) and item.name not in known]
            if missing:
                cause = missing[0]
                self.left_out.append((name, f"{cause.location}: a placeholder, '{str(cause.value)[:60]}'"))
                continue
            self.variables[name] = value
            reason = "" if name in asked else doubt(value)
            if reason and not (is_secret(name) and "$" in reason):  # which is a part of the secret
                self.notes.append(f"{location}: {name}: {reason}")


def _mounts_file(state: State) -> WrittenFile | None:
    """Return the last mounts file written, of the name that the launcher looks for first."""
    for name in MOUNTS_FILES:
        written = [file for file in state.files if file.path.endswith(name)]
        if written:
            return written[-1]
    return None


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


def evaluate_cells(
    code: cells.Code, context: Context, folder: str, user_values: Mapping[str, str], kind: str
) -> ImportResult:
    """Evaluate the cells of a file in ``folder``. ``user_values`` are the user's values by name.

    ``kind`` is that of the code: python, shell or compose.
    """
    state = State(context, TracedStr([Segment(folder, "folder")]), user_values)
    evaluator = Evaluator(state)
    for cell in code.cells:
        if code.language != "python":
            state.location = SourceLocation(cell.number, 1)
            state.note(f"the notebook is in {code.language}, of which nothing is evaluated")
            break
        if kind == "shell":
            state.location = SourceLocation(0, 1)
            scan(evaluator, cell.source, sets_variables=True)
        elif kind == "compose":
            read_compose(evaluator, cell.source, folder)
        else:
            evaluator.run_cell(cell)
    result = ImportResult(state, _find_line(code.cells, names_mounts_file))
    result.mapping_line = _find_line(code.cells, lambda line: '"Mounts"' in line or "'Mounts'" in line)
    return result


def _find_line(code: list[cells.Cell], matches: Callable[[str], bool]) -> SourceLocation | None:
    lines = ((cell.number, enumerate(cell.source.splitlines(), 1)) for cell in code)
    return next(
        (SourceLocation(cell, number) for cell, texts in lines for number, text in texts if matches(text)), None
    )
