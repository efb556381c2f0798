"""The code cells of a notebook file, parsed into syntax trees with calls in place of IPython's own syntax.

IPython turns ``%magic`` and ``!command`` into calls before Python sees the cell (IPython/core/inputtransformer2.py,
9.x). Here they become calls of a name that no cell can have, with the number of the line magic as the argument.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import warnings
from typing import NamedTuple

from taoprofiles.errors import InvalidStateError

MAGIC = "_·"
"""The function whose call replaces a magic. Python allows ``·`` in a name, and no notebook uses it."""

NOTEBOOK_LIMIT = 1 << 26
"""Bytes. Notebooks carry their pictures; the largest of NVIDIA's has 3 MB."""
CELL_LIMIT = 1 << 17
"""Characters of one cell. The longest set-up cell seen has 5,000."""
CODE_LIMIT = 1 << 19
"""Characters of all cells."""
CELLS_LIMIT = 2000
_NESTING = 50
"""Brackets within each other. Python's parser gives up, or runs out of stack, at some hundreds."""

_ASSIGNED = re.compile(r"(\s*[A-Za-z_][\w.\[\]\"',\s]*=\s*)([%!])(?=[A-Za-z!\"'/~.$])")
_PROMPT = re.compile(r"^(>>>( |$)|\.\.\.( |$)|In \[\d+\]: | {3}\.\.\.+: ?)")
_RUN_PYTHON = frozenset(("time", "capture", "prun"))
"""Cell magics that run their cell, just as it would run without them."""
_RUNS_REST = re.compile(r"\A(\s*+)%(?:time|prun)\s++(?=[^\s-])")
"""A line magic that runs the rest of its line in the same way."""
_CAPTURED = re.compile(r"capture\s+(?:--\S+\s+)*[A-Za-z_]")


class Cell(NamedTuple):
    """A code cell: its number among all cells, as JupyterLab counts them from 1, and its text."""

    number: int
    source: str


class Code(NamedTuple):
    """The code cells of a file, and the language that they are written in."""

    cells: list[Cell]
    language: str = "python"


class Prepared(NamedTuple):
    """A parsed cell: its syntax tree, or its cell magic and the body of that."""

    tree: ast.Module
    cell_magic: str | None = None
    body: str = ""


class CellError(Exception):
    """A cell that is not valid Python or exceeds a limit. The arguments are a message and the line."""


def read(content: bytes, where: str) -> Code:
    """Return the code cells of a notebook of format 4. Raises InvalidStateError."""
    if not content.strip():
        raise InvalidStateError(f"'{where}' is empty")
    if len(content) >= NOTEBOOK_LIMIT:
        raise InvalidStateError(f"'{where}' is larger than {NOTEBOOK_LIMIT >> 20} MB, the limit for a notebook")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise InvalidStateError(f"'{where}' is not a notebook: it is not valid JSON") from None
    listed = notebook.get("cells") if isinstance(notebook, dict) else None
    if isinstance(notebook, dict) and isinstance(notebook.get("worksheets"), list):
        hint = f"jupyter nbconvert --to notebook --inplace {shlex.quote(where)}"
        raise InvalidStateError(f"'{where}' is a notebook of an old format (nbformat 3)", hint=hint)
    if not isinstance(listed, list):
        raise InvalidStateError(f"'{where}' is not a notebook: it has no list of cells")
    if len(listed) > CELLS_LIMIT:
        raise InvalidStateError(f"'{where}' has {len(listed)} cells; at most {CELLS_LIMIT} are read")
    cells = []
    for number, cell in enumerate(listed, 1):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            cells.append(Cell(number, _text(cell.get("source"))))
    if sum(len(cell.source) for cell in cells) > CODE_LIMIT:
        raise InvalidStateError(f"'{where}' has more than {CODE_LIMIT >> 10} KB of code")
    return Code(cells, _language(notebook.get("metadata")))


def _language(metadata: object) -> str:
    """Return the language of a notebook's kernel, "python" if it does not say."""
    for table, key in (("kernelspec", "language"), ("language_info", "name")):
        entry = metadata.get(table) if isinstance(metadata, dict) else None
        name = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(name, str) and name and "python" not in name.lower():
            return name
    return "python"


def script(content: bytes, where: str) -> Code:
    """Return a script as one cell, of number 0. Raises InvalidStateError."""
    try:
        return Code([Cell(0, content.decode("utf-8-sig"))])
    except UnicodeDecodeError:
        raise InvalidStateError(f"'{where}' is not a text file in UTF-8") from None


def _text(source: object) -> str:
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def prepare(source: str, magics: list[str]) -> Prepared:
    """Parse a cell into a syntax tree, and append its magics and commands to ``magics``. Raises CellError."""
    if len(source) > CELL_LIMIT:
        raise CellError(f"the cell has {len(source)} characters; at most {CELL_LIMIT} are read", 1)
    lines = [_PROMPT.sub("", line) for line in re.split(r"\r\n|\r|\n", source)]
    first = next((line for line in lines if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip())]
    lines = [line.removeprefix(indent) for line in lines]  # as IPython's leading_indent does
    if first.lstrip().startswith("%%"):
        at = next(number for number, line in enumerate(lines) if line.strip())
        magic = lines[at][2:].rstrip()
        if magic.partition(" ")[0] not in _RUN_PYTHON:
            return Prepared(ast.Module([], []), magic, "\n".join(lines[at + 1 :]))
        lines[at] = ""
        if _CAPTURED.match(magic):  # binds its name also when the cell fails
            magics.append(f"%{magic}")
            lines[at] = _call(len(magics) - 1)
            lines.append(lines[at])
    return Prepared(_tree(_plain(lines, magics), magics))


def _tree(text: str, magics: list[str]) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in the user's strings
            tree = ast.parse(text)
            compile(text, "<unknown>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)  # such as a 'return'
            return tree
    except SyntaxError as error:
        if re.fullmatch(r"(env|set_env|cd)\s.*", text.strip()):  # automagic, which IPython has for cells of one line
            magics.append(text.strip())
            return ast.parse(_call(len(magics) - 1))
        raise CellError(f"not Python ({error.msg})", error.lineno or 1) from None
    except (ValueError, RecursionError, MemoryError):  # a NUL; too deep for the parser
        raise CellError("not Python, or nested too deeply", 1) from None


def _call(number: int) -> str:
    return f"{MAGIC}({number})"


def magic_number(node: ast.AST) -> int | None:
    """Return the number of the magic that a call replaces, None for any other node."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == MAGIC and node.args:
        number = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        return number if isinstance(number, int) else None
    return None


def _plain(lines: list[str], magics: list[str]) -> str:
    """Replace each magic and command by a call, and keep all line numbers."""
    result: list[str] = []
    scan = _Scan()
    number = 0
    while number < len(lines):
        if scan.between_statements:
            lines[number] = _RUNS_REST.sub(r"\1", lines[number])
        line = lines[number]
        stripped = line.lstrip()
        assigned = _ASSIGNED.match(line) if scan.between_statements else None
        if scan.between_statements and (stripped[:1] in ("%", "!", "?") or assigned):
            before = assigned.group(1) if assigned else line[: len(line) - len(stripped)]
            last = number
            while lines[last].endswith("\\") and last + 1 < len(lines):
                last += 1
            joined = " ".join([*(text[:-1] for text in lines[number:last]), lines[last]])
            magics.append(joined[len(before) :])
            result += [before + _call(len(magics) - 1), *[""] * (last - number)]
            number = last + 1
            continue
        if scan.between_statements and re.match(r"[\w.]+\?{1,2}\s*$", stripped):
            line = line[: len(line) - len(stripped)] + "pass"  # ``name?`` shows help in IPython
        scan.line(line, number + 1)
        result.append(line)
        number += 1
    return "\n".join(result) + "\n"


class _Scan:
    """Tracks strings, brackets and continuation lines, to know where a statement may begin."""

    def __init__(self) -> None:
        self._depth = 0
        self._quote = ""
        self._continued = False

    @property
    def between_statements(self) -> bool:
        return not (self._depth or self._quote or self._continued)

    def line(self, text: str, number: int) -> None:
        """Scan one line. Raises CellError for more than _NESTING nested brackets."""
        position = 0
        while match := (_ENDS[self._quote] if self._quote else _SYMBOL).search(text, position):
            symbol, position = match[0], match.end()
            if self._quote:
                self._quote = "" if symbol == self._quote else self._quote
            elif symbol[0] in "\"'":
                self._quote = symbol
            elif symbol == "#":
                break
            else:
                self._depth = max(0, self._depth + (1 if symbol in "([{" else -1))
                if self._depth > _NESTING:
                    raise CellError(f"more than {_NESTING} brackets within each other", number)
        self._continued = text.endswith("\\") and not (match and symbol == "#")
        if len(self._quote) == 1 and not self._continued:
            self._quote = ""  # the parser reports the unterminated string


_SYMBOL = re.compile(r"\"\"\"|\'\'\'|[\"'#()\[\]{}]")
_ENDS = {quote: re.compile(rf"\\.|{quote}", re.DOTALL) for quote in ("'", '"', "'''", '"""')}
