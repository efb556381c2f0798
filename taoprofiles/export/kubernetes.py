"""A Kubernetes Job with one container."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from taoprofiles.export.formatting import to_yaml
from taoprofiles.export.plan import Rendered, Secret, refuse

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan, Word

SHM = "/dev/shm"  # noqa: S108 - a folder of the container
MAX_ID = (1 << 31) - 1


def render(plan: Plan) -> Rendered:
    """Write the manifest. A secret is a reference into a Secret that has the Job's name."""
    warnings = list(plan.warnings)
    problems = [
        f"mounts[{number}].source: Kubernetes allows no '..' in a path"
        for number, mount in enumerate(plan.mounts)
        if ".." in mount.source.split("/")
    ]
    refuse(plan, "kubernetes", problems)
    name = _label(plan.name)
    container: dict[str, Any] = {"name": "task", "image": plan.image}
    if plan.command:
        container["args"] = [_word(word) for word in plan.command]  # 'command' would replace the entrypoint
    if plan.tty:
        container |= {"stdin": True, "tty": True}
    env = [{"name": key, "value": _escape(value)} for key, value in plan.env.items() if value is not None]
    secret = [{"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}} for key in plan.secrets]
    # The secrets first: Kubernetes expands $(NAME) only from variables that come before.
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
        warnings.append(f"docker.ulimits ({', '.join(plan.ulimits)}): Kubernetes has none; the node's engine sets them")
    pod: dict[str, Any] = {"restartPolicy": "Never"}
    if plan.network == "host":
        pod["hostNetwork"] = True
    elif plan.network not in (None, "bridge"):
        warnings.append(f"docker.network '{plan.network}': a pod uses the network of the cluster")
    pod |= {"containers": [container]} | ({"volumes": volumes} if volumes else {})
    document = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "annotations": {"taoprofiles/profile": plan.name}},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
    return Rendered(to_yaml(document), warnings, _store(name, plan.secrets))


def _store(name: str, secrets: list[str]) -> str:
    """Return the command that creates the Secret: no value is in its arguments, and it refuses unset variables."""
    if not secrets:
        return ""
    checks = "".join(f'"${{{key}:?}}"' + " " for key in secrets)
    files = " ".join(f'--from-file={key}=<(printf %s "${key}")' for key in secrets)
    return f": {checks}&& kubectl create secret generic {name} {files}"


def _label(name: str) -> str:
    """Return a name that Kubernetes accepts: lower case, digits and '-', at most 63 characters, no '-' at the end."""
    return re.sub(r"[^a-z0-9-]", "-", f"taoprof-{name}".lower())[:63].rstrip("-")


def _security(plan: Plan, warnings: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    user, colon, group = (plan.user or "").partition(":")
    ids = [part for part in (user, group) if part]
    if plan.user is None:
        pass
    elif all(part.isascii() and part.isdigit() and int(part) <= MAX_ID for part in ids) and user:
        result["runAsUser"] = int(user)
        result |= {"runAsGroup": int(group)} if colon and group else {}
    else:
        warnings.append("docker.user: Kubernetes accepts only numbers, so the task runs as the user of the image")
    return result | ({"privileged": True} if plan.privileged else {})


def _gpus(plan: Plan, warnings: list[str]) -> int:
    if plan.gpus == "all":
        warnings.append("all GPUs: a pod requests a number of GPUs, here 1; use --gpus N for more")
        return 1
    if isinstance(plan.gpus, list):
        if plan.gpus:
            warnings.append(f"GPUs {','.join(plan.gpus)}: Kubernetes chooses which {len(plan.gpus)} a pod gets")
        return len(plan.gpus)
    return int(plan.gpus)


def _ports(plan: Plan, warnings: list[str]) -> list[dict[str, Any]]:
    result = []
    for port in plan.ports:
        container = {"containerPort": port.container, "protocol": port.protocol.upper()}
        if port.host == 0:
            warnings.append(f"docker.ports: {port.container} on a free host port: Kubernetes cannot choose one")
        result.append(container | ({"hostPort": port.host} if port.host else {}))
    return [port for number, port in enumerate(result) if port not in result[:number]]


def _volumes(plan: Plan, warnings: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volume_mounts: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []
    for number, mount in enumerate(plan.mounts):
        name = f"mount-{number}"
        volume_mounts.append({"name": name, "mountPath": mount.destination})
        # With a type, a missing folder is an error on the node instead of a new empty folder of root.
        host_path = {"path": mount.source, "type": "File" if mount.is_file else "Directory"}
        volumes.append({"name": name, "hostPath": host_path})
    if plan.shm_size is not None and any(mount.destination == SHM for mount in plan.mounts):
        warnings.append(f"docker.shm_size: ignored, since a mount is on '{SHM}'")
    elif plan.shm_size is not None:
        volume_mounts.append({"name": "shm", "mountPath": SHM})
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _quantity(plan.shm_size)}})
    return volume_mounts, volumes


def _quantity(size: int) -> str:
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _word(word: Word) -> str:
    return "".join(f"$({part.name})" if isinstance(part, Secret) else _escape(part) for part in word)


def _escape(text: str) -> str:
    """Return the text without expansion of ``$(NAME)``."""
    return text.replace("$", "$$")
