"""The task in a launcher's command line, and the words that the launcher would run in the container for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.errors import UsageError
from taoprofiles.launcher.command import HANDLERS
from taoprofiles.launcher.quoting import VOLUME

if TYPE_CHECKING:
    from collections.abc import Sequence

LAUNCHERS = ("tao", "tlt")
GROUPS = ("model", "dataset", "deploy")
"""The task groups of nvidia-tao 5.0.0 and later; before, there were none (``task_group`` of its config.json)."""


class Task(NamedTuple):
    """``name`` is "" where the words name none; ``group`` "" where they do not say; ``words`` are the container's."""

    group: str
    name: str
    words: list[str]


def split(words: Sequence[str]) -> Task:
    """Read ``tao model dino train …`` or ``dino train …``; the rule is ``launch_command`` of nvidia-tao 6.26.3.

    Raises UsageError for what the launcher does without a container, and for its ``--volume``.
    """
    rest = list(words)
    if not rest or os.path.basename(rest[0]) not in LAUNCHERS:
        return Task("", rest[0] if rest else "", rest)
    rest = rest[1:]
    group = rest.pop(0) if rest and rest[0] in GROUPS else ""
    if not rest or rest[0].startswith("-") or rest[0] in HANDLERS:
        raise UsageError(f"'{' '.join(words)[:80]}' is no task", hint="such as 'tao model dino train …'")
    name, arguments = rest[0], rest[1:]
    if VOLUME in arguments:
        raise UsageError("--volume is the launcher's own: a mount of the profile takes its place")
    if not arguments:
        return Task(group, name, ["/bin/bash"])
    return Task(group, name, arguments[1:] if arguments[0] == "run" else [name, *arguments])
