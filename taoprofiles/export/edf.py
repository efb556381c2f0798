"""An EDF (environment definition file): a named container environment of CSCS's container engine for Slurm.

Its keys: docs.cscs.ch/software/container-engine/edf. It has no command and no resources: those are srun's.
"""

from __future__ import annotations

from typing import Any

import tomli_w

from taoprofiles.export import slurm
from taoprofiles.export.formatting import double_dollars
from taoprofiles.export.plan import Plan, Rendered, refuse


def render(plan: Plan) -> Rendered:
    """Write the file. A secret is a reference to a variable of the environment of srun."""
    refuse(f"profile '{plan.name}' as an EDF", list(slurm.mount_problems(plan)))
    warnings = [*plan.warnings, *slurm.unsupported(plan)]
    if plan.user is not None and plan.user != f"{plan.caller[0]}:{plan.caller[1]}":
        warnings.append(f"docker.user '{plan.user}' ignored: the task runs as the user who submits it")
    warnings += [f"{name}: an empty value removes the variable" for name, value in plan.env.items() if value == ""]
    document: dict[str, Any] = {
        "image": slurm.image_reference(plan.image).removeprefix("docker://"),
        "mounts": slurm.mounts(plan),
        "env": {name: f"${{{name}}}" if value is None else double_dollars(value) for name, value in plan.env.items()},
    }
    return Rendered(tomli_w.dumps({key: value for key, value in document.items() if value}), warnings)
