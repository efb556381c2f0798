"""A Kubernetes Job with one container."""

from __future__ import annotations

from typing import Any

from taoprofiles.export.plan import Plan, Rendered, Secret, double_dollars, gpu_count, refuse, to_yaml, without_empty

SHM = "/dev/shm"  # noqa: S108 - a folder of the container
REGISTRY, PULL_SECRET = "nvcr.io", "nvcr-io"
MAX_ID = (1 << 31) - 1
KEPT_SECONDS = 7 * 86400
"""How long a Job that taoprof has submitted exists after its end."""


def render(plan: Plan) -> Rendered:
    """Write the manifest. A secret is a reference into a Secret that has the Job's name."""
    warnings = list(plan.warnings)
    problems = [
        f"mounts[{number}].source: Kubernetes allows no '..' in a path"
        for number, mount in enumerate(plan.mounts)
        if ".." in mount.source.split("/")
    ]
    claims = plan.kubernetes.get("claims", {})
    destinations = {mount.destination for mount in plan.mounts}
    problems += [f"kubernetes.claims: no mount is on '{key}'" for key in claims if key not in destinations]
    problems += [f"kubernetes.claims: no '..' is allowed: '{claim}'" for claim in claims.values() if ".." in claim]
    refuse(f"profile '{plan.name}' for Kubernetes", problems)
    name = plan.job
    # The secrets first: Kubernetes expands $(NAME) only from variables that come before; $$ is a dollar.
    env: list[dict[str, Any]] = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}} for key in plan.secrets
    ]
    env += [{"name": key, "value": double_dollars(value)} for key, value in plan.env.items() if value is not None]
    args = [
        "".join(f"$({part.name})" if isinstance(part, Secret) else double_dollars(part) for part in word)
        for word in plan.command
    ]
    security, gpus = _security(plan, warnings), gpu_count(plan, warnings, "a pod", "Kubernetes")
    ports, (mounts, volumes) = _ports(plan, warnings), _volumes(plan, warnings)
    container: dict[str, Any] = {
        "name": "task",
        "image": plan.image,
        "args": args,  # 'command' would replace the entrypoint
        "stdin": plan.tty or None,
        "tty": plan.tty or None,
        "env": env,
        "securityContext": security,
        "resources": {"limits": {"nvidia.com/gpu": gpus}} if gpus else {},
        "ports": ports,
        "volumeMounts": mounts,
    }
    if plan.ulimits:
        warnings.append(
            f"docker.ulimits ({', '.join(plan.ulimits)}) ignored: Kubernetes cannot set ulimits; the node's container "
            "runtime does"
        )
    if plan.network not in (None, "bridge", "host"):
        warnings.append(f"docker.network '{plan.network}': a pod uses the network of the cluster")
    pull_secret = plan.kubernetes.get("pull_secret")
    if pull_secret is None and plan.image.startswith(f"{REGISTRY}/"):
        pull_secret = PULL_SECRET
        warnings.append(
            f"{REGISTRY} may ask for a login: the pod uses the pull secret '{PULL_SECRET}'. To create it, after "
            f"'docker login {REGISTRY}': kubectl create secret generic {PULL_SECRET} "
            "--type=kubernetes.io/dockerconfigjson --from-file=.dockerconfigjson=$HOME/.docker/config.json"
        )
    pod = {
        "restartPolicy": "Never",
        "imagePullSecrets": [{"name": pull_secret}] if pull_secret else None,
        "securityContext": {"supplementalGroups": plan.groups} if plan.groups else None,
        "hostNetwork": True if plan.network == "host" else None,
        "containers": [without_empty(container)],
        "volumes": volumes,
    }
    document = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": without_empty(
            {
                "name": name,
                "namespace": plan.kubernetes.get("namespace"),
                "labels": plan.labels,
                "annotations": {"taoprofiles/profile": plan.name},
            }
        ),
        "spec": {
            "backoffLimit": 0,
            # taoprof keeps the end of the log of a job that it follows.
            **({"ttlSecondsAfterFinished": KEPT_SECONDS} if plan.labels else {}),
            "template": {**({"metadata": {"labels": plan.labels}} if plan.labels else {}), "spec": without_empty(pod)},
        },
    }
    return Rendered(to_yaml(document), warnings, _store(name, plan.secrets))


def _store(name: str, secrets: list[str]) -> str:
    """Return the command that creates the Secret: no value is in its arguments, and it refuses unset variables."""
    if not secrets:
        return ""
    checks = "".join(f'"${{{key}:?}}"' + " " for key in secrets)
    files = " ".join(f'--from-file={key}=<(printf %s "${key}")' for key in secrets)
    return f": {checks}&& kubectl create secret generic {name} {files}"


def _security(plan: Plan, warnings: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    user, _, group = (plan.user or "").partition(":")
    ids = [part for part in (user, group) if part]
    if user and all(part.isascii() and part.isdigit() and int(part) <= MAX_ID for part in ids):
        result = dict(zip(("runAsUser", "runAsGroup"), map(int, ids), strict=False))
    elif plan.user is not None:
        warnings.append("docker.user: Kubernetes accepts only numbers, so the task runs as the user of the image")
    return result | ({"privileged": True} if plan.privileged else {})


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
    claims = plan.kubernetes.get("claims", {})
    names = list(dict.fromkeys(claim.partition("/")[0] for claim in claims.values()))
    for number, mount in enumerate(plan.mounts):
        claim, _, folder = claims.get(mount.destination, "").partition("/")
        # With a type, a missing folder is an error on the node instead of a new empty folder of root.
        volume: dict[str, Any] = {"hostPath": {"path": mount.source, "type": "File" if mount.is_file else "Directory"}}
        name = f"mount-{number}"
        if claim:
            # Kubernetes mounts a claim once in a pod, however many of its folders the container has.
            name, volume = f"claim-{names.index(claim)}", {"persistentVolumeClaim": {"claimName": claim}}
        options = {"subPath": folder or None, "readOnly": mount.read_only or None}
        volume_mounts.append(without_empty({"name": name, "mountPath": mount.destination, **options}))
        if all(known["name"] != name for known in volumes):
            volumes.append({"name": name, **volume})
    if plan.shm_size is not None and any(mount.destination == SHM for mount in plan.mounts):
        warnings.append(f"docker.shm_size: ignored, since a mount is on '{SHM}'")
    elif plan.shm_size is not None:
        volume_mounts.append({"name": "shm", "mountPath": SHM})
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _quantity(plan.shm_size)}})
    return volume_mounts, volumes


def _quantity(size: int) -> str:
    units = (("Gi", 1 << 30), ("Mi", 1 << 20))
    return next((f"{size // factor}{unit}" for unit, factor in units if size % factor == 0), str(size))
