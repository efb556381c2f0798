"""Writes a profile for other tools than the launcher: docker run, Compose, a Kubernetes Job, srun with pyxis."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan, Rendered

TARGETS = ("docker", "compose", "kubernetes", "slurm")
"""Each is the name of a module with ``render(plan)``, loaded when it is needed."""


def render(target: str, plan: Plan) -> Rendered:
    """Write a plan for one of TARGETS. Raises CannotRenderError with everything that the target cannot express."""
    from importlib import import_module

    rendered: Rendered = import_module(f"taoprofiles.export.{target}").render(plan)
    return rendered
