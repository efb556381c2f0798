"""``%taoprof`` over the life of a kernel, seen from inside the kernel and from another process."""

from __future__ import annotations

import importlib.util
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import TrainingHome, until
from tests.support.home import Home, require
from tests.support.jupyterlab import KERNEL, kernel_path, share_kernel, write_notebook
from tests.support.kernels import LOAD, Kernel, load, load_and_use, read_environ

pytestmark = [pytest.mark.jupyter, pytest.mark.slow]

FOREIGN = """\
import json, os
with open(os.path.expanduser("~/.tao_mounts.json"), "w") as mounts_file:
    json.dump({"Mounts": [{"source": "/somewhere/else", "destination": "/workspace/tao-experiments"}]}, mounts_file)
"""


@pytest.fixture
def home(home: Home) -> Home:
    """A home with the profiles alpha and beta, all of their folders, and beta active."""
    return with_profiles(home)


def with_profiles(home: Home) -> Home:
    for name in ("alpha", "beta"):
        project = home.root / name
        project.mkdir()
        home.run("new", name, "--network", "detectnet_v2", cwd=project, check=True)
        home.run("use", name, "--mkdir", check=True)
    return home


def holders(home: Home) -> list[tuple[str, str, int]]:
    return sorted((hold["kind"], hold["profile"], hold["pid"]) for hold in home.holds())


def rendered(home: Home, profile: str) -> dict[str, Any]:
    """Return the mapping of a profile that the launcher is to read, from ``show``."""
    shown = home.json("show", profile, "--reveal")["data"]
    mapping = {
        "Mounts": [{key: mount[key] for key in ("source", "destination")} for mount in shown["mounts"]],
        "DockerOptions": shown["docker"],
    }
    return mapping | ({"Envs": [{"variable": k, "value": v} for k, v in shown["env"].items()]} if shown["env"] else {})


def is_profiles(mapping: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Check whether a mapping is the profile's; its environment may have the run tag for the containers."""
    variables = [variable for variable in mapping.get("Envs", []) if not variable["variable"].startswith("TAOPROF_")]
    plain = {key: value for key, value in mapping.items() if key != "Envs"} | ({"Envs": variables} if variables else {})
    return plain == wanted


def test_use_gives_the_kernel_the_profile(home: Home) -> None:
    before = home.mapping_file.read_bytes(), home.mapping_file.stat().st_mtime_ns
    with Kernel(home) as kernel:
        there = load_and_use(kernel)
        wanted = json.loads(home.run("env", "alpha", "--format", "json", check=True).stdout)
        assert wanted
        assert {name: there.get(name) for name in wanted} == wanted
        private = Path(there["LAUNCHER_MOUNTS"])
        assert private != home.mapping_file
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        assert is_profiles(json.loads(private.read_bytes()), rendered(home, "alpha"))
        assert (home.mapping_file.read_bytes(), home.mapping_file.stat().st_mtime_ns) == before
        assert home.run("current").stdout == "beta\n"
        output = kernel.run('!echo "$LAUNCHER_MOUNTS" && cat "$LAUNCHER_MOUNTS"').text
        assert there["LAUNCHER_MOUNTS"] in output
        assert str(home.root / "alpha") in output
        home.run("use", "alpha", check=True)  # an own mapping is in nobody's way
        kernel.run("%taoprof use beta")
        assert holders(home) == [("notebook", "beta", kernel.pid)], "another use replaces the first"
        private = Path(read_environ(kernel)["LAUNCHER_MOUNTS"])
        assert is_profiles(json.loads(private.read_bytes()), rendered(home, "beta"))
        for command in ("status", "list", "check", "show", "env"):
            answer = kernel.run(f"%taoprof {command}")
            assert "".join(answer.html).strip(), "for JupyterLab"
            assert "beta" in answer.text, "for a terminal, a log and whoever reads the notebook's JSON"


@pytest.mark.parametrize("end", [Kernel.kill, Kernel.shutdown, Kernel.restart])
def test_the_kernel_holds_as_long_as_it_lives(home: Home, end: Callable[[Kernel], None]) -> None:
    with Kernel(home) as kernel:
        private = Path(load_and_use(kernel)["LAUNCHER_MOUNTS"])
        assert holders(home) == [("notebook", "alpha", kernel.pid)]
        end(kernel)
        until(lambda: home.holds() == [], "nothing is held")
        assert not private.exists(), "the next command takes away what is proved to be over"
        if end is Kernel.restart:
            assert "LAUNCHER_MOUNTS" not in read_environ(kernel)
            load_and_use(kernel)
            assert holders(home) == [("notebook", "alpha", kernel.pid)]


def test_an_interrupt_changes_nothing(home: Home) -> None:
    with Kernel(home) as kernel:
        there = load_and_use(kernel)
        cell = kernel.start("import time\nprint('at work')\nwhile True:\n    time.sleep(0.1)").until("at work")
        kernel.interrupt()
        assert "KeyboardInterrupt" in cell.finish().traceback
        assert holders(home) == [("notebook", "alpha", kernel.pid)]
        assert read_environ(kernel)["LAUNCHER_MOUNTS"] == there["LAUNCHER_MOUNTS"]
        assert Path(there["LAUNCHER_MOUNTS"]).exists()


def test_two_kernels_on_one_notebook_are_two_holds(home: Home) -> None:
    with (
        Kernel(home, notebook="alpha/train.ipynb") as first_kernel,
        Kernel(home, notebook="alpha/train.ipynb") as second_kernel,
    ):
        first, second = load_and_use(first_kernel), load_and_use(second_kernel)
        assert holders(home) == sorted(("notebook", "alpha", kernel.pid) for kernel in (first_kernel, second_kernel))
        assert first["LAUNCHER_MOUNTS"] != second["LAUNCHER_MOUNTS"]
        first_kernel.kill()
        assert holders(home) == [("notebook", "alpha", second_kernel.pid)]
        assert Path(second["LAUNCHER_MOUNTS"]).exists()


def test_release_gives_everything_back(home: Home) -> None:
    with Kernel(home) as kernel:
        kernel.run(f'{LOAD}\nimport os; os.environ["SPECS_DIR"] = "of my own"')
        before = read_environ(kernel)
        for words in ("alpha", "alpha --shared"):
            kernel.run(f"%taoprof use {words}")
            assert read_environ(kernel) != before
            kernel.run("%taoprof release")
            assert read_environ(kernel) == before
            assert home.holds() == []


def test_shared_holds_the_mapping_file_until_the_kernel_is_killed(home: Home) -> None:
    with Kernel(home) as first_kernel, Kernel(home) as second_kernel:
        there = load_and_use(first_kernel, "alpha --shared")
        assert there.get("LAUNCHER_MOUNTS", str(home.mapping_file)) == str(home.mapping_file)
        assert home.mapping() == rendered(home, "alpha")
        refused = home.run("use", "beta", "--json")
        assert refused.returncode == 5, (refused.stdout, refused.stderr)
        assert [holder["pid"] for holder in json.loads(refused.stdout)["error"]["holders"]] == [first_kernel.pid]
        load(second_kernel)
        before = read_environ(second_kernel)
        in_notebook = second_kernel.execute("%taoprof use beta --shared")
        assert in_notebook.failed
        assert f"pid {first_kernel.pid}" in in_notebook.output, "who holds it"
        assert read_environ(second_kernel) == before
        assert holders(home) == [("notebook", "alpha", first_kernel.pid)]
        first_kernel.kill()
        second_kernel.run("%taoprof use beta --shared")
        assert home.mapping() == rendered(home, "beta")


@pytest.mark.engine
def test_a_killed_kernels_training_needs_the_shared_file_still(training_home: TrainingHome) -> None:
    home = training_home
    with_profiles(home)
    with Kernel(home) as kernel:
        load_and_use(kernel, "alpha --shared")
        kernel.start("!tao model detectnet_v2 train 60").until(": training as")
        (container,) = home.engine.containers_of(home.root)
        kernel.kill()
        assert home.run("use", "beta").returncode == 5, "the container trains on"
        home.engine.remove(container)
        until(lambda: home.run("use", "beta").returncode == 0, "the mapping file is free")


def test_what_is_refused_changes_nothing_and_stops_run_all(home: Home) -> None:
    """The cell fails, so that a training in a later one does not start with another profile; without a traceback."""
    home.profile("broken", 'schema = 1\nlayout = "custom"\n"k\\u001b[31m" = 1\n')
    with Kernel(home) as kernel:
        before = load_and_use(kernel)
        for words in ("use nosuch", "use alpha beta", "nosuch", "use", "use --help", "use 'a", "use broken"):
            refused = kernel.execute(f"%taoprof {words}")
            assert refused.failed, words
            assert refused.output.strip()
            for text in ("Traceback", "\x1b[31m", "--help' explains", "\\n"):
                assert text not in refused.output
            assert words != "nosuch" or "%taoprof release" in refused.output
        assert read_environ(kernel) == before
        assert holders(home) == [("notebook", "alpha", kernel.pid)]


def test_a_cell_that_overwrites_the_mapping_file_is_warned(home: Home) -> None:
    with Kernel(home) as kernel:
        there = load_and_use(kernel)
        output = kernel.run(FOREIGN).output
        assert "alpha" in output, "whose mapping this kernel's launches have"
        assert "/somewhere/else" in output, "what the file has instead"
        assert str(home.root / "alpha") in output.replace("~", str(home.root)), "what it differs from"
        assert is_profiles(json.loads(Path(there["LAUNCHER_MOUNTS"]).read_bytes()), rendered(home, "alpha"))
        assert "/somewhere/else" not in kernel.run("1 + 1").output, "once is enough"
        same = FOREIGN.partition("    json.dump")[0] + f"    json.dump({rendered(home, 'alpha')!r}, mounts_file)"
        assert kernel.run(same).output.strip() == ""


RUNNERS = {
    "papermill": ("--kernel", KERNEL, "train.ipynb", "done.ipynb"),
    "nbconvert": ("--execute", "--to", "notebook", "--output", "done.ipynb", "train.ipynb"),
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_notebook_that_is_run_by_a_program_leaves_no_hold(home: Home, runner: str) -> None:
    require(importlib.util.find_spec(runner), f"{runner} is not installed")
    share_kernel(home)
    status_cell = "!taoprof status --json > held.json"
    write_notebook(home.root / "train.ipynb", LOAD, "%taoprof use alpha", status_cell, "import os; print(os.getpid())")
    done = subprocess.run(
        [sys.executable, "-m", runner, *RUNNERS[runner]],
        env={**home.environ, "PATH": kernel_path()},
        cwd=home.root,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads((home.root / "done.ipynb").read_text())["cells"]
    pid = int("".join(cells[-1]["outputs"][0]["text"]))
    held = json.loads((home.root / "held.json").read_text())["data"]["holds"]
    assert [(hold["kind"], hold["profile"], hold["pid"]) for hold in held] == [("notebook", "alpha", pid)]
    assert home.holds() == []
