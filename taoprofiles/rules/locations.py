"""Locations of a mapping's parts as findings name them: a key of the profile, or a line of the mounts file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from taoprofiles.launcher.prediction import Location

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


class Lines(NamedTuple):
    """The line (from 1) of a JSON value, and its parts by key or index."""

    line: int
    parts: dict[str | int, Lines]
    is_object: bool = False

    def find(self, path: Iterable[str | int]) -> Lines:
        """Return the value at a path, or the last one on the way to it."""
        value = self
        for step in path:
            if step not in value.parts:
                break
            value = value.parts[step]
        return value


def in_file(name: str, text: str) -> Locator:
    """Return a locator that gives the lines of a mounts file; ``text`` is its content, ``name`` its name."""
    import json

    top = Lines(1, {})
    with suppress(ValueError, RecursionError):
        json.loads(text)
        top = find_lines(text)

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
    """Return the lines of a JSON text that Python's ``json`` reads; of a key that comes twice both keep the last."""
    import json

    top = Lines(1, {})
    open_values = [top]
    line, at = 1, 0
    key: tuple[str, int] | None = None  # of the object's next value, and its line
    for token in re.finditer(_LEXEME, text):
        line, at = line + text.count("\n", at, token.start()), token.start()
        word, parent = token.group(), open_values[-1]
        if word in "}]":
            open_values.pop()
        elif parent.is_object and key is None and word != ",":
            key = json.loads(word, strict=False), line
        elif word not in ",:":
            value = Lines(key[1] if key else line, {}, word == "{")
            parent.parts[key[0] if key else len(parent.parts)] = value
            key = None
            if word in "{[":
                open_values.append(value)
    return top.parts.get(0, top)
