"""What the Docker SDK makes of the launcher's arguments: docker 4.3.1, which every launcher so far pins.

``containers.run`` (models/containers.py), ``HostConfig`` and ``ContainerConfig`` (types/containers.py). It refuses some
values before it asks the engine; those it lets through, the engine judges.
"""

from __future__ import annotations

from typing import Any

from taoprofiles.launcher import sizes
from taoprofiles.launcher.prediction import Place
from taoprofiles.launcher.refusal import refuse, refusing

_ALL_GPUS = {"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}


def ulimit(name: str, value: Any) -> Any:
    """Check one limit, which is the soft and the hard one. Raises RefusedError."""
    if value and not isinstance(value, int):
        place = Place("DockerOptions", key=f"ulimits.{name}")
        raise refuse("ValueError", "Ulimit.soft must be an integer", place)
    return value


def in_bytes(text: str) -> int:
    """Give a size in bytes (``values.sizes``). Raises RefusedError."""
    place = Place("DockerOptions", key="shm_size")
    with refusing(*place):
        try:
            return sizes.parse(text)
        except sizes.SizeError as error:
            raise refuse("DockerException", str(error), place) from None


def port_bindings(ports: Any) -> dict[str, list[dict[str, Any]]]:
    """Give PortBindings for ``ports``: host port, or several, by container port. Raises RefusedError."""
    with refusing("DockerOptions", key="ports"):
        items = list(ports.items())
    made = {}
    for key, hosts in items:
        with refusing("DockerOptions", key=f"ports.{key}"):
            bindings = [_binding(host) for host in (hosts if isinstance(hosts, list) else [hosts])]
        made[key if "/" in key else f"{key}/tcp"] = bindings
    return made


def _binding(host: Any) -> dict[str, Any]:
    address = ""
    if isinstance(host, dict):
        if "HostPort" not in host:
            raise ValueError(host)
        host, address = host["HostPort"], host.get("HostIp", "")
    return {"HostIp": address, "HostPort": "" if host is None else str(host)}


def body(
    image: str, volumes: dict[str, str], environment: list[str], options: dict[str, Any], entrypoint: list[str] | None
) -> dict[str, Any]:
    """Give what ``/containers/create`` is sent. ``options`` are the launcher's arguments, tty among them.

    Raises RefusedError.
    """
    network = options.get("network")
    host: dict[str, Any] = {"AutoRemove": True, "DeviceRequests": [_ALL_GPUS], "NetworkMode": network or "default"}
    with refusing("DockerOptions", key="network"):
        networking = {network: None} if network else None
    size = options.get("shm_size")
    host["ShmSize"] = in_bytes(size) if isinstance(size, str) else size
    host["Privileged"] = options.get("privileged") or None
    if volumes:
        host["Binds"] = [f"{source}:{destination}:rw" for source, destination in volumes.items()]
    ports = options.get("ports")
    bindings = port_bindings(ports) if ports else {}
    host["PortBindings"] = bindings if ports else None
    if "ulimits" in options:
        host["Ulimits"] = [{"Name": name, "Soft": v, "Hard": v} for name, v in options["ulimits"].items()]
    user = options.get("user")
    whole = {
        "Image": image,
        "Entrypoint": entrypoint,
        "User": None if user is None else str(user),
        "Tty": options["tty"],
        "Env": environment or None,
        "Volumes": {bind: {} for bind in volumes.values()} if volumes else None,
        "ExposedPorts": {port: {} for port in bindings} if bindings else None,
        "NetworkingConfig": networking,
        "HostConfig": {key: value for key, value in host.items() if value is not None},
    }
    never = ("OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr", "NetworkDisabled")
    return {key: value for key, value in whole.items() if value is not None} | dict.fromkeys(never, False)
