"""What the launcher will say to the text of a mounts file: docker_handler.py, 0.1.21 to 6.26.3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from taoprofiles.rules.finding import Finding
from taoprofiles.rules.locations import in_file, lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SECTIONS = ("Mounts", "Envs", "DockerOptions")
_KEYS = {
    "Mounts": (("source", "destination"), "mount-shape", "Mounts are not formatted correctly."),
    "Envs": (("variable", "value"), "env-shape", "Env variables aren't formatter correctly."),
}


def read(text: str, name: str) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Read a mounts file as the launcher does; ``name`` is what it is called. None where it is no JSON object."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        line, what, hint = _parse_error(text, error)
        why = f"the launcher would stop: json.decoder.JSONDecodeError: {error}"
        return None, [Finding("json-parse", f"{name}:{line}", what, why, hint)]
    except (ValueError, RecursionError) as error:
        return None, [Finding("json-parse", f"{name}:1", f"it cannot be read: {str(error)[:100]}")]
    if not isinstance(found, dict):
        what, why = "it holds no object", "the launcher would stop with a traceback"
        return None, [Finding("mounts-missing", f"{name}:1", what, why, 'it begins with {"Mounts": [')]
    again = [
        Finding(
            "json-dup-key", f"{name}:{line}", f"'{path[-1]}' is there twice",
            "JSON keeps the last one only, and the launcher never sees the first", "make one of the two",
        )
        for path, line in lines(text)[1]
    ]  # fmt: skip
    return found, again + list(_shape(found, in_file(name, text)))


def _parse_error(text: str, error: json.JSONDecodeError) -> tuple[int, str, str]:
    """Give the line, what is wrong there and what to do. Of a comma too many, the parser names the line after it."""
    before, behind = text[: error.pos].rstrip(), text[error.pos :].lstrip(", \t\r\n")
    if behind[:1] in ("]", "}") and (before.endswith(",") or text[error.pos : error.pos + 1] == ","):
        line = before.count("\n") + 1
        return line, f"it is not JSON: a ',' stands before the closing '{behind[0]}'", "take that ',' out"
    what = f"it is not JSON: {error.msg.lower()}, column {error.colno}"
    return error.lineno, what, "compare it with the line before"


def sound(found: dict[str, Any], section: str) -> dict[int, dict[str, Any]]:
    """Give the entries of Mounts or Envs, by number, that have the keys that the launcher needs, with text in them."""
    keys = _KEYS[section][0]
    listed = found.get(section) or []
    texts = keys if section == "Mounts" else keys[:1]
    return {
        number: one
        for number, one in enumerate(listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and all(key in one for key in keys) and all(_is_text(one[key]) for key in texts)
    }


def _is_text(value: object) -> bool:
    """Whether it is a text that a program, or a path, can be given."""
    try:
        return isinstance(value, str) and "\0" not in value and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _shape(found: dict[str, Any], where: Any) -> Iterator[Finding]:
    stops = "the launcher would stop: "
    if "Mounts" not in found:
        why = stops + "AssertionError: Invalid json file. Requires Mounts key."
        yield Finding("mounts-missing", where(), "there is no 'Mounts'", why, 'add "Mounts": []')
    for key in found:
        if key not in SECTIONS:
            near = {name.lower(): name for name in SECTIONS}.get(key.lower(), "")
            yield Finding(
                "schema-top-key", where(key), f"'{key[:70]}' is no key of a mounts file",
                stops + f"KeyError: Invalid field {key[:70]} found",
                f"write '{near}'" if near else "take it out; comments have no place in this file",
            )  # fmt: skip
    for section, (keys, name, message) in _KEYS.items():
        if section not in found:
            continue
        if not isinstance(found[section], list):
            yield Finding(name, where(section), f"{section} is no list", stops + "a traceback", "write [ … ]")
            continue
        for number, entry in enumerate(found[section]):
            missing = [key for key in keys if not (isinstance(entry, dict) and key in entry)]
            at = where(section, number)
            if missing:
                what = f"entry {number} has no {' and no '.join(missing)}"
                yield Finding(name, at, what, stops + f"AssertionError: {message}")
                continue
            if not all(_is_text(entry[key]) for key in (keys if section == "Mounts" else keys[:1])):
                yield Finding(name, at, f"entry {number} has a part that is no text", stops + "a traceback")
            for extra in entry.keys() - set(keys):
                what = f"the launcher does not look at '{extra}'"
                why = "the mount can be written to whatever this says" if extra in ("mode", "ro", "readonly") else ""
                yield Finding("key-ignored", where(section, number, extra), what, why, "take it out")
