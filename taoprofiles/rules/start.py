"""Rules for a start: each refusal of the launcher, each silent effect that matters, DockerOptions, and this machine.

This machine: the home, the variables that redirect the launcher, the login, and the folders behind the mounts.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from shlex import quote
from typing import Any, NamedTuple

from taoprofiles.launcher.argv import GROUPS, HANDLERS, PROGRAMS
from taoprofiles.launcher.behaviour import (
    ENTRY_KEYS,
    SECTIONS,
    Behaviour,
    Host,
    Location,
    ResolvedMount,
    behaviour_or_newest,
    runs_in_ci,
    skips_login,
)
from taoprofiles.launcher.probes import Home, Login
from taoprofiles.launcher.simulation import Content, Prediction, Refusal, size_in_bytes
from taoprofiles.masking import mask_command
from taoprofiles.mounts import paths
from taoprofiles.mounts.mapping import explain_json_error
from taoprofiles.profiles.layouts import is_network
from taoprofiles.rules import container
from taoprofiles.rules.command_paths import CommandContext
from taoprofiles.rules.finding import Finding, Lines, Locator, error, warning
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.system import filesystem
from taoprofiles.system.filesystem import WINDOWS_DISKS, PathInfo, find_foreign_files

_SHELL_BUILTINS = frozenset(". alias cd eval exec export pushd set source ulimit umask unset".split())
_OPERATORS = frozenset(";&|<>")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)

MIB = 1 << 20
GIB = 1 << 30
_RECOMMENDED = "16G"
"""What NVIDIA's notebooks and documentation recommend."""

_BINARY = r"([0-9]+) ?([KMGkmg])i[Bb]?"
"""A size as other programs write it, whose meaning is clear: 16GiB."""


def _explain_option(refusal: Refusal, options: Any, locate: Locator, behaviour: Behaviour) -> Finding:
    """Return the finding for a refusal of the launcher; ``options`` are as written, of any type."""
    key, where, stops = refusal.location.key, locate(refusal.location), f"the launcher stops: {refusal}"
    if not key:
        what = f"DockerOptions is {'null' if options is None else 'not an object'}"
        return error("opts-shape", where, what, stops, "write {}, or remove DockerOptions", by_hand=True)
    if key.startswith("ulimits"):
        hint = 'such as {"memlock": -1, "stack": 67108864}'
        what = f"{key} is not {'an object' if key == 'ulimits' else 'a whole number'}"
        return error("opts-shape", where, what, stops, hint, by_hand=True)
    if key == "shm_size":
        return _bad_size(options[key], where, stops)
    if key.startswith("ports"):
        return error("opts-shape", where, f"{key} is not valid", stops, 'such as {"8888": 8888}', by_hand=True)
    if key not in behaviour.options:
        close = difflib.get_close_matches(key, behaviour.options, n=1)
        return error(
            "opt-unknown-for-version", where, f"launcher {behaviour.version} does not know '{key}'", stops,
            f"perhaps '{close[0]}' is meant" if close else f"remove it; known: {', '.join(sorted(behaviour.options))}",
            fix=() if close else ("unset", f"docker.{key}"), by_hand=True,
        )  # fmt: skip
    return error("launcher-refuses", where, stops)


def check_options(
    options: dict[str, Any], locate: Locator, *, memory: int, used_ports: Collection[int]
) -> Iterator[Finding]:
    """Check what the options do to a training.

    ``memory`` is the host's in bytes, 0 if unknown; ``used_ports`` are the host's ports with a listener.
    """
    yield from _check_shared_memory(options, locate, memory)
    ports, is_host = options.get("ports"), options.get("network") == "host"
    if ports and is_host:
        where, what = locate(_key("ports")), "published ports have no effect with network 'host'"
        why = "Docker ignores them: with the host's network, ports need not be published"
        yield warning("ports-without-network", where, what, why, "remove one of the two", by_hand=True)
    for inside, published in ports.items() if isinstance(ports, dict) and not is_host else ():
        for port in published if isinstance(published, list) else [published]:
            if isinstance(port, int) and port in used_ports:
                where, what = locate(_key(f"ports.{inside}")), f"port {port} of this host is in use"
                why = f"Docker refuses: Bind for 0.0.0.0:{port} failed: port is already allocated"
                hint = "publish another port, or stop the program that has it: ss -ltnp"
                yield error("port-in-use", where, what, why, hint, by_hand=True)


def _key(name: str) -> Location:
    return Location("DockerOptions", key=name)


def _check_shared_memory(options: dict[str, Any], locate: Locator, memory: int) -> Iterator[Finding]:
    where, fix = locate(_key("shm_size")), ("set", f"docker.shm_size={_RECOMMENDED}")
    symptom = "training with several workers stops: Unexpected bus error … insufficient shared memory (shm)"
    value = options.get("shm_size")
    if value is None:
        hint = f'set it to "{_RECOMMENDED}", as NVIDIA recommends'
        yield warning("shm-too-small", where, "the shared memory has Docker's default of 64 MB", symptom, hint, fix=fix)
        return
    size = size_in_bytes(value)
    if size is None:
        if not isinstance(value, str):  # the launcher passes it on
            yield _bad_size(value, where, "Docker refuses it")
    elif size < GIB:
        what = f"the shared memory is {size // MIB} MB" if size >= MIB else f"the shared memory is {size} bytes"
        yield warning("shm-too-small", where, what, symptom, f'set it to "{_RECOMMENDED}"', fix=fix)
    elif memory and size > memory:
        what = f"the shared memory may grow to {size // GIB} GB, and this host has {memory // GIB} GB of memory"
        why = "when it fills up, the kernel may kill the training or other programs"
        yield warning("shm-over-memory", where, what, why, "set it to half of the host's memory", by_hand=True)


def _bad_size(value: object, where: str, why: str) -> Finding:
    size = re.fullmatch(_BINARY, str(value))
    fix = ("set", f"docker.shm_size={size[1]}{size[2].upper()}") if size else ()
    return error("shm-unit", where, f"{value!r} is not a size", why, f'such as "{_RECOMMENDED}"', fix=fix, by_hand=True)


class MountsFile(NamedTuple):
    """The mounts file: ``text`` as read, ``locate`` names its parts; ``lines`` is None if it comes from a profile."""

    name: str
    text: str
    locate: Locator
    lines: Lines | None


def check_start(prediction: Prediction, file: MountsFile, behaviour: Behaviour, host: Host) -> Iterator[Finding]:
    """Yield the findings of a simulated start, except those of the login to the registry and of the command."""
    content = prediction.content
    accepted = {mount.location.number for mount in content.mounts} if content else set()
    for refusal in prediction.refusals:
        section, number, _ = refusal.location
        if section == "file":
            yield _explain_file(refusal, file)
        elif section in ENTRY_KEYS:
            if section == "Envs" or number not in accepted:  # else the source is missing: a rule of its own
                yield _explain_entry(refusal, file.locate)
        elif section == "DockerOptions":
            yield _explain_option(refusal, content.options if content else None, file.locate, behaviour)
        elif section not in ("login", "command"):
            yield other_refusal(refusal)
    if file.lines is not None:
        yield from _repeated_keys(file.lines, file.name)
    if content is not None:
        all_mounts = [*content.mounts, *prediction.volumes]
        yield from container.check_mounts(all_mounts, file.locate, host)
        yield from container.check_variables(content.variables, file.locate)
        yield from _ignored_keys(content, file.locate)
    yield from _silent_volumes(prediction)


def _silent_volumes(prediction: Prediction) -> Iterator[Finding]:
    for word in prediction.unseen_volumes:
        why = "the launcher knows only '--volume SOURCE:DESTINATION', from 6.0.0 on; this goes to the task"
        yield warning("volume-argument", "--volume", f"'{word}' mounts nothing", why, "add the mount to the profile")
    for mode in prediction.ignored_modes:
        what, why = f"the launcher ignores '{mode}'", "the mount is always writable"
        yield warning("key-ignored", "--volume", what, why, "remove it")


def other_refusal(refusal: Refusal) -> Finding:
    """Return the finding for a refusal without a rule of its own."""
    hint = "--volume SOURCE:DESTINATION" if refusal.location.section == "--volume" else ""
    return error("launcher-refuses", str(refusal.location), f"the launcher stops: {refusal}", hint=hint)


def _explain_file(refusal: Refusal, file: MountsFile) -> Finding:
    kind, key, id, where = refusal.kind, refusal.location.key, "file-shape", file.locate(refusal.location)
    if key:
        near = {name.lower(): name for name in SECTIONS}.get(key.lower(), "")
        hint = f"write '{near}'" if near else "remove it: comments are not allowed in this file"
        what = f"'{key[:70]}' is not a valid key in a mounts file"
    elif kind == "AssertionError":
        what, hint = "there is no 'Mounts'", 'add "Mounts": []'
    elif kind == "AttributeError":
        what, hint = "it is not a JSON object", 'the file must begin with {"Mounts": ['
    elif kind == "JSONDecodeError":
        line, what, hint = explain_json_error(file.text)
        id, where = "json-parse", f"{file.name}:{line}"
    else:
        id, what, hint = "json-parse", f"it cannot be read: {refusal.message[:100]}", ""
    return error(id, where, what, f"the launcher stops: {refusal}", hint, by_hand=True)


def _explain_entry(refusal: Refusal, locate: Locator) -> Finding:
    section, number, key = refusal.location
    if number is None:
        what, hint = f"{section} is not a list", "write [ … ]"
    elif key:
        what, hint = f"entry {number}: {key} is not a path", "write it in quotes"
    else:
        what, hint = f"entry {number} needs {' and '.join(ENTRY_KEYS[section])}", ""
    stops = f"the launcher stops: {refusal}"
    return error("file-shape", locate(refusal.location), what, stops, hint, by_hand=True)


def _repeated_keys(value: Lines, name: str) -> Iterator[Finding]:
    why = "JSON keeps only the last one, and the launcher never sees the first"
    for key in value.repeated or ():
        where = f"{name}:{value.parts[key].line}"
        yield error("json-dup-key", where, f"duplicate key '{key}'", why, "remove one of the two", by_hand=True)
    for part in value.parts.values():
        yield from _repeated_keys(part, name)


def _ignored_keys(content: Content, locate: Locator) -> Iterator[Finding]:
    located = [*content.variables, *((mount.location, mount.entry) for mount in content.mounts)]
    for location, entry in located:
        for key in entry:
            is_mode = location.section == "Mounts" and key in ("mode", "ro", "readonly", "read_only")
            if key in ENTRY_KEYS[location.section] or (is_mode and entry[key] in ("rw", False)):
                continue
            what = f"the launcher ignores {key}={json.dumps(entry[key])}" if is_mode else f"the launcher ignores {key}"
            why = "the mount is always writable" if is_mode else ""
            yield warning("key-ignored", locate(location._replace(key=key)), what, why, "remove it", by_hand=True)


def explain_task(
    refusal: Refusal, words: Sequence[str], tasks: Collection[tuple[str, ...]], context: CommandContext
) -> Finding:
    """Return the finding for a task that the launcher does not have; ``tasks`` are its (group, task), if known.

    ``words`` is the command.
    """
    has_groups, names = context.behaviour.task_groups, sorted({name for _, name in tasks})
    early, arguments = _split_early(list(words[1:]), names)
    launcher = f"launcher {context.behaviour.version}"
    if not arguments:
        arguments, early = early, []
    may_have_group = len(arguments) > 1 and arguments[0] not in names
    given = difflib.get_close_matches(arguments[0], GROUPS, n=1) if may_have_group else []  # it may be misspelt
    task, *rest = arguments[1:] if given else arguments
    program = "tao" if has_groups else words[0]  # 'tlt' is the program of older launchers
    if arguments[0] == "deploy" and not has_groups and context.behaviour.has_no_docker_mode:
        program = "tao-deploy"  # the program of 4.0.x
    renamed = [name for name in names if name.startswith(f"{task}_")]
    similar = renamed or difflib.get_close_matches(task, names, n=3)
    if task in names or not tasks:
        similar = [task]
    forms = []
    for name in similar:
        group = next((group for group, task in tasks if task == name), [*given, "model"][0])
        corrected = [program, *([group] if has_groups else []), name, *rest, *early]
        forms.append(context.to_shown_command(corrected))
    hint = forms[0] if len(forms) == 1 else f"{'one of' if renamed else 'did you mean'}: {' | '.join(forms)}"
    if not forms:
        hint = f"{program} {'model ' if has_groups else ''}--help lists the tasks"
    what = f"{launcher} has no command '{' '.join(arguments[:2] if has_groups else arguments[:1])[:80]}'"
    if early:
        what = f"{launcher} takes no options before the task: '{' '.join(mask_command(early))[:80]}'"
    return error("launcher-refuses", "command", what, f"the launcher stops: {refusal.message}", hint)


def _split_early(arguments: list[str], names: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the words in front of the group and the task, if these begin with an option, and the others.

    ``names`` are the launcher's tasks; if they are not known, only options are in front.
    """
    early: list[str] = []
    for starts in (GROUPS, ()):
        at = 1 if arguments and arguments[0] in GROUPS and not starts else 0
        if len(arguments) > at and arguments[at].startswith("-"):
            while len(arguments) > at and arguments[at] not in names and arguments[at] not in starts:
                is_certain = names or any(word in starts for word in arguments)
                if not is_certain and not arguments[at].startswith("-"):
                    break
                early.append(arguments.pop(at))
    return early, arguments


def check_program(words: Sequence[str], context: CommandContext) -> Iterator[Finding]:
    """Yield the finding for a launcher command whose program this version of the launcher does not have."""
    programs = context.behaviour.programs
    if words and words[0] not in programs:
        what = f"launcher {context.behaviour.version} has no program '{words[0]}', only {' and '.join(programs)}"
        named = words[1] if len(words) > 1 else ""
        group = [] if named in (*GROUPS, *HANDLERS) else ["deploy" if words[0] == "tao-deploy" else "model"]
        hint = context.to_shown_command(["tao", *(group if context.behaviour.task_groups else []), *words[1:]])
        why = f"a shell says '{words[0]}: command not found'"
        yield error("launcher-refuses", "command", what, why, hint)


def find_missing_program(words: list[str], path: str | None, profile: str) -> tuple[str, str] | None:
    """Return the message and the hint of ``explain_not_found`` if a command's program does not exist, else None."""
    word, path = words[0], os.defpath if path is None else path
    exists = os.path.lexists(word) if "/" in word else shutil.which(word, path=path) is not None
    return None if exists else explain_not_found(words, path, profile)


def explain_not_found(words: list[str], path: str | None, profile: str) -> tuple[str, str]:
    """Return a message and a hint for a command whose first word is not a program in the folders of ``path``.

    ``profile`` is the name of the run's profile.
    """
    word, first = words[0], (words[0].split() or [""])[0]
    message, hint = f"command not found: '{word}'", "is it installed, and is its environment active?"
    shown, run = mask_command(words), f"taoprof run {profile} --"
    if first in _SHELL_BUILTINS or (first != word and _OPERATORS & set(word)):
        script = shlex.join(shown) if first == word else " ".join([shown[0], *map(shlex.quote, shown[1:])])
        hint = f"only a shell can run this: {run} bash -c {shlex.quote(script)}"
    elif first != word and len(words) == 1 and (first in PROGRAMS or shutil.which(first, path=path)):
        hint = "the quotes make the whole command one word: write it without quotes"
    elif _ASSIGNMENT.match(word):
        hint = f"to set a variable for a command: {run} env {shlex.join(shown)}"
    elif "/" in word and os.path.lexists(word):
        hint = "the program that its first line names after '#!' does not exist"
    elif "/" in word:
        message, hint = f"no such file: '{word}'", ""
    elif os.path.isfile(word):
        hint = f"to run the file in the current folder: {shlex.quote(f'./{word}')}"
    elif is_network(word):
        launch = f"{run} {shlex.join(['tao', 'model', *shown])}"
        image = f"taoprof set {profile} image=IMAGE"
        hint = f"it is a program of TAO's images. To name one: {image}; to start it by the launcher: {launch}"
    elif word in PROGRAMS:
        hint = "is its environment active? 'taoprof doctor' looks for the launcher"
    return message, hint


# This machine


LOGIN = "docker login nvcr.io -u '$oauthtoken'"
"""The user name is literally $oauthtoken; the password is an API key of NGC."""


def check_home(home: Home, version: str) -> Iterator[Finding]:
    """Check home and variables for the launcher ``version``, "" for an unknown one."""
    behaviour = behaviour_or_newest(version)
    variables = home.variables
    yield from _check_path(home)
    yield from check_launcher_mounts(variables.get("LAUNCHER_MOUNTS"), home.mounts_state, home.mounts_meant)
    yield from _check_names(home, behaviour.fallback_file)
    if runs_in_ci(variables, behaviour):
        yield in_ci(variables["CI_PROJECT_DIR"], "user, ulimits, ports and network of the profile")
    if variables.get("TAO_DOCKER_DISABLE", "0") != "0" and behaviour.has_no_docker_mode:
        yield without_docker()
    for disk in home.file_systems if home.system == "wsl" else ():
        if disk.kind in WINDOWS_DISKS and disk.use != "images":
            what = f"the {disk.use} is on a Windows disk"
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
    """Check LAUNCHER_MOUNTS: ``path`` is its value, the others are of ``launcher.probes.Home``."""
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
    for path in home.similar_files:
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
    if login.missing_helpers:
        helpers = ", ".join(f"'{name}'" for name in login.missing_helpers)
        what = f"it names {helpers} for the credentials, which is not on PATH"
        why, path = "'docker login' and each pull end with: executable file not found in $PATH", quote(login.path)
        yield error("login-helper-missing", login.path, what, why, f"mv {path} {path}.before && {LOGIN}")
    if skips_login(environ, behaviour_or_newest(version)):
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


# The folders behind the mounts


_RESULTS = ("results", "result", "output", "outputs", "experiments")
"""Names of container folders for results, where neither the command, a spec file nor a variable names one."""
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs")


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
    table = filesystem.file_systems()
    docker = os.path.realpath(shutil.which("docker", path=context.environ.get("PATH")) or "")
    for mount in mounts:
        source = PathInfo(mount.source)
        if not source.problem:
            where = locate(mount.location._replace(key="source"))
            yield from check_source(where, source, filesystem.file_system(source.real, table), ids, profile)
            if docker.startswith("/snap/"):
                yield from check_snap(where, source, context.home)
    named = results or [path for path in mounted.values() if os.path.basename(path) in _RESULTS]
    for path in dict.fromkeys(paths.host_paths(named, mounted)):
        folder = filesystem.nearest_existing(path)
        # A folder in a source that does not exist is reported there.
        if ids is not None and paths.is_mounted(folder.path, mounted):
            yield from check_results(path, folder, ids)
            if ids[0] != 0 and folder.may(*ids, 3):
                yield from check_owners(folder.path, find_foreign_files(folder.path, ids[0]), ids)


def check_source(
    where: str, folder: PathInfo, kind: str, ids: tuple[int, int] | None, profile: str | None
) -> Iterator[Finding]:
    """Check the source of a mount on a file system of type ``kind``.

    ``ids`` are the container's user and group, None if only the image knows them.
    """
    if ids is not None and not folder.may(*ids, 5):
        what = f"'{folder.path}' belongs to user {folder.uid}, mode {folder.mode:o}"
        why = f"the container's user {ids[0]}:{ids[1]} may not read it"
        yield warning("src-of-another-user", where, what, why, f"chmod o+rx {quote(folder.path)}, by its owner")
    if kind in _NETWORK:
        if ids is None or ids[0] == 0 or not folder.mode & 0o005:
            why = "if the server maps root to nobody (root_squash), Docker fails: permission denied"
            command = f"taoprof set {profile or 'NAME'} docker.user=auto"
            hint = f"let the container run as you ({command}), and: chmod o+rx on its parents"
            yield warning("nfs-root-squash", where, f"'{folder.path}' is on {kind}", why, hint)
    elif kind in WINDOWS_DISKS:
        why = "Windows disks are slow from Linux, and do not keep owners: training waits for its data"
        hint = "copy the data to the Linux disk, such as ~/data"
        yield warning("slow-file-system", where, f"'{folder.path}' is on a Windows disk ({kind})", why, hint)
    elif kind.startswith("fuse"):
        why = "Docker runs as root, and only its owner can read a FUSE mount: the container gets an error"
        hint = "mount it with -o allow_other (user_allow_other in /etc/fuse.conf)"
        yield warning("fuse-mount", where, f"'{folder.path}' is on {kind}", why, hint)


def check_snap(where: str, folder: PathInfo, home: str) -> Iterator[Finding]:
    """Check whether Docker sees the source of a mount if it is a snap package."""
    inside = folder.real[len(home) :] if is_inside(folder.real, home) else None
    if inside is None or "/." in inside:
        what = f"'{folder.path}' is {'outside your home' if inside is None else 'in a hidden folder'}"
        why = "Docker's snap package cannot see it: the container gets an empty folder"
        yield warning("snap-docker", where, what, why, "apt install docker.io, or move the folder")


def check_results(path: str, folder: PathInfo, ids: tuple[int, int]) -> Iterator[Finding]:
    """Check a folder for results; ``folder`` is the nearest existing one above it."""
    if not folder.may(*ids, 3):
        owner = "root" if folder.uid == 0 else f"user {folder.uid}"
        hint = f"sudo chown -R {ids[0]}:{ids[1]} {quote(path)}"
        if path != folder.path:  # never change a folder above it, which may be '/'
            hint = f"sudo install -d -o {ids[0]} -g {ids[1]} {quote(path)}"
        elif folder.uid != 0:
            hint = f"ls -ld {quote(path)}"
        what = f"results go to '{path}', and '{folder.path}' belongs to {owner}"
        why = f"user {ids[0]}:{ids[1]} cannot write there: PermissionError: [Errno 13] Permission denied"
        yield error("results-not-writable-as-user", "results", what, why, hint)


def check_owners(folder: str, foreign: tuple[int, str, bool], ids: tuple[int, int]) -> Iterator[Finding]:
    """Check for files of other users in a results folder: (their number, the first, whether the count is complete)."""
    count, first, complete = foreign
    if count:
        number = count if complete else f"at least {count}"
        what = f"{number} entries in '{folder}' do not belong to user {ids[0]}, such as '{first}'"
        why = "an earlier run worked as another user; overwriting or deleting them fails: Permission denied"
        yield warning("foreign-owned-files", "results", what, why, f"sudo chown -R {ids[0]}:{ids[1]} {quote(folder)}")
