"""What a notebook or a Python script sets up, and the values that only the user knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.importer import cells
from taoprofiles.importer.evaluator import Evaluator
from taoprofiles.importer.state import MOUNTS_FILES, State, is_placeholder
from taoprofiles.importer.values import Segment, SourceLocation, TracedStr, Unknown, segments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taoprofiles.importer.state import Definition, WrittenFile
    from taoprofiles.storage.paths import Context


class Question(NamedTuple):
    """A value that the user has to give: ``name`` is a variable, or the destination of a mount.

    ``text`` is the text in its place, "" if that is not known; ``reason`` says why it must be asked.
    """

    name: str
    location: SourceLocation
    text: str
    reason: str


class ImportResult:
    """The result of the static evaluation.

    ``mapping`` is what the mounts file holds in the end, None if none is written; ``variables`` are the environment
    variables that are known. Strings in both are ``TracedStr``. ``questions`` must be answered (``given``) before a
    profile can be built. ``left_out`` are variables without a known value, with the reason. ``notes`` are other
    remarks, ``not_followed`` the statements that are not followed and ``calls`` the calls, each with its location.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        written = _mounts_file(state)
        self.mapping: Any = None if written is None else written.value
        self.location = SourceLocation(0, 0) if written is None else written.location
        self.folder = state.folder
        self.variables: dict[str, str] = {}
        self.left_out: list[tuple[str, str]] = []
        self.notes = [f"{location}: {text}" for location, text in dict.fromkeys(state.notes)]
        self.not_followed = [f"{location}: {text}" for location, text in state.not_followed.items()]
        self.calls = [f"{location}: {text}" for location, text in state.calls.items()]
        self.questions = self._find_questions()
        self._take_variables()

    @property
    def names(self) -> list[str]:
        """The names that can be given: the variables that are set, and Python's names of texts."""
        python = [name for name, value in self._state.names.items() if isinstance(value, (str, Unknown))]
        return [*(name for name in self._state.history if name in self._state.touched), *python]

    @property
    def unused(self) -> list[str]:
        """The given values that had no effect."""
        return [name for name in self._state.given if name not in self._state.used and not name.startswith("/")]

    def is_current(self, name: str, version: int) -> bool:
        """Check whether a version of a variable is the value that it has in the end."""
        return name in self.variables and len(self._state.history[name]) - 1 == version

    def definition(self, name: str, version: int) -> Definition:
        """Return one version of a variable."""
        return self._state.history[name][version]

    def _find_questions(self) -> list[Question]:
        asked: dict[str, Question] = {}
        if isinstance(self.mapping, Unknown):
            self._ask_unknown(asked, self.mapping, "")
        elif isinstance(self.mapping, dict):
            for destination, values in _needed_values(self.mapping, self._state.given):
                for value in values:
                    if isinstance(value, Unknown):
                        self._ask_unknown(asked, value, destination)
                    elif value is None:
                        question = Question(destination, self.location, "", "it has no value (null)")
                        asked.setdefault(destination, question)
                    elif isinstance(value, str):  # anything else is an error, not a question
                        self._ask_placeholders(asked, value, destination)
        return list(asked.values())

    def _ask_placeholders(self, asked: dict[str, Question], text: str, destination: str) -> None:
        """Add a question for each placeholder that a text is made of."""
        if is_placeholder(text):
            asked.setdefault(destination, Question(destination, self.location, str(text), "a placeholder"))
        for name, value, location in map(self._placeholder, self._state.placeholders(text)):
            asked.setdefault(name, Question(name, location, value, "a placeholder"))

    def _placeholder(self, segment: Segment) -> tuple[str, str, SourceLocation]:
        """Return the name of a placeholder, its text, and where it stands."""
        if segment.kind == "name":
            return segment.name, segment.text, SourceLocation(*divmod(segment.version, 1 << 20))
        definition = self.definition(segment.name, segment.version)
        return segment.name, str(definition.value), definition.location

    def _ask_unknown(self, asked: dict[str, Question], unknown: Unknown, destination: str) -> None:
        history = self._state.history.items()
        name = next((name for name, values in history if any(item.value is unknown for item in values)), destination)
        name = name or next((name for name, value in self._state.names.items() if value is unknown), "")
        asked.setdefault(name, Question(name, unknown.location, "", unknown.reason))

    def _take_variables(self) -> None:
        asked = {question.name for question in self.questions}
        for name, definitions in self._state.history.items():
            if name not in self._state.touched:
                continue
            value, location, is_placeholder_text = definitions[-1]
            if isinstance(value, Unknown):
                self.left_out.append((name, f"{value.location}: {value.reason}"))
            elif name not in asked and (
                is_placeholder_text or {part.name for part in self._state.placeholders(value)} - asked
            ):
                self.left_out.append((name, f"{location}: a placeholder, '{str(value)[:60]}'"))
            else:
                self.variables[name] = value


def _mounts_file(state: State) -> WrittenFile | None:
    """Return the last mounts file written, of the name that the launcher looks for first."""
    for name in MOUNTS_FILES:
        written = [file for file in state.files if file.path.endswith(name)]
        if written:
            return written[-1]
    return None


def _needed_values(mapping: dict[str, Any], given: Mapping[str, str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the values of a mapping that a profile needs, with the name under which they can be given."""
    mounts = mapping.get("Mounts")
    if isinstance(mounts, Unknown):
        yield "", [mounts]
    for number, mount in enumerate(mounts if isinstance(mounts, list) else []):
        if isinstance(mount, Unknown):
            yield f"Mounts[{number}]", [mount]
        elif isinstance(mount, dict):
            destination = mount.get("destination")
            name = str(destination) if isinstance(destination, str) else f"Mounts[{number}]"
            if name in given:
                mount["source"] = TracedStr(segments(given[name]))
            yield name, [mount.get("source"), destination]
    for section in mapping.keys() - {"Mounts"}:
        yield str(section), [leaf for leaf in _leaves(mapping[section]) if isinstance(leaf, (str, Unknown))]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def read_cells(code: list[cells.Cell], context: Context, folder: str, given: Mapping[str, str]) -> ImportResult:
    """Evaluate the cells of a file in ``folder``. ``given`` are the user's values by name."""
    state = State(context, TracedStr([Segment(folder, "folder")]), given)
    evaluator = Evaluator(state)
    for cell in code:
        evaluator.run_cell(cell)
    return ImportResult(state)
