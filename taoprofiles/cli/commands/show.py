"""list, show, diff, paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_profile, add_reveal
from taoprofiles.cli.commands.status import DIFFERS, resembles, resembling, unmanaged
from taoprofiles.cli.formatting import portrait_lines
from taoprofiles.cli.output import cut, table
from taoprofiles.cli.result import Result
from taoprofiles.errors import InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.profiles.summary import portrait
from taoprofiles.storage.locks import Lock
from taoprofiles.switching import status

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from taoprofiles.profiles.store import Summary
    from taoprofiles.storage.paths import Context


def list_verb(context: Context, args: argparse.Namespace) -> Result:
    found = status.look(context)
    summaries = _summaries(context)
    rows = [("", "NAME", "LAYOUT", "PROJECT", "LAST USED", "DESCRIPTION")]
    for summary in summaries:
        mark = ("*" if found.state == "active" else "~") if summary.name == found.name else ""
        if summary.problem:
            rows.append((mark or "!", summary.name, "", "", _used(summary), f"not valid: {cut(summary.problem)}"))
        else:
            project = context.short(summary.project_dir or "-")
            rows.append((mark, summary.name, summary.layout or "", project, _used(summary), summary.description))
    data = {
        "state": found.state,
        "profiles": [
            {
                "name": summary.name,
                "active": summary.name == found.name,
                "valid": not summary.problem,
                "description": summary.description,
                "layout": summary.layout,
                "project_dir": context.expanded(summary.project_dir),
                "path": summary.path,
                "last_used": summary.used,
                "problem": summary.problem or None,
            }
            for summary in summaries
        ],
    }
    messages = []
    if found.state == "unmanaged":
        near = resembling(context, found)
        messages.append(unmanaged(context, found) + (f"; it resembles {resembles(near)}" if near else ""))
    messages += [
        f"warning: '{name}' is no profile: a name has letters, digits, '.', '_' and '-'"
        for name in Store(context).misnamed()
    ]
    if not summaries:
        return Result(data, ["there is no profile yet; 'taoprof new NAME' makes one"], messages=messages)
    return Result(data, table(rows), messages=messages)


def _summaries(context: Context) -> list[Summary]:
    lock = Lock(context.lock)
    try:
        held = lock.try_acquire()
    except TaoprofError:
        held = False  # a home that cannot be written to can still be listed
    try:
        return Store(context).summaries(may_write=held)
    finally:
        lock.release()


def _used(summary: Summary) -> str:
    from taoprofiles.cli.formatting import when

    return when(summary.used)[:16] if summary.used else "-"


def show_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, optional=True, help="the profile; default: the active one")
    add_reveal(parser)


def show_verb(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    name = _active(context) if args.name is None else args.name
    seen = portrait(context, store.template(name), store.renderer(name), reveal=args.reveal)
    path = store.path(name)
    return Result(
        {"name": name, "path": path, **seen}, portrait_lines(context, f"'{name}' ({context.short(path)})", seen)
    )


def diff_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, "A", optional=True, help="a profile; default: the active one")
    add_profile(parser, "B", optional=True, help="another profile; default: the mapping file")
    add_reveal(parser)


def diff_verb(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    first, found = args.a, None if args.b is not None else status.look(context)
    if found is not None and first is None:
        first = found.name or found.last
        if first is None:
            raise NotFoundError("no profile is active, so there is nothing to compare", hint="'taoprof diff NAME'")
    a = store.renderer(first).mapping()
    if found is not None:
        if found.content is None:
            raise InvalidStateError(f"there is no mapping file ('{context.mapping_file}')")
        b, second = mapping.parse(found.content, context.mapping_file), context.short(context.mapping_file)
    else:
        b, second = store.renderer(args.b).mapping(), f"'{args.b}'"
    made = None if found is None else found.name or found.last
    changes = mapping.changes(a, b, secrets=store.secret_env(first, args.b, made))
    lines = [line for change in changes for line in change.lines(reveal=args.reveal)]
    lines = [f"- '{first}'", f"+ {second}", *lines] if changes else [f"'{first}' and {second} are the same"]
    data = {
        "a": first,
        "b": args.b,
        "same": not changes,
        "changes": [change.as_dict(reveal=args.reveal) for change in changes],
    }
    return Result(data, lines, status=DIFFERS if changes else 0)


def paths_verb(context: Context, args: argparse.Namespace) -> Result:
    data: dict[str, Any] = {
        "mapping_file": context.mapping_file,
        "profiles": context.profiles,
        "state": context.state,
        "history": context.history,
        "objects": context.objects,
        "cache": context.cache,
        "lock": context.lock,
        "guard": context.guard,
        "settings": context.settings,
    }
    return Result(data, table(list(data.items())))


def _active(context: Context) -> str:
    name = status.look(context).name
    if name is None:
        raise UsageError("no profile is active, and no name was given", hint="'taoprof list' shows all")
    return name
