"""What the Docker SDK makes of the launcher's arguments: docker 4.3.1, which every launcher so far pins.

``containers.run`` (models/containers.py), ``HostConfig`` and ``ContainerConfig`` (types/containers.py). It refuses some
values before it calls the engine; the engine judges the others.
"""

from __future__ import annotations

from typing import Any

from taoprofiles.launcher.host import Location
from taoprofiles.launcher.prediction import RefusedError, StartLog

_ALL_GPUS = {"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_size(text: str) -> int:
    """Return a size such as ``16G``, ``1.5 g`` or ``64MB`` in bytes, also the unit if there is none; 0 for no text.

    Raises RefusedError; and OverflowError or ValueError for infinity and the like.
    """
    if not text:
        return 0
    if text[-2:].isalpha() and len(text) > 1 and text[-1] in "bB":
        text = text[:-1]
    number, unit = (text, "b") if text[-1].isdigit() else (text[:-1], text[-1].lower())
    message = (
        f"The specified value for memory ({text}) should specify the units. "
        "The postfix should be one of the `b` `k` `m` `g` characters"
    )
    if unit in _UNITS:
        try:
            size = float(number)
        except ValueError:
            message = f"Failed converting the string value for memory ({number}) to an integer."
        else:
            return int(size * _UNITS[unit])
    raise RefusedError("DockerException", message, Location("DockerOptions", key="shm_size"))


def size_in_bytes(size: object) -> int | None:
    """Return a size, given as text or number, in bytes; None for anything else."""
    try:
        return parse_size(size) if isinstance(size, str) else int(size) if isinstance(size, int) else None
    except (RefusedError, ValueError, OverflowError):
        return None


def _port_bindings(ports: Any, log: StartLog) -> dict[str, list[dict[str, Any]]]:
    items: list[tuple[str, Any]] = []
    bindings: dict[str, list[dict[str, Any]]] = {}
    with log.step("DockerOptions", key="ports"):
        items = list(ports.items())
    for key, hosts in items:
        with log.step("DockerOptions", key=f"ports.{key}"):
            bindings[key if "/" in key else f"{key}/tcp"] = [
                _binding(host) for host in (hosts if isinstance(hosts, list) else [hosts])
            ]
    return bindings


def _binding(host: Any) -> dict[str, Any]:
    address = ""
    if isinstance(host, dict):
        if "HostPort" not in host:
            raise ValueError(host)
        host, address = host["HostPort"], host.get("HostIp", "")
    return {"HostIp": address, "HostPort": "" if host is None else str(host)}


def create_request(
    image: str,
    volumes: dict[str, str],
    environment: list[str],
    options: dict[str, Any],
    *,
    entrypoint: list[str] | None,
    log: StartLog,
) -> dict[str, Any]:
    """Return the body of the request ``/containers/create``; ``options`` are the launcher's arguments, tty included."""
    network = options.get("network")
    host: dict[str, Any] = {"AutoRemove": True, "DeviceRequests": [_ALL_GPUS], "NetworkMode": network or "default"}
    networking = None
    with log.step("DockerOptions", key="network"):
        networking = {network: None} if network else None
    size = options.get("shm_size")
    with log.step("DockerOptions", key="shm_size"):
        host["ShmSize"] = parse_size(size) if isinstance(size, str) else size
    host["Privileged"] = options.get("privileged") or None
    if volumes:
        host["Binds"] = [f"{source}:{destination}:rw" for source, destination in volumes.items()]
    ports = options.get("ports")
    bindings = _port_bindings(ports, log) if ports else {}
    host["PortBindings"] = bindings if ports else None
    if "ulimits" in options:
        host["Ulimits"] = [{"Name": name, "Soft": v, "Hard": v} for name, v in options["ulimits"].items()]
    user = options.get("user")
    request = {
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
    return {key: value for key, value in request.items() if value is not None} | dict.fromkeys(never, False)
