"""Containers that were started without the launcher, as their labels tell of them."""

from __future__ import annotations

import pytest

from tests.support.engine import until
from tests.support.guard_process import GuardProcess, is_sealed
from tests.support.sandbox import FakeEngine, Sandbox, mounts_of


def labels(sandbox: Sandbox, name: str = "a", **more: str) -> dict[str, str]:
    return {"taoprofiles.profile": name, "taoprofiles.state": str(sandbox.state), "x": "y", **more}


def listed(sandbox: Sandbox) -> list[tuple[str, str, str, bool]]:
    return [
        (hold["kind"], hold["profile"], hold["container"], hold["shared"])
        for hold in sandbox.json("status")["data"]["holds"]
    ]


@pytest.mark.parametrize("mounts", [True, False])
@pytest.mark.parametrize("count", [-1, None], ids=["gpus", "none"])
def test_a_container_of_a_rendered_command_is_listed_and_blocks_nothing(
    sandbox: Sandbox, fake_engine: FakeEngine, mounts: bool, count: int | None
) -> None:
    binds = mounts_of(sandbox, "a") if mounts else {}
    container = fake_engine.container(1, binds, labels=labels(sandbox), count=count)
    assert listed(sandbox) == [("found", "a", container, False)]
    sandbox.run("use", "b", check=True)
    assert listed(sandbox) == [("found", "a", container, False)]
    assert sandbox.run("stop", f"c{container[:6]}").returncode in (0, 1), "the engine that is played stops nothing"
    assert any(f"/containers/{container}/stop" in path for path in fake_engine.asked)


OTHERS = {"taoprofiles.profile": "a", "taoprofiles.state": "/home/bo/.local/state/taoprofiles"}


@pytest.mark.parametrize(
    ("about", "is_held"),
    [
        (OTHERS, False),
        ({"taoprofiles.profile": "", "taoprofiles.state": ""}, False),
        *((about, True) for about in (None, {"taoprofiles.stand-in": "x"}, {"taoprofiles.profile": "b"}, {"a": "b"})),
        ("a run without a record", False),
    ],
    ids=str,
)
def test_labels_of_others(sandbox: Sandbox, fake_engine: FakeEngine, about: object, is_held: bool) -> None:
    """What others have labelled is not ours; other labels change nothing about a launcher's container."""
    if isinstance(about, str):
        about = labels(sandbox, **{"taoprofiles.run": "abcde"})
    container = fake_engine.container(1, mounts_of(sandbox, "a"), labels=about)
    assert listed(sandbox) == ([("found", "a", container, True)] if is_held else [])
    assert sandbox.would_be_refused("b") is is_held


def test_a_guard_lists_it_seals_nothing_and_finds_no_fault(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    with GuardProcess(sandbox) as guard:
        container = fake_engine.container(1, {"/elsewhere": "/data"}, labels=labels(sandbox))
        fake_engine.event("start", container)
        until(lambda: guard.known().get("holds"), "the guard has seen it", details=guard.log_text)
        assert listed(sandbox) == [("found", "a", container, False)]
        assert not is_sealed(sandbox.mapping_file)
        sandbox.run("use", "b", check=True)
        assert listed(sandbox) == [("found", "a", container, False)]
        assert "container" not in guard.log_text(), guard.log_text()
