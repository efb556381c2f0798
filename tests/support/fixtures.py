"""Fixtures for tests that need a real Docker engine or a booted systemd: one of each for the whole session."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.storage.paths import Context
from tests.support.engine import Daemon, Engine, TrainingHome, answers
from tests.support.home import find_command, require
from tests.support.sandbox import FakeEngine, Sandbox
from tests.support.slurm import Cluster
from tests.support.systemd_machine import Machine
from tests.support.systemd_owner import Owner


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    require(os.geteuid() == 0, "a Docker engine of our own needs root")
    require(sys.version_info < (3, 12), "the launcher's docker 4.3.1 starts up to Python 3.11 only")
    for name in ("tao", "docker", "busybox", "bash"):
        find_command(name)
    daemon = None if answers() else Daemon()
    try:
        if daemon:
            require(daemon.started(), f"dockerd does not start here: {daemon.tail()}")
        made = Engine(tmp_path_factory.mktemp("docker"))
        try:
            made.make_images()
            refusal = made.refusal()
            require(not refusal, f"the engine starts no container such as the launcher's: {refusal}")
            yield made
        finally:
            made.remove_images()
    finally:
        if daemon:
            daemon.end()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    require(os.geteuid() == 0, "a Slurm of our own needs root")
    for name in ("munged", "slurmctld", "slurmd", "sbatch"):
        find_command(name)
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A home with a fake launcher and the profiles a, which is active, and b."""
    with Sandbox(tmp_path) as sandbox:
        yield sandbox.profiles_named("a", "b")


@pytest.fixture
def fake_engine(sandbox: Sandbox) -> Iterator[FakeEngine]:
    """An engine that answers what the test says, as the engine of the sandbox."""
    with FakeEngine(sandbox.folder) as fake_engine:
        sandbox.environ |= fake_engine.environ
        sandbox.context = Context(sandbox.environ)
        yield fake_engine


@pytest.fixture
def training_home(tmp_path: Path, engine: Engine) -> Iterator[TrainingHome]:
    root = tmp_path / "home"
    root.mkdir()
    home = TrainingHome(root, engine)
    try:
        yield home
    finally:
        home.end()


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    require(os.geteuid() == 0, "booting a systemd needs root")
    require(Path("/lib/systemd/systemd").exists(), "systemd is not installed")
    for name in ("systemctl", "systemd-run", "loginctl", "dbus-daemon", "unshare", "nsenter", "setpriv", "useradd"):
        find_command(name)
    require(Path("/usr/bin/python3").exists(), "the system has no Python that an ordinary user can run")
    made = Machine()
    try:
        made.boot()
        made.install()
        yield made
    finally:
        made.end()


@pytest.fixture
def owner(machine: Machine) -> Iterator[Owner]:
    """A user who has done nothing yet."""
    user = Owner(machine)
    try:
        yield user
    finally:
        user.end()
