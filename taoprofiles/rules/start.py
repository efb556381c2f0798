"""Rules for a simulated start: each refusal of the launcher, each silent effect that matters, and DockerOptions."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from taoprofiles.launcher.argv import GROUPS, HANDLERS, PROGRAMS
from taoprofiles.launcher.host import ENTRY_KEYS, Host, Location
from taoprofiles.launcher.prediction import Prediction, Refusal, SilentEffect
from taoprofiles.launcher.simulation import Content, size_in_bytes
from taoprofiles.launcher.versions import Behaviour
from taoprofiles.masking import mask_command
from taoprofiles.mounts.mapping import explain_json_error
from taoprofiles.profiles.layouts import is_network
from taoprofiles.rules import container, mounts
from taoprofiles.rules.command_paths import CommandContext
from taoprofiles.rules.finding import Finding, Lines, Locator, error, warning

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
    ports = options.get("ports")
    if options.get("network") == "host":
        if ports:
            where, what = locate(_key("ports")), "published ports have no effect with network 'host'"
            why = "Docker ignores them: with the host's network, ports need not be published"
            yield warning("ports-without-network", where, what, why, "remove one of the two", by_hand=True)
    elif isinstance(ports, dict):
        yield from _check_ports(ports, locate, used_ports)


def _key(name: str) -> Location:
    return Location("DockerOptions", key=name)


def _check_ports(ports: dict[str, Any], locate: Locator, used_ports: Collection[int]) -> Iterator[Finding]:
    for inside, published in ports.items():
        for port in published if isinstance(published, list) else [published]:
            if isinstance(port, int) and port in used_ports:
                yield error(
                    "port-in-use", locate(_key(f"ports.{inside}")), f"port {port} of this host is in use",
                    f"Docker refuses: Bind for 0.0.0.0:{port} failed: port is already allocated",
                    "publish another port, or stop the program that has it: ss -ltnp", by_hand=True,
                )  # fmt: skip


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


_SECTIONS = ("Mounts", "Envs", "DockerOptions")


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
            yield _file(refusal, file)
        elif section in ENTRY_KEYS:
            if section == "Envs" or number not in accepted:  # else the source is missing: a rule of its own
                yield _entry(refusal, file.locate)
        elif section == "DockerOptions":
            yield _explain_option(refusal, content.options if content else None, file.locate, behaviour)
        elif section not in ("login", "command"):
            yield other_refusal(refusal)
    if file.lines is not None:
        yield from _repeated_keys(file.lines, file.name)
    if content is not None:
        all_mounts = [*content.mounts, *prediction.volumes]
        yield from mounts.check(all_mounts, file.locate, host)
        yield from container.check_variables(content.variables, file.locate)
        yield from _ignored_keys(content, file.locate)
    for change in prediction.changes:
        yield from _change(change)


def other_refusal(refusal: Refusal) -> Finding:
    """Return the finding for a refusal without a rule of its own."""
    hint = "--volume SOURCE:DESTINATION" if refusal.location.section == "--volume" else ""
    return error("launcher-refuses", str(refusal.location), f"the launcher stops: {refusal}", hint=hint)


def _file(refusal: Refusal, file: MountsFile) -> Finding:
    kind, where, stops = refusal.kind, file.locate(refusal.location), f"the launcher stops: {refusal}"
    key = refusal.location.key
    if key:
        near = {name.lower(): name for name in _SECTIONS}.get(key.lower(), "")
        hint = f"write '{near}'" if near else "remove it: comments are not allowed in this file"
        what = f"'{key[:70]}' is not a valid key in a mounts file"
        return error("file-shape", where, what, stops, hint, by_hand=True)
    if kind == "AssertionError":
        return error("file-shape", where, "there is no 'Mounts'", stops, 'add "Mounts": []', by_hand=True)
    if kind == "AttributeError":
        hint = 'the file must begin with {"Mounts": ['
        return error("file-shape", where, "it is not a JSON object", stops, hint, by_hand=True)
    if kind == "JSONDecodeError":
        line, what, hint = explain_json_error(file.text)
        return error("json-parse", f"{file.name}:{line}", what, stops, hint, by_hand=True)
    return error("json-parse", where, f"it cannot be read: {refusal.message[:100]}", stops, by_hand=True)


def _entry(refusal: Refusal, locate: Locator) -> Finding:
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


def _change(change: SilentEffect) -> Iterator[Finding]:
    if change.kind == "mode-ignored":
        what, why = f"the launcher ignores '{change.was}'", "the mount is always writable"
        yield warning("key-ignored", "--volume", what, why, "remove it")
    elif change.kind == "volume-not-seen":
        why = "the launcher knows only '--volume SOURCE:DESTINATION', from 6.0.0 on; this goes to the task"
        what = f"'{change.was}' mounts nothing"
        yield warning("volume-argument", "--volume", what, why, "add the mount to the profile")


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
