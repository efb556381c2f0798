"""Rules about the files of taoprofiles, and its guard."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from taoprofiles.rules.finding import Finding, error, info, warning

if TYPE_CHECKING:
    from taoprofiles.doctor.own_state import State
    from taoprofiles.launcher.environment import FileSystem

ROOM = 16 << 20
"""Bytes: more than any change needs. With less, a switch is refused and nothing is lost."""


def check_state(state: State, uid: int, version: str, file_system: FileSystem | None) -> list[Finding]:
    """Check the files for the user ``uid`` and the ``version`` of taoprofiles; ``file_system`` is that of the state."""
    found = _files(state, uid, file_system) + _records(state)
    if state.lock:
        what = f"another taoprof command holds the lock: {state.lock}"
        why = "a change takes milliseconds; that command hangs, perhaps since the home does not answer"
        pid = state.lock.split()[1] if state.lock.startswith("pid ") else ""
        hint = f"ps -fp {pid}" if pid.isdigit() else "ps -ef | grep taoprof"
        found.append(warning("lock-held", state.folder, what, why, hint))
    return found + _guard(state, version)


def _files(state: State, uid: int, file_system: FileSystem | None) -> list[Finding]:
    found = []
    for path, owner in state.foreign:
        what = f"it belongs to user id {owner}, not to you ({uid})"
        why = "perhaps it was created with sudo; it cannot be changed"
        hint = f'sudo chown -R "$(id -u):$(id -g)" {shlex.quote(path)}'
        found.append(error("state-not-mine", path, what, why, hint))
    for path, problem in state.unreadable:
        why = "its content is unknown, so commands that need it refuse to work"
        found.append(error("state-unreadable", path, problem, why, f"ls -ld {shlex.quote(path)}"))
    if file_system is not None and file_system.size and file_system.free < ROOM:
        what = f"{file_system.free >> 20} MB are free on its file system"
        why = "no profile can be saved and no switch made; existing files stay unchanged"
        found.append(error("state-full", file_system.path, what, why, f"df -h {shlex.quote(file_system.path)}"))
    if (
        state.mapping_mode is not None
        and not state.mapping_mode & 0o200
        and not state.is_sealed_by_nobody
        and not state.guard
    ):
        what = "the mapping file is read-only"
        why = "no guard has sealed it; a notebook that writes it fails with PermissionError"
        found.append(
            warning("mapping-read-only", state.mapping_file, what, why, f"chmod u+w {shlex.quote(state.mapping_file)}")
        )
    return found


def _records(state: State) -> list[Finding]:
    found = []
    for name, problem in state.profiles:
        hint = f"taoprof edit {shlex.quote(name)}"
        found.append(
            warning("profile-unreadable", f"profile '{name}'", problem, "it cannot be used until it is fixed", hint)
        )
    for path, lines in state.torn:
        what = f"{lines} damaged line{'s' if lines > 1 else ''}"
        why = "caused by a power loss or another program; all other lines are valid"
        found.append(info("journal-torn", path, what, why, "taoprof history --all"))
    for path, problem in state.holds:
        why = "it may belong to a training, so no switch is made while it exists"
        found.append(error("hold-damaged", path, problem, why, f"mv {shlex.quote(path)} {shlex.quote(path)}.damaged"))
    return found


def _guard(state: State, version: str) -> list[Finding]:
    found = []
    if state.is_sealed_by_nobody:
        what = "the mapping file is sealed by a guard that is dead"
        why = "a notebook that writes the file fails with PermissionError"
        found.append(warning("seal-left-over", state.mapping_file, what, why, "taoprofd --unseal"))
    if state.unit and not state.service.startswith("active"):
        what = f"the guard is installed but not running: {state.service or 'unknown'}"
        why = "nothing restores the mapping of a training after a notebook overwrites it"
        hint = "taoprof service logs; taoprof service start"
        found.append(warning("guard-inactive", "taoprofd.service", what, why, hint))
    elif state.unit == "other" or (state.guard and state.guard != version):
        what = f"the guard has another version: {state.guard or 'its unit differs'} (this is {version})"
        why = "taoprofiles was upgraded or moved since the service was installed"
        hint = "taoprof service install" if state.unit else f"kill {state.guard_pid} && (taoprofd 2>>~/.taoprofd.log &)"
        found.append(warning("guard-outdated", "taoprofd.service", what, why, hint))
    if state.guard_problem:
        why = "the guard is running, but cannot do all of its work"
        found.append(warning("guard-troubled", "taoprofd", state.guard_problem, why, "taoprof service logs"))
    if state.moved and state.other:
        what = f"TAOPROF_HOME is '{state.moved}', but '{state.other}' also has profiles"
        why = "tao itself reads the mapping file of HOME; only commands run by taoprof use that of TAOPROF_HOME"
        found.append(warning("two-homes", "TAOPROF_HOME", what, why, "unset TAOPROF_HOME"))
    return found
