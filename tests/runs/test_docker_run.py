"""Without the launcher: the docker command may be gone before the engine has told of the container that it started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.actors import FakeEngine, Stage, staged
from tests.support.engine import until


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made.profiles_named("a")


def test_a_container_that_is_told_of_late_is_held(stage: Stage) -> None:
    folder = stage.root / "docker"
    folder.mkdir()
    told = folder / "told"
    (folder / "docker").write_text(f"#!/bin/sh\necho $$ $TAOPROF_RUN >{told}.new\nmv {told}.new {told}\nexit 1\n")
    (folder / "docker").chmod(0o755)
    with FakeEngine(stage.root) as engine:
        around = {**engine.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        stage.environ |= engine.environ
        run = stage.start(stage.taoprof, "run", "a", "--image", "i", "--", "t", environ=around)
        pid, mark = until(lambda: told.exists() and told.read_text().split(), "docker is started")  # type: ignore[misc]
        until(lambda: not os.path.exists(f"/proc/{pid}"), "the docker command has ended")
        container = engine.container(1, {}, env=[f"TAOPROF_RUN={mark}"], labels={"taoprofiles.run": mark})
        engine.event("start", container)
        assert stage.wait(run) == 1
        (hold,) = stage.holds()
        assert (hold["id"], hold["container"], hold["phase"]) == (mark, container, "bound")
