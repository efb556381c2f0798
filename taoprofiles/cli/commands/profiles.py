"""new, edit, set, rename, remove, trust."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from difflib import unified_diff
from typing import TYPE_CHECKING

from taoprofiles.cli import prompts
from taoprofiles.cli.arguments import again, split_setting
from taoprofiles.cli.output import (
    STDERR,
    Declined,
    Result,
    after_change,
    missing_folders,
    print_progress,
    profile_lines,
    table,
)
from taoprofiles.errors import InvalidProfileError, NotFoundError, TaoprofError, UsageError, reason_of
from taoprofiles.profiles import kernels, manage, model
from taoprofiles.profiles.convert import from_project_file, path_expression, project_renderer
from taoprofiles.profiles.layouts import EXAMPLE_IMAGE
from taoprofiles.profiles.rendering import SIZE_LIMIT, environment_names, unset_variables
from taoprofiles.profiles.store import (
    PROJECT_FILE,
    ProjectFile,
    Store,
    find_project_file,
    is_name,
    project_path,
    read_project_file,
    trusted_files,
)
from taoprofiles.storage import atomic, files
from taoprofiles.storage.journal import digest_of
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.switching.status import get_status
from taoprofiles.system.filesystem import answers

if TYPE_CHECKING:
    from taoprofiles.profiles.model import Profile
    from taoprofiles.profiles.rendering import Renderer


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
        options = {key: getattr(args, key) for key in ("notebook_dir", "network", "layout", "image")}
        folder, description = args.project_dir or ".", args.description or ""
        _, reason = manage.new(context, name, project_dir=folder, description=description, **options)
    else:
        _refuse_with(args, "from")
        manage.copy(context, args.source, name)
        reason = f"copied from '{args.source}'"
    again = f"run 'taoprof remove {name}' and the command again" if args.project else f"run 'taoprof show {name}'"
    with after_change(f"profile '{name}' was created", again=again):
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
    store, name = Store(context), args.name
    profile = store.profile(name)
    folder = os.path.realpath(context.expand_user(profile.project_dir or context.folder))
    path, omitted = manage.write_project_file(context, profile, folder, name=name)
    messages = [f"project file written: {context.short(path)}"]
    if omitted:
        what = f"left out, not allowed in a project file: {', '.join(omitted)}"
        messages.append(f"{what}. For your own: taoprof new MINE --extends {name}")
    return messages


def edit_command(context: Context, args: argparse.Namespace) -> Result:
    changed = _edit(context, args.name)
    line = f"profile '{args.name}' {'changed' if changed else 'not changed'}"
    return Result({"name": args.name, "changed": changed, "path": Store(context).path(args.name)}, [line])


def _edit(context: Context, name: str) -> bool:
    """Open a profile in $VISUAL or $EDITOR; return whether it was changed.

    The editor gets a copy, named after the text it was made from. If the copy cannot become the profile, because it is
    not valid or the profile was changed meanwhile, it is kept, and the next ``edit`` of the same text opens it again.
    Raises InvalidProfileError, TaoprofError.
    """
    prompts.refuse_in_cell("an editor", f"'taoprof edit {name}' in a terminal, or: taoprof set {name} KEY=VALUE")
    before = Store(context).text(name)
    with suppress(InvalidProfileError):  # which is what the editor is for
        manage.require_own(name, Store(context).template(name))
    draft = os.path.join(context.rejected, f"{name}.{digest_of(before)[:12]}.toml")
    if files.exists(draft) and not _is_unchanged(draft, before):  # a killed 'edit' may have left an unchanged one
        print_progress(f"resuming your last edit, which was not saved; to discard it: rm {draft}")
    else:
        with Lock(context.lock):
            files.make_folder(context.rejected)
            atomic.replace(draft, before)
    try:
        _open_editor(context, draft, name)
        text = files.read(draft, SIZE_LIMIT)
        if text is None:
            raise TaoprofError(f"profile '{name}' not changed: the editor removed '{draft}'")
        if text != before:
            manage.write(context, "edit", name, text, replace=True, expected=before)
    except BaseException as error:
        if _is_unchanged(draft, before):
            files.unlink_quietly(draft)  # nothing was written, so there is nothing to resume
        elif isinstance(error, TaoprofError):
            error.hint = f"your edit is kept in '{draft}'; to open it again: taoprof edit {name}"
        raise
    finally:
        files.make_private(draft)  # many editors write a new file, with the mode of the umask
    files.unlink_quietly(draft)
    return text != before


def _is_unchanged(draft: str, before: bytes) -> bool:
    try:
        return files.read(draft, SIZE_LIMIT) == before
    except TaoprofError:
        return False


def _open_editor(context: Context, path: str, name: str) -> None:
    command = context.environ.get("VISUAL") or context.environ.get("EDITOR")
    if not command and not sys.stdin.isatty():
        raise UsageError(
            "'edit' needs a terminal, or an editor in EDITOR that needs none", hint=f"taoprof set {name} KEY=VALUE"
        )
    command = command or "vi"
    try:
        stdout = None if sys.stdout.isatty() else STDERR  # what an editor draws is not part of our answer
        completed = subprocess.run([*shlex.split(command), path], stdout=stdout, check=False)  # noqa: S603 - the user's
    except (OSError, ValueError) as error:
        another = "vi" if command == "nano" else "nano"
        raise TaoprofError(
            f"cannot start the editor '{command}': {reason_of(error)}",
            hint=f"to use another editor: EDITOR={another} taoprof edit {name}",
        ) from None
    if completed.returncode != 0:
        raise TaoprofError(f"profile not changed: the editor '{command}' exited with status {completed.returncode}")


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
    what = f"changed: {', '.join(settings)}" if is_changed else "not changed: it has these settings already"
    with after_change(f"profile '{args.name}' was changed"):
        messages = _describe_problems(context, args.name, settings)
        entry = manage.active_entry(context)  # the active profile is not read if it is another one
        active = entry.profile if entry is not None else None
        if active in (args.name, *Store(context).extending(args.name)) and get_status(context).state == "drifted":
            path = context.short(context.mapping_file)
            messages.append(f"{path} does not have this change yet. To apply it: taoprof use {active}")
    return Result({"name": args.name, "keys": list(settings)}, [f"profile '{args.name}' {what}"], messages=messages)


def _describe_problems(context: Context, name: str, settings: Mapping[str, str | None]) -> list[str]:
    """Return what 'check' finds wrong with settings; missing folders as one message."""
    from taoprofiles.check.report import check_settings

    lines, folders = [], []
    for finding in check_settings(context, name, settings):
        if finding.id == "src-missing" and finding.fix:
            folders.append(finding.fix[1])
        else:
            lines.append(f"warning: {finding.where}: {'; '.join(filter(None, (finding.what, finding.why)))}")
    return lines + missing_folders(context, name, folders)


def rename_command(context: Context, args: argparse.Namespace) -> Result:
    with kernels.follow(context, args.name, args.to) as messages:
        manage.rename(context, args.name, args.to)
    data = {"name": args.to, "path": Store(context).path(args.to)}
    return Result(data, [f"profile '{args.name}' renamed to '{args.to}'"], messages=messages)


def remove_command(context: Context, args: argparse.Namespace) -> Result:
    with kernels.follow(context, args.name, None) as messages:
        manage.remove(context, args.name, force=args.force)
    line = f"profile '{args.name}' removed. To restore it: taoprof undo"
    return Result({"name": args.name}, [line], messages=messages)


def trust_command(context: Context, args: argparse.Namespace) -> Result:
    if args.list:
        return _list(context)
    path = args.file or find_project_file(context)
    if path is None:
        raise NotFoundError(f"no {PROJECT_FILE} here or above", hint="to write one: taoprof new NAME --project")
    if args.revoke:
        return _revoke(context, args.file or path)
    file = read_project_file(context.absolute(path))
    name = _name(context, args, file)
    store, short = Store(context), context.short(file.path)
    old = store.text_or_none(name)
    earlier = None if old is None else store.profile(name)
    folders = [] if earlier is None or earlier.project is None else earlier.project.folders[1:]  # without the project's
    folders += [path_expression(context, folder) for folder in args.allow]
    folders = list(dict.fromkeys(context.expand_user(folder.replace("$$", "$")) for folder in folders))
    profile = from_project_file(context, file, folders=folders, name=name)
    text = model.to_toml(profile).encode()
    data = {"file": file.path, "name": name, "folders": [file.folder, *folders], "changed": text != old}
    if text == old:
        return Result(data, [f"{short} is trusted as profile '{name}'; nothing changed"])
    renderer = project_renderer(context, profile, name)
    _require_folders(renderer, args)
    try:
        summary = renderer.summary()
        lines = profile_lines(context, f"'{name}' ({short})", summary)
    except InvalidProfileError:  # a variable of the environment is not set here
        summary, lines = {"mounts": []}, [f"profile '{name}' ({short})", *text.decode().splitlines()]
    _confirm(args, [*lines, *_notes(profile, name, earlier)], short)
    manage.write(context, "trust", name, text, replace=old is not None, expected=old)
    # A clone of a repository has no results, and often no data.
    mkdir = " --mkdir" if any(mount["exists"] is False for mount in summary["mounts"]) else ""
    return Result(data, [f"{short} is trusted as profile '{name}'. To switch to it: taoprof use {name}{mkdir}"])


def _confirm(args: argparse.Namespace, lines: list[str], short: str) -> None:
    print_progress(*lines)
    if args.yes:
        return
    if not prompts.can_ask():
        raise UsageError(f"{short} is not trusted yet", hint=f"if you trust this: {again(args, '--yes')}")
    if not prompts.confirm("Trust this?"):
        raise Declined("not trusted")


def _name(context: Context, args: argparse.Namespace, file: ProjectFile) -> str:
    """Return the name of the profile for a project file. Raises UsageError if another profile has it."""
    before = trusted_files(context, file.path).get(file.path)
    name: str = args.name or before or os.path.basename(file.folder)
    if before is not None and name != before:
        short = context.short(file.path)
        raise UsageError(f"{short} is trusted as '{before}'", hint=f"taoprof rename {before} {name}")
    if args.name is None and not is_name(name):
        raise UsageError(f"'{name}' cannot be the name of a profile", hint=again(args, "--name NAME"))
    if before is None and Store(context).text_or_none(name) is not None:
        hint = f"choose another name; to see it: taoprof show {name}" if args.name else again(args, "--name OTHER")
        raise UsageError(f"profile '{name}' already exists", hint=hint)
    return name


def _require_folders(renderer: Renderer, args: argparse.Namespace) -> None:
    """Raise UsageError if a mount is outside of the project and of the folders that the user has allowed by name."""
    outside = renderer.outside_project()
    try:
        renderer.mapping()
    except InvalidProfileError as error:
        others = set(error.problems) - {problem for _, problem in outside}
        if others and not unset_variables(list(others)):
            raise
    if outside:
        folders = dict.fromkeys(renderer.context.short(folder) for folder, _ in outside)
        options = " ".join(f"--allow {shlex.quote(folder)}" for folder in folders)
        raise UsageError(
            "the project file mounts folders outside of the project",
            problems=[problem for _, problem in outside],
            hint=f"if you want to mount them: {again(args, options)}",
        )


def _notes(profile: Profile, name: str, old: Profile | None) -> list[str]:
    """Return which variables a project file takes; if it was trusted before, also what has changed."""
    environment = ", ".join(environment_names(model.template(profile, name=name)))
    lines = [f"taken from your environment: {environment}"] if environment else []
    if old is not None:
        changes = list(unified_diff(_settings(old), _settings(profile), lineterm="", n=0))[2:]
        lines += ["changes since it was trusted:", *(f"  {line}" for line in changes or ["none of what it sets"])]
    return lines


def _settings(profile: Profile) -> list[str]:
    return model.to_toml(profile.model_copy(update={"project": None})).splitlines()


def _list(context: Context) -> Result:
    known = sorted(trusted_files(context).items())
    rows = [(name, context.short(file)) for file, name in known]
    data = {"projects": [{"name": name, "file": file} for file, name in known]}
    return Result(data, table([("PROFILE", "FILE"), *rows]) if rows else ["no project file is trusted"])


def _revoke(context: Context, target: str) -> Result:
    """Remove the copy of a project file, given by the profile's name or the file's path."""
    path = project_path(context.absolute(target))
    known = trusted_files(context, target if is_name(target) else path)
    name = target if target in known.values() else known.get(path)
    if name is None:
        raise NotFoundError(f"'{target}' is no trusted project file", hint="taoprof trust --list")
    with kernels.follow(context, name, None) as messages:
        manage.remove(context, name, force=False)
    line = f"profile '{name}' removed; its project file is no longer trusted"
    return Result({"name": name}, [line], messages=messages)
