"""The doctor beside real engines: what it finds is so, and what it advises makes the real launcher train."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.doctor import docker
from tests.support.commands import do_as_them
from tests.support.engine import SOCKET, Daemon, TrainingHome
from tests.support.home import require

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def other(engine: object) -> Iterator[str]:
    """The address of a second engine, which has no NVIDIA runtime."""
    folder = Path("/run/taoprofiles-tests")
    folder.mkdir(exist_ok=True)
    path = str(folder / "other.sock")
    daemon = Daemon(path, has_hook=False)
    try:
        require(daemon.started(), f"a second dockerd does not start: {daemon.tail()}")
        yield f"unix://{path}"
    finally:
        daemon.end()
        folder.rmdir()


@pytest.fixture
def well(training_home: TrainingHome) -> TrainingHome:
    """A home with a profile in force, and a driver that answers as NVIDIA's does."""
    home = training_home
    home.profile("kitti")
    text = (home.profiles / "kitti.toml").read_text()
    (home.profiles / "kitti.toml").write_text(f"{text}[docker]\ntty = false\n")
    home.run("use", "kitti", check=True)
    programs = home.root / "bin"
    programs.mkdir()
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 550.54.15'\n")
    (programs / "nvidia-smi").chmod(0o755)
    home.environ["PATH"] = f"{programs}:{Path(home.tao).parent}:{home.environ['PATH']}"
    return home


def findings(home: TrainingHome, **environ: str) -> dict[str, dict]:
    result = home.run("doctor", "--json", environ=environ)
    return {finding["id"]: finding for finding in json.loads(result.stdout)["data"]["findings"]}


def mended(home: TrainingHome, hint: str) -> None:
    home.engine.docker("version")  # the engine of the tests itself is not touched
    subprocess.run(["bash", "-c", hint], env=home.environ, check=True, capture_output=True, timeout=60)


def test_all_is_well_and_fits_on_a_screen(well: TrainingHome) -> None:
    result = well.run("doctor")
    assert result.returncode == 0, result.stdout
    assert len(result.stdout.splitlines()) <= 24
    assert "logged in to nvcr.io" in result.stdout
    assert "1 x NVIDIA A100-SXM4-40GB, driver 550.54.15" in result.stdout
    assert f"at unix://{SOCKET} (also used by the docker CLI)" in result.stdout
    facts = well.json("doctor")["data"]["facts"]["docker"]
    assert {facts[client]["id"] for client in ("first", "second", "command")} == {
        well.engine.docker("info", "--format={{.ID}}").strip()
    }


def test_a_context_of_another_engine_is_what_no_such_container_comes_from(well: TrainingHome, other: str) -> None:
    well.engine.docker("version")
    for words in (["context", "create", "other", f"--docker=host={other}"], ["context", "use", "other"]):
        mended(well, f"docker {' '.join(words)}")
    launch = well.launch("detectnet_v2", "train", "0")
    launch.wait()
    assert "No such container" in launch.log_text()
    finding = findings(well)["daemon-mismatch"]
    assert finding["where"] == "docker context 'other'"
    mended(well, finding["hint"])
    assert "daemon-mismatch" not in findings(well)
    launch = well.launch("detectnet_v2", "train", "0")
    launch.wait()
    assert "done with 0" in launch.log_text()


def test_docker_host_leads_to_an_engine_without_nvidias_runtime(well: TrainingHome, other: str) -> None:
    by_id = findings(well, DOCKER_HOST=other)
    assert "these are different engines" in by_id["daemon-mismatch"]["what"]
    assert "docker-host-set" in by_id
    image = well.engine.images["detectnet_v2"]
    content = well.engine._run("save", image).stdout
    environ = {**well.environ, "DOCKER_HOST": other}
    subprocess.run(["docker", "load"], input=content, env=environ, check=True, capture_output=True, timeout=60)
    launch = well.launch("detectnet_v2", "train", "0", environ={"DOCKER_HOST": other})
    assert launch.wait() == 1
    assert "Docker instantiation failed with error: 500 Server Error" in launch.log_text()
    assert 'could not select device driver "" with capabilities: [[gpu]]' in launch.log_text()
    assert "gpu-runtime" not in findings(well)


def test_somebody_who_may_not_ask_the_engine(well: TrainingHome) -> None:
    """In a process of another user; the interpreter itself may be where only root can read it."""
    done = do_as_them(well, lambda: print(docker.probe_docker({"PATH": ""}).first.trouble) or 0)
    assert done.out == "denied\n", done
