"""A Compose file with one service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taoprofiles.export.formatting import to_yaml
from taoprofiles.export.plan import Rendered, Secret

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan, Word


def render(plan: Plan) -> Rendered:
    """Write the file. A secret comes from the environment of ``docker compose``, which refuses to start without it."""
    mode, networks = _network(plan.network)
    service: dict[str, Any] = {
        "image": plan.image,
        "command": [_word(word) for word in plan.command],
        "init": True,
        "stdin_open": True,
        "tty": plan.tty is not False,
        "labels": {name: _escape(value) for name, value in plan.labels.items()},
        "volumes": [
            {"type": "bind", "source": _escape(mount.source), "target": _escape(mount.destination)}
            for mount in plan.mounts
        ],
        "environment": {
            name: f"${{{name}:?}}" if value is None else _escape(value) for name, value in plan.env.items()
        },
        "user": None if plan.user is None else _escape(plan.user),
        "shm_size": plan.shm_size,
        "ulimits": {name: {"soft": limit, "hard": limit} for name, limit in plan.ulimits.items()},
        "ports": [f"{port.host}:{port.container}/{port.protocol}" for port in plan.ports if port.host is not None],
        "expose": [f"{port.container}/{port.protocol}" for port in plan.ports if port.host is None],
        "network_mode": mode,
        "networks": list(networks),
        "privileged": plan.privileged or None,
        "deploy": _deploy(plan.gpus),
    }
    document: dict[str, Any] = {"services": {plan.name: {k: v for k, v in service.items() if v not in (None, [], {})}}}
    document |= {"networks": networks} if networks else {}
    return Rendered(to_yaml(document), plan.warnings)


def _network(network: str | None) -> tuple[str | None, dict[str, Any]]:
    """Return the service's ``network_mode``, and the document's ``networks``."""
    if network is None or network in ("host", "bridge", "none") or network.startswith("container:"):
        return network, {}
    return None, {"profile": {"external": True, "name": network}}


def _deploy(gpus: str | int | list[str]) -> dict[str, Any] | None:
    if gpus == []:
        return None
    which = {"device_ids": gpus} if isinstance(gpus, list) else {"count": gpus}
    device = {"driver": "nvidia", **which, "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}


def _word(word: Word) -> str:
    return "".join(f"${{{part.name}:?}}" if isinstance(part, Secret) else _escape(part) for part in word)


def _escape(text: str) -> str:
    return text.replace("$", "$$")
