"""Without the launcher: the docker command may be gone before the engine reports the container that it started."""

from __future__ import annotations

import os

from tests.support.engine import until
from tests.support.sandbox import FakeEngine, Sandbox


def test_a_container_that_is_reported_late_is_held(sandbox: Sandbox) -> None:
    folder = sandbox.root / "docker"
    folder.mkdir()
    told = folder / "told"
    (folder / "docker").write_text(f"#!/bin/sh\necho $$ $TAOPROF_RUN >{told}.new\nmv {told}.new {told}\nexit 1\n")
    (folder / "docker").chmod(0o755)
    with FakeEngine(sandbox.root) as engine:
        around = {**engine.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        sandbox.environ |= engine.environ
        run = sandbox.start(sandbox.taoprof, "run", "a", "--image", "i", "--", "t", environ=around)
        pid, mark = until(lambda: told.exists() and told.read_text().split(), "docker is started")  # type: ignore[misc]
        until(lambda: not os.path.exists(f"/proc/{pid}"), "the docker command has ended")
        container = engine.container(1, {}, env=[f"TAOPROF_RUN={mark}"], labels={"taoprofiles.run": mark})
        engine.event("start", container)
        assert sandbox.wait(run) == 1
        (hold,) = sandbox.holds()
        assert (hold["id"], hold["container"], hold["phase"]) == (mark, container, "bound")
