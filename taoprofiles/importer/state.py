"""What a notebook has set so far: environment variables, Python's names, the current folder, files written."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.importer.limits import PARTS, Place, Raised, Unknown
from taoprofiles.importer.provenance import Part, Text, concat, expand_home, join_path, normal_path
from taoprofiles.importer.values import PartlyKnown, can_change, kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

PLACEHOLDER = re.compile(
    r"\bFIX_?ME\b|(^|/)path/to(/|$)|(^|[/{<_])YOUR_[A-Z]|^<[^<>]+>$|\bREPLACE_?ME\b|\bCHANGE_?ME\b|/absolute/path(/|$)"
)
"""Text that stands for what only a person can know. FIXME and /path/to/… are NVIDIA's, the others people's."""
PLACEHOLDER_NAME = re.compile(r"(FIX_?ME|TODO|YOUR_[A-Z_]+|REPLACE_?ME|CHANGE_?ME)\Z")
MOUNTS_FILES = (".tao_mounts.json", ".tlt_mounts.json")
_HINTS = ("FIX", "path", "YOUR_", "<", "REPLACE", "CHANGE")
_LONGEST_PLACEHOLDER = 500
_ALWAYS_SET = frozenset("PATH PWD SHELL TERM LANG".split())
"""Variables that every kernel has, each with a value of its own."""


class Machine:
    """What the code would find on this machine; nothing of it is changed.

    ``environ`` is what a notebook's kernel would start with, ``folder`` the notebook's own, where it would run.
    ``exists``, ``is_folder`` and ``resolve`` look at the file system, as ``os.path`` does. ``processor`` is what
    ``platform.machine()`` gives.
    """

    def __init__(
        self,
        *,
        home: str,
        folder: str,
        uid: int,
        gid: int,
        environ: Mapping[str, str],
        exists: Callable[[str], bool],
        is_folder: Callable[[str], bool],
        resolve: Callable[[str], str],
        processor: str = "x86_64",
    ) -> None:
        self.home, self.folder, self.uid, self.gid, self.environ = home, folder, uid, gid, environ
        self.exists, self.is_folder, self.resolve, self.processor = exists, is_folder, resolve, processor


class Definition(NamedTuple):
    """One value of an environment variable: what it is, where it was set, whether it is a placeholder."""

    value: Any
    place: Place
    is_placeholder: bool


class Written(NamedTuple):
    """A mounts file as it was written: its path and the value of its JSON, or Unknown."""

    path: str
    value: Any
    place: Place
    is_sure: bool
    text: str | Unknown


class Memory:
    """See the module. ``given`` are the values that a person gave: they win over whatever the code says."""

    def __init__(self, machine: Machine, given: Mapping[str, str]) -> None:
        self.machine, self.given = machine, given
        self.folder: str | Unknown = Text([Part(machine.folder, "folder")])
        self.names: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        self.history: dict[str, list[Definition]] = {}
        """Each environment variable that the code set, and every value that it had, also where it was taken away."""
        self.removed: set[str] = set()
        self.touched: set[str] = set()
        """The variables that the code sets or reads; what is given may be for a name of Python's only."""
        self.used: set[str] = set()
        """Which of ``given`` were of use."""
        self.made_folders: set[str] = set()
        self.unclear: set[str] = set()
        """Paths that the code perhaps made or took away."""
        self.files: list[Written] = []
        self.commands: list[str] = []
        """The commands that the code would have run."""
        self.place = Place(0, 0)
        self.doubts: dict[str, Unknown] = {}
        """Why it is not known whether the code that is followed would run: "here" for a condition around it; "loop",
        "return" and "raise" for a jump that was perhaps taken before, until what would take it is over."""
        self.noted: list[tuple[Place, str]] = []
        for name, value in given.items():
            self._define(name, value, Place(0, 0))

    @property
    def unsure(self) -> Unknown | None:
        """A reason why it is not known whether the code that is followed would run; None where it does."""
        return next(iter(self.doubts.values()), None)

    @contextmanager
    def doubting(self, why: Unknown | None) -> Iterator[None]:
        """Follow code of which it is not known whether it would run, with a reason; None changes nothing."""
        if why is None or "here" in self.doubts:
            yield
            return
        self.doubts["here"] = why
        try:
            yield
        finally:
            del self.doubts["here"]

    # Environment variables

    def environment(self, name: str) -> str | Unknown | None:
        """Give a variable's value, None for one that is not set."""
        if name in self.removed:
            return None
        if name in self.history:
            if name in self.given:
                self.used.add(name)
            self.touched.add(name)
            version = len(self.history[name]) - 1
            value = self.history[name][version].value
            return value if isinstance(value, Unknown) else Text([Part(value, "variable", name, version)])
        if name not in self.machine.environ:
            return self.unknown(f"{name} is the kernel's own") if name in _ALWAYS_SET else None
        if name == "HOME":
            return self.home
        return Text([Part(self.machine.environ[name], "env", name)])

    def set_environment(self, name: Any, value: Any) -> None:
        """Do ``os.environ[name] = value``. Raises Raised as Python does."""
        if isinstance(name, Unknown):
            self.noted.append((self.place, f"sets a variable whose name is not known: {name.reason}"))
            return
        for one in (name, value):
            if not isinstance(one, (str, Unknown)):
                raise Raised("TypeError", f"str expected, not {kind(one)}")
        if not name or "=" in name:
            raise Raised("OSError" if not name else "ValueError", "illegal environment variable name")
        if isinstance(value, str) and ("\0" in value or "\0" in name):
            raise Raised("ValueError", "embedded null byte")
        self.removed.discard(name)
        self.touched.add(name)
        self._define(name, self.answered(name, value), self.place)

    def _define(self, name: str, value: Any, place: Place) -> None:
        if self.unsure is not None:
            before = self.environment(name)
            if not (isinstance(before, str) and isinstance(value, str) and before == value):
                value = self.unsure
        placeholder = isinstance(value, str) and name not in self.given and is_placeholder(value)
        self.history.setdefault(name, []).append(Definition(value, place, placeholder))

    def answered(self, name: str, value: Any) -> Any:
        """Give what the person gave for ``name`` in the place of ``value``, if anything.

        It takes the place of what the code sets first, and of whatever cannot be meant; what the code sets ``name`` to
        for another purpose later on stays, unless it is not known whether it is set.
        """
        if name not in self.given:
            return value
        plain = value if isinstance(value, Unknown) else str(value)
        first = self._first.setdefault(name, plain)
        if isinstance(value, Unknown) or plain == first or is_placeholder(value) or self.unsure is not None:
            self.used.add(name)
            return Text([Part(self.given[name])])
        return value

    def remove_environment(self, name: str) -> None:
        """Do ``del os.environ[name]``, where it is set."""
        if self.unsure is not None:
            self._define(name, self.unsure, self.place)
            return
        self.removed.add(name)  # the history stays: other values were perhaps made of it

    # The folder, and files

    @property
    def home(self) -> str | Unknown:
        """The home, as ``os.path.expanduser("~")`` gives it: the environment's HOME counts."""
        changed = self.environment("HOME") if "HOME" in self.history else None
        return Text([Part(self.machine.home, "home")]) if changed is None else changed

    def expand_home(self, path: str) -> str | Unknown:
        """Give ``os.path.expanduser(path)``."""
        if not path.startswith("~"):
            return path
        if path.partition("/")[0] != "~":
            return self.unknown("the home of another user")
        home = self.home
        return home if isinstance(home, Unknown) else expand_home(path, home)

    def absolute(self, path: str) -> str | Unknown:
        """Give ``os.path.abspath(path)``."""
        return self.folder if isinstance(self.folder, Unknown) else normal_path(join_path(self.folder, path))

    def resolved(self, path: str) -> str | Unknown:
        """Give ``os.path.realpath(path)``: the links of this machine count."""
        absolute = self.absolute(path)
        if isinstance(absolute, Unknown):
            return absolute
        real = self.machine.resolve(absolute)
        return absolute if real == absolute else concat(real)

    def is_folder(self, path: str) -> bool | Unknown:
        """Whether there would be such a folder."""
        absolute = self.absolute(path)
        if isinstance(absolute, Unknown):
            return absolute
        there = str(absolute) in self.made_folders or self.machine.is_folder(absolute)
        return self._told(absolute, there=there)

    def exists(self, path: str) -> bool | Unknown:
        """Whether there would be such a file or folder."""
        absolute = self.absolute(path)
        if isinstance(absolute, Unknown):
            return absolute
        mine = {written.path for written in self.files if written.is_sure} | self.made_folders
        return self._told(absolute, there=str(absolute) in mine or self.machine.exists(absolute))

    def is_file(self, path: str) -> bool | Unknown:
        """Whether there would be such a file, and no folder."""
        there, folder = self.exists(path), self.is_folder(path)
        return there if there is not True or isinstance(folder, Unknown) else not folder

    def _told(self, path: str, *, there: bool) -> bool | Unknown:
        """Tell what was found, unless the code or a command of it may have changed that."""
        if any(path == one or path.startswith(f"{one}/") for one in self.unclear):
            return self.unknown(f"whether '{path}' is there")
        name = path.rpartition("/")[2]
        if not there and name and any(name in command for command in self.commands):
            return self.unknown(f"whether a command that is not run makes '{path}'")
        return there

    def take_away(self, path: Any) -> None:
        """Remember that the code would remove or rename a file or folder."""
        absolute = self.absolute(path) if isinstance(path, str) else None
        if isinstance(absolute, str):
            self.unclear.add(str(absolute))

    def make_folder(self, path: Any) -> None:
        """Remember that the code would make a folder."""
        if isinstance(path, str):
            absolute = self.absolute(path)
            if self.unsure is not None:
                if isinstance(absolute, str) and self.is_folder(absolute) is not True:
                    self.unclear.add(str(absolute))
                return
            self.unclear.discard(str(absolute))
            while isinstance(absolute, str) and absolute not in ("/", "") and absolute not in self.made_folders:
                self.made_folders.add(str(absolute))
                absolute = str(absolute).rpartition("/")[0]

    def change_folder(self, path: Any) -> None:
        """Do ``os.chdir(path)``. Raises Raised where there is no such folder."""
        if not isinstance(path, (str, Unknown)):
            return
        new: str | Unknown = path
        if isinstance(path, str):
            there = self.is_folder(path)
            if there is False:
                raise Raised("FileNotFoundError", f"no such folder: '{path}'")
            new = there if isinstance(there, Unknown) else self.absolute(path)
        if isinstance(new, Unknown) or new != self.folder:
            self.folder = self.unsure or new

    def write_file(self, path: Any, value: Any, text: str | Unknown | None = None) -> None:
        """Note what a mounts file would hold, and as which text; other files are of no interest."""
        if isinstance(path, str) and path.rpartition("/")[2] in MOUNTS_FILES:
            absolute = self.absolute(path)
            where = str(absolute) if isinstance(absolute, str) else path
            told = self.unknown("a file that is read") if text is None else text
            self.files.append(Written(where, value, self.place, self.unsure is None, told))

    def read_file(self, path: Any) -> Written | None:
        """Give a mounts file as the code wrote it itself, None where it did not, or perhaps did not."""
        absolute = self.absolute(path) if isinstance(path, str) else None
        found = next((one for one in reversed(self.files) if one.path == absolute), None)
        return found if found is not None and found.is_sure else None

    def may_set(self, what: str) -> None:
        """Note that something is not followed that may set variables."""
        self.noted.append((self.place, f"{what} is not followed, and may set variables"))

    def unknown(self, reason: str, *of: Any) -> Unknown:
        """Make an unknown value of here; one that comes from another keeps that one's reason."""
        first = next((one for one in of if isinstance(one, Unknown)), None)
        may_be = tuple(one for one in of if one is not first and can_change(one))
        if first is None:
            return Unknown(reason, self.place, may_be)
        # What is made of a text that is known in part is not that text.
        if may_be or isinstance(first, PartlyKnown):
            return Unknown(first.reason, first.place, (*first.may_be, first, *may_be)[:PARTS])
        return first


def is_placeholder(text: str) -> bool:
    """Whether a text stands for what only a person can know, by what it says itself and not by what it refers to."""
    if len(text) > _LONGEST_PLACEHOLDER:
        return False
    own = "\0".join(part.text for part in text.parts if not part.kind) if isinstance(text, Text) else text
    return any(hint in own for hint in _HINTS) and PLACEHOLDER.search(own) is not None
