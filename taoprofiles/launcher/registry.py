"""The login to NVIDIA's registry, read as the launcher reads it.

nvidia-tao 6.26.3, components/instance_handler/utils.py lines 147 to 173, and the same in 0.1.21 and 4.0.1: the key
``nvcr.io`` must stand under ``auths`` of ``~/.docker/config.json``, whatever DOCKER_CONFIG and the credential helpers
say. With LAUNCHER_MODE_INTERNAL=1 ``stg.nvcr.io`` must as well.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.storage import best_effort, files

if TYPE_CHECKING:
    from collections.abc import Mapping


class Login(NamedTuple):
    """The docker command's configuration, as the launcher reads it: ``~/.docker/config.json`` and no other.

    ``problem`` is why it cannot be read; ``kind`` is "" or "absent", "unreadable", "no-json", "no-object",
    "no-auths", "auths-odd". ``registries`` are those of ``auths`` that the launcher asks for, ``helpers`` the programs
    that keep credentials, ``lost`` those of them that are not on PATH. ``elsewhere`` is the file that
    DOCKER_CONFIG makes the docker command use instead, and ``there`` those of its registries.
    """

    path: str
    kind: str = ""
    problem: str = ""
    registries: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    elsewhere: str = ""
    there: tuple[str, ...] = ()
    owner: int = -1


ASKED = ("nvcr.io", "stg.nvcr.io")
_LIMIT = 4 << 20


def survey(environ: Mapping[str, str], home: str) -> Login:
    """Read the file, and nothing of what is secret in it."""
    path = os.path.join(home, ".docker/config.json")
    folder = environ.get("DOCKER_CONFIG", "")
    elsewhere = os.path.join(folder, "config.json") if folder else ""
    if elsewhere and os.path.realpath(elsewhere) == os.path.realpath(path):
        elsewhere = ""
    other, _ = _config(elsewhere) if elsewhere else ({}, "")
    there = _registries(other.get("auths"))
    try:
        owner = os.stat(path).st_uid
    except (OSError, ValueError):
        owner = -1
    content, problem = files.try_read(path, _LIMIT)
    found = Login(path, elsewhere=elsewhere, there=there, owner=owner)
    if problem:
        return found._replace(kind="absent" if problem == "absent" else "unreadable", problem=problem)
    data, problem = best_effort.parse_json(content)
    if problem:
        return found._replace(kind="no-json", problem=problem)
    if not isinstance(data, dict):
        return found._replace(kind="no-object", problem="it is not an object")
    helpers = _helpers(data)
    lost = tuple(name for name in helpers if not shutil.which(name, path=environ.get("PATH", "")))
    found = found._replace(helpers=helpers, lost=lost, registries=_registries(data.get("auths")))
    if "auths" not in data:
        return found._replace(kind="no-auths")
    return (
        found if isinstance(data["auths"], dict) else found._replace(kind="auths-odd", problem="'auths' is no object")
    )


def _config(path: str) -> tuple[dict[str, object], str]:
    data, problem = best_effort.parse_json(files.try_read(path, _LIMIT)[0])
    return (data, problem) if isinstance(data, dict) else ({}, problem)


def _registries(auths: object) -> tuple[str, ...]:
    return tuple(name for name in ASKED if name in auths) if isinstance(auths, dict) else ()


def _helpers(data: dict[str, object]) -> tuple[str, ...]:
    """Give the programs that keep the credentials of the registries that are asked for."""
    of_all, of_some = data.get("credsStore"), data.get("credHelpers")
    named = [of_some.get(name) for name in ASKED] if isinstance(of_some, dict) else []
    # A name with a slash, or one that no file can have, is looked up by nobody.
    good = dict.fromkeys(name for name in [of_all, *named] if isinstance(name, str) and name.isprintable() and name)
    return tuple(f"docker-credential-{name[:100]}" for name in good if "/" not in name)
