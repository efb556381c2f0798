"""The mapping: the content of a mounts file, as bytes, as data, and what differs between two."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidStateError
from taoprofiles.masking import MASK, is_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any, TypeAlias

    _Thing: TypeAlias = tuple[str, str, str, int]
    """What it is, the section that it stands in, its name as JSON, and how many of that name came before it."""

DOCKER_OPTIONS = frozenset(("user", "ports", "shm_size", "ulimits", "privileged", "network", "tty"))
"""All that the launcher takes: VALID_DOCKER_ARGS of nvidia-tao 6.26.3. What else stands there may be a secret."""
DEPTH_LIMIT = 100
_LISTS = {"Mounts": ("mount", "destination", "source"), "Envs": ("env", "variable", "value")}


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
    except UnicodeDecodeError:
        raise InvalidStateError(f"'{where}' is not valid JSON: it is not UTF-8 text") from None
    except ValueError:  # Python reads at most 4300 digits
        raise InvalidStateError(f"'{where}' has a number of too many digits") from None
    except RecursionError:
        raise InvalidStateError(f"'{where}' is nested too deeply") from None
    if not isinstance(mapping, dict):
        raise InvalidStateError(f"'{where}' is not a mounts file: it holds {_json_kind(mapping)}, not an object")
    level: list[Any] = [mapping]
    depth = 0
    while level:  # what can be read but not written again would be an error later on
        depth += 1
        if depth > DEPTH_LIMIT:
            raise InvalidStateError(f"'{where}' is nested too deeply")
        inner = (part for one in level for part in (one.values() if isinstance(one, dict) else one))
        level = [part for part in inner if isinstance(part, (dict, list))]
    return mapping


def secrets(mapping: dict[str, Any], *, derived: Collection[str] = ()) -> list[str]:
    """Name the container's variables that are secrets by their name; ``derived`` names others that hold one."""
    named = dict.fromkeys(_plain(name) for what, _, name, _ in _flat(mapping) if what == "env")
    return [name for name in named if name in derived or is_secret(name)]


def same(a: bytes | None, b: bytes | None) -> bool:
    """Tell whether two mounts files come to the same mapping, however they are written: nothing differs (``changes``).

    The order of mounts and of variables does not count, except of two with one name.
    """
    if a is None or b is None or a == b:
        return a == b
    try:
        return _flat(parse(a, "")) == _flat(parse(b, ""))
    except InvalidStateError:
        return False


def digest(content: bytes) -> str:
    """Give one name for all the mounts files that are the ``same``."""
    import hashlib

    try:
        content = b"mapping " + _json(sorted(_flat(parse(content, "")).items())).encode()
    except InvalidStateError:
        content = b"bytes " + content
    return hashlib.sha256(content).hexdigest()


def mounts(content: bytes | None) -> dict[str, str]:
    """Give what the launcher makes of a mounts file's Mounts: destination by source, both resolved on this host.

    ``formatted_mounts`` in docker_handler.py of nvidia-tao 6.26.3; {} for what is no mounts file.
    """
    try:
        return {} if content is None else mounted(parse(content, ""))
    except InvalidStateError:
        return {}


def mounted(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Do as ``mounts`` with what the file says; {} where that is of no sound form."""
    import os

    try:
        return {
            os.path.realpath(os.path.expanduser(mount["source"])): os.path.realpath(mount["destination"])
            for mount in mapping.get("Mounts", [])
        }
    except (TypeError, KeyError, ValueError):
        return {}


class Change:
    """One thing that differs: ``what`` is mount, env, docker or other, ``key`` says which; None stands for absent.

    ``secret`` says that its values must not be shown unless it is asked for.
    """

    __slots__ = ("a", "b", "key", "secret", "what")

    def __init__(self, what: str, key: str, a: str | None, b: str | None, *, secret: bool) -> None:
        self.what, self.key, self.a, self.b, self.secret = what, key, a, b, secret

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
        return MASK if self.secret and not reveal and value not in (None, "[]") else value


def changes(a: dict[str, Any], b: dict[str, Any], *, secrets: Collection[str] = ()) -> list[Change]:
    """Tell what differs between two mappings, mount by mount, by what each appears as in the container.

    ``secrets`` names variables of the container that hold secrets, whatever they are called.
    """
    flat_a, flat_b = _flat(a), _flat(b)
    return [
        _change(thing, flat_a.get(thing), flat_b.get(thing), secrets)
        for thing in dict.fromkeys([*flat_a, *flat_b])
        if flat_a.get(thing) != flat_b.get(thing)
    ]


def _change(thing: _Thing, a: str | None, b: str | None, secrets: Collection[str]) -> Change:
    what, section, name, number = thing
    key = _plain(name)
    secret = {
        "mount": False,
        "env": key in secrets or is_secret(key),
        "docker": key not in DOCKER_OPTIONS or is_secret(key),
        "other": True,  # nobody knows what it holds
    }[what]
    key = f"{section} {key}".strip() if what == "other" else key
    old, new = (None if value is None else _plain(value) for value in (a, b))
    if old == new:
        old, new = a, b  # the text "1" and the number 1
    return Change(what, key + " (again)" * number, old, new, secret=secret)


def _flat(mapping: dict[str, Any]) -> dict[_Thing, str]:
    """Give each thing that a mapping says, and its value, as JSON: equal just where the launcher does alike.

    Without Envs and with empty ones it does, and so with DockerOptions; Mounts it must have.
    """
    flat: dict[_Thing, str] = {}
    for section, value in mapping.items():
        if section in _LISTS and isinstance(value, list):
            _put_all(flat, section, value)
        elif section == "DockerOptions" and isinstance(value, dict):
            for key, option in value.items():
                flat["docker", section, _json(key), 0] = _json(option)
        else:
            flat["other", "", _json(section), 0] = _json(value)
    if mapping.get("Mounts") == []:
        flat["other", "", _json("Mounts"), 0] = "[]"
    return flat


def _put_all(flat: dict[_Thing, str], section: str, items: list[Any]) -> None:
    what, key, value = _LISTS[section]
    malformed = []
    seen: dict[str, int] = {}
    for item in items:
        if not (isinstance(item, dict) and key in item and value in item):
            malformed.append(_json(item))
            continue
        name = _json(item[key])
        number = seen[name] = seen.get(name, -1) + 1
        flat[what, section, name, number] = _json(item[value])
        more = {other: item[other] for other in item if other not in (key, value)}
        if more:
            flat["other", section, name, number] = _json(more)
    for number, text in enumerate(sorted(malformed)):
        flat["other", section, "", number] = text


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _plain(text: str) -> str:
    """Give a text that stands in JSON without its quotes, and anything else as it is."""
    value = json.loads(text) if text[:1] == '"' else text
    return str(value)


def _json_kind(value: object) -> str:
    kinds = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "nothing")
