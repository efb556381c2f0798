"""Random sequences over real processes: never two mappings in use through the mapping file.

``TAOPROF_TEST_SEQUENCES=1000`` is the long version.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from taoprofiles.holds import manage
from taoprofiles.holds.hold import HeldError
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


@dataclass(eq=False)
class Launch:
    """A launch, plain or in a run: ``name`` is the profile whose mapping it must read."""

    kind: str
    name: str
    tao: Tao
    process: subprocess.Popen[str]


class RunModel:
    """The model beside the real thing: what is active, who works, what is held by hand."""

    def __init__(self, sandbox: Sandbox, seed: int) -> None:
        self.sandbox, self.random = sandbox, random.Random(seed)
        self.wanted = {name: rendered(sandbox, name) for name in NAMES}
        switch.switch_profile(sandbox.context, "a")
        self.active = "a"
        self.works: list[Launch] = []
        self.by_hand: list[tuple[str, str]] = []
        self.log: list[str] = [f"seed {seed}"]

    def blockers(self, name: str) -> list[str]:
        """Return the work that needs the mapping file with another mapping than that of ``name``."""
        works = [repr(work) for work in self.works if work.kind != "isolated" and work.name != name]
        return works + [f"hold {hold_id}" for hold_id, held in self.by_hand if held != name]

    def step(self) -> None:
        steps = [self.plain, self.isolated, self.shared, self.use, self.use, self.use, self.hold]
        if self.by_hand:
            steps += [self.release] * 2
        if self.works:
            steps += [self.read, self.end, self.end, self.kill_tao, self.kill_run]
        do = self.random.choice(steps)
        self.log.append(do.__name__)
        do()
        assert self.sandbox.mapping_file.read_bytes() == self.wanted[self.active]

    def plain(self) -> None:
        self.works.append(Launch("plain", self.active, *self.sandbox.plain()))

    def isolated(self) -> None:
        name = self.random.choice(NAMES)
        self.works.append(Launch("isolated", name, *self.sandbox.in_run(name)))

    def shared(self) -> None:
        name = self.random.choice(NAMES)
        if self.blockers(name):
            assert self.sandbox.run("run", name, "--shared", "--", "true").returncode == 5
            return
        self.works.append(Launch("shared", name, *self.sandbox.in_run(name, "--shared")))
        self.active = name

    def use(self) -> None:
        name = self.random.choice(NAMES)
        blockers = self.blockers(name)
        if self.random.random() < 0.3:
            status = self.sandbox.run("use", name).returncode
        else:
            try:
                switch.switch_profile(self.sandbox.context, name)
                status = 0
            except HeldError:
                status = 5
        self.log[-1] += f" {name} → {status}"
        assert status == (5 if blockers else 0), blockers
        self.active = self.active if blockers else name

    def hold(self) -> None:
        hold = manage.hold(self.sandbox.context, None, reason="x")
        self.by_hand.append((hold.id, self.active))

    def release(self) -> None:
        hold_id, _ = self.by_hand.pop(self.random.randrange(len(self.by_hand)))
        manage.release(self.sandbox.context, hold_id)

    def read(self) -> None:
        work = self.random.choice(self.works)
        mapping, wanted = json.loads(work.tao.reads()), json.loads(self.wanted[work.name])
        assert mapping["Mounts"] == wanted["Mounts"], f"{work} has read another mapping"

    def end(self, work: Launch | None = None) -> None:
        work = work or self.random.choice(self.works)
        work.tao.end()
        self.wait_for_end(work)

    def kill_tao(self) -> None:
        work = self.random.choice(self.works)
        kill(work.tao.pid())
        self.wait_for_end(work)

    def kill_run(self) -> None:
        """The work keeps running without its wrapper."""
        work = self.random.choice(self.works)
        if work.kind != "plain":
            kill(work.process.pid)
            work.process.wait(20)

    def wait_for_end(self, work: Launch) -> None:
        until(lambda: work.process.poll() is not None and gone(work.tao.pid()), f"{work} is over")
        self.works.remove(work)

    def finish(self) -> None:
        for work in list(self.works):
            self.end(work)
        for hold_id, _ in self.by_hand:
            manage.release(self.sandbox.context, hold_id)
        assert self.sandbox.holds() == []
        assert list(self.sandbox.records.iterdir()) == [], "nothing is left behind"
        switch.switch_profile(self.sandbox.context, next(name for name in NAMES if name != self.active))


@pytest.mark.timeout(60 + 20 * SEQUENCES)
def test_random_sequences(sandbox: Sandbox) -> None:
    first = int(os.environ.get("TAOPROF_TEST_SEED", "1"))
    for seed in range(first, first + SEQUENCES):
        play = RunModel(sandbox, seed)
        try:
            for _ in range(STEPS):
                play.step()
            play.finish()
        except BaseException:
            print("\n".join(play.log))
            raise
