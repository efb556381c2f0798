"""Exports a profile: finds the image, plans the container and writes it for a target."""

from __future__ import annotations

import difflib

from taoprofiles.errors import CannotRenderError, UsageError
from taoprofiles.export import docker, kubernetes, plan, slurm
from taoprofiles.export.plan import Plan, Rendered
from taoprofiles.launcher import behaviour, probes, simulation
from taoprofiles.launcher.argv import container_words, parse_launcher_argv
from taoprofiles.launcher.behaviour import Host
from taoprofiles.profiles.layouts import EXAMPLE_IMAGE
from taoprofiles.profiles.rendering import Renderer
from taoprofiles.storage.paths import Context
from taoprofiles.system.gpus import parse_gpus

RENDERERS = {
    "docker": docker.render_command,
    "compose": docker.render_compose,
    "kubernetes": kubernetes.render,
    "slurm": slurm.render,
    "edf": slurm.render_edf,
}
"""By target. Each raises CannotRenderError with everything that the target cannot express."""


def export(renderer: Renderer, target: str, container: Plan) -> tuple[Rendered, list[str]]:
    """Write a plan of ``plan_target``; the second value are notes on how to provide its secrets.

    Raises CannotRenderError.
    """
    if target in ("docker", "compose"):
        container = container._replace(labels=docker.labels(renderer.context, container.name))
    rendered = RENDERERS[target](container)
    notes = _notes(renderer, container, rendered)
    if target == "edf":
        notes.append(f"to use it, save it as ~/.edf/{container.name}.toml: srun --environment={container.name} COMMAND")
    return rendered, notes


def plan_target(renderer: Renderer, target: str, command: list[str], *, image: str | None, gpus: str | None) -> Plan:
    """Return the plan of the renderer's profile for one of TARGETS.

    ``image`` and ``gpus`` (``parse_gpus``) are by default the profile's, then the launcher's for the task, and all.
    Raises UsageError if no image is known, CannotRenderError, InvalidProfileError.
    """
    words = container_words(command)
    image = image or renderer.image(words) or find_image(renderer.context, command)
    if target not in ("slurm", "edf"):
        if image.endswith(".sqsh"):
            raise CannotRenderError(
                f"'{image}' is a squashfs file, which only Slurm can start",
                hint=f"name an image of a registry: --image {EXAMPLE_IMAGE}",
            )
        image = image.removeprefix("docker://").replace("#", "/", 1)
    return plan.plan_container(
        renderer,
        image=image,
        command=words if target != "edf" else [],  # which has no command, only its image
        gpus=parse_gpus(gpus or renderer.template["gpus"] or "all"),
    )


def _notes(renderer: Renderer, container: Plan, rendered: Rendered) -> list[str]:
    if not container.secrets:
        return []
    variables = renderer.variables()
    own = [secret for secret in container.secrets if secret in variables]
    others = [secret for secret in container.secrets if secret not in variables]
    names = ", ".join(container.secrets)
    where = "a Kubernetes Secret" if rendered.store else "the environment"
    what, them = ("is a secret", "it") if len(container.secrets) == 1 else ("are secrets", "them")
    notes = [f"{names} {what}: the output reads {them} from {where} instead of containing {them}"]
    notes += [f'to set {", ".join(own)}: eval "$(taoprof env {renderer.name} --reveal)"'] if own else []
    notes += [f"to set {', '.join(others)}: export {' '.join(f'{secret}=…' for secret in others)}"] if others else []
    return notes + ([f"to create the Secret: {rendered.store}"] if rendered.store else [])


def find_image(context: Context, command: list[str]) -> str:
    """Return the image in which the installed launcher runs the task of ``command``. Raises UsageError."""
    launch = parse_launcher_argv(command)
    group, task = (launch.group, launch.task) if launch else ("", command[0] if command else "")
    if not task:
        raise UsageError(
            "no image given",
            hint="add --image IMAGE, or the task, whose image the launcher knows, such as: -- tao model dino train",
        )
    table = _images(context)
    if not table:
        raise UsageError(
            f"no image given, and no launcher is installed to look up the image of '{task}'",
            hint="add --image IMAGE, or install the launcher: pip install nvidia-tao",
        )
    image = next((image for key, image in table.items() if key[1] == task and group in ("", key[0])), None)
    if image is None:
        close = difflib.get_close_matches(task, sorted({name for _, name in table}), n=1)
        where = f" of group '{group}'" if group else ""
        raise UsageError(
            f"the installed launcher has no task '{task}'{where}",
            hint=f"did you mean '{close[0]}'? Or --image IMAGE" if close else "--image IMAGE",
        )
    return image


def _images(context: Context) -> dict[tuple[str, str], str]:
    """Return the images by group and task of the launcher on PATH; {} if there is none or its table is invalid."""
    launcher = probes.first_launcher(context.environ)
    if launcher is None:
        return {}
    host = Host(context.environ, context.folder, probes.launcher_config(launcher))
    table = simulation.known_images(behaviour.behaviour_or_newest(launcher.version), host)
    return {(group, name): f"{registry}/{image}" for (group, name), (registry, image) in table.items()}
