"""Probe of the files of taoprofiles and of its guard, which changes nothing, and the rules that judge them."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from taoprofiles.errors import TaoprofError, reason_of
from taoprofiles.guard import status as guard_status
from taoprofiles.guard.service import Service
from taoprofiles.holds.records import HoldRecords
from taoprofiles.launcher.home_probe import FileSystem
from taoprofiles.profiles.store import Store, Summary
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.storage import files, locks
from taoprofiles.storage.journal import History
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.switching import status


class OwnState(NamedTuple):
    """The files of taoprofiles, and its guard.

    - ``profile``, ``mapping_state``: the active profile and the state of the mapping file, as in ``taoprof status``
    - ``known``: number of profiles; ``profiles``: invalid ones (name, problem); ``needs_launcher``: not each one has
      an image, in which ``taoprof run`` starts all commands but the launcher
    - ``foreign``: files and folders that belong to another user (path, uid)
    - ``unreadable``: files that cannot be read (path, reason); ``holds``: damaged records (path, problem)
    - ``unit``: "" (none), "same" or "other"; ``service``: its state; ``guard``: the version of a running guard
    """

    folder: str
    mapping_file: str
    profile: str = ""
    mapping_state: str = ""
    mapping_mode: int | None = None
    known: int = 0
    needs_launcher: bool = True
    foreign: tuple[tuple[str, int], ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    profiles: tuple[tuple[str, str], ...] = ()
    holds: tuple[tuple[str, str], ...] = ()
    is_sealed_by_nobody: bool = False
    unit: str = ""
    service: str = ""
    guard: str = ""
    guard_pid: int = 0
    guard_problem: str = ""


T = TypeVar("T")

LISTED = 20
"""Limit of the problems of one kind that are reported at once."""

ROOM = 16 << 20
"""Bytes: more than any change needs. With less, a switch is refused and nothing is lost."""


def probe_state(context: Context) -> OwnState:
    """Look at all files. Never raises: what cannot be read is in ``unreadable``."""
    unreadable: list[tuple[str, str]] = []

    def attempt(path: str, probe: Callable[[], T], default: T) -> T:
        try:
            return probe()
        except TaoprofError as error:
            unreadable.append((path, error.message))
        except OSError as error:
            unreadable.append((path, reason_of(error)))
        return default

    now = attempt(context.mapping_file, lambda: status.get_status(context), None)
    summaries: list[Summary] = attempt(context.profiles, lambda: Store(context).summaries(), [])
    damaged: dict[str, str] = {}
    attempt(context.holds, lambda: len(HoldRecords(context).all(damaged)), 0)
    attempt(context.history, lambda: next(iter(History(context).newest_first()), None), None)
    attempt(context.runs, lambda: next(iter(HoldRecords(context).ended_runs()), None), None)
    stat_result = files.stat_or_none(context.mapping_file)
    return OwnState(
        context.state,
        context.mapping_file,
        (now.name or "") if now else "",
        now.state if now else "unreadable",
        None if stat_result is None else stat.S_IMODE(stat_result.st_mode),
        len(summaries),
        attempt(context.profiles, lambda: _needs_launcher(Store(context)), True),
        tuple(_foreign(context)[:LISTED]),
        tuple(unreadable[:LISTED]),
        tuple([(summary.name, summary.problem) for summary in summaries if summary.problem][:LISTED]),
        tuple((os.path.join(context.holds, f"{id}.json"), text) for id, text in [*damaged.items()][:LISTED]),
        attempt(context.guard, lambda: locks.is_orphaned(context.seal, context.guard), False),
        **_guard(context),
    )


def _needs_launcher(store: Store) -> bool:
    names = store.names()
    return not names or any(store.renderer(name).image(()) is None for name in names)


def _foreign(context: Context) -> list[tuple[str, int]]:
    if context.uid == 0:
        return []  # may write everything
    result: list[tuple[str, int]] = []
    for path in (context.mapping_file, context.config, context.profiles, context.state, context.lock, context.history):
        try:
            owner = os.lstat(path).st_uid
        except (OSError, ValueError):
            continue
        if owner != context.uid and not any(is_inside(path, outer) for outer, _ in result):
            result.append((path, owner))
    return result


def _guard(context: Context) -> dict[str, Any]:
    result: dict[str, Any] = {}
    try:
        if report := guard_status.read_status(context):
            pid = report.get("pid")
            result |= {
                "guard": str(report.get("version") or "unknown"),
                "guard_pid": pid if isinstance(pid, int) else 0,
                "guard_problem": str(report.get("problem") or ""),
            }
        service = Service(context, timeout=3.0)
        service_status = service.status()
        if service_status["installed"]:
            installed = files.read(str(service_status["unit"] or service.path), 1 << 20)
            unit = "same" if installed == service.unit().encode() else "other"
            result |= {"unit": unit, "service": str(service_status["state"])}
    except (TaoprofError, OSError, ValueError):
        pass  # without a systemd user manager there is no service, and the guard needs none
    return result


def check_state(state: OwnState, uid: int, version: str, file_system: FileSystem | None) -> list[Finding]:
    """Check the files for the user ``uid`` and the ``version`` of taoprofiles; ``file_system`` is that of the state."""
    findings = []
    for path, owner in state.foreign:
        what = f"it belongs to user id {owner}, not to you ({uid})"
        why, hint = "it cannot be changed; HOME may be another user's", f"ls -ld {shlex.quote(path)}"
        if owner == 0:
            why = "it was probably created with sudo; it cannot be changed"
            hint = f'sudo chown -R "$(id -u):$(id -g)" {shlex.quote(path)}'
        findings.append(error("state-not-mine", path, what, why, hint))
    for path, problem in state.unreadable:
        why = "its content is unknown, so commands that need it refuse to work"
        findings.append(error("state-unreadable", path, problem, why, f"ls -ld {shlex.quote(path)}"))
    if file_system is not None and file_system.size and file_system.free < ROOM:
        what = f"{file_system.free >> 20} MB is free on its file system"
        why = "profiles cannot be saved and switches are refused; existing files stay unchanged"
        findings.append(error("state-full", file_system.path, what, why, f"df -h {shlex.quote(file_system.path)}"))
    is_read_only = state.mapping_mode is not None and not state.mapping_mode & 0o200
    if is_read_only and not state.is_sealed_by_nobody and not state.guard:
        what = "the mapping file is read-only"
        why = "no guard has made it read-only; a notebook that writes it fails with PermissionError"
        hint = f"chmod u+w {shlex.quote(state.mapping_file)}"
        findings.append(warning("mapping-read-only", state.mapping_file, what, why, hint))
    for name, problem in state.profiles:
        hint, why = f"taoprof edit {shlex.quote(name)}", "it cannot be used until it is fixed"
        findings.append(warning("profile-unreadable", f"profile '{name}'", problem, why, hint))
    for path, problem in state.holds:
        why = "it may belong to a training, so no switch is made while it exists"
        hint = f"mv {shlex.quote(path)} {shlex.quote(path)}.damaged"
        findings.append(error("hold-damaged", path, problem, why, hint))
    return findings + _check_guard(state, version)


def _check_guard(state: OwnState, version: str) -> list[Finding]:
    findings = []
    if state.is_sealed_by_nobody:
        what = "the mapping file is read-only because of a guard that is no longer running"
        why = "a notebook that writes the file fails with PermissionError"
        findings.append(warning("seal-left-over", state.mapping_file, what, why, "taoprofd --unseal"))
    if state.unit and not state.service.startswith("active"):
        what = f"the guard is installed but not running: {state.service or 'unknown'}"
        why = "nothing restores the mapping of a training after a notebook overwrites it"
        hint = "taoprof service logs; taoprof service start"
        findings.append(warning("guard-inactive", "taoprofd.service", what, why, hint))
    elif state.unit == "other" or (state.guard and state.guard != version):
        what = f"the running guard is version {state.guard}, taoprof is version {version}"
        if state.guard in ("", None, version):
            what = f"the unit of the guard is not the one that taoprof {version} installs"
        why = "taoprofiles was upgraded or moved since the service was installed"
        hint = "taoprof service install" if state.unit else f"kill {state.guard_pid} && (taoprofd 2>>~/.taoprofd.log &)"
        findings.append(warning("guard-outdated", "taoprofd.service", what, why, hint))
    if state.guard_problem:
        why = "the guard is running, but with this problem"
        findings.append(warning("guard-troubled", "taoprofd", state.guard_problem, why, "taoprof service logs"))
    return findings
