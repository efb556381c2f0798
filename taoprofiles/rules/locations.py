"""Locations of a mapping's parts as findings name them: a key of the profile, or a line of the mounts file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from taoprofiles.launcher.host import Location

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


_NO_PARTS: Mapping[str | int, Lines] = {}


class Lines:
    """The line (from 1) of a JSON value, its parts by key or index, and the keys that it has twice."""

    __slots__ = ("line", "parts", "repeated")

    def __init__(self, line: int) -> None:
        self.line = line
        # A mounts file has room for 300,000 values: what one does not have takes no memory.
        self.parts: Mapping[str | int, Lines] = _NO_PARTS
        self.repeated: list[str] | None = None

    def find(self, path: Iterable[str | int]) -> Lines:
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
