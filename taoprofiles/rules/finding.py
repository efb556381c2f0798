"""A finding: one problem of a profile, a mapping file or a machine, and the rules' functions that create it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

ERROR, WARNING, INFO = "error", "warning", "info"

_COMMAND = {
    "host-path": ERROR, "unmapped-path": WARNING, "missing-file": ERROR, "arg-needs-quoting": WARNING,
    "arg-empty-variable": ERROR, "spec-syntax": ERROR, "spec-unreadable": WARNING, "spec-placeholder": WARNING,
}  # fmt: skip
_MACHINE = {
    # whether the launcher starts
    "tao-missing": ERROR, "tao-not-launcher": ERROR, "tao-broken-python": ERROR, "tao-several": WARNING,
    "tao-other-python": WARNING, "python-312-distutils": ERROR, "requests-232": ERROR, "urllib3-2": ERROR,
    "tabulate-python-310": ERROR, "six-python-312": ERROR, "launcher-import": ERROR,
    # the engine
    "docker-missing": ERROR, "docker-cli-missing": ERROR, "docker-down": ERROR, "docker-denied": ERROR,
    "docker-silent": ERROR, "daemon-mismatch": ERROR, "docker-host-set": WARNING, "docker-rootless": WARNING,
    "docker-desktop": WARNING, "snap-docker": WARNING, "gpu-driver": ERROR, "gpu-runtime": ERROR,
    "disk-images": WARNING,
    # the registry
    "login-missing": ERROR, "docker-config-broken": ERROR, "login-helper-missing": ERROR,
    # home and variables
    "home-not-absolute": ERROR, "home-under-sudo": WARNING, "lm-bad-path": ERROR, "file-near-miss-name": WARNING,
    "ci-project-dir-set": WARNING, "tao-docker-disabled": WARNING,
    # what taoprofiles itself keeps
    "state-not-mine": ERROR, "state-unreadable": ERROR, "state-full": ERROR, "profile-unreadable": WARNING,
    "journal-torn": INFO, "hold-damaged": ERROR, "lock-held": WARNING, "seal-left-over": WARNING,
    "mapping-read-only": WARNING, "guard-inactive": WARNING, "guard-outdated": WARNING, "guard-troubled": WARNING,
    "two-homes": WARNING,
}  # fmt: skip

COMMAND_IDS = frozenset(_COMMAND)
"""Findings about a command and its spec files."""
SEVERITIES: dict[str, str] = {**_COMMAND, **_MACHINE}
"""By check: what it comes to. Each has a section of its name in docs/reference/checks.md; a name never changes."""


class Finding:
    """One problem.

    ``id`` has a section of its name in docs/reference/checks.md, and never changes. ``where`` is a key of the profile
    (``mounts[1].source``), a file and line (``train.yaml:12``) or a part of the machine (``PATH``); ``what`` is the
    fault in one sentence that begins in lower case, ``why`` its consequence, and ``hint`` the next step, with a command
    to paste where there is one. ``fix`` is what ``check --fix`` does: ("set", "docker.user=auto"), ("unset", key),
    ("mkdir", folder) or ("chmod", file); () where a person must choose. ``by_hand``: a person must edit the place.
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
        fix: tuple[str, ...] = (),
        by_hand: bool = False,
        severity: str = "",
    ) -> None:
        self.id, self.where, self.what, self.why, self.hint = id, where, what, why, hint
        self.fix, self.by_hand, self.severity = fix, by_hand, severity or SEVERITIES[id]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for programs."""
        return {
            "id": self.id,
            "severity": self.severity,
            "where": self.where,
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
            "fix": list(self.fix),
        }

    def lines(self) -> list[str]:
        """Return the text for people: the problem, then its consequence and the hint, indented."""
        lines = [f"{self.severity}: {self.where}: {self.what} [{self.id}]"]
        lines += [f"  {self.why}"] if self.why else []
        return lines + ([f"  hint: {self.hint}"] if self.hint else [])

    def __repr__(self) -> str:
        return f"Finding{(self.id, self.where, self.what, self.why, self.hint)}"


def error(id: str, where: str, what: str, why: str = "", hint: str = "", **more: Any) -> Finding:
    """Create the finding of something that cannot work."""
    return Finding(id, where, what, why, hint, severity=ERROR, **more)


def warning(id: str, where: str, what: str, why: str = "", hint: str = "", **more: Any) -> Finding:
    """Create the finding of something that often does not work."""
    return Finding(id, where, what, why, hint, severity=WARNING, **more)


def info(id: str, where: str, what: str, why: str = "", hint: str = "", **more: Any) -> Finding:
    """Create the finding of something that is worth knowing."""
    return Finding(id, where, what, why, hint, severity=INFO, **more)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with errors first, then warnings, else in the same order."""
    order = (ERROR, WARNING, INFO)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return the number of findings by severity."""
    numbers = dict.fromkeys((ERROR, WARNING, INFO), 0)
    for finding in findings:
        numbers[finding.severity] += 1
    return numbers
