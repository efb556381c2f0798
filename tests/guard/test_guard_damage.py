"""The guard, and commands beside it, where what is on disk is not what it should be."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.holds import manage
from taoprofiles.storage.journal import History
from tests.guard.test_guard import FOREIGN, held, replaced
from tests.support.actors import Stage, kill, staged
from tests.support.engine import until
from tests.support.guarding import Guarded, is_sealed
from tests.support.home import ALL


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made.profiles_named("a", "b")


@pytest.mark.skipif(not ALL, reason="takes a dozen seconds: TAOPROF_TEST_ALL=1, as in CI")
@pytest.mark.parametrize("kind", ["folder", "pipe", "huge"])
@pytest.mark.parametrize("before_start", [True, False])
def test_what_is_no_mapping_file_is_told_of_and_waited_for(stage: Stage, kind: str, before_start: bool) -> None:
    mapping, before = stage.mapping_file, stage.mapping_file.read_bytes()

    def take_its_place() -> None:
        mapping.unlink()
        if kind == "folder":
            mapping.mkdir()
        elif kind == "pipe":
            os.mkfifo(mapping)
        else:
            mapping.write_bytes(b"")
            os.truncate(mapping, 17 << 20)
            mapping.chmod(0o640)

    held(stage)
    if before_start:
        take_its_place()
    with Guarded(stage) as guard:
        if not before_start:
            until(lambda: is_sealed(mapping), "it is sealed")
            take_its_place()
        guard.until_said("needs the mapping that was there" if not before_start else ".tao_mounts.json'")
        looks = guard.told.count("WATCHDOG=1")
        guard.goes_on(3)
        assert guard.told.count("WATCHDOG=1") - looks < 40, "it does not look without end"
        if kind == "huge":
            assert mapping.stat().st_mode & 0o777 == 0o640
        mapping.rmdir() if kind == "folder" else mapping.unlink()
        until(lambda: mapping.is_file() and mapping.read_bytes() == before, "it is put back", told=guard.said)


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        "{",
        '{"path": "a\\u0000b", "ino": 1, "mode": 384, "by": "a"}',
        '{"path": "/x", "ino": 1, "mode": -5, "by": ""}',
    ],
)
@pytest.mark.parametrize("lives", [True, False])
def test_a_damaged_seal_does_no_harm(stage: Stage, record: str, lives: bool) -> None:
    with Guarded(stage) as guard:
        hold = held(stage)
        until(lambda: is_sealed(stage.mapping_file), "it is sealed")
        if not lives:
            kill(guard.process.pid)
            guard.process.wait()
        (stage.state / "guard/seal.json").write_text(record)
        manage.release(stage.context, hold)
        stage.run("status", check=True)
        stage.run("use", "b", check=True)
        if lives:
            until(lambda: stage.mapping_file.stat().st_mode & 0o7777 == 0o600, "it has its mode", told=guard.said)
    assert stage.mapping_file.stat().st_mode & 0o7000 == 0


def test_a_damaged_record_of_a_hold_takes_no_protection_from_others(stage: Stage) -> None:
    before = stage.mapping_file.read_bytes()
    held(stage)
    (stage.state / "holds/zzzzz.json").write_text("[]")
    with Guarded(stage) as guard:
        until(lambda: is_sealed(stage.mapping_file), "it is sealed", told=guard.said)
        replaced(stage)
        guard.until_said("put back")
        assert stage.mapping_file.read_bytes() == before
        assert "a hold's record is damaged" in guard.said()


def test_what_a_guard_published_may_be_anything(stage: Stage) -> None:
    nonsense = {"v": 1, "pid": "x", "line": 5, "problem": [], "holds": [1], "unseen": 3, "engine": 7}
    with Guarded(stage):
        (published,) = [path for path in (stage.state / "guard").glob("*.json") if path.name != "seal.json"]
        published.write_text(json.dumps(nonsense))
        for verb in ("status", "holds", "list"):
            stage.run(verb, check=True)


def test_a_history_of_no_time_at_all(stage: Stage) -> None:
    path = Path(stage.context.history)
    last = json.loads(path.read_text().splitlines()[-1])
    with path.open("a") as file:
        file.write(json.dumps({**last, "id": 99}).replace(str(last["time"]), "1e400") + "\n")
    stage.run("history", check=True)
    with Guarded(stage) as guard:
        replaced(stage)
        until(lambda: History(stage.context).knows(FOREIGN), "it is kept", told=guard.said)
