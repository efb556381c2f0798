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
EFFECTS: dict[str, tuple[tuple[str, ...], str, dict[str, str], list[tuple[str, str]]]] = {
    "--volume": ((*TASK, "--volume", "{root}/more:/more"), NEW, {}, []),
    "--volume read-only": ((*TASK, "--volume", "{root}/more:/x:ro"), NEW, {}, [("mode-ignored", "--volume[0]")]),
    "--volume=": ((*TASK, "--volume=a:b"), NEW, {}, [("volume-not-seen", "command")]),
    "--volume before 6.0.0": ((*TASK, "--volume", "a:b"), "5.5.1", {}, [("volume-not-seen", "command")]),
    "CI is nothing to old ones": (("unet", "train"), "4.0.1", {"CI_PROJECT_DIR": "x"}, []),
}


@pytest.mark.parametrize("what", EFFECTS)
def test_a_silent_effect_has_its_place(scratch: Scratch, what: str) -> None:
    arguments, version, environ, expected = EFFECTS[what]
    words = [word.replace("{root}", str(scratch.root)) for word in arguments]
    prediction = scratch.tell(GOOD, *words, version=version, environ=environ)
    assert prediction.refusals == []
    assert [(change.kind, str(change.location)) for change in prediction.changes] == expected


def test_with_ci_the_options_that_do_not_reach_docker_are_named(scratch: Scratch) -> None:
    words = (*TASK, "--volume", "a:b")
    prediction = scratch.tell(GOOD, *words, environ={"CI_PROJECT_DIR": ""})
    dropped = [(change.kind, str(change.location)) for change in prediction.changes]
    assert dropped == [("ci-dropped", "DockerOptions.user"), ("ci-dropped", "--volume[0]")]


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
