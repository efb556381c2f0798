"""What a container got, compared with what its mapping asked for, with the launcher's own reason where it is known."""

from __future__ import annotations

import os
import re

from taoprofiles.values.sizes import in_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def differences(wanted: dict[str, Any], seen: dict[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Tell how a container (``world.shapes.container``) differs from the mapping; ``environ`` is the launcher's.

    No values are told, since the environment holds secrets.
    """
    found = _mount_differences(wanted, seen["Binds"])
    for item in wanted.get("Envs", []):
        if f"{item['variable']}={item['value']}" not in seen["Env"]:
            found.append(f"the variable {item['variable']} is not as asked for")
    options = wanted.get("DockerOptions", {})
    if "user" in options and seen["User"] != str(options["user"]):
        found.append(f"the user is '{seen['User'] or 'root'}', not '{options['user']}'")
    if "shm_size" in options and seen["ShmSize"] != in_bytes(options["shm_size"]):
        found.append(f"the shared memory has {seen['ShmSize']} bytes, not {options['shm_size']}")
    for name, limit in (options.get("ulimits") or {}).items():
        if seen["Ulimits"].get(name) != limit:
            found.append(f"the limit {name} is {seen['Ulimits'].get(name)}, not {limit}")
    if found and "CI_PROJECT_DIR" in environ:
        found.append("the launcher drops user, limits, ports and network where CI_PROJECT_DIR is set: unset it")
    return found


def _mount_differences(wanted: dict[str, Any], binds: Mapping[str, str]) -> list[str]:
    asked = [(os.path.realpath(m["source"]), os.path.normpath(m["destination"])) for m in wanted["Mounts"]]
    got = {place: source for source, place in binds.items()}
    missing = [(source, place) for source, place in asked if got.get(place) != source]
    if asked and len(missing) == len(asked) and not set(got.values()) & {source for source, _ in asked}:
        return ["none of the profile's folders is mounted: the launcher read another mounts file, or none"]
    told = []
    for source, place in missing:
        reason = ""
        if os.path.realpath(place) != place and got.get(os.path.realpath(place)) == source:
            reason = f": it is on '{os.path.realpath(place)}', where that name leads on this host"
        elif source in got.values():
            reason = ": the launcher keeps one mount of a folder, the last"
        elif place in got:
            reason = f": '{got[place]}' is there"
        told.append(f"'{source}' is not on '{place}'{reason}")
    extra = [place for place, source in got.items() if (source, place) not in asked]
    told += [f"'{got[place]}' is on '{place}', which the profile does not ask for" for place in extra if not missing]
    return told


def container_path(words: list[str], variables: Mapping[str, str]) -> list[str]:
    """Give the container folders into which a launcher command writes its results, as the command names them.

    ``-r``, ``--results_dir`` and ``….results_dir=`` of TAO's tasks; without one, a task that makes something writes
    into the layout's own results folder. Tasks that only read (evaluate, inference) write nowhere that is known then.
    """
    named = []
    for number, word in enumerate(words):
        key, equals, value = word.partition("=")
        if equals and key.lstrip("-").rpartition(".")[2] in ("results_dir", "results-dir"):
            named.append(value)
        elif word in ("-r", "--results_dir", "--results-dir") and number + 1 < len(words):
            named.append(words[number + 1])
    if not named and set(words) & {"train", "prune", "retrain", "quantize", "distill", "export"}:
        named = [variables[name] for name in ("RESULTS_DIR", "USER_EXPERIMENT_DIR") if name in variables][:1]
    return [_expanded(value, variables) for value in named]


def host_paths(places: list[str], mounts: Mapping[str, str]) -> list[str]:
    """Give the host folders behind container paths; ``mounts`` is destination by source, as the launcher has it."""
    found = []
    for place in map(os.path.normpath, places):
        best = max((d for d in mounts.values() if _within(place, d)), key=len, default=None)
        for source, destination in mounts.items():
            if destination == best:
                found.append(os.path.normpath(os.path.join(source, os.path.relpath(place, destination))))
    return found


def container_paths(path: str, mounts: Mapping[str, str]) -> list[str]:
    """Give where a host path appears in the container; ``mounts`` is destination by source. The nearest mount first."""
    real = os.path.realpath(path)
    around = [source for source in mounts if _within(real, source)]
    return [
        os.path.normpath(os.path.join(mounts[source], os.path.relpath(real, source)))
        for source in sorted(around, key=len, reverse=True)
    ]


def _within(place: str, folder: str) -> bool:
    return place == folder or place.startswith(folder.rstrip("/") + "/")


def _expanded(value: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: variables.get(m[1] or m[2], m[0]), value)
