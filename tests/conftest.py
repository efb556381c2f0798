"""Fixtures and settings that all tests share."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.support.sandbox", "tests.support.kernels", "tests.support.jupyterlab")

from taoprofiles.storage.paths import Context  # noqa: E402
from tests.support.commands import give  # noqa: E402
from tests.support.engine import Daemon, Engine, TrainingHome, answers  # noqa: E402
from tests.support.generated_profiles import moderate  # noqa: E402
from tests.support.home import ALL, Home, find_command, require  # noqa: E402
from tests.support.sandbox import FakeEngine, Sandbox  # noqa: E402
from tests.support.slurm import Cluster  # noqa: E402
from tests.support.systemd import Machine, Owner  # noqa: E402

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # under nohup, or in a script's background: commands inherit it
        signal.signal(number, usual)

ROOT = Path(__file__).parents[1]

if not ALL:
    os.fsync = lambda fd: None  # thousands of milliseconds in all; the tests of power loss, in CI, are about it

settings.register_profile("ours", moderate(100))
settings.load_profile("ours")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return one process more than there are CPUs: tests also wait. Return 0 where the tests to run are named: few."""
    is_named = config.args_source is pytest.Config.ArgsSource.ARGS
    return 0 if is_named else len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that gives all tests with one set-up to one process, and every other test to whoever is free.

    pytest-xdist 3.8 has the mark ``xdist_group`` for this, which pytest 9.2 no longer understands.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return set_up_of(nodeid.partition("::")[0]) or nodeid

    return Scheduler(config, log)


SET_UPS = {"engine": "mark.engine", "systemd": "mark.systemd", "jupyter": "mark.jupyter", "slurm": "mark.slurm"}
"""Tests that share one Docker engine, one booted systemd, or are with a kernel or a JupyterLab."""


@functools.cache
def set_up_of(path: str) -> str:
    """Return the name of the set-up that the tests of a module share with each other or with other modules, or ""."""
    text = (ROOT / path).read_text()
    names = [name for name, mark in SET_UPS.items() if mark in text]
    return names[0] if names else path if 'scope="module"' in text else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what takes minutes, unless TAOPROF_TEST_ALL asks for it, and begin with the longest set-ups."""
    for item in items:
        if not ALL and any(item.get_closest_marker(marker) for marker in ("index", "slow", "strace", "systemd")):
            item.add_marker(pytest.mark.skip(reason="takes minutes: TAOPROF_TEST_ALL=1, as in CI"))
    ranks = {name: rank for rank, name in enumerate(SET_UPS)}
    items.sort(key=lambda item: ranks.get(set_up_of(item.nodeid.partition("::")[0]), len(ranks)))


def pytest_collection_finish() -> None:
    """Leave what has been loaded out of garbage collections, each of which would copy it in a fork of this process."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    root = tmp_path / "home"
    root.mkdir()
    return Home(root)


@pytest.fixture
def theirs() -> Iterator[Home]:
    """A home of somebody who is not root, where they can reach it."""
    with tempfile.TemporaryDirectory(prefix="taoprof-test-") as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "home").mkdir()
        home = Home(top / "home")
        home.profile("a")
        give(home)
        yield home
        for path in (p for p in [home.root, *home.root.rglob("*")] if p.is_dir()):
            path.chmod(0o700)


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
        engine = Engine(tmp_path_factory.mktemp("docker"))
        try:
            engine.make_images()
            refusal = engine.refusal()
            require(not refusal, f"the engine starts no container such as the launcher's: {refusal}")
            yield engine
        finally:
            engine.remove_images()
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
    machine = Machine()
    try:
        machine.boot()
        machine.install()
        yield machine
    finally:
        machine.end()


@pytest.fixture
def owner(machine: Machine) -> Iterator[Owner]:
    """A user who has done nothing yet."""
    user = Owner(machine)
    try:
        yield user
    finally:
        user.end()
