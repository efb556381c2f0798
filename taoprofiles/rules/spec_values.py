"""The text values of a spec file with their lines: YAML, JSON, TOML and protobuf text.

No schema is needed, and a broken YAML gives the values before the fault. YAML is read as events, which keep the line
marks and are not nested, so that depth costs nothing; there is no parser for protobuf text without its schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple


class SpecValue(NamedTuple):
    """A text value: its line, the keys above it from the outermost one on, as far as they are known, and the text."""

    line: int
    keys: tuple[str, ...]
    value: str

    @property
    def key(self) -> str:
        """The nearest key."""
        return self.keys[-1] if self.keys else ""


class SyntaxFault(NamedTuple):
    """Why a file cannot be parsed, with the line."""

    line: int
    message: str


def read_values(text: str, form: str) -> tuple[list[SpecValue], SyntaxFault | None]:
    """Return the values of a "yaml", "json", "toml" or "prototxt" text, and why it cannot be parsed, if so."""
    if form == "prototxt":
        return list(_prototxt_values(text)), _prototxt_fault(text)
    if form == "toml":
        return _toml_values(text)
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
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.CollectionEndEvent):
                collections.pop()
            elif isinstance(event, yaml.NodeEvent):
                parent = collections[-1] if collections else _Collection((), is_mapping=False)
                is_key = parent.is_mapping and not parent.has_key
                parent.has_key = is_key
                if isinstance(event, yaml.CollectionStartEvent):
                    collections.append(_Collection(parent.keys, isinstance(event, yaml.MappingStartEvent)))
                elif isinstance(event, yaml.ScalarEvent) and is_key:
                    parent.keys = (*parent.above, event.value)
                elif isinstance(event, yaml.ScalarEvent) and event.value:
                    is_block = event.style in ("|", ">")  # whose text begins on the next line
                    value = event.value.strip() if is_block else event.value
                    mark: Any = event.start_mark
                    values.append(SpecValue(mark.line + 1 + is_block, parent.keys, value))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return values, SyntaxFault(mark.line + 1 if mark else 1, error.problem or "it cannot be parsed")
    except yaml.YAMLError:  # a character that YAML does not allow
        match = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, match.start()) + 1 if match else 1
        return values, SyntaxFault(line, "it contains a control character")
    return values, None


class _Collection:
    """An open mapping or sequence: the keys ``above`` it, those of the next value, and whether that has its key."""

    def __init__(self, above: tuple[str, ...], is_mapping: bool) -> None:
        self.above = self.keys = above
        self.is_mapping, self.has_key = is_mapping, False


_NEAR = 20_000
"""Characters within which the next value of a TOML text is looked for."""


def _toml_values(text: str) -> tuple[list[SpecValue], SyntaxFault | None]:
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, position = str(error).partition(" (at ")
        match = re.match(r"line (\d+)", position)
        return [], SyntaxFault(int(match[1]) if match else text.count("\n") + 1, message.lower())
    except RecursionError:
        return [], None
    values: list[SpecValue] = []
    line, counted, at = 1, 0, -1
    nodes: list[tuple[tuple[str, ...], Any]] = [((), data)]
    while nodes:
        keys, value = nodes.pop()
        if isinstance(value, dict):
            nodes += [((*keys, name), inner) for name, inner in reversed(value.items())]
        elif isinstance(value, list):
            nodes += [(keys, inner) for inner in reversed(value)]
        elif isinstance(value, str):
            # tomllib has no positions: a value that is written in another way counts to the line of the one before it.
            written = (json.dumps(value, ensure_ascii=False), f"'{value}'")
            at = _find_next(text, written, at)
            line += text.count("\n", counted, max(at, 0))
            counted = max(at, 0)
            values.append(SpecValue(line, keys, value))
    return values, None


def _find_next(text: str, forms: tuple[str, ...], at: int) -> int:
    """Return the first position of one of the ``forms`` behind ``at``, or ``at`` if there is none nearby."""
    positions = (text.find(form, at + 1, at + _NEAR) for form in forms)
    return min((position for position in positions if position >= 0), default=at)


_TOKEN = re.compile(r"""#[^\n]*+|(?P<string>"(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?)|\n|(?P<plain>[^#"'\n]++)""")
_LAST_WORD = re.compile(r"([\w.-]+)\s*:?[\s\[{(]*\Z")


def _prototxt_values(text: str) -> Iterator[SpecValue]:
    """Read protobuf text, in which every text value is quoted."""
    line, key = 1, ""
    for token in _TOKEN.finditer(text):
        string, plain = token["string"], token["plain"]
        if string and len(string) > 1 and string[-1] == string[0]:
            # The numeric escapes are bytes of UTF-8.
            value = _ESCAPE.sub(lambda match: _SIMPLE.get(match[1], match[1]), _BYTES.sub(_decode, string[1:-1]))
            yield SpecValue(line, (key,) if key else (), value)
        elif plain and (word := _LAST_WORD.search(plain[-200:])):
            key = word[1].rpartition(".")[2]
        line += token.group().count("\n")


def _prototxt_fault(text: str) -> SyntaxFault | None:
    """Return the first quote or brace that does not match another one: what a reader can tell without the schema."""
    line, opened = 1, []
    for token in _TOKEN.finditer(text):
        string = token["string"]
        if string and (len(string) == 1 or string[-1] != string[0]):
            return SyntaxFault(line, "a quote is not closed on this line")
        for brace in re.findall("[{}]", token["plain"] or ""):
            if brace == "{":
                opened.append(line)
            elif not opened:
                return SyntaxFault(line, "this '}' closes nothing")
            else:
                opened.pop()
        line += token.group().count("\n")
    return SyntaxFault(opened[-1], "this '{' is not closed") if opened else None


_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(.)", re.S)
_BYTES = re.compile(r"((?:\\[0-3][0-7]{2}|\\x[0-9a-fA-F]{2})+)")


def _decode(match: re.Match[str]) -> str:
    codes = re.findall(r"\\(?:x(..)|(...))", match[1])
    return bytes(int(x, 16) if x else int(octal, 8) for x, octal in codes).decode("utf-8", "replace")
