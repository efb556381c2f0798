"""The guard beside the unmodified launcher on a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from taoprofiles.system import processes
from tests.runs.test_run_engine import two_projects
from tests.support.engine import TrainingHome, until
from tests.support.guarding import Guarded, is_sealed
from tests.support.home import command

pytestmark = pytest.mark.engine


def test_a_plain_training_is_held_and_sealed_from_its_start_to_its_containers_end(training_home: TrainingHome) -> None:
    home = training_home
    two_projects(home)
    with Guarded(home) as guard:
        launch = home.launch("detectnet_v2", "train", "60", "0")
        until(lambda: is_sealed(home.mapping_file), "it is sealed", told=guard.said)
        assert "pending" in guard.said(), "before there was a container"
        launch.training()
        before = home.mapping_file.read_bytes()
        fresh = home.root / "fresh"
        fresh.write_text('{"Mounts": []}')
        fresh.replace(home.mapping_file)
        guard.until_said("put back")
        assert home.mapping_file.read_bytes() == before
        home.engine.remove(launch.container)
        until(lambda: not is_sealed(home.mapping_file), "it is not sealed", told=guard.said)


def test_the_seal_stays_while_only_the_container_is_left(training_home: TrainingHome) -> None:
    home = training_home
    two_projects(home)
    with Guarded(home) as guard:
        launch = home.train("detectnet_v2")
        until(lambda: "bound" in guard.status, "its container is known", told=lambda: guard.status)
        clients = [one.pid for one in processes.scan() if one.container == launch.container]
        for pid in (launch.process.pid, *clients):
            os.kill(pid, signal.SIGKILL)
        launch.process.wait()
        until(lambda: f"hold c{launch.container[:6]}" in guard.status, "it has seen that", told=lambda: guard.status)
        assert is_sealed(home.mapping_file)
        home.engine.remove(launch.container)
        until(lambda: not is_sealed(home.mapping_file), "it is not sealed", told=guard.said)


def test_commands_take_the_guards_word_where_the_kernel_confirms_it(training_home: TrainingHome) -> None:
    """Not one connection to the engine, and the same answer; with a container that it does not know, it is asked."""
    home = training_home
    two_projects(home)
    with Guarded(home) as guard:
        launch = home.train("detectnet_v2")
        until(lambda: guard.known().get("sighting"), "it has seen the container", told=guard.said)
        assert asked(home, "use", "segformer") == (5, False)
        guard.process.send_signal(signal.SIGSTOP)
        other = home.engine.docker("run", "--detach", "--network=none", home.engine.images["segformer"]).strip()
        try:
            assert asked(home, "use", "segformer") == (5, True)
        finally:
            home.engine.remove(other)
        assert asked(home, "use", "segformer") == (5, False)
        home.engine.remove(launch.container)
        until(lambda: launch.process.poll() is not None, "the launcher has ended")
        assert asked(home, "use", "segformer") == (0, True)
        guard.process.send_signal(signal.SIGCONT)


def asked(home: TrainingHome, *words: str) -> tuple[int, bool]:
    """Run a command; give its exit status, and whether it asked the engine anything."""
    done = subprocess.run(
        [command("strace"), "-f", "-e", "trace=connect", home.taoprof, *words],
        env=home.environ,
        cwd=home.root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, "docker.sock" in done.stderr


def test_found_work_is_compared_with_its_mapping(training_home: TrainingHome) -> None:
    """The launcher keeps one mount of a folder that is mounted twice, and says nothing; the guard does."""
    home = training_home
    project = home.root / "kitti"
    project.mkdir()
    mounts = [{"source": str(project), "destination": place} for place in ("/first", "/second")]
    home.mapping_file.write_text(json.dumps({"Mounts": mounts, "DockerOptions": {"tty": False}}))
    with Guarded(home) as guard:
        launch = home.train("detectnet_v2")
        told = f"'{project}' is not on '/first': the launcher keeps one mount of a folder, the last"
        guard.until_said(told)
        assert f"container {launch.container[:6]}" in guard.said()
        assert told in home.run("status").stderr
