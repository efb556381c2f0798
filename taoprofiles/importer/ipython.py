"""IPython's magics and commands, as far as a set-up needs them.

Read in IPython 9: ``env`` and ``set_env`` in core/magics/osm.py, ``DollarFormatter`` in utils/text.py, ``var_expand``
in core/interactiveshell.py. The tests compare with what IPython did with 58 spellings.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, Any

from taoprofiles.importer import containers
from taoprofiles.importer.state import MOUNTS_FILES
from taoprofiles.importer.values import SimulatedException, Unknown, concat, parse_json, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taoprofiles.importer.evaluator import Evaluator

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
        ev.state.may_set(f"'%{name}' is not followed")
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
    expanded = expand(command, lambda expression: _known_text(ev.text(expression)))
    check_script(ev, expanded if isinstance(expanded, str) else command, "the command")
    containers.scan(ev, command, has_python=True)


def _known_text(value: str | Unknown) -> str:
    return "" if isinstance(value, Unknown) else value


def may_write_mounts_file(ev: Evaluator, script: str) -> bool:
    """Check whether a shell script has a line with the name of a mounts file that does more than read it."""
    return any(
        _NAMES_MOUNTS_FILE.search(line) and not all(map(_READS.match, line.lstrip("!").split("|")))
        for line in _expand_environment(ev, script).splitlines()
    )


def _expand_environment(ev: Evaluator, script: str) -> str:
    """Replace the variables of the environment that name a mounts file."""

    def expanded(match: re.Match[str]) -> str:
        value = ev.state.environment(match[1] or match[2])
        return value if isinstance(value, str) and _NAMES_MOUNTS_FILE.search(value) else match[0]

    ev.budget.add(len(script))
    return _SHELL_VARIABLE.sub(expanded, script)


def check_script(ev: Evaluator, script: str, what: str) -> None:
    """Make the mounts files unknown that a shell script may change."""
    if may_write_mounts_file(ev, script):
        ev.state.note(f"{what} may change the mounts file, and is not run")
        script = _expand_environment(ev, script)
        for name in MOUNTS_FILES:
            if name.removesuffix("s.json") in script:
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
        arguments = expand(rest, lambda expression: _known_text(ev.text(expression)))
        check_script(ev, f"{arguments}\n{body}", f"'%%{name}'")
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
