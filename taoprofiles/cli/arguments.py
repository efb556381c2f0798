"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidProfileError, TaoprofError

if TYPE_CHECKING:
    from typing import Any


def add_mkdir(parser: argparse.ArgumentParser) -> None:
    """Add ``--mkdir``."""
    parser.add_argument("--mkdir", action="store_true", help="create the source folders that do not exist")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add ``--wait``: seconds, infinite without a TIME; None means not to wait."""
    parser.add_argument(
        "--wait",
        nargs="?",
        const=float("inf"),
        type=parse_duration,
        metavar="TIME",
        help="wait until it is free, for at most TIME (90 = seconds, 30m, 8h); without TIME, for ever",
    )


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Add ``--strict``."""
    parser.add_argument(
        "--strict", action="store_true", help=f"exit with {InvalidProfileError.status} for warnings too"
    )


def add_reveal(parser: argparse.ArgumentParser) -> None:
    """Add ``--reveal``."""
    parser.add_argument("--reveal", action="store_true", help="show secret values (KEY, TOKEN, SECRET, PASS, …)")


def add_profile(
    parser: argparse.ArgumentParser, name: str = "NAME", *, optional: bool = False, help: str = "name of the profile"
) -> None:
    """Add a positional argument that is the name of a profile and completes as one."""
    argument = parser.add_argument(name.lower(), metavar=name, nargs="?" if optional else None, help=help)
    complete_profiles(argument)


def complete_profiles(argument: argparse.Action) -> None:
    """Let an argument complete as the name of a profile."""
    argument.completer = _profile_names  # type: ignore[attr-defined] # argcomplete reads this attribute


def add_path(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """Add an argument that is a path and completes as one."""
    argument = parser.add_argument(name, **options)
    argument.completer = _paths  # type: ignore[attr-defined] # argcomplete reads this attribute


def parse_duration(text: str) -> float:
    """Parse a duration: a number of seconds, or a number with s, m, h or d. Return seconds."""
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    try:
        seconds = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):  # false for nan too
        raise argparse.ArgumentTypeError(f"'{text}' is not a duration: write 90 (seconds), 30m, 8h or 2d")
    return seconds


def _paths(prefix: str, **_: object) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return list(FilesCompleter()(prefix))


def _profile_names(**_: object) -> list[str]:
    from taoprofiles.profiles.store import Store
    from taoprofiles.storage.paths import Context

    try:
        return Store(Context()).names()
    except TaoprofError:
        return []
