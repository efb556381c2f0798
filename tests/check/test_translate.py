"""``taoprof path``: a real home with real folders and links, there and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.home import Home


@pytest.fixture
def kitti(home: Home) -> Path:
    """A project with NVIDIA's mounts of a TensorFlow network: the specs lie over a folder of the project."""
    project = home.root / "tao/kitti"
    for folder in ("specs", "data", "detectnet_v2/specs"):
        (project / folder).mkdir(parents=True)
    (project / "specs/train.txt").write_text("")
    home.profile(
        "kitti",
        'layout = "custom"\nmounts = [\n'
        f'  {{ source = "{project}", destination = "/workspace/tao-experiments" }},\n'
        f'  {{ source = "{project}/specs", destination = "/workspace/tao-experiments/detectnet_v2/specs" }},\n'
        "]\n",
    )
    home.run("use", "kitti", check=True)
    return project


INSIDE = "/workspace/tao-experiments"


def translated(home: Home, *words: str, **options: object) -> tuple[int, str, str]:
    done = home.run("path", *words, **options)
    return done.returncode, done.stdout, done.stderr


def test_either_way(home: Home, kitti: Path) -> None:
    specs = f"{INSIDE}/detectnet_v2/specs"
    assert translated(home, f"{kitti}/data/a.png") == (0, f"{INSIDE}/data/a.png\n", "")
    assert translated(home, f"{INSIDE}/data/a.png") == (0, f"{kitti}/data/a.png\n", "")
    assert translated(home, f"{specs}/train.txt") == (0, f"{kitti}/specs/train.txt\n", "")
    also = f"taoprof: also visible as {INSIDE}/specs/train.txt\n"
    ways = {"~/tao/kitti/specs/train.txt": home.root, "specs/train.txt": kitti, "train.txt": kitti / "specs"}
    for written, where in ways.items():
        assert translated(home, written, cwd=where) == (0, f"{specs}/train.txt\n", also)


def test_variables_are_expanded_and_an_empty_path_is_refused(home: Home, kitti: Path) -> None:
    with (home.profiles / "kitti.toml").open("a") as file:
        file.write(f'[variables]\nSPECS_DIR = "{INSIDE}/detectnet_v2/specs"\nMY_TOKEN = "{kitti}/data"\n')
    for name in ([], ["kitti"]):
        for written in ("$SPECS_DIR/train.txt", "${SPECS_DIR}/train.txt"):
            assert translated(home, written, *name)[:2] == (0, f"{kitti}/specs/train.txt\n")
        assert translated(home, "$HOME/tao/kitti/data", *name)[:2] == (0, f"{INSIDE}/data\n")
        for written in ("$NOSUCH/train.txt", "$MY_TOKEN"):
            status, out, err = translated(home, written, *name)
            assert (status, out) == (2, "") and f"'{written}' refers to a variable that is not set" in err
    (kitti / "$NOSUCH").mkdir()
    assert translated(home, f"{kitti}/$NOSUCH")[:2] == (0, f"{INSIDE}/$NOSUCH\n"), "it is there"
    for words in (["path", ""], ["history", ""], ["import", ""], ["new", "x", "--project-dir", ""]):
        done = home.run(*words)
        assert (done.returncode, done.stdout) == (2, "") and "is a variable empty or not set?" in done.stderr, words


def test_what_another_mount_lies_over_is_not_in_the_container(home: Home, kitti: Path) -> None:
    status, out, err = translated(home, f"{kitti}/detectnet_v2/specs/x")
    assert (status, out) == (4, "")
    assert "cannot be seen in the container: another mount covers it" in err


def test_no_mount_has_it(home: Home, kitti: Path) -> None:
    status, out, err = translated(home, "/elsewhere/x")
    assert (status, out) == (4, "")
    assert err == (
        "taoprof: error: '/elsewhere/x' is in no mount\n"
        "hint: mount that folder, or use a path below one of the mounted destinations: "
        f"{INSIDE}, {INSIDE}/detectnet_v2/specs\n"
    )


def test_a_link_leads_where_it_leads_inside(home: Home, kitti: Path) -> None:
    raid = home.root / "raid"
    raid.mkdir()
    (kitti / "images").symlink_to(raid)
    (kitti / "near").symlink_to("data")
    status, out, err = translated(home, f"{INSIDE}/images/a")
    assert (status, out) == (4, "")
    assert f"'{INSIDE}/images/a' is a link to '{raid}/a', which is in no mount" in err
    status, out, err = translated(home, f"{kitti}/images/a")
    assert (status, out) == (4, "")
    assert f"'{kitti}/images/a' is a link to '{raid}/a', which is in no mount" in err
    assert translated(home, f"{INSIDE}/near/a") == (0, f"{kitti}/near/a\n", "")
    assert translated(home, f"{kitti}/near/a") == (0, f"{INSIDE}/data/a\n", "")


def test_a_path_of_both_sides(home: Home) -> None:
    data = home.root / "data"
    (data / "kitti").mkdir(parents=True)
    mounts = [(data, data), (home.root / "in", f"{data}/kitti")]
    listed = ", ".join(f'{{ source = "{source}", destination = "{place}" }}' for source, place in mounts)
    (home.root / "in").mkdir()
    home.profile("both", f'layout = "custom"\nmounts = [{listed}]\n')
    assert translated(home, f"{data}/x", "both") == (0, f"{data}/x\n", ""), "an identity"
    namesake = f"taoprof: '{data}/kitti' also exists on this host, but it is not mounted\n"
    assert translated(home, f"{data}/kitti", "both") == (0, f"{home.root}/in\n", namesake)
    nested = home.root / "a"
    (nested / "b").mkdir(parents=True)
    home.profile("nested", f'layout = "custom"\nmounts = [{{ source = "{nested}/b", destination = "{nested}" }}]\n')
    note = f"taoprof: read as a host path; as a container path, '{nested}/b/x' would be '{nested}/b/b/x' on this host\n"
    assert translated(home, f"{nested}/b/x", "nested") == (0, f"{nested}/x\n", note)
    (nested / "b/b").mkdir()
    (nested / "b/b/x").touch()
    note = f"taoprof: read as a container path; as a host path, '{nested}/b/x' would be '{nested}/x' in the container\n"
    assert translated(home, f"{nested}/b/x", "nested") == (0, f"{nested}/b/b/x\n", note), "this one is there"


def test_the_file_that_tao_would_read_here(home: Home, kitti: Path) -> None:
    other = home.root / "other.json"
    other.write_text(json.dumps({"Mounts": [{"source": str(kitti), "destination": "/other"}]}))
    assert translated(home, str(kitti), environ={"LAUNCHER_MOUNTS": "~/other.json"}) == (0, "/other\n", "")
    other.write_text("{")
    assert translated(home, str(kitti), environ={"LAUNCHER_MOUNTS": str(other)})[0] == 3
    other.unlink()
    assert translated(home, str(kitti), environ={"LAUNCHER_MOUNTS": str(other)})[0] == 4


def test_a_path_that_is_no_text(home: Home, kitti: Path) -> None:
    done = home.run("path", os.fsdecode(b"tao/kitti/\xff.png"), errors="surrogateescape")
    assert done.returncode == 0
    assert done.stdout == os.fsdecode(b"/workspace/tao-experiments/\xff.png\n")
