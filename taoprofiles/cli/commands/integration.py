"""env, init, kernel, render, path, service, schema, skill."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from taoprofiles.cli.output import Result, table
from taoprofiles.errors import NotFoundError, UsageError
from taoprofiles.masking import shorten
from taoprofiles.profiles.store import Store
from taoprofiles.storage import atomic, files
from taoprofiles.storage.paths import Context
from taoprofiles.version import VERSION

LOG_LINES = 50


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

    from taoprofiles import current_cache
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
    from taoprofiles.switching.translate import translate

    translation = translate(context, args.path, args.name)
    data = {key: value for key, value in translation._asdict().items() if key != "note"}
    # Raw, so that $(taoprof path …) gets the path unchanged.
    return Result(data, raw=translation.answer + "\n", messages=[translation.note] if translation.note else [])


def service_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.system.systemd import NoManagerError

    try:
        return _service(context, args)
    except (NoManagerError, NotFoundError) as error:
        error.hint = "".join(_running_guard(context) if args.action in ("stop", "uninstall") else []) or error.hint
        raise


def _running_guard(context: Context) -> list[str]:
    """Return how to stop a guard that runs without the service, [] if there is none."""
    from taoprofiles.guard.status import read_status

    guard = read_status(context)
    return [f"to stop the guard that was started without systemd: kill {guard['pid']}"] if guard else []


def _service(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.guard.service import Service
    from taoprofiles.system.systemd import LOG_FILE, lingers

    if args.action != "install" and (args.seal is not None or args.restores is not None):
        raise UsageError(f"--seal, --no-seal and --restores are options of 'install', not of '{args.action}'")
    service = Service(context)
    messages: list[str] = []
    data: dict[str, Any] = {"action": args.action, "done": [], "service": None, "log": []}
    if args.action == "install":
        data["done"] = service.install(seal=args.seal, restores=args.restores)
        lines = data["done"] or ["already installed and up to date"]
        if not lingers(context.uid):
            messages.append("the service stops when you log out; to keep it running: loginctl enable-linger")
    elif args.action == "uninstall":
        data["done"] = service.uninstall()
        lines = data["done"] or ["not installed"]
        messages += [] if data["done"] else _running_guard(context)
    elif args.action in ("start", "stop"):
        service.control(args.action)
        lines = data["done"] = ["started" if args.action == "start" else "stopped"]
    elif args.action == "logs":
        lines = data["log"] = service.logs(LOG_LINES)
        if not lines:
            messages.append(f"the guard has logged nothing, neither to the journal nor to {LOG_FILE}")
    if args.action in ("install", "start", "status"):
        data["service"] = service.status()
    if args.action == "status":
        lines = _service_lines(data["service"])
    return Result(data, lines, messages=messages)


def _service_lines(state: dict[str, Any]) -> list[str]:
    guard = state["guard"] or {}
    if not state["installed"]:
        other = f"; a guard is running without it (to stop it: kill {guard['pid']})" if guard else ""
        return [f"not installed{other}. To install it: taoprof service install"]
    login = "starts at login" if state["enabled"] else "does not start at login (to change it: taoprof service install)"
    linger = "keeps running after" if state["lingers"] else "stops at"
    change = "" if state["lingers"] else " (to change it: loginctl enable-linger)"
    pid = f", pid {state['pid']}" if state["pid"] else ""
    return table(
        [
            ("service", f"{state['state']}{pid}, {login}, {linger} logout{change}"),
            ("guard", state["text"] or "-"),
            *([("problem", guard["problem"])] if guard.get("problem") else []),
            ("version", guard.get("version") or "-"),
            ("restarts", str(state["restarts"])),
            ("unit", state["unit"] or "-"),
        ]
    )


def schema_command(context: Context, args: argparse.Namespace) -> Result:
    import json

    from taoprofiles.profiles.model import json_schema

    schema = json_schema()
    return Result({"schema": schema}, raw=json.dumps(schema, indent=2) + "\n")


_CELL_LIMIT = 200
"""Characters of a cell of 'kernel list'. A kernelspec is another program's file, and may have a name of any length."""


def kernel_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.profiles import kernels

    _check_kernel_options(args)
    messages, unreadable = kernels.finish(context), dict[str, str]()
    folders = kernels.known_folders(context)
    if args.user or args.action == "install":
        folders = [kernels.user_folder(context)]
    if args.sys_prefix or args.prefix is not None:
        folders = [kernels.prefix_folder(context, args.prefix or sys.prefix)]
    if args.action == "list":
        specs = kernels.installed(context, folders, args.name, unreadable=unreadable)
        texts = [(k["profile"], context.short(k["path"]), context.short(k["python"]), k["problem"]) for k in specs]
        rows = [[shorten(text, _CELL_LIMIT) for text in row] for row in texts]
        lines = table([("PROFILE", "KERNEL", "PYTHON", ""), *rows], fit=True) if rows else ["no kernels"]
    elif args.action == "install":
        Store(context).text(args.name, to_use=True)  # before Python is looked for, which takes a moment
        specs = [kernels.install(context, args.name, kernels.find_python(context, args.python), folders[0])]
        shown = kernels.display_name(args.name)
        lines = [f"kernel '{shown}' installed in {context.short(specs[0]['path'])}"]
    else:
        specs = kernels.remove(context, args.name, folders, unreadable=unreadable)
        lines = [f"kernel '{kernels.display_name(kernel['profile'])}' removed" for kernel in specs] or ["no kernels"]
    messages += [f"warning: a kernel was left out: {why}" for why in unreadable.values()]
    is_left = args.action == "remove" and unreadable
    return Result({"action": args.action, "kernels": specs}, lines, messages=messages, status=1 if is_left else 0)


def _check_kernel_options(args: argparse.Namespace) -> None:
    """Raise UsageError for options that exclude each other, or that the action does not have."""
    if args.user + args.sys_prefix + (args.prefix is not None) > 1:
        raise UsageError("--user, --prefix and --sys-prefix cannot be combined")
    if args.python is not None and args.action != "install":
        raise UsageError(f"--python is an option of 'install', not of '{args.action}'")
    if args.all and args.action != "remove":
        raise UsageError(f"--all is an option of 'remove', not of '{args.action}'")
    if args.action != "list" and (args.name is None) != args.all:
        every = "; to remove all kernels: --all" if args.action == "remove" else ""
        hint = f"'taoprof list' shows the profiles{every}"
        raise UsageError("no profile given" if args.name is None else "--all takes no profile", hint=hint)


SKILL = "tao-run-on-taoprofiles"
"""By the rules of NVIDIA's skill bank: a platform's skill is tao-run-on-PLATFORM, in a folder of that name."""

_AGENTS = (".claude", ".codex", ".agents")
"""Folders of coding agents in the home; each has its skills in the folder ``skills``."""


def installed_skills(context: Context) -> list[str]:
    """Return the skills that are installed for the agents of this user, also one that cannot be looked at."""
    paths = []
    for agent in _AGENTS:
        path = os.path.join(context.home, agent, "skills", SKILL, "SKILL.md")
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass
        paths.append(path)
    return paths


def remove_skill(path: str) -> None:
    """Remove an installed skill, and its folder if there is nothing else in it. Raises TaoprofError."""
    files.remove(path)
    files.rmdir_quietly(os.path.dirname(path))


def _agents_folders(context: Context) -> list[str]:
    agents = [os.path.join(context.home, agent) for agent in _AGENTS]
    return [os.path.join(agent, "skills") for agent in agents if files.folder_exists(agent)]


def skill_command(context: Context, args: argparse.Namespace) -> Result:
    folders = [context.absolute(args.folder)] if args.folder is not None else _agents_folders(context)
    if not folders:
        raise UsageError(
            f"there is no coding agent here: {', '.join(f'~/{agent}' for agent in _AGENTS)} do not exist",
            hint="name the folder of its skills: taoprof skill install DIR",
        )
    from importlib import resources

    text = resources.files("taoprofiles.cli").joinpath("skill/SKILL.md").read_text(encoding="utf-8")
    paths = []
    for folder in folders:
        path = os.path.normpath(os.path.join(folder, SKILL, "SKILL.md"))
        files.make_folder(os.path.dirname(path), 0o755)
        readable = None if files.exists(path) else atomic.FileAttributes(0o644, context.uid, context.gid)
        atomic.replace(path, text.replace("VERSION", VERSION, 1).encode(), attributes=readable)
        paths.append(path)
    data = {"action": args.action, "name": SKILL, "paths": paths}
    return Result(data, [f"skill installed: {context.short(path)}" for path in paths])
