"""What a launcher takes from its mounts file, and what it refuses.

The order of the steps is the launcher's, which stops at the first error: ``_get_mount_env_data``,
``formatted_mounts`` and ``formatted_envs`` in docker_handler.py of every version.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from taoprofiles.launcher.host import ENTRY_KEYS, Host, Location, ResolvedMount, missing_source
from taoprofiles.launcher.prediction import RefusedError, StartLog


class Content(NamedTuple):
    """What the launcher takes from a mounts file: the entries that it accepts, and DockerOptions as written."""

    mounts: list[ResolvedMount]
    variables: list[tuple[Location, dict[str, Any]]]
    options: Any

    @property
    def environment(self) -> list[str]:
        """Return the variables of the container as NAME=VALUE."""
        return [f"{entry['variable']}={entry['value']}" for _, entry in self.variables]


def read(path: str, host: Host, log: StartLog) -> Content | None:
    """Read a mounts file; return None if it is not a JSON object. A file that does not exist is empty."""
    if not host.exists(path):
        return Content([], [], {})
    data: dict[str, Any] | None = None
    with log.step("file"):
        text = io.TextIOWrapper(io.BytesIO(host.read(path)), encoding="utf-8").read()
        value = json.loads(text)
        _ = value.keys()
        data = value
    return None if data is None else _take_sections(data, host, log, path)


def _take_sections(data: dict[str, Any], host: Host, log: StartLog, path: str) -> Content:
    mounts: list[ResolvedMount] = []
    variables: list[tuple[Location, dict[str, Any]]] = []
    options: Any = {}
    with log.step("file"):
        if "Mounts" not in data:
            raise RefusedError("AssertionError", "Invalid json file. Requires Mounts key.", Location("file"))
    for section, value in log.while_few(data.items()):
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


def get_volumes(mounts: Iterable[ResolvedMount]) -> dict[str, str]:
    """Return what reaches Docker, destination by source: of several mounts of one source only the last."""
    return {mount.source: mount.destination for mount in mounts}


def _take_mounts(value: Any, host: Host, log: StartLog) -> list[ResolvedMount]:
    mounts: list[ResolvedMount] = []
    entries: list[Any] = []
    with log.step("Mounts"):
        entries = list(value)
    for index, entry in log.while_few(enumerate(entries)):
        location = Location("Mounts", index)
        if not _has_keys(entry, "Mounts are not formatted correctly.", location, log):
            continue
        paths: list[str] = []
        for key in ENTRY_KEYS["Mounts"]:
            with log.step("Mounts", index, key):
                paths.append(host.realpath(host.expanduser(entry[key])))
        if len(paths) < 2:
            continue
        source, destination = paths
        with log.step("Mounts", index):
            if not host.exists(source):
                raise RefusedError("ValueError", missing_source(source), location._replace(key="source"))
        mounts.append(ResolvedMount(location, source, destination, entry))
    return mounts


def _take_variables(value: Any, log: StartLog) -> list[tuple[Location, dict[str, Any]]]:
    entries: list[Any] = []
    with log.step("Envs"):
        entries = list(value)
    located = [(Location("Envs", index), entry) for index, entry in enumerate(entries)]
    message = "Env variables aren't formatter correctly."
    return [(location, entry) for location, entry in log.while_few(located) if _has_keys(entry, message, location, log)]


def _has_keys(entry: Any, message: str, location: Location, log: StartLog) -> bool:
    before = len(log.refusals)
    with log.step(*location):
        if not set(ENTRY_KEYS[location.section]) <= set(entry.keys()):
            raise RefusedError("AssertionError", message, location)
    return len(log.refusals) == before
