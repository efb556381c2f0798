"""The guard beside the unmodified launcher on a real engine."""

from __future__ import annotations

import json
import os
import signal

import pytest

from taoprofiles.system import processes
from tests.support.engine import TrainingHome, two_projects, until
from tests.support.guard_process import GuardProcess, is_sealed, replaced
from tests.support.sandbox import kill

pytestmark = pytest.mark.engine


def test_a_plain_training_is_protected_from_its_start_to_its_containers_end(training_home: TrainingHome) -> None:
    """Whatever befalls the guard, the launcher and its clients meanwhile."""
    home = training_home
    two_projects(home)
    before, mode = home.mapping_file.read_bytes(), home.mapping_file.stat().st_mode
    with GuardProcess(home) as guard:
        launch = home.launch("detectnet_v2", "train", "60", "0")
        guard.until_sealed()
        assert "pending" in guard.log_text(), "before there was a container"
        launch.training()
        replaced(home)
        guard.until_logged(": restored")
        assert home.mapping_file.read_bytes() == before
        kill(guard.process.pid)
        guard.process.wait()
    with GuardProcess(home) as guard:
        assert is_sealed(home.mapping_file)
        until(lambda: "bound" in guard.status, "its container is known", details=lambda: guard.status)
        (hold,) = home.json("status")["data"]["holds"]
        assert (hold["kind"], hold["profile"], hold["container"]) == ("found", "detectnet_v2", launch.container)
        clients = [process.pid for process in processes.scan() if process.container == launch.container]
        for pid in (launch.process.pid, *clients):
            os.kill(pid, signal.SIGKILL)
        launch.process.wait()
        until(lambda: f"hold c{launch.container[:6]}" in guard.status, "it has seen that", details=lambda: guard.status)
        assert is_sealed(home.mapping_file)
        home.engine.remove(launch.container)
        guard.until_unsealed()
        assert (home.mapping_file.read_bytes(), home.mapping_file.stat().st_mode) == (before, mode)


def test_found_work_is_compared_with_its_mapping(training_home: TrainingHome) -> None:
    """The launcher keeps one mount of a folder that is mounted twice, and says nothing; the guard does."""
    home = training_home
    project = home.root / "kitti"
    project.mkdir()
    mounts = [{"source": str(project), "destination": place} for place in ("/first", "/second")]
    home.mapping_file.write_text(json.dumps({"Mounts": mounts, "DockerOptions": {"tty": False}}))
    with GuardProcess(home) as guard:
        launch = home.train("detectnet_v2")
        warning = f"'{project}' is not mounted on '/first': the launcher keeps only the last mount of a folder"
        guard.until_logged(warning)
        assert f"container {launch.container[:6]}" in guard.log_text()
        assert warning in home.run("status").stderr
