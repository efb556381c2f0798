"""Reading the values of a spec file from its text: YAML, protobuf text, JSON and TOML, broken ones too.

No parser: those lose the line numbers, give up at the first fault, and there is none for protobuf text without its
schema. What is read is which texts stand there as values, on which line and under which key.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Written(NamedTuple):
    """A text that stands as a value: on which line, in which part of the file (its outermost key), under which key."""

    line: int
    section: str
    key: str
    value: str


def scan(text: str, form: str) -> Iterator[Written]:
    """Give the values of a ``yaml``, ``prototxt``, ``json`` or ``toml`` text; in time that grows with its length."""
    return _Yaml(text).values() if form == "yaml" else _quoted(text, form)


_ONE_LINE = r'"(?:[^"\\\n]|\\.)*+"?'
_SINGLE = r"'(?:[^'\\\n]|\\.)*+'?"
_TOKENS = {
    "json": re.compile(
        rf"(?P<string>{_ONE_LINE})|(?P<line>\n)|(?P<open>[{{\[])|(?P<close>[}}\]])|(?P<more>[^\"\n{{}}\[\]]++)"
    ),
    "prototxt": re.compile(
        rf"(?P<comment>#[^\n]*+)|(?P<string>{_ONE_LINE}|{_SINGLE})|(?P<line>\n)|(?P<more>[^#\"'\n]++)"
    ),
    "toml": re.compile(
        r"(?P<comment>#[^\n]*+)|(?P<string>\"\"\"(?:[^\"\\]|\\.|\"(?!\"\"))*+(?:\"\"\"|\Z)|'''(?:[^']|'(?!''))*+(?:'''|\Z)"
        rf"|{_ONE_LINE}|'[^'\n]*+'?)|(?P<line>\n)|(?P<more>[^#\"'\n]++)",
        re.S,
    ),
}  # fmt: skip
_LAST_WORD = re.compile(r"([\w.-]+)\s*[:=]?[\s\[{(]*\Z")
_IS_KEY = {"json": re.compile(r"\s*+:"), "toml": re.compile(r"[ \t]*+[=.\]]"), "prototxt": re.compile(r"(?!)")}
_TABLE = re.compile(r"\s*\[{1,2}\s*([\w-]+)")


def _quoted(text: str, form: str) -> Iterator[Written]:
    """JSON, protobuf text and TOML, where every text is quoted."""
    line, depth, section, key = 1, 0, "", ""
    fresh = True  # at the beginning of a line
    for token in _TOKENS[form].finditer(text):
        kind, part = token.lastgroup, token.group()
        if kind == "line":
            line, fresh = line + 1, True
            continue
        if kind in ("open", "close"):
            depth += 1 if kind == "open" else -1
        elif kind == "string":
            value = _unquoted(part, form)
            if _IS_KEY[form].match(text, token.end()):
                key = value
                section = value if form == "json" and depth == 1 else section
            elif len(part) > 1 and part[-1] == part[0]:
                yield Written(line, section, key, value)
            line += part.count("\n")
        elif kind == "more":
            table = _TABLE.match(part) if form == "toml" and fresh else None
            word = _LAST_WORD.search(part[-200:])
            section = table[1] if table else section
            key = word[1].rpartition(".")[2] if word and not table else key
        fresh = False


_YAML_DOUBLE = re.compile(r'"((?:[^"\\]|\\.){0,8192}+)"', re.S)
_YAML_SINGLE = re.compile(r"'((?:[^']|''){0,8192}+)'")
_YAML_BLOCK = re.compile(r"(?:[^\s:#]|:(?!\s|\Z)|(?<!\s)#|[ \t]++(?![#\s]|\Z))++")
_YAML_FLOW = re.compile(r"(?:[^\s:#,\[\]{}]|:(?![\s,\[\]{}]|\Z)|(?<!\s)#|[ \t]++(?![#\s,\[\]{}]|\Z))++")
_YAML_SKIPPED = re.compile(
    r"[ \t\r]++|[-?](?=\s|\Z)|[&!][^\s,\[\]{}]*+|[|>][+\-0-9]*+(?=[ \t]*+(?:#|\n|\Z))|:(?=\s|\Z)|,"
)
_YAML_COMMENT = re.compile(r"#[^\n]*+")
_YAML_IS_KEY = re.compile(r"[ \t]*+:(?=[\s,\[\]{}]|\Z)")
_YAML_NEXT = re.compile(r"[ \t]*+\n((?:[ \t]*+\n)*+)([ ]*+)(?=[^\s#])")
_YAML_BREAK = re.compile(r"[ \t]*+\n\s*+")


class _Yaml:
    def __init__(self, text: str) -> None:
        self._text, self._place, self._line = text, 0, 1
        self._line_start = 0
        self._section = self._key = ""
        self._depth = 0

    def values(self) -> Iterator[Written]:
        text = self._text
        while self._place < len(text):
            c = text[self._place]
            if c == "\n":
                self._pass(self._place + 1)
            elif c == "#" and (self._place == self._line_start or text[self._place - 1] in " \t"):
                self._pass(_end(_YAML_COMMENT.match(text, self._place), self._place))
            elif c in "[{":
                self._depth += 1
                self._pass(self._place + 1)
            elif c in "]}":
                self._depth = max(0, self._depth - 1)
                self._pass(self._place + 1)
            elif skipped := _YAML_SKIPPED.match(text, self._place):
                self._pass(skipped.end())
            else:
                yield from self._scalar(c)

    def _scalar(self, c: str) -> Iterator[Written]:
        start, line = self._place, self._line
        quoted = {'"': _YAML_DOUBLE, "'": _YAML_SINGLE}.get(c)
        found = quoted.match(self._text, start) if quoted else None
        if quoted and found is None:  # no end of it: what follows on this line is not known
            end = self._text.find("\n", start)
            self._pass(len(self._text) if end < 0 else end)
            return
        if found is not None:
            value = _yaml_double(found[1]) if c == '"' else _folded(found[1].replace("''", "'"))
        else:
            found = (_YAML_FLOW if self._depth else _YAML_BLOCK).match(self._text, start)
            value = found.group() if found else ""
        end = _end(found, start + 1)
        if _YAML_IS_KEY.match(self._text, end):
            if start == self._line_start and (found is None or not self._depth or value.isidentifier()):
                self._section, self._depth = value, 0  # what stands at the margin ends every bracket before it
            elif self._depth == 1 and not self._section:
                self._section = value
            self._key = value
            self._pass(end)
            return
        if not quoted and value.startswith("/"):
            value, end = self._continued(value, end)
        self._pass(end)
        yield Written(line, self._section, self._key, value)

    def _continued(self, value: str, end: int) -> tuple[str, int]:
        """Give a text without quotes with the lines that go on with it: those further in, or within the brackets."""
        plain = _YAML_FLOW if self._depth else _YAML_BLOCK
        line = self._text[self._line_start : self._place]
        margin = -1 if self._depth else len(line) - len(line.lstrip(" "))
        while following := _YAML_NEXT.match(self._text, end):
            more = plain.match(self._text, following.end())
            if len(following[2]) <= margin or more is None or _YAML_IS_KEY.match(self._text, more.end()):
                break
            if following[1] or more.group().startswith(("- ", "/")) or len(value) > 4096:
                break
            value, end = f"{value} {more.group()}", more.end()
        return value, end

    def _pass(self, end: int) -> None:
        lines = self._text.count("\n", self._place, end)
        if lines:
            self._line += lines
            self._line_start = self._text.rfind("\n", self._place, end) + 1
        self._place = end


def _end(found: re.Match[str] | None, otherwise: int) -> int:
    return otherwise if found is None else found.end()


def _folded(text: str) -> str:
    return _YAML_BREAK.sub(lambda found: "\n" * (found[0].count("\n") - 1) or " ", text) if "\n" in text else text


_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b",
           "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"}  # fmt: skip
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(\n[ \t]*)|(.))", re.S)
_OCTAL = re.compile(r"((?:\\[0-3][0-7]{2}|\\x[0-9a-fA-F]{2})+)")


def _yaml_double(text: str) -> str:
    # A break is folded before the escapes are read, which may give one of their own.
    parts = re.split(r"(\\(?:\n[ \t]*+|.))", text, flags=re.S) if "\n" in text else [text]
    return _unescaped("".join(part if part.startswith("\\") else _folded(part) for part in parts))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    if digits:
        return chr(int(digits, 16)) if int(digits, 16) < 0x110000 else found[0]
    return "" if found[4] else _SIMPLE.get(found[5], found[5])


def _unquoted(part: str, form: str) -> str:
    triple = form == "toml" and len(part) > 5 and part[:3] in ('"""', "'''")
    inner = part[3:-3] if triple else part[1:-1]
    if triple and inner.startswith("\n"):
        inner = inner[1:]
    if form == "toml" and part[0] == "'":
        return inner
    if form == "prototxt" and "\\" in inner:
        inner = _OCTAL.sub(_bytes, inner)
    if form == "json" and "\\u" in inner:
        try:
            return str(json.loads(f'"{inner}"'))  # two escapes may be one character
        except ValueError:
            pass
    return _unescaped(inner)


def _bytes(found: re.Match[str]) -> str:
    codes = re.findall(r"\\(?:x(..)|(...))", found[1])
    return bytes(int(hexadecimal, 16) if hexadecimal else int(octal, 8) for hexadecimal, octal in codes).decode(
        "utf-8", "replace"
    )
