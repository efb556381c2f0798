"""Which mounts file a launcher reads, what it takes from it, and what it refuses, drops or alters.

The order of the steps is the launcher's, which stops at the first error: ``_get_mount_env_data``,
``formatted_mounts`` and ``formatted_envs`` in docker_handler.py of every version.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.launcher.host import Host
from taoprofiles.launcher.prediction import Location, RefusedError, StartLog

if TYPE_CHECKING:
    pass

_MODES = ("mode", "ro", "readonly", "read_only")


class Mount(NamedTuple):
    """A mount that the launcher understands: ``entry`` is as written; the paths are resolved on this host."""

    location: Location
    source: str
    destination: str
    entry: dict[str, Any]


class Content(NamedTuple):
    """What the launcher takes from a mounts file: the entries that it accepts, and DockerOptions as written."""

    mounts: list[Mount]
    variables: list[tuple[Location, dict[str, Any]]]
    options: Any

    @property
    def environment(self) -> list[str]:
        """Return the variables of the container as NAME=VALUE."""
        return [f"{entry['variable']}={entry['value']}" for _, entry in self.variables]


def read(path: str, host: Host, log: StartLog) -> Content | None:
    """Read a mounts file; return None where it is not JSON, or no object."""
    if not host.exists(path):
        log.change("no-file", Location("file"), was=path)
        return Content([], [], {})
    data: dict[str, Any] | None = None
    with log.step("file"):
        text = io.TextIOWrapper(io.BytesIO(host.read(path)), encoding="utf-8").read()
        value = json.loads(text)
        _ = value.keys()
        data = value
    if data is None:
        return None
    content = take_sections(data, host, log, path)
    _find_duplicates(json.loads(text, object_pairs_hook=_Pairs), None, log)
    _check_variables(content, log)
    return content


def take_sections(data: dict[str, Any], host: Host, log: StartLog, path: str = "") -> Content:
    """Take the sections of a mounts file; ``path`` is named in messages."""
    mounts: list[Mount] = []
    variables: list[tuple[Location, dict[str, Any]]] = []
    options: Any = {}
    with log.step("file"):
        if "Mounts" not in data:
            raise RefusedError("AssertionError", "Invalid json file. Requires Mounts key.", Location("file"))
    for section, value in data.items():
        if section == "Mounts":
            mounts = _take_mounts(value, host, log)
        elif section == "Envs":
            variables = _take_variables(value, log)
        elif section == "DockerOptions":
            options = value
        else:
            with log.step("file"):
                message = f"Invalid field {section} found in {path} file."
                raise RefusedError("KeyError", message, Location("file", key=section))
    return Content(mounts, variables, options)


def get_volumes(mounts: Iterable[Mount], host: Host, log: StartLog) -> dict[str, str]:
    """Return what reaches Docker, destination by source: of several mounts of one source only the last."""
    volumes: dict[str, str] = {}
    locations: dict[str, Location] = {}
    for location, source, destination, _ in mounts:
        with log.step(*location):
            real, bind = host.realpath(source), host.realpath(destination)
            if real in locations:
                log.change("dropped-same-source", locations[real], was=volumes[real], now=str(location))
            if location.section == "--volume":
                _check_moved(location, destination, bind, log)
                if not host.exists(real):
                    log.change("volume-source-missing", location, was=real)
            volumes[real], locations[real] = bind, location
    return volumes


def _check_moved(location: Location, written: str, real: str, log: StartLog) -> None:
    if real != posixpath.normpath(written):
        log.change("moved-destination", location._replace(key="destination"), written, real)


def _take_mounts(value: Any, host: Host, log: StartLog) -> list[Mount]:
    mounts: list[Mount] = []
    entries: list[Any] = []
    with log.step("Mounts"):
        entries = list(value)
    for index, entry in enumerate(entries):
        location = Location("Mounts", index)
        if not _has_keys(entry, ("source", "destination"), "Mounts are not formatted correctly.", location, log):
            continue
        source = destination = None
        with log.step("Mounts", index, "source"):
            source = host.realpath(host.expanduser(entry["source"]))
        with log.step("Mounts", index, "destination"):
            destination = host.realpath(host.expanduser(entry["destination"]))
        if source is None or destination is None:
            continue
        with log.step("Mounts", index):
            if not host.exists(source):
                message = f"Mount point source path doesn't exist. {source}"
                raise RefusedError("ValueError", message, location._replace(key="source"))
        _check_moved(location, entry["destination"], destination, log)
        _find_ignored(location, entry, ("source", "destination"), log)
        mounts.append(Mount(location, source, destination, entry))
    return mounts


def _take_variables(value: Any, log: StartLog) -> list[tuple[Location, dict[str, Any]]]:
    variables: list[tuple[Location, dict[str, Any]]] = []
    entries: list[Any] = []
    with log.step("Envs"):
        entries = list(value)
    for index, entry in enumerate(entries):
        location = Location("Envs", index)
        if _has_keys(entry, ("variable", "value"), "Env variables aren't formatter correctly.", location, log):
            _find_ignored(location, entry, ("variable", "value"), log)
            variables.append((location, entry))
    return variables


def _has_keys(entry: Any, required: tuple[str, str], message: str, location: Location, log: StartLog) -> bool:
    with log.step(*location):
        keys = list(entry.keys())
        if not set(required) <= set(keys):
            raise RefusedError("AssertionError", message, location)
        return True
    return False


def _check_variables(content: Content, log: StartLog) -> None:
    last: dict[str, Location] = {}
    for location, entry in content.variables:
        name, value = entry["variable"], entry["value"]
        if value is None:
            log.change("env-none", location._replace(key="value"), was=str(name))
        elif not isinstance(value, str):
            log.change("env-stringified", location._replace(key="value"), was=str(name))
        if not isinstance(name, str):
            log.change("env-stringified", location._replace(key="variable"), was=str(name))
        if str(name) in last:
            log.change("env-twice", last[str(name)], str(name), str(location))
        last[str(name)] = location


def _find_ignored(location: Location, entry: dict[str, Any], used: tuple[str, str], log: StartLog) -> None:
    others = [key for key in entry if key not in used]
    modes = [key for key in others if location.section == "Mounts" and key in _MODES]
    for key in modes:
        if entry[key] not in ("rw", False):
            log.change("mode-ignored", location._replace(key=key), was=f"{key}={json.dumps(entry[key])}")
    unknown = [key for key in others if key not in modes]
    if unknown:
        log.change("unknown-keys", location, was=", ".join(unknown))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys, also those that come twice."""


def _find_duplicates(value: Any, location: Location | None, log: StartLog) -> None:
    if isinstance(value, _Pairs):
        keys: set[str] = set()
        for key, inner in value:
            path = f"{location.key}.{key}" if location and location.key else key
            below = location._replace(key=path) if location else Location(key)
            if key in keys:
                log.change("json-duplicate-key", below, was=key)
            keys.add(key)
            _find_duplicates(inner, below, log)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            is_section = location is not None and location.number is None and not location.key
            _find_duplicates(inner, location._replace(number=index) if is_section and location else location, log)
