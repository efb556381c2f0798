"""``docker run``, with what the launcher would have asked the engine for."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from taoprofiles.export.plan import Rendered
from taoprofiles.export.shell import command_line
from taoprofiles.system.engine_schema import PROFILE_LABEL, STATE_LABEL

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan
    from taoprofiles.storage.paths import Context


def render(plan: Plan) -> Rendered:
    """Write the command for a shell. A secret is taken from the shell's environment (``--env NAME``)."""
    terminal = ["--interactive"] if plan.tty is False else ["--interactive", "--tty"]
    shown = [[(word,) for word in option] for option in [["--rm", *terminal], *options(plan)]]
    return Rendered(command_line("docker run", shown, [(plan.image,), *plan.command]), plan.warnings)


def labels(context: Context, name: str) -> dict[str, str]:
    """Return the labels by which ``taoprof status`` recognises a container that was started without the launcher."""
    return {PROFILE_LABEL: name, STATE_LABEL: context.state}


def options(plan: Plan) -> list[list[str]]:
    """Give the options of ``docker run`` but for the terminal, each as its words.

    ``--init``: without it a task is process 1, which the kernel hands no signal that it has not asked for. ``--mount``,
    since ``--volume`` would make a source that is missing, as root's.
    """
    made = [["--init"]]
    made += [["--label", f"{name}={value}"] for name, value in plan.labels.items()]
    made += [["--mount", _csv("type=bind", f"source={one.source}", f"target={one.destination}")] for one in plan.mounts]
    made += [["--env", name if value is None else f"{name}={value}"] for name, value in plan.env.items()]
    if plan.user is not None:
        made.append(["--user", plan.user])
    if plan.shm_size is not None:
        made.append(["--shm-size", str(plan.shm_size)])
    made += [["--ulimit", f"{name}={limit}:{limit}"] for name, limit in plan.ulimits.items()]
    for port in plan.ports:
        inside = f"{port.container}/{port.protocol}"
        made.append(["--expose", inside] if port.host is None else ["--publish", f"{port.host}:{inside}"])
    if plan.network is not None:
        made.append(["--network", plan.network])
    if plan.privileged:
        made.append(["--privileged"])
    if isinstance(plan.gpus, list):
        if plan.gpus:
            made.append(["--gpus", _csv(f"device={','.join(plan.gpus)}")])
    else:
        made.append(["--gpus", str(plan.gpus)])
    return made


def _csv(*fields: str) -> str:
    """Write fields as Docker reads them (encoding/csv of Go): in quotes where there is a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
