"""Earlier launchers, unmodified: each holds, and runs beside others with its own mounts and its task's exit status.

``.ci/run`` installs them into ``.launchers/VERSION``, each into an environment of its own, since their pins differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import Terminal
from tests.support.engine import TrainingHome, bind_mounts, local_mounts, until
from tests.support.home import require

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
GENERATIONS = {"5.5.1": ("tao", "model", "detectnet_v2"), "4.0.1": ("tao", "detectnet_v2")}


class Old(NamedTuple):
    home: TrainingHome
    words: tuple[str, ...]
    environ: dict[str, str]

    def start(self, *words: str) -> Terminal:
        """Start a command on a terminal: launchers before 5.0.0 refuse a mapping that asks for none."""
        path = Path(self.environ["PATH"].split(":")[0])
        command = [str(path / words[0]) if words[0] == "tao" else words[0], *words[1:]]
        return Terminal(command, environ={**self.home.environ, **self.environ}, cwd=self.home.root)


@pytest.fixture(params=GENERATIONS)
def old(request: pytest.FixtureRequest, training_home: TrainingHome) -> Iterator[Old]:
    folder = ROOT / ".launchers" / request.param
    require((folder / "bin/tao").exists(), f"the launcher {request.param} is not installed in {folder}")
    engine = training_home.engine
    (config,) = folder.glob("lib/*/site-packages/*/config/config.json")
    content = json.loads(config.read_text())
    images = content.get("task_group", {}).get("model", content)["dockers"]
    engine.images[f"detectnet_v2 of {request.param}"] = next(
        f"{about['docker_registry']}/{name}:{tag}"
        for name, tags in images.items()
        for tag, about in tags.items()
        if "detectnet_v2" in about["tasks"]
    )
    engine.make_images()
    for name in ("kitti", "city"):
        project = training_home.root / name
        project.mkdir()
        training_home.run("new", name, "--network", "detectnet_v2", cwd=project, check=True)
        training_home.run("use", name, "--mkdir", check=True)
    yield Old(training_home, GENERATIONS[request.param], {"PATH": f"{folder}/bin:{training_home.environ['PATH']}"})
    training_home.end()


def test_a_plain_training_holds(old: Old) -> None:
    home = old.home
    with old.start(*old.words, "train", "60") as terminal:
        until(lambda: home.holds(), "the launcher is seen", details=lambda: terminal.output.decode())
        assert home.run("use", "kitti").returncode == 5
        terminal.wait_for("training as", timeout=60)
        (hold,) = until(lambda: [h for h in home.holds() if h["phase"] == "bound"], "the container is seen")
        assert (hold["pid"], hold["profile"]) == (terminal.process.pid, "city")
        assert bind_mounts(home.engine.inspect(hold["container"])) == local_mounts(home.root / "city")
        assert home.run("use", "kitti").returncode == 5
        home.run("stop", hold["id"], check=True)
        terminal.finish()
        until(lambda: home.holds() == [], "nothing is held")
    home.run("use", "kitti", check=True)


def test_a_run_has_its_own_mounts_and_its_tasks_exit_status(old: Old) -> None:
    home = old.home
    before = home.mapping_file.read_bytes()
    with old.start(home.taoprof, "run", "kitti", "--", *old.words, "train", "3", "3") as terminal:
        terminal.wait_for("training as", timeout=60)
        (hold,) = until(lambda: [h for h in home.holds() if h["phase"] == "bound"], "the container is seen")
        assert bind_mounts(home.engine.inspect(hold["container"])) == local_mounts(home.root / "kitti")
        assert hold["differences"] == []
        status, _ = terminal.finish()
    assert status == 3
    assert home.mapping_file.read_bytes() == before
