"""Containers that were started without the launcher, as their labels tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.holds.hold import Hold
from tests.support.actors import FakeEngine, Stage, mounts_of, staged
from tests.support.engine import until
from tests.support.guarding import Guarded, is_sealed


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made.profiles_named("a", "b")


@pytest.fixture
def engine(stage: Stage) -> Iterator[FakeEngine]:
    with FakeEngine(stage.folder) as made:
        stage.environ |= made.environ
        yield made


def labels(stage: Stage, name: str = "a", **more: str) -> dict[str, str]:
    return {"taoprofiles.profile": name, "taoprofiles.state": str(stage.state), "x": "y", **more}


def told(stage: Stage) -> list[tuple[str, str, str, bool]]:
    return [
        (hold["kind"], hold["profile"], hold["container"], hold["shared"])
        for hold in stage.json("holds")["data"]["holds"]
    ]


@pytest.mark.parametrize("mounts", [True, False])
@pytest.mark.parametrize("count", [-1, None], ids=["gpus", "none"])
def test_what_a_rendered_line_has_started_is_listed_and_in_nobodys_way(
    stage: Stage, engine: FakeEngine, mounts: bool, count: int | None
) -> None:
    seen = mounts_of(stage, "a") if mounts else {}
    container = engine.container(1, seen, labels=labels(stage), count=count)
    assert told(stage) == [("found", "a", container, False)]
    stage.run("use", "b", check=True)
    assert told(stage) == [("found", "a", container, False)]
    assert stage.run("stop", f"c{container[:6]}").returncode in (0, 1), "the engine that is played stops nothing"
    assert any(f"/containers/{container}/stop" in path for path in engine.asked)


@pytest.mark.parametrize(
    "about",
    [
        {"taoprofiles.profile": "a", "taoprofiles.state": "/home/bo/.local/state/taoprofiles"},
        {"taoprofiles.profile": "", "taoprofiles.state": ""},
    ],
)
def test_what_others_have_labelled_is_not_ours(stage: Stage, engine: FakeEngine, about: dict[str, str]) -> None:
    engine.container(1, mounts_of(stage, "a"), labels=about)
    assert told(stage) == []
    stage.run("use", "b", check=True)


@pytest.mark.parametrize("about", [None, {"taoprofiles.stand-in": "x"}, {"taoprofiles.profile": "b"}, {"a": "b"}])
def test_other_labels_change_nothing(stage: Stage, engine: FakeEngine, about: dict[str, str] | None) -> None:
    container = engine.container(1, mounts_of(stage, "a"), labels=about)
    assert told(stage) == [("found", "a", container, True)]
    assert stage.run("use", "b").returncode == 5


def test_a_run_whose_record_is_gone_is_nobodys(stage: Stage, engine: FakeEngine) -> None:
    engine.container(1, mounts_of(stage, "a"), labels=labels(stage, **{"taoprofiles.run": "abcde"}))
    assert told(stage) == []


def test_a_guard_lists_it_seals_nothing_and_finds_no_fault(stage: Stage, engine: FakeEngine) -> None:
    with Guarded(stage) as guard:
        container = engine.container(1, {"/elsewhere": "/data"}, labels=labels(stage))
        engine.event("start", container)
        until(lambda: guard.known().get("holds"), "the guard has seen it", told=guard.said)
        assert told(stage) == [("found", "a", container, False)]
        assert not is_sealed(stage.mapping_file)
        stage.run("use", "b", check=True)
        assert told(stage) == [("found", "a", container, False)]
        assert "container" not in guard.said(), guard.said()


def test_two_holds_are_of_the_same_work() -> None:
    one = Hold(pid=5, start=9, container="c")
    assert one.is_same(Hold(pid=5, start=9))
    assert one.is_same(Hold(pid=6, start=9, container="c"))
    assert not one.is_same(Hold(pid=5, start=8))
    assert not Hold().is_same(Hold())
