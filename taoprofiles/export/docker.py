"""``docker run``, with what the launcher would request from the engine."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from taoprofiles.export.formatting import command_line
from taoprofiles.export.plan import Rendered
from taoprofiles.system.engine import PROFILE_LABEL, STATE_LABEL

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan
    from taoprofiles.storage.paths import Context


def labels(context: Context, name: str) -> dict[str, str]:
    """Return the labels that identify a container of the profile ``name`` that is started without the launcher."""
    return {PROFILE_LABEL: name, STATE_LABEL: context.state}


def render(plan: Plan) -> Rendered:
    """Write the command for a shell. A secret comes from the shell's environment (``--env NAME``)."""
    terminal = ["--interactive"] if plan.tty is False else ["--interactive", "--tty"]
    lines = [["--rm", *terminal], *options(plan)]
    return Rendered(command_line("docker run", lines, [(plan.image,), *plan.command]), plan.warnings)


def options(plan: Plan) -> list[list[str]]:
    """Return the options of ``docker run`` except for the terminal, each as a list of words.

    ``--init``: otherwise the task is process 1, which ignores every signal that it does not handle. ``--mount``:
    ``--volume`` would create a missing source as root.
    """
    result = [["--init"]]
    result += [["--label", f"{name}={value}"] for name, value in plan.labels.items()]
    result += [["--mount", _csv("type=bind", f"source={m.source}", f"target={m.destination}")] for m in plan.mounts]
    result += [["--env", name if value is None else f"{name}={value}"] for name, value in plan.env.items()]
    if plan.user is not None:
        result.append(["--user", plan.user])
    if plan.shm_size is not None:
        result.append(["--shm-size", str(plan.shm_size)])
    result += [["--ulimit", f"{name}={limit}:{limit}"] for name, limit in plan.ulimits.items()]
    for port in plan.ports:
        container = f"{port.container}/{port.protocol}"
        result.append(["--expose", container] if port.host is None else ["--publish", f"{port.host}:{container}"])
    if plan.network is not None:
        result.append(["--network", plan.network])
    if plan.privileged:
        result.append(["--privileged"])
    if plan.gpus != []:
        result.append(
            ["--gpus", _csv(f"device={','.join(plan.gpus)}") if isinstance(plan.gpus, list) else str(plan.gpus)]
        )
    return result


def _csv(*fields: str) -> str:
    """Return fields as Docker parses them (encoding/csv of Go): quoted if they contain a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
