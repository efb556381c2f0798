"""use, undo, history."""

from __future__ import annotations

import argparse
import os
from itertools import islice, starmap
from typing import TYPE_CHECKING, Any

from taoprofiles import current_cache
from taoprofiles.cli.arguments import again
from taoprofiles.cli.output import Declined, Result, change_lines, exit_status, format_time, print_progress, table
from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.holds.hold import QUEUED, HeldError, Hold
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.journal import Entry, History
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.switching import switch
from taoprofiles.switching.status import get_warnings
from taoprofiles.system.filesystem import real_paths

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN_ENTRIES = 20


def use_command(context: Context, args: argparse.Namespace) -> Result:
    name = args.name
    if name is None:
        from taoprofiles.cli import prompts

        name = prompts.choose_profile(Store(context).names())
    messages = _create(context, args, name) if args.create and name != "-" else []
    try:
        switched = _switch(context, args, name)
    except TaoprofError as error:
        if args.name is not None:  # the hint to create folders has all options that were given
            error.hint = error.hint.replace(f"taoprof use {name} --mkdir", again(args, "--mkdir"))
        if messages:
            error.hint = f"profile '{name}' was created; " + error.hint.removeprefix("nothing was changed. ")
        raise
    if switched.folders:
        folders, verb = _outermost(switched.folders), "would create" if args.dry_run else "created"
        if len(folders) == 1:
            messages.append(f"{verb} {context.short(folders[0])}")
        else:
            messages += [f"{verb} {len(folders)} folders:", *(f"  {context.short(path)}" for path in folders)]
    if args.release is not None and not args.dry_run and not switched.changes:
        messages.append(
            f"hold {args.release} stays, because the mapping is the same. To release it: taoprof release {args.release}"
        )
    messages += switch.kept_message(switched.saved_entry)
    messages += [*(f"warning: {text}" for text in switched.unchecked), *switched.limits]
    if own := current_cache.own_profile(context):
        messages.append(f"note: a 'tao' started here still uses profile '{own}', through a mounts file of its own")
    elif not args.dry_run:
        messages += _stale_variables(context, switched)
    messages += get_warnings(context, secrets=mapping.secrets(switched.wanted, derived=switched.secrets))
    data = {
        "name": switched.name,
        "previous": switched.previous,
        "changed": switched.changed,
        "dry_run": args.dry_run,
        "changes": [change.as_dict(reveal=args.reveal) for change in switched.changes],
        "made_folders": switched.folders,
        "kept": switched.saved_entry,
    }
    return Result(data, _use_lines(context, args, switched), messages=messages)


def _outermost(folders: list[str]) -> list[str]:
    """Return the folders that are not in another one of them: the home and the caches of a container are many."""
    return [path for path in folders if not any(path != other and is_inside(path, other) for other in folders)]


def _stale_variables(context: Context, switched: switch.SwitchResult) -> list[str]:
    """Return the message for a shell that has another profile's variables, as after ``eval "$(taoprof env …)"``."""
    store, environ = Store(context), context.environ
    try:
        variables = store.renderer(switched.name or "").variables()
        differing = [name for name, value in variables.items() if environ.get(name, value) != value]
        if not any(variables[name].startswith("/") for name in differing):
            return []
        before = store.renderer(switched.previous).variables() if switched.previous else {}
    except TaoprofError:
        return []
    whose = f"has variables that differ from profile '{switched.name}'"
    if all(before.get(name) == environ[name] for name in differing):
        whose = f"still has the variables of '{switched.previous}'"
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    command = f'eval "$(taoprof env {switched.name} --reveal)"'
    if os.path.basename(environ.get("SHELL", "")) == "fish":
        command = f"taoprof env {switched.name} --reveal --format fish | source"
    return [f"this shell {whose} ({', '.join(differing[:3])}{more}). To update them: {command}"]


def _create(context: Context, args: argparse.Namespace, name: str) -> list[str]:
    """Create the profile from the current folder if there is none of that name; return the message about it."""
    if Store(context).text_or_none(name) is not None:
        return []
    if args.dry_run:
        raise UsageError(f"--dry-run needs an existing profile; '{name}' does not exist")
    from taoprofiles.cli import prompts
    from taoprofiles.profiles import manage

    messages = prompts.confirm_home(context)
    profile, reason = manage.new(context, name, project_dir=".")
    return [*messages, f"profile '{name}' created, layout '{profile.layout}': {reason}"]


def _switch(context: Context, args: argparse.Namespace, name: str) -> switch.SwitchResult:
    def attempt(*, dry_run: bool = args.dry_run) -> switch.SwitchResult:
        return switch.switch_profile(
            context, name, dry_run=dry_run, mkdir=args.mkdir, check=not args.force, release=args.release
        )

    if args.release is not None and not args.dry_run:
        from taoprofiles.cli import prompts
        from taoprofiles.holds import manage

        hold = manage.mark_released(manage.active_holds(context), args.release)
        try:
            attempt(dry_run=True)  # nothing is asked for a switch that fails anyway
        except HeldError:
            if args.wait is None:
                raise
        prompts.confirm_release(hold, yes=args.yes)
    if args.wait is None:
        return attempt()
    from taoprofiles.holds.queue import Request, wait_until_free

    request = Request(name, ["taoprof", "use", name], mapping=True)
    return wait_until_free(context, request, lambda _: attempt(), seconds=args.wait, say=print_progress)


def _use_lines(context: Context, args: argparse.Namespace, switched: switch.SwitchResult) -> list[str]:
    lines = change_lines(switched.changes, reveal=args.reveal) if args.dry_run else []
    if lines:
        lines = [f"- {context.short(context.mapping_file)}", f"+ '{switched.name}'", *lines]
    before = f"from '{switched.previous}' " if switched.previous else ""
    if not switched.changed:
        unchanged = f"{context.short(context.mapping_file)} is unchanged" if switched.folders else "nothing changed"
        return [*lines, f"'{switched.name}' is already active; {unchanged}"]
    if args.dry_run:
        return [*lines, f"would switch {before}to '{switched.name}'"]
    if switched.name == switched.previous:
        return [f"'{switched.name}' applied again: {context.short(context.mapping_file)} now has its mapping"]
    return [f"switched {before}to '{switched.name}'"]


def undo_command(context: Context, args: argparse.Namespace) -> Result:
    plan = switch.find_undo(context, args.id)
    entry = plan.entry
    number, time, action, profile, _ = _entry_row(entry, is_interrupted=False)
    effect, done = _undo_effect(context, plan)
    line = f"undoing entry {number} ({action}{'' if profile == '-' else f' {profile}'}, {time}): {effect}"
    messages = [] if args.json else [line]
    if plan.is_of_mapping:
        switch.undo(context, number)
    else:
        from taoprofiles.profiles import kernels

        name = entry.profile or ""
        before = None if Store(context).text_or_none(name) is None else name
        after = name if entry.was is None and entry.before is not None else entry.was
        with kernels.follow(context, before, after) as effects:
            switch.undo(context, number)
        messages += effects
    data = {"id": entry.id, "target": entry.target, "profile": entry.profile, "name": plan.name}
    return Result(data, [f"entry {number} undone: {done}"], messages=messages)


def _undo_effect(context: Context, plan: switch.Undo) -> tuple[str, str]:
    """Return what an undo will do, and what it has done."""
    entry, path = plan.entry, context.short(context.mapping_file)
    if entry.was is not None:
        return (
            f"renames profile '{entry.profile}' to '{entry.was}'",
            f"profile '{entry.profile}' renamed to '{entry.was}'",
        )
    if entry.target == "profile":
        verb, done = ("removes", "removed") if entry.before is None else ("restores", "restored")
        return f"{verb} profile '{entry.profile}'", f"profile '{entry.profile}' {done}"
    if entry.before is None:
        return f"removes {path}", f"{path} removed"
    if plan.name is None:
        what, active = "the previous mapping, which is not from a profile,", "no profile is active"
    else:
        what, active = f"the mapping of '{plan.name}'", f"'{plan.name}' is active"
    return f"restores {what} in {path}", f"{path} has its previous mapping; {active}"


def history_command(context: Context, args: argparse.Namespace) -> Result:
    if args.purge:
        return _purge(context, yes=args.yes)
    if args.path is not None:
        return _history_of_path(context, args)
    from taoprofiles.runs import lookup

    limit = None if args.all else SHOWN_ENTRIES
    outcomes = History(context).outcomes(files.read_mapping_file(context))
    changes = islice(((entry, took_effect) for entry, _, took_effect in outcomes), limit)

    def runs(oldest: float) -> Iterator[Hold]:
        return islice(lookup.runs_since(context, 0.0 if args.all else oldest), limit)

    if args.json:
        entries = list(changes)
        listed = list(runs(entries[-1][0].time if entries else 0.0))
        return Result({"entries": starmap(_entry_data, entries), "runs": map(Hold.as_dict, listed), "path": None})
    rows = [(entry.time, _entry_row(entry, is_interrupted=not took_effect)) for entry, took_effect in changes]
    rows += [(run.since, _run_row(run)) for run in runs(rows[-1][0] if rows else 0.0)]
    rows.sort(key=lambda row: row[0], reverse=True)
    lines = table([("ID", "TIME", "WHAT", "PROFILE", "BY"), *(row for _, row in rows)], fit=True)
    return Result({}, lines if rows else ["the history is empty"])


def _purge(context: Context, *, yes: bool) -> Result:
    from taoprofiles.cli import prompts

    if not yes and not prompts.can_ask():
        raise UsageError("--purge cannot be undone", hint="taoprof history --purge --yes")
    question = "Delete the history and all logs, so that nothing earlier can be restored?"
    if not yes and not prompts.confirm(question):
        raise Declined("nothing was deleted")
    switch.purge(context)
    data: dict[str, Any] = {"entries": [], "runs": [], "path": None}
    return Result(data, ["deleted the history, the contents stored for it and the logs"])


def _history_of_path(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.runs import lookup

    path = next(real_paths([os.path.expanduser(args.path)]))
    runs = lookup.runs_writing(context, args.path, None if args.all else SHOWN_ENTRIES)
    if args.json:
        return Result({"entries": [], "runs": map(Hold.as_dict, runs), "path": path})
    lines = []
    for run in runs[: None if args.all else 5]:
        outcome = "still running" if run.ended is None else exit_status(run)
        started = format_time(run.since)
        lines.append(f"run {run.id}, profile '{run.profile}', {started}, {run.user}@{run.host}, {outcome}")
        lines.append(f"  {' '.join(run.command)}")
        lines += table([(source, "→", destination) for source, destination in run.mounts], indent="  ")
    return Result({}, lines or [f"no recorded run wrote to '{path}'"])


def _entry_data(entry: Entry, took_effect: bool) -> dict[str, Any]:
    return {key: value for key, value in entry._asdict().items() if key != "done"} | {"took_effect": took_effect}


_ACTIONS = {"restore": "restored the held mapping", "mend": "fix"}  # "mend" is written by earlier versions


def _entry_row(entry: Entry, *, is_interrupted: bool) -> tuple[str, ...]:
    action = _ACTIONS.get(entry.action, entry.action)
    if entry.action == "found":
        action = "mapping file written by another program" if entry.after else "mapping file removed"
    action += " (interrupted)" if is_interrupted else ""
    profile = f"{entry.was} → {entry.profile}" if entry.was else entry.profile or "-"
    by = entry.by.partition(" pid ")[0] if entry.action != "found" else entry.writer or "-"  # we have only noticed it
    return str(entry.id), format_time(entry.time), action, profile, by


def _run_row(run: Hold) -> tuple[str, ...]:
    outcome = f"exit {'unknown' if run.status is None else run.status}"
    if run.ended is None:
        outcome = QUEUED if run.phase == QUEUED else "running"
    by = f"{run.user}@{run.host}"
    return run.id, format_time(run.since), f"{run.kind}, {outcome}: {run.title()}", run.profile or "-", by
