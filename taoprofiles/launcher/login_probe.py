"""Probe of the login to NVIDIA's registry, as the launcher reads it in Docker's config.json."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import NamedTuple

from taoprofiles.storage import files, json_text

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


def probe_login(environ: Mapping[str, str], home: str) -> Login:
    """Return the state of the login, without anything secret."""
    path = os.path.join(home, ".docker/config.json")
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
    data, problem = json_text.parse(content)
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
