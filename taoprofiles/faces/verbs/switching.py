"""use, undo, history."""

from __future__ import annotations

import sys
import time

from taoprofiles.errors import UsageError
from taoprofiles.faces.arguments import add_profile, add_reveal, add_timeout
from taoprofiles.faces.output import table
from taoprofiles.faces.result import Result
from taoprofiles.operations import switch
from taoprofiles.operations.situation import look, warnings
from taoprofiles.state.history import History
from taoprofiles.state.store import Store
from taoprofiles.values import mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from taoprofiles.state.history import Entry
    from taoprofiles.state.paths import Context


def use_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, optional=True, help="the profile; - is the one before; without it, choose from a list")
    parser.add_argument("--create", action="store_true", help="make the profile from this folder if there is none")
    parser.add_argument("--mkdir", action="store_true", help="make the source folders that are missing")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    add_reveal(parser)
    add_timeout(parser)


def use_verb(context: Context, args: argparse.Namespace) -> Result:
    name = args.name or _pick(context)
    messages = []
    if args.create and name != "-" and Store(context).text_or_none(name) is None:
        if args.dry_run:
            raise UsageError("--create and --dry-run together: there is no profile yet to show the plan of")
        from taoprofiles.operations import profiles

        made, why = profiles.new(context, name, project_dir=".", timeout=args.timeout)
        messages.append(f"profile '{name}' made, layout '{made.layout}': {why}")
    done = switch.use(context, name, dry_run=args.dry_run, mkdir=args.mkdir, timeout=args.timeout)
    lines = [line for change in done.changes for line in change.lines(reveal=args.reveal)] if args.dry_run else []
    before = f" (before: '{done.previous}')" if done.previous else ""
    if not done.changed:
        lines.append(f"'{done.name}' is active already; nothing changed")
    elif args.dry_run:
        lines.append(f"would switch to '{done.name}'{before}")
    elif done.name == done.previous:
        lines.append(f"'{done.name}' activated again: {context.short(context.mapping_file)} now has its mapping")
    else:
        lines.append(f"switched to '{done.name}'{before}")
    if done.folders:
        messages.append(("would make: " if args.dry_run else "made: ") + ", ".join(map(context.short, done.folders)))
    if done.kept is not None:
        messages.append(
            f"the mapping that was there, which no profile had made, is kept: 'taoprof undo {done.kept}' brings it back"
        )
    messages += warnings(context, secrets=mapping.secrets(done.wanted))
    data = {
        "name": done.name,
        "previous": done.previous,
        "changed": done.changed,
        "dry_run": args.dry_run,
        "changes": [change.as_dict(reveal=args.reveal) for change in done.changes],
        "made_folders": done.folders,
        "kept": done.kept,
    }
    return Result(data, lines, messages=messages)


def _pick(context: Context) -> str:
    names = Store(context).names()
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("which profile: no name given", hint="'taoprof list' shows all")
    if not names:
        raise UsageError("there is no profile yet", hint="'taoprof new NAME' makes one from the current folder")
    import shutil

    from taoprofiles.faces.picker import choose

    return choose(names, fzf=shutil.which("fzf"))


def undo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", nargs="?", help="a number that history shows; default: the last change")
    add_timeout(parser)


def undo_verb(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.operations import profiles

    entry, name = profiles.undo(context, args.id, timeout=args.timeout)
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
    interrupted = _interrupted(entries, look(context).entry)
    data = {"entries": [{**entry.as_dict(), "took_effect": entry.id not in interrupted} for entry in entries]}
    rows = [("ID", "TIME", "WHAT", "PROFILE", "BY")]
    for entry in entries:
        what = {"found": "found another program's mapping"}.get(entry.action, entry.action)
        what += " (interrupted)" if entry.id in interrupted else ""
        of = f"{entry.was} → {entry.profile}" if entry.was else entry.profile or "-"
        rows.append((str(entry.id), when(entry.time), what, of, entry.by))
    return Result(data, table(rows) if entries else ["the history is empty"])


def when(seconds: float) -> str:
    """Write a time as people read it, in their own time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _interrupted(entries: list[Entry], in_force: Entry | None) -> set[int]:
    """Tell which of the newest entries never changed the file: what comes next found what was there before them."""
    found: set[int] = set()
    later: Entry | None = None
    for entry in entries:
        if entry.target == "mapping":
            if later is not None:
                undone = later.before == entry.before != entry.after
            else:
                undone = in_force is not None and in_force.id < entry.id
            if undone:
                found.add(entry.id)
            later = entry
    return found
