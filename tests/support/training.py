"""Projects, runs and mounts of the tests on a real engine; what a container should have is written out from paths."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.support.engine import TrainingHome, until


def new_project(home: TrainingHome, network: str, folder: str) -> Path:
    """Make a profile for a project folder in the home, as a person would, fit for a launch without a terminal."""
    project = home.root / folder
    project.mkdir(parents=True)
    home.run("new", network, cwd=project, environ={"PATH": f"{Path(home.tao).parent}:{os.environ['PATH']}"}, check=True)
    home.run("set", network, "docker.tty=false", check=True)
    return project


def local_mounts(project: Path) -> dict[Path, str]:
    return {project: "/workspace/tao-experiments", project / "specs": "/workspace/tao-experiments/detectnet_v2/specs"}


def host_mounts(project: Path) -> dict[Path, str]:
    return {
        project: "/workspace/tao-experiments",
        project / "data": "/data",
        project / "specs": "/specs",
        project / "segformer/results": "/results",
    }


class BackgroundRun:
    """A ``taoprof run`` in the background."""

    def __init__(self, home: TrainingHome, *words: str, environ: dict[str, str] | None = None) -> None:
        self.home = home
        self.log = home.root / f"run-{len(list(home.root.glob('run-*.log')))}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [home.taoprof, "run", *words],
                env={**home.environ, "PATH": f"{Path(home.tao).parent}:{os.environ['PATH']}", **(environ or {})},
                cwd=home.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def record(self) -> dict[str, Any] | None:
        """What ``holds`` says of it, by the pid of ``taoprof run``."""
        return next((hold for hold in self.home.holds() if hold["pid"] == self.process.pid), None)

    def bound(self) -> dict[str, Any]:
        """Wait until it has a container and the task runs in it, and give its record."""
        until(lambda: ": training as" in self.output, "the task runs", details=lambda: self.output)
        return until(
            lambda: record if (record := self.record) and record["phase"] == "bound" else None,
            "the hold is bound",
            details=lambda: f"{self.record}\n{self.output}",
        )

    def __enter__(self) -> BackgroundRun:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


def two_projects(home: TrainingHome) -> tuple[Path, Path]:
    kitti, city = new_project(home, "detectnet_v2", "tao/kitti"), new_project(home, "segformer", "tao/city")
    home.run("use", "segformer", "--mkdir", check=True)
    home.run("use", "detectnet_v2", "--mkdir", check=True)
    return kitti, city


def bind_mounts(container: dict[str, Any]) -> dict[Path, str]:
    return {Path(mount["Source"]): mount["Destination"] for mount in container["Mounts"]}
