"""Fixtures and settings that all tests share."""

from __future__ import annotations

import functools
import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

pytest.register_assert_rewrite(
    "tests.support.sandbox", "tests.support.browser", "tests.support.kernels", "tests.support.jupyterlab_server"
)

from tests.support.fixtures import engine, fake_engine, machine, owner, sandbox, slurm, training_home  # noqa: E402, F401
from tests.support.generated_profiles import moderate  # noqa: E402
from tests.support.home import ALL, Home  # noqa: E402
from tests.support.other_user import theirs  # noqa: E402, F401

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
