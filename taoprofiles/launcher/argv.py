"""The words of a command, as the program that it starts has to be given them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.launcher import quoting
from taoprofiles.system.processes import Process

if TYPE_CHECKING:
    from collections.abc import Mapping


def as_started(command: list[str], environ: Mapping[str, str]) -> list[str]:
    """Spell a launcher's words so that its shell gives them to the task as they are; any other command stays.

    ``$NAME`` of a variable in ``environ``, the launcher's, is its value, as that shell would have it too: what stands
    in single quotes on a command line is meant so. A name that it does not have is left: Hydra's own ``${…}``.
    """
    launch = Process(0, 0, command).launch
    if launch is None:
        return command
    words = quoting.for_launcher(launch[1:], environ, bare=quoting.is_bare(environ))
    return command[: len(command) - len(words)] + words
