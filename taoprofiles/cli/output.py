"""The only module that prints: results and errors, as text for people or as one JSON envelope for programs."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from taoprofiles.errors import TaoprofError
from taoprofiles.masking import printable, shorten, text_width
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:  # --help and --version load nothing of these
    from taoprofiles.holds.hold import Hold
    from taoprofiles.mounts.mapping import Difference

ENVELOPE = 1
"""The version of the JSON envelope. Keys may be added; a key never changes its meaning."""
DIFFERS = 6
"""The exit status of ``diff`` and ``status --check`` if something differs."""
LINE_LIMIT = 500
_RED, _BOLD, _CYAN, _PLAIN = "\x1b[31m", "\x1b[1m", "\x1b[36m", "\x1b[0m"
STDERR = 2
SHOWN_PROBLEMS = 20
NARROWEST = 12
"""Columns below which no cell of a table is cut."""


class Result(NamedTuple):
    """What a command returns: ``data`` for programs, ``lines`` for people.

    A list in ``data`` may be an iterator, which makes its items while they are printed; a command that prints very many
    returns no ``data`` without --json. ``raw`` replaces ``lines`` if another program reads the text. ``messages`` are
    notes and warnings, which go to stderr. ``status`` is the exit status.
    """

    data: dict[str, Any]
    lines: Sequence[str] = ()
    raw: str | None = None
    messages: Sequence[str] = ()
    status: int = 0


class OutputError(OSError):
    """What the command prints could not be written to stdout, on a full disk for example.

    ``is_answer``: the command has succeeded, and only its answer is missing.
    """

    is_answer = False


class Declined(Exception):  # noqa: N818 - an answer of the user, not an error
    """The user answered a question with no. The command prints the message and ends as for Ctrl-C."""


@contextmanager
def after_change(change: str, *, again: str = "") -> Iterator[None]:
    """Add to an error of the block that ``change`` was made before it; ``again`` replaces a hint to repeat it."""
    try:
        yield
    except TaoprofError as error:
        error.message = f"{change}, but {error.message}"
        error.hint = error.hint.replace("nothing was changed", "nothing else was changed")
        if again:
            error.hint = error.hint.replace("run the command again", again) or again
        raise


@contextmanager
def _writing_to_stdout(*, is_answer: bool = False) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # the reader has gone, which is no error
    except OSError as error:
        output_error = OutputError(*error.args)
        output_error.is_answer = is_answer
        raise output_error from error


def emit(command: str, result: Result, *, as_json: bool) -> int:
    """Print a result, the answer on stdout and the messages on stderr. Return the exit status."""
    with _writing_to_stdout(is_answer=result.status == 0):
        _print_result(command, result, as_json=as_json)
        sys.stdout.flush()
    return result.status


def _print_result(command: str, result: Result, *, as_json: bool) -> None:
    if as_json:
        return _print_json(command, data=result.data, messages=list(result.messages))
    print_progress(*result.messages)
    if result.raw is not None:
        # A program reads this, so it stays unchanged, and UTF-8 whatever the locale is: TOML, JSON and shell variables
        # are written in it. On a terminal, control characters from a file must still be escaped.
        text = "\n".join(printable(line) for line in result.raw.split("\n")) if sys.stdout.isatty() else result.raw
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))  # a path may not be valid text
    for line in result.lines:
        sys.stdout.write(printable(line) + "\n")
    return None


@_writing_to_stdout()
def print_help(text: str) -> None:
    """Print a help to stdout; on a terminal its headings are bold, and options and commands have a colour."""
    if _is_coloured(sys.stdout):
        import re

        text = re.sub(r"(?m)^(usage:|\S[^:\n]*:$)", rf"{_BOLD}\1{_PLAIN}", text)
        text = re.sub(r"(?m)^(  )(\S.*?)(?=  |$)", rf"\1{_CYAN}\2{_PLAIN}", text)
    sys.stdout.write(text)


def emit_error(command: str, error: TaoprofError, *, as_json: bool) -> int:
    """Print an error, as text on stderr or as the envelope on stdout. Return the exit status."""
    if as_json:
        fields = {
            "code": error.code,
            "message": error.message,
            "problems": error.problems[:100],
            "hint": error.hint,
            "status": error.status,
            **error.more,
        }
        _print_json(command, error=fields)
    else:
        label = f"{_RED}error:{_PLAIN}" if _is_coloured(sys.stderr) else "error:"
        sys.stderr.write(f"taoprof: {label} ")
        print_stderr(*error_lines(error))
    return error.status


def error_lines(error: TaoprofError) -> list[str]:
    """Return an error as lines that are safe on a terminal: the message, the problems and the hint."""
    lines = [error.message + (":" if error.problems else "")]
    lines += [f"  {problem}" for problem in error.problems[:SHOWN_PROBLEMS]]
    if len(error.problems) > SHOWN_PROBLEMS:
        lines.append(f"  … and {len(error.problems) - SHOWN_PROBLEMS} more")
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return [cut(line) for line in lines]


def print_stderr(*lines: str, end: str = "\n") -> None:
    """Print lines to stderr while a command is running."""
    sys.stderr.write("".join(printable(line) + end for line in lines))
    sys.stderr.flush()


def print_progress(*messages: str) -> None:
    """Print progress messages to stderr, with the prefix "taoprof: ", or indented lines that continue them."""
    print_stderr(*(text if text.startswith("  ") else f"taoprof: {text}" for text in messages))


@_writing_to_stdout()
def print_raw(text: bytes) -> None:
    """Print what a run's command has printed, unchanged: on a terminal its colours and progress bars too."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def cut(line: str) -> str:
    """Return a line without the middle if it is very long: an argument may be a megabyte."""
    return shorten(printable(line), LINE_LIMIT, end=100)


def table(rows: Sequence[Sequence[str]], *, indent: str = "", fit: bool = False) -> list[str]:
    """Return rows as aligned lines; with ``fit`` they fit the terminal: the longest cells are cut, which "…" shows.

    Numbers and times are not cut, since they would look like others.
    Widths are those on a terminal: a Chinese character takes two columns.
    """
    safe = [row if "".join(row).isprintable() else list(map(printable, row)) for row in rows]
    widths = [max(map(text_width, column)) for column in zip(*safe, strict=True)]
    room = _columns() - len(indent) - 2 * (len(widths) - 1)
    if fit and sum(widths) > room:
        fixed = [not any(any(map(str.isalpha, cell)) for cell in column[1:]) for column in zip(*safe, strict=True)]
        widths = _shrunk(widths, fixed, room)
        safe = [[_cut_cell(cell, width) for cell, width in zip(row, widths, strict=True)] for row in safe]
    return [(indent + "  ".join(map(_padded, row, widths))).rstrip() for row in safe]


def _padded(cell: str, width: int) -> str:
    return cell.ljust(width if cell.isascii() else width + len(cell) - text_width(cell))


def _shrunk(widths: list[int], fixed: list[bool], total: int) -> list[int]:
    """Return the widths, the largest that are not fixed cut to one limit, so that their sum is at most ``total``."""
    limit = max(widths)
    shrunk = widths
    while sum(shrunk) > total and limit > NARROWEST:
        limit -= 1
        shrunk = [width if keep else min(width, limit) for width, keep in zip(widths, fixed, strict=True)]
    return shrunk


def _columns() -> int:
    """Return the width of the terminal that stdout is, a very large number for anything else."""
    return (os.get_terminal_size(1).columns if sys.stdout.isatty() else 0) or 1 << 30


def _cut_cell(cell: str, width: int) -> str:
    """Return a cell of at most ``width`` columns; of a path the end is kept, which tells it from others."""
    if text_width(cell) <= width:
        return cell
    is_path = "/" in cell and " " not in cell
    while text_width(cell) >= width:
        cell = cell[1:] if is_path else cell[:-1]
    return f"…{cell}" if is_path else f"{cell}…"


def _print_json(
    command: str, *, data: dict[str, Any] | None = None, messages: Sequence[str] = (), error: object = None
) -> None:
    iterators = {key: items for key, items in (data or {}).items() if isinstance(items, Iterator)}
    envelope = {"schema": ENVELOPE, "ok": error is None, "command": command}
    envelope |= {"data": data and data | {key: [] for key in iterators}, "messages": messages, "error": error}
    text, encode = json.dumps(envelope, indent=2), json.JSONEncoder().encode
    for key, items in iterators.items():  # an item a line: together they may be too long for the memory
        start, text = text.split(f'\n    "{key}": []', 1)
        sys.stdout.write(f'{start}\n    "{key}": [')
        for number, item in enumerate(items):
            sys.stdout.write(f"{',' if number else ''}\n      {encode(item)}")
        sys.stdout.write("\n    ]")
    sys.stdout.write(text + "\n")


def _is_coloured(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


# How times, holds, changes and profiles are shown as text


def format_time(seconds: float) -> str:
    """Return seconds since 1970 as date and time in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def change_lines(changes: "Sequence[Difference]", *, reveal: bool) -> list[str]:
    """Return the differences between two mappings as lines with - and +."""
    return [line for change in changes for line in change.lines(reveal=reveal)]


def exit_status(hold: "Hold") -> str:
    """Return the exit status of a run that has ended."""
    why = f" ({hold.state})" if hold.state and hold.status != 0 else ""
    return f"exit status {'unknown' if hold.status is None else hold.status}{why}"


def missing_folders(context: Context, name: str, folders: Sequence[str], *, switch: bool = True) -> list[str]:
    """Return messages that name source folders that do not exist; ``switch``: their command switches too."""
    from taoprofiles.profiles.store import Store
    from taoprofiles.rules.finding import quoted_short
    from taoprofiles.system.filesystem import creation_problem

    elsewhere = {folder: reason for folder in folders if (reason := creation_problem(folder))}
    others = [folder for folder in folders if folder not in elsewhere]
    messages = []
    if elsewhere:
        names, reasons = ", ".join(map(context.short, elsewhere)), ", ".join(dict.fromkeys(elsewhere.values()))
        verb, command = "does" if len(elsewhere) == 1 else "do", Store(context).renderer(name).command_to_set(elsewhere)
        messages.append(f"{names} {verb} not exist, and {reasons}. To use a folder of this machine: {command}")
    if others:
        command = f"taoprof use {name} --mkdir" if switch else f"taoprof run {name} --mkdir -- true"
        if Store(context).template(name)["layout"] == "tao7":  # there is no launcher to switch for
            command = f"mkdir -p {' '.join(quoted_short(context, path) for path in others)}"
        if len(others) == 1:
            messages.append(f"1 folder does not exist: {context.short(others[0])}. To create it: {command}")
        else:
            messages += [f"{len(others)} folders do not exist:", *(f"  {context.short(path)}" for path in others)]
            messages.append(f"to create them: {command}")
    return messages


def profile_lines(context: Context, title: str, summary: dict[str, Any]) -> list[str]:
    """Return the summary of a profile (``Renderer.summary``) as lines."""
    exists = {True: "", False: "(missing)", None: "(does not answer)"}
    base, origins = summary["extends"], summary.get("origins", {})

    def origin(key: str) -> str:
        """Return where a value comes from, "" if the profile sets it itself."""
        name = origins.get(key)
        return "" if base is None or name not in (None, base) else f"from '{base}'" if name else "from the layout"

    def rows(section: str, values: dict[str, Any]) -> list[tuple[str, ...]]:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        return [(key, text, origin(f"{section}.{key}")) for key, text in texts.items()]

    mounts: list[tuple[str, ...]] = []
    for mount in summary["mounts"]:
        destination = mount["destination"] + (" (read-only)" if mount["read_only"] else "")
        mounts.append((context.short(mount["source"]), "→", destination, exists[mount["exists"]]))
    hooks = [(key, "; ".join(summary[key].splitlines()), origin(key)) for key in ("on_start", "on_end") if summary[key]]
    sections: dict[str, list[tuple[str, ...]]] = {
        "variables": rows("variables", {key: context.short(text) for key, text in summary["variables"].items()}),
        f"mounts {origin('mounts')}".rstrip(): mounts,
        "container env": rows("container.env", summary["env"]),
        **{name: rows(name, summary[name]) for name in ("docker", "slurm", "kubernetes")},
        "images": [
            (key or "any task", image, origin(f"images.{key}" if key else "image"))
            for key, image in summary["images"].items()
        ],
        "notifications and hooks": [*(("notify", target, origin("notify")) for target in summary["notify"]), *hooks],
    }
    lines = [f"profile {title}", *filter(None, [summary["description"]])]
    lines += [f"extends: '{base}'"] if base is not None else []
    lines.append(f"layout: {summary['layout']}  {origin('layout')}".rstrip())
    lines += [f"gpus: {summary['gpus']}  {origin('gpus')}".rstrip()] if summary["gpus"] is not None else []
    for heading, section in sections.items():
        shown = table(section, indent="  ")
        if section is mounts and any(text_width(line) > _columns() for line in shown):  # nothing of a path is cut here
            shown = [line for source, *rest in section for line in (f"  {source}", "    " + " ".join(rest).rstrip())]
        lines += [f"{heading}:", *shown] if section else []
    return lines
