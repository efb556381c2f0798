"""Slurm: a script for ``sbatch``, and an environment definition file (EDF) for ``srun --environment``.

Both use pyxis, NVIDIA's container plugin for Slurm; its options: github.com/NVIDIA/pyxis/wiki/Usage.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import tomli_w

from taoprofiles.export.plan import Plan, Rendered, Word, command_line, double_dollars, gpu_count, refuse

_FORBIDDEN = {",": "a ','", "\\": "a '\\'", "$": "a '$'", " ": "a space"}
"""pyxis separates mounts by commas and passes each on as a line of an fstab, in which enroot expands ``${NAME}``."""


def render(plan: Plan) -> Rendered:
    """Write the script for ``sbatch``, which a shell runs too. A secret goes by its name, from the environment."""
    refuse(f"profile '{plan.name}' for Slurm", list(dict.fromkeys(_problems(plan))))
    warnings = list(plan.warnings)
    listed = ",".join(_mounts(plan))
    image = _image_reference(plan.image)
    options = [f"--container-image={image}", *([f"--container-mounts={listed}"] if listed else [])]
    options += _user_options(plan, warnings)
    # --exclusive takes them all from others, but srun 22.05 gives a task only the GPUs that it requests.
    gpus = gpu_count(plan, warnings, "a task", "Slurm")
    gpu_options = [f"--gpus-per-node={gpus}"] if gpus else []
    options += [*gpu_options, "--export=ALL"]
    warnings += _ignored_settings(plan)
    if not (image.endswith(".sqsh") or image.startswith(("/", "./"))):
        reference = image if "://" in image else f"docker://{image}"
        warnings.append(
            f"'{plan.image}' is pulled by each job, while its GPUs wait. To convert it once: enroot import -o tao.sqsh "
            f"'{reference}'; then --image \"$PWD/tao.sqsh\""
        )
    if plan.secrets:  # without it, the image's own value of a variable takes precedence
        options.append(f"--container-env={','.join(plan.secrets)}")
    # Set in the container, by env: --export takes no value with a comma, and HOME and PATH are srun's own as well.
    values = [(f"{name}={value}",) for name, value in plan.env.items() if value is not None]
    task: list[Word] = list(plan.command) or [("bash",)]
    last: list[Word] = [("env",), *values, *task] if values else task
    settings = [f"--{key}={plan.slurm[key]}" for key in ("partition", "account", "time") if key in plan.slurm]
    of_job = [f"--job-name={plan.job}", *settings, *gpu_options, *plan.slurm.get("options", [])]
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in of_job), ""]
    return Rendered("\n".join([*lines, command_line("srun", [[option] for option in options], last)]), warnings)


def _mounts(plan: Plan) -> list[str]:
    """Return the mounts as SOURCE:DESTINATION[:ro], for pyxis (``--container-mounts``) and EDF."""
    return [f"{mount.source}:{mount.destination}{':ro' if mount.read_only else ''}" for mount in plan.mounts]


def _mount_problems(plan: Plan) -> Iterator[str]:
    """Yield a problem for each mount whose path has a character that enroot does not support."""
    for number, mount in enumerate(plan.mounts):
        for side, path in (("source", mount.source), ("destination", mount.destination)):
            for character, what in _FORBIDDEN.items():
                if character in path:
                    yield f"mounts[{number}].{side}: '{path}' has {what}, which --container-mounts does not support"


def _problems(plan: Plan) -> Iterator[str]:
    yield from _mount_problems(plan)
    first = "".join(part if isinstance(part, str) else "" for part in plan.command[0]) if plan.command else ""
    if first.startswith("-"):
        yield "the command starts with '-': srun would take it for an option"
    if "=" in first and any(value is not None for value in plan.env.values()):
        yield "the command's first word contains '=': env would take it for a variable"


def _user_options(plan: Plan, warnings: list[str]) -> list[str]:
    user = plan.user
    if user is None:
        return []
    if user.partition(":")[0] in ("0", "root"):
        return ["--container-remap-root"]
    if user not in (plan.caller, plan.caller.partition(":")[0]):
        warnings.append(f"docker.user '{user}': under Slurm the task runs as the user who submits it")
    return ["--no-container-remap-root"]


def _ignored_settings(plan: Plan) -> Iterator[str]:
    """Yield a warning for each setting of the plan that enroot does not support."""
    if plan.shm_size is not None:
        yield "docker.shm_size ignored: with pyxis the task uses the node's /dev/shm"
    if plan.ulimits:
        yield f"docker.ulimits ({', '.join(plan.ulimits)}) ignored: srun uses the limits of the shell that submits"
    if plan.tty:
        yield "docker.tty ignored: a batch job has no terminal"
    if plan.ports:
        yield "docker.ports ignored: with pyxis the task uses the node's network and all its ports"
    if plan.network not in (None, "host"):
        yield f"docker.network '{plan.network}' ignored: with pyxis the task uses the node's network"
    if plan.privileged:
        yield "docker.privileged ignored: enroot gives no privileges that the user does not have"


def _image_reference(image: str) -> str:
    """Return an image as pyxis takes it: a squashfs file by its path, or a reference with '#' after the registry."""
    if image.endswith(".sqsh") or image.startswith(("/", "./", "~")):
        path = os.path.expanduser(image)
        return path if "/" in path else f"./{path}"  # without a slash, pyxis would look for it in a registry
    scheme, _, reference = image.rpartition("://")
    first, slash, rest = reference.partition("/")
    is_registry = bool(slash) and "#" not in first and bool(re.search(r"[.:]|^localhost$", first))
    return (f"{scheme}://" if scheme else "") + (f"{first}#{rest}" if is_registry else reference)


def render_edf(plan: Plan) -> Rendered:
    """Write the EDF. A secret is a reference to a variable of the environment of srun."""
    refuse(f"profile '{plan.name}' as an EDF", list(_mount_problems(plan)))
    warnings = [*plan.warnings, *_ignored_settings(plan)]
    if plan.user is not None and plan.user != plan.caller:
        warnings.append(f"docker.user '{plan.user}' ignored: the task runs as the user who submits it")
    warnings += [f"{name}: an empty value removes the variable" for name, value in plan.env.items() if value == ""]
    document: dict[str, Any] = {
        "image": _image_reference(plan.image).removeprefix("docker://"),
        "mounts": _mounts(plan),
        "env": {name: f"${{{name}}}" if value is None else double_dollars(value) for name, value in plan.env.items()},
    }
    return Rendered(tomli_w.dumps({key: value for key, value in document.items() if value}), warnings)
