"""The runners of NVIDIA's source trees, ``tao_pt``, ``tao_deploy`` and ``tao_ds``: their command line, what they mount.

Sources: runner/tao_pt.py of tao-pytorch, runner/tao_deploy.py of tao-deploy, runner/tao_ds.py of tao-data-services
(7.0.1). They read ``~/.tao_mounts.json`` whatever LAUNCHER_MOUNTS says, and only its mounts; the words of their docker
command pass through /bin/sh without quotes, and they exit with 0 whatever happens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

RUNNERS = {
    "tao_pt": ("NV_TAO_PYTORCH_TOP", "/tao-pt"),
    "tao_deploy": ("NV_TAO_DEPLOY_TOP", "/workspace/tao-deploy"),
    "tao_ds": ("NV_TAO_DS_TOP", "/workspace"),
}
"""By the runner's name: the variable with the path of the checkout, and where the runner mounts that."""

_FLAGS = ("--no-tty", "--run_as_user", "--run_as_service", "-h", "--help")


class RunnerCommand(NamedTuple):
    """A command of a runner.

    ``prefix`` are the words before its options, ``options`` the options as (name, value), and ``task`` the words behind
    ``--``, which run in the container.
    """

    name: str
    prefix: list[str]
    options: list[tuple[str, str]]
    task: list[str]

    @property
    def words(self) -> list[str]:
        """The command from the runner's name on."""
        given = [word for name, value in self.options for word in (name, *([value] if name not in _FLAGS else []))]
        return [self.name, *given, *(["--", *self.task] if self.task else [])]

    def values(self, option: str) -> list[str]:
        """Return the values of an option, in their order."""
        return [value for name, value in self.options if name == option]

    def last(self, option: str, default: str = "") -> str:
        """Return the value of an option that counts."""
        return next(reversed(self.values(option)), default)

    def checkout(self, environ: Mapping[str, str], folder: str) -> tuple[str, str]:
        """Return the source and the destination of the checkout's mount, for a start in ``folder``."""
        variable, destination = RUNNERS[self.name]
        return environ.get(variable) or folder, destination


def parse(argv: Sequence[str]) -> RunnerCommand | None:
    """Parse a runner's command: by its name or path, or as a script of Python; None for any other command."""
    position = 0
    if argv and os.path.basename(argv[0]).startswith("python"):
        position = next((number for number, word in enumerate(argv[1:], 1) if not word.startswith("-")), len(argv))
    name = os.path.basename(argv[position]).removesuffix(".py") if position < len(argv) else ""
    if name not in RUNNERS:
        return None
    rest = list(argv[position + 1 :])
    end = rest.index("--") if "--" in rest else len(rest)
    options: list[tuple[str, str]] = []
    words = iter(rest[:end])
    for word in words:
        option, equals, value = word.partition("=")
        options.append((option, value if equals else "" if option in _FLAGS else next(words, "")))
    return RunnerCommand(name, list(argv[: position + 1]), options, rest[end + 1 :])
