"""Detached runs on a real engine with the unmodified launcher: their log and exit status, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.engine import TrainingHome, two_projects, until
from tests.support.guard_process import GuardProcess
from tests.support.sandbox import gone, kill
from tests.support.servers import WebReceiver

pytestmark = pytest.mark.engine


def detach(home: TrainingHome, *command: str, options: tuple[str, ...] = ()) -> str:
    """Start a detached run of segformer and return its id."""
    environ = {**home.environ, "PATH": f"{Path(home.tao).parent}:{os.environ['PATH']}"}
    words = [home.taoprof, "run", "segformer", "--detach", *options, "--", "tao", "model", "segformer", *command]
    done = subprocess.run(words, env=environ, cwd=home.root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_guard_tells_the_end_of_a_container_whose_run_was_killed(training_home: TrainingHome) -> None:
    home = training_home
    two_projects(home)
    with WebReceiver() as web, GuardProcess(home) as guard:
        script = "until test -e /results/go; do sleep 0.2; done"
        run = detach(home, "run", "sh", "-c", script, options=("--notify", web.url))
        (hold,) = until(lambda: [hold for hold in home.holds() if hold["phase"] == "bound"], "it has a container")
        kill(hold["pid"], signal.SIGKILL)
        until(lambda: gone(hold["pid"]), "taoprof is gone")
        guard.wait_for_loops(1)
        assert web.messages == []
        (home.root / "tao/city/segformer/results/go").touch()
        (message,) = until(lambda: web.messages, "the guard tells it", details=guard.log_text)
        assert message["title"] == "segformer finished"
        assert message["message"].startswith(f"run {run} finished after ")
        until(lambda: not list((home.state / "notifications").iterdir()), "nothing is left to do")
    assert len(web.messages) == 1
    assert home.holds() == []
