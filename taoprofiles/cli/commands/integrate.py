"""env, completion, schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_profile, add_reveal
from taoprofiles.cli.result import Result
from taoprofiles.profiles.env_formats import FORMATS, notebook_cell, write
from taoprofiles.profiles.store import Store

if TYPE_CHECKING:
    import argparse

    from taoprofiles.storage.paths import Context


def env_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument(
        "--format", choices=(*FORMATS, "notebook"), default="bash", help="default: bash, which zsh reads too"
    )
    add_reveal(parser)


def env_verb(context: Context, args: argparse.Namespace) -> Result:
    renderer = Store(context).renderer(args.name)
    variables, secrets = renderer.variables(), renderer.secrets()[0]
    hidden = [] if args.reveal else [name for name in variables if name in secrets]
    given = {name: value for name, value in variables.items() if name not in hidden}
    messages = []
    hidden_env = sorted(renderer.secrets()[1]) if args.format == "notebook" and not args.reveal else []
    left_out = list(dict.fromkeys((*hidden, *hidden_env)))
    if left_out:
        verb = "is a secret and is" if len(left_out) == 1 else "are secrets and are"
        messages.append(f"{', '.join(left_out)} {verb} left out; --reveal includes them")
    if args.format == "notebook":
        text = notebook_cell(args.name, given, renderer.mapping(), hidden=hidden, hidden_env=hidden_env)
    else:
        text = write(given, args.format, hidden=hidden)
    return Result({"name": args.name, "variables": given, "hidden": hidden}, raw=text, messages=messages)


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def completion_verb(context: Context, args: argparse.Namespace) -> Result:
    from argcomplete.shell_integration import shellcode

    script = shellcode(["taoprof"], shell=args.shell)
    return Result({"shell": args.shell, "script": script}, raw=script)


def schema_verb(context: Context, args: argparse.Namespace) -> Result:
    import json

    from taoprofiles.profiles.model import json_schema

    schema = json_schema()
    return Result({"schema": schema}, raw=json.dumps(schema, indent=2) + "\n")
