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


def log(home: TrainingHome, run: str) -> str:
    return home.run("logs", run, check=True).stdout


def test_the_log_and_the_exit_status_are_those_of_the_task(training_home: TrainingHome) -> None:
    """Without ``"tty": false``: the launcher needs a terminal, and a detached run has none."""
    home = training_home
    two_projects(home)
    home.profile("segformer", (home.profiles / "segformer.toml").read_text().replace("tty = false", ""))
    run = detach(home, "train", "1", "3")
    assert home.run("wait", run).returncode == 3, log(home, run)
    assert "segformer train: training as" in log(home, run)
    assert [(ended["id"], ended["status"]) for ended in home.json("history")["data"]["runs"]] == [(run, 3)]
    assert home.holds() == []


def test_a_training_goes_on_whoever_is_killed_until_it_is_stopped(training_home: TrainingHome) -> None:
    home = training_home
    two_projects(home)
    home.profile("segformer", (home.profiles / "segformer.toml").read_text().replace("tty = false", ""))
    run = detach(home, "run", "sh", "-c", "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2; done")
    until(lambda: "line 3\n" in log(home, run), "the task prints", details=lambda: log(home, run))
    (hold,) = home.holds()
    assert (hold["id"], hold["phase"]) == (run, "bound")
    kill(hold["pid"], signal.SIGKILL)
    until(lambda: gone(hold["pid"]), "taoprof is gone")
    lines = log(home, run).count("line ")
    until(lambda: log(home, run).count("line ") > lines + 2, "it prints on", details=lambda: log(home, run))
    assert [other["id"] for other in home.holds()] == [run]
    numbers = [int(line.split()[1]) for line in log(home, run).splitlines() if line.startswith("line ")]
    assert numbers == list(range(1, len(numbers) + 1))
    waiting = subprocess.Popen([home.taoprof, "wait", run], env=home.environ, cwd=home.root)
    home.run("stop", run, check=True)
    assert waiting.wait(60) == 137, "the engine knows it"
    until(lambda: home.holds() == [], "nothing is held")
    assert not home.engine.exists(hold["container"])


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
