"""What IPython's magics make of their line, as far as a set-up needs: ``%env``, ``%cd``, and what they expand.

Read in IPython 9: ``env`` and ``set_env`` in core/magics/osm.py, ``DollarFormatter`` in utils/text.py, ``var_expand``
in core/interactiveshell.py. The tests compare with what IPython did with 58 spellings.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

from taoprofiles.importer.limits import Raised, Unknown
from taoprofiles.importer.provenance import Text, concat, cut, strip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_DOLLAR = re.compile(r"\$(\$?[\w.]+)")
_NOTHING = Text([])


def expand(line: str, evaluate: Callable[[str], Any]) -> str | Unknown:
    """Expand ``{expression}`` and ``$name`` from Python's variables; if any of them raises, the line stays as it is.

    ``evaluate`` gives the value of an expression as text. It raises Raised where the code would raise.
    """
    made: list[str] = []
    try:
        for literal, field, spec, conversion in _fields(line):
            made.append(literal)
            if field is None:
                continue
            value = evaluate(f"{field}:{spec}" if spec else field)
            if isinstance(value, Unknown):
                return value
            if conversion not in (None, "s"):
                value = repr(str(value)) if conversion in ("r", "a") else _fail()
            made.append(value)
    except (Raised, ValueError):  # ValueError: a brace that stands alone
        return line
    return concat(_NOTHING, *made)


def _fail() -> str:
    raise ValueError


def _fields(line: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    """Give each literal text with the field behind it; ``$name`` is a field where no lone ``'`` stands behind it."""
    for literal, field, spec, conversion in string.Formatter().parse(line):
        text, at = "", 0
        for match in _DOLLAR.finditer(literal):
            if literal.count("'", match.end()) % 2:  # as _dollar_pattern_ignore_single_quote looks ahead
                continue
            text += literal[at : match.start()]
            at = match.end()
            if match[1].startswith("$"):
                text += match[1]
                continue
            yield text, match[1], "", None
            text = ""
        yield text + literal[at:], field, spec, conversion


def assignment(rest: str) -> tuple[str, str] | None:
    """Read what stands behind ``%env``: (name, value), or None where it only asks. Raises Raised as IPython does."""
    separator = "=" if "=" in rest else " "
    if separator not in rest.strip() and separator == " ":
        return None
    at = rest.find(separator)
    name, value = strip(rest[:at], None), strip(cut(rest, at + 1, len(rest)), None)
    if re.match(r".*\s.*", name):
        raise Raised("UsageError", f"refusing to set env var with whitespace: '{value}'")
    return str(name), value
