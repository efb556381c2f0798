"""skill."""

from __future__ import annotations

import argparse
import os
from importlib import resources

from taoprofiles.cli.output import Result
from taoprofiles.errors import UsageError
from taoprofiles.storage import atomic, best_effort, files
from taoprofiles.storage.paths import Context
from taoprofiles.version import VERSION

NAME = "tao-run-on-taoprofiles"
"""By the rules of NVIDIA's skill bank: a platform's skill is tao-run-on-PLATFORM, in a folder of that name."""

_AGENTS = (".claude", ".codex", ".agents")
"""Folders of coding agents in the home; each has its skills in the folder ``skills``."""


def installed(context: Context) -> list[str]:
    """Return the skills that are installed for the agents of this user, also one that cannot be looked at."""
    paths = []
    for agent in _AGENTS:
        path = os.path.join(context.home, agent, "skills", NAME, "SKILL.md")
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass
        paths.append(path)
    return paths


def remove(path: str) -> None:
    """Remove an installed skill, and its folder if there is nothing else in it. Raises TaoprofError."""
    files.remove(path)
    best_effort.rmdir_quietly(os.path.dirname(path))


def _agents_folders(context: Context) -> list[str]:
    agents = [os.path.join(context.home, agent) for agent in _AGENTS]
    return [os.path.join(agent, "skills") for agent in agents if os.path.isdir(agent)]


def skill_command(context: Context, args: argparse.Namespace) -> Result:
    folders = [context.absolute(args.folder)] if args.folder is not None else _agents_folders(context)
    if not folders:
        raise UsageError(
            "no coding agent's folder was found", hint="name the folder of its skills: taoprof skill install DIR"
        )
    text = resources.files("taoprofiles.cli").joinpath("skill/SKILL.md").read_text(encoding="utf-8")
    paths = []
    for folder in folders:
        path = os.path.join(folder, NAME, "SKILL.md")
        files.make_folder(os.path.dirname(path), 0o755)
        readable = None if os.path.lexists(path) else atomic.FileAttributes(0o644, context.uid, context.gid)
        atomic.replace(path, text.replace("VERSION", VERSION, 1).encode(), attributes=readable)
        paths.append(path)
    data = {"action": args.action, "name": NAME, "paths": paths}
    return Result(data, [f"skill installed: {context.short(path)}" for path in paths])
