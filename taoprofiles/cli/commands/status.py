"""current, status."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_reveal
from taoprofiles.cli.result import Result
from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import blocking_holds
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.switching import status as situation

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from taoprofiles.holds.hold import Hold
    from taoprofiles.storage.paths import Context
    from taoprofiles.switching.status import Situation

DIFFERS = 6


def current_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--short", action="store_true", help="for prompts: NAME, NAME~ if it drifted, ? if unmanaged")


def current_verb(context: Context, args: argparse.Namespace) -> Result:
    found = situation.look(context)
    data = {"name": found.name, "state": found.state}
    if args.short:
        word = {"active": found.name, "drifted": f"{found.name}~", "unmanaged": "?", "none": ""}[found.state] or ""
        return Result(data, [word])
    if found.state == "active":
        return Result(data, [found.name or ""])
    messages = [_explain(context, found)]
    return Result(data, [found.name or f"({found.state})"], messages=messages)


def status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help=f"exit with {DIFFERS} unless a profile is active and unchanged"
    )
    add_reveal(parser)


def status_verb(context: Context, args: argparse.Namespace) -> Result:
    found = situation.look(context)
    path = context.short(context.mapping_file)
    if os.path.islink(context.mapping_file):
        path += f" → {context.short(os.path.realpath(context.mapping_file))}"
    lines = [f"mapping file  {path}", f"state         {_explain(context, found)}"]
    if found.entry is not None:
        from taoprofiles.cli.formatting import when

        lines.append(f"since         {when(found.entry.time)}, {found.entry.by}, history entry {found.entry.id}")
    near = resembling(context, found)
    if near:
        lines.append(f"resembles     {resembles(near)}")
    changes = _drift(context, found, near)
    if changes:
        of = found.name or (near[0] if near else found.last)
        lines.append(f"differs       from what '{of}' renders now (-), the file has (+):")
        lines += ["  " + line for change in changes for line in change.lines(reveal=args.reveal)]
    from taoprofiles.cli.formatting import hold_table
    from taoprofiles.holds import manage

    stock = manage.active_holds(context)
    watching = _guard(context, stock.holds)
    lines.append(f"guard         {_guard_line(watching)}")
    if stock.holds:
        lines += ["alive:", *("  " + line for line in hold_table(stock.holds))]
    warnings = [f"warning: {text}" for text in stock.unseen]
    needing = blocking_holds(stock.holds, mapping.digest(found.content or b""))
    warnings += [f"warning: what the file holds is not what this needs: {hold.line()}" for hold in needing]
    warnings += [f"warning: hold {hold.id}: {text}" for hold in stock.holds for text in hold.differences]
    warnings += situation.warnings(context, secrets=_secrets(context, found))
    data = {
        "name": found.name,
        "state": found.state,
        "last": found.last,
        "problem": found.problem or None,
        "mapping_file": context.mapping_file,
        "since": found.entry.time if found.entry else None,
        "by": found.entry.by if found.entry else None,
        "entry": found.entry.id if found.entry else None,
        "resembles": near[0] if near else None,
        "guard": watching,
        "holds": [hold.as_dict() for hold in stock.holds],
        "changes": [change.as_dict(reveal=args.reveal) for change in changes],
    }
    status = DIFFERS if args.check and found.state != "active" else 0
    return Result(data, lines, messages=warnings, status=status)


def _guard(context: Context, holds: list[Hold]) -> dict[str, Any] | None:
    """Give what the guard of this host tells of itself, None without one; give found work what it found out."""
    from taoprofiles.guard import guard

    known = guard.status(context)
    if known is None:
        return None
    differences = {hold["container"]: hold["differences"] for hold in known.get("holds", [])}
    for hold in holds:
        hold.differences = hold.differences or differences.get(hold.container, [])
    return {key: known.get(key) for key in ("pid", "version", "line", "is_sealed", "problem")}


def _guard_line(watching: dict[str, Any] | None) -> str:
    if watching is None:
        return "none; 'taoprof service install' has one watch over the file"
    sealed = ", the file is sealed: it cannot be overwritten" if watching["is_sealed"] else ""
    problem = f"; {watching['problem']}" if watching["problem"] else ""
    return f"pid {watching['pid']}{sealed}{problem}"


def _secrets(context: Context, found: Situation) -> list[str]:
    derived = Store(context).secret_env(found.name or found.last)
    try:
        return mapping.secrets(mapping.parse(found.content or b"{}", ""), derived=derived)
    except TaoprofError:
        return []


def resembling(context: Context, found: Situation) -> tuple[str, int] | None:
    if found.state != "unmanaged" or found.content is None:
        return None
    return situation.resembling(context, found.content, found.last)


def resembles(near: tuple[str, int]) -> str:
    name, differing = near
    if not differing:
        return f"'{name}', which renders the same mapping"
    return f"'{name}', but for {differing} thing{'s' if differing > 1 else ''}: 'taoprof diff {name}'"


def _drift(context: Context, found: Situation, near: tuple[str, int] | None) -> list[mapping.Change]:
    """Tell how the file differs from its profile; an unmanaged one from what it resembles, or what was there before."""
    of = found.name or (near[0] if near else found.last)
    if found.content is None or found.state == "active" or of is None:
        return []
    try:
        wanted = found.wanted
        if wanted is None:
            wanted = mapping.to_bytes(Store(context).renderer(of).mapping())
        now, secrets = mapping.parse(found.content, context.mapping_file), Store(context).secret_env(of)
        return mapping.changes(mapping.parse(wanted, ""), now, secrets=secrets)
    except TaoprofError:
        return []


def _explain(context: Context, found: Situation) -> str:
    if found.state == "active":
        return f"'{found.name}' is active"
    if found.state == "none":
        return f"there is no {context.short(context.mapping_file)}: tao would start without any mounts"
    if found.state == "unmanaged":
        return unmanaged(context, found)
    if found.problem:
        return f"'{found.name}' is active, but cannot be rendered now: {found.problem}"
    return (
        f"'{found.name}' is active, but the profile has changed since: 'taoprof diff' shows how, "
        f"'taoprof use {found.name}' applies it"
    )


def unmanaged(context: Context, found: Situation) -> str:
    try:
        mapping.parse(found.content or b"", context.short(context.mapping_file))
    except TaoprofError as error:
        return f"another program's: {error.message}; tao would fail. 'taoprof use NAME' replaces it and keeps it"
    return (
        f"{context.short(context.mapping_file)} was written by another program: "
        "'taoprof save NAME' makes a profile of it, 'taoprof use NAME' replaces it and keeps it"
    )
