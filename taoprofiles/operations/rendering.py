"""A profile planned for what comes after the launcher, with the image and the command that a task has there."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from taoprofiles.errors import UsageError
from taoprofiles.operations.direct import labels
from taoprofiles.renders import TARGETS, plan, render, task
from taoprofiles.state.store import Store
from taoprofiles.world import images

if TYPE_CHECKING:
    from taoprofiles.renders.plan import Plan, Rendered
    from taoprofiles.state.paths import Context


def rendered(
    context: Context,
    name: str,
    target: str,
    command: list[str],
    *,
    image: str | None = None,
    gpus: str | int | list[str] = "all",
) -> tuple[Plan, Rendered]:
    """Plan the profile and write it for one of TARGETS.

    Raises UsageError where no image is known, CannotRenderError, InvalidProfileError, NotFoundError.
    """
    if target not in TARGETS:
        raise UsageError(f"there is no target '{target}'", hint=f"one of {', '.join(TARGETS)}")
    store = Store(context)
    renderer = store.renderer(name)
    mapping, variables = renderer.mapping(), renderer.variables()
    asked = task.split(command)
    made = plan.make(
        mapping,
        name=name,
        image=image or image_of(context, asked),
        command=asked.words,
        variables=variables,
        secrets=renderer.secret_values(),
        secret_env=renderer.secrets()[1],
        gpus=gpus,
        caller=(context.uid, context.gid),
        labels=labels(context, name) if target in ("docker", "compose") else {},
    )
    return made, render(target, made)


def image_of(context: Context, asked: task.Task) -> str:
    """Give the image that the installed launcher runs a task in. Raises UsageError."""
    if not asked.name:
        raise UsageError("no image and no task", hint="--image IMAGE, or a task: '-- tao model dino train …'")
    known = images.images(context.environ)
    if known is None:
        raise UsageError(
            f"no image named, and there is no launcher here whose table tells that of '{asked.name}'",
            hint="--image IMAGE, or install the launcher: 'pip install nvidia-tao'",
        )
    found = known.of(asked.group, asked.name)
    if found is None:
        close = difflib.get_close_matches(asked.name, known.tasks(), n=1)
        where = f" of group '{asked.group}'" if asked.group else ""
        raise UsageError(
            f"the launcher's table has no task '{asked.name}'{where} ('{known.where}')",
            hint=f"did you mean '{close[0]}'? Or --image IMAGE" if close else "--image IMAGE",
        )
    return found
