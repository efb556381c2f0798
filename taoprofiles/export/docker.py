"""Docker: a ``docker run`` command with what the launcher would request from the engine, and a Compose file."""

from __future__ import annotations

import csv
import io
from typing import Any

from taoprofiles.export.plan import Plan, Rendered, Secret, command_line, double_dollars, to_yaml, without_empty
from taoprofiles.storage.paths import Context
from taoprofiles.system.engine import PROFILE_LABEL, STATE_LABEL


def labels(context: Context, name: str) -> dict[str, str]:
    """Return the labels that identify a container of the profile ``name`` that is started without the launcher."""
    return {PROFILE_LABEL: name, STATE_LABEL: context.state}


def render_command(plan: Plan) -> Rendered:
    """Write ``docker run`` for a shell. A secret comes from the shell's environment (``--env NAME``)."""
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
    for mount in plan.mounts:
        fields = ["type=bind", f"source={mount.source}", f"target={mount.destination}"]
        result.append(["--mount", _csv(*fields, *(["readonly"] if mount.read_only else []))])
    result += [["--env", name if value is None else f"{name}={value}"] for name, value in plan.env.items()]
    result += [["--user", plan.user]] if plan.user is not None else []
    result += [["--group-add", str(group)] for group in plan.groups]
    result += [["--shm-size", str(plan.shm_size)]] if plan.shm_size is not None else []
    result += [["--ulimit", f"{name}={limit}:{limit}"] for name, limit in plan.ulimits.items()]
    for port in plan.ports:
        container = f"{port.container}/{port.protocol}"
        result.append(["--expose", container] if port.host is None else ["--publish", f"{port.host}:{container}"])
    result += [["--network", plan.network]] if plan.network is not None else []
    result += [["--privileged"]] if plan.privileged else []
    gpus = _csv(f"device={','.join(plan.gpus)}") if isinstance(plan.gpus, list) else str(plan.gpus)
    return result + ([["--gpus", gpus]] if plan.gpus != [] else [])


def _csv(*fields: str) -> str:
    """Return fields as Docker parses them (encoding/csv of Go): quoted if they contain a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def render_compose(plan: Plan) -> Rendered:
    """Write a Compose file with one service. ``docker compose`` refuses to start without its secrets as variables."""
    network = plan.network
    is_mode = network in (None, "host", "bridge", "none") or str(network).startswith("container:")
    networks = {} if is_mode else {"profile": {"external": True, "name": network}}
    devices = {"device_ids": plan.gpus} if isinstance(plan.gpus, list) else {"count": plan.gpus}
    gpu = {"driver": "nvidia", **devices, "capabilities": ["gpu"]}
    service: dict[str, Any] = {
        "image": plan.image,
        "command": [
            "".join(_variable(part.name) if isinstance(part, Secret) else double_dollars(part) for part in word)
            for word in plan.command
        ],
        "init": True,
        "stdin_open": True,
        "tty": plan.tty is not False,
        "labels": {name: double_dollars(value) for name, value in plan.labels.items()},
        "volumes": [
            {
                "type": "bind",
                "source": double_dollars(mount.source),
                "target": double_dollars(mount.destination),
                **({"read_only": True} if mount.read_only else {}),
            }
            for mount in plan.mounts
        ],
        "environment": {
            name: _variable(name) if value is None else double_dollars(value) for name, value in plan.env.items()
        },
        "user": None if plan.user is None else double_dollars(plan.user),
        "group_add": [str(group) for group in plan.groups],
        "shm_size": plan.shm_size,
        "ulimits": {name: {"soft": limit, "hard": limit} for name, limit in plan.ulimits.items()},
        "ports": [f"{port.host}:{port.container}/{port.protocol}" for port in plan.ports if port.host is not None],
        "expose": [f"{port.container}/{port.protocol}" for port in plan.ports if port.host is None],
        "network_mode": network if is_mode else None,
        "networks": list(networks),
        "privileged": plan.privileged or None,
        "deploy": {"resources": {"reservations": {"devices": [gpu]}}} if plan.gpus != [] else None,
    }
    document: dict[str, Any] = {"services": {plan.name: without_empty(service)}}
    return Rendered(to_yaml(document | ({"networks": networks} if networks else {})), plan.warnings)


def _variable(name: str) -> str:
    return f"${{{name}:?}}"
