"""The engine's answers, brought into the shape that its API promises: whatever else stands there is left out.

Nothing behind this module needs to doubt the type of what it reads. The forms are those of ``GET /containers/json``,
``GET /containers/ID/json`` and ``GET /events`` of the Docker Engine API 1.41, which Podman's answers share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

PROFILE_LABEL, STATE_LABEL, RUN_LABEL = "taoprofiles.profile", "taoprofiles.state", "taoprofiles.run"
"""Labels of containers started without the launcher: the profile, the state folder of its owner, and the run's id."""

LABELS = (PROFILE_LABEL, STATE_LABEL, RUN_LABEL)


def parse_container_list(found: object) -> list[dict[str, Any]] | None:
    """Give the containers of a list; None for no list.

    Id, Image, Created, Binds (destination by source) and Labels, of which only ours are kept.
    """
    if not isinstance(found, list):
        return None
    return [
        {
            "Id": one["Id"],
            "Image": _text(one.get("Image")),
            "Created": _number(one.get("Created")),
            "Binds": _binds(one),
            "Labels": {name: _text(value) for name, value in _table(one.get("Labels")).items() if name in LABELS},
        }
        for one in found
        if isinstance(one, dict) and is_id(one.get("Id"))
    ]


def parse_container(found: object) -> dict[str, Any]:
    """Give what is asked about a container: Id, Image, Env, User, ShmSize, Ulimits, Binds, AllGpus and Running."""
    whole = _table(found)
    config, host = _table(whole.get("Config")), _table(whole.get("HostConfig"))
    return {
        "Id": _text(whole.get("Id")),
        "Image": _text(config.get("Image")),
        "Env": [word for word in _list(config.get("Env")) if isinstance(word, str)],
        "User": _text(config.get("User")),
        "ShmSize": host.get("ShmSize"),
        "Ulimits": {_text(one.get("Name")): one.get("Soft") for one in _tables(host.get("Ulimits"))},
        "Binds": _binds(whole),
        "AllGpus": any(one.get("Count") == -1 for one in _tables(host.get("DeviceRequests"))),
        "Running": _table(whole.get("State")).get("Running") is True,
    }


def parse_info(found: object) -> dict[str, Any]:
    """Give what an engine says of itself: id, version, system, root, rootless and the names of its runtimes."""
    whole = _table(found)
    security = [word for word in _list(whole.get("SecurityOptions")) if isinstance(word, str)]
    return {
        "id": _text(whole.get("ID"))[:200],
        "version": _text(whole.get("ServerVersion"))[:100],
        "system": _text(whole.get("OperatingSystem"))[:200],
        "root": _text(whole.get("DockerRootDir")),
        "is_rootless": any("rootless" in word for word in security),
        "runtimes": tuple(sorted(str(name)[:100] for name in _table(whole.get("Runtimes")))[:20]),
    }


def parse_event(found: object) -> dict[str, Any] | None:
    """Give an event's Id, Action, ExitCode, Task and Stamp; None for anything else.

    Task names the exec that it is about; Stamp is in nanoseconds by the engine's clock. Podman 4.3.1 calls some actions
    otherwise, and gives the exit status of an exec as the container's.
    """
    whole = _table(found)
    actor, stamp = _table(whole.get("Actor")), whole.get("timeNano")
    name = whole.get("id") or actor.get("ID")
    if not is_id(name) or not isinstance(stamp, int):
        return None
    action = _text(whole.get("Action") or whole.get("status")).partition(":")[0]
    action = {"exec": "exec_start", "exec_died": "exec_die", "died": "die", "remove": "destroy"}.get(action, action)
    attributes = _table(actor.get("Attributes"))
    code = attributes.get("exitCode", attributes.get("containerExitCode") if action == "exec_die" else None)
    status = int(code) if isinstance(code, str) and code.isascii() and code.isdigit() else None
    task = _text(attributes.get("execID"))
    return {"Id": name, "Action": action, "ExitCode": status, "Task": task, "Stamp": stamp}


def is_id(found: object) -> bool:
    """Whether this is a container's id: hexadecimal digits, which are safe in a path."""
    return isinstance(found, str) and 12 <= len(found) <= 64 and set(found) <= set("0123456789abcdef")


def _binds(whole: dict[str, Any]) -> dict[str, str]:
    mounts = [one for one in _tables(whole.get("Mounts")) if one.get("Type") == "bind"]
    return {_text(one.get("Source")): _text(one.get("Destination")) for one in mounts}


def _table(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _tables(found: object) -> list[dict[str, Any]]:
    return [one for one in _list(found) if isinstance(one, dict)]


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""


def _number(found: object) -> float:
    return float(found) if isinstance(found, (int, float)) else 0.0
