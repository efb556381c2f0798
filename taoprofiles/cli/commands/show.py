"""list, current, status, show, diff, env, init, render, path, schema."""

from __future__ import annotations

import argparse
import os
from itertools import islice
from typing import TYPE_CHECKING, Any

from taoprofiles import current_cache
from taoprofiles.cli.output import DIFFERS, Result, change_lines, cut, format_time, profile_lines, table
from taoprofiles.errors import InvalidProfileError, InvalidStateError, NotFoundError, UsageError
from taoprofiles.profiles.rendering import unset_variables
from taoprofiles.profiles.store import Source, Store, Summary
from taoprofiles.storage.locks import lock_if_free
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taoprofiles.system.gpus import Gpu

GPU_TIMEOUT = 5.0
"""Seconds that the NVIDIA driver may take for an answer; after that ``status`` shows no GPUs."""
RUNS_READ = 200
"""The newest runs, which count for LAST USED."""


def list_command(context: Context, args: argparse.Namespace) -> Result:
    known: tuple[str, str | None] | None = current_cache.read(context)
    messages = []
    if known is None or known[0] == current_cache.UNMANAGED:  # it takes the file's digest, for which OpenSSL is loaded
        from taoprofiles.cli.status import explain_unmanaged
        from taoprofiles.switching.status import get_status

        now = get_status(context)
        known = now.state, now.name
        messages += [explain_unmanaged(context, now)] if now.state == "unmanaged" else []
    state, active = known
    rows: list[tuple[str, ...]] = [("", "NAME", "LAYOUT", "EXTENDS", "PROJECT", "LAST USED", "DESCRIPTION")]
    profiles, summaries = [], _summaries(context)
    for summary in summaries:
        mark = ("*" if state == "active" else "~") if summary.name == active else ""
        used = "-" if summary.used is None else format_time(summary.used)
        if summary.problem:
            rows.append(
                (mark or "!", summary.name, "", summary.extends or "", "", used, f"not valid: {cut(summary.problem)}")
            )
        else:
            project = context.short(summary.project_dir or "-")
            layout = f"{summary.layout}, project" if summary.project_file else summary.layout or ""
            columns = (layout, summary.extends or "-", project, used, summary.description)
            rows.append((mark, summary.name, *columns))
        data = {
            "name": summary.name,
            "active": summary.name == active,
            "valid": not summary.problem,
            "description": summary.description,
            "layout": summary.layout,
            "project_dir": summary.project_dir and context.expand_user(summary.project_dir),
            "extends": summary.extends,
            "project_file": summary.project_file,
            "path": summary.path,
            "last_used": summary.used,
            "problem": summary.problem or None,
        }
        profiles.append(data)
    messages += [
        f"warning: '{name}' is not a profile: a name consists of ASCII letters (a-z, A-Z), digits, '.', '_' and '-'"
        for name in Store(context).misnamed()
    ]
    if not any(summary.extends for summary in summaries):
        rows = [row[:3] + row[4:] for row in rows]
    lines = table(rows, fit=True) if profiles else ["there are no profiles yet. To create one: taoprof new NAME"]
    return Result({"state": state, "profiles": profiles}, lines, messages=messages)


def _last_runs(context: Context) -> dict[str, float]:
    """Return when each profile last had a run, a shell or a notebook."""
    from taoprofiles.holds.records import HoldRecords  # the prompt's script, 'init', does not need it

    records = HoldRecords(context)
    runs = [*islice(records.ended_runs(), RUNS_READ), *records.all({})]
    return {run.profile: run.since for run in sorted(runs, key=lambda run: run.since) if run.profile}


def _summaries(context: Context) -> list[Summary]:
    with lock_if_free(context.lock) as has_lock:
        summaries = Store(context).summaries(may_write=has_lock)
    runs = _last_runs(context)
    return [summary._replace(used=max(summary.used or 0, runs.get(summary.name, 0)) or None) for summary in summaries]


def current_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.cli.status import explain
    from taoprofiles.switching.status import get_status, write_current_cache

    now = get_status(context)
    write_current_cache(context, now)
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
    from taoprofiles.cli import status

    if args.paths:
        names = ("mapping_file", "profiles", "state", "history", "objects", "cache", "lock", "guard")
        paths = {name: getattr(context, name) for name in names}
        return Result({"paths": paths}, table(list(paths.items())))
    if args.watch:
        if args.json:
            raise UsageError("--watch cannot be combined with --json", hint="repeat 'taoprof status --json'")
        from taoprofiles.cli import watch

        watch.watch(context, lambda report: status.to_result(context, report, reveal=args.reveal, strict=args.check))
        return Result({})
    gpus = _ask_driver(context)
    report = status.get_report(context)
    return status.to_result(context, report, gpus(), reveal=args.reveal, strict=args.check)


def _ask_driver(context: Context) -> Callable[[], Sequence[Gpu]]:
    """Begin to query the machine's GPUs in a thread; return a function that waits for the answer."""
    import shutil

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


def _active(context: Context) -> str | None:
    from taoprofiles.switching.status import get_status

    return get_status(context).name


def show_command(context: Context, args: argparse.Namespace) -> Result:
    store = Store(context)
    name = args.name if args.name is not None else current_cache.own_profile(context) or _active(context)
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
    import copy  # not for 'list'

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
    from taoprofiles.mounts import mapping
    from taoprofiles.switching import status

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


# For other programs


def env_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.export.plan import format_variables

    renderer = Store(context).renderer(args.name)
    variables, secrets = renderer.variables(), renderer.secrets()[0]
    hidden = [] if args.reveal else [name for name in variables if name in secrets]
    shown = {name: value for name, value in variables.items() if name not in hidden}
    messages = []
    if hidden:
        are, them = ("is a secret", "it") if len(hidden) == 1 else ("are secrets", "them")
        messages.append(f"{', '.join(hidden)} {are} and left out; --reveal includes {them}")
    text = format_variables(shown, args.format, hidden=hidden)
    return Result({"name": args.name, "variables": shown, "hidden": hidden}, raw=text, messages=messages)


_COMPINIT = "(( ${+functions[compdef]} )) || { autoload -Uz compinit && compinit -i; }\n"
"""Loads zsh's completion, which a new .zshrc has not: 'compdef' would be 'command not found' in each new shell."""


def init_command(context: Context, args: argparse.Namespace) -> Result:
    from importlib import resources

    from argcomplete.shell_integration import shellcode

    from taoprofiles.export.plan import fish_word, shell_word

    prompt = resources.files("taoprofiles.cli").joinpath("prompt_scripts", args.shell).read_text()
    values = {
        "@CACHE@": context.current_cache,
        "@MAPPING@": context.mapping_file,
        "@HOLDS@": context.holds,
        "@HOME@": os.path.realpath(context.home),
        "@KEY@": os.fsdecode(current_cache.key(context)),
    }
    for placeholder, value in values.items():
        prompt = prompt.replace(placeholder, fish_word(value) if args.shell == "fish" else shell_word(value))
    script = (_COMPINIT if args.shell == "zsh" else "") + shellcode(["taoprof"], shell=args.shell) + prompt
    return Result({"shell": args.shell, "script": script}, raw=script)


def render_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.export.export import export, plan_target

    renderer = Store(context).renderer(args.name)
    plan = plan_target(renderer, args.to, args.command, image=args.image, gpus=args.gpus)
    rendered, notes = export(renderer, args.to, plan)
    messages = [*(f"warning: {text}" for text in rendered.warnings), *notes]
    data = {
        "name": args.name,
        "target": args.to,
        "image": plan.image,
        "text": rendered.text,
        "secrets": plan.secrets,
        "warnings": rendered.warnings,
    }
    return Result(data, raw=rendered.text, messages=messages)


def path_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.check.path_map import translate

    translation = translate(context, args.path, args.name)
    data = {key: value for key, value in translation._asdict().items() if key != "note"}
    # Raw, so that $(taoprof path …) gets the path unchanged.
    return Result(data, raw=translation.answer + "\n", messages=[translation.note] if translation.note else [])


def schema_command(context: Context, args: argparse.Namespace) -> Result:
    import json

    from taoprofiles.profiles.model import json_schema

    schema = json_schema()
    return Result({"schema": schema}, raw=json.dumps(schema, indent=2) + "\n")
