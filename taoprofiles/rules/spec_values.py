"""The text values of a spec file with their lines: YAML, JSON, TOML and protobuf text.

No schema is needed, and a broken file gives the values before the fault. YAML is read as events, which keep the line
marks and are not nested, so that depth costs nothing; there is no parser for protobuf text without its schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple


class SpecValue(NamedTuple):
    """A text value: its line, the outermost key above it, the nearest key, and the text."""

    line: int
    section: str
    key: str
    value: str


class SyntaxFault(NamedTuple):
    """Why a file cannot be parsed, with the line."""

    line: int
    message: str


def read_values(text: str, form: str) -> tuple[list[SpecValue], SyntaxFault | None]:
    """Return the values of a "yaml", "json", "toml" or "prototxt" text, and the fault of a YAML or JSON text."""
    if form in ("toml", "prototxt"):
        return list(_quoted_values(text, form)), None
    if form == "json":
        text = _SURROGATES.sub(lambda pair: json.loads(f'"{pair[0]}"'), text)  # which YAML has no escapes for
    values, fault = _yaml_values(text)
    return values, _json_fault(text) if form == "json" else fault


_SURROGATES = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")


def _json_fault(text: str) -> SyntaxFault | None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return SyntaxFault(error.lineno, error.msg.lower())
    except (ValueError, RecursionError):  # too many digits, or nested too deeply
        pass
    return None


def _yaml_values(text: str) -> tuple[list[SpecValue], SyntaxFault | None]:
    import yaml  # 30 ms

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    values: list[SpecValue] = []
    collections: list[_Collection] = []
    section = ""
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.CollectionEndEvent):
                collections.pop()
            elif isinstance(event, yaml.NodeEvent):
                parent = collections[-1] if collections else _Collection("", is_mapping=False)
                is_key = parent.is_mapping and not parent.has_key
                parent.has_key = is_key
                if isinstance(event, yaml.CollectionStartEvent):
                    collections.append(_Collection(parent.key, isinstance(event, yaml.MappingStartEvent)))
                elif isinstance(event, yaml.ScalarEvent) and is_key:
                    parent.key = event.value
                    section = event.value if len(collections) == 1 else section
                elif isinstance(event, yaml.ScalarEvent) and event.value:
                    is_block = event.style in ("|", ">")  # whose text begins on the next line
                    value = event.value.strip() if is_block else event.value
                    mark: Any = event.start_mark
                    values.append(SpecValue(mark.line + 1 + is_block, section, parent.key, value))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return values, SyntaxFault(mark.line + 1 if mark else 1, error.problem or "it cannot be parsed")
    except yaml.YAMLError:  # a character that YAML does not allow
        match = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, match.start()) + 1 if match else 1
        return values, SyntaxFault(line, "it contains a control character")
    return values, None


@dataclass(slots=True)
class _Collection:
    """An open mapping or sequence; ``has_key``: the next node is the value of ``key``."""

    key: str
    is_mapping: bool
    has_key: bool = False


_ONE_LINE = r'"(?:[^"\\\n]|\\.)*+"?'
_TOKENS = {
    "prototxt": re.compile(rf"""#[^\n]*+|(?P<string>{_ONE_LINE}|'(?:[^'\\\n]|\\.)*+'?)|\n|(?P<plain>[^#"'\n]++)"""),
    "toml": re.compile(
        r"""#[^\n]*+|(?P<string>\"{3}(?:[^"\\]|\\.|"(?!""))*+(?:\"{3}|\Z)|'{3}(?:[^']|'(?!''))*+(?:'{3}|\Z)"""
        rf"""|{_ONE_LINE}|'[^'\n]*+'?)|\n|(?P<plain>[^#"'\n]++)""",
        re.S,
    ),
}
_LAST_WORD = re.compile(r"([\w.-]+)\s*[:=]?[\s\[{(]*\Z")
_TOML_KEY_ENDS = re.compile(r"[ \t]*+[=.\]]")
_TOML_TABLE = re.compile(r"\s*\[{1,2}\s*([\w-]+)")


def _quoted_values(text: str, form: str) -> Iterator[SpecValue]:
    """Read TOML or protobuf text, in which every text value is quoted."""
    line, section, key = 1, "", ""
    for token in _TOKENS[form].finditer(text):
        string, plain = token["string"], token["plain"]
        if string:
            if form == "toml" and _TOML_KEY_ENDS.match(text, token.end()):
                key = _unquote(string, form)
            elif len(string) > 1 and string[-1] == string[0]:
                yield SpecValue(line, section, key, _unquote(string, form))
        elif plain:
            at_line_start = token.start() == 0 or text[token.start() - 1] == "\n"
            table = _TOML_TABLE.match(plain) if form == "toml" and at_line_start else None
            word = _LAST_WORD.search(plain[-200:])
            section = table[1] if table else section
            key = word[1].rpartition(".")[2] if word and not table else key
        line += token.group().count("\n")


_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(\n[ \t]*)|(.))", re.S)
_BYTES = re.compile(r"((?:\\[0-3][0-7]{2}|\\x[0-9a-fA-F]{2})+)")


def _unquote(string: str, form: str) -> str:
    is_triple = form == "toml" and len(string) > 5 and string[:3] in ('"""', "'''")
    inner = string[3:-3].removeprefix("\n") if is_triple else string[1:-1]
    if "\\" not in inner or (form == "toml" and string[0] == "'"):
        return inner
    if form == "prototxt":  # whose numeric escapes are bytes of UTF-8
        inner = _BYTES.sub(_decode, inner)
    return _ESCAPE.sub(_unescape, inner)


def _decode(match: re.Match[str]) -> str:
    codes = re.findall(r"\\(?:x(..)|(...))", match[1])
    return bytes(int(x, 16) if x else int(octal, 8) for x, octal in codes).decode("utf-8", "replace")


def _unescape(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits:
        return chr(int(digits, 16)) if int(digits, 16) < 0x110000 else match[0]
    return "" if match[4] else _SIMPLE.get(match[5], match[5])
