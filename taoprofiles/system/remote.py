"""Questions about files of another machine, asked over ssh, as the ``docker`` command reaches an engine there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from taoprofiles.system.commands import run_bounded

TIMEOUT = 10.0
"""Seconds for a login and its answer."""


def login_words(address: str) -> list[str]:
    """Return the arguments of ``ssh`` that log in to the machine of an engine, [] for an address that is not ssh's."""
    try:
        parts = urlsplit(address)
        host, port, user = parts.hostname or "", parts.port, parts.username
    except ValueError:
        return []
    if parts.scheme != "ssh" or not host:
        return []
    return [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), "--", host]


def find_missing(address: str, paths: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], str]:
    """Return which paths do not exist on the machine of an engine, and "", or why that cannot be told.

    Only an address of ssh can be asked, and only if it needs no password.
    """
    if not paths:
        return [], ""
    login = login_words(address)
    if not login:
        return [], "its files cannot be looked at from here"
    tests = f'for path in {shlex.join(paths)}; do if [ -e "$path" ]; then echo yes; else echo no; fi; done'
    command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *login, tests]
    result = run_bounded(command, environ, TIMEOUT)
    answers = result.out.split()[-len(paths) :]  # a login may print something before
    if result.problem or result.status != 0 or len(answers) < len(paths) or set(answers) - {"yes", "no"}:
        lines = result.err.strip().splitlines() or [f"exit status {result.status}"]
        return [], result.problem or f"ssh: {lines[-1][:200]}"
    return [path for path, answer in zip(paths, answers, strict=True) if answer == "no"], ""
