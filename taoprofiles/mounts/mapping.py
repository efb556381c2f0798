"""The mapping, the content of a mounts file: parsing, canonical bytes, digest and differences."""

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from taoprofiles.errors import InvalidStateError
from taoprofiles.masking import MASK, is_copied, is_secret
from taoprofiles.storage import files
from taoprofiles.storage.journal import digest_of
from taoprofiles.system.filesystem import real_paths

DEPTH_LIMIT = 100
_LISTS = {"Mounts": ("mount", "destination", "source"), "Envs": ("env", "variable", "value")}
"""By list: its name in a Difference, and the launcher's two keys, first the one that identifies an entry."""


def to_bytes(mapping: dict[str, Any]) -> bytes:
    """Return a mapping as the launcher reads it, the same bytes for the same mapping.

    ASCII only, since the launcher opens the file in the encoding of the locale.
    """
    return (json.dumps(mapping, indent=4) + "\n").encode("ascii")


def parse(content: bytes, where: str) -> dict[str, Any]:
    """Parse a mounts file; ``where`` names it. Raises InvalidStateError, with line and column if it is not JSON."""
    mapping, problem = files.parse_json(content)
    if problem:
        problem = problem if content.strip() else "it is empty"
        _, _, hint = explain_json_error(content.decode("utf-8", "replace"))
        raise InvalidStateError(f"'{where}' is not valid JSON: {problem}", hint=hint)
    if not isinstance(mapping, dict):
        kinds = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
        kind = kinds.get(type(mapping), "nothing")
        raise InvalidStateError(f"'{where}' is not a mounts file: it holds {kind}, not an object")
    if is_deeper(mapping, DEPTH_LIMIT):  # json reads deeper nesting than it writes
        raise InvalidStateError(f"'{where}' is nested too deeply")
    return mapping


def is_deeper(value: Any, limit: int) -> bool:
    """Check whether a value has more lists and objects inside each other than ``limit``."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        inner = (part for item in level for part in (item.values() if isinstance(item, dict) else item))
        level = [part for part in inner if isinstance(part, (dict, list))]
    return bool(level)


_JSON_HINTS = (
    (r"\Z", "the end is missing: close every { and ["),
    (r"[\]}]", "is there a comma too many, or a value missing?"),
    (r"['\u2018\u2019\u201c\u201d]", 'JSON has only straight double quotes: "…"'),
    (r"//|/\*|#", "JSON has no comments: remove it"),
    (r"(?:None|True|False)\b", "in JSON this is null, true or false"),
    (r"(?:import|from|with)\s|[A-Za-z_]\w*\s*=[^=]", "this is Python code: save it as a .py file and import that"),
    (r"(?P<text>[/~][^\s\"{}\[\],]*|Mounts|Envs|DockerOptions|source|destination)", 'texts need double quotes: "{}"'),
    (r"[^\"]", "texts need double quotes"),  # not quoted here, since it may be a secret
)
"""By what stands where a JSON parser stops: what is probably wrong."""


def explain_json_error(text: str) -> tuple[int, str, str]:
    """Return why a text is not JSON: the line, the problem and a hint; of a trailing comma, the comma's line."""
    if not text.strip():
        return 1, "it is not JSON: it is empty", 'the smallest mapping is {"Mounts": []}'
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        before, rest = text[: error.pos].rstrip(), text[error.pos :]
        after = rest.lstrip(", \t\r\n")
        if after[:1] in ("]", "}") and (before.endswith(",") or rest.startswith(",")):
            what = f"it is not JSON: there is a ',' before the closing '{after[0]}'"
            return before.count("\n") + 1, what, "remove that ','"
        what, hint = f"it is not JSON: {error.msg.lower()}, column {error.colno}", ""
        if "BOM" in error.msg:  # no editor shows it
            hint = "save it as UTF-8 without a byte order mark (in vi: ':set nobomb')"
        elif error.msg == "Extra data":
            hint = "the mapping ends before this: keep one of the two, as one object { … }"
        elif error.msg.startswith("Expecting ','") and rest.strip()[:1] not in ("", "/", "#"):
            hint = "is there a comma missing before this?"
        elif error.msg.startswith("Expecting"):
            matches = ((re.match(pattern, rest.strip()), hint) for pattern, hint in _JSON_HINTS)
            match, hint = next(((match, hint) for match, hint in matches if match), (None, ""))
            hint = hint.format(*match.groups()) if match and match.groups() else hint
        return error.lineno, what, hint
    except (ValueError, RecursionError):  # a number too long, or nested too deeply
        pass
    return 1, "it is not JSON", ""


def secrets(mapping: dict[str, Any], *, derived: Collection[str] = ()) -> list[str]:
    """Return the container variables that are secret, or are in ``derived``: they contain a secret."""
    values = {_plain(name): _plain(value) for (what, _, name, _), value in _flat(mapping).items() if what == "env"}
    return [name for name, value in values.items() if name in derived or is_secret(name, value)]


def same(a: bytes | None, b: bytes | None) -> bool:
    """Check whether two mounts files contain the same mapping, with its sources written alike.

    The order of mounts and of variables counts only between two of the same name.
    """
    if a is None or b is None or a == b:
        return a == b
    try:
        return _flat(parse(a, "")) == _flat(parse(b, ""))
    except InvalidStateError:
        return False


def digest(content: bytes) -> str:
    """Return one digest for all mounts files that are the ``same``."""
    try:
        content = b"mapping " + _json(sorted(_flat(parse(content, "")).items())).encode()
    except InvalidStateError:
        content = b"bytes " + content
    return digest_of(content)


def sources(mapping: Mapping[str, Any] | bytes | None) -> list[str]:
    """Return the sources of a mapping, or of a mounts file's content, with ``~`` expanded; [] if it is no mapping.

    Unlike ``mounted`` it looks at no file.
    """
    try:
        parsed = parse(mapping, "") if isinstance(mapping, bytes) else mapping or {}
        return [os.path.expanduser(mount["source"]) for mount in parsed["Mounts"]]
    except (InvalidStateError, TypeError, KeyError):
        return []


def env_names(mapping: Mapping[str, Any] | bytes | None) -> set[str]:
    """Return the names of a mapping's container variables, or of those in a mounts file's content."""
    try:
        parsed = parse(mapping, "") if isinstance(mapping, bytes) else mapping or {}
        return {_plain(name) for what, _, name, _ in _flat(parsed) if what == "env"}
    except InvalidStateError:
        return set()


def mounted(mapping: Mapping[str, Any] | bytes | None) -> dict[str, str]:
    """Return the mounts of a mapping, or of a mounts file's content, as the launcher makes them.

    Destination by source, both resolved on this host (``formatted_mounts`` in docker_handler.py of nvidia-tao 6.26.3)
    as far as its file servers answer; {} for anything that is not a mapping.
    """
    try:
        parsed = parse(mapping, "") if isinstance(mapping, bytes) else mapping or {}
        mounts = parsed.get("Mounts", [])
        paths = [os.path.expanduser(mount["source"]) for mount in mounts] + [mount["destination"] for mount in mounts]
        real = list(real_paths(paths))
        return dict(zip(real[: len(mounts)], real[len(mounts) :], strict=True))
    except (InvalidStateError, TypeError, KeyError, ValueError):
        return {}


class Difference(NamedTuple):
    """One difference: ``what`` is mount, env, docker or other, ``key`` the name in it; None means absent.

    The values of a ``secret`` one are masked.
    """

    what: str
    key: str
    a: str | None
    b: str | None
    secret: bool

    def as_dict(self, *, reveal: bool) -> dict[str, Any]:
        """Return the fields, secrets masked unless ``reveal``."""
        return {"what": self.what, "key": self.key, "a": self._shown(self.a, reveal), "b": self._shown(self.b, reveal)}

    def lines(self, *, reveal: bool) -> list[str]:
        """Return one or two lines, the first mapping's with ``-``, the second's with ``+``."""
        lines = []
        for sign, value in (("-", self._shown(self.a, reveal)), ("+", self._shown(self.b, reveal))):
            if value is not None:
                text = f"{value} on {self.key}" if self.what == "mount" else f"{self.key} = {value}"
                lines.append(f"{sign} {self.what} {text}")
        return lines

    def _shown(self, value: str | None, reveal: bool) -> str | None:
        return MASK if self.secret and not reveal and value not in (None, "[]") else value


def changes(a: dict[str, Any], b: dict[str, Any], *, secrets: Collection[str] = ()) -> list[Difference]:
    """Return the differences between two mappings, mounts by destination; ``~/x`` is the folder that it means.

    ``secrets`` are container variables that contain a secret, whatever their name. A value that contains one of
    theirs is a secret too.
    """
    flat_a, flat_b = _expanded(a), _expanded(b)
    known = {
        value.strip('"')
        for flat in (flat_a, flat_b)
        for (what, _, name, _), value in flat.items()
        if what == "env" and is_copied("SECRET" if _plain(name) in secrets else _plain(name), value.strip('"'))
    }
    return [
        _change(key, flat_a.get(key), flat_b.get(key), secrets, known)
        for key in dict.fromkeys([*flat_a, *flat_b])
        if flat_a.get(key) != flat_b.get(key)
    ]


def difference_counter(mapping: dict[str, Any]) -> Callable[[dict[str, Any]], int]:
    """Return what counts the ``changes`` between ``mapping``, which may be large, and each of many others."""
    flat = _expanded(mapping)

    def count(other: dict[str, Any]) -> int:
        flat_other = _expanded(other)
        in_both = [item for item in flat_other if item in flat]
        return len(flat) + len(flat_other) - len(in_both) - sum(flat[item] == flat_other[item] for item in in_both)

    return count


_Item = tuple[str, str, str, int]
"""``Difference.what``, the section, the name as JSON, and the number of items of that name before this one."""


def _change(item: _Item, a: str | None, b: str | None, secrets: Collection[str], known: Collection[str]) -> Difference:
    what, section, name, number = item
    key = _plain(name)
    is_hidden = what == "other"  # its content is unknown
    if what == "env":
        is_hidden = key in secrets or is_secret(key, a or "") or is_secret(key, b or "")
        is_hidden = is_hidden or any(value in text for value in known for text in (a, b) if text is not None)
    elif what == "docker":
        from taoprofiles.launcher.behaviour import behaviour_or_newest

        # The value of an option that even the newest launcher does not know may be a secret.
        is_hidden = key not in behaviour_or_newest("").options or is_secret(key)
    elif what == "other":
        key = f"{section} {key}".strip()
    old, new = (None if value is None else _plain(value) for value in (a, b))
    if old == new:
        old, new = a, b  # the text "1" and the number 1
    again = "" if number == 0 else " (again)" if number == 1 else f" (again {number})"
    return Difference(what, key + again, old, new, is_hidden)


def _expanded(mapping: dict[str, Any]) -> dict[_Item, str]:
    """Return ``_flat`` with ``~`` in sources as the launcher expands it."""
    flat = _flat(mapping)
    for item, value in flat.items():
        if value.startswith('"~') and item[0] == "mount":
            flat[item] = _json(os.path.expanduser(json.loads(value)))
    return flat


def _flat(mapping: Mapping[str, Any]) -> dict[_Item, str]:
    """Return each item of a mapping with its value as JSON; equal for mappings that the launcher treats alike.

    Envs and DockerOptions may be missing or empty; Mounts must exist.
    """
    flat: dict[_Item, str] = {}
    for section, value in mapping.items():
        if section in _LISTS and isinstance(value, list):
            _add_items(flat, section, value)
        elif section == "DockerOptions" and isinstance(value, dict):
            flat |= {("docker", section, _json(key), 0): _json(option) for key, option in value.items()}
        else:
            flat["other", "", _json(section), 0] = _json(value)
    if mapping.get("Mounts") == []:
        flat["other", "", _json("Mounts"), 0] = "[]"
    return flat


def _add_items(flat: dict[_Item, str], section: str, items: list[Any]) -> None:
    what, key, value = _LISTS[section]
    malformed: list[Any] = []
    numbers: dict[str, int] = {}
    for item in items:
        if not (isinstance(item, dict) and key in item and value in item):
            malformed.append(item)
            continue
        name = _json(item[key])
        number = numbers.get(name, 0)
        numbers[name] = number + 1
        flat[what, section, name, number] = _json(item[value])
        more = {other: item[other] for other in item if other not in (key, value)}
        if more:
            flat["other", section, name, number] = _json(more)
    if malformed:
        flat["other", section, "", 0] = _json(malformed)


_json = json.JSONEncoder(sort_keys=True).encode
"""As ``json.dumps``, which makes an encoder for each value."""


def _plain(text: str) -> str:
    """Return a JSON string without quotes, any other JSON as it is."""
    value = json.loads(text) if text[:1] == '"' else text
    return str(value)
