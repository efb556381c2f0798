"""What a container got, compared with what its mapping asked for, with the launcher's own reason where it is known."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.launcher.sizes import in_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

LINKS = 40
"""Symlinks that the kernel follows in one path (MAXSYMLINKS of Linux)."""


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
    return [expand_variables(value, variables) for value in named]


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
    """Give where a host path appears in the container; ``mounts`` is destination by source. The nearest mount first.

    Where a deeper mount lies over a place, what is below it cannot be seen there, so that place is not given.
    """
    real = os.path.realpath(path)
    around = [source for source in mounts if _within(real, source)]
    places = [
        os.path.normpath(os.path.join(mounts[source], os.path.relpath(real, source)))
        for source in sorted(around, key=len, reverse=True)
    ]
    return [place for place in places if real in host_paths([place], mounts)]


def resolve(place: str, mounts: Mapping[str, str], link: Callable[[str], str | None]) -> tuple[str, str]:
    """Follow a container path as the container's kernel does: (where it leads there, the host path behind that).

    ``link`` gives what a symlink of the host points to, None for what is none. A link in a mounted folder that points
    to an absolute path leads to that path *of the container*. The host path is "" for what no mount has.
    """
    ahead, at, hops = place.split("/")[::-1], "/", 0
    while ahead:
        part = ahead.pop()
        if part in ("", ".", ".."):
            at = os.path.dirname(at) if part == ".." else at
            continue
        step = os.path.join(at, part)
        behind = host_paths([step], mounts)
        target = link(behind[0]) if behind and step not in mounts.values() and hops < LINKS else None
        if target is None:
            at = step
            continue
        hops += 1
        ahead += target.split("/")[::-1]
        at = "/" if target.startswith("/") else at
    return at, next(iter(host_paths([at], mounts)), "")


def below(path: str, mounts: Mapping[str, str]) -> bool:
    """Whether a resolved host path is the source of a mount, or below one."""
    return any(_within(path, source) for source in mounts)


def _within(place: str, folder: str) -> bool:
    return place == folder or place.startswith(folder.rstrip("/") + "/")
