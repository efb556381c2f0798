"""A user who may not ask a real engine: the processes of the machine show whether a killed run has a container."""

from __future__ import annotations

import json

import pytest

from taoprofiles.runs.start import prepare
from taoprofiles.storage.paths import Context
from tests.support.commands import as_them, do_as_them
from tests.support.engine import Engine
from tests.support.home import Home

pytestmark = pytest.mark.engine


def test_a_killed_run_ends_when_no_newer_container_runs(engine: Engine, theirs: Home) -> None:
    environ = {name: value for name, value in theirs.environ.items() if name != "DOCKER_HOST"}

    def start_and_die() -> int:
        prepare(Context(environ), "a", ["true"])
        return 0

    def held() -> int:
        done = as_them(theirs, "--json", "status", environ=environ)
        assert "permission denied" in str(done.envelope["messages"]), done
        return len(json.loads(done.out)["data"]["holds"])

    image = next(iter(engine.images.values()))
    older = engine.docker("run", "--detach", "--network=none", image).strip()
    try:
        for _ in range(2):
            assert do_as_them(theirs, start_and_die, environ).status == 0
            assert held() == 0, "only older containers run"
            assert do_as_them(theirs, start_and_die, environ).status == 0
            newer = engine.docker("run", "--detach", "--network=none", image).strip()
            try:
                assert held() == 1, "it may be this one"
                engine.docker("pause", newer)
                assert held() == 1
            finally:
                engine.remove(newer)
            assert held() == 0
    finally:
        engine.remove(older)
