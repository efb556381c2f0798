"""The engine and a home to train in, as in tests/engine; checks in the helper modules tell as much as a test's."""

import pytest

pytest.register_assert_rewrite("tests.jupyter.lab", "tests.jupyter.browser", "tests.jupyter.kernels")

from tests.engine.conftest import engine, training_home  # noqa: E402, F401
