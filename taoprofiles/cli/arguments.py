"""Arguments that several verbs take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.storage.locks import DEFAULT_TIMEOUT
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Give a verb that changes something its ``--timeout``."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help=f"how long to wait for another taoprof command (default {DEFAULT_TIMEOUT:g})",
    )


def add_no_check(parser: argparse.ArgumentParser) -> None:
    """Give a verb that refuses what cannot go well its ``--no-check``; ``check`` is true without it."""
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="although it would go wrong: see 'taoprof check'"
    )


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Give a verb that may be refused its ``--wait``: seconds, infinite without a TIME; None is not to wait."""
    parser.add_argument(
        "--wait",
        nargs="?",
        const=float("inf"),
        type=seconds,
        metavar="TIME",
        help="wait until nothing is in the way, TIME at the most (90, 30m, 8h)",
    )


def seconds(text: str) -> float:
    """Read a time span: seconds, or a number with s, m, h or d."""
    import argparse

    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    try:
        found = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        found = -1
    if not 0 <= found < float("inf"):  # which leaves out nan too
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return found


def add_reveal(parser: argparse.ArgumentParser) -> None:
    """Give a verb that shows values its ``--reveal``."""
    parser.add_argument("--reveal", action="store_true", help="show secret values (KEY, TOKEN, SECRET, PASS, …)")


def add_profile(
    parser: argparse.ArgumentParser, name: str = "NAME", *, optional: bool = False, help: str = "the profile"
) -> None:
    """Give a verb an argument that is the name of a profile, and completes as one."""
    argument = parser.add_argument(name.lower(), metavar=name, nargs="?" if optional else None, help=help)
    argument.completer = _profile_names  # type: ignore[attr-defined] # where argcomplete looks for it


def add_path(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """Give a verb an argument that is a path, and completes as one."""
    argument = parser.add_argument(name, **options)
    argument.completer = _paths  # type: ignore[attr-defined] # where argcomplete looks for it


def _paths(prefix: str, **_: object) -> list[str]:
    from argcomplete.completers import FilesCompleter

    found: list[str] = FilesCompleter()(prefix)
    return found


def _profile_names(**_: object) -> list[str]:
    from taoprofiles.profiles.store import Store

    try:
        return Store(Context()).names()
    except TaoprofError:
        return []
