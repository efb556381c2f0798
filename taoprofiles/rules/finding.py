"""A finding: one problem of a profile, a mapping file or a machine, and the functions with which rules create it.

Its location in a mapping is a key of the profile, or a line of the mounts file.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from taoprofiles.launcher.behaviour import Location
from taoprofiles.storage.paths import Context

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)


class Finding(NamedTuple):
    """One problem.

    ``id`` has a section of its name in docs/reference/checks.md, and never changes. ``where`` is a key of the profile
    (``mounts[1].source``), a file and line (``train.yaml:12``) or a part of the machine (``PATH``); ``what`` is the
    fault in one sentence that begins in lower case, ``why`` its consequence, and ``hint`` the next step, with a command
    to paste if there is one. ``fix`` is what ``check --fix`` does: ("set", "docker.user=auto"), ("unset", key),
    ("mkdir", folder) or ("chmod", file); () if a person must choose. ``by_hand``: a person must edit the place.
    ``check.fix.add_commands`` replaces the hint for a set or unset, and adds the command for an edit by hand.
    """

    id: str
    where: str
    what: str
    why: str = ""
    hint: str = ""
    severity: str = ERROR
    fix: tuple[str, ...] = ()
    by_hand: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for programs."""
        fields = {name: getattr(self, name) for name in ("id", "severity", "where", "what", "why", "hint")}
        return {**fields, "fix": list(self.fix)}

    def lines(self) -> list[str]:
        """Return the text for people: the problem, then its consequence and the hint, indented."""
        lines = [f"{self.severity}: {self.where}: {self.what} [{self.id}]"]
        lines += [f"  {self.why}"] if self.why else []
        return lines + ([f"  hint: {self.hint}"] if self.hint else [])


def error(id: str, where: str, what: str, why: str = "", hint: str = "", **more: Any) -> Finding:
    """Return the finding of something that cannot work."""
    return Finding(id, where, what, why, hint, **more)


def warning(id: str, where: str, what: str, why: str = "", hint: str = "", **more: Any) -> Finding:
    """Return the finding of something that often does not work."""
    return Finding(id, where, what, why, hint, severity=WARNING, **more)


def quoted(path: str) -> str:
    """Return a path as a word of a shell, for hints."""
    if re.fullmatch(r"[\w./-]+", path, re.ASCII):
        return path
    import shlex  # not at the start of 'use'

    return shlex.quote(path)


def quoted_short(context: Context, path: str) -> str:
    """Return a path as a word of a shell, with ``~`` for the home if nothing in it must be quoted."""
    short = context.short(path)
    return short if re.fullmatch(r"[\w~./-]+", short) else quoted(path)


def without_sudo(findings: Iterable[Finding], uid: int) -> list[Finding]:
    """Return the findings; for root without sudo in their hints, since a container may not have it."""
    if uid != 0:
        return list(findings)
    return [finding._replace(hint=finding.hint.replace("sudo ", "")) for finding in findings]


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with errors first, then warnings, else in the same order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return the number of findings by severity."""
    severities = [finding.severity for finding in findings]
    return {severity: severities.count(severity) for severity in SEVERITIES}


Locator: TypeAlias = Callable[[Location], str]
"""Returns the name of a location."""

_LEXEME = r'(?s)"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+'
_SECTIONS = {"Mounts": "mounts", "Envs": "container.env", "DockerOptions": "docker"}


def in_profile(mapping: Mapping[str, Any]) -> Locator:
    """Return a locator that names the keys of the profile from which ``mapping`` is rendered."""

    def locate(location: Location) -> str:
        section, number, key = location
        name = _SECTIONS.get(section)
        if name is None:
            return str(location)
        if section == "Envs" and number is not None:
            return f"{name}.{mapping['Envs'][number]['variable']}"
        return str(Location(name, number, key))

    return locate


_NO_PARTS: Mapping[str | int, "Lines"] = {}


class Lines:
    """The line (from 1) of a JSON value, its parts by key or index, and the keys that it has twice."""

    __slots__ = ("line", "parts", "repeated")

    def __init__(self, line: int) -> None:
        self.line = line
        # A mounts file has room for 300,000 values: what one does not have takes no memory.
        self.parts: Mapping[str | int, Lines] = _NO_PARTS
        self.repeated: list[str] | None = None

    def find(self, path: Iterable[str | int]) -> "Lines":
        """Return the value at a path, or the last one on the way to it."""
        value = self
        for step in path:
            if step not in value.parts:
                break
            value = value.parts[step]
        return value


def in_file(name: str, top: Lines) -> Locator:
    """Return a locator that gives the lines of a mounts file; ``top`` is its content, ``name`` its name."""

    def locate(location: Location) -> str:
        section, number, key = location
        if section in ("login", "command", "environ", "config", "--volume"):
            return str(location)
        start = top if section == "file" else top.find([section] if number is None else [section, number])
        part = key if section == "file" else str(location)
        line = start.find([key] if key in start.parts else key.split(".")).line
        return f"{name}:{line}" + (f" ({part})" if part else "")

    return locate


def find_lines(text: str) -> Lines:
    """Return the lines of a JSON text; for one that Python's ``json`` does not read, the first line alone.

    Of a key that comes twice, both keep the last.
    """
    import json

    top = Lines(1)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return top
    parent, parts, is_object = top, dict[str | int, Lines](), False
    outer: list[tuple[Lines, dict[str | int, Lines], bool]] = []
    top.parts = parts
    line, at = 1, 0
    key: tuple[str, int] | None = None  # of the object's next value, and its line
    for token in re.finditer(_LEXEME, text):
        word, start = token.group(), token.start()
        line, at = line + text.count("\n", at, start), start
        if word in "}]":
            parent.parts = parts or _NO_PARTS
            parent, parts, is_object = outer.pop()
        elif is_object and key is None and word != ",":
            name = json.loads(word, strict=False) if "\\" in word else word[1:-1]
            key = name, line
            if name in parts:
                parent.repeated = parent.repeated or []
                parent.repeated.append(name)
        elif word not in ",:":
            value = Lines(key[1] if key else line)
            parts[key[0] if key else len(parts)] = value
            key = None
            if word in "{[":
                outer.append((parent, parts, is_object))
                parent, parts, is_object = value, {}, word == "{"
    return top.parts.get(0, top)
