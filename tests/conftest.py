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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return 0, no parallel processes, where the tests to run are named on the command line: they are few."""
    is_named = config.args_source is pytest.Config.ArgsSource.ARGS
    return 0 if is_named else None


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what takes minutes, unless TAOPROF_TEST_ALL asks for it, and group what is to run in one process."""
    for item in items:
        if not ALL and any(item.get_closest_marker(marker) for marker in ("strace", "systemd")):
            item.add_marker(pytest.mark.skip(reason="takes minutes: TAOPROF_TEST_ALL=1, as in CI"))
        group = _group(item)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: _ORDER.get(_group(item), len(_ORDER)))  # the longest group must not begin last


_ORDER = {name: rank for rank, name in enumerate(("engine", "jupyter"))}


def _group(item: pytest.Item) -> str:
    """Return the name of the set-up that a test shares with others, "" if it shares none.

    Tests with one Docker engine or one booted systemd form a group, and so do those with one fixture of their module.
    """
    if item.get_closest_marker("engine") or item.get_closest_marker("systemd"):
        return "engine"
    if item.get_closest_marker("jupyter"):
        return "jupyter"
    fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009  (private in pytest)
    shares_set_up = any(definitions[-1].scope == "module" for definitions in fixtures)
    return item.nodeid.partition("::")[0] if shares_set_up else ""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    root = tmp_path / "home"
    root.mkdir()
    return Home(root)
