"""Fixtures and settings that all tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

pytest.register_assert_rewrite(
    "tests.support.sandbox",
    "tests.support.browser",
    "tests.support.kernels",
    "tests.support.lab",
    "tests.support.strace",
)

from tests.support.fixtures import engine, machine, owner, sandbox, training_home  # noqa: E402, F401
from tests.support.home import ALL, Home  # noqa: E402

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # under nohup, or in a script's background: commands inherit it
        signal.signal(number, usual)

settings.register_profile("ours", deadline=None, database=None)  # a busy machine is no fault of what is tested
settings.load_profile("ours")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what takes minutes, unless everything was asked for, as in CI."""
    for item in items:
        if not ALL and any(item.get_closest_marker(marker) for marker in ("strace", "systemd")):
            item.add_marker(pytest.mark.skip(reason="takes minutes: TAOPROF_TEST_ALL=1, as in CI"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    root = tmp_path / "home"
    root.mkdir()
    return Home(root)
