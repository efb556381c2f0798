"""Which mounts file a launcher reads, what it takes from it, and what it leaves or alters without a word.

The order of the steps is the launcher's, since it tells only the first thing that is wrong: ``_get_mount_env_data``,
``formatted_mounts`` and ``formatted_envs`` in docker_handler.py of every version.
"""

from __future__ import annotations

import io
import json
import posixpath
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.launcher.prediction import Change, Place
from taoprofiles.launcher.refusal import refuse, refusing

if TYPE_CHECKING:
    from taoprofiles.launcher.prediction import Machine
    from taoprofiles.launcher.versions import Behaviour

OWN_FILE = "~/.tao_mounts.json"
_MODES = ("mode", "ro", "readonly", "read_only")


class Content(NamedTuple):
    """What a mounts file says: mounts as (place, source, destination), NAME=VALUE lines, options as they stand."""

    mounts: list[tuple[Place, str, str]]
    environment: list[str]
    options: Any


def file_read(behaviour: Behaviour, machine: Machine) -> str:
    """Give the path of the one mounts file that counts, whether it is there or not."""
    named = machine.environ.get("LAUNCHER_MOUNTS")
    if named is None:
        there = machine.exists(machine.expanduser(OWN_FILE))
        named = OWN_FILE if there else behaviour.fallback_file
    return machine.expanduser(named)


def read(path: str, machine: Machine, changes: list[Change]) -> Content:
    """Read the mounts file as far as it is good. Raises RefusedError."""
    if not machine.exists(path):
        changes.append(Change("no-file", Place("file"), was=path))
        return Content([], [], {})
    with refusing("file"):
        text = io.TextIOWrapper(io.BytesIO(machine.read(path)), encoding="utf-8").read()
        data = json.loads(text)
        sections = list(data.keys())
    if "Mounts" not in sections:
        raise refuse("AssertionError", "Invalid json file. Requires Mounts key.", Place("file"))
    mounts: list[tuple[Place, str, str]] = []
    entries: list[Any] = []
    options: Any = {}
    for section, value in data.items():
        if section == "Mounts":
            mounts = _mounts(value, machine, changes)
        elif section == "Envs":
            entries = _entries(value, changes)
        elif section == "DockerOptions":
            options = value
        else:
            raise refuse("KeyError", f"Invalid field {section} found in {path} file.", Place("file", key=section))
    _twice(json.loads(text, object_pairs_hook=_Pairs), None, changes)
    return Content(mounts, _environment(entries, changes), options)


def volumes(mounts: list[tuple[Place, str, str]], machine: Machine, changes: list[Change]) -> dict[str, str]:
    """Give what reaches Docker, destination by source: one mount for each source, the last. Raises RefusedError."""
    made: dict[str, str] = {}
    places: dict[str, Place] = {}
    for place, source, destination in mounts:
        with refusing(*place):
            real, bind = machine.realpath(source), machine.realpath(destination)
        if real in places:
            changes.append(Change("dropped-same-source", places[real], was=made[real], now=str(place)))
        if place.section == "--volume":
            moved(place, destination, bind, changes)
            if not machine.exists(real):
                changes.append(Change("volume-source-missing", place, was=real))
        made[real], places[real] = bind, place
    return made


def moved(place: Place, written: str, real: str, changes: list[Change]) -> None:
    """Tell of a destination that is not the one that was written."""
    if real != posixpath.normpath(written):
        changes.append(Change("moved-destination", place._replace(key="destination"), written, real))


def _mounts(value: Any, machine: Machine, changes: list[Change]) -> list[tuple[Place, str, str]]:
    mounts = []
    with refusing("Mounts"):
        listed = list(value)
    for index, mount in enumerate(listed):
        place = Place("Mounts", index)
        with refusing("Mounts", index):
            keys = list(mount.keys())
        if "source" not in keys or "destination" not in keys:
            raise refuse("AssertionError", "Mounts are not formatted correctly.", place)
        written = mount["destination"]
        with refusing("Mounts", index, "source"):
            source = machine.realpath(machine.expanduser(mount["source"]))
        with refusing("Mounts", index, "destination"):
            destination = machine.realpath(machine.expanduser(written))
        if not machine.exists(source):
            message = f"Mount point source path doesn't exist. {source}"
            raise refuse("ValueError", message, place._replace(key="source"))
        moved(place, written, destination, changes)
        _unused(place, mount, ("source", "destination"), changes)
        mounts.append((place, source, destination))
    return mounts


def _entries(value: Any, changes: list[Change]) -> list[Any]:
    with refusing("Envs"):
        entries = list(value)
    for index, entry in enumerate(entries):
        with refusing("Envs", index):
            keys = list(entry.keys())
        if "variable" not in keys or "value" not in keys:
            raise refuse("AssertionError", "Env variables aren't formatter correctly.", Place("Envs", index))
        _unused(Place("Envs", index), entry, ("variable", "value"), changes)
    return entries


def _environment(entries: list[Any], changes: list[Change]) -> list[str]:
    last: dict[str, int] = {}
    for index, entry in enumerate(entries):
        name, value = entry["variable"], entry["value"]
        if value is None:
            changes.append(Change("env-none", Place("Envs", index, "value"), was=str(name)))
        elif not isinstance(value, str):
            changes.append(Change("env-stringified", Place("Envs", index, "value"), was=str(name)))
        if not isinstance(name, str):
            changes.append(Change("env-stringified", Place("Envs", index, "variable"), was=str(name)))
        if str(name) in last:
            changes.append(Change("env-twice", Place("Envs", last[str(name)]), str(name), str(Place("Envs", index))))
        last[str(name)] = index
    return [f"{entry['variable']}={entry['value']}" for entry in entries]


def _unused(place: Place, entry: dict[str, Any], used: tuple[str, str], changes: list[Change]) -> None:
    others = [key for key in entry if key not in used]
    for key in others:
        if place.section == "Mounts" and key in _MODES and entry[key] not in ("rw", False):
            changes.append(Change("mode-ignored", place._replace(key=key), was=f"{key}={json.dumps(entry[key])}"))
    unknown = [key for key in others if place.section != "Mounts" or key not in _MODES]
    if unknown:
        changes.append(Change("unknown-keys", place, was=", ".join(unknown)))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all that was written."""


def _twice(value: Any, place: Place | None, changes: list[Change]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, inner in value:
            named = f"{place.key}.{key}" if place and place.key else key
            below = place._replace(key=named) if place else Place(key)
            if key in seen:
                changes.append(Change("json-duplicate-key", below, was=key))
            seen.add(key)
            _twice(inner, below, changes)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            top = place is not None and place.number is None and not place.key
            _twice(inner, place._replace(number=index) if top and place else place, changes)
