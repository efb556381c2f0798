"""``~/.docker/config.json``: the launcher's test of the login, and what the Docker SDK takes from it.

``docker_logged_in`` in the launcher's utils.py; utils/config.py, utils/proxy.py and auth.py of docker 4.3.1.
"""

from __future__ import annotations

import base64
import json
import posixpath
from typing import TYPE_CHECKING, Any

from taoprofiles.launcher.prediction import Place
from taoprofiles.launcher.refusal import refuse, refusing

if TYPE_CHECKING:
    from taoprofiles.launcher.prediction import Machine
    from taoprofiles.launcher.versions import Behaviour

LOGIN = "~/.docker/config.json"
"""The launcher looks nowhere else; the SDK follows DOCKER_CONFIG."""

_PROXIES = {"httpProxy": "http_proxy", "httpsProxy": "https_proxy", "ftpProxy": "ftp_proxy", "noProxy": "no_proxy"}


def check_login(behaviour: Behaviour, machine: Machine, registry: str) -> None:
    """Do the launcher's test of the login: a key of the registry's name. Raises RefusedError."""
    if behaviour.override_skips_login and "OVERRIDE_REGISTRY" in machine.environ:
        return
    path = machine.expanduser(LOGIN)
    if not machine.exists(path):
        message = f"Config path must be a valid unix path. No file found at: {path}. Did you run docker login?"
        raise refuse("AssertionError", message, Place("login"))
    with refusing("login"):
        data = json.loads(machine.read(path).decode())
        keys = list(data.keys())
    if "auths" not in keys:
        message = "Docker CLI hasn't been logged in to a registry.Please run `docker login nvcr.io`"
        raise refuse("ValueError", message, Place("login"))
    with refusing("login", key="auths"):
        known = list(data["auths"].keys())
    if registry not in known:
        message = f"\nDocker not logged in to {registry}. Please run docker login {registry}"
        raise refuse("AssertionError", message, Place("login", key=registry))


def proxies(machine: Machine) -> list[str]:
    """Give the variables that the SDK puts before all others, NAME=VALUE. Raises RefusedError: it reads logins, too."""
    named = machine.environ.get("DOCKER_CONFIG")
    home = machine.expanduser("~")
    places = [posixpath.join(named, "config.json")] if named else []
    places += [posixpath.join(home, ".docker/config.json"), posixpath.join(home, ".dockercfg")]
    path = next((path for path in places if machine.exists(path)), None)
    try:
        config = json.loads(machine.read(path).decode()) if path else {}
    except (OSError, ValueError):
        return []
    with refusing("login", key="proxies"):
        by_host = config.get("proxies", {})
        try:
            chosen = by_host[machine.environ.get("DOCKER_HOST") or None]
        except KeyError:
            chosen = by_host.get("default", {})
        found = {name: chosen.get(key) for key, name in _PROXIES.items()} if chosen else {}
    _logins(config)
    return [f"{each}={value}" for name, value in found.items() if value for each in (name, name.upper())]


def _logins(config: dict[str, Any]) -> None:
    if not config.get("auths") and (config.get("credsStore") or config.get("credHelpers")):
        return
    with refusing("login", key="auths"):
        for registry, entry in (config.get("auths") or config).items():
            if not isinstance(entry, dict):
                if not config.get("auths"):
                    return  # the whole may be in the form of before Docker 1.7: then it lets anything pass
                message = f"Invalid configuration for registry {registry}"
                raise refuse("InvalidConfigFile", message, Place("login", key=registry))
            if "auth" in entry and "identitytoken" not in entry:
                text = entry["auth"]
                decoded = base64.b64decode(text.encode("ascii") if isinstance(text, str) else text)
                name, secret = decoded.split(b":", 1)
                name.decode()
                secret.decode()
