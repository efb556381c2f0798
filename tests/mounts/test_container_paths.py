"""What a container got, against what was asked for; and which host folders a command writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.mounts import container_paths as proof
from taoprofiles.mounts.container_paths import container_path, container_paths, host_paths, resolve
from taoprofiles.system import engine_schema


def differences(wanted: dict[str, Any], seen: dict[str, Any], environ: dict[str, str]) -> list[str]:
    """Compare with the engine's answer, as it comes."""
    return proof.differences(wanted, engine_schema.container(seen), environ)


def wanted(*mounts: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"Mounts": [{"source": source, "destination": place} for source, place in mounts], **more}


def seen(*mounts: tuple[str, str], **more: Any) -> dict[str, Any]:
    binds = [{"Type": "bind", "Source": source, "Destination": place} for source, place in mounts]
    return {"Mounts": [*binds, {"Type": "volume", "Source": "/v", "Destination": "/w"}], **more}


def test_nothing_differs() -> None:
    asked = wanted(
        *(("/data", "/d"), ("/out", "/o/")),
        Envs=[{"variable": "A", "value": "1"}, {"variable": "B", "value": ""}],
        DockerOptions={"user": "1000:1000", "shm_size": "16G", "ulimits": {"memlock": -1, "stack": 67108864}},
    )
    got = seen(
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
    assert differences(wanted((f"{tmp_path}/link", "/d")), seen((f"{tmp_path}/real", "/d")), {}) == []


def test_none_of_the_mounts() -> None:
    reason = "none of the profile's folders is mounted: the launcher read another mounts file, or none"
    asked = wanted(("/data", "/d"), ("/out", "/o"))
    assert differences(asked, seen(), {}) == [reason]
    assert differences(asked, seen(("/other", "/d")), {}) == [reason]
    assert differences(wanted(), seen(), {}) == []


def test_a_place_that_is_a_symlink_on_this_host(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    asked, got = wanted(("/data", f"{tmp_path}/link"), ("/x", "/x")), seen(("/data", f"{tmp_path}/real"), ("/x", "/x"))
    told = differences(asked, got, {})
    assert told[0] == (
        f"'/data' is not on '{tmp_path}/link': it is on '{tmp_path}/real', where that name leads on this host"
    )


def test_one_folder_on_two_places() -> None:
    told = differences(wanted(("/data", "/d"), ("/data", "/e")), seen(("/data", "/e")), {})
    assert told == ["'/data' is not on '/d': the launcher keeps one mount of a folder, the last"]


def test_something_else_is_there() -> None:
    told = differences(wanted(("/data", "/d"), ("/out", "/o")), seen(("/other", "/d"), ("/out", "/o")), {})
    assert told == ["'/data' is not on '/d': '/other' is there"]


def test_one_more_than_asked_for() -> None:
    told = differences(wanted(("/data", "/d")), seen(("/data", "/d"), ("/cache", "/c")), {})
    assert told == ["'/cache' is on '/c', which the profile does not ask for"]


@pytest.mark.parametrize(
    ("options", "config", "host", "told"),
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
def test_options(options: dict[str, Any], config: dict[str, Any], host: dict[str, Any], told: str) -> None:
    asked, got = wanted(DockerOptions=options), seen(Config=config, HostConfig=host)
    assert differences(asked, got, {}) == [told]
    assert differences(asked, got, {"CI_PROJECT_DIR": ""}) == [
        told,
        "the launcher drops user, limits, ports and network where CI_PROJECT_DIR is set: unset it",
    ]


@pytest.mark.parametrize(
    ("size", "amount"),
    [("16G", 16 << 30), ("16g", 16 << 30), ("64m", 64 << 20), ("64M", 64 << 20), ("512k", 512 << 10), ("100b", 100),
     ("100", 100), (100, 100), ("1.5g", 3 << 29), (" 2g", 2 << 30), ("2gb", 2 << 30)],
)  # fmt: skip
def test_shared_memory(size: str | int, amount: int) -> None:
    asked = wanted(DockerOptions={"shm_size": size})
    assert differences(asked, seen(HostConfig={"ShmSize": amount}), {}) == []


def test_the_value_of_a_variable_is_not_told() -> None:
    asked = wanted(Envs=[{"variable": "NGC_API_KEY", "value": "s3cret"}])
    told = differences(asked, seen(Config={"Env": ["NGC_API_KEY=other"]}), {})
    assert told == ["the variable NGC_API_KEY is not as asked for"]
    assert differences(asked, seen(Config={"Env": None}), {}) == told


@pytest.mark.parametrize("got", [{}, {"Mounts": None}, {"Config": None, "HostConfig": None}])
def test_an_answer_with_little_in_it(got: dict[str, Any]) -> None:
    differences(wanted(("/a", "/b"), Envs=[], DockerOptions={"ulimits": {"x": 1}}), got, {})


VARIABLES = {"RESULTS_DIR": "/results", "USER_EXPERIMENT_DIR": "/exp", "X": "/x"}


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ("tao model unet train -r /r", ["/r"]),
        ("tao model unet train --results_dir /r", ["/r"]),
        ("tao model unet train --results-dir /r", ["/r"]),
        ("tao model unet train --results_dir=/r", ["/r"]),
        ("tao model segformer train -e /s results_dir=/r", ["/r"]),
        ("tao model segformer train train.results_dir=/r evaluate.results_dir=/q", ["/r", "/q"]),
        ("tao model unet train -r $X/y", ["/x/y"]),
        ("tao model unet train -r ${X}/y", ["/x/y"]),
        ("tao model unet train -r $NONE/y", ["$NONE/y"]),
        ("tao model unet train", ["/results"]),
        ("tao model unet export -m x", ["/results"]),
        ("tao model unet evaluate -m x", []),
        ("tao model unet inference -m x", []),
        ("tao model unet train -r", ["/results"]),
        ("jupyter notebook", []),
        ("", []),
    ],
)
def test_where_a_command_writes(words: str, places: list[str]) -> None:
    assert container_path(words.split(), VARIABLES) == places


def test_without_a_results_folder_in_the_layout() -> None:
    assert container_path(["tao", "unet", "train"], {"USER_EXPERIMENT_DIR": "/exp"}) == ["/exp"]
    assert container_path(["tao", "unet", "train"], {}) == []


MOUNTS = {"/home/ana/p": "/workspace", "/big/data": "/workspace/data", "/home/ana/out": "/results"}


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("/results", ["/home/ana/out"]),
        ("/results/", ["/home/ana/out"]),
        ("/results/a/b", ["/home/ana/out/a/b"]),
        ("/results/../workspace/x", ["/home/ana/p/x"]),
        ("/workspace/data/x", ["/big/data/x"]),
        ("/workspace/database", ["/home/ana/p/database"]),
        ("/elsewhere", []),
        ("/", []),
        ("relative", []),
        ("$NONE/y", []),
    ],
)
def test_host_paths(place: str, found: list[str]) -> None:
    assert host_paths([place], MOUNTS) == found


def test_host_path_of_a_root_mount() -> None:
    assert host_paths(["/x/y"], {"/home/ana": "/"}) == ["/home/ana/x/y"]
    assert host_paths([], MOUNTS) == []


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/home/ana/out/x", ["/results/x"]),
        ("/home/ana/p", ["/workspace"]),
        ("/big/data/x", ["/workspace/data/x"]),
        ("/home/ana/p/database", ["/workspace/database"]),
        ("/home/ana/p/data", []),  # /big/data lies over it
        ("/home/ana/p/data/x", []),
        ("/home/ana", []),
        ("/home/ana/pp", []),
        ("/", []),
    ],
)
def test_container_paths(path: str, found: list[str]) -> None:
    assert container_paths(path, MOUNTS) == found


def test_a_folder_below_another_that_is_mounted_is_in_two_places() -> None:
    both = {"/nowhere/p": "/workspace", "/nowhere/p/specs": "/specs"}
    assert container_paths("/nowhere/p/specs/a", both) == ["/specs/a", "/workspace/specs/a"]


parts = st.sampled_from(["a", "b", "ab"])
folders = st.lists(parts, min_size=1, max_size=3).map(lambda ones: "/" + "/".join(ones))


@given(st.dictionaries(folders.map("/nowhere".__add__), folders, max_size=4), folders.map("/nowhere".__add__), folders)
def test_there_and_back(mounts: dict[str, str], path: str, place: str) -> None:
    for inside in container_paths(path, mounts):
        assert path in host_paths([inside], mounts)
    for behind in host_paths([place], mounts):
        assert place in container_paths(behind, mounts)


LINKS = {
    "/home/ana/p/images": "/mnt/raid/images",
    "/home/ana/p/near": "specs",
    "/home/ana/p/up": "../../results/a",
    "/home/ana/p/there": "/workspace/data/x",
    "/home/ana/p/loop": "loop",
    "/big/data/x": "/results/",
}


@pytest.mark.parametrize(
    ("place", "leads"),
    [
        ("/workspace/a", ("/workspace/a", "/home/ana/p/a")),
        ("/workspace/images/a.png", ("/mnt/raid/images/a.png", "")),
        ("/workspace/near/t.yaml", ("/workspace/specs/t.yaml", "/home/ana/p/specs/t.yaml")),
        ("/workspace/up/b", ("/results/a/b", "/home/ana/out/a/b")),
        ("/workspace/there/b", ("/results/b", "/home/ana/out/b")),
        ("/workspace/near/../b", ("/workspace/b", "/home/ana/p/b")),
        ("/workspace/loop/b", ("/workspace/loop/b", "/home/ana/p/loop/b")),
        ("/usr/bin", ("/usr/bin", "")),
    ],
)
def test_links_are_followed_inside(place: str, leads: tuple[str, str]) -> None:
    assert resolve(place, MOUNTS, LINKS.get) == leads
