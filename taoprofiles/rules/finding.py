"""A finding: one problem of a profile, a mapping file or a machine, and the functions with which rules create it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

ERROR, WARNING, INFO = SEVERITIES = ("error", "warning", "info")


class Finding:
    """One problem.

    ``id`` has a section of its name in docs/reference/checks.md, and never changes. ``where`` is a key of the profile
    (``mounts[1].source``), a file and line (``train.yaml:12``) or a part of the machine (``PATH``); ``what`` is the
    fault in one sentence that begins in lower case, ``why`` its consequence, and ``hint`` the next step, with a command
    to paste where there is one. ``fix`` is what ``check --fix`` does: ("set", "docker.user=auto"), ("unset", key),
    ("mkdir", folder) or ("chmod", file); () where a person must choose. ``by_hand``: a person must edit the place.
    ``check.fix.add_commands`` replaces the hint for a set or unset, and adds the command for an edit by hand.
    """

    __slots__ = ("by_hand", "fix", "hint", "id", "severity", "what", "where", "why")

    def __init__(
        self,
        id: str,
        where: str,
        what: str,
        why: str = "",
        hint: str = "",
        *,
        severity: str,
        fix: tuple[str, ...] = (),
        by_hand: bool = False,
    ) -> None:
        self.id, self.where, self.what, self.why, self.hint = id, where, what, why, hint
        self.fix, self.by_hand, self.severity = fix, by_hand, severity

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for programs."""
        fields = {name: getattr(self, name) for name in ("id", "severity", "where", "what", "why", "hint")}
        return {**fields, "fix": list(self.fix)}

    def lines(self) -> list[str]:
        """Return the text for people: the problem, then its consequence and the hint, indented."""
        lines = [f"{self.severity}: {self.where}: {self.what} [{self.id}]"]
        lines += [f"  {self.why}"] if self.why else []
        return lines + ([f"  hint: {self.hint}"] if self.hint else [])

    def __repr__(self) -> str:
        return f"Finding{(self.id, self.where, self.what, self.why, self.hint)}"


error = partial(Finding, severity=ERROR)
"""Create the finding of something that cannot work."""
warning = partial(Finding, severity=WARNING)
"""Create the finding of something that often does not work."""
info = partial(Finding, severity=INFO)
"""Create the finding of something that is worth knowing."""


def quoted(path: str) -> str:
    """Return a path as a word of a shell, for hints."""
    import shlex  # not at the start of 'use'

    return shlex.quote(path)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with errors first, then warnings, else in the same order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return the number of findings by severity."""
    severities = [finding.severity for finding in findings]
    return {severity: severities.count(severity) for severity in SEVERITIES}
