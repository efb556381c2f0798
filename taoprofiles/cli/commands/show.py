"""current, status, show, diff."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from taoprofiles import current_cache
from taoprofiles.cli.output import (
    Result,
    change_lines,
    format_time,
    hold_rows,
    profile_lines,
    progress_rows,
    queue_rows,
    table,
)
from taoprofiles.errors import InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import OWN_KINDS, Hold, blocking_holds
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status
from taoprofiles.switching.status import Status

if TYPE_CHECKING:
    from taoprofiles.runs.progress import Progress

DIFFERS = 6
"""The exit status of ``diff`` and ``status --check`` if something differs."""


def current_command(context: Context, args: argparse.Namespace) -> Result:
    now = status.get_status(context)
    status.write_current_cache(context, now)
    own = current_cache.own_profile(context)
    data = {"name": own or now.name, "state": "active" if own else now.state}
    if own:
        other = f"; {context.short(context.mapping_file)}: {_explain(context, now)}"
        return Result(data, [own], messages=[] if args.short else [f"a mounts file of its own{other}"])
    if args.short:
        return Result(data, [current_cache.short(now.state, now.name)])
    messages = [] if now.state == "active" else [_explain(context, now)]
    return Result(data, [now.name or f"({now.state})"], messages=messages)


def status_command(context: Context, args: argparse.Namespace) -> Result:
    if args.paths:
        names = ("mapping_file", "profiles", "state", "history", "objects", "cache", "lock", "guard")
        paths = {name: getattr(context, name) for name in names}
        return Result({"paths": paths}, table(list(paths.items())))
    from taoprofiles.holds import manage, waiting

    now = status.get_status(context)
    similar = _similar_profile(context, now)
    compared = now.name or (similar[0] if similar else now.last)
    changes = _drift(context, now, compared)
    active = manage.active_holds(context, others=True)
    progress, queue = _progress(active.holds), waiting.waiting_commands(context)
    guard = _guard_status(context, active.holds)
    lines = _status_lines(context, now, similar, guard)
    if changes:
        lines.append(f"differences   '{compared}' (-), {context.short(context.mapping_file)} (+):")
        lines += ["  " + line for line in change_lines(changes, reveal=args.reveal)]
    if active.holds:
        lines += ["holds and runs:", *table(hold_rows(active.holds), indent="  ", fit=True)]
    if rows := progress_rows(active.holds, progress):
        lines += ["progress:", *table(rows, indent="  ", fit=True)]
    if queue:
        lines += ["waiting, in this order:", *table(queue_rows(context, queue), indent="  ", fit=True)]
    if active.others:
        lines += ["other containers with GPUs on this engine:", *table(_other_rows(active.others), indent="  ")]
    blocked = blocking_holds(active.holds, mapping.digest(now.content or b""))
    messages = [f"warning: {text}" for text in active.unchecked]
    messages += [
        f"warning: the mapping file was changed, but this work still needs another mapping: {hold.line()}"
        for hold in blocked
    ]
    messages += [f"warning: hold {hold.id}: {text}" for hold in active.holds for text in hold.differences]
    messages += status.get_warnings(context, secrets=_secrets(context, now))
    data = {
        **{key: getattr(now, key) for key in ("name", "state", "last")},
        "own": current_cache.own_profile(context),
        "problem": now.problem or None,
        "mapping_file": context.mapping_file,
        "since": now.entry.time if now.entry else None,
        "by": now.entry.by if now.entry else None,
        "entry": now.entry.id if now.entry else None,
        "resembles": similar[0] if similar else None,
        "guard": guard,
        "holds": [hold.as_dict() for hold in active.holds],
        "runs": [
            {**hold.as_dict(), "progress": progress[hold.id].as_dict(time.time()) if hold.id in progress else None}
            for hold in active.holds
            if hold.kind in OWN_KINDS
        ],
        "queue": [command.as_dict() for command in queue],
        "others": [
            {"user": other.user, "container": other.container, "gpus": other.gpus, "since": other.since}
            for other in active.others
        ],
        "unseen": active.unchecked,
        "changes": [change.as_dict(reveal=args.reveal) for change in changes],
    }
    return Result(data, lines, messages=messages, status=DIFFERS if args.check and now.state != "active" else 0)


def _progress(holds: list[Hold]) -> dict[str, Progress]:
    """Return the progress of the active runs, by the id of the hold. Without a run nothing is imported for it."""
    if not any(hold.kind in OWN_KINDS for hold in holds):
        return {}
    from taoprofiles.runs.progress import read_progress

    return read_progress(holds)


def _other_rows(others: list[Hold]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("USER", "CONTAINER", "GPUS", "SINCE")]
    for other in others:
        gpus = ",".join(other.gpus) if isinstance(other.gpus, list) else other.gpus or ""
        rows.append((other.user or "unknown", (other.container or "")[:6], gpus, format_time(other.since)))
    return rows


def _status_lines(
    context: Context, now: Status, similar: tuple[str, int] | None, guard: dict[str, Any] | None
) -> list[str]:
    path = context.short(context.mapping_file)
    if os.path.islink(context.mapping_file):
        path += f" → {context.short(os.path.realpath(context.mapping_file))}"
    rows = [("mapping file", path), ("state", _explain_state(context, now, similar))]
    if own := current_cache.own_profile(context):
        here = f"'{own}', with a mounts file of its own (hold {context.environ['TAOPROF_RUN']})"
        rows.insert(0, ("used here", here))
    if now.entry is not None:
        rows.append(("since", f"{format_time(now.entry.time)}, {now.entry.by}, history entry {now.entry.id}"))
    if similar and similar[1]:
        rows.append(("similar to", _describe_similar(similar)))
    text = "not running. To protect the file: taoprof service install"
    if guard is not None:
        is_sealed = "; the file is read-only while it is in use" if guard["is_sealed"] else ""
        text = f"running (pid {guard['pid']}){is_sealed}" + (f"; {guard['problem']}" if guard["problem"] else "")
    return table([*rows, ("guard", text)])


def _guard_status(context: Context, holds: list[Hold]) -> dict[str, Any] | None:
    """Return what the guard of this host reports, None without a guard.

    The differences that the guard has found between a container and its mapping are added to ``holds``.
    """
    from taoprofiles.guard.status import read_status

    report = read_status(context)
    if report is None:
        return None
    differences = {hold["container"]: hold["differences"] for hold in report.get("holds", [])}
    for hold in holds:
        hold.differences = hold.differences or differences.get(hold.container, [])
    return {key: report.get(key) for key in ("pid", "version", "line", "is_sealed", "problem")}


def _secrets(context: Context, now: Status) -> list[str]:
    derived = Store(context).secret_env(now.name or now.last)
    try:
        return mapping.secrets(mapping.parse(now.content or b"{}", ""), derived=derived)
    except TaoprofError:
        return []


def _similar_profile(context: Context, now: Status) -> tuple[str, int] | None:
    """Return the profile most similar to an unmanaged mapping file, and the number of differences."""
    if now.state != "unmanaged" or now.content is None:
        return None
    return status.find_similar_profile(context, now.content, now.last)


def _describe_similar(similar: tuple[str, int]) -> str:
    name, differences = similar
    return f"'{name}', with {differences} difference{'s' if differences > 1 else ''}: taoprof diff {name}"


def _drift(context: Context, now: Status, name: str | None) -> list[mapping.Difference]:
    """Return how the file differs from what the profile ``name`` renders now."""
    if now.content is None or now.state == "active" or name is None:
        return []
    store = Store(context)
    try:
        expected = mapping.parse(now.wanted, "") if now.wanted is not None else store.renderer(name).mapping()
        actual = mapping.parse(now.content, context.mapping_file)
        return mapping.changes(expected, actual, secrets=store.secret_env(name))
    except TaoprofError:
        return []


def explain_unmanaged(context: Context, now: Status) -> str:
    """Return the state of a mapping file that no profile made, in one line."""
    similar = _similar_profile(context, now)
    more = f"; similar to {_describe_similar(similar)}" if similar and similar[1] else ""
    return _explain_state(context, now, similar) + more


def _explain_state(context: Context, now: Status, similar: tuple[str, int] | None) -> str:
    if similar is None or similar[1]:
        return _explain(context, now)
    message = f"{context.short(context.mapping_file)} was not written by taoprof; it has the same mapping as profile"
    return f"{message} '{similar[0]}'. To use that profile: taoprof use {similar[0]}"


def _explain(context: Context, now: Status) -> str:
    path = context.short(context.mapping_file)
    if now.state == "active":
        return f"'{now.name}' is active"
    if now.state == "none":
        return _explain_absence(context, now, path)
    if now.state == "unmanaged":
        message = f"{path} was not written by taoprof. To create a profile from it: taoprof import --name NAME"
        try:
            mapping.parse(now.content or b"", path)
        except TaoprofError as error:
            message = f"{error.message}; it was not written by taoprof, and tao would fail"
        return f"{message}; to replace it (it is saved in the history): taoprof use NAME"
    reason = f"its profile cannot be evaluated: {now.problem}"
    if not now.problem:
        reason = f"the profile has changed since. To see how: taoprof diff; to apply it: taoprof use {now.name}"
    elif not os.path.lexists(context.profile_file(now.name or "")):
        return f"the active profile '{now.name}' has been removed; {path} still has its mapping"
    return f"'{now.name}' is active, but {reason}"


def _explain_absence(context: Context, now: Status, path: str) -> str:
    if hint := files.dangling_link_hint(context.mapping_file):
        return f"{path} is a link into a folder that does not exist. {hint}"
    if now.last is not None and now.entry is None:
        removed = f"{path} was removed by another program; the last profile known to be active is '{now.last}'"
        return f"{removed}. To use it again: taoprof use {now.last}"
    return f"{path} does not exist: tao would start without any mounts"


def show_command(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    name = args.name if args.name is not None else current_cache.own_profile(context) or status.get_status(context).name
    if name is None:
        raise UsageError("no profile given, and none is active", hint="'taoprof list' shows all profiles")
    if args.toml and args.svg is not None:
        raise UsageError("--svg cannot be combined with --toml")
    if args.toml:
        return _show_toml(store, name, reveal=args.reveal)
    summary = store.renderer(name).summary(reveal=args.reveal)
    path = store.path(name)
    if args.svg is not None:
        return _write_svg(context, args.svg, name, summary)
    lines = profile_lines(context, f"'{name}' ({context.short(path)})", summary)
    return Result({"name": name, "path": path, **summary}, lines)


def _write_svg(context: Context, file: str, name: str, summary: dict[str, Any]) -> Result:
    from taoprofiles.check.path_map import get_path_map, to_svg
    from taoprofiles.storage import atomic

    drawing, path = to_svg(get_path_map(context, name, summary)), context.absolute(file)
    # Unlike our own files it is for others: a page's server, a colleague.
    readable = None if os.path.lexists(path) else atomic.FileAttributes(0o644, context.uid, context.gid)
    atomic.replace(path, drawing.encode(), attributes=readable)
    return Result({"name": name, "svg": path}, [f"path map of '{name}' written to {context.short(path)}"])


def _show_toml(store: Store, name: str, *, reveal: bool) -> Result:
    from taoprofiles.profiles import convert
    from taoprofiles.profiles.model import parse, to_toml

    profile = parse(store.text(name), name=name, path=store.path(name))
    hidden: list[str] = []
    if not reveal:
        profile, hidden = convert.replace_secrets(profile)
    if profile.layout != "custom" and profile.network is None:
        profile = profile.model_copy(update={"network": name})  # the paths must not depend on the profile's name
    messages = [f"{variable}: replaced by ${{env:{variable}}}, because its value is secret" for variable in hidden]
    text = to_toml(profile)
    return Result({"name": name, "path": store.path(name), "toml": text, "hidden": hidden}, raw=text, messages=messages)


def diff_command(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    first, written_by = args.a, None
    if args.b is not None:
        b, second = store.renderer(args.b).mapping(), f"'{args.b}'"
    else:
        now = status.get_status(context)
        written_by = now.name or now.last
        first = written_by if first is None else first
        if first is None:
            raise NotFoundError("no profile is active to compare with the mapping file", hint="taoprof diff NAME")
        store.text(first)  # a name that does not exist is reported first
        if now.content is None:
            raise InvalidStateError(f"there is no mapping file ('{context.mapping_file}')")
        b, second = mapping.parse(now.content, context.mapping_file), context.short(context.mapping_file)
    a = store.renderer(first).mapping()
    changes = mapping.changes(a, b, secrets=store.secret_env(first, args.b, written_by))
    data = {
        "a": first,
        "b": args.b,
        "same": not changes,
        "changes": [change.as_dict(reveal=args.reveal) for change in changes],
    }
    if not changes:
        return Result(data, [f"'{first}' and {second} are the same"])
    lines = [f"- '{first}'", f"+ {second}", *change_lines(changes, reveal=args.reveal)]
    return Result(data, lines, status=DIFFERS)
