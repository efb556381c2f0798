"""Strings that record where each piece of them came from, so that a profile can refer to a variable.

A ``TracedStr`` is an ordinary string: every result is right even where the origins are lost.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

SEGMENTS_LIMIT = 1000
"""Segments of one string. A path has two or three."""


class Exhausted(Exception):
    """A limit is exceeded: the cell is not followed any further."""


class Segment(NamedTuple):
    """A piece of text and its origin: ``kind`` is "" (a literal), variable, env, home, folder, name, uid or gid.

    ``name`` and ``version`` identify one value of a variable, which may have been set again since.
    """

    text: str
    kind: str = ""
    name: str = ""
    version: int = 0


class TracedStr(str):
    """A string with its segments, which joined are the string."""

    __slots__ = ("segments",)
    segments: tuple[Segment, ...]

    def __new__(cls, segments: Iterable[Segment]) -> Self:
        """Join the segments; neighbouring literals become one. Raises Exhausted for too many."""
        merged: list[Segment] = []
        for segment in segments:
            if not segment.text:
                continue
            if merged and not segment.kind and not merged[-1].kind:
                merged[-1] = Segment(merged[-1].text + segment.text)
            else:
                merged.append(segment)
        if len(merged) > SEGMENTS_LIMIT:
            raise Exhausted
        instance = super().__new__(cls, "".join(segment.text for segment in merged))
        instance.segments = tuple(merged)
        return instance


def segments(text: str) -> tuple[Segment, ...]:
    """Return the segments of any string."""
    return text.segments if isinstance(text, TracedStr) else (Segment(text),)


def concat(*texts: str) -> TracedStr:
    """Return the concatenation of texts."""
    return TracedStr(segment for text in texts for segment in segments(text))


def cut(text: str, start: int, end: int) -> TracedStr:
    """Return ``text[start:end]``, for ``0 <= start <= end``; a segment that is cut becomes a literal."""
    result = []
    position = 0
    for segment in segments(text):
        here = segment.text[max(start - position, 0) : max(end - position, 0)]
        result.append(segment if here == segment.text else Segment(here))
        position += len(segment.text)
    return TracedStr(result)


def replace(text: str, old: str, new: str) -> TracedStr:
    """Return ``text.replace(old, new)``, for an ``old`` that is not empty."""
    pieces: list[str] = []
    position = 0
    while (result := text.find(old, position)) >= 0:
        pieces += [cut(text, position, result), new]
        position = result + len(old)
    return concat(*pieces, cut(text, position, len(text)))


def split(text: str, separator: str | None, limit: int = -1) -> list[str]:
    """Return ``text.split(separator, limit)``."""
    pieces: list[str] = []
    position = 0
    for piece in text.split(separator, limit):
        position = text.index(piece, position)
        pieces.append(cut(text, position, position + len(piece)))
        position += len(piece) + (len(separator) if separator else 0)
    return pieces


def strip(text: str, characters: str | None, *, left: bool = True, right: bool = True) -> TracedStr:
    """Return ``text.strip(characters)``, or of one side only."""
    start = len(text) - len(text.lstrip(characters)) if left else 0
    end = len(text.rstrip(characters)) if right else len(text)
    return cut(text, start, max(start, end))


def join_path(*texts: str) -> TracedStr:
    """Return ``os.path.join(…)``."""
    path: str = texts[0]
    for text in texts[1:]:
        if text.startswith("/"):
            path = text
        else:
            path = concat(path, text) if not path or path.endswith("/") else concat(path, "/", text)
    return concat(path)


def normal_path(text: str) -> TracedStr:
    """Return ``os.path.normpath(text)``; a path that is normal already keeps its segments."""
    normal = posixpath.normpath(text)
    if normal == text.rstrip("/"):
        return cut(text, 0, len(normal))
    return concat(normal)


def pure_path(text: str) -> TracedStr:
    """Return ``str(pathlib.PurePosixPath(text))``."""
    root = "/" * (len(text) - len(text.lstrip("/")))
    root = root if len(root) <= 2 else "/"
    normal = root + "/".join(name for name in text.split("/") if name not in ("", ".")) or "."
    return cut(text, 0, len(normal)) if text.startswith(normal) else concat(normal)


def split_path(text: str) -> tuple[TracedStr, TracedStr]:
    """Return ``os.path.split(text)``."""
    head, tail = posixpath.split(text)
    return cut(text, 0, len(head)), cut(text, len(text) - len(tail), len(text))


def expand_home(text: str, home: str) -> TracedStr:
    """Return ``os.path.expanduser(text)`` for the user's own home."""
    if text == "~" or text.startswith("~/"):
        return concat(home.rstrip("/"), cut(text, 1, len(text))) or concat("/")
    return concat(text)
