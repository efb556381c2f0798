"""Probes of the home folder: variables that redirect the launcher, similar file names, file systems, WSL, the login."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from taoprofiles.launcher.host import Host, find_mounts_file
from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.masking import mask_text
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.system import filesystem


class FileSystem(NamedTuple):
    """The file system of ``path``, where ``what`` is: its kind, and its free and whole size in bytes."""

    what: str
    path: str
    kind: str = ""
    free: int = 0
    size: int = 0


class Home(NamedTuple):
    """The home and the variables (those of PROBED_VARIABLES) that say where things are.

    ``near`` are files that may have been meant to be it, ``system`` is "wsl" or "". ``mounts_state`` is what is wrong
    with the file that LAUNCHER_MOUNTS names, and ``mounts_meant`` the file that was probably intended.
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


PROBED_VARIABLES = (
    *("LAUNCHER_MOUNTS", "CI_PROJECT_DIR", "TAO_DOCKER_DISABLE", "OVERRIDE_REGISTRY", "LAUNCHER_MODE_INTERNAL"),
    *("SUDO_USER", "TAOPROF_HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT"),
)
"""The variables that the rules use: each one redirects a program, and none is secret."""

_SIMILAR_NAME = re.compile(r"\.?(tao|tlt)[-_. ]?(toolkit[-_. ]?)?mounts?(\.jso?n?)?", re.IGNORECASE)
_MAX_NAMES = 20_000
"""Limit of the names in the home folder that are compared."""


def probe_home(context: Context, locations: Iterable[tuple[str, str]]) -> Home:
    """Look at the home, and for mounts files in the current folder.

    ``locations`` are file systems to measure, each by what is there and a path on it.
    """
    environ, mapping_file = context.environ, context.mapping_file
    variables = {name: mask_text(environ[name][:1000]) for name in PROBED_VARIABLES if name in environ}
    mounts_state = ""
    if variables.get("LAUNCHER_MOUNTS"):
        problem = files.try_read(find_mounts_file({**environ, "HOME": context.home}, os.curdir), files.MAPPING_LIMIT)[1]
        mounts_state = f"what cannot be read ({problem})" if problem else ""
        mounts_state = "a file that is not there" if problem == "absent" else mounts_state
    changed, table = _change_time(mapping_file), filesystem.file_systems()
    return Home(
        path=environ.get("HOME", context.home),
        uid=context.uid,
        variables=variables,
        mapping_file=mapping_file,
        has_mapping=os.path.lexists(mapping_file),
        near=tuple(path for path in find_similar_files(mapping_file, context.folder) if _change_time(path) > changed),
        system="wsl" if filesystem.is_wsl() else "",
        sudo_home=_home_of(variables.get("SUDO_USER", "")),
        mounts_state=mounts_state,
        mounts_meant=guess_mounts_file(variables.get("LAUNCHER_MOUNTS", ""), environ),
        places=tuple(_measure(what, path, table) for what, path in locations),
    )


def _home_of(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir if user else ""
    except (KeyError, ValueError):
        return ""


def _measure(what: str, path: str, table: list[tuple[str, str]]) -> FileSystem:
    """Measure the file system of ``path``, or of its nearest existing parent."""
    real = filesystem.nearest_existing(path).real
    kind = filesystem.file_system(real, table)
    try:
        status = os.statvfs(real)
    except (OSError, ValueError):
        return FileSystem(what, path, kind)
    return FileSystem(what, path, kind, status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


def guess_mounts_file(path: str, environ: Mapping[str, str]) -> str:
    """Return the file that LAUNCHER_MOUNTS was meant to name, if its variables, blanks or folder are wrong; else ""."""
    plain = expand_variables(path, environ, unset="").strip()
    is_right = plain == path and path.startswith(("/", "~"))
    return os.path.abspath(plain) if not is_right and os.path.isfile(plain) else ""


def find_similar_files(mapping_file: str, folder: str) -> list[str]:
    """Return the files that may have been meant to be the mapping file.

    These have a similar name beside it, or a similar or the same name in the current ``folder``, where notebooks are.
    """
    home, name = os.path.split(mapping_file)
    paths = [os.path.join(home, other) for other in _similar_names(home) if other != name]
    if os.path.realpath(folder) != os.path.realpath(home):
        paths += [os.path.join(folder, other) for other in _similar_names(folder)]
    return paths[:10]


def _similar_names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(_MAX_NAMES), entries, strict=False)]
    except (OSError, ValueError):
        return []
    return sorted(name for name in names if _SIMILAR_NAME.fullmatch(name))


def _change_time(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except (OSError, ValueError):
        return 0.0


# The login to NVIDIA's registry, as the launcher reads it in Docker's config.json


REGISTRIES = ("nvcr.io", "stg.nvcr.io")
_LIMIT = 4 << 20


class Login(NamedTuple):
    """The login as the launcher reads it, without anything secret.

    ``state`` is "", "absent", "unreadable" or "broken", and ``problem`` why the file cannot be read. ``registries`` are
    those that the launcher needs and ``auths`` has, ``lost`` the credential helpers that are not on PATH. ``elsewhere``
    is the file that DOCKER_CONFIG makes the docker command use instead; ``owner`` is a user id or -1.
    """

    path: str
    state: str = ""
    problem: str = ""
    registries: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    elsewhere: str = ""
    owner: int = -1


def probe_login(environ: Mapping[str, str]) -> Login:
    """Return the state of the login, without anything secret."""
    path = Host(environ, "").expanduser("~/.docker/config.json")
    folder = environ.get("DOCKER_CONFIG", "")
    elsewhere = os.path.join(folder, "config.json") if folder else ""
    if elsewhere and os.path.realpath(elsewhere) == os.path.realpath(path):
        elsewhere = ""
    try:
        owner = os.stat(path).st_uid
    except (OSError, ValueError):
        owner = -1
    login = Login(path, elsewhere=elsewhere, owner=owner)
    content, problem = files.try_read(path, _LIMIT)
    if problem:
        return login._replace(state="absent" if problem == "absent" else "unreadable", problem=problem)
    data, problem = files.parse_json(content)
    auths = data.get("auths", {}) if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(auths, dict):
        return login._replace(state="broken", problem=problem or "it is not a valid Docker config.json")
    lost = tuple(name for name in _helpers(data) if not shutil.which(name, path=environ.get("PATH", "")))
    return login._replace(lost=lost, registries=tuple(name for name in REGISTRIES if name in auths))


def _helpers(data: dict[str, object]) -> tuple[str, ...]:
    """Return the programs that keep the credentials of the registries."""
    by_registry = data.get("credHelpers")
    names = [by_registry.get(name) for name in REGISTRIES] if isinstance(by_registry, dict) else []
    names.insert(0, data.get("credsStore"))
    # docker ignores a name with a slash, and one that no file can have.
    valid = dict.fromkeys(name for name in names if isinstance(name, str) and name.isprintable() and name)
    return tuple(f"docker-credential-{name[:100]}" for name in valid if "/" not in name)
