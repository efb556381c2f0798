"""Docker's config.json: the launcher's test of the login, what the Docker SDK takes from it, and the login's state.

``docker_logged_in`` in the launcher's utils.py (nvidia-tao 6.26.3 lines 147 to 173, and the same in 0.1.21 and 4.0.1):
the key ``nvcr.io`` must be in ``auths`` of ``~/.docker/config.json``, whatever DOCKER_CONFIG and the credential helpers
say; with LAUNCHER_MODE_INTERNAL=1 ``stg.nvcr.io`` as well. utils/config.py, utils/proxy.py and auth.py of docker 4.3.1.
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

from taoprofiles.launcher.host import Host
from taoprofiles.launcher.mounts import Location
from taoprofiles.launcher.prediction import RefusedError, StartLog
from taoprofiles.launcher.versions import Behaviour
from taoprofiles.storage import best_effort, files

LOGIN = "~/.docker/config.json"
"""The launcher reads no other file; the SDK follows DOCKER_CONFIG."""

_PROXIES = {"httpProxy": "http_proxy", "httpsProxy": "https_proxy", "ftpProxy": "ftp_proxy", "noProxy": "no_proxy"}
REGISTRIES = ("nvcr.io", "stg.nvcr.io")
_LIMIT = 4 << 20


class Login(NamedTuple):
    """The login as the launcher reads it: from ``~/.docker/config.json``, and no other file.

    ``problem`` is why it cannot be read; ``kind`` is "" or "absent", "unreadable", "no-json", "no-object",
    "no-auths", "auths-odd". ``registries`` are those that the launcher needs and ``auths`` has, ``helpers`` the
    programs that keep credentials, ``lost`` those of them that are not on PATH. ``elsewhere`` is the file that
    DOCKER_CONFIG makes the docker command use instead; ``owner`` is a user id or -1.
    """

    path: str
    kind: str = ""
    problem: str = ""
    registries: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    elsewhere: str = ""
    owner: int = -1


def check_login(behaviour: Behaviour, host: Host, registry: str, log: StartLog) -> None:
    """Repeat the launcher's test of the login: the registry must be a key of ``auths``."""
    if behaviour.override_skips_login and "OVERRIDE_REGISTRY" in host.environ:
        return
    path = host.expanduser(LOGIN)
    with log.step("login"):
        if not host.exists(path):
            message = f"Config path must be a valid unix path. No file found at: {path}. Did you run docker login?"
            raise RefusedError("AssertionError", message, Location("login"))
        data = json.loads(host.read(path).decode())
        if "auths" not in list(data.keys()):
            message = "Docker CLI hasn't been logged in to a registry.Please run `docker login nvcr.io`"
            raise RefusedError("ValueError", message, Location("login"))
        with log.step("login", key="auths"):
            if registry not in list(data["auths"].keys()):
                message = f"\nDocker not logged in to {registry}. Please run docker login {registry}"
                raise RefusedError("AssertionError", message, Location("login", key=registry))


def get_proxies(host: Host, log: StartLog) -> list[str]:
    """Return the variables that the SDK puts before all others, as NAME=VALUE; it reads the logins as well."""
    folder = host.environ.get("DOCKER_CONFIG")
    home = host.expanduser("~")
    paths = [posixpath.join(folder, "config.json")] if folder else []
    paths += [posixpath.join(home, ".docker/config.json"), posixpath.join(home, ".dockercfg")]
    path = next((path for path in paths if host.exists(path)), None)
    try:
        config = json.loads(host.read(path).decode()) if path else {}
    except (OSError, ValueError):
        return []
    variables: dict[str, Any] = {}
    with log.step("login", key="proxies"):
        by_host = config.get("proxies", {})
        try:
            proxies = by_host[host.environ.get("DOCKER_HOST") or None]
        except KeyError:
            proxies = by_host.get("default", {})
        variables = {name: proxies.get(key) for key, name in _PROXIES.items()} if proxies else {}
        _read_logins(config, log)
    return [f"{each}={value}" for name, value in variables.items() if value for each in (name, name.upper())]


def _read_logins(config: dict[str, Any], log: StartLog) -> None:
    if not config.get("auths") and (config.get("credsStore") or config.get("credHelpers")):
        return
    with log.step("login", key="auths"):
        for registry, entry in (config.get("auths") or config).items():
            if not isinstance(entry, dict):
                if not config.get("auths"):
                    return  # possibly the format used before Docker 1.7, which the Docker SDK accepts unchecked
                message = f"Invalid configuration for registry {registry}"
                raise RefusedError("InvalidConfigFile", message, Location("login", key=registry))
            if "auth" in entry and "identitytoken" not in entry:
                text = entry["auth"]
                decoded = base64.b64decode(text.encode("ascii") if isinstance(text, str) else text)
                name, secret = decoded.split(b":", 1)
                name.decode()
                secret.decode()


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
    content, problem = files.try_read(path, _LIMIT)
    login = Login(path, elsewhere=elsewhere, owner=owner)
    if problem:
        return login._replace(kind="absent" if problem == "absent" else "unreadable", problem=problem)
    data, problem = best_effort.parse_json(content)
    if problem:
        return login._replace(kind="no-json", problem=problem)
    if not isinstance(data, dict):
        return login._replace(kind="no-object", problem="it is not an object")
    helpers = _helpers(data)
    lost = tuple(name for name in helpers if not shutil.which(name, path=environ.get("PATH", "")))
    login = login._replace(helpers=helpers, lost=lost)
    if "auths" not in data:
        return login._replace(kind="no-auths")
    if not isinstance(data["auths"], dict):
        return login._replace(kind="auths-odd", problem="'auths' is not an object")
    return login._replace(registries=tuple(name for name in REGISTRIES if name in data["auths"]))


def _helpers(data: dict[str, object]) -> tuple[str, ...]:
    """Return the programs that keep the credentials of the registries."""
    by_registry = data.get("credHelpers")
    names = [by_registry.get(name) for name in REGISTRIES] if isinstance(by_registry, dict) else []
    names.insert(0, data.get("credsStore"))
    # docker ignores a name with a slash, and one that no file can have.
    valid = dict.fromkeys(name for name in names if isinstance(name, str) and name.isprintable() and name)
    return tuple(f"docker-credential-{name[:100]}" for name in valid if "/" not in name)
