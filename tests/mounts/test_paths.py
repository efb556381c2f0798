"""Translation between host and container paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.mounts import paths
from taoprofiles.mounts.paths import container_paths, follow_links, host_paths

MOUNTS = {"/home/ana/p": "/workspace", "/big/data": "/workspace/data", "/home/ana/out": "/results"}


@pytest.mark.parametrize(
    ("place", "expected"),
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
def test_host_paths(place: str, expected: list[str]) -> None:
    assert host_paths([place], MOUNTS) == expected


def test_host_path_of_a_root_mount() -> None:
    assert host_paths(["/x/y"], {"/home/ana": "/"}) == ["/home/ana/x/y"]
    assert host_paths([], MOUNTS) == []


@pytest.mark.parametrize(
    ("path", "expected"),
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
def test_container_paths(path: str, expected: list[str]) -> None:
    assert container_paths(path, MOUNTS) == expected


def test_a_folder_below_another_that_is_mounted_is_in_two_places() -> None:
    both = {"/nowhere/p": "/workspace", "/nowhere/p/specs": "/specs"}
    assert container_paths("/nowhere/p/specs/a", both) == ["/specs/a", "/workspace/specs/a"]
    both = {"/nowhere/p": "/workspace", "/nowhere/p/specs": "/workspace/specs"}
    assert container_paths("/nowhere/p/specs/a", both) == ["/workspace/specs/a"]


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
    assert follow_links(place, MOUNTS, LINKS.get) == leads


def test_thousands_of_mounts_are_not_compared_with_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """They took 29 s."""
    mounts = {f"/h/{number}": f"/c/{number}/results" for number in range(10_000)}
    monkeypatch.setattr(paths, "is_inside", lambda *_: pytest.fail("compared"))
    resolver = paths.PathResolver(mounts)
    assert resolver.resolve("/c/7/results/x").kind == "missing"
    assert resolver.resolve("/h/7/x") == ("host", "/h/7/x", "/c/7/results/x", "/h/7/x")
    assert host_paths([f"/c/{number}/results/x" for number in range(10_000)], mounts) == [f"{s}/x" for s in mounts]
