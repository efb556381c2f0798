"""trust."""

from __future__ import annotations

import argparse
import os
import shlex
from difflib import unified_diff
from typing import TYPE_CHECKING

from taoprofiles.cli import prompts
from taoprofiles.cli.output import Declined, Result, print_progress, profile_lines, table
from taoprofiles.errors import InvalidProfileError, NotFoundError, UsageError
from taoprofiles.profiles import kernels, manage, model, project, trust
from taoprofiles.profiles.convert import path_expression
from taoprofiles.profiles.rendering import Renderer, unset_variables
from taoprofiles.profiles.store import Store, is_name
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:
    from taoprofiles.profiles.model import Profile


def trust_command(context: Context, args: argparse.Namespace) -> Result:
    if args.list:
        return _list(context)
    path = args.file or project.find(context)
    if path is None:
        raise NotFoundError(f"no {project.FILE} here or above", hint="to write one: taoprof new NAME --project")
    if args.revoke:
        return _revoke(context, args.file or path)
    file = project.read(context.absolute(path))
    name = _name(context, args, file)
    store, short = Store(context), context.short(file.path)
    old = store.text_or_none(name)
    earlier = None if old is None else store.profile(name)
    folders = [] if earlier is None or earlier.project is None else earlier.project.folders[1:]  # without the project's
    folders += [path_expression(context, folder) for folder in args.allow]
    folders = list(dict.fromkeys(context.expand_user(folder.replace("$$", "$")) for folder in folders))
    profile = trust.to_profile(context, file, folders=folders, name=name)
    text = model.to_toml(profile).encode()
    data = {"file": file.path, "name": name, "folders": [file.folder, *folders], "changed": text != old}
    if text == old:
        return Result(data, [f"{short} is trusted as profile '{name}'; nothing changed"])
    _require_folders(context, profile, name, args)
    _confirm(_content(context, profile, name, earlier), short, yes=args.yes)
    manage.write(context, "trust", name, text, replace=old is not None, expected=old)
    switch = f"taoprof use {name}{_mkdir(context, profile, name)}"
    return Result(data, [f"{short} is trusted as profile '{name}'. To switch to it: {switch}"])


def _mkdir(context: Context, profile: Profile, name: str) -> str:
    """Return the option that a switch needs if folders do not exist: a clone has no results, and often no data."""
    try:
        mounts = _renderer(context, profile, name).summary()["mounts"]
    except InvalidProfileError:  # a variable of the environment is not set here
        return ""
    return " --mkdir" if any(mount["exists"] is False for mount in mounts) else ""


def _confirm(lines: list[str], short: str, *, yes: bool) -> None:
    for line in lines:
        print_progress(line)
    if yes:
        return
    if not prompts.can_ask():
        raise UsageError(f"{short} is not trusted yet", hint="if you trust this: taoprof trust --yes")
    if not prompts.confirm("Trust this?"):
        raise Declined("not trusted")


def _name(context: Context, args: argparse.Namespace, file: project.ProjectFile) -> str:
    """Return the name of the profile for a project file. Raises UsageError if another profile has it."""
    before = project.trusted(context, file.path).get(file.path)
    name: str = args.name or before or os.path.basename(file.folder)
    if before is not None and name != before:
        short = context.short(file.path)
        raise UsageError(f"{short} is trusted as '{before}'", hint=f"taoprof rename {before} {name}")
    if args.name is None and not is_name(name):
        raise UsageError(f"'{name}' cannot be the name of a profile", hint="taoprof trust --name NAME")
    if before is None and Store(context).text_or_none(name) is not None:
        raise UsageError(f"profile '{name}' already exists", hint="taoprof trust --name OTHER")
    return name


def _renderer(context: Context, profile: Profile, name: str) -> Renderer:
    return Renderer(model.template(profile, name=name), context, name=name, path=project.FILE)


def _require_folders(context: Context, profile: Profile, name: str, args: argparse.Namespace) -> None:
    """Raise UsageError if a mount is outside of the project and of what was allowed: each folder is named by hand."""
    renderer = _renderer(context, profile, name)
    outside = renderer.outside_project()
    try:
        renderer.mapping()
    except InvalidProfileError as error:
        others = set(error.problems) - {problem for _, problem in outside}
        if others and not unset_variables(list(others)):
            raise
    if outside:
        folders = dict.fromkeys(context.short(folder) for folder, _ in outside)
        options = " ".join(f"--allow {shlex.quote(folder)}" for folder in folders)
        file = f" {shlex.quote(args.file)}" if args.file else ""
        raise UsageError(
            "the project file mounts folders outside of the project",
            problems=[problem for _, problem in outside],
            hint=f"if you want to mount them: taoprof trust{file} {options}",
        )


def _content(context: Context, profile: Profile, name: str, old: Profile | None) -> list[str]:
    """Return what a project file sets, as it will be used; behind a first time also what has changed."""
    title = f"'{name}' ({context.short(profile.project.file) if profile.project else ''})"
    try:
        lines = profile_lines(context, title, _renderer(context, profile, name).summary())
    except InvalidProfileError:  # a variable of the environment is not set here
        lines = [f"profile {title}", *model.to_toml(profile).splitlines()]
    if environment := trust.environment(profile, name):
        lines.append(f"taken from your environment: {', '.join(environment)}")
    if old is not None:
        changes = list(unified_diff(_settings(old), _settings(profile), lineterm="", n=0))[2:]
        lines += ["changes since it was trusted:", *(f"  {line}" for line in changes or ["none of what it sets"])]
    return lines


def _settings(profile: Profile) -> list[str]:
    return model.to_toml(profile.model_copy(update={"project": None})).splitlines()


def _list(context: Context) -> Result:
    known = project.trusted(context)
    rows = [(name, context.short(file)) for file, name in sorted(known.items())]
    data = {"projects": [{"name": name, "file": file} for file, name in sorted(known.items())]}
    return Result(data, table([("PROFILE", "FILE"), *rows]) if rows else ["no project file is trusted"])


def _revoke(context: Context, target: str) -> Result:
    """Remove the copy of a project file, given by the profile's name or the file's path."""
    path = os.path.realpath(context.absolute(target))
    path = path if os.path.basename(path) == project.FILE else os.path.join(path, project.FILE)
    known = project.trusted(context, target if is_name(target) else path)
    name = target if target in known.values() else known.get(path)
    if name is None:
        raise NotFoundError(f"'{target}' is no trusted project file", hint="taoprof trust --list")
    manage.remove(context, name, force=False)
    messages = kernels.follow(context, name, None)
    return Result(
        {"name": name}, [f"profile '{name}' removed; its project file is no longer trusted"], messages=messages
    )
