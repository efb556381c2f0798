"""Command lines: the launcher's, with its program names, task and options; a shell script's commands; the runners'.

Sources: the entry_points.txt of nvidia-tao 0.1.24 to 6.26.3 and of nvidia-tlt 0.1.21, and ``launch_command`` in the
local_instance.py of nvidia-tao 6.26.3.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from taoprofiles.errors import UsageError
from taoprofiles.system.processes import WRAPPERS

MAIN_PROGRAMS = ("tao", "tlt")
PROGRAMS = (*MAIN_PROGRAMS, "tao-deploy")
"""The launcher's console scripts: ``Behaviour.programs`` are those of a version, and ``processes.scan`` finds them."""

PACKAGES = ("nvidia_tao_cli", "tlt")
"""The Python packages of those scripts, for ``python -m``."""

HANDLERS = ("list", "stop", "info")
"""Subcommands that start no container and never read the mounts file."""

GROUPS = ("model", "dataset", "deploy")
"""The task groups of nvidia-tao 5.0.0 and later (``task_group`` of its config.json); older launchers have none."""

VOLUME = "--volume"
"""Option of nvidia-tao 6.0.0 and later: SRC:DST, a further mount. Its value does not pass through a shell."""


SHELLS = ("bash", "sh", "dash", "zsh")

_ASSIGNMENT = r"[A-Za-z_]\w*="
KEYWORDS = frozenset("then do else if elif while until time exec ! {".split())
_COMMENT = r"""(?s)((?:[^\s'"\\#;&|()]|\\.|'[^']*'|"(?:\\.|[^"\\])*"|(?<=[^\s;&|()])\#)+)|\#[^\n]*"""
"""A word, or a comment: ``#`` begins one only in front of a word."""
_HERE_DOCUMENT = r"(?<!<)<<-?\s*['\"]?(\w+)"
_LINES_OF_QUOTE = 50


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
    if argv and os.path.basename(argv[0]) in WRAPPERS:
        for position in range(1, len(argv)):
            if os.path.basename(argv[position]).startswith((*PROGRAMS, "python")) and launcher_words(argv[position:]):
                return list(argv[position:])
    return list(argv)


def script_of(argv: Sequence[str]) -> str | None:
    """Return the script of ``bash -lc SCRIPT``, also after ``timeout 1h`` and the like; None for any other command."""
    is_wrapped = bool(argv) and os.path.basename(argv[0]) in WRAPPERS
    starts = range(len(argv) if is_wrapped else min(len(argv), 1))
    start = next((number for number in starts if os.path.basename(argv[number]) in SHELLS), len(argv))
    words, is_script = iter(argv[start + 1 :]), False
    for word in words:
        if word[:1] not in ("-", "+"):
            return word if is_script else None
        if not word.startswith("--"):
            is_script |= word[0] == "-" and "c" in word
            if word[-1] in "oO":  # -o pipefail
                next(words, None)
    return None


def simple_commands(argv: Sequence[str]) -> list[list[str]]:
    """Return the commands that a command consists of: those of the script of ``bash -c``, else itself."""
    script = script_of(argv)
    if script is None:
        return [unwrapped(argv)] if argv else []
    return [command for words in commands_of_script(script) for command in simple_commands(words)]


def commands_of_script(script: str, *, keeps_assignments: bool = False) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell script, by default without assignments in front of it.

    Quotes, comments and keywords in front of a command, such as ``do``, are removed, and nothing is expanded. A line
    with a quote that stays open is one word, which begins like the line.
    """
    for tokens in _token_lines(script):
        words: list[str] = []
        for word in [*tokens, ";"]:
            if word and set(word) <= set(";&|()"):
                if words:
                    yield words
                words = []
            elif words or not (word in KEYWORDS or (not keeps_assignments and re.match(_ASSIGNMENT, word))):
                words.append(word)


def _token_lines(script: str) -> Iterator[list[str]]:
    """Yield the words and operators of each line; one whose quote stays open continues in the lines below."""
    lines, number, end_of_text = script.replace("\\\n", " ").splitlines(), 0, ""
    while number < len(lines):
        line, count, most = lines[number], 1, 1 if end_of_text else _LINES_OF_QUOTE
        while (tokens := _tokens("\n".join(lines[number : number + count]))) is None and count < most:
            count += 1
        if tokens is not None:
            yield tokens
        elif not end_of_text:  # else an apostrophe in the text of a here-document is no quote
            yield [f"{line.split()[0]} …"]
        number += 1 if tokens is None else count
        if end_of_text:
            end_of_text = "" if line.strip() == end_of_text else end_of_text
        elif match := re.search(_HERE_DOCUMENT, line):
            end_of_text = match[1]


def _tokens(text: str) -> list[str] | None:
    """Return the words and operators of a part of a script, None if a quote stays open."""
    import shlex  # not for 'use'

    uncommented = re.sub(_COMMENT, lambda match: match[1] or "", text)
    lexer = shlex.shlex(uncommented, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:
        return None


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
        raise UsageError(f"'{' '.join(argv)[:80]}' starts no task", hint="such as: tao model dino train")
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

    ``prefix`` are the words before its ``arguments``, ``options`` the arguments as (name, value), and ``task`` the
    words after ``--``, which run in the container.
    """

    name: str
    prefix: list[str]
    arguments: list[str]
    options: list[tuple[str, str]]
    task: list[str]

    @property
    def words(self) -> list[str]:
        """The command from the runner's name on."""
        return [self.name, *self.arguments, *(["--", *self.task] if self.task else [])]

    @property
    def lacks_separator(self) -> bool:
        """Check whether words that are no options stand before ``--``: the runner refuses them."""
        return any(not name.startswith("-") for name, _ in self.options)

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
        takes_value = option.startswith("-") and option not in _FLAGS
        options.append((option, value if equals or not takes_value else next(words, "")))
    return RunnerCommand(name, list(argv[: position + 1]), rest[:end], options, rest[end + 1 :])
