"""Expressions in a profile: ``${NAME}``, ``${env:NAME}``, ``~`` and ``$$``.

Variables may refer to each other in any order. The language is limited on purpose: it only joins texts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
VALUE_LIMIT = 1 << 16
"""Characters of one value; a few lines of doubling references could otherwise fill the memory."""
TOTAL_LIMIT = 1 << 20
"""Characters of all values of a profile together."""

_REFERENCE = re.compile(r"(env:)?([A-Za-z_][A-Za-z0-9_]*)\Z")
_PART = re.compile(r"\$(?:\$|\{([^{}$]*)\})|[^$]+|\$")


class ExpressionError(ValueError):
    """An expression that cannot be resolved. The message does not contain the value."""


def escape(value: str) -> str:
    """Return the expression whose value is ``value``; a leading ``~`` is not escaped."""
    return value.replace("$", "$$")


def references(expression: str) -> Iterator[tuple[str, str]]:
    """Yield each reference as ("variable" or "env", name).

    Raises ExpressionError for a malformed one, without quoting it: it may be a part of a password.
    """
    for part in _PART.finditer(expression):
        inner = part.group(1)
        if inner is not None:
            reference = _REFERENCE.match(inner)
            if reference is None:
                raise ExpressionError(f"no reference at character {part.start() + 1}: write ${{NAME}} or ${{env:NAME}}")
            yield ("env" if reference[1] else "variable", reference[2])
        elif part.group() == "$":
            where = f"at character {part.start() + 1}"
            raise ExpressionError(f"a lone '$' {where}: write ${{NAME}} for a variable, $$ for a dollar")


class Expander:
    """Resolves the expressions of one profile, each variable once, in any order of references."""

    def __init__(self, variables: Mapping[str, str], environ: Mapping[str, str], home: str) -> None:
        self._expressions = variables
        self._environ = environ
        self._home = home
        self._values: dict[str, str] = {}
        self._total = 0

    def text(self, expression: str, *, path: bool) -> str:
        """Return the value of an expression; in a ``path`` a leading ``~`` is the home. Raises ExpressionError."""
        return self._text(expression, (), path=path)

    def variable(self, name: str, chain: tuple[str, ...] = ()) -> str:
        """Return the value of a variable. Raises ExpressionError, which shows the chain of a circular reference.

        ``chain`` are the variables whose values are being worked out.
        """
        if name not in self._values:
            if name in chain:
                circle = " → ".join((*chain[chain.index(name) :], name))
                raise ExpressionError(f"the variables refer to each other in a circle: {circle}")
            if len(chain) > 100:
                raise ExpressionError("more than 100 variables refer to each other in a chain")
            if name not in self._expressions:
                by = f" ({' → '.join((*chain, name))})" if chain else ""
                raise ExpressionError(f"there is no variable '{name}'{by}")
            self._values[name] = self._text(self._expressions[name], (*chain, name), path=True)
        return self._values[name]

    def _text(self, expression: str, chain: tuple[str, ...], *, path: bool) -> str:
        for _ in references(expression):
            pass  # malformed references are reported first
        parts: list[str] = []
        length = 0
        rest = expression
        if path and (expression == "~" or expression.startswith("~/")):
            parts.append(self._home)
            length = len(self._home)
            rest = expression[1:]
        for match in _PART.finditer(rest):
            part = self._part(match.group(), match.group(1), chain)
            parts.append(part)
            length += len(part)
            if length > VALUE_LIMIT:
                raise ExpressionError(f"the value is longer than {VALUE_LIMIT} characters")
        self._total += length
        if self._total > TOTAL_LIMIT:
            raise ExpressionError(f"all values together are longer than {TOTAL_LIMIT} characters")
        value = "".join(parts)
        if "\0" in value or not _encodable(value):
            raise ExpressionError("the value has a NUL or is not valid text, so no program can be given it")
        return value

    def _part(self, text: str, inner: str | None, chain: tuple[str, ...]) -> str:
        if text == "$$":
            return "$"
        if inner is None:
            return text
        if inner.startswith("env:"):
            name = inner[4:]
            if name not in self._environ:
                raise ExpressionError(f"the environment has no '{name}' (${{env:{name}}}): export {name}=… first")
            return self._environ[name]
        return self.variable(inner, chain)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
