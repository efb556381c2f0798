"""The engine for the whole session, and a home to train in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import command, need
from tests.engine.engine import Daemon, Engine, TrainingHome, answers


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    need(os.geteuid() == 0, "a Docker engine of our own needs root")
    need(sys.version_info < (3, 12), "the launcher's docker 4.3.1 starts up to Python 3.11 only")
    for name in ("tao", "docker", "busybox", "bash"):
        command(name)
    daemon = None if answers() else Daemon()
    try:
        if daemon:
            need(daemon.started(), f"dockerd does not start here: {daemon.tail()}")
        made = Engine(tmp_path_factory.mktemp("docker"))
        try:
            made.make_images()
            refusal = made.refusal()
            need(not refusal, f"the engine starts no container such as the launcher's: {refusal}")
            yield made
        finally:
            made.remove_images()
    finally:
        if daemon:
            daemon.end()


@pytest.fixture
def training_home(tmp_path: Path, engine: Engine) -> Iterator[TrainingHome]:
    root = tmp_path / "home"
    root.mkdir()
    home = TrainingHome(root, engine)
    try:
        yield home
    finally:
        home.end()
