"""One booted machine for all tests of the service, with the wheel and the launcher installed; it takes a minute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ALL, command, need
from tests.engine.conftest import engine  # noqa: F401 # a fixture; the engine answers before the machine boots
from tests.engine.engine import SOCKET, Engine
from tests.systemd.manager import Machine
from tests.systemd.owner import Owner

LAUNCHER = "nvidia-tao==6.26.3"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not ALL and item.get_closest_marker("systemd"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: TAOPROF_TEST_ALL=1, as in CI"))


@pytest.fixture(scope="session")
def machine(engine: Engine) -> Iterator[Machine]:  # noqa: F811
    need(os.geteuid() == 0, "booting a systemd needs root")
    need(Path("/lib/systemd/systemd").exists(), "systemd is not installed")
    for name in ("systemctl", "systemd-run", "loginctl", "dbus-daemon", "unshare", "nsenter", "setpriv", "useradd"):
        command(name)
    need(Path("/usr/bin/python3").exists(), "the system has no Python that an ordinary user can run")
    mode = Path(SOCKET).stat().st_mode & 0o7777
    made = Machine()
    try:
        made.boot()
        made.install(LAUNCHER)
        Path(SOCKET).chmod(0o666)  # the user may ask the engine, as one in the group docker may
        yield made
    finally:
        made.end()
        Path(SOCKET).chmod(mode)


@pytest.fixture
def owner(machine: Machine) -> Iterator[Owner]:
    """A user who has done nothing yet."""
    one = Owner(machine)
    try:
        yield one
    finally:
        one.end()
