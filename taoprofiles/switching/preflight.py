"""Preflight checks: errors with which a run of a mapping would certainly fail, and missing folders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidProfileError
from taoprofiles.launcher.host import Host
from taoprofiles.launcher.prediction import Location
from taoprofiles.masking import without_secrets
from taoprofiles.rules import container, mounts, options
from taoprofiles.rules.finding import COMMAND_IDS, ERROR, Finding
from taoprofiles.rules.locations import in_profile
from taoprofiles.storage.files import to_taoprof_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from taoprofiles.rules.locations import Locator
    from taoprofiles.storage.paths import Context


def container_findings(context: Context, mapping: dict[str, Any], locate: Locator) -> list[Finding]:
    """Check the user and the variables of the container of a rendered mapping."""
    variables, given = mapping.get("Envs", []), mapping.get("DockerOptions") or {}
    has_home = any(entry["variable"] == "HOME" for entry in variables)
    located = [(Location("Envs", number), entry) for number, entry in enumerate(variables)]
    user = options.check_user(given, locate, uid=context.uid, gid=context.gid, has_home=has_home)
    return [*user, *container.check_nulls(located, locate)]


def find_missing_folders(
    context: Context,
    mapping: dict[str, Any],
    *,
    name: str,
    mkdir: bool,
    check: bool,
    doing: str = "use",
    command: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> list[str]:
    """Check a mapping and return the folders to create: with ``mkdir`` the missing sources, else none.

    Folders inside a source that Docker would create as root are included. ``name`` is the profile and ``doing`` the
    taoprof command, for messages; ``command`` is the command to run, if any, with the profile's ``variables``.

    Raises InvalidProfileError if ``check`` is set and a run would certainly fail; with ``mkdir`` a missing folder is no
    error.
    """
    locate = in_profile(mapping)
    findings = list(mounts.check_mapping(mapping, locate, Host(context.environ, context.folder)))
    folders = [finding.fix[1] for finding in findings if finding.fix[:1] == ("mkdir",)] if mkdir else []
    if check:
        findings += container_findings(context, mapping, locate)
        findings += command_findings(context, command, mapping, variables or {}) if command else []
        errors = [f for f in findings if f.severity == ERROR and not (mkdir and f.id == "src-missing")]
        if errors:
            raise preflight_error(name, errors, doing=doing, command=command)
    return folders


def command_findings(
    context: Context, command: Sequence[str], mapping: dict[str, Any], variables: Mapping[str, str]
) -> list[Finding]:
    """Check a launcher command and the spec files that it names; return [] for any other command."""
    from taoprofiles.mounts.mapping import mounted
    from taoprofiles.rules.command import CommandContext, check_command  # not for 'use', which has no command

    return check_command(command, CommandContext(mounted(mapping), variables, context.environ, is_quoted=True))


def preflight_error(
    name: str, findings: Sequence[Finding], *, doing: str, command: Sequence[str] = ()
) -> InvalidProfileError:
    """Return the error for the findings of a check; ``command`` is the command to run, if it was checked too."""
    missing = [finding for finding in findings if finding.id == "src-missing"]
    done = "activated" if doing == "use" else "started"
    if len(missing) == len(findings):
        count = "1 of its folders is" if len(findings) == 1 else f"{len(findings)} of its folders are"
        what, hint = f"{count} missing", f"nothing was changed; to create the folders: taoprof {doing} {name} --mkdir"
    else:
        what = "1 error" if len(findings) == 1 else f"{len(findings)} errors"
        words = f"taoprof check {name}"
        if any(finding.id in COMMAND_IDS for finding in findings):
            import shlex  # not for 'use', which has no command

            words += f" -- {shlex.join(command)}" if without_secrets(command) == list(command) else " -- COMMAND"
        hint = f"nothing was changed; '{words}' explains it, --force ignores it"
    problems = []
    for finding in findings:
        why = f"; {finding.why}" if finding not in missing and finding.why else ""
        problems.append(f"{finding.where}: {finding.what}{why}")
    return InvalidProfileError(f"'{name}' not {done}: {what}", problems=problems, hint=hint)


def make_folders(folders: Sequence[str]) -> None:
    """Create the user's folders, with the mode that the umask gives. Raises TaoprofError."""
    for folder in folders:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise to_taoprof_error(folder, "create the folder", error) from error
