"""``srun`` with pyxis, NVIDIA's container plugin for Slurm. Its options: github.com/NVIDIA/pyxis/wiki/Usage."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taoprofiles.export.plan import Rendered, refuse
from taoprofiles.export.shell import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taoprofiles.export.plan import Plan, Word

_CANNOT = {",": "a ','", "\\": "a '\\'", "$": "a '$'", " ": "a blank"}
"""pyxis separates mounts by commas, and hands each on as a line of an fstab, in which enroot expands ``${NAME}``."""


def render(plan: Plan) -> Rendered:
    """Write the command for a shell. A secret goes by its name, from the environment of srun."""
    refuse(plan, "slurm", list(_faults(plan)))
    options = [[f"--container-image={_image(plan.image)}"]]
    if plan.mounts:
        mounts = ",".join(f"{one.source}:{one.destination}" for one in plan.mounts)
        options.append([f"--container-mounts={mounts}"])
    warnings = list(plan.warnings)
    options += [[option] for option in _options(plan, warnings)]
    options.append(["--export=ALL"])
    if plan.secrets:
        # Without it the image's own value of a variable counts more.
        options.append([f"--container-env={','.join(plan.secrets)}"])
    # Set in the container, by env: a value with a comma is none for --export, and HOME or PATH are srun's own as well.
    values = [(f"{name}={value}",) for name, value in plan.env.items() if value is not None]
    task: list[Word] = list(plan.command) or [("bash",)]
    last: list[Word] = [("env",), *values, *task] if values else task
    shown: list[list[Word]] = [[(word,) for word in option] for option in options]
    return Rendered(command_line("srun", shown, last), warnings)


def _faults(plan: Plan) -> Iterator[str]:
    for number, one in enumerate(plan.mounts):
        for side in ("source", "destination"):
            path = getattr(one, side)
            for sign, what in _CANNOT.items():
                if sign in path:
                    yield f"mounts[{number}].{side}: '{path}' has {what}, which --container-mounts cannot carry"
    first = "".join(piece if isinstance(piece, str) else "" for piece in plan.command[0]) if plan.command else ""
    if first.startswith("-"):
        yield "the command's first word starts with '-', which is an option of srun's then"
    if "=" in first and any(value is not None for value in plan.env.values()):
        yield "the command's first word has a '=', which is a variable to env then"


def _options(plan: Plan, warnings: list[str]) -> Iterator[str]:
    user = plan.user
    if user is not None and user.partition(":")[0] in ("0", "root"):
        yield "--container-remap-root"
    elif user is not None:
        yield "--no-container-remap-root"
        if user not in (f"{plan.caller[0]}:{plan.caller[1]}", str(plan.caller[0])):
            warnings.append(f"docker.user '{user}': under Slurm the task runs as who submits it")
    if plan.gpus == "all":
        # --exclusive takes them all from others, but srun 22.05 gives its task none that was not asked for.
        yield "--gpus-per-node=1"
        warnings.append("all GPUs: a task asks for a number of them, here 1; --gpus N asks for more")
    elif plan.gpus and isinstance(plan.gpus, list):
        yield f"--gpus-per-node={len(plan.gpus)}"
        warnings.append(f"GPUs {','.join(plan.gpus)}: Slurm chooses which {len(plan.gpus)} a task gets")
    elif plan.gpus:
        yield f"--gpus-per-node={plan.gpus}"
    if plan.tty:
        yield "--pty"
    if plan.shm_size is not None:
        warnings.append("docker.shm_size: with pyxis the node's own /dev/shm is there, of the size that it has")
    if plan.ulimits:
        warnings.append(f"docker.ulimits ({', '.join(plan.ulimits)}): srun hands on the limits of the shell ('ulimit')")
    if plan.ports:
        warnings.append("docker.ports: with pyxis the task has the node's network, and all its ports")
    if plan.network not in (None, "host"):
        warnings.append(f"docker.network '{plan.network}': with pyxis the task has the node's network")
    if plan.privileged:
        warnings.append("docker.privileged: enroot gives no rights that the user has not got")


def _image(image: str) -> str:
    """Write a reference as enroot reads it: the registry, where there is one, ends with '#'."""
    first, slash, rest = image.partition("/")
    is_registry = bool(slash) and bool(re.search(r"[.:]|^localhost$", first))
    return f"{first}#{rest}" if is_registry else image
