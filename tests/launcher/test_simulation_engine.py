"""What is predicted is what a real engine has: ``docker inspect`` of what the newest launcher's own call made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from taoprofiles.launcher.behaviour import Host
from taoprofiles.launcher.simulation import Call, predict
from tests.support.engine import Engine
from tests.support.launcher_cases import Case, good_cases, make_tree
from tests.support.launchers import Launcher

pytestmark = [pytest.mark.engine, pytest.mark.launchers]

CASES = 100
DEFAULT_SHM = 64 << 20


@pytest.fixture(scope="module")
def launcher(engine: Engine) -> Iterator[Launcher]:
    launcher = Launcher("6.26.3", "engine")
    yield launcher
    launcher.end()


def inspected(container: dict[str, Any], image_env: list[str]) -> dict[str, Any]:
    host, config = container["HostConfig"], container["Config"]
    return {
        "image": config["Image"],
        "volumes": sorted(host["Binds"] or []),
        "environment": [line for line in config["Env"] if line not in image_env],
        "user": config["User"],
        "shm": host["ShmSize"],
        "ulimits": sorted((each["Name"], each["Soft"], each["Hard"]) for each in host["Ulimits"] or []),
        "ports": host["PortBindings"] or {},
        "network": host["NetworkMode"],
        "privileged": host["Privileged"],
        "tty": config["Tty"],
        "gpus": [each["Count"] for each in host["DeviceRequests"]],
    }


def expected(call: Call) -> dict[str, Any]:
    return {
        "image": call.image,
        "volumes": sorted(f"{source}:{destination}:rw" for source, destination in call.volumes.items()),
        "environment": call.environment,
        "user": call.user or "",
        "shm": call.shm_size or DEFAULT_SHM,
        "ulimits": sorted((name, limit, limit) for name, limit in call.ulimits.items()),
        "ports": call.ports,
        "network": call.network or "default",
        "privileged": call.privileged,
        "tty": call.tty,
        "gpus": [-1],
    }


def test_the_engine_has_what_was_predicted(launcher: Launcher, engine: Engine, tmp_path: Path) -> None:
    root = tmp_path.resolve() / "oracle"
    make_tree(root)
    image = engine.images["detectnet_v2"]
    image_env = json.loads(engine.docker("image", "inspect", "--format={{json .Config.Env}}", image))
    calls: dict[str, Call] = {}

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=good_cases())
    def each(case: Case) -> None:
        case.lay_out(root)
        environ, cwd, arguments = case.environ_in(root), str(root / "cwd"), case.arguments("6.26.3", root)
        prediction = predict("6.26.3", Host(environ, cwd, launcher.config), arguments)
        launcher.ask(environ, cwd, arguments)
        answer = launcher.answer()
        assert prediction.call and answer["container"], (prediction.refusals, answer, case)
        calls[answer["container"]] = prediction.call

    try:
        each()
        assert len(calls) >= CASES
        containers = json.loads(engine.docker("inspect", "--type=container", *calls))
        for container in containers:
            assert inspected(container, image_env) == expected(calls[container["Id"]])
    finally:
        engine.docker("rm", "--force", *calls)
