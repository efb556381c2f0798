"""The words of a launcher command: paths that mean something else inside the container, and what a shell breaks."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.launcher.argv import VOLUME, add_volumes
from taoprofiles.launcher.quoting import SHELLS_OWN, VARIABLE, expand_variables, quote_word, split_like_bash
from taoprofiles.masking import MASK, is_secret, within, without_secrets
from taoprofiles.mounts.resolver import Places, role
from taoprofiles.rules.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from taoprofiles.mounts.resolver import Verdict

SPEC_OPTIONS = ("-e", "--experiment_spec", "--experiment_spec_file", "--experiment-spec-file", "--spec", "--config")
"""Options whose value is a spec file, in one or another of TAO's tasks."""

_RESULTS_OPTIONS = ("-r", "--results_dir", "results_dir")

_KEY = re.compile(r"((?:--?|\+{1,2}|~)?[A-Za-z_][\w.\[\]@-]*)=(.*)", re.S)
_JOINED = re.compile(r"(-k)=?(.+)", re.S)
_ITEM = re.compile(r"\s*[\"']?[\w.]+[\"']?\s*:(?!//)\s*")
_AT_ROOT = re.compile(r"/[^/]+\.(ya?ml|txt|json|toml|cfg|conf|prototxt|pbtxt|hdf5|h5|tlt|etlt|pth?|onnx|engine)\Z")
_ENGINES = (".engine", ".trt", ".plan")
"""What a task makes of a model: ``-e`` of ``tao converter`` names it too. It may be missing."""
_NESTING = 20
_WORDS_SHOWN = 200
MASKED = 4
"""Characters from which on a value counts as a secret that must not be told: shorter ones stand in any text."""


class Argument(NamedTuple):
    """A value that looks like a path: which word it is in, the option or key before it, and how it is written there."""

    number: int
    key: str
    value: str

    @property
    def where(self) -> str:
        """How a finding names it."""
        return self.key or f"argument {self.number}"


def arguments(words: Sequence[str]) -> Iterator[Argument]:
    """Give the paths among the words of a launcher command: ``-e /x``, ``--opt=/x``, ``key=[/a,/b]``, ``~/x``.

    Not the values of secrets, nor of ``--volume``.
    """
    for number, key, value in _valued(words):
        if key != VOLUME and not _is_secret(key):
            for one in _values(value, 0):
                yield Argument(number, key, one)


def keys(words: Sequence[str]) -> list[str]:
    """Give the keys of a spec that a command sets: ``train.num_gpus`` of ``train.num_gpus=2``, and by TAO's options."""
    found = [match[1].lstrip("+~-") for match in map(_KEY.fullmatch, words[1:]) if match]
    return (
        found
        + [word.lstrip("-") for word in words if word.startswith("--")]
        + [key for word, key in (("-r", "results_dir"), ("-k", "encryption_key")) if word in words]
    )


def judge(
    command: Sequence[str],
    *,
    mounts: Mapping[str, str],
    variables: Mapping[str, str],
    exists: Callable[[str], bool],
    link: Callable[[str], str | None] = lambda path: None,
    names: Callable[[str], Sequence[str]] = lambda path: (),
    matches: Callable[[str], Sequence[str]] = lambda pattern: (),
    environ: Mapping[str, str] | None = None,
    folder: str = "",
    secrets: Collection[str] = (),
    plain: bool = True,
    run: Sequence[str] = (),
) -> list[Finding]:
    """Judge a launcher's words (``parse_launcher_argv``, from ``tao`` on) before it is started.

    ``mounts`` is destination by source, as ``mapping.mounts`` gives it; ``variables`` are the profile's, ``environ``
    what else the launcher's shell knows; ``exists``, ``link``, ``names`` and ``matches`` tell of this host (see
    ``Places``; ``matches`` gives the files that a glob matches in ``folder``, the current one). ``plain``: the words go
    to ``tao`` as they are; false for ``taoprof run``, which spells them so that they arrive (``quote_word``).
    ``run``: the words of ``taoprof run NAME --`` that hints put in front, where the profile was named.
    """
    known = {**(environ or {}), **variables}
    hidden = {name for name in known if name in secrets or is_secret(name)}
    # What has a '/' in the environment is the path of a socket or a file of keys: no secret, and part of other paths.
    values = {known[name] for name in hidden if name in variables or "/" not in known[name]}
    judged = _Words(command, Places(add_volumes(command, mounts), exists, link, names), known, folder)
    judged.run = list(run)
    judged.hide(hidden, sorted((value for value in values if len(value) >= MASKED), key=len, reverse=True))
    if plain:
        judged.quoting(matches)
    judged.paths((environ or {}).get("HOME", ""))
    return judged.findings


class _Words:
    def __init__(self, command: Sequence[str], places: Places, known: Mapping[str, str], folder: str) -> None:
        self._command, self._places, self._known, self._folder = list(command), places, known, folder
        self._shown, self._secrets = known, list[str]()
        self.run: list[str] = []
        self._final: dict[int, str] = {}
        self._arrive = list(command)
        self._better: dict[int, str] = {}
        self._is_plain = False
        self.findings: list[Finding] = []

    def hide(self, names: Collection[str], values: list[str]) -> None:
        """Put nothing for variables of these names, and tell none of these values."""
        self._shown = {name: value for name, value in self._known.items() if name not in names}
        self._secrets = values

    def quoting(self, matches: Callable[[str], Sequence[str]]) -> None:
        """Find the words that the launcher's shell changes; what arrives of the others is what is looked at later."""
        self._is_plain = True
        open_words: list[Finding] = []
        for number, key, _ in _valued(self._command):
            word = self._command[number]
            if key == VOLUME:
                continue
            made = split_like_bash(word, self._known, matches)
            if made is not None and len(made) == 1 and not _is_secret(key):
                self._arrive[number] = made[0]
            meant = expand_variables(word, self._known)
            is_home = made == [self._known.get("HOME", "") + word[1:]] and word.startswith("~/")
            is_spelt = made is not None and len(made) == 1 and word == quote_word(made[0])
            if made == [meant] or is_home or is_spelt or self._unset(word):
                continue
            told = "changes the value" if _is_secret(key) else _told(word, made)
            why = "the launcher pastes its words into 'bash -c' without quotes"
            way = "'taoprof run NAME -- …' gives words as they are"
            secret = _is_secret(key)
            if not secret and not self.run:  # taoprof run spells the words itself
                self._final[number] = quote_word(word)
            hint = way if secret else f"write {shlex.quote(quote_word(word))}; or {way}"
            self._add("arg-needs-quoting", Argument(number, key, word), f"the launcher's shell {told}", why, hint)
            open_words += [] if secret else self.findings[-1:]
        for finding in open_words:
            finding.hint = self._whole() or finding.hint

    def paths(self, home: str) -> None:
        """Find what is wrong with the paths."""
        wrong: list[tuple[Argument, Verdict]] = []
        lost = set()
        for number, key, word in _valued(self._command):
            unset = self._unset(word)
            if unset:
                lost.add(number)
                self._add("arg-empty-variable", Argument(number, key, word), f"{unset} is not set", *_UNSET)
        for argument in arguments(self._arrive):
            path = expand_variables(argument.value, self._shown)
            if argument.number in lost:
                continue
            if path.startswith("~") and home:
                path = home + path[1:]
            elif not path.startswith("/"):
                continue
            verdict = self._places.about(path)
            if verdict.kind in ("unmapped", "here") and _AT_ROOT.match(path):
                what = f"'{path}' is in the root folder: a variable in front of it was probably empty"
                self._add("arg-empty-variable", argument, what, *_UNSET)
            elif verdict.kind in ("host", "hidden"):
                wrong.append((argument, verdict))
                self._replace(argument, verdict.place)
            else:
                self._judge(argument, path, verdict)
        wrong += self._relative()
        for argument, verdict in wrong:
            what = f"'{argument.value}' is a path of this host, and the task looks inside the container"
            why = f"there it is '{verdict.place}'" if verdict.place else "another mount lies over its place there"
            hint = (
                self._corrected(argument, verdict.place) if verdict.place else "mount that folder on a place of its own"
            )
            self._add("arg-host-path", argument, what, why, hint)

    def _relative(self) -> Iterator[tuple[Argument, Verdict]]:
        """Spec files and results named relative to the current folder: inside, that is the image's own one."""
        for number, key, value in _valued(self._arrive):
            path = os.path.join(self._folder, value)
            is_results = key in _RESULTS_OPTIONS
            if (key in SPEC_OPTIONS or is_results) and self._folder and value[:1] not in ("", "/", "~", "$", "-"):
                verdict = self._places.about(path)
                if verdict.kind == "host" and (is_results or self._places.exists(path)):
                    argument = Argument(number, key, value)
                    self._replace(argument, verdict.place)
                    yield argument, verdict

    def _judge(self, argument: Argument, path: str, verdict: Verdict) -> None:
        does = "write" if path.endswith(_ENGINES) else role(argument.key)
        if verdict.kind in ("unmapped", "here") or (
            verdict.kind == "image" and does == "write" and not _is_passing(path)
        ):
            here = "is there on this host, but " if verdict.kind == "here" else ""
            what = f"'{path}' {here}is in no mount"
            why = {
                "write": "what a task writes there is gone with the container",
                "read": "the task finds it only if the image has it",
            }.get(does, "the image may have it; what is written there is gone with the container")
            self._add("arg-unmapped-path", argument, what, why, self._places.mounted())
        elif verdict.kind == "leads-out" and does != "write":
            what = f"'{path}' is a link to '{verdict.place}', which no mount has"
            why = "a link is followed inside the container, where only mounted folders are"
            hint = f"mount '{verdict.place}' on '{verdict.place}', or move the files into the mounted folder"
            self._add("arg-missing-file", argument, what, why, hint)
        elif verdict.kind == "missing" and does == "read":
            what = f"'{path}' is not there: it would be '{verdict.host}' on this host"
            self._add("arg-missing-file", argument, what, "", self._places.beside(verdict))

    def _unset(self, text: str) -> str:
        """Name a variable in the text that nobody sets, if it is spelt as TAO's are; Hydra's own are in lower case."""
        for found in VARIABLE.finditer(text):
            name = found[1] or found[2]
            is_ours = name == name.upper() != name.lower()
            if is_ours and name not in self._known and name not in SHELLS_OWN:
                return f"${name}"
        return ""

    def _replace(self, argument: Argument, place: str) -> None:
        """Put the container's path into the corrected command; what the shell made of the word stays made."""
        if place:
            number = argument.number
            word = self._better.get(number, self._command[number])
            word = word if argument.value in word else self._arrive[number]
            self._better[number] = word.replace(argument.value, place, 1)

    def _masked(self, text: str) -> str:
        for value in self._secrets:
            text = text.replace(value, MASK)
        return within(text)

    def _corrected(self, argument: Argument, place: str) -> str:
        return self._whole() or (
            f"{argument.key}{' ' if argument.key.startswith('-') else '='}{place}" if argument.key else place
        )

    def _whole(self) -> str:
        """Give the command as it goes well; "" where that would show a secret, or fill the screen."""
        if len(self._command) > _WORDS_SHOWN:
            return ""
        words = [self._mended(number, word) for number, word in enumerate(self._command)]
        masked = zip(words, without_secrets(words, self._secrets), strict=True)
        if all(one == shown or VARIABLE.fullmatch(one.rpartition("=")[2]) for one, shown in masked):
            return shlex.join([*self.run, *words])
        return ""

    def _mended(self, number: int, word: str) -> str:
        if number not in self._better:
            return self._final.get(number, word)
        better = self._better[number]
        breaks = self._is_plain and not self.run and split_like_bash(better, self._known) != [better]
        return quote_word(better) if breaks else better

    def _add(self, id: str, argument: Argument, what: str, why: str = "", hint: str = "") -> None:
        self.findings.append(Finding(id, argument.where, self._masked(what), why, self._masked(hint)))


_UNSET = (
    "what a notebook or another shell sets is not known here, and an unset variable becomes nothing; "
    "a shell of the profile has them",
    "taoprof shell NAME",
)


def _told(word: str, made: Sequence[str] | None) -> str:
    if made is not None:
        if not made:
            return "makes nothing of the empty word" if not word else f"makes nothing of '{word}'"
        count = "" if len(made) == 1 else f"{len(made)} words "
        return f"makes {count}" + ", ".join(f"'{one}'" for one in made[:5]) + f" of '{word}'"
    for marks, what in _BROKEN:
        if any(mark in word for mark in marks):
            return what.format(word)
    return f"expands '{word}' to something else"


_BROKEN = (
    ("'", "ends its own quotes at the single quote in '{}'"),
    (("`", "$("), "runs a part of '{}' as a command of this host"),
    (";&|\n", "ends the command inside of '{}', and runs the rest as a command of this host"),
    (">", "writes the output to a file of this host for '{}'"),
    ("<", "reads a file of this host for '{}'"),
    ("()", "finds a syntax error in '{}'"),
    ("#", "takes all from the '#' of '{}' on for a comment"),
    ('"', "finds no end of the quotes in '{}'"),
    ("{", "expands the braces of '{}' to several words"),
    ("\\", "takes the backslash of '{}' for its own"),
)
"""What stands in a word, and what bash does about it; the first that is there is told."""


def _is_passing(path: str) -> bool:
    return path.startswith(("/tmp/", "/dev/", "/proc/")) or path == "/tmp"  # noqa: S108 - a path of the container


def _is_secret(key: str) -> bool:
    return key == "-k" or is_secret(key.lstrip("-").rpartition(".")[2])


def _valued(words: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Give each word behind ``tao`` as (its number, the option or key that it is the value of, the value)."""
    before = ""
    for number, word in enumerate(words[1:], 1):
        found = _JOINED.fullmatch(word) or _KEY.fullmatch(word)
        yield (number, found[1], found[2]) if found else (number, before, word)
        before = word if word.startswith("-") and found is None else ""


def _values(text: str, depth: int) -> Iterator[str]:
    text = text.strip()
    if depth > _NESTING:
        return
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        yield from _values(text[1:-1], depth + 1)
    elif text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        for part in _parts(text[1:-1]):
            item = _ITEM.match(part)
            if item is None or not is_secret(item.group()):
                yield from _values(part[item.end() :] if item else part, depth + 1)
    elif text.startswith("file:///"):
        yield text[7:]
    elif text.startswith(("/", "~/", "$")):
        yield text


def _parts(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for place, c in enumerate(text):
        depth += (c in "[{") - (c in "]}")
        if c == "," and depth <= 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]
