"""daemon, service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taoprofiles.cli.output import table
from taoprofiles.cli.result import Result
from taoprofiles.guard import guard
from taoprofiles.guard.service import Service

if TYPE_CHECKING:
    import argparse

    from taoprofiles.storage.paths import Context


def daemon_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unseal", action="store_true", help="only give the mapping file its mode back, after a guard that was killed"
    )


def daemon_verb(context: Context, args: argparse.Namespace) -> Result:
    if args.unseal:
        was_sealed = guard.unseal(context)
        return Result({"unsealed": was_sealed}, ["the mapping file is writable again"] if was_sealed else [])
    from taoprofiles.guard.daemon import Daemon

    Daemon(context).run()
    return Result({"unsealed": False})


LOG_LINES = 50


def service_arguments(parser: argparse.ArgumentParser) -> None:
    actions = ("install", "uninstall", "start", "stop", "status", "logs")
    about = "install (or upgrade, and start), uninstall, start, stop, status, or logs (its last 50 lines)"
    parser.add_argument("action", choices=actions, metavar="ACTION", help=about)


def service_verb(context: Context, args: argparse.Namespace) -> Result:
    service = Service(context)
    lines: list[str] = []
    messages: list[str] = []
    data: dict[str, Any] = {"action": args.action, "done": [], "service": None, "log": []}
    if args.action in ("install", "uninstall"):
        data["done"] = service.install() if args.action == "install" else service.uninstall()
        nothing = "all was so already; nothing changed" if args.action == "install" else "it was not installed"
        lines = data["done"] or [nothing]
        if args.action == "install" and not service.lingers():
            messages.append("it ends when you log out; 'loginctl enable-linger' keeps it, as trainings in tmux need it")
    elif args.action in ("start", "stop"):
        service.start() if args.action == "start" else service.stop()
        lines = data["done"] = ["started" if args.action == "start" else "stopped"]
    elif args.action == "logs":
        lines = data["log"] = service.logs(LOG_LINES)
    if args.action in ("install", "start", "status"):
        state = data["service"] = service.status()
        if args.action == "status":
            lines = _service_lines(state)
    return Result(data, lines, messages=messages)


def _service_lines(state: dict[str, Any]) -> list[str]:
    if not state["installed"]:
        beside = state["guard"]
        other = f"; a guard runs without it, pid {beside['pid']}" if beside else ""
        return [f"not installed: 'taoprof service install'{other}"]
    login = "starts at login" if state["enabled"] else "does not start at login ('taoprof service install')"
    stays = "goes on after logout" if state["lingers"] else "ends at logout ('loginctl enable-linger')"
    pid = f", pid {state['pid']}" if state["pid"] else ""
    known = state["guard"] or {}
    rows = [
        ("service", f"{state['state']}{pid}, {login}, {stays}"),
        ("guards", state["text"] or "-"),
        ("version", known.get("version") or "-"),
        ("restarts", str(state["restarts"])),
        ("unit", state["unit"] or "-"),
    ]
    return table(rows)
