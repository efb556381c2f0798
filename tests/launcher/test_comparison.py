"""Comparison of a container with its mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taoprofiles.launcher import simulation
from taoprofiles.system import engine

NONE = "none of the profile's folders is mounted: the launcher read another mounts file, or none"
IN_CI = "CI_PROJECT_DIR is set: the launcher ignores user, limits, ports and network; unset it"


def differences(wanted: dict[str, Any], inspected: dict[str, Any], *, ci: bool = False) -> list[str]:
    """Compare with the engine's answer, as it comes."""
    return simulation.differences(wanted, engine.parse_container(inspected), {"CI_PROJECT_DIR": ""} if ci else {})


def wanted(*mounts: str, **more: Any) -> dict[str, Any]:
    """Return a mapping; ``mounts`` are SOURCE:DESTINATION."""
    pairs = (mount.split(":") for mount in mounts)
    return {"Mounts": [{"source": source, "destination": path} for source, path in pairs], **more}


def inspected(*mounts: str, **more: Any) -> dict[str, Any]:
    pairs = (mount.split(":") for mount in mounts)
    binds = [{"Type": "bind", "Source": source, "Destination": path} for source, path in pairs]
    return {"Mounts": [*binds, {"Type": "volume", "Source": "/v", "Destination": "/w"}], **more}


def test_nothing_differs() -> None:
    mapping = wanted(
        *("/data:/d", "/out:/o/"),
        Envs=[{"variable": "A", "value": "1"}, {"variable": "B", "value": ""}],
        DockerOptions={"user": "1000:1000", "shm_size": "16G", "ulimits": {"memlock": -1, "stack": 67108864}},
    )
    limits = [{"Name": "memlock", "Soft": -1, "Hard": -1}, {"Name": "stack", "Soft": 67108864}]
    got = inspected(
        *("/data:/d", "/out:/o"),
        Config={"Env": ["PATH=/bin", "A=1", "B="], "User": "1000:1000"},
        HostConfig={"ShmSize": 16 * 1024**3, "Ulimits": limits},
    )
    assert differences(mapping, got, ci=True) == []


@pytest.mark.parametrize(
    ("wanted_mounts", "got", "reported"),
    [
        ("{link}:/d", "{real}:/d", None),
        ("/data:/d /out:/o", "", NONE),
        ("/data:/d /out:/o", "/other:/d", NONE),
        ("", "", None),
        (
            "/data:{link} /x:/x", "/data:{real} /x:/x",
            "'/data' is not mounted on '{link}': it is on '{real}', because the destination is a link on this host",
        ),
        (
            "/data:/d /data:/e", "/data:/e",
            "'/data' is not mounted on '/d': the launcher keeps only the last mount of a folder",
        ),
        ("/data:/d /out:/o", "/other:/d /out:/o", "'/data' is not mounted on '/d': '/other' is mounted there"),
        ("/data:/d", "/data:/d /cache:/c", "'/cache' is mounted on '/c', which the profile does not ask for"),
    ],
)  # fmt: skip
def test_mounts(tmp_path: Path, wanted_mounts: str, got: str, reported: str | None) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    places = {"real": tmp_path / "real", "link": tmp_path / "link"}
    mounts, binds = (words.format(**places).split() for words in (wanted_mounts, got))
    assert differences(wanted(*mounts), inspected(*binds)) == ([reported.format(**places)] if reported else [])


@pytest.mark.parametrize(
    ("options", "config", "host", "reported"),
    [
        ({"user": "1000"}, {"User": ""}, {}, "the user is 'root', not '1000'"),
        ({"user": "1000"}, {"User": "0"}, {}, "the user is '0', not '1000'"),
        ({"shm_size": "1g"}, {}, {"ShmSize": 67108864}, "the shared memory has 67108864 bytes, not 1g"),
        ({"ulimits": {"memlock": -1}}, {}, {}, "the limit memlock is None, not -1"),
        ({"ulimits": {"x": -1}}, {}, {"Ulimits": [{"Name": "x", "Soft": 5}]}, "the limit x is 5, not -1"),
    ],
)
def test_options(options: dict[str, Any], config: dict[str, Any], host: dict[str, Any], reported: str) -> None:
    mapping, got = wanted(DockerOptions=options), inspected(Config=config, HostConfig=host)
    assert differences(mapping, got) == [reported]
    assert differences(mapping, got, ci=True) == [reported, IN_CI]


@pytest.mark.parametrize(
    ("size", "amount"),
    [("16G", 16 << 30), ("16g", 16 << 30), ("64m", 64 << 20), ("64M", 64 << 20), ("512k", 512 << 10), ("100b", 100),
     ("100", 100), (100, 100), ("1.5g", 3 << 29), (" 2g", 2 << 30), ("2gb", 2 << 30)],
)  # fmt: skip
def test_shared_memory(size: str | int, amount: int) -> None:
    mapping = wanted(DockerOptions={"shm_size": size})
    assert differences(mapping, inspected(HostConfig={"ShmSize": amount})) == []


def test_the_value_of_a_variable_is_masked() -> None:
    mapping = wanted(Envs=[{"variable": "NGC_API_KEY", "value": "s3cret"}])
    for environ in (["NGC_API_KEY=other"], None):
        reported = differences(mapping, inspected(Config={"Env": environ}))
        assert reported == ["the variable NGC_API_KEY differs from the mapping"]


@pytest.mark.parametrize("got", [{}, {"Mounts": None}, {"Config": None, "HostConfig": None}])
def test_an_answer_with_little_in_it(got: dict[str, Any]) -> None:
    reported = differences(wanted("/a:/b", Envs=[], DockerOptions={"ulimits": {"x": 1}}), got)
    assert len(reported) == 2, "no folder is mounted, and the limit is not set"
