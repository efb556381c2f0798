"""Containers that were started without the launcher, as their labels tell of them.

Those of NVIDIA's agents and tools are shown, counted for GPUs and results folders, and never stopped.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taoprofiles.holds.liveness import find_active_holds
from tests.support.commands import one_clear_error
from tests.support.engine import until
from tests.support.guard_process import GuardProcess, is_sealed
from tests.support.sandbox import FakeEngine, Sandbox, mounts_of
from tests.support.stand_ins import driver, gpus


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


# NVIDIA's agents

AGENTS = {
    "a skill": {"tao-job": "dino-train-0a1b2c"},
    "the SDK": {"tao-toolkit": "true", "tao-sdk-job-id": "17", "tao-sdk-network": "dino"},
    "nemoclaw": {"com.nvidia.tao.nemoclaw.managed": "true"},
}


@pytest.mark.parametrize("agent", AGENTS)
def test_it_is_shown_and_needs_no_mapping(sandbox: Sandbox, fake_engine: FakeEngine, agent: str) -> None:
    """Also with the mounts of the active profile, as a plain launcher's container would have."""
    container = fake_engine.container(7, mounts_of(sandbox, "a"), labels=AGENTS[agent])
    (hold,) = sandbox.json("status")["data"]["holds"]
    assert (hold["kind"], hold["container"], hold["shared"]) == ("agent", container, False)
    assert hold["job"] == next(value for name, value in AGENTS[agent].items() if name != "tao-toolkit")
    assert f"job {hold['job']}: " in sandbox.run("status").stdout
    done = sandbox.run("use", "b")
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_not_stopped_and_not_released(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    container = fake_engine.container(7, {}, labels=AGENTS["a skill"])
    for command in ("stop", "release"):
        one_clear_error(sandbox.run(command, f"c{container[:6]}"), 2)
    done = sandbox.run("stop", f"c{container[:6]}")
    assert f"docker stop {container[:12]}" in done.stderr
    assert not any("/stop" in path for path in fake_engine.asked)


@pytest.mark.parametrize(("count", "taken"), [(1, "1,2"), (2, "2,3"), (-1, "")])
def test_its_gpus_are_taken(sandbox: Sandbox, fake_engine: FakeEngine, count: int, taken: str) -> None:
    """A number of GPUs is the first ones, as the engine gives them."""
    fake_engine.container(7, {}, labels=AGENTS["the SDK"], count=count)
    driver(sandbox, gpus(4))
    done = sandbox.run("run", "b", "--gpus", "2", "--json", "--", "true")
    if taken:
        assert json.loads(done.stdout)["data"]["gpus"] == taken.split(","), done.stderr
    else:
        assert (done.returncode, "tao-sdk" in done.stdout, "job 17" in done.stdout) == (5, False, True)


@pytest.mark.parametrize("by_spec", [False, True])
def test_its_results_folder_is_taken(sandbox: Sandbox, fake_engine: FakeEngine, by_spec: bool) -> None:
    fake_engine.container(7, mounts_of(sandbox, "b"), labels=AGENTS["a skill"])
    source, destination = next(iter(mounts_of(sandbox, "b").items()))
    (entry,) = fake_engine.containers.values()
    entry["Config"]["Cmd"] = ["dino", "train", f"results_dir={destination}/r1"]
    if by_spec:
        Path(source, "spec.yaml").write_text(f"results_dir: {destination}/r1\n")
        entry["Config"]["Cmd"] = ["dino", "train", "-e", f"{destination}/spec.yaml"]
    words = ["run", "b", "--", "tao", "model", "unet", "train", "-r", f"{destination}/r1"]
    done = sandbox.run(*words)
    assert done.returncode == 5, done.stderr
    assert "another training is writing to" in done.stderr
    assert "job dino-train-0a1b2c" in done.stderr


def test_another_users_agent_is_another_users(sandbox: Sandbox, fake_engine: FakeEngine) -> None:
    """Root sees every container as its own, so the question is asked of a user's context."""
    fake_engine.container(7, {}, labels=AGENTS["a skill"], user="1001:1001")
    sandbox.context.uid = 1000
    active = find_active_holds(sandbox.context, b"{}", others=True)
    assert (active.holds, [other.gpus for other in active.others]) == ([], ["all"])
