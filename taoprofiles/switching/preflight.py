"""Whether a mapping is fit for use here: what would go wrong for certain, and the folders that are missing."""

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
from taoprofiles.storage.os_errors import to_taoprof_error

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
    locate = in_profile(mapping)
    found = list(mounts.check_mapping(mapping, locate, Host(context.environ, context.folder)))
    to_mend = [finding.fix[1] for finding in found if finding.fix[:1] == ("mkdir",)]
    folders = to_mend if mkdir else []
    if check:
        found += container_findings(context, mapping, locate)
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
