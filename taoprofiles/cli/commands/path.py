"""path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_path, add_profile
from taoprofiles.cli.result import Result
from taoprofiles.switching.translate import translate

if TYPE_CHECKING:
    import argparse

    from taoprofiles.storage.paths import Context


def path_arguments(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "path", metavar="PATH", help="a path of this host, or one of the container")
    add_profile(parser, optional=True, help="the profile; default: the mapping file as it is")


def path_verb(context: Context, args: argparse.Namespace) -> Result:
    found = translate(context, args.path, args.name)
    # Raw, so that $(taoprof path …) gets it as it is.
    data = {key: value for key, value in found._asdict().items() if key != "note"}
    return Result(data, raw=found.answer + "\n", messages=[found.note] if found.note else [])
