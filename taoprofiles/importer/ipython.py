"""The code cells of a notebook, and IPython's magics and commands in them, as far as a set-up needs them.

IPython turns ``%magic`` and ``!command`` into calls before Python sees the cell (IPython/core/inputtransformer2.py,
9.x). Here they become calls of a name that no cell can have, with the number of the line magic as the argument.

Read in IPython 9: ``env`` and ``set_env`` in core/magics/osm.py, ``DollarFormatter`` in utils/text.py, ``var_expand``
in core/interactiveshell.py. The tests compare with what IPython did with 58 spellings.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import string
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import InvalidStateError
from taoprofiles.importer import containers
from taoprofiles.importer.state import MAY_SET, MOUNTS_FILES, SimulatedException, Unknown, concat, parse_json, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taoprofiles.importer.evaluator import Evaluator

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


def read_notebook(content: bytes, where: str) -> Code:
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


def read_script(content: bytes, where: str) -> Code:
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


# Magics and commands

_DOLLAR = re.compile(r"\$(\$?[\w.]+)")
_MAY_SET = frozenset("dotenv load loadpy load_dotenv".split())
"""Magics that may set variables that the code does not set."""
_SETS_NOTHING = frozenset(
    "alias autoawait autocall automagic autoreload bookmark capture cat colors conda config cp debug dhist dirs "
    "doctest_mode gui hist history killbgscripts ldir less lf lk ll load_ext logoff logon logstart logstate logstop ls "
    "lsmagic lx magic mamba man matplotlib micromamba mkdir more mv nbagg notebook page pastebin pdb pdef pdoc pfile "
    "pinfo pinfo2 pip pprint precision psearch psource pwd pycat quickref rehashx reload_ext rm rmdir save sx system "
    "taoprof tb tensorboard unalias unload_ext uv watermark who who_ls whos xmode".split()
)
"""Magics that set neither names nor variables, and leave the folder. ``capture`` stands for ``%%capture NAME``."""
_RUNS_CODE = re.compile(r"!+\s*(python[\d.]*(?!\S*\s+-m\s+pip\b)|bash|sh|source|\.|\S+\.(py|sh))\b")
_READS = re.compile(
    r"\s*(?:sudo\s+)?(?:(?:cat|ls|head|tail|less|more|grep|wc|stat|file|echo|test|diff|jq|realpath|readlink|du|chmod"
    r"|chown)\b|python3? -m json\.tool\s*$)[^>;&`()]*$"
)
"""A command that only reads, and gives what it prints to no other one."""
_NAMES_MOUNTS_FILE = re.compile(r"\.t(?:ao|lt)_mount")
_SHELL_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
SHELL_MAGIC = re.compile(r"[%!]*(?:(?:sx|system|sc)\s+)?")
_OUTPUT_NAME = re.compile(r"--[oep]\w*[ =]+(\w+)")
"""An option of ``%%bash`` and the like that binds a name: ``--out``, ``--err`` and ``--proc``."""
_PROGRAMS = frozenset("bash sh script ! sx system python python2 python3 pypy perl ruby".split())
_TEXT_MAGICS = frozenset("html HTML svg SVG latex markdown javascript js".split())
"""Cell magics that show their body."""


def run_line(ev: Evaluator, text: str) -> Any:
    """Follow a line magic, or record a command that is not run; return its value."""
    word, _, rest = text.partition(" ")
    name = word.lstrip("%")
    if re.match(r"%(env|set_env|cd)\t", text):
        raise SimulatedException("UsageError: IPython needs a space, not a tab, after the magic's name")
    if text.startswith(("!", "?")) or name not in ("env", "set_env", "cd"):
        return _other_line(ev, text, name)
    expanded = expand(rest, ev.text)
    if name == "cd":
        return _cd(ev, expanded)
    if isinstance(expanded, Unknown):
        key = rest.partition("=")[0].strip()
        ev.state.set_environment(key if key.isidentifier() else expanded, expanded)
        return expanded
    pair = _assignment(expanded)
    if pair is not None:
        ev.state.set_environment(*pair)
        return None
    key = expanded.strip()
    value = ev.state.environment(key) if key else ev.state.unknown("the whole environment")
    return ev.missing_variable(key) if value is None else value


def _other_line(ev: Evaluator, text: str, name: str) -> Any:
    check_command(ev, text)
    if name == "pwd":
        return ev.state.folder
    if name in _MAY_SET:
        ev.state.note(f"{MAY_SET}: '%{name}' is not followed")
        ev.state.has_unknown_names = True
    elif name == "capture":
        for output in re.findall(r"(?<![\w-])[A-Za-z_]\w*", text)[1:]:
            ev.bind(output, ev.state.unknown("the output of '%%capture'"))
    elif restored := restored_names(text):
        for output in restored:
            ev.bind(output, ev.state.unknown("a variable of '%store'"))
    elif sets_names(text):
        ev.invalidate_namespace(f"'%{name}' is not followed")
    command = text.partition(" ")[0][:40]
    return ev.state.unknown(f"'{command}' is not run", source=command)


def restored_names(text: str) -> list[str]:
    """Return the names that ``%store -r NAME …`` binds; without names it binds all that were stored."""
    match = re.fullmatch(r"%?store\s+-r((?:\s+[A-Za-z_]\w*)+)\s*", text)
    return match[1].split() if match else []


def sets_names(text: str) -> bool:
    """Check whether a line magic that is not followed may set names, variables or the folder."""
    name = text.partition(" ")[0].lstrip("%")
    if re.fullmatch(r"%?store(?:\s+[A-Za-z_]\w*)*\s*", text) or restored_names(text):  # it stores, or lists
        return False
    return text.startswith("%") and not name.endswith("?") and name not in _SETS_NOTHING | _MAY_SET


def check_command(ev: Evaluator, text: str) -> None:
    """Record a command that is not run. One that may change a mounts file makes its content unknown."""
    if _RUNS_CODE.match(text):
        ev.state.calls[ev.state.location] = f"'{text[:60]}' is not run"
    command = SHELL_MAGIC.sub("", text, count=1)
    check_script(ev, _expand_known(ev, command), "the command")
    containers.scan(ev, command, has_python=True)


def _expand_known(ev: Evaluator, line: str) -> str:
    """Return a line with what is known of Python's names in it, and nothing in the place of the rest."""

    def evaluate(expression: str) -> str:
        value = ev.text(expression)
        return "" if isinstance(value, Unknown) else value

    return str(expand(line, evaluate))


def mounts_files_in_doubt(ev: Evaluator, script: str) -> list[str]:
    """Return the mounts files that a shell script names in a line that does more than read it."""

    def expanded(match: re.Match[str]) -> str:  # a variable that names the file
        value = ev.state.environment(match[1] or match[2])
        return value if isinstance(value, str) and _NAMES_MOUNTS_FILE.search(value) else match[0]

    ev.budget.spend(len(script))
    lines = [
        line
        for line in _SHELL_VARIABLE.sub(expanded, script).splitlines()
        if _NAMES_MOUNTS_FILE.search(line) and not all(map(_READS.match, line.lstrip("!").split("|")))
    ]
    return [name for name in MOUNTS_FILES if any(name.removesuffix("s.json") in line for line in lines)]


def check_script(ev: Evaluator, script: str, what: str) -> None:
    """Make the mounts files unknown that a shell script may change."""
    names = mounts_files_in_doubt(ev, script)
    if names:
        ev.state.note(f"{what} may change the mounts file, and is not run")
    for name in names:
        ev.state.invalidate_mounts_file(f"{what} that may change the mounts file is not run", name)


def _cd(ev: Evaluator, line: str | Unknown) -> Any:
    if isinstance(line, str):
        (path,) = trace(line, line.strip().removeprefix("-q ").strip(" \"'"))
        has_options = path.startswith("-")
        line = ev.state.unknown("'%cd' with an option") if has_options else ev.state.expand_home(path or "~")
    ev.state.change_folder(line)
    return line if isinstance(line, Unknown) else None


def run_cell_magic(ev: Evaluator, text: str, body: str) -> None:
    """Follow a cell magic."""
    name, _, rest = text.partition(" ")
    if name in ("writefile", "file"):
        appends = rest.startswith("-a ")
        path = expand(rest.removeprefix("-a ").strip(" \"'"), ev.text)
        value = ev.state.unknown("text added to a file") if appends else parse_json(body)
        ev.state.write_file(ev.state.expand_home(path) if isinstance(path, str) else path, value)
    elif name in ("env", "set_env", "cd"):
        ev.state.note(f"'%%{name}' is not a cell magic; the cell is ignored")
    elif name not in _TEXT_MAGICS:
        check_script(ev, f"{_expand_known(ev, rest)}\n{body}", f"'%%{name}'")
        containers.scan(ev, body)
        for output in _OUTPUT_NAME.findall(rest):
            ev.bind(output, ev.state.unknown(f"the output of '%%{name}'"))
        if name not in _PROGRAMS:
            ev.invalidate_namespace(f"'%%{name}' is not followed")


def expand(line: str, evaluate: Callable[[str], Any]) -> str | Unknown:
    """Expand ``{expression}`` and ``$name`` from Python's names; if one of them raises, the line stays as it is.

    ``evaluate`` returns the value of an expression as text. It raises SimulatedException if the code would raise.
    """
    pieces: list[str] = []
    try:
        for literal, field, specification, conversion in _fields(line):
            pieces.append(literal)
            if field is None:
                continue
            value = evaluate(f"{field}:{specification}" if specification else field)
            if isinstance(value, Unknown):
                return value
            if conversion in ("r", "a"):
                value = repr(str(value))
            elif conversion not in (None, "s"):
                return line
            pieces.append(value)
    except (SimulatedException, ValueError):  # ValueError: a single brace
        return line
    return concat(*pieces)


def _fields(line: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    """Yield each literal with the field after it; ``$name`` is a field unless an odd number of ``'`` follows."""
    for literal, field, specification, conversion in string.Formatter().parse(line):
        text, position = "", 0
        for match in _DOLLAR.finditer(literal):
            if literal.count("'", match.end()) % 2:  # as _dollar_pattern_ignore_single_quote looks ahead
                continue
            text += literal[position : match.start()]
            position = match.end()
            if match[1].startswith("$"):
                text += match[1]
                continue
            yield text, match[1], "", None
            text = ""
        yield text + literal[position:], field, specification, conversion


def _assignment(rest: str) -> tuple[str, str] | None:
    """Return (name, value) of a ``%env`` line, None if it only reads. Raises SimulatedException as IPython does."""
    separator = "=" if "=" in rest else " "
    if separator == " " and separator not in rest.strip():
        return None
    name, _, value = map(str.strip, rest.partition(separator))
    if re.search(r"\s", name):
        raise SimulatedException(f"UsageError: refusing to set env var with whitespace: '{value}'")
    return name, trace(rest, name, separator, value)[2]
