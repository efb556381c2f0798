"""Comparison of a running container with the mapping that it was started with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.launcher.host import runs_in_ci
from taoprofiles.launcher.simulation import size_in_bytes
from taoprofiles.system.filesystem import real_paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def differences(wanted: Mapping[str, Any], container: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Return how a container differs from its mapping, one line each, with the launcher's reason if it is known.

    ``container`` is what ``engine.parse_container`` returns; ``environ`` is the environment of the launcher. The
    lines contain no values of variables, which may be secret.
    """
    lines = _mount_differences(wanted, container["Binds"])
    for item in wanted.get("Envs", []):
        if f"{item['variable']}={item['value']}" not in container["Env"]:
            lines.append(f"the variable {item['variable']} differs from the mapping")
    options = wanted.get("DockerOptions", {})
    if "user" in options and container["User"] != str(options["user"]):
        lines.append(f"the user is '{container['User'] or 'root'}', not '{options['user']}'")
    if "shm_size" in options and container["ShmSize"] != size_in_bytes(options["shm_size"]):
        lines.append(f"the shared memory has {container['ShmSize']} bytes, not {options['shm_size']}")
    for name, limit in (options.get("ulimits") or {}).items():
        if container["Ulimits"].get(name) != limit:
            lines.append(f"the limit {name} is {container['Ulimits'].get(name)}, not {limit}")
    if lines and runs_in_ci(environ):
        lines.append("CI_PROJECT_DIR is set: the launcher ignores user, limits, ports and network; unset it")
    return lines


def _mount_differences(wanted: Mapping[str, Any], binds: Mapping[str, str]) -> list[str]:
    sources = real_paths(mount["source"] for mount in wanted["Mounts"])
    expected = [
        (source, os.path.normpath(mount["destination"]))
        for source, mount in zip(sources, wanted["Mounts"], strict=True)
    ]
    actual = {destination: source for source, destination in binds.items()}
    missing = [(source, destination) for source, destination in expected if actual.get(destination) != source]
    if expected and len(missing) == len(expected) and not set(actual.values()) & {source for source, _ in expected}:
        return ["none of the profile's folders is mounted: the launcher read another mounts file, or none"]
    lines = []
    for source, destination in missing:
        real = os.path.realpath(destination)
        reason = ""
        if real != destination and actual.get(real) == source:
            reason = f": it is on '{real}', because the destination is a link on this host"
        elif source in actual.values():
            reason = ": the launcher keeps only the last mount of a folder"
        elif destination in actual:
            reason = f": '{actual[destination]}' is mounted there"
        lines.append(f"'{source}' is not mounted on '{destination}'{reason}")
    for destination, source in actual.items():
        if not missing and (source, destination) not in expected:
            lines.append(f"'{source}' is mounted on '{destination}', which the profile does not ask for")
    return lines
