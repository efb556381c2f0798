"""Random sequences over real processes: never two mappings in use through the shared file.

``TAOPROF_TEST_SEQUENCES=1000`` is the long version.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.errors import HeldError
from taoprofiles.holds import manage
from taoprofiles.switching import switch
from tests.support.engine import until
from tests.support.sandbox import Sandbox, Tao, gone, kill, rendered

SEQUENCES = int(os.environ.get("TAOPROF_TEST_SEQUENCES", "2"))
STEPS = 25
NAMES = "abcd"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path) as sandbox:
        yield sandbox.profiles_named(*NAMES)


class Work:
    """A launch, plain or in a run: ``name`` is the profile whose mapping it must read."""

    def __init__(self, kind: str, name: str, tao: Tao, process: subprocess.Popen[str]) -> None:
        self.kind, self.name, self.tao, self.process = kind, name, tao, process
        self.has_read = False

    @property
    def needs_the_file(self) -> bool:
        return self.kind != "isolated"

    def lives(self) -> bool:
        return not gone(self.tao.pid())

    def __repr__(self) -> str:
        return f"{self.kind} {self.name}"


class Play:
    """The model beside the real thing: what is active, who works, what is held by hand."""

    def __init__(self, sandbox: Sandbox, seed: int) -> None:
        self.sandbox, self.choose = sandbox, random.Random(seed)
        self.wanted = {name: rendered(sandbox, name) for name in NAMES}
        switch.use(sandbox.context, "a")
        self.active = "a"
        self.works: list[Work] = []
        self.by_hand: list[tuple[str, str]] = []
        self.log: list[str] = [f"seed {seed}"]

    def blockers(self, name: str) -> list[str]:
        """Return the work that needs the shared file with another mapping than that of ``name``."""
        works = [repr(work) for work in self.works if work.needs_the_file and work.name != name]
        return works + [f"hold {hold_id}" for hold_id, held in self.by_hand if held != name]

    def step(self) -> None:
        steps = [self.plain, self.isolated, self.shared, self.use, self.use, self.use, self.hold]
        if self.by_hand:
            steps += [self.release] * 2
        if self.works:
            steps += [self.read, self.end, self.end, self.kill_tao, self.kill_run]
        do = self.choose.choice(steps)
        self.log.append(do.__name__)
        do()
        assert self.sandbox.mapping_file.read_bytes() == self.wanted[self.active]

    def any_name(self) -> str:
        return self.choose.choice(NAMES)

    def plain(self) -> None:
        self.works.append(Work("plain", self.active, *self.sandbox.plain()))

    def isolated(self) -> None:
        name = self.any_name()
        self.works.append(Work("isolated", name, *self.sandbox.in_run(name)))

    def shared(self) -> None:
        name = self.any_name()
        if self.blockers(name):
            assert self.sandbox.run("run", name, "--shared", "--", "true").returncode == 5
            return
        self.works.append(Work("shared", name, *self.sandbox.in_run(name, "--shared")))
        self.active = name

    def use(self) -> None:
        name, command = self.any_name(), self.choose.random() < 0.3
        blockers = self.blockers(name)
        if command:
            status = self.sandbox.run("use", name).returncode
        else:
            try:
                switch.use(self.sandbox.context, name)
                status = 0
            except HeldError:
                status = 5
        self.log[-1] += f" {name} → {status}"
        assert status == (5 if blockers else 0), blockers
        if status == 0:
            self.active = name

    def hold(self) -> None:
        made = manage.hold(self.sandbox.context, None, reason="x")
        self.by_hand.append((made.id, self.active))

    def release(self) -> None:
        hold_id, _ = self.by_hand.pop(self.choose.randrange(len(self.by_hand)))
        manage.release(self.sandbox.context, hold_id)

    def read(self) -> None:
        work = self.choose.choice(self.works)
        found: Any = json.loads(work.tao.reads())
        wanted = json.loads(self.wanted[work.name])
        assert found["Mounts"] == wanted["Mounts"], f"{work} has read another mapping"
        work.has_read = True

    def end(self) -> None:
        work = self.choose.choice(self.works)
        work.tao.end()
        self.over(work)

    def kill_tao(self) -> None:
        work = self.choose.choice(self.works)
        kill(work.tao.pid())
        self.over(work)

    def kill_run(self) -> None:
        """The work keeps running without its wrapper."""
        work = self.choose.choice(self.works)
        if work.kind != "plain":
            kill(work.process.pid)
            work.process.wait(20)

    def over(self, work: Work) -> None:
        until(
            lambda: work.process.poll() is not None and not work.lives(), "the work is over", details=lambda: repr(work)
        )
        self.works.remove(work)

    def finish(self) -> None:
        for work in list(self.works):
            self.end_one(work)
        for hold_id, _ in self.by_hand:
            manage.release(self.sandbox.context, hold_id)
        assert self.sandbox.holds() == []
        assert list(self.sandbox.records.iterdir()) == [], "nothing is left behind"
        (other,) = self.choose.sample([name for name in NAMES if name != self.active], 1)
        switch.use(self.sandbox.context, other)

    def end_one(self, work: Work) -> None:
        work.tao.end()
        self.over(work)


@pytest.mark.timeout(60 + 20 * SEQUENCES)
def test_random_sequences(sandbox: Sandbox) -> None:
    first = int(os.environ.get("TAOPROF_TEST_SEED", "1"))
    for seed in range(first, first + SEQUENCES):
        play = Play(sandbox, seed)
        try:
            for _ in range(STEPS):
                play.step()
            play.finish()
        except BaseException:
            print("\n".join(play.log))
            raise
