"""The launcher's command line: its program names, and the task and options that an argument vector contains.

Sources: the entry_points.txt of nvidia-tao 0.1.24 to 6.26.3 and of nvidia-tlt 0.1.21, and ``launch_command`` in the
local_instance.py of nvidia-tao 6.26.3.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from taoprofiles.errors import UsageError

MAIN_PROGRAMS = ("tao", "tlt")
PROGRAMS = (*MAIN_PROGRAMS, "tao-deploy")
"""The launcher's console scripts."""

PACKAGES = ("nvidia_tao_cli", "tlt")
"""The Python packages of those scripts, for ``python -m``."""

HANDLERS = ("list", "stop", "info")
"""Subcommands that start no container and never read the mounts file."""

GROUPS = ("model", "dataset", "deploy")
"""The task groups of nvidia-tao 5.0.0 and later (``task_group`` of its config.json); older launchers have none."""

VOLUME = "--volume"
"""Option of nvidia-tao 6.0.0 and later: SRC:DST, a further mount. Its value does not pass through a shell."""


_WRAPPERS = frozenset(
    "chrt doas env exec ionice nice nohup numactl setsid srun stdbuf strace sudo systemd-run taskset time timeout "
    "unbuffer".split()
)
"""Programs that start the command behind their own options, with its words unchanged."""


_ASSIGNMENT = r"[A-Za-z_]\w*="


class LauncherCommand(NamedTuple):
    """A launcher command that starts a container.

    ``words`` is the whole command from the program name on; ``group`` is "" if it names none; ``options`` are the
    words after the task.
    """

    words: list[str]
    group: str
    task: str
    options: list[str]


def launcher_words(argv: Sequence[str]) -> list[str] | None:
    """Return the words of ``argv`` from the launcher's program name on, or None if it does not start a launcher.

    Besides the console scripts by name or path, this recognises ``python SCRIPT``, ``python -m PACKAGE`` and
    ``python -c CODE`` (whose words begin with "tao").
    """
    name = os.path.basename(argv[0]) if argv else ""
    if name in PROGRAMS:
        return [name, *argv[1:]]
    if not name.startswith(("python", "pypy")):
        return None
    position = 1
    while position < len(argv) and argv[position].startswith("-") and argv[position] != "-":
        letter, value, position = _interpreter_option(argv, position)
        if letter in ("m", "c"):
            modules = value.replace(";", " ").replace("(", " ").split() if letter == "c" else [value]
            is_launcher = any(module.partition(".")[0] in PACKAGES for module in modules)
            return ["tao", *argv[position:]] if is_launcher else None
    if position >= len(argv):
        return None
    script = argv[position]
    name = os.path.basename(script)
    if name not in PROGRAMS:
        if not any(f"/{package}/entrypoint/" in f"/{script}" for package in PACKAGES):
            return None
        name = "tao"
    return [name, *argv[position + 1 :]]


def unwrapped(argv: Sequence[str]) -> list[str]:
    """Return ``argv`` without ``env``, ``nohup``, ``timeout 1h`` and the like in front of a launcher."""
    if argv and os.path.basename(argv[0]) in _WRAPPERS:
        for position in range(1, len(argv)):
            if os.path.basename(argv[position]).startswith((*PROGRAMS, "python")) and launcher_words(argv[position:]):
                return list(argv[position:])
    return list(argv)


def commands_of_script(script: str, *, keeps_assignments: bool = False) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell script, by default without assignments in front of it.

    The quotes are removed and nothing is expanded; a line with an open quote is left out.
    """
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        words: list[str] = []
        with suppress(ValueError):
            for word in [*lexer, ";"]:
                if word and set(word) <= set(";&|()"):
                    yield words
                    words = []
                elif words or keeps_assignments or not re.match(_ASSIGNMENT, word):
                    words.append(word)


def parse_launcher_argv(argv: Sequence[str]) -> LauncherCommand | None:
    """Parse a launcher command that starts a container; return None for any other command, ``tao list`` included."""
    words = launcher_words(argv)
    if words is None or len(words) < 2 or words[1] in HANDLERS or words[1].startswith("-"):
        return None
    group = words[1] if words[1] in GROUPS else ""
    task, *options = words[2 if group else 1 :] or [""]
    return LauncherCommand(words, group, task, options)


def container_words(argv: Sequence[str]) -> list[str]:
    """Return the words that the launcher would run in the container; a command without launcher stays as it is.

    Raises UsageError for a launcher command that starts no task, and for ``--volume``.
    """
    if launcher_words(argv) is None:
        return list(argv)
    command = parse_launcher_argv(argv)
    if command is None or not command.task or command.task.startswith("-") or command.task in HANDLERS:
        raise UsageError(f"'{' '.join(argv)[:80]}' starts no task", hint="such as 'tao model dino train …'")
    if VOLUME in command.options:
        raise UsageError("--volume works only with the launcher: add a mount to the profile instead")
    if not command.options:
        return ["/bin/bash"]
    return command.options[1:] if command.options[0] == "run" else [command.task, *command.options]


def add_volumes(words: Sequence[str], mounts: Mapping[str, str]) -> dict[str, str]:
    """Return ``mounts`` (destination by source) with those of ``--volume``, which replace a mount of the same source.

    Like the launcher, this resolves symlinks of both paths on this host.
    """
    merged = dict(mounts)
    for number, word in enumerate(words[:-1]):
        if word == VOLUME:
            source, colon, rest = words[number + 1].partition(":")
            if colon:
                merged[os.path.realpath(source)] = os.path.realpath(rest.partition(":")[0])
    return merged


def _interpreter_option(argv: Sequence[str], position: int) -> tuple[str, str, int]:
    """Return an option of the Python interpreter as (letter, value, index of the next word); flags may share a word."""
    word = argv[position]
    if word.startswith("--"):
        return "", "", position + (2 if word == "--check-hash-based-pycs" else 1)
    for number, letter in enumerate(word[1:], 2):
        if letter in "cmWX":
            if word[number:]:
                return letter, word[number:], position + 1
            value = argv[position + 1] if position + 1 < len(argv) else ""
            return letter, value, position + 2
    return "", "", position + 1


RUNNERS = {
    "tao_pt": ("NV_TAO_PYTORCH_TOP", "/tao-pt"),
    "tao_deploy": ("NV_TAO_DEPLOY_TOP", "/workspace/tao-deploy"),
    "tao_ds": ("NV_TAO_DS_TOP", "/workspace"),
}
"""The runners of NVIDIA's source trees: the variable with the path of the checkout, and where they mount that.

Sources: runner/tao_pt.py of tao-pytorch, runner/tao_deploy.py of tao-deploy, runner/tao_ds.py of tao-data-services
(7.0.1). They read ``~/.tao_mounts.json`` whatever LAUNCHER_MOUNTS says, and only its mounts; the words of their docker
command pass through /bin/sh without quotes, and they exit with 0 whatever happens.
"""

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


def parse_runner(argv: Sequence[str]) -> RunnerCommand | None:
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
