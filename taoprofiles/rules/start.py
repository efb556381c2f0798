"""Rules for a simulated start: each refusal of the launcher, and each silent effect that matters, as a finding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from taoprofiles.launcher.host import ENTRY_KEYS, Host
from taoprofiles.launcher.mounts_file import Content
from taoprofiles.launcher.prediction import Prediction, Refusal, SilentEffect
from taoprofiles.launcher.versions import Behaviour
from taoprofiles.mounts.mapping import explain_json_error
from taoprofiles.rules import container, mounts, options
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.rules.locations import Lines, Locator

_SECTIONS = ("Mounts", "Envs", "DockerOptions")


class MountsFile(NamedTuple):
    """The mounts file: ``text`` as read, ``locate`` names its parts; ``lines`` is None if it comes from a profile."""

    name: str
    text: str
    locate: Locator
    lines: Lines | None


def check(prediction: Prediction, file: MountsFile, behaviour: Behaviour, host: Host) -> Iterator[Finding]:
    """Return the findings of a simulated start, but for those of the login to the registry and of the command."""
    content = prediction.content
    accepted = {mount.location.number for mount in content.mounts} if content else set()
    for refusal in prediction.refusals:
        section, number, _ = refusal.location
        if section == "file":
            yield _file(refusal, file)
        elif section in ENTRY_KEYS:
            if section == "Envs" or number not in accepted:  # else the source is missing: a rule of its own
                yield _entry(refusal, file.locate)
        elif section == "DockerOptions":
            yield options.explain(refusal, content.options if content else None, file.locate, behaviour)
        elif section not in ("login", "command"):
            yield other_refusal(refusal)
    if file.lines is not None:
        yield from _repeated_keys(file.lines, file.name)
    if content is not None:
        all_mounts = [*content.mounts, *prediction.volumes]
        yield from mounts.check(all_mounts, file.locate, host)
        yield from container.check_variables(content.variables, file.locate)
        yield from _ignored_keys(content, file.locate)
    for change in prediction.changes:
        yield from _change(change)


def other_refusal(refusal: Refusal) -> Finding:
    """Return the finding for a refusal without a rule of its own."""
    hint = "--volume SOURCE:DESTINATION" if refusal.location.section == "--volume" else ""
    return error("launcher-refuses", str(refusal.location), f"the launcher stops: {refusal}", hint=hint)


def _file(refusal: Refusal, file: MountsFile) -> Finding:
    kind, where, stops = refusal.kind, file.locate(refusal.location), f"the launcher stops: {refusal}"
    key = refusal.location.key
    if key:
        near = {name.lower(): name for name in _SECTIONS}.get(key.lower(), "")
        hint = f"write '{near}'" if near else "remove it: comments are not allowed in this file"
        what = f"'{key[:70]}' is not a valid key in a mounts file"
        return error("file-shape", where, what, stops, hint, by_hand=True)
    if kind == "AssertionError":
        return error("file-shape", where, "there is no 'Mounts'", stops, 'add "Mounts": []', by_hand=True)
    if kind == "AttributeError":
        hint = 'the file must begin with {"Mounts": ['
        return error("file-shape", where, "it is not a JSON object", stops, hint, by_hand=True)
    if kind == "JSONDecodeError":
        line, what, hint = explain_json_error(file.text)
        return error("json-parse", f"{file.name}:{line}", what, stops, hint, by_hand=True)
    return error("json-parse", where, f"it cannot be read: {refusal.message[:100]}", stops, by_hand=True)


def _entry(refusal: Refusal, locate: Locator) -> Finding:
    section, number, key = refusal.location
    if number is None:
        what, hint = f"{section} is not a list", "write [ … ]"
    elif key:
        what, hint = f"entry {number}: {key} is not a path", "write it in quotes"
    else:
        what, hint = f"entry {number} needs {' and '.join(ENTRY_KEYS[section])}", ""
    stops = f"the launcher stops: {refusal}"
    return error("file-shape", locate(refusal.location), what, stops, hint, by_hand=True)


def _repeated_keys(value: Lines, name: str) -> Iterator[Finding]:
    why = "JSON keeps only the last one, and the launcher never sees the first"
    for key in value.repeated or ():
        where = f"{name}:{value.parts[key].line}"
        yield error("json-dup-key", where, f"duplicate key '{key}'", why, "remove one of the two", by_hand=True)
    for part in value.parts.values():
        yield from _repeated_keys(part, name)


def _ignored_keys(content: Content, locate: Locator) -> Iterator[Finding]:
    located = [*content.variables, *((mount.location, mount.entry) for mount in content.mounts)]
    for location, entry in located:
        for key in entry:
            is_mode = location.section == "Mounts" and key in ("mode", "ro", "readonly", "read_only")
            if key in ENTRY_KEYS[location.section] or (is_mode and entry[key] in ("rw", False)):
                continue
            what = f"the launcher ignores {key}={json.dumps(entry[key])}" if is_mode else f"the launcher ignores {key}"
            why = "the mount is always writable" if is_mode else ""
            yield warning("key-ignored", locate(location._replace(key=key)), what, why, "remove it", by_hand=True)


def _change(change: SilentEffect) -> Iterator[Finding]:
    if change.kind == "mode-ignored":
        what, why = f"the launcher ignores '{change.was}'", "the mount is always writable"
        yield warning("key-ignored", "--volume", what, why, "remove it")
    elif change.kind == "volume-not-seen":
        why = "the launcher knows only '--volume SOURCE:DESTINATION', from 6.0.0 on; this goes to the task"
        what = f"'{change.was}' mounts nothing"
        yield warning("volume-argument", "--volume", what, why, "add the mount to the profile")
