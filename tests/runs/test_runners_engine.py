"""A source tree's runner on a real engine: held until its container ends, and its true exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.commands import one_clear_error
from tests.support.engine import BackgroundRun, TrainingHome, two_projects, until
from tests.support.stand_ins import RUNNER

pytestmark = pytest.mark.engine


@pytest.fixture
def runner(training_home: TrainingHome) -> list[str]:
    home = training_home
    two_projects(home)
    (home.root / "tree").mkdir()
    (home.root / "tree/tao_pt.py").write_text(RUNNER)
    home.environ |= {"IMAGE": home.engine.images["segformer"], "NV_TAO_PYTORCH_TOP": str(home.root / "tree")}
    assert home.run("use", "segformer").returncode == 0
    return [sys.executable, str(home.root / "tree/tao_pt.py")]


def test_a_run_of_it(training_home: TrainingHome, runner: list[str]) -> None:
    home = training_home
    with BackgroundRun(home, "segformer", "--", *runner, "--", "segformer", "train", "60") as run:
        record = run.bound()
        assert (record["shared"], record["differences"]) == (True, [])
        assert f"training as {home.context.uid}:{home.context.gid}" in run.log_text()
        one_clear_error(home.run("use", "detectnet_v2"), 5)
        assert home.run("stop", record["id"], "--yes").returncode == 0
        assert run.process.wait(60) != 0
    until(lambda: home.holds() == [], "its hold ends with the container, which may be a moment later")
    done = home.run("run", "segformer", "--", *runner, "--", "segformer", "train", "0", "3")
    assert done.returncode == 3, done.stderr
    assert home.run("run", "segformer", "--", *runner, "--", "segformer", "train", "0").returncode == 0
    assert home.run("use", "detectnet_v2").returncode == 0


def test_one_without_taoprof_holds_the_mapping(training_home: TrainingHome, runner: list[str]) -> None:
    """Also with a LAUNCHER_MOUNTS, which it ignores, and after the runner itself was killed."""
    home = training_home
    environ = {**home.environ, "LAUNCHER_MOUNTS": "/elsewhere.json"}
    words = [*runner, "--no-tty", "--", "segformer", "train", "60"]
    process = subprocess.Popen(words, env=environ, cwd=home.root, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        holds = until(lambda: [hold for hold in home.holds() if hold["container"]], "its container is found")
        assert [(hold["kind"], hold["shared"], hold["pid"]) for hold in holds] == [("found", True, process.pid)]
        assert holds[0]["command"][:2] == ["tao_pt", "--no-tty"]
        one_clear_error(home.run("use", "detectnet_v2"), 5)
        process.kill()
        process.wait()
        one_clear_error(home.run("use", "detectnet_v2"), 5)
    finally:
        process.kill()
        for container in home.engine.containers_of(home.root):
            home.engine.remove(container)
    assert home.run("use", "detectnet_v2").returncode == 0
