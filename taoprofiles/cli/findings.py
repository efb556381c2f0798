"""What verbs that tell findings have in common: their option, their layout, their keys and their exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taoprofiles.cli.output import cut
from taoprofiles.errors import InvalidProfileError
from taoprofiles.rules.finding import ERROR, WARNING, counts

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from taoprofiles.rules.finding import Finding

INVALID = InvalidProfileError.status


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Give a verb its ``--strict``."""
    parser.add_argument("--strict", action="store_true", help=f"exit with {INVALID} for warnings too")


def status(findings: Sequence[Finding], *, strict: bool) -> int:
    """Give the exit status."""
    found = counts(findings)
    return INVALID if found[ERROR] or (strict and found[WARNING]) else 0


def lines(findings: Sequence[Finding]) -> list[str]:
    """Lay them out for people, and count them in the last line. A hint is never cut: it is there to be pasted."""
    told = [line if line.startswith("  hint: ") else cut(line) for finding in findings for line in finding.lines()]
    found = counts(findings)
    words = [
        f"{found[severity]} {severity}{'s' if found[severity] > 1 else ''}"
        for severity in (ERROR, WARNING)
        if found[severity]
    ]
    return [*told, ", ".join(words) or "nothing is wrong"]


def data(findings: Sequence[Finding]) -> dict[str, Any]:
    """Give them for programs."""
    return {"findings": [finding.as_dict() for finding in findings], "counts": counts(findings)}
