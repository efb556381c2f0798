"""The checks in the helper module tell as much as those in a test."""

import pytest

pytest.register_assert_rewrite("tests.process.strace", "tests.process.actors")
