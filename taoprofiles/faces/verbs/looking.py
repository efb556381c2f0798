"""list, current, status, show, diff, paths."""

from __future__ import annotations

import os

from taoprofiles.errors import InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.faces.arguments import add_profile, add_reveal
from taoprofiles.faces.output import cut, table
from taoprofiles.faces.result import Result
from taoprofiles.operations import situation
from taoprofiles.state.locks import Lock
from taoprofiles.state.store import Store
from taoprofiles.values import mapping
from taoprofiles.values.secret import MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from taoprofiles.operations.situation import Situation
    from taoprofiles.state.paths import Context
    from taoprofiles.state.store import Summary

DIFFERS = 6


def list_verb(context: Context, args: argparse.Namespace) -> Result:
    found = situation.look(context)
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
                "project_dir": _expanded(context, summary.project_dir),
                "path": summary.path,
                "last_used": summary.used,
                "problem": summary.problem or None,
            }
            for summary in summaries
        ],
    }
    messages = []
    if found.state == "unmanaged":
        messages.append(_unmanaged(context, found))
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
    from taoprofiles.faces.showing import when

    return when(summary.used)[:16] if summary.used else "-"


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
    changes = _drift(context, found)
    path = context.short(context.mapping_file)
    if os.path.islink(context.mapping_file):
        path += f" → {context.short(os.path.realpath(context.mapping_file))}"
    lines = [f"mapping file  {path}", f"state         {_explain(context, found)}"]
    if found.entry is not None:
        from taoprofiles.faces.showing import when

        lines.append(f"since         {when(found.entry.time)}, {found.entry.by}, history entry {found.entry.id}")
    resembles = None
    if found.state == "unmanaged" and found.content is not None:
        resembles = situation.resembling(context, found.content)
        if resembles:
            lines.append(f"resembles     '{resembles}', which renders the same mapping")
    if changes:
        lines.append(f"differs       from what '{found.name or found.last}' renders now (-), the file has (+):")
        lines += ["  " + line for change in changes for line in change.lines(reveal=args.reveal)]
    from taoprofiles.faces.showing import hold_table
    from taoprofiles.operations import holding

    stock = holding.holds(context)
    if stock.holds:
        lines += ["alive:", *("  " + line for line in hold_table(stock.holds))]
    warnings = [f"warning: {text}" for text in stock.unseen]
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
        "resembles": resembles,
        "holds": [hold.as_dict() for hold in stock.holds],
        "changes": [change.as_dict(reveal=args.reveal) for change in changes],
    }
    status = DIFFERS if args.check and found.state != "active" else 0
    return Result(data, lines, messages=warnings, status=status)


def _secrets(context: Context, found: Situation) -> list[str]:
    derived = Store(context).secret_env(found.name or found.last)
    try:
        return mapping.secrets(mapping.parse(found.content or b"{}", ""), derived=derived)
    except TaoprofError:
        return []


def _drift(context: Context, found: Situation) -> list[mapping.Change]:
    """Tell how the file differs from its profile, or from the profile that was active before another program wrote."""
    of = found.name or found.last
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
        return _unmanaged(context, found)
    if found.problem:
        return f"'{found.name}' is active, but cannot be rendered now: {found.problem}"
    return (
        f"'{found.name}' is active, but the profile has changed since: 'taoprof diff' shows how, "
        f"'taoprof use {found.name}' applies it"
    )


def _unmanaged(context: Context, found: Situation) -> str:
    try:
        mapping.parse(found.content or b"", context.short(context.mapping_file))
    except TaoprofError as error:
        return f"another program's: {error.message}; tao would fail. 'taoprof use NAME' replaces it and keeps it"
    return (
        f"{context.short(context.mapping_file)} was written by another program: "
        "'taoprof save NAME' makes a profile of it, 'taoprof use NAME' replaces it and keeps it"
    )


def show_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, optional=True, help="the profile; default: the active one")
    add_reveal(parser)


def show_verb(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    name = _active(context) if args.name is None else args.name
    template = store.template(name)
    renderer = store.renderer(name)
    secrets, env_secrets = (set(), set()) if args.reveal else renderer.secrets()
    variables = {key: MASK if key in secrets else value for key, value in renderer.variables().items()}
    rendered = renderer.mapping()
    envs = {env["variable"]: env["value"] for env in rendered.get("Envs", [])}
    env = {key: MASK if key in env_secrets else value for key, value in envs.items()}
    docker = rendered.get("DockerOptions", {})
    mounts = [{**mount, "exists": os.path.exists(mount["source"])} for mount in rendered["Mounts"]]
    lines = [f"profile '{name}' ({context.short(store.path(name))})"]
    if template["description"]:
        lines.append(template["description"])
    lines.append(f"layout: {template['layout']}")
    for title, rows in (
        ("variables", [(key, context.short(value)) for key, value in variables.items()]),
        (
            "mounts",
            [(context.short(m["source"]), "→", m["destination"], "" if m["exists"] else "(not there)") for m in mounts],
        ),
        ("container env", list(env.items())),
        ("docker", [(key, value if isinstance(value, str) else _compact(value)) for key, value in docker.items()]),
    ):
        if rows:
            lines += [f"{title}:", *table(rows, indent="  ")]
    data = {
        "name": name,
        "path": store.path(name),
        "description": template["description"],
        "layout": template["layout"],
        "project_dir": _expanded(context, template["project_dir"]),
        "variables": variables,
        "mounts": mounts,
        "env": env,
        "docker": docker,
    }
    return Result(data, lines)


def diff_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, "A", optional=True, help="a profile; default: the active one")
    add_profile(parser, "B", optional=True, help="another profile; default: the mapping file")
    add_reveal(parser)


def diff_verb(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    first, found = args.a, None if args.b is not None else situation.look(context)
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
    }
    return Result(data, table(list(data.items())))


def _active(context: Context) -> str:
    name = situation.look(context).name
    if name is None:
        raise UsageError("no profile is active, and no name was given", hint="'taoprof list' shows all")
    return name


def _expanded(context: Context, path: str | None) -> str | None:
    if path is not None and (path == "~" or path.startswith("~/")):
        return context.home + path[1:]
    return path


def _compact(value: object) -> str:
    import json

    return json.dumps(value)
