"""Whether the launcher takes this user for logged in: the very test that it makes (``world/registry``)."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from taoprofiles.launcher import versions
from taoprofiles.rules.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taoprofiles.launcher.registry import Login

LOGIN = "docker login nvcr.io -u '$oauthtoken'"
"""The user's name is that text itself; the password is a key of NGC."""

_BROKEN = ("unreadable", "no-json", "no-object", "auths-odd")


def judge(login: Login, version: str, environ: Mapping[str, str], uid: int) -> list[Finding]:
    """Judge for the launcher ``version``, "" for an unknown one. Of ``environ`` two names are looked at."""
    found = []
    if login.lost:
        lost = ", ".join(f"'{name}'" for name in login.lost)
        what = f"it has {lost} keep the credentials, and that is not on PATH"
        why = "'docker login' and each pull end with: executable file not found in $PATH"
        folder = shlex.quote(login.path)
        hint = f"mv {folder} {folder}.before && {LOGIN}"
        found.append(Finding("login-helper-missing", login.path, what, why, hint))
    if versions.installed(version).override_skips_login and "OVERRIDE_REGISTRY" in environ:
        return found
    if login.kind in _BROKEN:
        return [*found, _broken(login, uid)]
    asked = ["nvcr.io", *(["stg.nvcr.io"] if environ.get("LAUNCHER_MODE_INTERNAL", "0") == "1" else [])]
    missing = [name for name in asked if name not in login.registries]
    if missing:
        what = f"not logged in to {' and '.join(missing)}"
        what += ": there is no such file" if login.kind == "absent" else ""
        why = (
            "tao asks for it before each task, even if the image is there; the password is an API key of ngc.nvidia.com"
        )
        hint = " && ".join(LOGIN.replace("nvcr.io", name) for name in missing)
        if login.elsewhere:
            other = os.path.dirname(login.elsewhere)
            why = f"DOCKER_CONFIG has docker use '{other}'; tao reads {login.path} all the same"
            hint = f"env -u DOCKER_CONFIG {hint}"
        found.append(Finding("login-missing", login.path, what, why, hint))
    return found


def _broken(login: Login, uid: int) -> Finding:
    path = shlex.quote(login.path)
    why = "tao ends with a traceback before each task"
    if login.kind == "unreadable" and login.owner not in (-1, uid):
        folder = shlex.quote(os.path.dirname(login.path))
        why = f"it belongs to user id {login.owner}, as after 'sudo docker login'; {why}"
        hint = f'sudo chown -R "$(id -u):$(id -g)" {folder}'
    else:
        hint = f"mv {path} {path}.broken && {LOGIN}"
    return Finding("docker-config-broken", login.path, f"the file cannot be read: {login.problem}", why, hint)
