"""Rules for this machine: the home, the variables that redirect the launcher, the login, the folders behind mounts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote

from taoprofiles.launcher import versions
from taoprofiles.launcher.home_probe import Home, Login
from taoprofiles.launcher.host import ResolvedMount, runs_in_ci, skips_login
from taoprofiles.mounts import paths
from taoprofiles.rules import container
from taoprofiles.rules.finding import Finding, Locator, error, warning
from taoprofiles.storage.paths import Context
from taoprofiles.system import filesystem
from taoprofiles.system.filesystem import WINDOWS_DISKS, PathInfo, find_foreign_files

LOGIN = "docker login nvcr.io -u '$oauthtoken'"
"""The user name is literally $oauthtoken; the password is an API key of NGC."""


def check_home(home: Home, version: str) -> Iterator[Finding]:
    """Check home and variables for the launcher ``version``, "" for an unknown one."""
    behaviour = versions.behaviour_or_newest(version)
    variables = home.variables
    yield from _check_path(home)
    yield from check_launcher_mounts(variables.get("LAUNCHER_MOUNTS"), home.mounts_state, home.mounts_meant)
    yield from _check_names(home, behaviour.fallback_file)
    if runs_in_ci(variables, behaviour):
        yield in_ci(variables["CI_PROJECT_DIR"], "user, ulimits, ports and network of the profile")
    if variables.get("TAO_DOCKER_DISABLE", "0") != "0" and behaviour.has_no_docker_mode:
        yield without_docker()
    for disk in home.places if home.system == "wsl" else ():
        if disk.kind in WINDOWS_DISKS and disk.what != "images":
            what = f"the {disk.what} is on a Windows disk"
            why = "it is many times slower there, and owners and modes of files are not kept"
            yield warning("slow-file-system", disk.path, what, why, f"cp -a {quote(disk.path)} ~/")


def without_docker() -> Finding:
    """Return the finding for TAO_DOCKER_DISABLE."""
    what, why = "TAO_DOCKER_DISABLE is set", "tao then runs the task on this host, and reads no mapping file"
    return warning("tao-docker-disabled", "TAO_DOCKER_DISABLE", what, why, "unset TAO_DOCKER_DISABLE")


def in_ci(value: str, dropped: str) -> Finding:
    """Return the finding for CI_PROJECT_DIR, which is ``value``; ``dropped`` names what the launcher ignores."""
    why = f"tao assumes a GitLab runner, builds its own docker command, and ignores: {dropped}"
    what = f"CI_PROJECT_DIR is set ('{value}')"
    return warning("ci-project-dir-set", "CI_PROJECT_DIR", what, why, "unset CI_PROJECT_DIR")


def _check_path(home: Home) -> Iterator[Finding]:
    if not os.path.isabs(home.path):
        what = f"HOME is '{home.path}', which is not an absolute path"
        why = "tao then looks for its mapping file in the folder in which it is started"
        hint = 'export HOME="$(getent passwd "$(id -u)" | cut -d: -f6)"'
        yield error("home-not-absolute", "HOME", what, why, hint)
        return
    moved = home.variables.get("TAOPROF_HOME", "")
    if moved and not os.path.isabs(moved):
        what = f"TAOPROF_HOME is '{moved}', which is not an absolute path"
        why = "every other taoprof command refuses to work"
        yield error("home-not-absolute", "TAOPROF_HOME", what, why, "unset TAOPROF_HOME")
        return
    user = home.variables.get("SUDO_USER", "")
    if not user or home.uid != 0 or user == "root" or not home.sudo_home:
        return
    if home.path == home.sudo_home:
        what = f"this is root, with the home of '{user}'"
        why = f"files that are written into the home belong to root, and '{user}' can no longer change them"
    else:
        what = f"this is root, with the home '{home.path}' and not that of '{user}'"
        why = f"tao reads {home.path}/.tao_mounts.json and root's login, not '{home.sudo_home}/.tao_mounts.json'"
    hint = f"sudo usermod -aG docker {quote(user)}   # then log out and in again"
    yield warning("home-under-sudo", "HOME", what, f"{why}; with the group 'docker' no sudo is needed", hint)


def check_launcher_mounts(path: str | None, state: str, meant: str) -> Iterator[Finding]:
    """Check LAUNCHER_MOUNTS: ``path`` is its value, the others are of ``launcher.home_probe.Home``."""
    if path is None:
        return
    if not path:
        what = "LAUNCHER_MOUNTS is empty"
    elif path != path.strip():
        what = f"LAUNCHER_MOUNTS {'ends' if path == path.lstrip() else 'begins'} with a space: '{path}'"
    elif "$" in path:
        what = f"LAUNCHER_MOUNTS contains a variable that nothing expands: '{path}'"
    elif not path.startswith(("/", "~")):
        what = f"LAUNCHER_MOUNTS is relative, so it names another file in each folder: '{path}'"
    elif state:
        what = f"LAUNCHER_MOUNTS names {state}: '{path}'"
    else:
        return
    why = "tao reports nothing, and starts its container without mounts, variables and options"
    hint = f"export LAUNCHER_MOUNTS={quote(meant)}" if meant else "unset LAUNCHER_MOUNTS"
    yield error("lm-bad-path", "LAUNCHER_MOUNTS", what, why, hint)


def _check_names(home: Home, fallback_file: str) -> Iterator[Finding]:
    for path in home.near:
        name = os.path.basename(path)
        is_elsewhere = os.path.dirname(path) != os.path.dirname(home.mapping_file)
        if f"~/{name}" == fallback_file and not home.has_mapping and not is_elsewhere:
            continue
        what = f"its name is not '{os.path.basename(home.mapping_file)}', so tao does not read it"
        what = f"tao does not read it, but '{home.mapping_file}'" if is_elsewhere else what
        # docker_handler.py of launchers up to 4.0.1, lines 28 to 38
        is_old = name == ".tlt_mounts.json"
        why = "a launcher before 5.0 did" if is_old else "without its file tao only warns, and mounts nothing"
        path_word = quote(path)
        hint = f"taoprof import {path_word}" if home.has_mapping else f"mv {path_word} {quote(home.mapping_file)}"
        yield warning("file-near-miss-name", path, what, why, hint)


def check_login(login: Login, version: str, environ: Mapping[str, str], uid: int) -> Iterator[Finding]:
    """Check the login for the launcher ``version``, "" for an unknown one, by the launcher's own test."""
    if login.lost:
        helpers = ", ".join(f"'{name}'" for name in login.lost)
        what = f"it names {helpers} for the credentials, which is not on PATH"
        why, path = "'docker login' and each pull end with: executable file not found in $PATH", quote(login.path)
        yield error("login-helper-missing", login.path, what, why, f"mv {path} {path}.before && {LOGIN}")
    if skips_login(environ, versions.behaviour_or_newest(version)):
        return
    if login.state in ("unreadable", "broken"):
        why, path = "tao ends with a traceback before each task", quote(login.path)
        hint = f"mv {path} {path}.broken && {LOGIN}"
        if login.state == "unreadable" and login.owner not in (-1, uid):
            why, hint = f"it belongs to user id {login.owner}, and HOME may be another user's; {why}", f"ls -l {path}"
        if login.state == "unreadable" and login.owner == 0 and uid:
            why = "it belongs to root, probably because of 'sudo docker login'; tao ends with a traceback before "
            why += "each task"
            hint = f'sudo chown -R "$(id -u):$(id -g)" {quote(os.path.dirname(login.path))}'
        yield error("docker-config-broken", login.path, f"the file cannot be read: {login.problem}", why, hint)
        return
    required = ["nvcr.io", *(["stg.nvcr.io"] if environ.get("LAUNCHER_MODE_INTERNAL", "0") == "1" else [])]
    missing = [name for name in required if name not in login.registries]
    if missing:
        what = f"not logged in to {' and '.join(missing)}"
        what += ": there is no such file" if login.state == "absent" else ""
        why = "tao checks it before each task, even if the image is already present; "
        why += "the password is an API key of ngc.nvidia.com"
        hint = " && ".join(LOGIN.replace("nvcr.io", name) for name in missing)
        if login.elsewhere:
            why = f"DOCKER_CONFIG makes docker use '{os.path.dirname(login.elsewhere)}', but tao reads {login.path}"
            hint = f"env -u DOCKER_CONFIG {hint}"
        yield error("login-missing", login.path, what, why, hint)


_RESULTS = ("results", "result", "output", "outputs", "experiments")
"""Names of container folders for results, where neither the command, a spec file nor a variable names one."""


def check_folders(
    context: Context,
    mounts: Sequence[ResolvedMount],
    locate: Locator,
    *,
    mounted: Mapping[str, str],
    user: object,
    results: Sequence[str],
    profile: str | None,
) -> Iterator[Finding]:
    """Check the sources and the results folders for the container's ``user``.

    ``mounted`` is destination by source as it reaches the container; ``results`` are the folders in it that the task
    writes to, () if they are not known, and ``profile`` is named in hints.
    """
    ids = container.user_ids(user, context.uid, context.gid)
    table, sources = filesystem.file_systems(), []
    for mount in mounts:
        source = PathInfo(mount.source)
        if not source.problem:
            where = locate(mount.location._replace(key="source"))
            sources.append((where, source, filesystem.file_system(source.real, table)))
    docker = os.path.realpath(shutil.which("docker", path=context.environ.get("PATH")) or "")
    yield from container.check_sources(
        sources, ids, home=context.home, snap=docker.startswith("/snap/"), profile=profile
    )
    usual = [destination for destination in mounted.values() if os.path.basename(destination) in _RESULTS]
    named = results or usual
    existing = [(path, filesystem.nearest_existing(path)) for path in dict.fromkeys(paths.host_paths(named, mounted))]
    # Not those in a source that does not exist, which is reported.
    inside = [(path, info) for path, info in existing if paths.is_mounted(info.path, mounted)]
    yield from container.check_results(inside, ids)
    for _, folder in inside:
        if ids is not None and ids[0] != 0 and folder.may(*ids, 3):
            yield from container.check_owners(folder.path, find_foreign_files(folder.path, ids[0]), ids)
