"""Whether what taoprofiles keeps, and its guard, are as they should be."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from taoprofiles.rules.finding import Finding, error, info, warning

if TYPE_CHECKING:
    from taoprofiles.doctor.own_state import State
    from taoprofiles.launcher.environment import FileSystem

ROOM = 16 << 20
"""Bytes: more than any change takes. With less, a switch is refused, and nothing is lost."""


def judge(state: State, uid: int, version: str, place: FileSystem | None) -> list[Finding]:
    """Judge for the user ``uid`` and the version of taoprofiles; ``place`` is the file system of the state."""
    found = _files(state, uid, place) + _records(state)
    if state.lock:
        what = f"another taoprof command has the lock: {state.lock}"
        why = (
            "a change takes milliseconds; one that holds it longer stands still, on a home that does not answer perhaps"
        )
        pid = state.lock.split()[1] if state.lock.startswith("pid ") else ""
        hint = f"ps -fp {pid}" if pid.isdigit() else "ps -ef | grep taoprof"
        found.append(warning("lock-held", state.folder, what, why, hint))
    return found + _guard(state, version)


def _files(state: State, uid: int, place: FileSystem | None) -> list[Finding]:
    found = []
    for path, owner in state.foreign:
        what = f"it belongs to user id {owner}, and not to you ({uid})"
        why = "it was made under sudo perhaps; no change can be made there"
        hint = f'sudo chown -R "$(id -u):$(id -g)" {shlex.quote(path)}'
        found.append(error("state-not-mine", path, what, why, hint))
    for path, problem in state.unreadable:
        why = "what it holds is not known, so nothing that depends on it is done"
        found.append(error("state-unreadable", path, problem, why, f"ls -ld {shlex.quote(path)}"))
    if place is not None and place.size and place.free < ROOM:
        what = f"{place.free >> 20} MB are free on its file system"
        why = "no profile can be saved and no switch be made; what is there stays as it is"
        found.append(error("state-full", place.path, what, why, f"df -h {shlex.quote(place.path)}"))
    if (
        state.mapping_mode is not None
        and not state.mapping_mode & 0o200
        and not state.is_sealed_by_nobody
        and not state.guard
    ):
        what = "the mapping file is read-only"
        why = "no guard has sealed it; a notebook that writes it ends with PermissionError"
        found.append(
            warning("mapping-read-only", state.mapping_file, what, why, f"chmod u+w {shlex.quote(state.mapping_file)}")
        )
    return found


def _records(state: State) -> list[Finding]:
    found = []
    for name, problem in state.profiles:
        hint = f"taoprof edit {shlex.quote(name)}"
        found.append(
            warning("profile-unreadable", f"profile '{name}'", problem, "it cannot be used until it is mended", hint)
        )
    for path, lines in state.torn:
        what = f"{lines} line{'s say' if lines > 1 else ' says'} nothing"
        why = "a power cut tore it, or another program wrote there; the other lines count as ever"
        found.append(info("journal-torn", path, what, why, "taoprof history --all"))
    for path, problem in state.holds:
        why = "it may be about a training, so no switch is made while it is there"
        found.append(error("hold-damaged", path, problem, why, f"mv {shlex.quote(path)} {shlex.quote(path)}.damaged"))
    return found


def _guard(state: State, version: str) -> list[Finding]:
    found = []
    if state.is_sealed_by_nobody:
        what = "the mapping file is sealed, and the guard that did it is dead"
        why = "a notebook that writes the file ends with PermissionError"
        found.append(warning("seal-left-over", state.mapping_file, what, why, "taoprofd --unseal"))
    if state.unit and not state.service.startswith("active"):
        what = f"the guard is installed, and not at work: {state.service or 'unknown'}"
        why = "a notebook may overwrite the mapping file of a training, and nobody undoes it"
        hint = "taoprof service logs; taoprof service start"
        found.append(warning("guard-inactive", "taoprofd.service", what, why, hint))
    elif state.unit == "other" or (state.guard and state.guard != version):
        what = f"the guard is of another version: {state.guard or 'its unit differs'} (this is {version})"
        why = "taoprofiles was upgraded or moved since the service was installed"
        hint = "taoprof service install" if state.unit else f"kill {state.guard_pid} && (taoprofd 2>>~/.taoprofd.log &)"
        found.append(warning("guard-outdated", "taoprofd.service", what, why, hint))
    if state.guard_problem:
        why = "the guard goes on, and tells what it cannot do"
        found.append(warning("guard-troubled", "taoprofd", state.guard_problem, why, "taoprof service logs"))
    if state.moved and state.other:
        what = f"TAOPROF_HOME is '{state.moved}', and '{state.other}' has profiles too"
        why = "tao itself reads the mapping file of HOME: only what is run by taoprof has that of TAOPROF_HOME"
        found.append(warning("two-homes", "TAOPROF_HOME", what, why, "unset TAOPROF_HOME"))
    return found
