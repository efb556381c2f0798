"""What nobody is told of: each kind of change where it happens, none where it does not, and no loss without one."""

from __future__ import annotations

import json
import os
import posixpath
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from taoprofiles.launcher.host import Host
from taoprofiles.launcher.prediction import Prediction
from taoprofiles.launcher.simulation import predict
from tests.support.launcher_cases import cases
from tests.support.launcher_values import Case, make_tree

NEW = "6.26.3"


class Scratch:
    """A home with two data folders and a link, and a mounts file in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("data", "more", "elsewhere"):
            (root / name).mkdir()
        (root / "link").symlink_to("data")
        (root / "moved").symlink_to("elsewhere")

    def tell(
        self, content: Any, *arguments: str, version: str = NEW, environ: dict[str, str] | None = None
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

CHANGES: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "as it was written": (GOOD, []),
    "the same source": (
        {"Mounts": [DATA, {"source": "{root}/link/", "destination": "/specs"}], "DockerOptions": USER},
        [("dropped-same-source", "Mounts[0]")],
    ),
    "a link on this host": (
        {"Mounts": [{"source": "~/data", "destination": "{root}/moved/x"}], "DockerOptions": USER},
        [("moved-destination", "Mounts[0].destination")],
    ),
    "a relative destination": (
        {"Mounts": [DATA, {"source": "~/more", "destination": "more"}], "DockerOptions": USER},
        [("moved-destination", "Mounts[1].destination")],
    ),
    "a slash at the end moves nothing": ({"Mounts": [{**DATA, "destination": "/data/"}], "DockerOptions": USER}, []),
    "read-only": ({"Mounts": [{**DATA, "mode": "ro"}], "DockerOptions": USER}, [("mode-ignored", "Mounts[0].mode")]),
    "writable is what it is": ({"Mounts": [{**DATA, "mode": "rw", "ro": False}], "DockerOptions": USER}, []),
    "a comment": ({"Mounts": [{**DATA, "comment": "x"}], "DockerOptions": USER}, [("unknown-keys", "Mounts[0]")]),
    "null": (
        {**GOOD, "Envs": [{"variable": "A", "value": "1"}, {"variable": "B", "value": None}]},
        [("env-none", "Envs[1].value")],
    ),
    "a number": ({**GOOD, "Envs": [{"variable": "A", "value": 1}]}, [("env-stringified", "Envs[0].value")]),
    "a variable twice": ({**GOOD, "Envs": [{"variable": "A", "value": v} for v in "12"]}, [("env-twice", "Envs[0]")]),
    "no user": ({"Mounts": [DATA]}, [("root-user", "DockerOptions.user")]),
    "Mounts twice": (
        '{"Mounts": [{"source": "{root}/more", "destination": "/more"}], "Mounts": [], "DockerOptions": {"user": "1"}}',
        [("json-duplicate-key", "Mounts")],
    ),
    "a key twice in a mount": (
        '{"Mounts": [{"source": "/", "source": "{root}/data", "destination": "/x"}], "DockerOptions": {"user": "1"}}',
        [("json-duplicate-key", "Mounts[0].source")],
    ),
    "a key twice, deep down": (
        '{"Mounts": [], "DockerOptions": {"user": "1", "ulimits": {"stack": 1, "stack": 2}}}',
        [("json-duplicate-key", "DockerOptions.ulimits.stack")],
    ),
    "no file": (None, [("no-file", "file"), ("root-user", "DockerOptions.user")]),
}


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_docker_config_that_has_no_end_is_not_waited_for(scratch: Scratch, kind: str) -> None:
    login = scratch.root / ".docker/config.json"
    login.parent.mkdir()
    os.mkfifo(login) if kind == "fifo" else login.symlink_to("/dev/zero")
    prediction = scratch.tell(GOOD)
    assert prediction.refusal is not None or prediction.call is not None


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_told_with_its_place(scratch: Scratch, what: str) -> None:
    content, expected = CHANGES[what]
    prediction = scratch.tell(content)
    assert prediction.refusal is None and prediction.call is not None
    assert [(change.kind, str(change.location)) for change in prediction.changes] == expected
    assert prediction.source_file == (str(scratch.root / ".tao_mounts.json") if content else None)


TASK = ("model", "unet", "train")
ELSEWHERE: dict[str, tuple[tuple[str, ...], str, dict[str, str], list[tuple[str, str]]]] = {
    "--volume": ((*TASK, "--volume", "{root}/more:/more"), NEW, {}, []),
    "--volume with a source of the file": (
        (*TASK, "--volume", "{root}/data:/x"), NEW, {}, [("dropped-same-source", "Mounts[0]")]
    ),
    "--volume read-only": ((*TASK, "--volume", "{root}/more:/x:ro"), NEW, {}, [("mode-ignored", "--volume[0]")]),
    "--volume of what is not there": (
        (*TASK, "--volume", "{root}/no:/x"), NEW, {}, [("volume-source-missing", "--volume[0]")]
    ),
    "--volume to a link": (
        (*TASK, "--volume", "{root}/more:{root}/moved"), NEW, {}, [("moved-destination", "--volume[0].destination")]
    ),
    "--volume=": ((*TASK, "--volume=a:b"), NEW, {}, [("volume-not-seen", "command")]),
    "--volume before 6.0.0": ((*TASK, "--volume", "a:b"), "5.5.1", {}, [("volume-not-seen", "command")]),
    "under CI": (
        (*TASK, "--volume", "a:b"), NEW, {"CI_PROJECT_DIR": ""},
        [("ci-dropped", "DockerOptions.user"), ("ci-dropped", "--volume[0]"), ("root-user", "DockerOptions.user")],
    ),
    "CI is nothing to old ones": (("unet", "train"), "4.0.1", {"CI_PROJECT_DIR": "x"}, []),
    "no Docker": (TASK, NEW, {"TAO_DOCKER_DISABLE": "1"}, [("no-docker", "environ.TAO_DOCKER_DISABLE")]),
}  # fmt: skip


@pytest.mark.parametrize("what", ELSEWHERE)
def test_the_command_and_the_environment_change_things_too(scratch: Scratch, what: str) -> None:
    arguments, version, environ, expected = ELSEWHERE[what]
    words = [word.replace("{root}", str(scratch.root)) for word in arguments]
    prediction = scratch.tell(GOOD, *words, version=version, environ=environ)
    assert prediction.refusal is None
    assert [(change.kind, str(change.location)) for change in prediction.changes] == expected


def test_proxies_and_another_registry_are_told(scratch: Scratch) -> None:
    (scratch.root / ".docker").mkdir()
    login = {"auths": {"nvcr.io": {}}, "proxies": {"default": {"httpProxy": "http://me:secret@p"}}}
    (scratch.root / ".docker/config.json").write_text(json.dumps(login))
    table = {"format_version": 3.0, "task_group": {"model": {"dockers": {"n/t": {"1": {
        "docker_registry": "nvcr.io", "tasks": ["unet"]}}}}}}  # fmt: skip
    (scratch.root / ".tao").mkdir()
    (scratch.root / ".tao/config.json").write_text(json.dumps(table))
    prediction = scratch.tell(GOOD, *TASK, environ={"OVERRIDE_REGISTRY": "reg.local"})
    assert [(change.kind, change.was, change.now) for change in prediction.changes] == [
        ("image-renamed", "nvcr.io/n/t:1", "reg.local/n/t:1"),
        ("proxy-added", "", "http_proxy, HTTP_PROXY"),
    ]
    assert prediction.call and prediction.call.environment[0] == "http_proxy=http://me:secret@p"
    assert "secret" not in repr(prediction.changes)


REFUSED: dict[str, tuple[Any, str, str]] = {
    "no Mounts": ({}, "AssertionError", "file"),
    "no JSON": ("{", "JSONDecodeError", "file"),
    "a list": ([], "AttributeError", "file"),
    "another section": ({"Mounts": [], "Comment": 1}, "KeyError", "file.Comment"),
    "Mounts null": ({"Mounts": None}, "TypeError", "Mounts"),
    "no destination": ({"Mounts": [DATA, {"source": "/"}]}, "AssertionError", "Mounts[1]"),
    "no source folder": ({"Mounts": [DATA, {**DATA, "source": "/no"}]}, "ValueError", "Mounts[1].source"),
    "a source of null": ({"Mounts": [{**DATA, "source": None}]}, "TypeError", "Mounts[0].source"),
    "a variable without a value": ({"Mounts": [], "Envs": [{"variable": "A"}]}, "AssertionError", "Envs[0]"),
    "an option it has not": ({**GOOD, "DockerOptions": {"gpus": 1}}, "AssertionError", "DockerOptions.gpus"),
    "no options": ({**GOOD, "DockerOptions": None}, "AttributeError", "DockerOptions"),
    "GiB": ({**GOOD, "DockerOptions": {"shm_size": "16GiB"}}, "DockerException", "DockerOptions.shm_size"),
    "a limit in words": (
        {**GOOD, "DockerOptions": {"ulimits": {"stack": "x"}}},
        "ValueError",
        "DockerOptions.ulimits.stack",
    ),
    "a list of ports": ({**GOOD, "DockerOptions": {"ports": [1]}}, "AttributeError", "DockerOptions.ports"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_has_its_place(scratch: Scratch, what: str) -> None:
    content, kind, place = REFUSED[what]
    prediction = scratch.tell(content)
    assert prediction.refusal is not None
    assert (prediction.refusal.kind, str(prediction.refusal.location), prediction.refusal.status) == (kind, place, 1)


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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("changes").resolve()
    make_tree(root)
    return root


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_nothing_is_lost_without_a_change(root: Path, case: Case) -> None:
    case = case._replace(environ={**case.environ, "HOME": "{root}/home"}, override=None)
    case.environ.pop("LAUNCHER_MOUNTS", None)
    case.lay_out(root)
    host = Host(case.environ_in(root), str(root / "cwd"))
    for version in ("0.1.21", "5.5.1", NEW):
        prediction = predict(version, host, None)
        if prediction.refusals or prediction.call is None or prediction.source_file is None:
            continue
        data = json.loads(Path(prediction.source_file).read_bytes())
        changed = {(change.location.section, change.location.number) for change in prediction.changes}
        for number, mount in enumerate(data["Mounts"]):
            source = os.path.realpath(os.path.join(root / "cwd", host.expanduser(mount["source"])))
            reached = prediction.call.volumes.get(source) == posixpath.normpath(mount["destination"])
            assert reached or ("Mounts", number) in changed
        for number, entry in enumerate(data.get("Envs", [])):
            as_written = [entry["variable"], entry["value"]]
            line = "=".join(map(str, as_written))
            assert line in prediction.call.environment
            assert all(isinstance(each, str) for each in as_written) or ("Envs", number) in changed
        if prediction.call.body is None:
            dropped = {change.location.key for change in prediction.changes if change.kind == "ci-dropped"}
            assert dropped == set(data.get("DockerOptions") or {}) - {"tty", "privileged", "shm_size"}
