"""A profile for what comes after the launcher: docker run, a compose file, a Kubernetes Job, srun with pyxis."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan, Rendered

TARGETS = ("docker", "compose", "kubernetes", "slurm")


def render(target: str, plan: Plan) -> Rendered:
    """Write a plan for one of TARGETS. Raises CannotRenderError with all that the target's syntax cannot carry."""
    from importlib import import_module

    made: Rendered = import_module(f"taoprofiles.export.{target}").render(plan)
    return made
