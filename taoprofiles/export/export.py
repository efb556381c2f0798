"""A profile planned for what comes after the launcher, with the image and the command that a task has there."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from taoprofiles.errors import UsageError
from taoprofiles.export import TARGETS, docker, plan, render
from taoprofiles.launcher import command as launching
from taoprofiles.launcher import installed, versions
from taoprofiles.launcher.argv import container_words, parse_launcher_argv
from taoprofiles.launcher.host import Host
from taoprofiles.launcher.prediction import StartLog
from taoprofiles.profiles.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection

    from taoprofiles.export.plan import Plan, Rendered
    from taoprofiles.storage.paths import Context


def rendered(
    context: Context,
    name: str,
    target: str,
    command: list[str],
    *,
    image: str | None = None,
    gpus: str | int | list[str] = "all",
) -> tuple[Plan, Rendered, list[str]]:
    """Plan the profile and write it for one of TARGETS; the third tells how its secrets are given, one line each.

    Raises UsageError where no image is known, CannotRenderError, InvalidProfileError, NotFoundError.
    """
    if target not in TARGETS:
        raise UsageError(f"there is no target '{target}'", hint=f"one of {', '.join(TARGETS)}")
    store = Store(context)
    renderer = store.renderer(name)
    mapping, variables = renderer.mapping(), renderer.variables()
    words = container_words(command)
    made = plan.make(
        mapping,
        name=name,
        image=image or image_of(context, command),
        command=words,
        variables=variables,
        secrets=renderer.secret_values(),
        secret_env=renderer.secrets()[1],
        gpus=gpus,
        caller=(context.uid, context.gid),
        labels=docker.labels(context, name) if target in ("docker", "compose") else {},
    )
    written = render(target, made)
    return made, written, giving(made, written, variables)


def giving(made: Plan, written: Rendered, variables: Collection[str]) -> list[str]:
    """Tell how the secrets are given, none of which is written: one line each, to be pasted behind the first words."""
    if not made.secrets:
        return []
    own = [name for name in made.secrets if name in variables]
    others = [name for name in made.secrets if name not in variables]
    where = "the Secret that this makes" if written.store else "the environment"
    told = [f"not written, since secret, and read from {where}: {', '.join(made.secrets)}"]
    told += [f'{", ".join(own)}: eval "$(taoprof env {made.name} --reveal)"'] if own else []
    told += [f"{', '.join(others)}: export {' '.join(f'{name}=…' for name in others)}"] if others else []
    return told + ([written.store] if written.store else [])


def image_of(context: Context, command: list[str]) -> str:
    """Return the image in which the installed launcher runs the task of ``command``. Raises UsageError."""
    launch = parse_launcher_argv(command)
    group, task = (launch.group, launch.task) if launch else ("", command[0] if command else "")
    if not task:
        raise UsageError("no image and no task", hint="--image IMAGE, or a task: '-- tao model dino train …'")
    table = _images(context)
    if not table:
        raise UsageError(
            f"no image named, and there is no launcher here whose table tells that of '{task}'",
            hint="--image IMAGE, or install the launcher: 'pip install nvidia-tao'",
        )
    found = next((image for key, image in (table or {}).items() if key[1] == task and group in ("", key[0])), None)
    if found is None:
        close = difflib.get_close_matches(task, sorted({name for _, name in table}), n=1)
        where = f" of group '{group}'" if group else ""
        raise UsageError(
            f"the launcher's table has no task '{task}'{where}",
            hint=f"did you mean '{close[0]}'? Or --image IMAGE" if close else "--image IMAGE",
        )
    return found


def _images(context: Context) -> dict[tuple[str, str], str]:
    """Give the image by group and task, as the launcher on PATH has it; {} where there is none to tell."""
    found = installed.first(context.environ)
    if found is None:
        return {}
    host = Host(context.environ, context.folder, installed.config(found))
    table = None
    with StartLog().step("config"):
        table = launching.read_images(versions.behaviour_or_newest(found.version), host)
    override = context.environ.get("OVERRIDE_REGISTRY")
    return {
        (group, name): f"{registry if override is None else override}/{image}"
        for (group, name), (registry, image) in (table or {}).items()
    }
