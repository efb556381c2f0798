"""Comparison of a container with its mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taoprofiles.launcher import simulation
from taoprofiles.system import engine


def differences(wanted: dict[str, Any], inspected: dict[str, Any], environ: dict[str, str]) -> list[str]:
    """Compare with the engine's answer, as it comes."""
    return simulation.differences(wanted, engine.parse_container(inspected), environ)


def wanted(*mounts: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"Mounts": [{"source": source, "destination": place} for source, place in mounts], **more}


def inspected(*mounts: tuple[str, str], **more: Any) -> dict[str, Any]:
    binds = [{"Type": "bind", "Source": source, "Destination": place} for source, place in mounts]
    return {"Mounts": [*binds, {"Type": "volume", "Source": "/v", "Destination": "/w"}], **more}


def test_nothing_differs() -> None:
    asked = wanted(
        *(("/data", "/d"), ("/out", "/o/")),
        Envs=[{"variable": "A", "value": "1"}, {"variable": "B", "value": ""}],
        DockerOptions={"user": "1000:1000", "shm_size": "16G", "ulimits": {"memlock": -1, "stack": 67108864}},
    )
    got = inspected(
        *(("/data", "/d"), ("/out", "/o")),
        Config={"Env": ["PATH=/bin", "A=1", "B="], "User": "1000:1000"},
        HostConfig={
            "ShmSize": 16 * 1024**3,
            "Ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}, {"Name": "stack", "Soft": 67108864}],
        },
    )
    assert differences(asked, got, {}) == []


def test_a_source_that_is_a_symlink_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert differences(wanted((f"{tmp_path}/link", "/d")), inspected((f"{tmp_path}/real", "/d")), {}) == []


def test_none_of_the_mounts() -> None:
    reason = "none of the profile's folders is mounted: the launcher read another mounts file, or none"
    asked = wanted(("/data", "/d"), ("/out", "/o"))
    assert differences(asked, inspected(), {}) == [reason]
    assert differences(asked, inspected(("/other", "/d")), {}) == [reason]
    assert differences(wanted(), inspected(), {}) == []


def test_a_place_that_is_a_symlink_on_this_host(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    asked, got = (
        wanted(("/data", f"{tmp_path}/link"), ("/x", "/x")),
        inspected(("/data", f"{tmp_path}/real"), ("/x", "/x")),
    )
    reported = differences(asked, got, {})
    assert reported[0] == (
        f"'/data' is not mounted on '{tmp_path}/link': it is on '{tmp_path}/real', "
        "because the destination is a link on this host"
    )


def test_one_folder_on_two_places() -> None:
    reported = differences(wanted(("/data", "/d"), ("/data", "/e")), inspected(("/data", "/e")), {})
    assert reported == ["'/data' is not mounted on '/d': the launcher keeps only the last mount of a folder"]


def test_something_else_is_there() -> None:
    reported = differences(wanted(("/data", "/d"), ("/out", "/o")), inspected(("/other", "/d"), ("/out", "/o")), {})
    assert reported == ["'/data' is not mounted on '/d': '/other' is mounted there"]


def test_one_more_than_asked_for() -> None:
    reported = differences(wanted(("/data", "/d")), inspected(("/data", "/d"), ("/cache", "/c")), {})
    assert reported == ["'/cache' is mounted on '/c', which the profile does not ask for"]


@pytest.mark.parametrize(
    ("options", "config", "host", "reported"),
    [
        ({"user": "1000"}, {"User": ""}, {}, "the user is 'root', not '1000'"),
        ({"user": "1000"}, {"User": "0"}, {}, "the user is '0', not '1000'"),
        ({"shm_size": "1g"}, {}, {"ShmSize": 67108864}, "the shared memory has 67108864 bytes, not 1g"),
        ({"ulimits": {"memlock": -1}}, {}, {}, "the limit memlock is None, not -1"),
        (
            {"ulimits": {"memlock": -1}},
            {},
            {"Ulimits": [{"Name": "memlock", "Soft": 5}]},
            "the limit memlock is 5, not -1",
        ),
    ],
)
def test_options(options: dict[str, Any], config: dict[str, Any], host: dict[str, Any], reported: str) -> None:
    asked, got = wanted(DockerOptions=options), inspected(Config=config, HostConfig=host)
    assert differences(asked, got, {}) == [reported]
    assert differences(asked, got, {"CI_PROJECT_DIR": ""}) == [
        reported,
        "CI_PROJECT_DIR is set: the launcher ignores user, limits, ports and network; unset it",
    ]


@pytest.mark.parametrize(
    ("size", "amount"),
    [("16G", 16 << 30), ("16g", 16 << 30), ("64m", 64 << 20), ("64M", 64 << 20), ("512k", 512 << 10), ("100b", 100),
     ("100", 100), (100, 100), ("1.5g", 3 << 29), (" 2g", 2 << 30), ("2gb", 2 << 30)],
)  # fmt: skip
def test_shared_memory(size: str | int, amount: int) -> None:
    asked = wanted(DockerOptions={"shm_size": size})
    assert differences(asked, inspected(HostConfig={"ShmSize": amount}), {}) == []


def test_the_value_of_a_variable_is_masked() -> None:
    asked = wanted(Envs=[{"variable": "NGC_API_KEY", "value": "s3cret"}])
    reported = differences(asked, inspected(Config={"Env": ["NGC_API_KEY=other"]}), {})
    assert reported == ["the variable NGC_API_KEY differs from the mapping"]
    assert differences(asked, inspected(Config={"Env": None}), {}) == reported


@pytest.mark.parametrize("got", [{}, {"Mounts": None}, {"Config": None, "HostConfig": None}])
def test_an_answer_with_little_in_it(got: dict[str, Any]) -> None:
    found = differences(wanted(("/a", "/b"), Envs=[], DockerOptions={"ulimits": {"x": 1}}), got, {})
    assert len(found) == 2, "no folder is mounted, and the limit is not set"
