"""Text that knows where each piece of it came from, so that a profile can refer to a variable instead of repeating it.

A ``Text`` is an ordinary string, so that what is worked out with it is always right; its ``parts`` are only ever a
better way to write the same.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.importer.limits import PARTS, Exhausted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self


class Part(NamedTuple):
    """A piece of text, and what it is: ``kind`` is "" (just text), variable, env, home, folder, uid or gid.

    ``name`` and ``version`` say which value of which variable: it may have been set again since.
    """

    text: str
    kind: str = ""
    name: str = ""
    version: int = 0


class Text(str):
    """A string with its parts, which joined are the string."""

    __slots__ = ("parts",)
    parts: tuple[Part, ...]

    def __new__(cls, parts: Iterable[Part]) -> Self:
        """Join the parts; pieces of plain text that meet become one. Raises Exhausted for too many."""
        kept: list[Part] = []
        for part in parts:
            if not part.text:
                continue
            if kept and not part.kind and not kept[-1].kind:
                kept[-1] = Part(kept[-1].text + part.text)
            else:
                kept.append(part)
        if len(kept) > PARTS:
            raise Exhausted
        made = super().__new__(cls, "".join(part.text for part in kept))
        made.parts = tuple(kept)
        return made


def parts(text: str) -> tuple[Part, ...]:
    """Give the parts of any string."""
    return text.parts if isinstance(text, Text) else (Part(text),)


def concat(*texts: str) -> Text:
    """Put texts together."""
    return Text(part for text in texts for part in parts(text))


def cut(text: str, start: int, end: int) -> Text:
    """Give ``text[start:end]``, for ``0 <= start <= end``; a part that is cut through becomes plain text."""
    found = []
    at = 0
    for part in parts(text):
        here = part.text[max(start - at, 0) : max(end - at, 0)]
        found.append(part if here == part.text else Part(here))
        at += len(part.text)
    return Text(found)


def replace(text: str, old: str, new: str) -> Text:
    """Give ``text.replace(old, new)``, for an ``old`` that is not empty."""
    pieces: list[str] = []
    at = 0
    while (found := text.find(old, at)) >= 0:
        pieces += [cut(text, at, found), new]
        at = found + len(old)
    return concat(*pieces, cut(text, at, len(text)))


def split(text: str, separator: str | None, limit: int = -1) -> list[str]:
    """Give ``text.split(separator, limit)``."""
    pieces: list[str] = []
    at = 0
    for piece in text.split(separator, limit):
        at = text.index(piece, at)
        pieces.append(cut(text, at, at + len(piece)))
        at += len(piece) + (len(separator) if separator else 0)
    return pieces


def strip(text: str, characters: str | None, *, left: bool = True, right: bool = True) -> Text:
    """Give ``text.strip(characters)``, or of one side alone."""
    start = len(text) - len(text.lstrip(characters)) if left else 0
    end = len(text.rstrip(characters)) if right else len(text)
    return cut(text, start, max(start, end))


def join_path(*texts: str) -> Text:
    """Give ``os.path.join(…)``."""
    path: str = texts[0]
    for text in texts[1:]:
        if text.startswith("/"):
            path = text
        else:
            path = concat(path, text) if not path or path.endswith("/") else concat(path, "/", text)
    return concat(path)


def normal_path(text: str) -> Text:
    """Give ``os.path.normpath(text)``; what is normal already keeps its parts."""
    normal = posixpath.normpath(text)
    if normal == text.rstrip("/"):
        return cut(text, 0, len(normal))
    return concat(normal)


def pure_path(text: str) -> Text:
    """Give ``str(pathlib.PurePosixPath(text))``."""
    root = "/" * (len(text) - len(text.lstrip("/")))
    root = root if len(root) <= 2 else "/"
    normal = root + "/".join(name for name in text.split("/") if name not in ("", ".")) or "."
    return cut(text, 0, len(normal)) if text.startswith(normal) else concat(normal)


def split_path(text: str) -> tuple[Text, Text]:
    """Give ``os.path.split(text)``."""
    head, tail = posixpath.split(text)
    return cut(text, 0, len(head)), cut(text, len(text) - len(tail), len(text))


def expand_home(text: str, home: str) -> Text:
    """Give ``os.path.expanduser(text)`` for the person's own home; another's is left as it is."""
    if text == "~" or text.startswith("~/"):
        return concat(home.rstrip("/"), cut(text, 1, len(text))) or concat("/")
    return concat(text)


def variables(text: str) -> Iterator[tuple[str, int]]:
    """Give (name, version) of each variable that a text refers to."""
    for part in parts(text):
        if part.kind == "variable":
            yield part.name, part.version
