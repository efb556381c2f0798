"""Mending what a check found, where that takes no choice."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.operations import fitness, settings
from taoprofiles.state import files
from taoprofiles.state.locks import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taoprofiles.state.paths import Context
    from taoprofiles.values.finding import Finding


class Step(NamedTuple):
    """One thing to do: ``kind`` is set, unset, mkdir or chmod; ``what`` a setting, a key, a folder or a file."""

    kind: str
    what: str

    def line(self, name: str | None) -> str:
        """Write it as the command that does it."""
        if self.kind in ("set", "unset"):
            option = ["--unset"] if self.kind == "unset" else []
            return shlex.join(["taoprof", "set", name or "NAME", *option, self.what])
        return shlex.join({"mkdir": ["mkdir", "-p"], "chmod": ["chmod", "600"]}[self.kind] + [self.what])


def plan(findings: Sequence[Finding], name: str | None) -> list[Step]:
    """Give what is to be done, once each. Keys can be set only of a profile: without a ``name`` they are left."""
    steps = [Step(*finding.fix) for finding in findings if finding.fix]
    return [step for step in dict.fromkeys(steps) if name is not None or step.kind in ("mkdir", "chmod")]


def carry_out(context: Context, steps: Sequence[Step], name: str | None, *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Do it. The profile is changed in one step, which ``undo`` takes back. Raises TaoprofError."""
    wanted: dict[str, str | None] = {}
    for step in steps:
        if step.kind == "set":
            key, _, value = step.what.partition("=")
            wanted[key] = value
        elif step.kind == "unset":
            wanted.setdefault(step.what, None)
    if wanted and name is not None:
        settings.change(context, name, wanted, timeout=timeout)
    fitness.make([step.what for step in steps if step.kind == "mkdir"])
    for step in steps:
        if step.kind == "chmod":
            files.change_mode(step.what, 0o600)
