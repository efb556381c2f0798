"""A finding: one thing that is wrong, or will go wrong, with a profile, a mapping file or a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

ERROR, WARNING, INFO = "error", "warning", "info"

_FILE = {
    "json-parse": ERROR, "json-dup-key": ERROR, "schema-top-key": ERROR, "mounts-missing": ERROR, "mount-shape": ERROR,
    "opts-null": ERROR, "opts-shape": ERROR, "opt-unknown-for-version": ERROR, "env-shape": ERROR, "file-mode": WARNING,
    "global-file-changed-by-other": WARNING, "launcher-refuses": ERROR, "profile-invalid": ERROR,
    "key-ignored": WARNING,
    "no-mapping-file": ERROR, "env-twice": WARNING, "volume-not-seen": WARNING, "volume-source-missing": WARNING,
}  # fmt: skip
_MOUNTS = {
    "src-missing": ERROR, "src-placeholder": ERROR, "src-unexpanded-var": ERROR, "src-relative": WARNING,
    "src-windows-path": ERROR, "src-colon": ERROR, "src-duplicate": ERROR, "src-of-another-user": WARNING,
    "dst-symlinked-on-host": ERROR, "dst-relative": ERROR, "dst-duplicate": ERROR, "dst-root": ERROR,
    "dst-shadow": INFO, "dst-makes-folder": WARNING, "src-unseen": ERROR,
    "results-not-writable-as-user": ERROR, "foreign-owned-files": WARNING, "slow-file-system": WARNING,
    "nfs-root-squash": WARNING, "fuse-mount": WARNING,
}  # fmt: skip
_OPTIONS = {
    "user-missing": WARNING, "user-not-me": WARNING, "user-literal": ERROR, "user-without-home": WARNING,
    "shm-missing": WARNING, "shm-too-small": WARNING, "shm-over-memory": WARNING, "shm-unit": ERROR,
    "ulimit-type": ERROR, "opt-tty-false": WARNING,
    "port-in-use": ERROR, "port-fixed-shared": WARNING, "port-shape": ERROR, "ports-without-network": WARNING,
    "env-null": ERROR, "env-typo": WARNING, "env-secret-plain": WARNING,
    "env-not-text": WARNING, "variables-differ": WARNING, "variable-placeholder": ERROR,
}  # fmt: skip
_COMMAND = {
    "host-path": ERROR, "unmapped-path": WARNING, "missing-file": ERROR, "arg-needs-quoting": WARNING,
    "arg-empty-variable": ERROR, "spec-syntax": ERROR, "spec-unreadable": WARNING, "spec-placeholder": WARNING,
}  # fmt: skip
_MACHINE = {
    # whether the launcher starts
    "tao-missing": ERROR, "tao-not-launcher": ERROR, "tao-broken-python": ERROR, "tao-several": WARNING,
    "tao-other-python": WARNING, "python-312-distutils": ERROR, "requests-232": ERROR, "urllib3-2": ERROR,
    "tabulate-python-310": ERROR, "six-python-312": ERROR, "launcher-import": ERROR, "launcher-eol": INFO,
    # the engine
    "docker-missing": ERROR, "docker-cli-missing": ERROR, "docker-down": ERROR, "docker-denied": ERROR,
    "docker-silent": ERROR, "daemon-mismatch": ERROR, "docker-host-set": WARNING, "docker-rootless": WARNING,
    "docker-desktop": WARNING, "snap-docker": WARNING, "gpu-driver": ERROR, "gpu-runtime": ERROR,
    "disk-images": WARNING,
    # the registry
    "login-missing": ERROR, "docker-config-broken": ERROR, "login-helper-missing": ERROR,
    # home and variables
    "home-not-absolute": ERROR, "home-under-sudo": WARNING, "lm-bad-path": ERROR, "file-near-miss-name": WARNING,
    "ci-project-dir-set": WARNING, "tao-docker-disabled": WARNING, "wsl-windows-disk": WARNING,
    # what taoprofiles itself keeps
    "state-not-mine": ERROR, "state-unreadable": ERROR, "state-full": ERROR, "profile-unreadable": WARNING,
    "journal-torn": INFO, "hold-damaged": ERROR, "lock-held": WARNING, "seal-left-over": WARNING,
    "mapping-read-only": WARNING, "guard-inactive": WARNING, "guard-outdated": WARNING, "guard-troubled": WARNING,
    "two-homes": WARNING,
}  # fmt: skip

COMMAND_IDS = frozenset(_COMMAND)
"""Findings about a command and its spec files."""
SEVERITIES: dict[str, str] = {**_FILE, **_MOUNTS, **_OPTIONS, **_COMMAND, **_MACHINE}
"""By check: what it comes to. Each has a section of its name in docs/reference/checks.md; a name never changes."""


class Finding:
    """What was found.

    ``where`` is a key of the profile (``mounts[1].source``), a file and line (``train.yaml:12``) or a part of the
    machine (``PATH``); ``what`` is the fault in one sentence that begins in lower case, ``why`` what comes of it, and
    ``hint`` a next step, with a command to paste where there is one. ``fix`` is how it can be mended without a choice:
    ("set", "docker.user=auto"), ("unset", key), ("mkdir", folder) or ("chmod", file); () where a person must choose.
    """

    __slots__ = ("fix", "hint", "id", "severity", "what", "where", "why")

    def __init__(
        self,
        id: str,
        where: str,
        what: str,
        why: str = "",
        hint: str = "",
        *,
        fix: tuple[str, ...] = (),
        severity: str = "",
    ) -> None:
        self.severity = severity or SEVERITIES[id]
        self.id, self.where, self.what, self.why, self.hint, self.fix = id, where, what, why, hint, fix

    def as_dict(self) -> dict[str, Any]:
        """Give the fields for programs."""
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
        """Say it to people: what, then why and the hint, set in."""
        lines = [f"{self.severity}: {self.where}: {self.what} [{self.id}]"]
        lines += [f"  {self.why}"] if self.why else []
        return lines + ([f"  hint: {self.hint}"] if self.hint else [])

    def __repr__(self) -> str:
        return f"Finding{(self.id, self.where, self.what, self.why, self.hint)}"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Put errors first, then warnings; within each the order stays."""
    order = (ERROR, WARNING, INFO)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Count findings by severity."""
    found = dict.fromkeys((ERROR, WARNING, INFO), 0)
    for finding in findings:
        found[finding.severity] += 1
    return found
