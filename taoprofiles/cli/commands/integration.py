"""kernel, service, skill, uninstall: what taoprof installs on this machine, and how it is removed."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import metadata, resources
from typing import Any, NamedTuple

from taoprofiles import VERSION
from taoprofiles.cli import prompts
from taoprofiles.cli.output import Declined, Result, print_progress, table
from taoprofiles.errors import NotFoundError, TaoprofError, UsageError
from taoprofiles.guard.service import UNIT, Service
from taoprofiles.holds.hold import AGENT, HeldError, shorten_command
from taoprofiles.holds.manage import active_holds
from taoprofiles.holds.queue import waiting_commands
from taoprofiles.masking import shorten
from taoprofiles.profiles import kernels
from taoprofiles.profiles.store import Store
from taoprofiles.storage import atomic, files
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.switching.guard_files import read_status
from taoprofiles.system.systemd import LOG_FILE, NoManagerError, lingers

LOG_LINES = 50


def service_command(context: Context, args: argparse.Namespace) -> Result:
    try:
        return _service(context, args)
    except (NoManagerError, NotFoundError) as error:
        if args.action in ("stop", "uninstall"):
            error.hint = _running_guard(context) or error.hint
        raise


def _running_guard(context: Context) -> str:
    """Return how to stop a guard that runs without the service, "" if there is none."""
    guard = read_status(context)
    return f"to stop the guard that was started without systemd: kill {guard['pid']}" if guard else ""


def _service(context: Context, args: argparse.Namespace) -> Result:
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
        messages += [] if data["done"] else filter(None, [_running_guard(context)])
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
    rows = {
        "service": f"{state['state']}{pid}, {login}, {linger} logout{change}",
        "guard": state["text"] or "-",
        "problem": guard.get("problem") or "",
        "version": guard.get("version") or "-",
        "restarts": str(state["restarts"]),
        "unit": state["unit"] or "-",
    }
    return table([(key, text) for key, text in rows.items() if text])


_CELL_LIMIT = 200
"""Characters of a cell of 'kernel list'. A kernelspec is another program's file, and may have a name of any length."""


def kernel_command(context: Context, args: argparse.Namespace) -> Result:
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


def skill_command(context: Context, args: argparse.Namespace) -> Result:
    agents = [os.path.join(context.home, agent) for agent in _AGENTS]
    folders = [os.path.join(agent, "skills") for agent in agents if files.folder_exists(agent)]
    if args.folder is not None:
        folders = [context.absolute(args.folder)]
    if not folders:
        raise UsageError(
            f"there is no coding agent here: {', '.join(f'~/{agent}' for agent in _AGENTS)} do not exist",
            hint="name the folder of its skills: taoprof skill install DIR",
        )
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


_START_FILES = (".bashrc", ".bash_profile", ".profile", ".zshrc", ".zprofile")
_START_LIMIT = 4 << 20
_INIT = re.compile(rb"\s*(eval \"\$\(taoprof init (bash|zsh)\)\"|taoprof init fish \| source)\s*(#.*)?")
"""The line that docs/how-to/shells.md gives for a shell's start file."""
_OPENS = re.compile(rb"(\b(then|else|do|in)|[{(&|\\)])\s*(#.*)?$|^\s*(if|else|for|while|switch|case|begin|function)\b")
"""A line to which the next one belongs."""
_END_TIMEOUT = 10.0
"""Seconds that a guard gets to end."""


class _Part(NamedTuple):
    """Something that taoprof installed, and how to remove it."""

    kind: str
    path: str
    what: str
    remove: Callable[[], object]


def uninstall_command(context: Context, args: argparse.Namespace) -> Result:
    _refuse_if_in_use(context)
    messages = [] if args.dry_run else kernels.finish(context)
    parts, state = [*_guard(context), *_kernels(context, messages), *_skills(context)], _state(context)
    parts += _start_files(context, messages, dry_run=args.dry_run)
    if args.dry_run:
        state = [part._replace(what=f"{part.what}, only if you agree") for part in state]
        removed, heading = [*parts, *state], "would remove:"
    else:
        delete_state = _ask(context, parts, state, args)
        removed, heading = [], "removed:"
        for part in [*parts, *(state if delete_state else [])]:
            try:
                part.remove()
                removed.append(part)
            except TaoprofError as error:  # such as a service without its systemd: the rest is removed all the same
                messages.append(f"warning: {context.short(part.path)} was not removed: {error.message}")
    failed = any(message.startswith("warning: ") for message in messages)
    lines = _lines(heading, context, removed) if removed else [] if failed else ["nothing is left to remove"]
    kept = [path for path in (*(part.path for part in state), context.mapping_file) if os.path.lexists(path)]
    if kept and not args.dry_run:
        lines.append(f"not removed: {', '.join(map(context.short, kept))}")
    lines.append(f"to remove the program: {program_line()}")
    data = {
        "dry_run": args.dry_run,
        "removed": [{"kind": part.kind, "path": part.path, "what": part.what} for part in removed],
        "program": program_line(),
    }
    return Result(data, lines, messages=messages, status=int(failed))


def _ask(context: Context, parts: list[_Part], state: list[_Part], args: argparse.Namespace) -> bool:
    """Ask what to remove; return whether the state is deleted too. Raises Declined, UsageError without a terminal."""
    if args.yes:
        return bool(args.state and state)
    if not prompts.can_ask():
        raise UsageError("there is no terminal to ask on", hint="taoprof uninstall --yes; to see what: --dry-run")
    removed = [*parts, *(state if args.state else [])]
    if removed:
        print_progress(*_lines("to be removed:", context, removed))
        if not prompts.confirm("Remove this?"):
            raise Declined("nothing was removed")
    if args.state or not state:
        return bool(state)
    print_progress(*_lines("only if you agree:", context, state))
    return prompts.confirm("Also remove this? It cannot be restored.")


def _refuse_if_in_use(context: Context) -> None:
    """Raise HeldError for work that needs the state: its mounts file, its record, its place in the queue."""
    if not files.exists(context.state):
        return
    active = active_holds(context)
    holds = [hold for hold in active.holds if hold.kind not in ("found", AGENT)]
    released = {hold.id for hold in holds if hold.kind == "manual"} | active.unproved
    waiting = [f"{shorten_command(c.request.command)}   waits, pid {c.pid}" for c in waiting_commands(context)]
    if holds or waiting:
        commands = [f"taoprof {'release' if hold.id in released else 'stop'} {hold.id}" for hold in holds]
        raise HeldError(
            "cannot uninstall: taoprof is in use",
            problems=[*(hold.line() for hold in holds), *waiting],
            hint=f"nothing was changed. To end this work: {'; '.join(commands) or 'stop the commands that wait'}",
            holds=holds,
        )


def _guard(context: Context) -> list[_Part]:
    service = Service(context)
    if service.is_installed():
        return [_Part("service", service.path, "the guard", service.uninstall)]
    unit = os.path.join(context.home, ".config/systemd/user", UNIT)
    if (owner := files.stat_or_none(unit)) and owner.st_uid != context.uid:  # as with 'sudo -E'
        what = f"cannot uninstall: {context.short(unit)} is a service of another user (uid {owner.st_uid})"
        command = f"sudo -i -u '#{owner.st_uid}' {shlex.quote(kernels.taoprof())} uninstall"
        raise TaoprofError(what, hint=f"nothing was changed. To uninstall as that user: {command}")
    guard = read_status(context)
    if guard is None:
        return []
    pid: int = guard["pid"]
    return [_Part("guard", "", f"started without systemd, pid {pid}", partial(_end_guard, context, pid))]


def _end_guard(context: Context, pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _END_TIMEOUT
    while read_status(context) is not None:
        if time.monotonic() > end:
            raise TaoprofError(f"the guard, pid {pid}, does not end", hint=f"kill -9 {pid}, then: taoprof uninstall")
        time.sleep(0.02)


def _kernels(context: Context, messages: list[str]) -> list[_Part]:
    unreadable: dict[str, str] = {}
    installed = kernels.installed(context, kernels.known_folders(context), unreadable=unreadable)
    messages += [f"warning: a kernel was not removed: {why}" for why in unreadable.values()]
    named = [(kernel["path"], kernels.display_name(kernel["profile"])) for kernel in installed]
    return [_Part("kernel", path, name, partial(kernels.delete, context, path)) for path, name in named]


def _skills(context: Context) -> list[_Part]:
    """Return the skills that are installed for the agents of this user, also one that cannot be looked at."""
    parts = []
    for agent in _AGENTS:
        path = os.path.join(context.home, agent, "skills", SKILL, "SKILL.md")
        with suppress(TaoprofError):
            if not files.exists(path):
                continue
        parts.append(_Part("skill", path, "for coding agents", partial(_remove_skill, path)))
    return parts


def _remove_skill(path: str) -> None:
    files.remove(path)
    files.rmdir_quietly(os.path.dirname(path))  # if nothing else is in it


def _state(context: Context) -> list[_Part]:
    count = len(Store(context).names())
    what = f"{count} profile{'' if count == 1 else 's'}"
    parts = [
        _Part("profiles", context.config, what, partial(files.remove_folder, context.config)),
        _Part("state", context.state, "history, logs and caches", partial(_remove_state, context)),
    ]
    return [part for part in parts if files.exists(part.path)]


def _remove_state(context: Context) -> None:
    if (guard := read_status(context)) is not None:
        raise TaoprofError(f"the guard is running (pid {guard['pid']})")
    with Lock(context.lock):
        _refuse_if_in_use(context)
        files.remove_folder(context.state)


def _start_files(context: Context, messages: list[str], *, dry_run: bool) -> list[_Part]:
    """Return the lines with ``taoprof init`` in the shells' start files; other lines about taoprof are reported.

    These have the numbers that they will have when the former are gone, unless it is a dry run.
    """
    environ = context.environ
    fish = os.path.join(environ.get("XDG_CONFIG_HOME") or os.path.join(context.home, ".config"), "fish/config.fish")
    folders = [context.home, *filter(None, [environ.get("ZDOTDIR")])]
    paths = [os.path.join(folder, name) for folder in dict.fromkeys(folders) for name in _START_FILES]
    parts = []
    for path in [*paths, fish]:
        content, problem = files.try_read(path, _START_LIMIT)
        if problem not in ("", "absent"):
            messages.append(f"warning: what is in {context.short(path)} was not removed: {problem}")
        lines, others, removed = content.splitlines(), list[int](), 0
        for number, line in enumerate(lines, 1):
            if _is_init(lines, number - 1):
                what = f"line {number}: {line.decode(errors='replace').strip()}"
                parts.append(_Part("completion", path, what, partial(_remove_init, path)))
                removed += not dry_run
            elif b"taoprof" in line.lower() and not line.lstrip().startswith(b"#"):  # not shown: it may have a key
                others.append(number - removed)
        if others:
            numbers = ("line " if len(others) == 1 else "lines ") + ", ".join(map(str, others))
            messages.append(f"{context.short(path)} also names taoprof in {numbers}, not removed")
    return parts


def _remove_init(path: str) -> None:
    whole = (files.read(path, _START_LIMIT) or b"").splitlines(keepends=True)
    lines = [line.rstrip(b"\r\n") for line in whole]
    kept = [line for number, line in enumerate(whole) if not _is_init(lines, number)]
    if kept != whole:
        atomic.replace(path, b"".join(kept))


def _is_init(lines: list[bytes], number: int) -> bool:
    """Check for a line that can be removed: the only one of an 'if' cannot, or the shell would not read the file."""
    code = (line for line in reversed(lines[:number]) if line.strip() and not line.lstrip().startswith(b"#"))
    before = next(code, b"")
    return bool(_INIT.fullmatch(lines[number])) and not _OPENS.search(before) and not lines[number][:1].isspace()


def program_line() -> str:
    """Return the command that removes the program, by what has installed it: pipx, uv or pip."""
    if os.path.exists(os.path.join(sys.prefix, "uv-receipt.toml")):
        return "uv tool uninstall taoprofiles"
    with suppress(OSError, ValueError, KeyError, TypeError):
        with open(os.path.join(sys.prefix, "pipx_metadata.json"), encoding="utf-8") as file:
            main = json.load(file)["main_package"]["package"]
        return "pipx uninstall taoprofiles" if main == "taoprofiles" else f"pipx uninject {main} taoprofiles"
    installer = (metadata.distribution("taoprofiles").read_text("INSTALLER") or "").strip()
    python = shlex.quote(sys.executable)
    if installer == "uv":
        return f"uv pip uninstall --python {python} taoprofiles"
    return f"{python} -m pip uninstall taoprofiles"


def _lines(heading: str, context: Context, parts: list[_Part]) -> list[str]:
    return [heading, *table([(part.kind, part.what, context.short(part.path)) for part in parts], indent="  ")]
