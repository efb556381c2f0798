"""What a switch is for: the container that the unmodified launcher starts next has the profile's mounts and options.

Every expectation is written out here from the project's paths; nothing of taoprofiles computes it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.engine import Launch, TrainingHome, host_mounts, local_mounts, new_project

pytestmark = pytest.mark.engine

GIGABYTE = 1 << 30
ME = f"{os.getuid()}:{os.getgid()}"
NOTEBOOK_LIMITS = {"memlock": (-1, -1), "stack": (67108864, 67108864)}


def got(launch: Launch) -> dict:
    """Return what the engine says the container has, in the same form as ``wanted``."""
    container = launch.inspect()
    host = container["HostConfig"]
    mounts = {mount["Source"]: mount["Destination"] for mount in container["Mounts"] if mount["Type"] == "bind"}
    assert len(mounts) == len(container["Mounts"]) and all(mount["RW"] for mount in container["Mounts"]), container[
        "Mounts"
    ]
    return {
        "image": container["Config"]["Image"],
        "binds": sorted(host["Binds"] or []),
        "mounts": mounts,
        "user": container["Config"]["User"],
        "shm": host["ShmSize"],
        "ulimits": {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"] or []},
        "running": container["State"]["Running"],
    }


def wanted(launch: Launch, task: str, mounts: dict[Path, str], **options: object) -> dict:
    """What ``taoprof new`` gives a container, with the options that differ."""
    return {
        "image": launch.engine.images[task],
        "binds": sorted(f"{source}:{destination}:rw" for source, destination in mounts.items()),
        "mounts": {str(source): destination for source, destination in mounts.items()},
        "user": ME,
        "shm": 16 * GIGABYTE,
        "ulimits": NOTEBOOK_LIMITS,
        "running": True,
        **options,
    }


def env(launch: Launch) -> list[str]:
    return launch.inspect()["Config"]["Env"]


def mark(mounts: dict[Path, str], text: str) -> None:
    """Put a file into every source."""
    for number, source in enumerate(mounts):
        (source / f"mark-{number}").write_text(f"{text} {number}")


def assert_marked(launch: Launch, mounts: dict[Path, str], text: str) -> None:
    for number, destination in enumerate(mounts.values()):
        assert launch.sees(f"{destination}/mark-{number}") == f"{text} {number}"


def test_the_next_container_has_the_profile_and_after_a_switch_the_other(training_home: TrainingHome):
    """Although the first training still runs, which is left alone: refused, and done with its exact id."""
    home = training_home
    kitti, city = new_project(home, "detectnet_v2", "tao/kitti"), new_project(home, "segformer", "tao/city")
    home.run("set", "detectnet_v2", "container.env.CUDA_DEVICE_ORDER=PCI_BUS_ID", check=True)
    home.run(
        "set", "segformer", "docker.shm_size=64G", "docker.ulimits.nofile=4096", "docker.user=1234:567", check=True
    )

    home.run("use", "detectnet_v2", "--mkdir", check=True)
    mark(local_mounts(kitti), "kitti")
    first = home.train("detectnet_v2")
    assert got(first) == wanted(first, "detectnet_v2", local_mounts(kitti))
    assert {"CUDA_DEVICE_ORDER=PCI_BUS_ID", "TAO_CLIENT_TYPE=launcher"} <= set(env(first))
    assert "\nCUDA_DEVICE_ORDER=PCI_BUS_ID\n" in first.log_text(), "the task itself has it, too"
    assert f"detectnet_v2 train: training as {ME}\n" in first.log_text()
    assert_marked(first, local_mounts(kitti), "kitti")
    process = first.inspect()["State"]["Pid"]

    assert home.run("use", "segformer", "--mkdir").returncode == 5
    home.run("use", "segformer", "--mkdir", "--release", f"p{first.process.pid}", "--yes", check=True)
    mark(host_mounts(city), "city")
    second = home.train("segformer")
    ulimits = {**NOTEBOOK_LIMITS, "nofile": (4096, 4096)}
    options = {"shm": 64 * GIGABYTE, "ulimits": ulimits, "user": "1234:567"}
    assert got(second) == wanted(second, "segformer", host_mounts(city), **options)
    assert not [value for value in env(second) if value.startswith("CUDA_DEVICE_ORDER")]
    assert "segformer train: training as 1234:567\n" in second.log_text()
    assert_marked(second, host_mounts(city), "city")

    assert got(first) == wanted(first, "detectnet_v2", local_mounts(kitti))
    assert first.container != second.container
    assert first.inspect()["State"]["Pid"] == process, "it was not restarted"
    assert_marked(first, local_mounts(kitti), "kitti")
    assert first.process.poll() is None


def test_a_notebooks_mapping_saved_as_a_profile_comes_back_whole(training_home: TrainingHome):
    home = training_home
    project = home.root / "notebook project"
    mounts = {
        project: "/workspace/tao-experiments",
        project / "data": "/data",
        project / "pose $x/specs": "/workspace/tao-experiments/specs",
    }
    for folder in mounts:
        folder.mkdir(parents=True, exist_ok=True)
    mapping = {
        "Mounts": [{"source": str(source), "destination": place} for source, place in mounts.items()],
        "Envs": [{"variable": "OMP_NUM_THREADS", "value": 1}, {"variable": "PRICE", "value": "$5 ${x}"}],
        "DockerOptions": {
            "shm_size": "2G",
            "ulimits": {"memlock": -1, "stack": 67108864},
            "user": "1000:1000",
            "network": "host",
            "tty": False,
        },
    }
    with home.mapping_file.open("w") as file:
        json.dump(mapping, file, indent=4)
    theirs = home.train("segformer")
    expected = wanted(theirs, "segformer", mounts, user="1000:1000", shm=2 * GIGABYTE)
    assert got(theirs) == expected

    home.run("import", "--name", "x", check=True)
    theirs_as_seen, theirs_env = theirs.inspect(), env(theirs)
    theirs.end()
    new_project(home, "detectnet_v2", "tao/kitti")
    home.run("use", "detectnet_v2", "--mkdir", check=True)
    assert home.mapping() != mapping
    home.run("use", "x", check=True)
    ours = home.train("segformer")
    assert got(ours) == expected
    assert {"OMP_NUM_THREADS=1", "PRICE=$5 ${x}"} <= set(env(ours))
    assert sorted(env(ours)) == sorted(theirs_env)
    assert ours.inspect()["HostConfig"] == theirs_as_seen["HostConfig"]


def test_odd_mounts_written_by_hand(training_home: TrainingHome):
    home = training_home
    real = home.root / "disk/große Daten"
    real.mkdir(parents=True)
    (home.root / "link").symlink_to(real)
    (home.root / "one.txt").write_text("one file")
    home.profile(
        "odd",
        """\
        schema = 1
        layout = "custom"
        [variables]
        BASE = "~/a $$ b"
        WHERE = "/in side/${LEAF}"
        LEAF = "ünï"
        [[mounts]]
        source = "${BASE}"
        destination = "${WHERE}"
        [[mounts]]
        source = "${BASE}/in/in"
        destination = "${WHERE}/nested/twice"
        [[mounts]]
        source = "~/link"
        destination = "/da$$ta"
        [[mounts]]
        source = "~/one.txt"
        destination = "/one.txt"
        [[mounts]]
        source = "${env:SHARED}"
        destination = "${WHERE}/nested"
        [container.env]
        SPACED = "a b  c"
        NOT_ASCII = "${WHERE} → $$HOME"
        EMPTY = ""
        [docker]
        tty = false
        shm_size = 123456789
        """,
    )
    shared = home.root / "shared"
    home.run("use", "odd", "--mkdir", environ={"SHARED": str(shared)}, check=True)
    base, where = home.root / "a $ b", "/in side/ünï"
    folders = {base: where, base / "in/in": f"{where}/nested/twice", real: "/da$ta", shared: f"{where}/nested"}
    mark(folders, "odd")
    launch = home.train("detectnet_v2")
    mounts = {**folders, home.root / "one.txt": "/one.txt"}
    assert got(launch) == wanted(launch, "detectnet_v2", mounts, user="", shm=123456789, ulimits={})
    assert {"SPACED=a b  c", f"NOT_ASCII={where} → $HOME", "EMPTY="} <= set(env(launch))
    assert_marked(launch, folders, "odd")
    assert launch.sees("/one.txt") == "one file"
