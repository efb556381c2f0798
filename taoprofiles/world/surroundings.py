"""The home and what leads away from it: variables, names that come near, file systems, and Windows around it."""

from __future__ import annotations

import os
import pwd
import re
from typing import TYPE_CHECKING

from taoprofiles.values.machine import Home, Place
from taoprofiles.values.secret import within
from taoprofiles.world import texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOOKED_AT = (
    *("LAUNCHER_MOUNTS", "CI_PROJECT_DIR", "TAO_DOCKER_DISABLE", "OVERRIDE_REGISTRY", "LAUNCHER_MODE_INTERNAL"),
    *("SUDO_USER", "TAOPROF_HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT"),
)
"""The variables of the environment that are looked at: each says where things are, and none is secret."""

_NEAR = re.compile(r"\.?(tao|tlt)[-_. ]?(toolkit[-_. ]?)?mounts?(\.jso?n?)?", re.IGNORECASE)
_ENTRIES = 20_000
"""Names of the home that are looked through."""


def survey(environ: Mapping[str, str], home: str, mapping_file: str, places: Iterable[tuple[str, str]]) -> Home:
    """Look at the home; ``places`` are file systems to measure, each by what it is for and a path on it."""
    variables = {name: within(environ[name][:1000]) for name in LOOKED_AT if name in environ}
    sudo_home = ""
    try:
        sudo_home = pwd.getpwnam(variables["SUDO_USER"]).pw_dir if variables.get("SUDO_USER") else ""
    except (KeyError, ValueError):
        pass
    changed = _changed(mapping_file)
    close = tuple(path for path in near(home, os.path.basename(mapping_file)) if _changed(path) > changed)
    system = "wsl" if b"microsoft" in texts.read("/proc/version", 1 << 16)[0].lower() else ""
    table = _table()
    return Home(
        environ.get("HOME", home),
        os.getuid(),
        variables,
        mapping_file,
        os.path.lexists(mapping_file),
        close,
        system,
        sudo_home,
        _state_of(variables.get("LAUNCHER_MOUNTS"), home),
        meant(variables.get("LAUNCHER_MOUNTS", ""), environ),
        places=tuple(place(what, path, table) for what, path in places),
    )


def place(what: str, path: str, table: list[tuple[str, str]] | None = None) -> Place:
    """Measure the file system of ``path``, or of the nearest folder above it that is there."""
    there = path
    while not os.path.exists(there) and os.path.dirname(there) != there:
        there = os.path.dirname(there)
    real = os.path.realpath(there)
    kind = ""
    for mount, kind_of in table if table is not None else _table():
        if real == mount or real.startswith(mount.rstrip("/") + "/"):
            kind = kind_of  # a later line covers an earlier one; and a deeper one comes later than what it lies in
    try:
        found = os.statvfs(real)
    except (OSError, ValueError):
        return Place(what, path, kind)
    return Place(what, path, kind, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def _table() -> list[tuple[str, str]]:
    found = []
    for line in texts.read("/proc/self/mounts", 4 << 20)[0].decode("utf-8", "surrogateescape").splitlines():
        words = line.split(" ")
        if len(words) > 2:
            mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1])
            found.append((mount, words[2]))
    return found


def meant(path: str, environ: Mapping[str, str]) -> str:
    """Give the file that LAUNCHER_MOUNTS was to name: its variables, its blanks or its folder were wrong; "" else."""
    plain = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: environ.get(found[1] or found[2], ""), path).strip()
    is_right = plain == path and path.startswith(("/", "~"))
    return os.path.abspath(plain) if not is_right and os.path.isfile(plain) else ""


def near(home: str, name: str) -> list[str]:
    """Give the files of the home whose names come near to the mapping file's ``name``."""
    try:
        with os.scandir(home) as entries:
            names = [entry.name for _, entry in zip(range(_ENTRIES), entries, strict=False)]
    except (OSError, ValueError):
        return []
    return sorted(os.path.join(home, found) for found in names if found != name and _NEAR.fullmatch(found))[:10]


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except (OSError, ValueError):
        return 0.0


def _state_of(path: str | None, home: str) -> str:
    """Tell what is wrong with the file that LAUNCHER_MOUNTS names, as the launcher would find it; "" for nothing."""
    if not path:
        return ""
    expanded = home + path[1:] if path == "~" or path.startswith("~/") else path
    content, problem = texts.read(expanded, 16 << 20)
    del content
    return "a file that is not there" if problem == "absent" else f"what cannot be read ({problem})" if problem else ""
