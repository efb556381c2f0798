"""The home and what leads away from it: variables, names that come near, file systems, and Windows around it."""

from __future__ import annotations

import os
import pwd
import re
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.masking import within
from taoprofiles.storage import files
from taoprofiles.storage.paths import expand_user
from taoprofiles.system import filesystem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class FileSystem(NamedTuple):
    """A file system: the ``path`` that was asked about, its kind, and free and whole size in bytes."""

    what: str
    path: str
    kind: str = ""
    free: int = 0
    size: int = 0


class Home(NamedTuple):
    """What HOME and the variables say. ``variables`` has only those that say where things are.

    ``near`` are files whose names come near to the mapping file's, ``system`` is "wsl" or "". ``mounts_meant`` is the
    file that LAUNCHER_MOUNTS was to name, where that can be told.
    """

    path: str
    uid: int
    variables: Mapping[str, str]
    mapping_file: str
    has_mapping: bool = False
    near: tuple[str, ...] = ()
    system: str = ""
    sudo_home: str = ""
    mounts_state: str = ""
    mounts_meant: str = ""
    places: tuple[FileSystem, ...] = ()


LOOKED_AT = (
    *("LAUNCHER_MOUNTS", "CI_PROJECT_DIR", "TAO_DOCKER_DISABLE", "OVERRIDE_REGISTRY", "LAUNCHER_MODE_INTERNAL"),
    *("SUDO_USER", "TAOPROF_HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT"),
)
"""The variables of the environment that are looked at: each says where things are, and none is secret."""

_NEAR = re.compile(r"\.?(tao|tlt)[-_. ]?(toolkit[-_. ]?)?mounts?(\.jso?n?)?", re.IGNORECASE)
_ENTRIES = 20_000
"""Names of the home that are looked through."""


def survey(environ: Mapping[str, str], home: str, mapping_file: str, asked: Iterable[tuple[str, str]]) -> Home:
    """Look at the home; ``asked`` are file systems to measure, each by what it is for and a path on it."""
    variables = {name: within(environ[name][:1000]) for name in LOOKED_AT if name in environ}
    sudo_home = ""
    try:
        sudo_home = pwd.getpwnam(variables["SUDO_USER"]).pw_dir if variables.get("SUDO_USER") else ""
    except (KeyError, ValueError):
        pass
    changed = _changed(mapping_file)
    close = tuple(path for path in near(home, os.path.basename(mapping_file)) if _changed(path) > changed)
    table = filesystem.file_systems()
    return Home(
        environ.get("HOME", home),
        os.getuid(),
        variables,
        mapping_file,
        os.path.lexists(mapping_file),
        close,
        "wsl" if filesystem.is_wsl() else "",
        sudo_home,
        _state_of(variables.get("LAUNCHER_MOUNTS"), home),
        meant(variables.get("LAUNCHER_MOUNTS", ""), environ),
        places=tuple(_measured(what, path, table) for what, path in asked),
    )


def _measured(what: str, path: str, table: list[tuple[str, str]]) -> FileSystem:
    """Measure the file system of ``path``, or of the nearest folder above it that is there."""
    real = filesystem.nearest_existing(path).real
    kind = filesystem.file_system(real, table)
    try:
        found = os.statvfs(real)
    except (OSError, ValueError):
        return FileSystem(what, path, kind)
    return FileSystem(what, path, kind, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def meant(path: str, environ: Mapping[str, str]) -> str:
    """Give the file that LAUNCHER_MOUNTS was to name: its variables, its blanks or its folder were wrong; "" else."""
    plain = expand_variables(path, environ, unset="").strip()
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
    expanded = expand_user(path, home)
    content, problem = files.try_read(expanded, 16 << 20)
    del content
    return "a file that is not there" if problem == "absent" else f"what cannot be read ({problem})" if problem else ""
