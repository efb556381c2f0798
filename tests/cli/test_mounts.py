"""Mounts that the launcher or Docker would drop, move or refuse: said before anything is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.home import Home


def custom(*mounts: tuple[object, str], options: str = "") -> str:
    lines = ["schema = 1", 'layout = "custom"']
    lines += [f'[[mounts]]\nsource = "{source}"\ndestination = "{destination}"' for source, destination in mounts]
    return "\n".join([*lines, options]) + "\n"


def refused(home: Home, text: str, *told: str) -> None:
    home.profile("x", text)
    before = home.tree()
    done = home.run("use", "x", "--mkdir")
    assert done.returncode == 3, done
    for part in told:
        assert part in done.stderr
    assert home.tree() == before


def test_one_source_by_two_names_also_where_it_is_not_there_yet(home: Home) -> None:
    (home.root / "real").mkdir()
    (home.root / "link").symlink_to("real")
    text = custom((home.root / "real/new", "/a"), (home.root / "link/new", "/b"))
    refused(home, text, "mounts[0].source", "keeps only one mount")


def test_a_destination_that_is_a_symlink_on_this_host(home: Home, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").symlink_to("elsewhere")
    refused(home, custom((home.root, str(tmp_path / "data"))), f"is '{tmp_path / 'elsewhere'}' on this host")


@pytest.mark.parametrize(("source", "destination"), [("~/a:b", "/a"), ("~/a", "/a:ro"), ("~/a", "/"), ("~/a", "/x/..")])
def test_what_docker_cannot_mount(home: Home, source: str, destination: str) -> None:
    refused(home, custom((source, destination)), "mounts[0].")


@pytest.mark.parametrize("size", ["16GiB", "lots", "", "G", "-1g"])
def test_sizes_that_the_launcher_dies_of(home: Home, size: str) -> None:
    refused(home, custom((home.root, "/a"), options=f'[docker]\nshm_size = "{size}"'), "docker.shm_size", "16G")
