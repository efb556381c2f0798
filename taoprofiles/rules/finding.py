"""A finding: one problem of a profile, a mapping file or a machine, and the functions with which rules create it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)


class Finding(NamedTuple):
    """One problem.

    ``id`` has a section of its name in docs/reference/checks.md, and never changes. ``where`` is a key of the profile
    (``mounts[1].source``), a file and line (``train.yaml:12``) or a part of the machine (``PATH``); ``what`` is the
    fault in one sentence that begins in lower case, ``why`` its consequence, and ``hint`` the next step, with a command
    to paste if there is one. ``fix`` is what ``check --fix`` does: ("set", "docker.user=auto"), ("unset", key),
    ("mkdir", folder) or ("chmod", file); () if a person must choose. ``by_hand``: a person must edit the place.
    ``check.fix.add_commands`` replaces the hint for a set or unset, and adds the command for an edit by hand.
    """

    id: str
    where: str
    what: str
    why: str = ""
    hint: str = ""
    severity: str = ERROR
    fix: tuple[str, ...] = ()
    by_hand: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for programs."""
        fields = {name: getattr(self, name) for name in ("id", "severity", "where", "what", "why", "hint")}
        return {**fields, "fix": list(self.fix)}

    def lines(self) -> list[str]:
        """Return the text for people: the problem, then its consequence and the hint, indented."""
        lines = [f"{self.severity}: {self.where}: {self.what} [{self.id}]"]
        lines += [f"  {self.why}"] if self.why else []
        return lines + ([f"  hint: {self.hint}"] if self.hint else [])


def error(id: str, where: str, what: str, why: str = "", hint: str = "", **more: Any) -> Finding:
    """Return the finding of something that cannot work."""
    return Finding(id, where, what, why, hint, **more)


def warning(id: str, where: str, what: str, why: str = "", hint: str = "", **more: Any) -> Finding:
    """Return the finding of something that often does not work."""
    return Finding(id, where, what, why, hint, severity=WARNING, **more)


def quoted(path: str) -> str:
    """Return a path as a word of a shell, for hints."""
    import shlex  # not at the start of 'use'

    return shlex.quote(path)


def quoted_short(context: Context, path: str) -> str:
    """Return a path as a word of a shell, with ``~`` for the home if nothing in it must be quoted."""
    import re

    short = context.short(path)
    return short if re.fullmatch(r"[\w~./-]+", short) else quoted(path)


def without_sudo(findings: Iterable[Finding], uid: int) -> list[Finding]:
    """Return the findings; for root without sudo in their hints, since a container may not have it."""
    if uid != 0:
        return list(findings)
    return [finding._replace(hint=finding.hint.replace("sudo ", "")) for finding in findings]


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with errors first, then warnings, else in the same order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return the number of findings by severity."""
    severities = [finding.severity for finding in findings]
    return {severity: severities.count(severity) for severity in SEVERITIES}
