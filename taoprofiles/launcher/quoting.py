"""The way of a command's words through the launcher: what its shell makes of them, and how they arrive as given.

``run_container`` of docker_handler.py (nvidia-tao 6.26.3; the same back to nvidia-tlt 0.1.21) joins the words with
blanks and has /bin/sh start ``bash -c 'docker exec … WORDS'``: bash on this host splits and expands them once more.
"""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING

from taoprofiles.mounts.container_paths import expanded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

VOLUME = "--volume"
"""Takes SRC:DST from nvidia-tao 6.0.0 on (``launch_command`` in local_instance.py); no shell sees its value."""

SHELLS_OWN = frozenset(
    "BASH BASHOPTS BASHPID BASH_VERSION DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HOSTNAME HOSTTYPE "
    "IFS LINENO MACHTYPE OLDPWD OPTERR OPTIND OSTYPE PATH PIPESTATUS PPID PS4 PWD RANDOM SECONDS SHELL SHELLOPTS SHLVL "
    "TERM UID".split()
)
"""Variables that bash sets by itself, to what is not known here."""

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")
_NAME = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
_ASSIGNS = re.compile(r"[A-Za-z_]\w*\+?=", re.ASCII)


def with_volumes(words: Sequence[str], mounts: Mapping[str, str]) -> dict[str, str]:
    """Give the mounts (destination by source) with those of ``--volume SRC:DST``, which replace one of their source."""
    found = dict(mounts)
    for number, word in enumerate(words[:-1]):
        if word == VOLUME:
            source, colon, rest = words[number + 1].partition(":")
            if colon:
                found[os.path.realpath(source)] = os.path.realpath(rest.partition(":")[0])
    return found


def is_bare(environ: Mapping[str, str]) -> bool:
    """Whether the launcher gives its words to /bin/sh with no quotes around them, as ``run_container_on_ci`` does.

    So does the launcher without Docker, ``whl_instance.py``.
    """
    return "CI_PROJECT_DIR" in environ or environ.get("TAO_DOCKER_DISABLE") == "1"


def spelt(word: str, *, bare: bool = False) -> str:
    """Write a word so that it comes out of the launcher's shell as it is.

    ``bare``: for a launcher that gives its words to /bin/sh with no quotes around them (see ``is_bare``).
    """
    if _PLAIN.match(word):
        return word
    escaped = re.sub(r'([\\"$`])', r"\\\1", word)
    return '"' + (escaped if bare else escaped.replace("'", "'\\''")) + '"'


def for_launcher(words: Sequence[str], variables: Mapping[str, str], *, bare: bool = False) -> list[str]:
    """Write a launcher's words so that the task gets them as given, but for ``$NAME`` of one of the ``variables``."""
    known = [expanded(word, variables) for word in words]
    return [
        word if number and known[number - 1] == VOLUME else spelt(word, bare=bare) for number, word in enumerate(known)
    ]


def arrives(
    word: str, environ: Mapping[str, str], matches: Callable[[str], Sequence[str]] = lambda pattern: ()
) -> list[str] | None:
    """Give the words that the launcher's shell makes of one; None where it does something else with it.

    Something else is: it runs a part as a command, writes to a file, finds no end of a quote, takes the rest for a
    comment, or expands what is not followed here. ``matches`` gives the files that a glob matches from the folder of
    the launcher.
    """
    text = word.replace("'\\''", "\0")
    return None if "'" in text else _Shell(text, environ, matches).words()


class _Shell:
    """Reads one word as bash reads an argument. A NUL stands for a quote that came through the outer shell."""

    def __init__(self, text: str, environ: Mapping[str, str], matches: Callable[[str], Sequence[str]]) -> None:
        self._text, self._environ, self._matches = text, environ, matches
        self._found: list[str] = []
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
            self._found += (self._matches(self._pattern) if self._is_glob else ()) or [self._literal]
        self._begin()

    def words(self) -> list[str] | None:
        place: int | None = 0
        while place is not None and place < len(self._text):
            c = self._text[place]
            if self._start is None and c not in " \t":
                self._start = place
            step = {"\\": self._backslash, '"': self._quote, "$": self._dollar, "`": self._lost}.get(c)
            place = (step or (self._inside if self._is_quoted else self._outside))(place)
        if place is None or self._is_quoted:
            return None
        self._end()
        return self._found

    def _backslash(self, place: int) -> int | None:
        escaped = self._text[place + 1 : place + 2]
        if not escaped or (escaped == "\0" and not self._is_quoted):
            return None
        if self._is_quoted and escaped not in '\\"$`\n':
            self._add("\\" + escaped, quoted=True)
        elif escaped != "\n":
            self._add(escaped, quoted=True)
        return place + 2

    def _quote(self, place: int) -> int:
        self._is_quoted = not self._is_quoted
        self._is_word = True
        return place + 1

    def _dollar(self, place: int) -> int | None:
        name = _NAME.match(self._text, place)
        value = self._value(place, name, self._is_quoted)
        if value or (value is not None and self._is_quoted):
            self._add(value, quoted=True)
        return None if value is None else name.end() if name else place + 1

    def _lost(self, place: int) -> None:
        return None

    def _inside(self, place: int) -> int:
        self._add(self._text[place], quoted=True)
        return place + 1

    def _outside(self, place: int) -> int | None:
        c = self._text[place]
        if self._is_special(place):
            return None
        if c in " \t":
            self._end()
        elif c == "~" and self._may_be_home(place):
            home = self._environ.get("HOME")
            if home is None or self._text[place + 1 : place + 2] not in ("", "/", " ", "\t"):
                return None
            self._add(home, quoted=True)
        else:
            self._add(c, quoted=False)
        return place + 1

    def _value(self, place: int, name: re.Match[str] | None, is_quoted: bool) -> str | None:
        """Give what stands for a ``$``; None for what is not followed."""
        if name is None:
            after = self._text[place + 1 : place + 2]
            return "$" if not after or after in " \t/.,:=%+~]}^\\" or (after == '"' and is_quoted) else None
        called = name[1] or name[2]
        if called in SHELLS_OWN and called not in self._environ:
            return None
        value = self._environ.get(called, "")
        return value if is_quoted or not set(value) & set(" \t\n*?[\\") else None

    def _is_special(self, place: int) -> bool:
        c = self._text[place]
        starts_comment = c == "#" and not self._is_word
        are_braces = c == "{" and place < self._last_comma < self._last_brace
        return starts_comment or are_braces or c in ";&|<>()\n\0"

    def _may_be_home(self, place: int) -> bool:
        begun = self._text[self._start : place]
        return not begun or (begun[-1] in "=:" and _ASSIGNS.match(begun) is not None)
