"""Refusals and silent effects of a start, each with its location."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.launcher.behaviour import Host
from taoprofiles.launcher.simulation import Prediction, predict

NEW = "6.26.3"


class Scratch:
    """A home with two data folders and a mounts file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("data", "more"):
            (root / name).mkdir()

    def tell(
        self,
        content: Any,
        *arguments: str,
        version: str = NEW,
        environ: dict[str, str] | None = None,
    ) -> Prediction:
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (self.root / ".tao_mounts.json").write_text(text.replace("{root}", str(self.root)))
        login = self.root / ".docker/config.json"
        login.parent.mkdir(exist_ok=True)
        login.exists() or login.write_text('{"auths": {"nvcr.io": {}}}')
        host = Host({"HOME": str(self.root), **(environ or {})}, str(self.root))
        return predict(version, host, list(arguments) or None)


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path.resolve())


DATA = {"source": "{root}/data", "destination": "/data"}
USER = {"user": "1000:1000"}
GOOD = {"Mounts": [DATA], "Envs": [{"variable": "A", "value": "1"}], "DockerOptions": USER}


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_docker_config_that_has_no_end_is_not_waited_for(scratch: Scratch, kind: str) -> None:
    login = scratch.root / ".docker/config.json"
    login.parent.mkdir()
    os.mkfifo(login) if kind == "fifo" else login.symlink_to("/dev/zero")
    prediction = scratch.tell(GOOD)
    assert prediction.refusals or prediction.call is not None


TASK = ("model", "unet", "train")


@pytest.mark.parametrize(
    ("words", "version", "unseen", "ignored"),
    [
        ("--volume {root}/more:/more", NEW, [], []),
        ("--volume {root}/more:/x:ro", NEW, [], ["ro"]),
        ("--volume=a:b", NEW, ["--volume=a:b"], []),
        ("--volume a:b", "5.5.1", ["--volume"], []),
    ],
)
def test_silent_effects(scratch: Scratch, words: str, version: str, unseen: list[str], ignored: list[str]) -> None:
    prediction = scratch.tell(GOOD, *TASK, *words.format(root=scratch.root).split(), version=version)
    assert prediction.refusals == []
    assert (prediction.unseen_volumes, prediction.ignored_modes, prediction.dropped_in_ci) == (unseen, ignored, [])


def test_with_ci_the_options_that_do_not_reach_docker_are_named(scratch: Scratch) -> None:
    prediction = scratch.tell(GOOD, *TASK, "--volume", "a:b", environ={"CI_PROJECT_DIR": ""})
    assert list(map(str, prediction.dropped_in_ci)) == ["DockerOptions.user", "--volume[0]"]
    old = scratch.tell(GOOD, "unet", "train", version="4.0.1", environ={"CI_PROJECT_DIR": "x"})
    assert (old.refusals, old.dropped_in_ci) == ([], []), "CI is nothing to it"


def test_a_volume_replaces_the_mount_of_its_source(scratch: Scratch) -> None:
    call = scratch.tell(GOOD, *TASK, "--volume", "data:/x", "--volume", "no:/y").call
    assert call and call.volumes == {f"{scratch.root}/data": "/x", f"{scratch.root}/no": "/y"}


def test_every_refusal_is_reported_in_the_order_of_the_launcher(scratch: Scratch) -> None:
    content = {
        "Mounts": [{**DATA, "source": "/no"}, {"source": "/"}, DATA],
        "Comment": 1,
        "Envs": [{"variable": "A"}, {"variable": "B", "value": "1"}],
        "DockerOptions": {"gpus": 1, "ulimits": {"stack": "x", "memlock": -1}, "shm_size": "16GiB", "user": "1000"},
    }
    prediction = scratch.tell(content)
    assert [str(refusal.location) for refusal in prediction.refusals] == [
        *("Mounts[0].source", "Mounts[1]", "file.Comment", "Envs[0]"),
        *("DockerOptions.gpus", "DockerOptions.ulimits.stack", "DockerOptions.shm_size"),
    ]
    assert prediction.call is not None
    assert (prediction.call.user, prediction.call.ulimits, prediction.call.shm_size) == ("1000", {"memlock": -1}, None)
    assert prediction.call.environment[0] == "B=1"
