"""On a real engine: a task whose user id has no name in the image gets one, and its results belong to the caller."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.profiles.layouts import FOLDER_VARIABLES
from tests.support.engine import (
    SOCKET,
    BackgroundRun,
    Engine,
    TrainingHome,
    image_archive,
    libraries,
    two_projects,
)
from tests.support.home import require

pytestmark = pytest.mark.engine

UID, SHARED_GROUP = 12345, 23456
IMAGE = "taoprofiles.test/python:7.1.0"
NEEDED = "import getpass, os, pathlib, sys, sysconfig, encodings.utf_8, encodings.ascii, encodings.latin_1"

TASK = """\
import getpass, os, pathlib, sys
folders = sys.argv[2:]
for folder in folders:
    pathlib.Path(folder, "cached").write_text("")
pathlib.Path(os.environ["HOME"], "of-the-task").write_text("")
print("name", getpass.getuser(), "groups", sorted(os.getgroups()))
pathlib.Path(sys.argv[1], "result").write_text(getpass.getuser())
"""
"""What torch does at its import, with Python's own functions."""


def python_image() -> bytes:
    """Return an image with this Python, as far as the task needs it, and without /etc/passwd."""
    code = NEEDED + "; print(*[m.__file__ for m in [*sys.modules.values()] if getattr(m, '__file__', None)], sep='\\n')"
    lines = subprocess.check_output([sys.executable, "-I", "-S", "-c", code], text=True).splitlines()
    program = Path(sys.executable).resolve()
    modules = [file for line in lines if (file := Path(line).resolve()).is_relative_to(sys.base_prefix)]
    files = {f"python/{file.relative_to(sys.base_prefix)}": file.read_bytes() for file in modules}
    for file in [program, *(file for file in modules if file.suffix == ".so")]:
        files |= libraries(file)
    return image_archive({"python/bin/python": program.read_bytes(), **files}, {})


@pytest.fixture(scope="module")
def image(engine: Engine) -> Iterator[str]:
    require(os.geteuid() == 0, "only root may become somebody else")
    engine.docker("import", "--change=ENV PYTHONHOME=/python PATH=/python/bin", "-", IMAGE, content=python_image())
    yield IMAGE
    engine.docker("image", "rm", IMAGE, check=False)


def as_user(home: TrainingHome, *words: str) -> subprocess.CompletedProcess[str]:
    """Run taoprof as an ordinary user who may use the engine and is in one group more."""
    for path in [home.root, *home.root.rglob("*")]:
        if path.stat().st_uid == 0:
            os.chown(path, UID, UID)
    # Who may read everything, since the Python that runs this may be one that only root can see.
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search"]
    groups = f"--groups={os.stat(SOCKET).st_gid},{SHARED_GROUP}"
    argv = ["setpriv", f"--reuid={UID}", f"--regid={UID}", groups, *reading, home.taoprof, *words]
    environ = {key: value for key, value in home.environ.items() if key != "USER"}
    return subprocess.run(argv, env=environ, cwd=home.root, capture_output=True, text=True, timeout=60, check=False)


def test_without_a_name_the_task_fails(engine: Engine, image: str) -> None:
    done = engine._run("run", "--rm", f"--user={UID}", image, "python", "-S", "-c", "import getpass; getpass.getuser()")
    assert f"uid not found: {UID}".encode() in done.stderr


@pytest.mark.parametrize("layout", ["local", "host", "tao7", "custom"])
def test_a_user_without_a_name(training_home: TrainingHome, image: str, layout: str) -> None:
    home = training_home
    project = home.root / "kitti"
    for folder in ("data", "specs", "p/results"):
        (project / folder).mkdir(parents=True)
    results = project if layout in ("local", "custom") else project / "p/results"
    inside = {"local": "/workspace/tao-experiments", "custom": "/work"}.get(layout, "/results")
    if layout == "custom":  # as imported from a notebook that sets the user, and nothing else
        text = f'[[mounts]]\nsource = "{project}"\ndestination = "/work"\n[docker]\nuser = "auto"\n'
        home.profile("p", f'layout = "custom"\nimage = "{image}"\n{text}')
    else:
        creation = as_user(home, "new", "p", "--layout", layout, "--image", image, "--project-dir", str(project))
        assert creation.returncode == 0, creation.stderr
    folders = [f"/results/.tao-runtime/home{below}" for below in ("", "/.cache/torch")] if layout == "tao7" else []
    done = as_user(home, "run", "p", "--gpus", "none", "--", "python", "-S", "-c", TASK, inside, *folders)
    assert done.returncode == 0, done.stderr
    groups = sorted({UID, SHARED_GROUP, os.stat(SOCKET).st_gid})
    assert done.stdout == f"name tao groups {groups}\n"
    made_files = [results / "result"]
    if layout == "tao7":
        runtime = results / ".tao-runtime"
        made_files += [runtime, runtime / "home/cached", runtime / "home/.cache/torch/cached"]
        below = [path for path in (runtime / "home/.cache").iterdir() if path.is_dir()]
        assert len(below) == len(FOLDER_VARIABLES) - 2, "all but HOME and the cache folder itself"
    for path in made_files:
        assert (path.stat().st_uid, path.stat().st_gid) == (UID, UID)
    assert (results / "result").read_text() == "tao"


def test_a_launchers_container_has_a_name_but_the_shared_file_does_not(training_home: TrainingHome) -> None:
    """A file that a notebook's profile renders stays what the notebook writes; only a run's own file has more."""
    home = training_home
    two_projects(home)
    home.run("set", "detectnet_v2", "docker.user=12345:12345", "--unset", "container.env.USER", check=True)
    home.run("set", "detectnet_v2", "--unset", "container.env.LOGNAME", check=True)
    home.run("use", "detectnet_v2", check=True)
    names = {item["variable"] for item in home.mapping()["Envs"]}
    assert names == {"HOME"}
    with BackgroundRun(home, "detectnet_v2", "--", "tao", "model", "detectnet_v2", "train", "0") as run:
        assert run.process.wait(60) == 0, run.log_text()
    assert "training as 12345:12345" in run.log_text()
    assert {"USER=tao", "LOGNAME=tao"} <= set(run.log_text().splitlines())
    findings = home.json("check", "detectnet_v2")["data"]["findings"]
    (finding,) = [finding for finding in findings if finding["id"] == "user-without-name"]
    home.run(*finding["hint"].removeprefix("taoprof ").split(), check=True)
    assert all(f["id"] != finding["id"] for f in home.json("check", "detectnet_v2")["data"]["findings"])
