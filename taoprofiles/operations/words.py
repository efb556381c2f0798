"""The words of a command, as the program that it starts has to be given them."""

from __future__ import annotations

from taoprofiles.values import launching
from taoprofiles.world.processes import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def as_started(command: list[str], variables: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    """Spell a launcher's words so that its shell gives them to the task as they are; any other command stays.

    ``$NAME`` of one of the ``variables`` is its value. ``environ`` is the launcher's.
    """
    launch = Process(0, 0, command).launch
    if launch is None:
        return command
    words = launching.for_launcher(launch[1:], variables, bare=launching.is_bare(environ))
    return command[: len(command) - len(words)] + words
