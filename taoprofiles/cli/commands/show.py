"""current, status, show, diff."""

from __future__ import annotations

import argparse
import copy
import os
import time
from typing import TYPE_CHECKING, Any

from taoprofiles import current_cache
from taoprofiles.cli.output import Result, change_lines, format_time, profile_lines, table
from taoprofiles.cli.status import (
    StatusReport,
    explain,
    get_report,
    gpu_rows,
    hold_rows,
    progress_rows,
    queue_rows,
    status_rows,
    status_warnings,
)
from taoprofiles.errors import InvalidProfileError, InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import OWN_KINDS, Hold
from taoprofiles.mounts import mapping
from taoprofiles.profiles.rendering import unset_variables
from taoprofiles.profiles.store import Source, Store
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status
from taoprofiles.switching.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taoprofiles.runs.resources import GpuUse
    from taoprofiles.system.gpus import Gpu

GPU_TIMEOUT = 5.0
"""Seconds that the NVIDIA driver may take for an answer; after that ``status`` shows no GPUs."""

DIFFERS = 6
"""The exit status of ``diff`` and ``status --check`` if something differs."""


def current_command(context: Context, args: argparse.Namespace) -> Result:
    now = status.get_status(context)
    status.write_current_cache(context, now)
    own = current_cache.own_profile(context)
    data = {"name": own or now.name, "state": "active" if own else now.state}
    if own:
        other = f"; {context.short(context.mapping_file)}: {explain(context, now)}"
        return Result(data, [own], messages=[] if args.short else [f"a mounts file of its own{other}"])
    if args.short:
        return Result(data, [current_cache.short(now.state, now.name)])
    messages = [] if now.state == "active" else [explain(context, now)]
    return Result(data, [now.name or f"({now.state})"], messages=messages)


def status_command(context: Context, args: argparse.Namespace) -> Result:
    if args.paths:
        names = ("mapping_file", "profiles", "state", "history", "objects", "cache", "lock", "guard")
        paths = {name: getattr(context, name) for name in names}
        return Result({"paths": paths}, table(list(paths.items())))
    if args.watch:
        if args.json:
            raise UsageError("--watch cannot be combined with --json", hint="repeat 'taoprof status --json'")
        from taoprofiles.cli import watch

        watch.watch(context, lambda report: _to_result(context, args, report))
        return Result({})
    gpus = _ask_driver(context)
    return _to_result(context, args, get_report(context), gpus())


def _ask_driver(context: Context) -> Callable[[], Sequence[Gpu]]:
    """Begin to query the machine's GPUs in a thread; return a function that waits for the answer."""
    import shutil  # not for 'current'

    if not shutil.which("nvidia-smi", path=context.environ.get("PATH")):
        return list
    import threading

    from taoprofiles.system.gpus import list_gpus

    gpus: list[Gpu] = []
    thread = threading.Thread(target=lambda: gpus.extend(list_gpus(context.environ, GPU_TIMEOUT)), daemon=True)
    thread.start()

    def wait() -> list[Gpu]:
        thread.join()
        return gpus

    return wait


def _to_result(context: Context, args: argparse.Namespace, report: StatusReport, gpus: Sequence[Gpu] = ()) -> Result:
    now, similar, active = report.now, report.similar, report.active
    compared = now.name or (similar[0] if similar else now.last)
    changes = _drift(context, now, compared)
    lines = table(status_rows(context, report))
    if changes:
        lines.append(f"differences   {context.short(context.mapping_file)} (-), '{compared}' (+):")
        lines += ["  " + line for line in change_lines(changes, reveal=args.reveal)]
    if active.holds:
        lines += ["holds and runs:", *table(hold_rows(active.holds), indent="  ", fit=True)]
    if rows := progress_rows(report):
        lines += ["progress:", *table(rows, indent="  ", fit=True)]
    if report.queue:
        lines += ["waiting, in this order:", *table(queue_rows(context, report.queue), indent="  ", fit=True)]
    if active.others:
        lines += ["other containers with GPUs on this engine:", *table(_other_rows(active.others), indent="  ")]
    uses = []
    if gpus:
        from taoprofiles.runs.resources import gpu_uses

        uses = gpu_uses(gpus, active.holds)
        lines += ["GPUs:", *table(gpu_rows(uses), indent="  ", fit=True)]
    runs = [hold for hold in active.holds if hold.kind in OWN_KINDS]
    data = {
        **{key: getattr(now, key) for key in ("name", "state", "last")},
        "own": current_cache.own_profile(context),
        "problem": now.problem or None,
        "mapping_file": context.mapping_file,
        "since": now.entry.time if now.entry else None,
        "by": now.entry.by if now.entry else None,
        "entry": now.entry.id if now.entry else None,
        "resembles": similar[0] if similar else None,
        "guard": report.guard,
        "holds": [hold.as_dict() for hold in active.holds],
        "runs": [{**hold.as_dict(), **_progress_fields(report, hold)} for hold in runs],
        "queue": [command.as_dict() for command in report.queue],
        "others": [
            {"user": other.user, "container": other.container, "gpus": other.gpus, "since": other.since}
            for other in active.others
        ],
        "gpus": [_gpu_data(use) for use in uses],
        "unseen": active.unchecked,
        "changes": [change.as_dict(reveal=args.reveal) for change in changes],
    }
    differs = args.check and now.state != "active"
    return Result(data, lines, messages=status_warnings(context, report), status=DIFFERS if differs else 0)


def _gpu_data(use: GpuUse) -> dict[str, Any]:
    fields = dict(zip(("index", "uuid", "memory_used", "memory_total", "utilization", "name"), use.gpu, strict=False))
    processes = [
        {"pid": process.pid, "user": process.user, "program": "".join(process.command)} for process in use.processes
    ]
    return {**fields, "holds": use.holds, "processes": processes}


def _progress_fields(report: StatusReport, hold: Hold) -> dict[str, Any]:
    progress = report.progress.get(hold.id)
    return {
        "progress": None if progress is None else progress.as_dict(time.time()),
        "last_line": report.last_lines.get(hold.id),
    }


def _other_rows(others: list[Hold]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("USER", "CONTAINER", "GPUS", "SINCE")]
    for other in others:
        gpus = ",".join(other.gpus) if isinstance(other.gpus, list) else other.gpus or ""
        rows.append((other.user or "unknown", (other.container or "")[:6], gpus, format_time(other.since)))
    return rows


def _drift(context: Context, now: Status, name: str | None) -> list[mapping.Difference]:
    """Return what the profile ``name`` would change in the file."""
    if now.content is None or now.state == "active" or name is None:
        return []
    store = Store(context)
    try:
        expected = mapping.parse(now.wanted, "") if now.wanted is not None else store.renderer(name).mapping()
        actual = mapping.parse(now.content, context.mapping_file)
        return mapping.changes(actual, expected, secrets=store.secret_env(actual, name))
    except TaoprofError:
        return []


def show_command(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    name = args.name if args.name is not None else current_cache.own_profile(context) or status.get_status(context).name
    if name is None:
        raise UsageError("no profile given, and none is active", hint="'taoprof list' shows all profiles")
    if args.toml and args.svg is not None:
        raise UsageError("--svg cannot be combined with --toml")
    source = store.source(name, store.text(name))
    if args.toml:
        return _show_toml(context, store, name, source, reveal=args.reveal)
    summary, unset = _summary(context, name, source, reveal=args.reveal)
    path = store.path(name)
    if args.svg is not None:
        return _write_svg(context, args.svg, name, summary)
    from taoprofiles.profiles import model  # it imports pydantic

    base = [(source.base.name, source.base.text or b"")] if source.base else []
    summary["origins"] = model.origins(store.template(name, source), [(name, source.text), *base])
    lines = profile_lines(context, f"'{name}' ({context.short(path)})", summary)
    exports = " ".join(f"{variable}=VALUE" for variable in unset)
    messages = [f"not set here: {', '.join(unset)}. To set it: export {exports}"] if unset else []
    return Result({"name": name, "path": path, **summary}, lines, messages=messages)


def _summary(context: Context, name: str, source: Source, *, reveal: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the summary of a profile, and the environment variables that it needs and that are not set.

    In the place of their values is ``$NAME``. Raises InvalidProfileError if anything else is wrong.
    """
    unset: dict[str, str] = {}
    context = copy.copy(context)
    while True:
        context.environ = context.environ | unset
        try:
            summary = Store(context).renderer(name, source).summary(reveal=reveal)
        except InvalidProfileError as error:
            missing = {variable: f"${variable}" for variable in unset_variables(error.problems)}
            relative = {  # the source of a mount must be absolute
                variable: f"/{text}"
                for variable, text in unset.items()
                if text[0] == "$" and any(f"'{text}" in problem for problem in error.problems)
            }
            if not (missing or relative):
                raise
            unset |= missing or relative
        else:
            for mount in summary["mounts"]:
                mount["source"] = mount["source"].removeprefix("/" * mount["source"].startswith("/$"))
            return summary, list(unset)


def _write_svg(context: Context, file: str, name: str, summary: dict[str, Any]) -> Result:
    from taoprofiles.check.path_map import get_path_map, to_svg
    from taoprofiles.storage import atomic, files

    drawing, path = to_svg(get_path_map(context, name, summary)), context.absolute(file)
    # Unlike our own files it is for others: a page's server, a colleague.
    readable = None if files.exists(path) else atomic.FileAttributes(0o644, context.uid, context.gid)
    atomic.replace(path, drawing.encode(), attributes=readable)
    return Result({"name": name, "svg": path}, [f"path map of '{name}' written to {context.short(path)}"])


def _show_toml(context: Context, store: Store, name: str, source: Source, *, reveal: bool) -> Result:
    from taoprofiles.profiles import convert
    from taoprofiles.profiles.model import to_toml

    profile = store.profile(name, source)
    if profile.project is not None and profile.extends is None:
        text, omitted = convert.to_project_file(context, profile, os.path.dirname(profile.project.file))
        return Result({"name": name, "path": store.path(name), "toml": text, "hidden": omitted}, raw=text)
    # The file must not need another one.
    profile = profile.model_copy(update={"extends": None, "project": None})
    hidden: list[str] = []
    left_out: list[str] = []
    if not reveal:
        profile, hidden, left_out = convert.to_share(profile)
    if profile.layout != "custom" and profile.network is None:
        profile = profile.model_copy(update={"network": name})  # the paths must not depend on the profile's name
    messages = [f"{variable}: replaced by ${{env:{variable}}}, because its value is secret" for variable in hidden]
    messages += [f"{key}: left out, since it is yours; --reveal includes it" for key in left_out]
    text = to_toml(profile)
    data = {"name": name, "path": store.path(name), "toml": text, "hidden": hidden + left_out}
    return Result(data, raw=text, messages=messages)


def diff_command(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    if args.b is not None:
        for name in (args.a, args.b):
            store.text(name)  # raises for a missing profile, without the hint to create it
        a, b, written_by = store.renderer(args.a).mapping(), args.b, None
        first = f"'{args.a}'"
    else:
        now = status.get_status(context)
        written_by = now.name or now.last
        b = written_by if args.a is None else args.a
        if b is None:
            raise NotFoundError("no profile is active to compare with the mapping file", hint="taoprof diff NAME")
        store.text(b)  # a name that does not exist is reported first
        if now.content is None:
            raise InvalidStateError(f"there is no mapping file ('{context.mapping_file}')")
        a, first = mapping.parse(now.content, context.mapping_file), context.short(context.mapping_file)
    changes = mapping.changes(a, store.renderer(b).mapping(), secrets=store.secret_env(a, args.a, b, written_by))
    data = {
        "a": None if args.b is None else args.a,
        "b": b,
        "same": not changes,
        "changes": [change.as_dict(reveal=args.reveal) for change in changes],
    }
    if not changes:
        return Result(data, [f"{first} and '{b}' are the same"])
    lines = [f"- {first}", f"+ '{b}'", *change_lines(changes, reveal=args.reveal)]
    return Result(data, lines, status=DIFFERS)
