"""Choosing a profile on a terminal: with fzf where there is one, else from a numbered list."""

from __future__ import annotations

import subprocess
import sys

from taoprofiles.cli.output import note
from taoprofiles.errors import UsageError


def choose(names: list[str], *, fzf: str | None) -> str:
    """Ask which of ``names``. Raises UsageError where nothing was chosen, KeyboardInterrupt for ctrl-C."""
    return _with_fzf(fzf, names) if fzf else _by_number(names)


def _with_fzf(fzf: str, names: list[str]) -> str:
    done = subprocess.run(  # noqa: S603 - the person's own fzf, found on their PATH
        [fzf, "--prompt=profile> ", "--height=40%", "--reverse"],
        input="\n".join(names),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode == 2:
        return _by_number(names)  # fzf does not work here, and has said why
    if done.returncode != 0:
        raise UsageError("nothing was chosen")
    return done.stdout.strip()


def _by_number(names: list[str]) -> str:
    for number, name in enumerate(names, 1):
        note(f"{number:>4}  {name}")
    note("profile (number or name): ", end="")
    answer = sys.stdin.readline().strip()
    if answer in names:
        return answer
    numbered = {str(number): name for number, name in enumerate(names, 1)}
    if answer in numbered:
        return numbered[answer]
    raise UsageError("nothing was chosen" if not answer else f"'{answer}' is not in the list")
