"""Rules for a simulated start: each refusal of the launcher, and each silent change that matters, as a finding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from taoprofiles.launcher.host import Host
from taoprofiles.launcher.prediction import Change, Prediction, Refusal
from taoprofiles.launcher.versions import Behaviour
from taoprofiles.masking import is_secret
from taoprofiles.rules import container, mounts, options
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.rules.locations import Locator

_SECTIONS = ("Mounts", "Envs", "DockerOptions")
_KEYS = {"Mounts": ("mount-shape", "source and destination"), "Envs": ("env-shape", "variable and value")}


class File(NamedTuple):
    """The mounts file: ``text`` as read, ``locate`` names its parts; ``is_rendered``: it comes from a profile."""

    name: str
    text: str
    locate: Locator
    is_rendered: bool


def check(prediction: Prediction, file: File, behaviour: Behaviour, host: Host) -> Iterator[Finding]:
    """Return the findings of a simulated start, but for those of the login to the registry."""
    content = prediction.content
    accepted = {mount.location.number for mount in content.mounts} if content else set()
    for refusal in prediction.refusals:
        section, number, _ = refusal.location
        if section == "file":
            yield _file(refusal, file)
        elif section in _KEYS:
            if section == "Envs" or number not in accepted:
                yield _entry(refusal, file.locate)
        elif section == "DockerOptions":
            yield options.explain(refusal, content.options if content else None, file.locate, behaviour)
        elif section != "login":
            yield other_refusal(refusal)
    if content is not None:
        yield from mounts.check(
            content.mounts, prediction.refusals, prediction.changes, file.locate, host, is_rendered=file.is_rendered
        )
    for change in prediction.changes:
        yield from _change(change, prediction, file.locate)


def other_refusal(refusal: Refusal) -> Finding:
    """Return the finding for a refusal without a rule of its own."""
    return error("launcher-refuses", str(refusal.location), f"the launcher stops: {refusal}")


def _file(refusal: Refusal, file: File) -> Finding:
    kind, where, stops = refusal.kind, file.locate(refusal.location), f"the launcher stops: {refusal}"
    key = refusal.location.key
    if key:
        near = {name.lower(): name for name in _SECTIONS}.get(key.lower(), "")
        hint = f"write '{near}'" if near else "remove it: comments are not allowed in this file"
        what = f"'{key[:70]}' is no key of a mounts file"
        return error("schema-top-key", where, what, stops, hint, by_hand=True)
    if kind == "AssertionError":
        return error("mounts-missing", where, "there is no 'Mounts'", stops, 'add "Mounts": []', by_hand=True)
    if kind == "AttributeError":
        hint = 'the file must begin with {"Mounts": ['
        return error("mounts-missing", where, "it is not a JSON object", stops, hint, by_hand=True)
    if kind == "JSONDecodeError":
        line, what, hint = _explain_parse_error(file.text)
        return error("json-parse", f"{file.name}:{line}", what, stops, hint, by_hand=True)
    return error("json-parse", where, f"it cannot be read: {refusal.message[:100]}", stops, by_hand=True)


def _explain_parse_error(text: str) -> tuple[int, str, str]:
    """Return line, problem and hint. For a trailing comma, the parser's position is after the comma's line."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        before, after = text[: error.pos].rstrip(), text[error.pos :].lstrip(", \t\r\n")
        if after[:1] in ("]", "}") and (before.endswith(",") or text[error.pos : error.pos + 1] == ","):
            what = f"it is not JSON: there is a ',' before the closing '{after[0]}'"
            return before.count("\n") + 1, what, "remove that ','"
        what = f"it is not JSON: {error.msg.lower()}, column {error.colno}"
        return error.lineno, what, "compare it with the line before"
    return 1, "it is not JSON", ""


def _entry(refusal: Refusal, locate: Locator) -> Finding:
    section, number, key = refusal.location
    id, keys = _KEYS[section]
    if number is None:
        what, hint = f"{section} is not a list", "write [ … ]"
    elif key:
        what, hint = f"entry {number}: {key} is not a path", "write it in quotes"
    else:
        what, hint = f"entry {number} needs {keys}", ""
    return error(id, locate(refusal.location), what, f"the launcher stops: {refusal}", hint, by_hand=True)


def _change(change: Change, prediction: Prediction, locate: Locator) -> Iterator[Finding]:
    kind, location, was, now = change
    where = locate(location)
    if kind == "json-duplicate-key":
        why = "JSON keeps only the last one, and the launcher never sees the first"
        yield error("json-dup-key", where, f"'{was}' is there twice", why, "remove one of the two", by_hand=True)
    elif kind in ("mode-ignored", "unknown-keys"):
        why = "the mount is always writable" if kind == "mode-ignored" else ""
        yield warning("key-ignored", where, f"the launcher ignores {was}", why, "remove it", by_hand=True)
    elif kind == "env-none":
        yield container.null_variable(was, None, locate(location._replace(key="")))
    elif kind == "env-stringified":
        entries = dict(prediction.content.variables) if prediction.content else {}
        value = entries[location._replace(key="")][location.key]
        what = f"{was} is {'true or false' if isinstance(value, bool) else 'not text'}"
        why = "" if is_secret(was) else f"the container gets {str(value)[:40]!r}"
        yield warning("env-not-text", where, what, why, "write it in quotes", by_hand=True)
    elif kind == "env-twice":
        yield warning("env-twice", where, f"the variable {was} is set twice", f"the last one counts, {now}")
    elif kind == "volume-not-seen":
        why = "the launcher knows only '--volume SOURCE:DESTINATION', from 6.0.0 on; this goes to the task"
        yield warning("volume-not-seen", "--volume", f"'{was}' mounts nothing", why, "add the mount to the profile")
    elif kind == "volume-source-missing":
        what, why = f"folder '{was}' does not exist", "Docker creates it as root"
        yield warning("volume-source-missing", "--volume", what, why)
