"""The checks in the helper modules tell as much as those in a test; the sweeps over system calls run in CI."""

import pytest

from tests.conftest import ALL

pytest.register_assert_rewrite("tests.process.strace", "tests.process.actors")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not ALL and item.get_closest_marker("strace"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: TAOPROF_TEST_ALL=1, as in CI"))
