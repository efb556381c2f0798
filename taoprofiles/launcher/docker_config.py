"""``~/.docker/config.json``: the launcher's test of the login, and what the Docker SDK takes from it.

``docker_logged_in`` in the launcher's utils.py; utils/config.py, utils/proxy.py and auth.py of docker 4.3.1.
"""

from __future__ import annotations

import base64
import json
import posixpath
from typing import TYPE_CHECKING, Any

from taoprofiles.launcher.prediction import Location, RefusedError

if TYPE_CHECKING:
    from taoprofiles.launcher.host import Host
    from taoprofiles.launcher.prediction import StartLog
    from taoprofiles.launcher.versions import Behaviour

LOGIN = "~/.docker/config.json"
"""The launcher looks nowhere else; the SDK follows DOCKER_CONFIG."""

_PROXIES = {"httpProxy": "http_proxy", "httpsProxy": "https_proxy", "ftpProxy": "ftp_proxy", "noProxy": "no_proxy"}


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
                    return  # perhaps the format of before Docker 1.7, in which anything passes
                message = f"Invalid configuration for registry {registry}"
                raise RefusedError("InvalidConfigFile", message, Location("login", key=registry))
            if "auth" in entry and "identitytoken" not in entry:
                text = entry["auth"]
                decoded = base64.b64decode(text.encode("ascii") if isinstance(text, str) else text)
                name, secret = decoded.split(b":", 1)
                name.decode()
                secret.decode()
