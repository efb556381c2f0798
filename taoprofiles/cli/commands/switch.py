"""use, undo, history."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_no_check, add_profile, add_reveal, add_timeout, add_wait
from taoprofiles.cli.formatting import outcome, when
from taoprofiles.cli.output import note, table
from taoprofiles.cli.result import Result
from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.journal import History
from taoprofiles.switching import switch
from taoprofiles.switching.status import warnings

if TYPE_CHECKING:
    import argparse

    from taoprofiles.storage.journal import Entry
    from taoprofiles.storage.paths import Context


def use_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, optional=True, help="the profile; - is the one before; without it, choose from a list")
    parser.add_argument("--create", action="store_true", help="make the profile from this folder if there is none")
    parser.add_argument("--mkdir", action="store_true", help="make the source folders that are missing")
    add_no_check(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    add_wait(parser)
    parser.add_argument("--release", metavar="ID", help="let go of that hold, although its work goes on")
    parser.add_argument("--yes", action="store_true", help="do not ask before --release")
    add_reveal(parser)
    add_timeout(parser)


def use_verb(context: Context, args: argparse.Namespace) -> Result:
    name = _pick(context) if args.name is None else args.name
    messages = _created(context, args, name) if args.create and name != "-" else []
    try:
        done = _switched(context, args, name)
    except TaoprofError as error:
        if messages:
            error.hint = f"profile '{name}' was made; " + error.hint.removeprefix("nothing was changed; ")
        raise
    if done.folders:
        messages.append(("would make: " if args.dry_run else "made: ") + ", ".join(map(context.short, done.folders)))
    messages += switch.kept_note(done.kept)
    messages += [f"warning: {text}" for text in done.unseen]
    messages += warnings(context, secrets=mapping.secrets(done.wanted, derived=done.secrets))
    changes = [change.as_dict(reveal=args.reveal) for change in done.changes]
    data = {
        "name": done.name,
        "previous": done.previous,
        "changed": done.changed,
        "dry_run": args.dry_run,
        "changes": changes,
        "made_folders": done.folders,
        "kept": done.kept,
    }
    return Result(data, _told(context, args, done), messages=messages)


def _created(context: Context, args: argparse.Namespace, name: str) -> list[str]:
    """Make the profile of the current folder if there is none of that name; say so."""
    if Store(context).text_or_none(name) is not None:
        return []
    if args.dry_run:
        raise UsageError("--create and --dry-run together: there is no profile yet to show the plan of")
    from taoprofiles.profiles import manage

    made, why = manage.new(context, name, project_dir=".", timeout=args.timeout)
    return [f"profile '{name}' made, layout '{made.layout}': {why}"]


def _switched(context: Context, args: argparse.Namespace, name: str) -> switch.Switch:
    if args.release is not None and not args.dry_run:
        from taoprofiles.cli.commands.run import confirm_release
        from taoprofiles.holds import manage

        confirm_release(manage.mark_released(manage.active_holds(context), args.release), yes=args.yes)

    def attempt() -> switch.Switch:
        return switch.use(
            context,
            name,
            dry_run=args.dry_run,
            mkdir=args.mkdir,
            check=args.check,
            release=args.release,
            timeout=args.timeout,
        )

    if args.wait is None:
        return attempt()
    from taoprofiles.holds.waiting import wait_until_free

    return wait_until_free(context, "use", attempt, seconds=args.wait, say=lambda text: note(f"taoprof: {text}"))


def _told(context: Context, args: argparse.Namespace, done: switch.Switch) -> list[str]:
    lines = [line for change in done.changes for line in change.lines(reveal=args.reveal)] if args.dry_run else []
    before = f" (before: '{done.previous}')" if done.previous else ""
    if not done.changed:
        return [*lines, f"'{done.name}' is active already; nothing changed"]
    if args.dry_run:
        return [*lines, f"would switch to '{done.name}'{before}"]
    if done.name == done.previous:
        return [f"'{done.name}' activated again: {context.short(context.mapping_file)} now has its mapping"]
    return [f"switched to '{done.name}'{before}"]


def _pick(context: Context) -> str:
    names = Store(context).names()
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("which profile: no name given", hint="'taoprof list' shows all")
    if not names:
        raise UsageError("there is no profile yet", hint="'taoprof new NAME' makes one from the current folder")
    import shutil

    from taoprofiles.cli.picker import choose

    return choose(names, fzf=shutil.which("fzf"))


def undo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", nargs="?", help="a number that history shows; default: the last change")
    add_timeout(parser)


def undo_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import manage

    entry, name = manage.undo(context, args.id, timeout=args.timeout)
    if entry.was is not None:
        line = f"undone: '{entry.profile}' is called '{entry.was}' again"
    elif entry.target == "profile":
        line = f"undone: profile '{entry.profile}' {'is gone again' if entry.before is None else 'is as it was'}"
    elif entry.before is None:
        line = f"undone: there is no {context.short(context.mapping_file)}, as before entry {entry.id}"
    else:
        line = f"undone: {context.short(context.mapping_file)} is as it was before entry {entry.id}"
        line += f"; '{name}' is active" if name else "; no profile made that mapping"
    data = {"id": entry.id, "target": entry.target, "profile": entry.profile, "name": name}
    return Result(data, [line])


def history_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="every entry, not only the last 20")


def history_verb(context: Context, args: argparse.Namespace) -> Result:
    entries: list[Entry] = []
    for entry in History(context).newest_first():
        if len(entries) == 20 and not args.all:
            break
        entries.append(entry)
    oldest_id = entries[-1].id if entries else 0
    interrupted: set[int] = set()
    for entry, took_effect in History(context).timeline(files.read_mapping_file(context)):
        if entry.id < oldest_id:
            break
        if not took_effect:
            interrupted.add(entry.id)
    from taoprofiles.runs import log

    oldest = 0.0 if args.all or not entries else entries[-1].time
    runs = [run for run in log.all_runs(context) if run.since >= oldest][: None if args.all else 20]
    data = {
        "entries": [{**entry.as_dict(), "took_effect": entry.id not in interrupted} for entry in entries],
        "runs": [run.as_dict() for run in runs],
    }
    rows = []
    for entry in entries:
        what = entry.action
        if what == "found":
            what = "found another program's mapping" if entry.after else "found the mapping file removed"
            what += f" by {entry.writer}" if entry.writer else ""
        elif what == "restore":
            what = "put back what is held"
        what += " (interrupted)" if entry.id in interrupted else ""
        of = f"{entry.was} → {entry.profile}" if entry.was else entry.profile or "-"
        rows.append((entry.time, (str(entry.id), when(entry.time), what, of, entry.by)))
    for run in runs:
        what = f"{run.kind} {run.title()}: {outcome(run)}"
        by = f"{run.user}@{run.host} pid {run.pid}"
        rows.append((run.since, (run.id, when(run.since), what, run.profile or "-", by)))
    rows.sort(key=lambda row: row[0], reverse=True)
    lines = table([("ID", "TIME", "WHAT", "PROFILE", "BY"), *(row for _, row in rows)])
    return Result(data, lines if rows else ["the history is empty"])
