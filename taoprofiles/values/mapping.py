"""The mapping: the content of a mounts file, as bytes, as data, and what differs between two."""

from __future__ import annotations

import json

from taoprofiles.errors import InvalidStateError
from taoprofiles.values.secret import MASK, is_secret, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def to_bytes(mapping: dict[str, Any]) -> bytes:
    """Write a mapping as the launcher reads it: the same bytes for the same mapping.

    ASCII only: the launcher opens the file in the encoding of the locale, whatever that is.
    """
    return (json.dumps(mapping, indent=4) + "\n").encode("ascii")


def parse(content: bytes, where: str) -> dict[str, Any]:
    """Read what a mounts file holds. Raises InvalidStateError, with line and column where it is not JSON."""
    try:
        mapping = json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise InvalidStateError(
            f"'{where}' is not valid JSON: {error.msg.lower()}, line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else "it is not UTF-8 text"
        raise InvalidStateError(f"'{where}' is not valid JSON: {reason}") from None
    if not isinstance(mapping, dict):
        raise InvalidStateError(f"'{where}' is not a mounts file: it holds {_json_kind(mapping)}, not an object")
    return mapping


def secrets(mapping: dict[str, Any]) -> list[str]:
    """Name the container's variables whose values are secrets."""
    return [key for (what, key) in _flat(mapping) if what == "env" and is_secret(key)]


def same(a: bytes | None, b: bytes | None) -> bool:
    """Tell whether two mounts files come to the same mapping, however they are written."""
    if a is None or b is None:
        return a is b
    if a == b:
        return True
    try:
        return parse(a, "") == parse(b, "")
    except InvalidStateError:
        return False


class Change:
    """One thing that differs: ``what`` is mount, env, docker or other, ``key`` says which; None stands for absent."""

    __slots__ = ("a", "b", "key", "what")

    def __init__(self, what: str, key: str, a: str | None, b: str | None) -> None:
        self.what, self.key, self.a, self.b = what, key, a, b

    def as_dict(self, *, reveal: bool) -> dict[str, Any]:
        """Give the fields, secrets masked."""
        return {"what": self.what, "key": self.key, "a": self._shown(self.a, reveal), "b": self._shown(self.b, reveal)}

    def lines(self, *, reveal: bool) -> list[str]:
        """Say it in one or two lines, the first file's with ``-``, the second's with ``+``."""
        lines = []
        for sign, value in (("-", self._shown(self.a, reveal)), ("+", self._shown(self.b, reveal))):
            if value is not None:
                text = f"{value} on {self.key}" if self.what == "mount" else f"{self.key} = {value}"
                lines.append(f"{sign} {self.what} {text}")
        return lines

    def _shown(self, value: str | None, reveal: bool) -> str | None:
        if value is None or reveal or self.what == "mount":
            return value
        return MASK if self.what == "other" else shown(self.key, value, reveal=False)


def changes(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    """Tell what differs between two mappings, mount by mount, by what each appears as in the container."""
    flat_a, flat_b = _flat(a), _flat(b)
    return [
        Change(what, key, flat_a.get((what, key)), flat_b.get((what, key)))
        for what, key in dict.fromkeys([*flat_a, *flat_b])
        if flat_a.get((what, key)) != flat_b.get((what, key))
    ]


def _flat(mapping: dict[str, Any]) -> dict[tuple[str, str], str]:
    flat: dict[tuple[str, str], str] = {}
    for section, value in mapping.items():
        if section == "Mounts" and isinstance(value, list):
            _put_all(flat, "mount", value, "destination", "source")
        elif section == "Envs" and isinstance(value, list):
            _put_all(flat, "env", value, "variable", "value")
        elif section == "DockerOptions" and isinstance(value, dict):
            for key, option in value.items():
                flat["docker", key] = _plain(option)
        else:
            flat["other", section] = _plain(value)
    return flat


def _put_all(flat: dict[tuple[str, str], str], what: str, items: list[Any], key: str, value: str) -> None:
    for number, item in enumerate(items):
        if isinstance(item, dict) and key in item and value in item:
            name, text = _plain(item[key]), _plain(item[value])
        else:
            flat["other", f"{what}[{number}]"] = _plain(item)  # malformed, and nobody knows what it holds
            continue
        while (what, name) in flat:
            name += " (again)"
        flat[what, name] = text


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _json_kind(value: object) -> str:
    kinds = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "nothing")
