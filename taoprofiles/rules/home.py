"""Whether the launcher reads the file that is meant: HOME, variables, and names that come near."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from taoprofiles.launcher import versions
from taoprofiles.rules.finding import Finding

if TYPE_CHECKING:
    from taoprofiles.launcher.environment import Home
    from taoprofiles.launcher.versions import Behaviour

OLD_NAME = ".tlt_mounts.json"
"""What launchers up to 4.0.1 fall back to where there is no ~/.tao_mounts.json (docker_handler.py lines 28 to 38)."""


def judge(home: Home, version: str) -> list[Finding]:
    """Judge for the launcher ``version``, "" for an unknown one."""
    behaviour = versions.installed(version)
    found = [*_home(home), *_mounts(home), *_names(home, behaviour)]
    variables = home.variables
    if "CI_PROJECT_DIR" in variables and behaviour.ci:
        found.append(in_ci(variables["CI_PROJECT_DIR"], "user, ulimits, ports and network of the profile"))
    if variables.get("TAO_DOCKER_DISABLE", "0") != "0" and behaviour.can_do_without_docker:
        what = "TAO_DOCKER_DISABLE is set"
        why = "tao then starts no container, and reads no mapping file"
        found.append(Finding("tao-docker-disabled", "TAO_DOCKER_DISABLE", what, why, "unset TAO_DOCKER_DISABLE"))
    if home.system == "wsl":
        for place in home.places:
            if place.kind in ("9p", "drvfs", "v9fs") and place.what != "images":
                what = f"the {place.what} lies on a Windows disk"
                why = "it is many times slower there, and owners and modes of files are not kept"
                hint = f"cp -a {shlex.quote(place.path)} ~/"
                found.append(Finding("wsl-windows-disk", place.path, what, why, hint))
    return found


def in_ci(value: str, dropped: str) -> Finding:
    """Tell what the launcher leaves out where CI_PROJECT_DIR is set, to ``value``."""
    what = f"CI_PROJECT_DIR is set ('{value}')"
    why = f"tao takes this for GitLab's runner, writes a docker command of its own, and leaves out: {dropped}"
    return Finding("ci-project-dir-set", "CI_PROJECT_DIR", what, why, "unset CI_PROJECT_DIR")


def _home(home: Home) -> list[Finding]:
    if not os.path.isabs(home.path):
        what = f"HOME is '{home.path}', which is not an absolute path"
        why = "tao then looks for its mapping file in whatever folder it is started"
        return [
            Finding("home-not-absolute", "HOME", what, why, 'export HOME="$(getent passwd "$(id -u)" | cut -d: -f6)"')
        ]
    moved = home.variables.get("TAOPROF_HOME", "")
    if moved and not os.path.isabs(moved):
        what = f"TAOPROF_HOME is '{moved}', which is not an absolute path"
        why = "every taoprof command but this one refuses to go on"
        return [Finding("home-not-absolute", "TAOPROF_HOME", what, why, "unset TAOPROF_HOME")]
    user = home.variables.get("SUDO_USER", "")
    if not user or home.uid != 0 or user == "root" or not home.sudo_home:
        return []
    if home.path == home.sudo_home:
        what = f"this is root, with the home of '{user}'"
        why = f"what is written into the home then belongs to root, and '{user}' may not change it any more"
    else:
        what = f"this is root, with the home '{home.path}' and not that of '{user}'"
        theirs = f"{home.sudo_home}/.tao_mounts.json"
        why = f"tao reads {home.path}/.tao_mounts.json and root's login; '{theirs}' is not looked at"
    hint = f"sudo usermod -aG docker {shlex.quote(user)} && exit"
    return [Finding("home-under-sudo", "HOME", what, f"{why}; with the group 'docker' no sudo is needed", hint)]


def _mounts(home: Home) -> list[Finding]:
    path = home.variables.get("LAUNCHER_MOUNTS")
    return [] if path is None else launcher_mounts(path, home.mounts_state, home.mounts_meant)


def launcher_mounts(path: str, state: str, meant: str) -> list[Finding]:
    """Judge LAUNCHER_MOUNTS: ``path`` is its value, the others what ``values.machine.Home`` says of its file."""
    if not path:
        what = "LAUNCHER_MOUNTS is empty"
    elif path != path.strip():
        what = f"LAUNCHER_MOUNTS has a blank at its {'end' if path == path.lstrip() else 'beginning'}: '{path}'"
    elif "$" in path:
        what = f"LAUNCHER_MOUNTS has a variable that nothing replaces: '{path}'"
    elif not path.startswith(("/", "~")):
        what = f"LAUNCHER_MOUNTS is relative, so it names another file in each folder: '{path}'"
    elif state:
        what = f"LAUNCHER_MOUNTS names {state}: '{path}'"
    else:
        return []
    why = "tao says nothing, and starts its container without any mounts, variables and options"
    hint = f"export LAUNCHER_MOUNTS={shlex.quote(meant)}" if meant else "unset LAUNCHER_MOUNTS"
    return [Finding("lm-bad-path", "LAUNCHER_MOUNTS", what, why, hint)]


def _names(home: Home, behaviour: Behaviour) -> list[Finding]:
    found = []
    for path in home.near:
        is_old_name = os.path.basename(path) == OLD_NAME
        if f"~/{os.path.basename(path)}" == behaviour.fallback_file and not home.has_mapping:
            continue
        what = f"its name is not '{os.path.basename(home.mapping_file)}', so tao does not read it"
        why = "a launcher before 5.0 did" if is_old_name else "without its file tao says little, and mounts nothing"
        hint = f"taoprof import {shlex.quote(path)}"
        if not home.has_mapping:
            hint = f"mv {shlex.quote(path)} {shlex.quote(home.mapping_file)}"
        found.append(Finding("file-near-miss-name", path, what, why, hint))
    return found
