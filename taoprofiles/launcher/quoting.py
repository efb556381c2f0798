"""Quoting for the launcher: what its shell makes of a command's words, and how to pass them on unchanged.

``run_container`` of docker_handler.py (nvidia-tao 6.26.3; the same back to nvidia-tlt 0.1.21) joins the words with
blanks and has /bin/sh start ``bash -c 'docker exec … WORDS'``: bash on this host splits and expands them once more.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping, Sequence

from taoprofiles.launcher.argv import VOLUME, parse_launcher_argv

SHELLS_OWN = frozenset(
    "BASH BASHOPTS BASHPID BASH_VERSION DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HOSTNAME HOSTTYPE "
    "IFS LINENO MACHTYPE OLDPWD OPTERR OPTIND OSTYPE PATH PIPESTATUS PPID PS4 PWD RANDOM SECONDS SHELL SHELLOPTS SHLVL "
    "TERM UID".split()
)
"""Variables that bash sets itself, to values that are not known here."""

VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
"""``${NAME}`` (group 1) or ``$NAME`` (group 2), as a shell and ``os.path.expandvars`` read it."""

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")
_ASSIGNS = re.compile(r"[A-Za-z_]\w*\+?=", re.ASCII)


def expand_variables(text: str, variables: Mapping[str, str], *, unset: str | None = None) -> str:
    """Return ``text`` with values for ``$NAME`` and ``${NAME}``.

    A name that ``variables`` does not have is replaced by ``unset``, or stays as it is if that is None.
    """
    return VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0] if unset is None else unset), text)


def quote_word(word: str, *, unquoted: bool = False) -> str:
    """Return ``word`` quoted so that the launcher's shell reproduces it.

    ``unquoted``: the launcher passes its words to /bin/sh without single quotes around them.
    """
    if _PLAIN.match(word):
        return word
    escaped = re.sub(r'([\\"$`])', r"\\\1", word)
    return '"' + (escaped if unquoted else escaped.replace("'", "'\\''")) + '"'


def quote_words(words: Sequence[str], variables: Mapping[str, str], *, unquoted: bool = False) -> list[str]:
    """Return the words of a launcher command, with ``variables`` expanded, quoted so that the task receives them."""
    expanded = [expand_variables(word, variables) for word in words]
    return [
        word if number and expanded[number - 1] == VOLUME else quote_word(word, unquoted=unquoted)
        for number, word in enumerate(expanded)
    ]


def quote_argv(argv: list[str], environ: Mapping[str, str]) -> list[str]:
    """Return the argument vector with which to start ``argv`` so that the task receives its words unchanged.

    Only a launcher command is quoted. ``$NAME`` of a variable in ``environ``, the launcher's environment, is expanded
    as the launcher's shell would; other names stay, since Hydra has ``${…}`` of its own.
    """
    launch = parse_launcher_argv(argv)
    if launch is None:
        return argv
    # run_container_on_ci, and the launcher without Docker (whl_instance.py).
    unquoted = "CI_PROJECT_DIR" in environ or environ.get("TAO_DOCKER_DISABLE") == "1"
    words = quote_words(launch.words[1:], environ, unquoted=unquoted)
    return argv[: len(argv) - len(words)] + words


def split_like_bash(
    word: str, environ: Mapping[str, str], matches: Callable[[str], Sequence[str]] = lambda pattern: ()
) -> list[str] | None:
    """Return the words into which the launcher's shell splits and expands one word.

    Returns None if the shell does something else with it: it runs a part as a command, redirects to a file, does not
    find the end of a quote, reads a comment, or makes an expansion that is not simulated here. ``matches`` returns the
    files that a glob pattern matches in the launcher's working directory.
    """
    text = word.replace("'\\''", "\0")
    return None if "'" in text else _Shell(text, environ, matches).words()


class _Shell:
    """Reads one word as bash reads an argument. A NUL represents a quote that came through the outer shell.

    The methods that read a character return the position after it, or None for what is not simulated.
    """

    def __init__(self, text: str, environ: Mapping[str, str], matches: Callable[[str], Sequence[str]]) -> None:
        self._text, self._environ, self._matches = text, environ, matches
        self._words: list[str] = []
        self._is_quoted = False
        self._begin()
        self._last_comma, self._last_brace = max(text.rfind(","), text.rfind("..")), text.rfind("}")

    def _begin(self) -> None:
        self._literal = self._pattern = ""
        self._is_word = self._is_glob = False
        self._start: int | None = None

    def _add(self, part: str, *, quoted: bool) -> None:
        part = part.replace("\0", "'")
        self._is_word = True
        self._literal += part
        self._is_glob = self._is_glob or (not quoted and any(c in "*?[" for c in part))
        self._pattern += glob.escape(part) if quoted else part

    def _end(self) -> None:
        if self._is_word:
            self._words += (self._matches(self._pattern) if self._is_glob else ()) or [self._literal]
        self._begin()

    def words(self) -> list[str] | None:
        position: int | None = 0
        while position is not None and position < len(self._text):
            c = self._text[position]
            if self._start is None and c not in " \t":
                self._start = position
            if c == '"':
                self._is_quoted = not self._is_quoted
                self._is_word = True
                position += 1
            elif c == "\\":
                position = self._backslash(position)
            elif c == "$":
                position = self._dollar(position)
            elif self._is_quoted and c != "`":
                self._add(c, quoted=True)
                position += 1
            else:
                position = self._outside(position)
        if position is None or self._is_quoted:
            return None
        self._end()
        return self._words

    def _backslash(self, position: int) -> int | None:
        escaped = self._text[position + 1 : position + 2]
        if not escaped or (escaped == "\0" and not self._is_quoted):
            return None
        if self._is_quoted and escaped not in '\\"$`\n':
            self._add("\\" + escaped, quoted=True)
        elif escaped != "\n":
            self._add(escaped, quoted=True)
        return position + 2

    def _dollar(self, position: int) -> int | None:
        match = VARIABLE.match(self._text, position)
        if match is None:
            after = self._text[position + 1 : position + 2]
            if after and after not in " \t/.,:=%+~]}^\\" and not (after == '"' and self._is_quoted):
                return None
            self._add("$", quoted=True)
            return position + 1
        name = match[1] or match[2]
        value = self._environ.get(name, "")
        is_split = not self._is_quoted and set(value) & set(" \t\n*?[\\")
        if is_split or (name in SHELLS_OWN and name not in self._environ):
            return None
        if value or self._is_quoted:
            self._add(value, quoted=True)
        return match.end()

    def _outside(self, position: int) -> int | None:
        c = self._text[position]
        starts_comment = c == "#" and not self._is_word
        are_braces = c == "{" and position < self._last_comma < self._last_brace
        if starts_comment or are_braces or c in "`;&|<>()\n\0":
            return None
        if c in " \t":
            self._end()
        elif c == "~" and self._may_be_home(position):
            home = self._environ.get("HOME")
            if home is None or self._text[position + 1 : position + 2] not in ("", "/", " ", "\t"):
                return None
            self._add(home, quoted=True)
        else:
            self._add(c, quoted=False)
        return position + 1

    def _may_be_home(self, position: int) -> bool:
        before = self._text[self._start : position]
        return not before or (before[-1] in "=:" and _ASSIGNS.match(before) is not None)
