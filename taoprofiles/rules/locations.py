"""Where a part of a mapping stands, for a person: a key of the profile, or a line of the mounts file."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from taoprofiles.launcher.prediction import Location

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Path: TypeAlias = tuple[str | int, ...]
    """The steps into a mapping: ("Mounts", 1, "source")."""

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


def in_file(name: str, text: str) -> Locator:
    """Return a locator that gives the lines of a mounts file; ``text`` is its content, ``name`` its name."""
    import json

    numbers: dict[Path, int] = {}
    with suppress(ValueError, RecursionError):
        json.loads(text)
        numbers = find_lines(text)

    def locate(location: Location) -> str:
        section, number, key = location
        if section in ("login", "command", "environ", "config", "--volume"):
            return str(location)
        start: Path = () if section == "file" else (section,) if number is None else (section, number)
        path = (*start, key) if (*start, key) in numbers or not key else (*start, *key.split("."))
        while path and path not in numbers:
            path = path[:-1]
        spelled = key if section == "file" else str(location)
        return f"{name}:{numbers.get(path, 1)}" + (f" ({spelled})" if spelled else "")

    return locate


def _forget(numbers: dict[Path, int], below: dict[Path, list[Path]], start: Path) -> None:
    waiting = [start]
    while waiting:
        path = waiting.pop()
        numbers.pop(path, None)
        waiting += below.pop(path, [])


def _note(numbers: dict[Path, int], below: dict[Path, list[Path]], path: Path, line: int) -> None:
    if path not in numbers:
        numbers[path] = line
        below.setdefault(path[:-1], []).append(path)


def find_lines(text: str) -> dict[Path, int]:
    """Return the line (from 1) of every value of a JSON text.

    The text must be JSON that Python's ``json`` reads; of a key that comes twice both keep the last.
    """
    import json

    numbers: dict[Path, int] = {}
    below: dict[Path, list[Path]] = {}  # by object or list its parts: thousands of keys may come twice
    path: list[str | int] = []
    open_keys: list[set[str]] = []
    line, at, key = 1, 0, ""
    expects_key = False
    for token in re.finditer(_LEXEME, text):
        line, at = line + text.count("\n", at, token.start()), token.start()
        word = token.group()
        if word in "{[":
            _note(numbers, below, tuple(path), line)
            expects_key = word == "{"
            open_keys.append(set())
            path.append("" if expects_key else 0)
        elif word in "}]":
            path.pop()
            open_keys.pop()
        elif word == ",":
            last = path[-1]
            expects_key = isinstance(last, str)
            path[-1] = last if isinstance(last, str) else last + 1
        elif word == ":":
            expects_key = False
        elif expects_key:
            key = json.loads(word, strict=False)
            path[-1] = key
            if key in open_keys[-1]:
                _forget(numbers, below, tuple(path))
            open_keys[-1].add(key)
            _note(numbers, below, tuple(path), line)
        else:
            _note(numbers, below, tuple(path), line)
    return numbers
