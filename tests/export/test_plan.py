"""What is planned for after the launcher is what the launcher itself would have asked Docker for, thing by thing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from taoprofiles.errors import CannotRenderError
from taoprofiles.export.plan import Plan, plan_container
from taoprofiles.launcher.behaviour import Host
from taoprofiles.launcher.simulation import predict
from taoprofiles.mounts import mapping
from taoprofiles.profiles.layouts import with_identity
from taoprofiles.profiles.model import Profile, parse, template, to_toml
from taoprofiles.profiles.rendering import Renderer
from tests.support.generated_profiles import AROUND, moderate, usable_profiles
from tests.support.home import ALL

VERSION = "6.26.3"


def as_asked(plan: Plan, env: dict[str, str]) -> dict[str, Any]:
    """Return the plan in the words of ``/containers/create``; ``env`` has the values of its secrets."""
    return {
        "binds": sorted(f"{item.resolved().source}:{item.destination}:rw" for item in plan.mounts),
        "env": [f"{name}={env[name] if value is None else value}" for name, value in plan.env.items()],
        "user": plan.user,
        "shm": plan.shm_size,
        "ulimits": [(name, limit, limit) for name, limit in plan.ulimits.items()],
        "ports": {
            (f"{item.container}/{item.protocol}", str(item.host)) for item in plan.ports if item.host is not None
        },
        "exposed": {f"{item.container}/{item.protocol}" for item in plan.ports},
        "network": plan.network or "default",
        "privileged": plan.privileged,
        "tty": plan.tty is not False,
        "gpus": plan.gpus,
    }


def asked(body: dict[str, Any]) -> dict[str, Any]:
    """Return the same of what the launcher sends; the host's network discards ports, and a size of 0 is the default."""
    host = body["HostConfig"]
    (device,) = host["DeviceRequests"]
    on_host = host["NetworkMode"] == "host"
    bindings = {} if on_host else host.get("PortBindings") or {}
    mark = "TAO_CLIENT_TYPE=launcher"  # tells who starts it, and nobody does so here
    return {
        "binds": sorted(host.get("Binds") or []),
        "env": [line for line in body.get("Env") or [] if line != mark],
        "user": body.get("User"),
        "shm": host.get("ShmSize") or None,
        "ulimits": [(item["Name"], item["Soft"], item["Hard"]) for item in host.get("Ulimits") or []],
        "ports": {(_numbered(port), item["HostPort"]) for port, at in bindings.items() for item in at},
        "exposed": set() if on_host else set(map(_numbered, body.get("ExposedPorts") or {})),
        "network": host["NetworkMode"],
        "privileged": bool(host.get("Privileged")),
        "tty": body["Tty"],
        "gpus": "all" if (device["Count"], device["Capabilities"]) == (-1, [["gpu"]]) else device,
    }


def _numbered(port: str) -> str:
    """Return a port as the engine takes it: 01/tcp is 1/tcp."""
    number, _, protocol = port.partition("/")
    return f"{int(number)}/{protocol}"


@moderate(100 if ALL else 60)
@given(st.data())
def test_the_plan_is_the_launchers_own_call(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        profile: Profile = data.draw(usable_profiles(root))
        profile_template = template(parse(to_toml(profile).encode(), name="p", path="p.toml"), name="p")
        renderer = Renderer(profile_template, AROUND, name="p", path="p.toml")
        rendered = with_identity(renderer.mapping())  # of the container; the file for a plain 'tao' has no more
        env = {item["variable"]: str(item["value"]) for item in rendered.get("Envs", [])}
        try:
            plan = plan_container(renderer, image="i")
        except CannotRenderError:
            assume(False)
            raise
        (root / ".tao_mounts.json").write_bytes(mapping.to_bytes(rendered))
        prediction = predict(VERSION, Host({"HOME": str(root)}, str(root)), None)
        assert prediction.call is not None, prediction.refusals
        assert prediction.call.body is not None
        assert as_asked(plan, env) == asked(prediction.call.body)
