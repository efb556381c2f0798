"""Shell scripts that export variables and write a mounts file: the part of the shell's language that such scripts use.

Nothing is run. ``$(…)`` is understood for a few commands that only tell something (pwd, id -u, dirname of the script).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taoprofiles.importer.limits import CALLS, TEXT, Exhausted, Place, Raised, Unknown
from taoprofiles.importer.provenance import Part, Text, concat, split_path, strip
from taoprofiles.importer.state import MOUNTS_FILES
from taoprofiles.importer.values import loads
from taoprofiles.importer.words import Command, Reader

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.importer.limits import Budget
    from taoprofiles.importer.state import Memory

_SUCCEED = frozenset(("export", "declare", "readonly", "typeset", "mkdir", "echo", "printf", "cat", "tee", "true", ":"))
"""Commands that are taken to succeed, so that what stands behind && is run and what stands behind || is not."""

SCRIPT_LIMIT = 1 << 18

_COMMAND = 500
"""Characters of a command within another that are looked at."""
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)\Z", re.ASCII | re.DOTALL)
_OWN_FOLDER = re.compile(
    r"""(?:cd\s+(?:--\s+)?["']?)?\$\(\s*dirname\s+(?:--\s+)?["']?\$(?:0|\{BASH_SOURCE(?:\[0\])?\}|BASH_SOURCE)["']?\s*\)["']?"""
    r"""(?:\s*(?:>\s*/dev/null\s*(?:2>&1)?)?\s*&&\s*pwd(?:\s+-P)?)?\Z|dirname\s+["']?\$(?:0|\{BASH_SOURCE(?:\[0\])?\})["']?\Z"""
)
_OPENS = frozenset(("if", "for", "while", "until", "case", "select"))
_CLOSES = frozenset(("fi", "done", "esac"))


def follow(memory: Memory, script: str, budget: Budget, *, is_script: bool = True) -> None:
    """Follow a script. In a notebook (``is_script`` false) it has variables of its own, as a ``%%bash`` cell has."""
    if len(script) > SCRIPT_LIMIT:
        memory.noted.append((memory.place, f"the script has more than {SCRIPT_LIMIT} characters"))
        return
    shell = _Shell(memory, budget, is_script=is_script)
    try:
        reader = Reader(script)
        for command in reader.commands():
            shell.run(command, reader.functions)
            if shell.is_over:
                return
    except (Exhausted, RecursionError):
        memory.noted.append((memory.place, "it goes on for too long to be followed"))


class _Shell:
    def __init__(self, memory: Memory, budget: Budget, *, is_script: bool) -> None:
        self._memory = memory
        self._is_script = is_script
        self._own: dict[str, str | Unknown] = {}
        self._unsure = 0
        self._last: bool | None = True
        """Whether the last command succeeded, None where that is not known."""
        self._calls = 0
        self.is_over = False
        self._budget = budget
        self._cell = memory.place.cell
        self._first = memory.place.line if not is_script else 0

    def run(self, command: Command, functions: dict[str, list[Command]]) -> None:
        """Follow one command."""
        self._budget.step()
        if command.joined and self._last is not None and self._last is not (command.joined == "&&"):
            return  # it is not run
        depends = bool(command.joined) and self._last is None
        self._memory.place = Place(self._cell, self._first + command.line)
        words = list(command.words)
        while words and words[0] in ("then", "else", "do", "{", "}", "!", "time", "set", "elif"):
            words.pop(0)
        if words and words[0] in _OPENS:
            self._unsure += 1
        elif words and words[0] in _CLOSES:
            self._unsure = max(0, self._unsure - 1)
        unsure = Unknown("set where it is not known whether that is run", self._memory.place)
        first = words[0] if words else ""
        plain = first in _SUCCEED or bool(words and all(_ASSIGNMENT.match(word) for word in words)) or not words
        self._last = False if first == "false" else True if plain else None
        try:
            with self._memory.doubting(unsure if self._unsure or depends else None):
                if first in functions and self._calls < CALLS:
                    self._call(functions[first], functions, unsure)
                elif first == "exit" and self._memory.unsure is None:
                    self.is_over = True
                else:
                    self._command(words, command)
        except Raised as error:
            self._memory.noted.append((self._memory.place, str(error)))

    def _call(self, body: list[Command], functions: dict[str, list[Command]], unsure: Unknown) -> None:
        """Follow a function: what it sets may depend on its arguments."""
        self._calls += 1
        with self._memory.doubting(unsure):
            for command in body:
                self.run(command, functions)
        self._calls -= 1

    def _command(self, words: list[str], command: Command) -> None:
        first = words[0] if words else ""
        if first in ("export", "declare", "typeset", "readonly", "local"):
            is_export = first == "export" or "-x" in words
            for word in words[1:]:
                self._export(word) if is_export else self._assign(word)
        elif first == "unset":
            for name in words[1:]:
                self._own.pop(name, None)
                self._memory.remove_environment(name)
        elif first == "cd" and len(words) == 2:
            self._memory.change_folder(self.expand(words[1]))
        elif first == "mkdir":
            for word in words[1:]:
                if not word.startswith("-"):
                    self._memory.make_folder(self.expand(word))
        elif words and all(_ASSIGNMENT.match(word) for word in words):
            for word in words:
                self._assign(word)
        elif first == ":":
            for word in words[1:]:
                self.expand(word)  # for the sake of ${NAME:=…}
        if command.target is not None:
            self._write(words, command)

    def _export(self, word: str) -> None:
        match = _ASSIGNMENT.match(word)
        if match is not None:
            self._set(match[1], self.expand(match[2]), export=True)
        elif _NAME.fullmatch(word) and word in self._own:
            self._set(word, self._own[word], export=True)

    def _assign(self, word: str) -> None:
        match = _ASSIGNMENT.match(word)
        if match is not None:
            exported = self._is_script and match[1] in self._memory.history
            self._set(match[1], self.expand(match[2]), export=exported)

    def _set(self, name: str, value: str | Unknown, *, export: bool) -> None:
        if export and self._is_script:
            self._own.pop(name, None)
            self._memory.set_environment(name, value)
        else:
            value = self._memory.answered(name, value)
            self._own[name] = self._memory.unsure or value

    def _write(self, words: list[str], command: Command) -> None:
        path = self.expand(command.target or "")
        if isinstance(path, Unknown) or not path.endswith(MOUNTS_FILES):
            return
        text: str | Unknown | None = None
        if command.here is not None:
            text = self.expand(command.here, quoted=True) if command.expands else command.here
        elif words and words[0] in ("echo", "printf"):
            given = [self.expand(word) for word in words[1:] if word not in ("-e", "-n", "-E", "%s", "'%s\\n'")]
            known = [one for one in given if isinstance(one, str)]
            text = (
                concat(" ".join(known))
                if len(known) == len(given)
                else next(o for o in given if not isinstance(o, str))
            )
        value: Any = text if isinstance(text, Unknown) else None
        if isinstance(text, str):
            try:
                value = _with_origins(loads(str(text)), text)
            except Raised as error:
                self._memory.noted.append(
                    (self._memory.place, f"what is written to '{path}' is not valid JSON: {error}")
                )
                return
        if value is None:
            value = self._memory.unknown("written by a command that is not followed")
        self._memory.write_file(path, value)

    def expand(self, word: str, *, quoted: bool = False) -> str | Unknown:
        """Expand a word: quotes, ``~``, variables and a few substitutions; with ``quoted`` as inside of "…"."""
        self._budget.made(len(word))
        made: list[str] = []
        at, inside = 0, '"' if quoted else ""
        if not quoted and (word == "~" or word.startswith("~/")):
            home = self._memory.expand_home("~")
            if isinstance(home, Unknown):
                return home
            made.append(home)
            at = 1
        while at < len(word):
            self._budget.step()
            character = word[at]
            if character == "'" and not inside:
                end = word.find("'", at + 1)
                end = len(word) if end < 0 else end
                made.append(word[at + 1 : end])
                at = end + 1
            elif character == '"' and not quoted:
                inside = "" if inside else '"'
                at += 1
            elif character == "\\" and at + 1 < len(word):
                keep = inside and word[at + 1] not in '"\\$`\n'
                made.append(word[at : at + 2] if keep else word[at + 1].replace("\n", ""))
                at += 2
            elif character in "$`":
                value, at = self._substituted(word, at)
                if isinstance(value, Unknown):
                    return value
                self._budget.made(len(value))
                made.append(value)
            else:
                end = at + 1
                while end < len(word) and word[end] not in "'\"\\$`":
                    end += 1
                made.append(word[at:end])
                at = end
        if sum(map(len, made)) > TEXT:
            return self._memory.unknown("a very long text")
        return concat("", *made)

    def _substituted(self, word: str, at: int) -> tuple[str | Unknown, int]:
        if word[at] == "`":
            end = word.find("`", at + 1)
            return self._told(word[at + 1 : end]), len(word) if end < 0 else end + 1
        if word.startswith("$(", at):
            end = _closing(word, at + 1, "(", ")")
            return self._told(word[at + 2 : end]), end + 1
        if word.startswith("${", at):
            end = _closing(word, at + 1, "{", "}")
            return self._parameter(word[at + 2 : end]), end + 1
        name = _NAME.match(word, at + 1)
        if name is None:
            strange = word[at + 1 : at + 2] in tuple("0123456789@*#?$!-")
            return (self._memory.unknown(f"'{word[at : at + 2]}' of a shell"), at + 2) if strange else ("$", at + 1)
        return self._variable(name[0]) or "", name.end()

    def _parameter(self, inner: str) -> str | Unknown:
        match = re.fullmatch(r"([A-Za-z_]\w*)(?:(:?[-=?])(.*))?", inner, re.ASCII | re.DOTALL)
        if match is None:
            return self._memory.unknown("a parameter expansion of the shell")
        name, operator, word = match.groups()
        value = self._variable(name)
        if operator is None or (value is not None and (value != "" or not operator.startswith(":"))):
            return value or ""
        if operator.endswith("?"):
            raise Raised(name, "has to be set")
        default = self.expand(word)
        if operator.endswith("="):
            self._set(name, default, export=False)
        return default

    def _variable(self, name: str) -> str | Unknown | None:
        if name in self._own:
            return self._own[name]
        if name in ("PWD",) and name not in self._memory.history:
            return self._memory.folder
        if name == "UID":
            return Text([Part(str(self._memory.machine.uid), "uid")])
        return self._memory.environment(name)

    def _told(self, command: str) -> str | Unknown:
        """Give what a command prints, for the few that only tell something."""
        command, memory = command.strip()[:_COMMAND], self._memory
        if command in ("pwd", "pwd -P", "pwd -L"):
            return memory.folder
        if command in ("id -u", "id -g"):
            what = "uid" if command == "id -u" else "gid"
            return Text([Part(str(getattr(memory.machine, what)), what)])
        if command in ("whoami", "id -un"):
            return memory.environment("USER") or memory.unknown("the user's name")
        if _OWN_FOLDER.fullmatch(command):
            return Text([Part(memory.machine.folder, "folder")])
        match = re.fullmatch(r"(dirname|basename|realpath|readlink -f)\s+(\S+)", command)
        if match is not None:
            value = self.expand(match[2])
            if isinstance(value, Unknown):
                return value
            if match[1] in ("dirname", "basename"):
                return split_path(strip(value, "/", left=False))[match[1] == "basename"] or concat(".")
            absolute = memory.absolute(value)
            return absolute if isinstance(absolute, Unknown) else concat(memory.machine.resolve(absolute))
        return memory.unknown(f"$({command[:40]}) is not run")


def _closing(word: str, at: int, opening: str, closing: str) -> int:
    depth = 0
    for number in range(at, len(word)):
        if word[number] == opening:
            depth += 1
        elif word[number] == closing:
            depth -= 1
            if depth == 0:
                return number
    return len(word)


def _with_origins(value: Any, text: str) -> Any:
    """Give a JSON value the origins of the text that it was read from, where a text stands in it as it is."""
    if not isinstance(text, Text) or all(not part.kind for part in text.parts):
        return value
    from taoprofiles.importer.provenance import cut

    def traced(inner: Any, at: list[int]) -> Any:
        if isinstance(inner, dict):
            return {key: traced(one, _past(text, key, at)) for key, one in inner.items()}
        if isinstance(inner, list):
            return [traced(one, at) for one in inner]
        if isinstance(inner, str):
            found = text.find(inner, at[0])
            if inner and found >= 0:
                at[0] = found + len(inner)
                return cut(text, found, found + len(inner))
        return inner

    return traced(value, [0])


def _past(text: str, key: str, at: list[int]) -> list[int]:
    found = text.find(key, at[0])
    if found >= 0:
        at[0] = found + len(key)
    return at
