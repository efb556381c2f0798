"""Where a thing of a mapping stands, for a person: a key of the profile, or a line of the mounts file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Path: TypeAlias = tuple[str | int, ...]
    """A way into a mapping: ("Mounts", 1, "source")."""

    Where: TypeAlias = Callable[..., str]
    """Is given the steps of a path one by one, and says where that stands."""

_LEXEME = r'(?s)"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+'


def in_profile(mapping: Mapping[str, Any]) -> Where:
    """Give the keys of a profile that the things of its ``mapping`` come from."""

    def where(*path: str | int) -> str:
        section, *rest = path or ("",)
        if section == "Mounts" and rest:
            return f"mounts[{rest[0]}]" + "".join(f".{step}" for step in rest[1:])
        if section == "Envs" and rest:
            return f"container.env.{mapping['Envs'][rest[0]]['variable']}"
        if section == "DockerOptions" and rest:
            return ".".join(map(str, ("docker", *rest)))
        return {"Mounts": "mounts", "Envs": "container.env", "DockerOptions": "docker"}.get(str(section), str(section))

    return where


def in_file(name: str, text: str) -> Where:
    """Give the lines of a mounts file, whose ``text`` is JSON; ``name`` is what it is called."""
    numbers = lines(text)[0]

    def where(*path: str | int) -> str:
        known = path
        while known and known not in numbers:
            known = known[:-1]
        spelt = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
        return f"{name}:{numbers.get(known, 1)}" + (f" ({spelt})" if spelt else "")

    return where


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


def lines(text: str) -> tuple[dict[Path, int], list[tuple[Path, int]]]:
    """Give the line (from 1) of every value of a JSON text, and the path and line of each key that comes again.

    The text must be JSON that Python's ``json`` reads; of a key that comes twice it keeps the last, as this does.
    """
    import json

    numbers: dict[Path, int] = {}
    below: dict[Path, list[Path]] = {}  # what is in each object and list: thousands of keys may come twice
    again: list[tuple[Path, int]] = []
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
                again.append((tuple(path), line))
                _forget(numbers, below, tuple(path))
            open_keys[-1].add(key)
            _note(numbers, below, tuple(path), line)
        else:
            _note(numbers, below, tuple(path), line)
    return numbers, again
