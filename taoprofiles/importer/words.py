"""A shell script taken apart into commands and their words, quotes and substitutions left as they are."""

from __future__ import annotations

import re
from typing import NamedTuple

from taoprofiles.importer.limits import DEPTH, Exhausted

_FUNCTION = re.compile(r"[ \t]*(?:function[ \t]+([\w-]+)[ \t]*(?:\([ \t]*\))?|([\w-]+)[ \t]*\([ \t]*\))\s*\{(?=\s)")
_HERE = re.compile(r"<<(-?)[ \t]*(\"[^\"\n]*\"|'[^'\n]*'|\\?[\w.]+)")


class Command(NamedTuple):
    """One simple command."""

    words: list[str]
    line: int
    target: str | None
    """The file that its output goes to, as a word."""
    here: str | None
    """The text of its here-document, and whether that is expanded."""
    expands: bool
    joined: str = ""
    """"&&" or "||" where it depends on the command before it."""


class Reader:
    """Takes a script apart into commands and their words, quotes and all.

    ``functions`` are those that it defines, with their commands; these are not among the others.
    """

    def __init__(self, script: str) -> None:
        self._text = script.replace("\r\n", "\n").replace("\\\n", "\0\0")  # a continued line is one
        self._at = 0
        self._line, self._counted = 1, 0
        self._end = ""
        self.functions: dict[str, list[Command]] = {}

    def commands(self) -> list[Command]:
        """Give every command, in order. Raises Exhausted for quotes nested beyond all need."""
        found: list[Command] = []
        while self._at < len(self._text):
            function = _FUNCTION.match(self._text, self._at) if self._end not in ("&&", "||") else None
            if function is None:
                found += self._one()
            else:
                self._at = function.end()
                self.functions[function[1] or function[2]] = self._body()
        return found

    def _body(self) -> list[Command]:
        """Give the commands up to the brace that closes a function."""
        found: list[Command] = []
        depth = 1
        while depth and self._at < len(self._text):
            found += self._one()
            depth += {"{": 1, "}": -1}.get(self._end, 0)
        return found

    def _one(self) -> list[Command]:
        text, joined = self._text, self._end if self._end in ("&&", "||") else ""
        self._end = ""
        words: list[str] = []
        target: str | None = None
        here: tuple[str, bool, bool] | None = None
        self._line += text.count("\n", self._counted, self._at) + text.count("\0\0", self._counted, self._at)
        line, self._counted = self._line, self._at
        while self._at < len(text):
            character = text[self._at]
            if character in " \t\0":
                self._at += 1
            elif character == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif character in "\n;|&(){}" and not (character in "{}" and text[self._at + 1 : self._at + 2].strip()):
                if character != "\n" and here is not None:
                    self._at += 1  # 'cat <<EOF | tee FILE': what comes behind belongs to it
                    words.append(character)
                    continue
                self._end = (
                    character * 2 if text.startswith(character * 2, self._at) and character in "&|" else character
                )
                self._at += len(self._end)
                break
            elif (match := _HERE.match(text, self._at)) is not None:
                word = match[2]
                here = (word.strip("\"'\\"), word[0] not in "\"'\\", bool(match[1]))
                self._at = match.end()
            elif character in "<>":
                is_output = character == ">"
                self._at += 1
                while text[self._at : self._at + 1] in (">", "|", "&", " ", "\t"):
                    self._at += 1
                file = self._word()
                target = file if is_output and (not words or words[-1] != "2") else target
            else:
                words.append(self._word())
        if here is None:
            return [Command(words, line, target, None, False, joined)] if words or target else []
        body = self._here_document(here[0], strip_tabs=here[2])
        if "tee" in words:
            target = next((word for word in words[words.index("tee") + 1 :] if not word.startswith("-")), target)
        return [Command(words, line, target, body, here[1], joined)]

    def _here_document(self, end: str, *, strip_tabs: bool) -> str:
        lines: list[str] = []
        while self._at < len(self._text):
            stop = self._text.find("\n", self._at)
            stop = len(self._text) if stop < 0 else stop
            line = self._text[self._at : stop]
            self._at = stop + 1
            if (line.lstrip("\t") if strip_tabs else line) == end:
                break
            lines.append(line.lstrip("\t") if strip_tabs else line)
        return "\n".join(lines).replace("\0\0", "\\\n")

    def _word(self) -> str:
        """Read one word, its quotes and substitutions left as they are."""
        text, start = self._text, self._at
        stack: list[str] = []
        while self._at < len(text):
            character = text[self._at]
            if stack and stack[-1] == "'":
                if character == "'":
                    stack.pop()
            elif character == "\\":
                self._at += 1
            elif stack and character == stack[-1]:
                stack.pop()
            elif character in '"`' or (character == "'" and '"' not in stack):
                stack.append(character)
            elif text.startswith(("$(", "${"), self._at):
                stack.append(")" if text[self._at + 1] == "(" else "}")
                self._at += 1
            elif not stack and character in " \t\n;|&()<>\0":
                break
            self._at += 1
            if len(stack) > DEPTH:
                raise Exhausted
        if self._at == start:
            self._at += 1
        return text[start : self._at].replace("\0\0", "")
