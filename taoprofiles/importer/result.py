"""What a notebook or a script was found to set up, and what only a person can still say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.importer import cells, shell
from taoprofiles.importer.execute import Executor
from taoprofiles.importer.limits import Budget, Place, Unknown
from taoprofiles.importer.provenance import Text, parts
from taoprofiles.importer.state import Memory, is_placeholder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taoprofiles.importer.state import Machine


class Question(NamedTuple):
    """What a person has to say: ``name`` is a variable, or the destination of a mount.

    ``text`` is what stands in its place, "" where that is not known; ``reason`` says why it must be asked.
    """

    name: str
    place: Place
    text: str
    reason: str


class Found:
    """``variables`` are the environment variables that are known, ``mapping`` what the mounts file holds in the end.

    Texts in both are ``Text``, with their origins; ``earlier`` gives what a variable was in an earlier version.
    ``mapping`` is None where no mounts file is written. ``questions`` must be answered (``given``) before a profile can
    be made. ``left_out`` are variables without a known value, with the reason; ``notes`` what else is worth telling.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        written = _last(memory)
        self.mapping: Any = None if written is None else written.value
        self.place = Place(0, 0) if written is None else written.place
        self.folder = memory.folder
        self.variables: dict[str, str] = {}
        self.questions: list[Question] = []
        self.left_out: list[tuple[str, str]] = []
        self.notes = [f"{place}: {text}" for place, text in dict.fromkeys(memory.noted)]
        if written is not None and not written.is_sure:
            self.notes.append(f"{written.place}: the mapping is written only under a condition that is not known")
        self._ask()
        self._take_variables()

    @property
    def names(self) -> list[str]:
        """All that can be given: the variables that are set, and Python's names of texts."""
        python = [name for name, value in self._memory.names.items() if isinstance(value, (str, Unknown))]
        return [*(name for name in self._memory.history if name in self._memory.touched), *python]

    @property
    def unused(self) -> list[str]:
        """Which of the given values were of no use."""
        return [name for name in self._memory.given if name not in self._memory.used and not name.startswith("/")]

    def current(self, name: str, version: int) -> bool:
        """Whether that is the value that the variable has in the end."""
        return name in self.variables and len(self._memory.history[name]) - 1 == version

    def earlier(self, name: str, version: int) -> Any:
        """Give what a variable's value was made of."""
        return self._memory.history[name][version].value

    def _ask(self) -> None:
        asked: dict[str, Question] = {}
        if isinstance(self.mapping, Unknown):
            self._ask_unknown(asked, self.mapping, "")
        elif isinstance(self.mapping, dict):
            for destination, texts in _texts(self.mapping, self._memory.given):
                for value in texts:
                    if isinstance(value, Unknown):
                        self._ask_unknown(asked, value, destination)
                    elif value is None:
                        asked.setdefault(destination, Question(destination, self.place, "", "it has no value (null)"))
                    elif isinstance(value, str):  # anything else is wrong, and no question
                        self._ask_about(asked, value, destination)
        self.questions = list(asked.values())

    def _ask_about(self, asked: dict[str, Question], text: str, destination: str) -> None:
        """Find the placeholders that a text comes from."""
        if is_placeholder(text):
            asked.setdefault(destination, Question(destination, self.place, str(text), "a placeholder"))
        waiting = list(parts(text))
        seen: set[Any] = set()
        while waiting:
            part = waiting.pop()
            if part.kind == "name":
                asked.setdefault(
                    part.name, Question(part.name, Place.unpacked(part.version), part.text, "a placeholder")
                )
            if part.kind != "variable" or (part.name, part.version) in seen:
                continue
            seen.add((part.name, part.version))
            definition = self._memory.history[part.name][part.version]
            if definition.is_placeholder:
                question = Question(part.name, definition.place, str(definition.value), "a placeholder")
                asked.setdefault(part.name, question)
            elif isinstance(definition.value, str):
                waiting += parts(definition.value)

    def _ask_unknown(self, asked: dict[str, Question], unknown: Unknown, destination: str) -> None:
        name = next((n for n, d in self._memory.history.items() if any(one.value is unknown for one in d)), destination)
        name = name or next((n for n, value in self._memory.names.items() if value is unknown), "")
        asked.setdefault(name, Question(name, unknown.place, "", unknown.reason))

    def _take_variables(self) -> None:
        asked = {question.name for question in self.questions}
        for name, definitions in self._memory.history.items():
            if name not in self._memory.touched or name in self._memory.removed:
                continue
            value, place, placeholder = definitions[-1]
            if isinstance(value, Unknown):
                self.left_out.append((name, f"{value.place}: {value.reason}"))
            elif name not in asked and (placeholder or self._is_placeholder(value)):
                self.left_out.append((name, f"{place}: a placeholder, '{str(value)[:60]}'"))
            else:
                self.variables[name] = value

    def _is_placeholder(self, value: str) -> bool:
        """Whether a value comes from a placeholder that no mount needs."""
        asked: dict[str, Question] = {}
        self._ask_about(asked, value, "")
        return bool(asked.keys() - {question.name for question in self.questions})


def _last(memory: Memory) -> Any:
    """Give the last mounts file written, of the kind that the launcher looks for first."""
    for end in (".tao_mounts.json", ".tlt_mounts.json"):
        found = [one for one in memory.files if one.path.endswith(end)]
        if found:
            return found[-1]
    return None


def _texts(mapping: dict[str, Any], given: Mapping[str, str]) -> Iterator[tuple[str, list[Any]]]:
    """Give the values of a mapping that a profile needs to know, by the name under which they can be given."""
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
                mount["source"] = Text(parts(given[name]))
            yield name, [mount.get("source"), destination]
    for section in mapping.keys() - {"Mounts"}:
        yield str(section), [one for one in _leaves(mapping[section]) if isinstance(one, (str, Unknown))]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def of_notebook(content: bytes, machine: Machine, given: Mapping[str, str], *, where: str) -> Found:
    """Read a notebook. ``given`` are a person's values by name. Raises InvalidStateError."""
    memory = Memory(machine, given)
    executor = Executor(memory)
    for cell in cells.read(content, where):
        executor.cell(cell)
    return Found(memory)


def of_script(content: bytes, machine: Machine, given: Mapping[str, str]) -> Found:
    """Read a shell script."""
    memory = Memory(machine, given)
    shell.follow(memory, content.decode("utf-8", "replace"), Budget())
    return Found(memory)
