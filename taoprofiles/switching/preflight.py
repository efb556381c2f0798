"""Whether a mapping is fit for use here: what would go wrong for certain, and the folders that are missing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidProfileError
from taoprofiles.masking import without_secrets
from taoprofiles.rules import mounts, options, variables
from taoprofiles.rules.finding import COMMAND_IDS, ERROR, Finding
from taoprofiles.rules.locations import in_profile
from taoprofiles.storage.os_errors import to_taoprof_error
from taoprofiles.system.filesystem import Folder, is_wsl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from taoprofiles.rules.locations import Where
    from taoprofiles.storage.paths import Context


def mount_findings(
    context: Context, listed: Sequence[dict[str, Any]], where: Where, *, expanded: bool
) -> list[Finding]:
    """Judge the mounts of a mapping on this host, where each leads to now; ``expanded``: see ``mounts.judge``."""
    pairs = []
    for mount in listed:
        source, destination = mount["source"], mount["destination"]
        pairs.append((Folder(context.absolute(source)), destination, os.path.realpath(context.absolute(destination))))
    return list(mounts.judge(pairs, where, written=listed, wsl=is_wsl, expanded=expanded))


def container_findings(context: Context, mapping: dict[str, Any], where: Where) -> list[Finding]:
    """Judge whom the container of a mapping of sound form works as, and its variables, for what cannot go well."""
    envs, given = mapping.get("Envs", []), mapping.get("DockerOptions") or {}
    has_home = any(env["variable"] == "HOME" for env in envs)
    found = options.user(given, where, uid=context.uid, gid=context.gid, has_home=has_home)
    return [*found, *variables.nulls(envs, where)]


def to_make(
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
    """Give the folders that are to be made first.

    ``name`` is the profile's and ``doing`` the verb, for messages; ``command`` is what is to be run, if anything, with
    the profile's ``variables``. They are sources, and places inside of them that Docker would make as root.

    Raises InvalidProfileError where ``check`` is asked for and something would go wrong for certain; a missing folder
    is no fault with ``mkdir``. Without ``check`` nothing is refused.
    """
    where = in_profile(mapping)
    found = mount_findings(context, mapping["Mounts"], where, expanded=True)
    to_mend = [finding.fix[1] for finding in found if finding.fix[:1] == ("mkdir",)]
    folders = to_mend if mkdir else []
    if check:
        found += container_findings(context, mapping, where)
        found += command_findings(context, command, mapping, variables or {}) if command else []
        faults = [one for one in found if one.severity == ERROR and not (mkdir and one.id == "src-missing")]
        if faults:
            raise refused(name, faults, doing=doing, command=command)
    return folders


def command_findings(
    context: Context, command: Sequence[str], mapping: dict[str, Any], variables: Mapping[str, str]
) -> list[Finding]:
    """Judge a launcher's words and the spec files in them, as a run gives them to it; [] for any other command."""
    from taoprofiles.mounts.mapping import mounted
    from taoprofiles.rules.command import CommandContext, check_command  # not for 'use', which has no command

    return check_command(command, CommandContext(mounted(mapping), variables, context.environ, is_quoted=True))


def refused(name: str, faults: Sequence[Finding], *, doing: str, command: Sequence[str] = ()) -> InvalidProfileError:
    """Make the one error for what a check found; ``command`` is what was to be run, if that was judged too."""
    missing = [finding for finding in faults if finding.id == "src-missing"]
    done = "activated" if doing == "use" else "started"
    if len(missing) == len(faults):
        count = "1 of its folders is" if len(faults) == 1 else f"{len(faults)} of its folders are"
        what, hint = f"{count} missing", f"nothing was changed; 'taoprof {doing} {name} --mkdir' makes them"
    else:
        what = "1 error" if len(faults) == 1 else f"{len(faults)} errors"
        words = f"taoprof check {name}"
        if any(finding.id in COMMAND_IDS for finding in faults):
            import shlex  # not for 'use', which has no command

            words += f" -- {shlex.join(command)}" if without_secrets(command) == list(command) else " -- COMMAND"
        hint = f"nothing was changed; '{words}' tells more, --force ignores it"
    problems = [
        f"{one.where}: {one.what}" + (f"; {one.why}" if one not in missing and one.why else "") for one in faults
    ]
    return InvalidProfileError(f"'{name}' not {done}: {what}", problems=problems, hint=hint)


def make(folders: Sequence[str]) -> None:
    """Make the person's own folders, with the rights that their umask gives. Raises TaoprofError."""
    for folder in folders:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise to_taoprof_error(folder, "make the folder", error) from error
