"""Containers of NVIDIA's agents and tools: shown, counted for GPUs and results folders, and never stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taoprofiles.holds.liveness import find_active_holds
from tests.support.commands import one_clear_error
from tests.support.sandbox import FakeEngine, Sandbox, mounts_of
from tests.support.stand_ins import driver, gpus

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
