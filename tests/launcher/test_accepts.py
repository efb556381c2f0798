"""Whatever profile is rendered, the launcher takes it, and asks Docker for just what the profile says.

The launcher is the simulated one, which test_differential.py compares with the real ones.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.errors import InvalidProfileError
from taoprofiles.launcher.behaviour import Host
from taoprofiles.launcher.simulation import Call, predict
from taoprofiles.mounts import mapping
from taoprofiles.profiles.model import Profile, parse, template, to_toml
from taoprofiles.profiles.rendering import Renderer
from tests.support.generated_profiles import AROUND, moderate, usable_profiles


def call_of(rendered: dict[str, Any]) -> Call:
    host = Host({"HOME": "/nowhere"}, "/", files={"/nowhere/.tao_mounts.json": mapping.to_bytes(rendered)})
    prediction = predict("6.26.3", host, None)
    assert prediction.refusals == []
    assert prediction.call is not None
    return prediction.call


def size(value: str | int) -> int:
    """Work out a size as Docker documents it."""
    if isinstance(value, int):
        return value
    text = value.strip().lower()
    text = text[:-1] if text[-2:-1].isalpha() else text
    number, unit = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "b")
    return int(float(number) * 1024 ** "bkmg".index(unit))


def check(profile: Profile) -> None:
    profile = parse(to_toml(profile).encode(), name="a", path="a.toml")
    rendered, docker = Renderer(template(profile, name="a"), AROUND, name="a", path="a.toml").mapping(), profile.docker
    call = call_of(rendered)
    assert call.volumes == {m["source"]: os.path.normpath(m["destination"]) for m in rendered["Mounts"]}
    assert len(profile.mounts or []) == len(call.volumes)
    assert call.environment == [
        *(f"{env['variable']}={env['value']}" for env in rendered.get("Envs", [])), "TAO_CLIENT_TYPE=launcher"
    ]  # fmt: skip
    assert [env["variable"] for env in rendered.get("Envs", [])] == list(profile.container.env)
    assert call.user == {None: None, "auto": "1000:1001"}.get(docker.user, docker.user)
    assert call.shm_size == (None if docker.shm_size is None else size(docker.shm_size))
    assert call.ulimits == (docker.ulimits or {})
    published = {
        port if "/" in port else f"{port}/tcp": [str(p) for p in (to if isinstance(to, list) else [to])]
        for port, to in (docker.ports or {}).items()
    }
    assert {port: [binding["HostPort"] for binding in bindings] for port, bindings in call.ports.items()} == published
    assert (call.privileged, call.network) == (bool(docker.privileged), docker.network)
    assert call.tty is (True if docker.tty is None else docker.tty)


@moderate(60)
@given(st.data())
def test_any_profile_whose_folders_are_there(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(data.draw(usable_profiles(Path(folder).resolve())))


@pytest.mark.parametrize("shm_size", ["1", "1b", "64m", "1.5G", "16gb", " 16 g", "16Kb", "1bb", 0, 1024])
def test_sizes(shm_size: str | int) -> None:
    check(Profile.model_validate({"layout": "custom", "docker": {"shm_size": shm_size}}))


@pytest.mark.parametrize("shm_size", ["1T", "1tb"])
def test_size_that_the_launcher_dies_of_is_refused_here(shm_size: str) -> None:
    """The Docker SDK that the launcher comes with has no unit beyond g (``BYTE_UNITS`` of docker 4.3.1)."""
    with pytest.raises(InvalidProfileError):
        parse(f"layout = 'custom'\ndocker.shm_size = '{shm_size}'\n".encode(), name="a", path="a.toml")
