"""new, save, import, export, edit, set, copy, rename, remove.

The operations are imported where they are used: they load pydantic, and completion loads every verb's arguments.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_path, add_profile, add_reveal, add_timeout
from taoprofiles.cli.result import Result
from taoprofiles.errors import UsageError
from taoprofiles.profiles import layouts
from taoprofiles.profiles.store import Store

if TYPE_CHECKING:
    import argparse

    from taoprofiles.storage.paths import Context


def new_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the new profile, best called as its network")
    add_path(parser, "--project-dir", default=".", metavar="DIR", help="the project's folder (default: this one)")
    add_path(parser, "--notebook-dir", metavar="DIR", help="where the notebook and its specs/ are, if elsewhere")
    parser.add_argument("--network", metavar="NAME", help="the network, if the profile is called otherwise")
    parser.add_argument("--layout", choices=layouts.LAYOUTS, help="default: by the network's name")
    parser.add_argument("--description", default="", metavar="TEXT", help="a line for people")
    add_timeout(parser)


def new_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    made, why = manage.new(
        context,
        args.name,
        project_dir=args.project_dir,
        notebook_dir=args.notebook_dir,
        network=args.network,
        layout=args.layout,
        description=args.description,
        timeout=args.timeout,
    )
    store = Store(context)
    sources = [mount["source"] for mount in store.renderer(args.name).mapping()["Mounts"]]
    missing = [source for source in sources if not os.path.exists(source)]
    messages = [f"layout '{made.layout}': {why}"]
    if missing:
        folders = ", ".join(map(context.short, missing))
        messages.append(f"not there yet: {folders}; 'taoprof use {args.name} --mkdir' makes them")
    data = {"name": args.name, "layout": made.layout, "why": why, "path": store.path(args.name), "missing": missing}
    return Result(data, [f"profile '{args.name}' made ({context.short(store.path(args.name))})"], messages=messages)


def save_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, help="the profile to make")
    parser.add_argument("--replace", action="store_true", help="replace the profile of that name; the history keeps it")
    add_timeout(parser)


def save_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import convert, manage

    found = manage.save(context, args.name, replace=args.replace, timeout=args.timeout)
    line = f"{context.short(context.mapping_file)} saved as profile '{args.name}'"
    return _made(context, args.name, line, convert.ignored(found))


def _made(context: Context, name: str, line: str, messages: list[str] | None = None) -> Result:
    return Result({"name": name, "path": Store(context).path(name)}, [line], messages=messages)


def export_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_reveal(parser)


def export_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import convert
    from taoprofiles.profiles.model import parse, to_toml

    store = Store(context)
    profile = parse(store.text(args.name), name=args.name, path=store.path(args.name))
    hidden: list[str] = []
    if not args.reveal:
        profile, hidden = convert.without_secrets(profile)
    if profile.layout != "custom" and profile.network is None:
        profile = profile.model_copy(update={"network": args.name})
    messages = [f"{name}: its value stays here; the export reads ${{env:{name}}}" for name in hidden]
    text = to_toml(profile)
    return Result({"name": args.name, "profile": text, "hidden": hidden}, raw=text, messages=messages)


def edit_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_timeout(parser)


def edit_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.cli.editor import edit

    changed = edit(context, args.name, timeout=args.timeout)
    line = f"profile '{args.name}' changed" if changed else f"profile '{args.name}' is as it was"
    return Result({"name": args.name, "changed": changed, "path": Store(context).path(args.name)}, [line])


def set_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="NUM_GPUS=2, docker.shm_size=32G, …")
    parser.add_argument("--unset", metavar="KEY", action="append", default=[], help="take a key away")
    add_timeout(parser)


def set_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import edit as settings

    wanted: dict[str, str | None] = dict.fromkeys(args.unset)
    for setting in args.settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"'{key}' has no value", hint=f"'taoprof set {args.name} {key}=VALUE', or --unset {key}")
        wanted[key] = value
    if not wanted:
        raise UsageError("nothing to set", hint=f"such as 'taoprof set {args.name} NUM_GPUS=2'")
    settings.change(context, args.name, wanted, timeout=args.timeout)
    keys = ", ".join(wanted)
    return Result({"name": args.name, "keys": list(wanted)}, [f"profile '{args.name}' changed: {keys}"])


def copy_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("to", metavar="NEW", help="the new profile")
    add_timeout(parser)


def copy_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    manage.copy(context, args.name, args.to, timeout=args.timeout)
    return _made(context, args.to, f"profile '{args.name}' copied to '{args.to}'")


def rename_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("to", metavar="NEW", help="the new name")
    add_timeout(parser)


def rename_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    manage.rename(context, args.name, args.to, timeout=args.timeout)
    return _made(context, args.to, f"profile '{args.name}' renamed to '{args.to}'")


def remove_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("--force", action="store_true", help="even if it is the active one")
    add_timeout(parser)


def remove_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    manage.remove(context, args.name, force=args.force, timeout=args.timeout)
    return Result({"name": args.name}, [f"profile '{args.name}' removed; 'taoprof undo' brings it back"])
