"""daemon, service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.faces.result import Result
from taoprofiles.operations import guard

if TYPE_CHECKING:
    import argparse

    from taoprofiles.state.paths import Context


def daemon_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unseal", action="store_true", help="only give the mapping file its mode back, after a guard that was killed"
    )


def daemon_verb(context: Context, args: argparse.Namespace) -> Result:
    if args.unseal:
        was_sealed = guard.unseal(context)
        return Result({"unsealed": was_sealed}, ["the mapping file is writable again" if was_sealed else "no seal"])
    from taoprofiles.faces.daemon import Daemon

    Daemon(context).run()
    return Result({"unsealed": False})
