"""new, edit, set, rename, remove.

Functions import what they use: it loads pydantic, and completion needs the arguments only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_path, add_profile, complete_profiles
from taoprofiles.cli.output import Result
from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.profiles import layouts
from taoprofiles.profiles.store import Store

if TYPE_CHECKING:
    import argparse

    from taoprofiles.storage.paths import Context


def new_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="name of the new profile; unless --network is given, also the name of the network"
    )
    add_path(parser, "--project-dir", metavar="DIR", help="the project folder (default: the current folder)")
    add_path(
        parser, "--notebook-dir", metavar="DIR", help="the folder of the notebook and its specs/, if it is another"
    )
    parser.add_argument("--network", metavar="NAME", help="network name, if it differs from the profile name")
    parser.add_argument("--layout", choices=layouts.LAYOUTS, help="default: depends on the network")
    parser.add_argument("--description", metavar="TEXT", help="one line about the profile")
    other = parser.add_argument(
        "--from", dest="source", metavar="OTHER", help="copy this profile instead of creating one from a folder"
    )
    complete_profiles(other)


def new_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    store = Store(context)
    if args.source is None:
        profile, reason = manage.new(
            context,
            args.name,
            project_dir=args.project_dir or ".",
            notebook_dir=args.notebook_dir,
            network=args.network,
            layout=args.layout,
            description=args.description or "",
        )
        layout: str = profile.layout
    else:
        for option in ("project_dir", "notebook_dir", "network", "layout", "description"):
            if getattr(args, option) is not None:
                raise UsageError(
                    f"--{option.replace('_', '-')} cannot be combined with --from",
                    hint=f"'taoprof set {args.name} KEY=VALUE' changes the copy",
                )
        manage.copy(context, args.source, args.name)
        layout, reason = store.template(args.name)["layout"], f"copied from '{args.source}'"
    missing = _missing_folders(store, args.name)
    messages = [f"layout '{layout}': {reason}"]
    if missing:
        folders = ", ".join(map(context.short, missing))
        messages.append(f"missing: {folders}. To create them: taoprof use {args.name} --mkdir")
    path = store.path(args.name)
    data = {"name": args.name, "layout": layout, "why": reason, "path": path, "missing": missing}
    return Result(data, [f"profile '{args.name}' created ({context.short(path)})"], messages=messages)


def _missing_folders(store: Store, name: str) -> list[str]:
    try:
        sources = [mount["source"] for mount in store.renderer(name).mapping()["Mounts"]]
    except TaoprofError:  # a copy may depend on a variable that is not set here
        return []
    return [source for source in sources if not os.path.exists(source)]


def edit_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)


def edit_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.cli.prompts import edit_profile

    changed = edit_profile(context, args.name)
    line = f"profile '{args.name}' {'changed' if changed else 'not changed'}"
    return Result({"name": args.name, "changed": changed, "path": Store(context).path(args.name)}, [line])


def set_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="NUM_GPUS=2, docker.shm_size=32G, …")
    parser.add_argument("--unset", metavar="KEY", action="append", default=[], help="remove a key")


def set_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    settings: dict[str, str | None] = dict.fromkeys(args.unset)
    for setting in args.settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"'{key}' has no value", hint=f"'taoprof set {args.name} {key}=VALUE', or --unset {key}")
        settings[key] = value
    if not settings:
        raise UsageError("nothing to set", hint=f"for example: taoprof set {args.name} NUM_GPUS=2")
    manage.set_keys(context, args.name, settings)
    line = f"profile '{args.name}' changed: {', '.join(settings)}"
    return Result({"name": args.name, "keys": list(settings)}, [line])


def rename_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("to", metavar="NEW", help="the new name")


def rename_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    manage.rename(context, args.name, args.to)
    data = {"name": args.to, "path": Store(context).path(args.to)}
    return Result(data, [f"profile '{args.name}' renamed to '{args.to}'"])


def remove_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("--force", action="store_true", help="remove it even if it is the active profile")


def remove_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    manage.remove(context, args.name, force=args.force)
    return Result({"name": args.name}, [f"profile '{args.name}' removed. To restore it: taoprof undo"])
