"""render."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_profile
from taoprofiles.cli.result import Result
from taoprofiles.export import TARGETS, export
from taoprofiles.runs import resources

if TYPE_CHECKING:
    import argparse

    from taoprofiles.storage.paths import Context


def render_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("--to", required=True, choices=TARGETS, help="what is to start it")
    parser.add_argument("--image", help="default: the one that the launcher here runs the task in")
    parser.add_argument("--gpus", metavar="WHICH", default="all", help="all (default), a number, a list: 0,1, or none")


def render_verb(context: Context, args: argparse.Namespace) -> Result:
    gpus = resources.parse_gpus(args.gpus)
    plan, made, giving = export.rendered(context, args.name, args.to, args.command, image=args.image, gpus=gpus)
    messages = [*(f"warning: {text}" for text in made.warnings), *giving]
    data = {
        "name": args.name,
        "target": args.to,
        "image": plan.image,
        "text": made.text,
        "secrets": plan.secrets,
        "warnings": made.warnings,
    }
    return Result(data, raw=made.text, messages=messages)
