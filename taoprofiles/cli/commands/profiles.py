"""new, edit, set, rename, remove."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping

from taoprofiles.cli import prompts
from taoprofiles.cli.arguments import split_setting
from taoprofiles.cli.output import Result, after_change, missing_folders
from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.profiles import kernels, manage
from taoprofiles.profiles.layouts import EXAMPLE_IMAGE
from taoprofiles.profiles.store import Store
from taoprofiles.storage.paths import Context
from taoprofiles.switching.status import get_status
from taoprofiles.system.filesystem import answers


def new_command(context: Context, args: argparse.Namespace) -> Result:
    store, name = Store(context), args.name
    messages: list[str] = []
    if store.text_or_none(name) is not None:
        raise manage.name_exists_error("new", name)  # before anything is asked
    if args.extends is not None:
        _refuse_with(args, "extends")
        manage.extend(context, args.extends, name)
        reason = f"extends '{args.extends}'"
    elif args.source is None:
        messages = prompts.confirm_home(context) if args.project_dir is None else []
        _, reason = manage.new(
            context,
            name,
            project_dir=args.project_dir or ".",
            notebook_dir=args.notebook_dir,
            network=args.network,
            layout=args.layout,
            description=args.description or "",
            image=args.image,
        )
    else:
        _refuse_with(args, "from")
        manage.copy(context, args.source, name)
        reason = f"copied from '{args.source}'"
    with after_change(f"profile '{name}' was created"):
        return _describe_new(context, args, reason, messages)


def _describe_new(context: Context, args: argparse.Namespace, reason: str, messages: list[str]) -> Result:
    """Return the result of ``new`` for the profile that was created, with ``--project`` after writing its file."""
    store, name = Store(context), args.name
    template = store.template(name)
    try:
        sources = [mount["source"] for mount in store.renderer(name).mapping()["Mounts"]]
    except TaoprofError:  # a copy may depend on a variable that is not set here
        sources = []
    layout, project = template["layout"], template["project_dir"] if args.source is None else None
    folder = f" for {context.short(context.expand_user(project))}" if project else ""
    missing = [source for source, exists in answers(os.path.exists, sources).items() if not exists]
    messages.append(f"using layout '{layout}': {reason}")
    if layout == "tao7" and not template["images"]:
        messages.append(f"no image yet, such as {EXAMPLE_IMAGE}. To set it: taoprof set {name} image=IMAGE")
    messages += missing_folders(context, name, missing)
    path = store.path(name)
    if args.project:
        messages += _write_project_file(context, args)
    data = {"name": name, "layout": layout, "why": reason, "path": path, "missing": missing}
    return Result(data, [f"profile '{name}' created{folder} ({context.short(path)})"], messages=messages)


def _refuse_with(args: argparse.Namespace, option: str) -> None:
    """Raise UsageError if ``new --from`` or ``--extends`` has an option that it does not take."""
    refused = ["project_dir", "notebook_dir", "network", "layout", "description", "image"]
    refused += ["source", "project"] if option == "extends" else []
    for other in refused:
        if getattr(args, other):
            shown = "from" if other == "source" else other.replace("_", "-")
            raise UsageError(
                f"--{shown} cannot be combined with --{option}",
                hint=f"'taoprof set {args.name} KEY=VALUE' changes the profile afterwards",
            )


def _write_project_file(context: Context, args: argparse.Namespace) -> list[str]:
    """Write a new profile as the project file of its folder, and make the profile the trusted copy of that file."""
    from taoprofiles.profiles import trust

    store, name = Store(context), args.name
    profile = store.profile(name)
    folder = os.path.realpath(context.expand_user(profile.project_dir or context.folder))
    path, omitted = trust.write(context, profile, folder, name=name)
    messages = [f"project file written: {context.short(path)}"]
    if omitted:
        messages.append(f"left out as personal: {', '.join(omitted)}. For your own: taoprof new MINE --extends {name}")
    return messages


def edit_command(context: Context, args: argparse.Namespace) -> Result:
    changed = prompts.edit_profile(context, args.name)
    line = f"profile '{args.name}' {'changed' if changed else 'not changed'}"
    return Result({"name": args.name, "changed": changed, "path": Store(context).path(args.name)}, [line])


def set_command(context: Context, args: argparse.Namespace) -> Result:
    if "=" in args.name:
        words = shlex.join([args.name, *args.settings])
        raise UsageError("no profile given", hint=f"taoprof set NAME {words}; 'taoprof list' shows the profiles")
    settings: dict[str, str | None] = dict.fromkeys(args.unset)
    for setting in args.settings:
        key, equals, value = split_setting(setting)
        if not key:
            raise UsageError("a setting has no key", hint=f"for example: taoprof set {args.name} NUM_GPUS=2")
        if not equals:
            following = args.settings[args.settings.index(setting) + 1 :][:1]
            value = following[0] if following and "=" not in following[0] else "VALUE"
            command = shlex.join(["taoprof", "set", args.name, f"{key}={value}"])
            raise UsageError(f"'{key}' has no value", hint=f"{command}; to remove it: --unset {key}")
        settings[key] = value
    if not settings:
        raise UsageError("nothing to set", hint=f"for example: taoprof set {args.name} NUM_GPUS=2")
    is_changed = manage.set_keys(context, args.name, settings)
    line = f"profile '{args.name}' changed: {', '.join(settings)}"
    if not is_changed:
        line = f"profile '{args.name}' not changed: it has these settings already"
    with after_change(f"profile '{args.name}' was changed"):
        messages = _describe_problems(context, args.name, settings)
        entry = manage.active_entry(context)  # the active profile is not read if it is another one
        active = entry.profile if entry is not None else None
        if active in (args.name, *Store(context).extending(args.name)) and get_status(context).state == "drifted":
            path = context.short(context.mapping_file)
            messages.append(f"{path} does not have this change yet. To apply it: taoprof use {active}")
    return Result({"name": args.name, "keys": list(settings)}, [line], messages=messages)


def _describe_problems(context: Context, name: str, settings: Mapping[str, str | None]) -> list[str]:
    """Return what 'check' finds wrong with settings; missing folders on one line."""
    from taoprofiles.check.report import check_settings

    findings = check_settings(context, name, settings)
    folders = [finding.fix[1] for finding in findings if finding.id == "src-missing" and finding.fix]
    lines = [
        f"warning: {finding.where}: {finding.what}; {finding.why}"
        for finding in findings
        if not (finding.id == "src-missing" and finding.fix)
    ]
    return lines + missing_folders(context, name, folders)


def rename_command(context: Context, args: argparse.Namespace) -> Result:
    manage.rename(context, args.name, args.to)
    messages = kernels.follow(context, args.name, args.to)
    data = {"name": args.to, "path": Store(context).path(args.to)}
    return Result(data, [f"profile '{args.name}' renamed to '{args.to}'"], messages=messages)


def remove_command(context: Context, args: argparse.Namespace) -> Result:
    manage.remove(context, args.name, force=args.force)
    messages = kernels.follow(context, args.name, None)
    return Result(
        {"name": args.name}, [f"profile '{args.name}' removed. To restore it: taoprof undo"], messages=messages
    )
