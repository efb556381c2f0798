"""Whatever profile is rendered, the launcher's own code takes it, and asks Docker for just what the profile says.

The launcher's DockerHandler and the Docker SDK below it run as they are; only the requests to the engine are caught.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.errors import InvalidProfileError
from taoprofiles.mounts import mapping
from taoprofiles.profiles.model import Profile, parse, template, to_toml
from taoprofiles.profiles.rendering import Renderer
from tests.support.generated_profiles import AROUND, moderate, usable_profiles
from tests.support.home import require

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the old Docker SDK


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    require(sys.version_info < (3, 12), "the launcher starts up to Python 3.11 only")
    with mock.patch.dict(os.environ, {"HOME": str(tmp_path_factory.mktemp("home"))}):  # it looks there when imported
        try:
            from nvidia_tao_cli.components.docker_handler import docker_handler
        except ImportError:
            require(False, "nvidia-tao is not installed")
            raise
    return docker_handler


def asked_for(launcher: ModuleType, mounts_file: Path) -> dict[str, Any]:
    """Let the launcher start a container with the mounts file; give what would be sent to the engine."""
    import docker

    sent: list[dict[str, Any]] = []

    def create(self: object, config: dict[str, Any], name: str | None = None) -> dict[str, str]:
        sent.append(config)
        return {"Id": "0123456789ab"}

    engine = {
        "create_container_from_config": create,
        "inspect_container": lambda self, container: {"Id": container},
        "start": lambda self, *args, **options: None,
        "_retrieve_server_version": lambda self: "1.41",
    }
    with mock.patch.multiple(docker.APIClient, **engine), mock.patch.dict(os.environ, {"DOCKER_HOST": ""}):
        handler = launcher.DockerHandler("nvcr.io", "nvidia/tao", "tag", docker_mount_file=str(mounts_file))
        mounts, envs, options = handler._get_mount_env_data()
        handler.start_container(handler.formatted_mounts(mounts), handler.formatted_envs(envs), options)
    (config,) = sent
    return config


def size(value: str | int) -> int:
    """Work out a size as Docker documents it."""
    if isinstance(value, int):
        return value
    text = value.strip().lower()
    text = text[:-1] if text[-2:-1].isalpha() else text
    number, unit = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "b")
    return int(float(number) * 1024 ** "bkmg".index(unit))


def check(launcher: ModuleType, profile: Profile, root: Path) -> None:
    profile = parse(to_toml(profile).encode(), name="a", path="a.toml")
    rendered = Renderer(template(profile, name="a"), AROUND, name="a", path="a.toml").mapping()
    mounts_file = root / ".tao_mounts.json"
    mounts_file.write_bytes(mapping.to_bytes(rendered))
    config = asked_for(launcher, mounts_file)
    host, docker = config["HostConfig"], profile.docker
    wanted = {f"{m['source']}:{os.path.normpath(m['destination'])}:rw" for m in rendered["Mounts"]}
    assert set(host.get("Binds") or []) == wanted
    assert len(profile.mounts or []) == len(wanted)
    assert (config["Env"] or []) == [f"{env['variable']}={env['value']}" for env in rendered.get("Envs", [])]
    assert [env["variable"] for env in rendered.get("Envs", [])] == list(profile.container.env)
    user = {None: None, "auto": "1000:1001"}.get(docker.user, docker.user)
    assert config.get("User") == user
    assert host.get("ShmSize") == (None if docker.shm_size is None else size(docker.shm_size))
    limits = [{"Name": name, "Soft": n, "Hard": n} for name, n in (docker.ulimits or {}).items()]
    assert [dict(limit) for limit in host.get("Ulimits") or []] == limits
    published = {
        port if "/" in port else f"{port}/tcp": [str(p) for p in (to if isinstance(to, list) else [to])]
        for port, to in (docker.ports or {}).items()
    }
    bound = host.get("PortBindings") or {}
    assert {port: [binding["HostPort"] for binding in bindings] for port, bindings in bound.items()} == published
    assert bool(host.get("Privileged")) == bool(docker.privileged)
    assert host.get("NetworkMode") in (docker.network, "default" if docker.network is None else docker.network)
    assert config["Tty"] is (True if docker.tty is None else docker.tty)


@moderate(40)
@given(st.data())
def test_any_profile_whose_folders_are_there(launcher: ModuleType, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        check(launcher, data.draw(usable_profiles(root)), root)


@pytest.mark.parametrize("layout", ["local", "host"])
def test_the_layouts(launcher: ModuleType, tmp_path: Path, layout: str) -> None:
    for folder in ("data", "specs", "net/results"):
        (tmp_path / folder).mkdir(parents=True)
    profile = Profile(layout=layout, project_dir=str(tmp_path), network="net")  # type: ignore[arg-type]
    rendered = Renderer(template(profile, name="a"), AROUND, name="a", path="").mapping()
    mounts_file = tmp_path / "mounts.json"
    mounts_file.write_bytes(mapping.to_bytes(rendered))
    binds = asked_for(launcher, mounts_file)["HostConfig"]["Binds"]
    expected = {
        "local": [(".", "/workspace/tao-experiments"), ("specs", "/workspace/tao-experiments/net/specs")],
        "host": [
            (".", "/workspace/tao-experiments"),
            ("data", "/data"),
            ("specs", "/specs"),
            ("net/results", "/results"),
        ],
    }
    assert sorted(binds) == sorted(f"{tmp_path / source}:{destination}:rw" for source, destination in expected[layout])


@pytest.mark.parametrize("shm_size", ["1", "1b", "64m", "1.5G", "16gb", " 16 g", "16Kb", "1bb", 0, 1024])
def test_sizes(launcher: ModuleType, tmp_path: Path, shm_size: str | int) -> None:
    check(launcher, Profile.model_validate({"layout": "custom", "docker": {"shm_size": shm_size}}), tmp_path)


@pytest.mark.parametrize("shm_size", ["1T", "1tb"])
def test_size_that_the_launcher_dies_of_is_refused_here(shm_size: str) -> None:
    """The Docker SDK that the launcher comes with has no unit beyond g (``BYTE_UNITS`` of docker 4.3.1)."""
    with pytest.raises(InvalidProfileError):
        parse(f"layout = 'custom'\ndocker.shm_size = '{shm_size}'\n".encode(), name="a", path="a.toml")


def test_the_launcher_does_refuse_another_key(launcher: ModuleType, tmp_path: Path) -> None:
    """So that the tests above mean something."""
    mounts_file = tmp_path / "mounts.json"
    mounts_file.write_text('{"Mounts": [], "Comment": ""}')
    with pytest.raises(KeyError):
        asked_for(launcher, mounts_file)
