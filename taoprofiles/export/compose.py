"""A compose file with one service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taoprofiles.export import yaml
from taoprofiles.export.plan import Rendered, Secret

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan, Word


def render(plan: Plan) -> Rendered:
    """Write the file. A secret is taken from the environment of ``docker compose``, which refuses to go on without."""
    service: dict[str, Any] = {"image": plan.image}
    if plan.command:
        service["command"] = [_word(word) for word in plan.command]
    service["init"] = True
    service["stdin_open"] = True
    service["tty"] = plan.tty is not False
    if plan.labels:
        service["labels"] = {name: _escaped(value) for name, value in plan.labels.items()}
    if plan.mounts:
        service["volumes"] = [
            {"type": "bind", "source": _escaped(one.source), "target": _escaped(one.destination)} for one in plan.mounts
        ]
    if plan.env:
        service["environment"] = {
            name: f"${{{name}:?}}" if value is None else _escaped(value) for name, value in plan.env.items()
        }
    if plan.user is not None:
        service["user"] = _escaped(plan.user)
    if plan.shm_size is not None:
        service["shm_size"] = plan.shm_size
    if plan.ulimits:
        service["ulimits"] = {name: {"soft": limit, "hard": limit} for name, limit in plan.ulimits.items()}
    published = [f"{p.host}:{p.container}/{p.protocol}" for p in plan.ports if p.host is not None]
    exposed = [f"{p.container}/{p.protocol}" for p in plan.ports if p.host is None]
    service |= {"ports": published} if published else {}
    service |= {"expose": exposed} if exposed else {}
    document: dict[str, Any] = {"services": {plan.name: service}}
    if plan.network in ("host", "bridge", "none") or (plan.network or "").startswith("container:"):
        service["network_mode"] = plan.network
    elif plan.network is not None:
        service["networks"] = ["profile"]
        document["networks"] = {"profile": {"external": True, "name": plan.network}}
    if plan.privileged:
        service["privileged"] = True
    if plan.gpus != []:
        which = {"device_ids": plan.gpus} if isinstance(plan.gpus, list) else {"count": plan.gpus}
        device = {"driver": "nvidia", **which, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    return Rendered(yaml.write(document), plan.warnings)


def _word(word: Word) -> str:
    return "".join(f"${{{piece.name}:?}}" if isinstance(piece, Secret) else _escaped(piece) for piece in word)


def _escaped(text: str) -> str:
    return text.replace("$", "$$")
