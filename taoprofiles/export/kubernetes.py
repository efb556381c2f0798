"""A Kubernetes Job with one container."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from taoprofiles.export import yaml
from taoprofiles.export.plan import Rendered, Secret, refuse

if TYPE_CHECKING:
    from taoprofiles.export.plan import Mount, Plan, Word

SHM = "/dev/shm"  # noqa: S108 - a place in the container
MOST_ID = (1 << 31) - 1


def render(plan: Plan) -> Rendered:
    """Write the manifest. A secret is a reference into a Secret that has the Job's name."""
    warnings = list(plan.warnings)
    refuse(plan, "kubernetes", [_fault(number, one) for number, one in enumerate(plan.mounts) if _fault(number, one)])
    name = _label(plan.name)
    container: dict[str, Any] = {"name": "task", "image": plan.image}
    if plan.command:
        container["args"] = [_word(word) for word in plan.command]  # args: the image's entrypoint stays, as in Docker
    if plan.tty:
        container |= {"stdin": True, "tty": True}
    env = [{"name": key, "value": _escaped(value)} for key, value in plan.env.items() if value is not None]
    secret = [{"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}} for key in plan.secrets]
    # The secrets first: what refers to a variable must stand behind it.
    container |= {"env": [*secret, *env]} if secret or env else {}
    security = _security(plan, warnings)
    container |= {"securityContext": security} if security else {}
    gpus = _gpus(plan, warnings)
    container |= {"resources": {"limits": {"nvidia.com/gpu": gpus}}} if gpus else {}
    ports = _ports(plan, warnings)
    container |= {"ports": ports} if ports else {}
    mounts, volumes = _volumes(plan, warnings)
    container |= {"volumeMounts": mounts} if mounts else {}
    if plan.ulimits:
        warnings.append(f"docker.ulimits ({', '.join(plan.ulimits)}): Kubernetes has none; its nodes' engine sets them")
    pod: dict[str, Any] = {"restartPolicy": "Never"}
    if plan.network == "host":
        pod["hostNetwork"] = True
    elif plan.network not in (None, "bridge"):
        warnings.append(f"docker.network '{plan.network}': a pod has the cluster's network")
    pod |= {"containers": [container]} | ({"volumes": volumes} if volumes else {})
    about: dict[str, Any] = {"name": name, "annotations": {"taoprofiles/profile": plan.name}}
    document = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": about,
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
    return Rendered(yaml.write(document), warnings, _store(name, plan.secrets))


def _store(name: str, secrets: list[str]) -> str:
    """Write the command that makes the Secret: no value in its words, which all can see, and none without a value."""
    if not secrets:
        return ""
    there = "".join(f'"${{{key}:?}}"' + " " for key in secrets)
    files = " ".join(f'--from-file={key}=<(printf %s "${key}")' for key in secrets)
    return f": {there}&& kubectl create secret generic {name} {files}"


def _fault(number: int, one: Mount) -> str:
    if ".." in one.source.split("/"):
        return f"mounts[{number}].source: a path there has no '..'"
    return ""


def _label(name: str) -> str:
    """Make a name of a profile's that Kubernetes takes: lower case, digits and '-', at most 63, no '-' at the ends."""
    return re.sub(r"[^a-z0-9-]", "-", f"taoprof-{name}".lower())[:63].rstrip("-")


def _security(plan: Plan, warnings: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    user, colon, group = (plan.user or "").partition(":")
    ids = [part for part in (user, group) if part]
    if plan.user is None:
        pass
    elif all(part.isascii() and part.isdigit() and int(part) <= MOST_ID for part in ids) and user:
        made["runAsUser"] = int(user)
        made |= {"runAsGroup": int(group)} if colon and group else {}
    else:
        warnings.append("docker.user: Kubernetes takes numbers only, so the image's own user runs")
    return made | ({"privileged": True} if plan.privileged else {})


def _gpus(plan: Plan, warnings: list[str]) -> int:
    if plan.gpus == "all":
        warnings.append("all GPUs: a pod asks for a number of them, here 1; --gpus N asks for more")
        return 1
    if isinstance(plan.gpus, list):
        if plan.gpus:
            warnings.append(f"GPUs {','.join(plan.gpus)}: Kubernetes chooses which {len(plan.gpus)} a pod gets")
        return len(plan.gpus)
    return int(plan.gpus)


def _ports(plan: Plan, warnings: list[str]) -> list[dict[str, Any]]:
    made = []
    for port in plan.ports:
        inside = {"containerPort": port.container, "protocol": port.protocol.upper()}
        if port.host == 0:
            warnings.append(f"docker.ports: {port.container} on a port that is free: a pod has none such")
        made.append(inside | ({"hostPort": port.host} if port.host else {}))
    return [one for number, one in enumerate(made) if one not in made[:number]]


def _volumes(plan: Plan, warnings: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mounts = [{"name": f"mount-{number}", "mountPath": one.destination} for number, one in enumerate(plan.mounts)]
    volumes: list[dict[str, Any]] = [
        # The type: a folder that a node has not got is an error there, and no new empty one of root's.
        {"name": f"mount-{number}", "hostPath": {"path": one.source, "type": "File" if one.is_file else "Directory"}}
        for number, one in enumerate(plan.mounts)
    ]
    if plan.shm_size is not None and any(one.destination == SHM for one in plan.mounts):
        warnings.append(f"docker.shm_size: a mount is on '{SHM}' already")
    elif plan.shm_size is not None:
        mounts.append({"name": "shm", "mountPath": SHM})
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _quantity(plan.shm_size)}})
    return mounts, volumes


def _quantity(size: int) -> str:
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _word(word: Word) -> str:
    return "".join(f"$({piece.name})" if isinstance(piece, Secret) else _escaped(piece) for piece in word)


def _escaped(text: str) -> str:
    """Keep ``$(NAME)`` from being expanded."""
    return text.replace("$", "$$")
