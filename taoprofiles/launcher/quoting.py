"""Quoting for the launcher: what its shell makes of a command's words, and how to pass them on unchanged.

``run_container`` of docker_handler.py (nvidia-tao 6.26.3; the same back to nvidia-tlt 0.1.21) joins the words with
blanks and has /bin/sh start ``bash -c 'docker exec … WORDS'``: bash on this host splits and expands them once more.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from taoprofiles.errors import UsageError
from taoprofiles.launcher.argv import VOLUME, parse_launcher_argv, unwrapped
from taoprofiles.launcher.behaviour import Behaviour, behaviour_of, runs_in_ci, runs_without_docker

SHELLS_OWN = frozenset(
    "BASH BASHOPTS BASHPID BASH_VERSION DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HOSTNAME HOSTTYPE "
    "IFS LINENO MACHTYPE OLDPWD OPTERR OPTIND OSTYPE PATH PIPESTATUS PPID PS4 PWD RANDOM SECONDS SHELL SHELLOPTS SHLVL "
    "TERM UID".split()
)
"""Variables that bash sets itself, to values that are not known here."""

VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
"""``${NAME}`` (group 1) or ``$NAME`` (group 2), as a shell and ``os.path.expandvars`` read it."""

_EFFECTS = (
    ("'", "ends its own quotes at the single quote in '{}'"),
    (("`", "$("), "runs a part of '{}' as a command on this host"),
    (";&|\n", "ends the command inside '{}', and runs the rest as a command on this host"),
    (">", "writes the output to a file of this host because of '{}'"),
    ("<", "reads a file of this host because of '{}'"),
    ("()", "finds a syntax error in '{}'"),
    ("#", "ignores everything after the '#' of '{}'"),
    ('"', "finds no end of the quotes in '{}'"),
    ("{", "expands the braces of '{}' to several words"),
    ("\\", "removes the backslash of '{}'"),
)
"""What bash does because of a character in a word; the first that matches is reported."""

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")
_ASSIGNS = re.compile(r"[A-Za-z_]\w*\+?=", re.ASCII)


def expand_variables(text: str, variables: Mapping[str, str], *, unset: str | None = None) -> str:
    """Return ``text`` with values for ``$NAME`` and ``${NAME}``.

    A name that ``variables`` does not have is replaced by ``unset``, or stays as it is if that is None.
    """
    return VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0] if unset is None else unset), text)


def quote_word(word: str, *, unquoted: bool) -> str:
    """Return ``word`` quoted so that the launcher's shell reproduces it.

    ``unquoted``: the launcher passes its words to /bin/sh without single quotes around them.
    """
    if _PLAIN.match(word):
        return word
    escaped = re.sub(r'([\\"$`])', r"\\\1", word)
    return '"' + (escaped if unquoted else escaped.replace("'", "'\\''")) + '"'


def quote_argv(argv: list[str], environ: Mapping[str, str], find_version: Callable[[], str]) -> list[str]:
    """Return the argument vector with which to start ``argv`` so that the task receives its words unchanged.

    Only a launcher command is quoted. ``$NAME`` of a variable in ``environ``, the launcher's environment, is expanded
    as the launcher's shell would; other names stay, since Hydra has ``${…}`` of its own. ``find_version`` is called
    only if launchers differ in what they do with the words.

    Raises UsageError if they differ and the version is not known: a word could be run as a command on this host.
    """
    launch = parse_launcher_argv(unwrapped(argv))
    if launch is None:
        return argv
    words = [expand_variables(word, environ) for word in launch.words[1:]]
    behaviour = None
    has_mode = runs_in_ci(environ) or runs_without_docker(environ)
    volumes = [value for option, value in pairwise(words) if option == VOLUME]
    if any(not _PLAIN.match(word) for word in (words if has_mode else volumes)):
        version = find_version()
        try:
            behaviour = behaviour_of(version)
        except ValueError:
            raise UsageError(
                f"the version of '{argv[0]}' is unknown, and with it how the launcher passes these words on",
                hint="use only letters, digits and _@%+=:,./- in them, or unset CI_PROJECT_DIR and TAO_DOCKER_DISABLE",
            ) from None
    one_shell = behaviour is not None and has_one_shell(behaviour, environ)
    taken = taken_volumes(words, behaviour, environ) if behaviour is not None else ()
    quoted = [word if number in taken else quote_word(word, unquoted=one_shell) for number, word in enumerate(words)]
    return argv[: len(argv) - len(words)] + quoted


def has_one_shell(behaviour: Behaviour, environ: Mapping[str, str]) -> bool:
    """Check whether the launcher gives its words to /bin/sh alone: run_container_on_ci, and whl_instance.py."""
    return runs_without_docker(environ, behaviour) or runs_in_ci(environ, behaviour)


def taken_volumes(words: Sequence[str], behaviour: Behaviour, environ: Mapping[str, str]) -> set[int]:
    """Return the numbers of the words that the launcher itself takes as values of ``--volume``, in its own order."""
    if not behaviour.volume_argument or runs_without_docker(environ, behaviour):
        return set()
    taken: set[int] = set()
    for number, word in enumerate(words[:-1]):
        if word == VOLUME and number not in taken:  # a taken "--volume" is a value
            taken.add(number + 1)
    return taken


def split_like_bash(
    word: str, environ: Mapping[str, str], matches: Callable[[str], Sequence[str]] = lambda pattern: ()
) -> list[str] | None:
    """Return the words into which the launcher's shell splits and expands one word.

    Returns None if the shell does something else with it: it runs a part as a command, redirects to a file, does not
    find the end of a quote, reads a comment, or makes an expansion that is not simulated here. ``matches`` returns the
    files that a glob pattern matches in the launcher's working directory.
    """
    text = word.replace("'\\''", "\0")  # a quote that comes through the outer shell
    if "'" in text or "\\\n" in text:  # a quote that stays open, or a line that is continued
        return None
    words: list[str] = []
    position = 0
    while position < len(text):
        if text[position] in " \t":
            position += 1
            continue
        start, literal, pattern, exists, is_glob = position, "", "", False, False
        while position < len(text) and text[position] not in " \t":
            piece = _PIECE.match(text, position)
            value = None if piece is None else _expand(piece, environ, at_start=position == start)
            if piece is None or value is None:
                return None
            is_quoted = piece["plain"] is None
            exists = exists or is_quoted or value != ""
            is_glob = is_glob or (not is_quoted and glob.has_magic(value))
            literal += value
            pattern += glob.escape(value) if is_quoted else value.replace("[^", "[!")  # glob has only the latter
            position = piece.end()
        if exists:
            words += (matches(pattern) if is_glob else ()) or [literal]
    return words


_PIECE = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*+)"|\\(?P<escaped>[^\0])|(?P<plain>[^"\\ \t]++)', re.S)
"""A part of a word: in double quotes, one character after a backslash, or neither."""
_UNKNOWN = re.compile(r"[`;&|<>()\n\0]|\[[^][]*+\[[:.=]")
"""What makes bash run something, redirect, or end the command, and ``[[:alpha:]]``, which Python has not."""
_PART = re.compile(
    VARIABLE.pattern + r"|\\(?P<escaped>[\\\"$`\n])|(?P<dollar>\$(?![^ \t/.,:=%+~\]}^\\]))|(?P<text>[^$`\\]+|\\)",
    re.ASCII,
)
"""A variable, an escaped character of a quoted text, or anything that stays as it is."""


def _expand(piece: re.Match[str], environ: Mapping[str, str], *, at_start: bool) -> str | None:
    """Return what bash makes of a part of a word, or None if that is not known here."""
    if piece["escaped"] is not None:
        return piece["escaped"].replace("\n", "")
    text, is_quoted = piece["quoted"], piece["plain"] is None
    if text is None:
        text = _expand_home(piece["plain"], piece, environ, at_start=at_start)
        if text is None or _UNKNOWN.search(text) or _has_braces(piece) or (at_start and text.startswith("#")):
            return None
    value, position = "", 0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            return None
        position = match.end()
        name = match[1] or match[2]
        new = environ.get(name, "") if name else match["escaped"] or match["dollar"] or match["text"]
        is_split = not is_quoted and set(new) & set(" \t\n*?[\\")
        if name and (is_split or (name in SHELLS_OWN and name not in environ)):
            return None
        value += new.replace("\n", "") if match["escaped"] else new
    return value.replace("\0", "'")


def _has_braces(piece: re.Match[str]) -> bool:
    """Check for ``{a,b}`` and ``{1..2}`` from an unquoted part on, which bash expands to several words."""
    word, position = piece.string, piece.string.find("{", piece.start(), piece.end())
    return -1 < position < max(word.rfind(","), word.rfind("..")) < word.rfind("}")


def _expand_home(text: str, piece: re.Match[str], environ: Mapping[str, str], *, at_start: bool) -> str | None:
    """Replace ``~`` where bash does, also after ``=`` or ``:`` of an assignment; None for ``~user`` and the like."""
    word, home = piece.string, environ.get("HOME")
    if not at_start:
        may_be_home = "=~" in text or ":~" in text or (text[0] == "~" and word[piece.start() - 1] in '=:"')
        return None if may_be_home else text
    tilde = "(?:^|(?<=[=:]))~" if _ASSIGNS.match(text) else "^~"
    ends = "/|\\Z" if word[piece.end() : piece.end() + 1] in ("", " ", "\t") else "/"
    if not re.search(tilde, text):
        return text
    if re.search(f"{tilde}(?!{ends})", text) or home is None or set(home) & set('$\\`"*?['):
        return None
    return re.sub(tilde, lambda _: home, text)


def shell_effect(word: str, split: Sequence[str] | None) -> str:
    """Return what bash does to a word, as the rest of a sentence; ``split`` is what ``split_like_bash`` returns."""
    if split is not None:
        if not split:
            return f"drops '{word}'" if word else "drops the empty word"
        count = "" if len(split) == 1 else f"{len(split)} words "
        return f"turns '{word}' into {count}" + ", ".join(f"'{part}'" for part in split[:5])
    for marks, effect in _EFFECTS:
        if any(mark in word for mark in marks):
            return effect.format(word)
    return f"expands '{word}' to something else"
