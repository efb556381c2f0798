"""SIGKILL of every part of a run on a real engine: each run has an end, nothing stays held, and no log is lost.

``TAOPROF_TEST_KILLS=200`` is the long version, ``TAOPROF_TEST_SEED`` the number of the first kill. With ``-s``, pytest
shows what each of them led to.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.system import processes
from tests.support.engine import TrainingHome, new_project, until
from tests.support.guard_process import GuardProcess
from tests.support.sandbox import kill

pytestmark = pytest.mark.engine

KILLS = int(os.environ.get("TAOPROF_TEST_KILLS", "10"))
FIRST = int(os.environ.get("TAOPROF_TEST_SEED", "0"))

PARTS = ("taoprof", "launcher", "client", "guard", "container", "tee")
"""The run's own process, the launcher, its ``docker exec``, the guard, the container, and what copies the output of a
run in the foreground, which the other parts have in turn with a detached one."""

LINES = 10
SCRIPT = f"n=0; while [ $n -lt {LINES} ]; do echo line $n; n=$((n+1)); sleep 0.1; done; exit 7"
LONGEST = 3.5
"""Seconds after the start of a run in which a part of it is killed: from before its container until it has ended."""


class Killing:
    """A home with a guard in which runs are started, one after the other, and a part of each is killed."""

    def __init__(self, home: TrainingHome) -> None:
        self.home = home
        home.environ["PATH"] = f"{Path(home.tao).parent}:{os.environ['PATH']}"
        new_project(home, "segformer", "tao/city")
        home.run("set", "segformer", "docker.tty=true", check=True)
        home.run("set", "segformer", f"on_end=echo $TAOPROF_RUN_ID >>{home.root}/ends", check=True)
        home.run("use", "segformer", "--mkdir", check=True)
        self.guard: GuardProcess | None = None

    def play(self, number: int) -> str:
        """Start a run, kill a part of it at a random moment, and return how it ended."""
        chance = random.Random(number)
        part, moment, has_guard = PARTS[number % len(PARTS)], chance.uniform(0, LONGEST), chance.random() < 0.5
        if part == "guard" or (has_guard and self.guard is None):
            self.start_guard()
        elif not has_guard:
            self.end_guard()
        is_detached = part != "tee" and number // len(PARTS) % 2 == 0
        run = self.start(detached=is_detached)
        what = f"run {run} of kill {number}: {part} after {moment:.2f} s, {'with' if self.guard else 'without'} a guard"
        what += ", detached" if is_detached else ""
        time.sleep(moment)
        pids = self.pids(part, run)
        for pid in pids:
            kill(pid)
        containers = self.containers(run)
        if part == "container":
            for container in containers:
                self.home.engine.docker("kill", container, check=False)
        waited = self.home.run("wait", run, "--timeout", "20")
        ended = self.find(run)
        assert ended["ended"] is not None, f"{what}\n{self.describe(run)}"
        until(lambda: not self.left(), "nothing of it is left", details=lambda: f"{what}\n{self.describe(run)}")
        status = ended["status"]
        assert waited.returncode == (1 if status is None else status), f"{what}: {waited}"
        lines = [
            int(line) for line in re.findall(r"(?m)^line (\d+)\r?$", self.home.run("logs", run, check=True).stdout)
        ]
        assert lines == list(range(len(lines))), f"{what}: {lines}"
        if status == 7 and part not in ("client", "tee"):  # whose reader was killed
            assert len(lines) == LINES, f"{what}: {lines}"
        ends = until(lambda: self.ends(run), "its end is reported", details=lambda: what)
        assert ends == 1, what
        if part == "guard":
            assert status == 7, what
        # One that was created, but not started, before the launcher was killed stays, and does nothing.
        until(lambda: not self.containers(run), "its container has ended", details=lambda: what)
        assert ended["since"] <= ended["ended"] <= time.time(), what
        killed = "killed" if pids or (part == "container" and containers) else "was not there"
        return f"{part:9} {killed}: status {status}, {'all' if len(lines) == LINES else len(lines) and 'some'} lines"

    def start(self, *, detached: bool) -> str:
        """Start a run, if not detached on a terminal; return its id."""
        command = ("--", "tao", "model", "segformer", "run", "sh", "-c", SCRIPT)
        if detached:
            return self.home.run("run", "segformer", "--detach", *command, check=True).stdout.strip()
        before = {hold["id"] for hold in self.home.holds()}
        controller, terminal = os.openpty()
        words = [self.home.taoprof, "run", "segformer", *command]
        process = subprocess.Popen(
            words, env=self.home.environ, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)
        threading.Thread(target=drain, args=(process, controller), daemon=True).start()
        (run,) = until(lambda: {hold["id"] for hold in self.home.holds()} - before, "it has an id")
        return run

    def ends(self, run: str) -> int:
        """Return how often the end of a run was reported."""
        ends = self.home.root / "ends"
        return ends.read_text().split().count(run) if ends.exists() else 0

    def pids(self, part: str, run: str) -> list[int]:
        if part == "guard":
            guard, self.guard = self.guard, None
            guard.process.kill()
            guard.__exit__()
            return [guard.process.pid]
        if part == "taoprof":
            return [hold["pid"] for hold in self.home.holds() if hold["id"] == run]
        tagged = {pid for pid, tag in processes.with_variable(os.getuid(), RUN_VARIABLE) if tag == run}
        running = processes.scan()
        if part == "tee":
            return [process.pid for process in running if f"/{run}.log" in " ".join(process.argv)]
        of_part = {
            "client": [process.pid for process in running if process.container is not None],
            "launcher": [process.pid for process in running if self.home.tao in process.argv[:2]],
        }
        return sorted(tagged.intersection(of_part.get(part, [])))

    def containers(self, run: str) -> list[str]:
        return [
            container for container in self.home.engine.containers_of(self.home.root) if self.is_running(container, run)
        ]

    def is_running(self, container: str, run: str) -> bool:
        inspected = json.loads(self.home.engine.docker("inspect", container, check=False) or "[]")
        return any(item["State"]["Running"] and f"{RUN_VARIABLE}={run}" in item["Config"]["Env"] for item in inspected)

    def find(self, run: str) -> dict[str, Any]:
        (record,) = [item for item in self.home.json("history", "--all")["data"]["runs"] if item["id"] == run]
        return dict(record)

    def left(self) -> list[Any]:
        return [*self.home.holds(), *(self.home.state / "holds").glob("[!.]*")]

    def describe(self, run: str) -> str:
        inspected = [self.home.engine.docker("inspect", container, check=False) for container in self.containers(run)]
        tagged = [
            (pid, processes.command_line(pid))
            for pid, tag in processes.with_variable(os.getuid(), RUN_VARIABLE)
            if tag == run
        ]
        return "\n".join(map(str, (self.left(), tagged, self.home.run("logs", run).stdout, *inspected)))

    def start_guard(self) -> None:
        if self.guard is None:
            self.guard = GuardProcess(self.home).__enter__()

    def end_guard(self) -> None:
        if self.guard is not None:
            self.guard.__exit__()
            self.guard = None


def drain(process: subprocess.Popen[bytes], terminal: int) -> None:
    """Read a terminal until nobody has it open, as somebody looks at it."""
    with suppress(OSError):
        while os.read(terminal, 1 << 16):
            pass
    process.wait()
    os.close(terminal)


@pytest.fixture
def killing(training_home: TrainingHome) -> Iterator[Killing]:
    killing = Killing(training_home)
    yield killing
    killing.end_guard()


@pytest.mark.timeout(60 + 30 * KILLS)
def test_whatever_part_is_killed_at_whatever_moment(killing: Killing) -> None:
    outcomes: Counter[str] = Counter()
    for number in range(FIRST, FIRST + KILLS):
        outcomes[killing.play(number)] += 1
    print("".join(f"\n{count:4} {outcome}" for outcome, count in sorted(outcomes.items())))
