"""The launchers of PyPI, rotten as they are when installed today: the real message, and the command that mends.

Each environment is made by pip, and its ``tao`` started. ``TAOPROF_TEST_MATRIX=1`` does so for every generation with
every Python that is found, which takes some minutes.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from taoprofiles.doctor import launcher_rules
from taoprofiles.launcher.installed import Launchers
from tests.support.home import Home, require

pytestmark = [pytest.mark.index, pytest.mark.timeout(300)]

MATRIX = os.environ.get("TAOPROF_TEST_MATRIX") == "1"
GENERATIONS = (
    *("nvidia-tlt==0.1.21", "nvidia-tao==0.1.24", "nvidia-tao==4.0.1", "nvidia-tao==5.0.0", "nvidia-tao==5.2.0"),
    *("nvidia-tao==5.3.0", "nvidia-tao==5.5.1", "nvidia-tao==6.0.0", "nvidia-tao==6.26.3"),
)

HIDING = """\
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "distutils":
            raise ModuleNotFoundError("No module named 'distutils'", name=name)

shims = [finder for finder in sys.meta_path if type(finder).__name__ == "DistutilsMetaFinder"]
sys.meta_path.insert(len(shims), Hidden())
"""
"""Makes a Python before 3.12 one without distutils, but for setuptools' own: where there is no newer one to try."""


@functools.cache
def pythons() -> dict[tuple[int, int], str]:
    """Every Python that can be started, by its release."""
    found: dict[tuple[int, int], str] = {}
    places = [*Path.home().glob(".pyenv/versions/*/bin/python3"), *Path("/opt").glob("python*/bin/python3")]
    names = [shutil.which(f"python3.{minor}") for minor in range(8, 20)]
    for place in [sys.executable, *map(str, places), *filter(None, names)]:
        asked = [place, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"]
        told = subprocess.run(asked, capture_output=True, text=True)
        if told.returncode == 0:
            major, minor = map(int, told.stdout.split())
            if (major, minor) >= (3, 7):  # the pip of older ones does not install what PyPI has today
                found.setdefault((major, minor), place)
    return found


@functools.cache
def index_answers() -> bool:
    asked = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", os.devnull, "nvidia-tao==0"]
    told = subprocess.run(asked, capture_output=True, text=True)
    return "from versions: none" not in told.stderr and "from versions:" in told.stderr


class Made(NamedTuple):
    """An environment with a launcher, and the home that it is started in."""

    home: Home
    folder: Path

    @property
    def tao(self) -> Path:
        both = [self.folder / "bin" / name for name in ("tao", "tlt")]
        return next((path for path in both if path.exists()), both[0])

    @property
    def environ(self) -> dict[str, str]:
        # python3 is the one that runs the tests: a hint that makes an environment anew asks for it by that name.
        path = f"{self.folder}/bin:{Path(sys._base_executable).parent}:{self.home.environ['PATH']}"  # type: ignore[attr-defined]
        return {**self.home.environ, "PATH": path}

    def says(self, word: str) -> str:
        """Start the launcher, through a shell as people do; give what it says."""
        command = ["bash", "-c", f'"{self.tao}" {word}']
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    def starts(self) -> bool:
        """Whether it gets as far as the engine, which is not there."""
        asked = self.says("list")
        return "usage: tao" in self.says("--help").replace("tlt", "tao") and "FileNotFoundError(2" in asked

    def findings(self) -> dict[str, dict]:
        told = self.home.run("doctor", "--json", environ={"PATH": self.environ["PATH"]})
        assert told.returncode == 3, told.stderr  # there is no engine either
        mine = {"tao-", "pyth", "requ", "urll", "tabu", "six-", "laun"}
        found = json.loads(told.stdout)["data"]["findings"]
        return {one["id"]: one for one in found if one["id"][:4] in mine and one["severity"] == "error"}

    def mend(self, hint: str) -> None:
        done = subprocess.run(["bash", "-c", hint], env=self.environ, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, (hint, done.stdout, done.stderr)


def make(home: Home, folder: Path, launcher: str, python: str = sys.executable) -> Made:
    require(index_answers(), "pip's index does not answer")
    subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", launcher], check=True, capture_output=True)
    return Made(home, folder)


def test_what_is_installed_today_of_an_old_launcher(home: Home, tmp_path: Path) -> None:
    """4.0.1: tabulate hides what requests would say next, and one command mends both."""
    made = make(home, tmp_path / "venv", "nvidia-tao==4.0.1")
    assert "ImportError: cannot import name 'Iterable' from 'collections'" in made.says("--help")
    found = made.findings()
    expected = ["tabulate", "requests", *(["distutils", "six"] if sys.version_info >= (3, 12) else [])]
    assert list(found) == ["launcher-import"]
    assert all(package in found["launcher-import"]["what"] for package in expected)
    subprocess.run([made.folder / "bin/pip", "install", "-q", "tabulate>=0.9"], check=True, capture_output=True)
    if sys.version_info < (3, 12):
        assert "Not supported URL scheme http+docker" in made.says("list")
    made.mend(found["launcher-import"]["hint"])
    assert made.findings() == {}
    assert made.starts()
    subprocess.run([made.folder / "bin/pip", "install", "-q", "urllib3>=2"], check=True, capture_output=True)
    assert "HTTPConnection.request() got an unexpected keyword argument 'chunked'" in made.says("list")
    found = made.findings()
    assert list(found) == ["launcher-import"]
    assert "urllib3" in found["launcher-import"]["what"]
    made.mend(found["launcher-import"]["hint"])
    assert made.starts()
    subprocess.run([made.folder / "bin/pip", "uninstall", "-q", "-y", "requests"], check=True, capture_output=True)
    message = "ModuleNotFoundError: No module named 'requests'"
    assert message in made.says("list")
    found = made.findings()
    assert list(found) == ["launcher-import"]
    assert message in found["launcher-import"]["what"]
    made.mend(found["launcher-import"]["hint"])
    assert made.findings().keys() <= {"launcher-import"}, "the pins of that version are rotten"


def test_the_newest_launcher_without_distutils_and_then_without_its_python(home: Home, tmp_path: Path) -> None:
    newer = [python for release, python in sorted(pythons().items()) if release >= (3, 12)]
    made = make(home, tmp_path / "venv", "nvidia-tao==6.26.3", newer[-1] if newer else sys.executable)
    if not newer:
        subprocess.run([made.folder / "bin/pip", "uninstall", "-q", "-y", "setuptools"], check=True)
        next(made.folder.glob("lib/python*/site-packages")).joinpath("sitecustomize.py").write_text(HIDING)
    assert "ModuleNotFoundError: No module named 'distutils'" in made.says("--help")
    found = made.findings()
    assert list(found) == ["launcher-import"]
    assert "distutils" in found["launcher-import"]["what"]
    made.mend(found["launcher-import"]["hint"])
    assert made.findings() == {}
    assert made.starts()

    for path in made.folder.glob("bin/python*"):  # as when the Python that it was made with is upgraded
        path.unlink()
    said = made.says("--help")
    assert re.search(r"bad interpreter: No such file|required file not found", said), said
    found = made.findings()
    assert list(found) == ["tao-broken-python"]
    made.mend(found["tao-broken-python"]["hint"])
    assert made.findings() == {}
    assert made.starts()


def test_no_launcher_at_all(home: Home) -> None:
    require(index_answers(), "pip's index does not answer")
    made = Made(home, home.root / "tao-launcher")
    told = launcher_rules.check_launchers(Launchers())
    assert [one.id for one in told] == ["tao-missing"]
    assert "tao: command not found" in told[0].why
    made.mend(told[0].hint)
    assert made.starts()


if MATRIX:  # or it would be skipped by name in every other run

    @pytest.mark.parametrize("launcher", GENERATIONS)
    @pytest.mark.parametrize("release", pythons(), ids=str)
    def test_every_generation_with_every_python(
        home: Home, tmp_path: Path, launcher: str, release: tuple[int, int]
    ) -> None:
        made = make(home, tmp_path / "venv", launcher, pythons()[release])
        found = made.findings()
        assert bool(found) is not made.starts()
        if found:
            made.mend(next(iter(found.values()))["hint"])
            assert made.findings() == {}
            assert made.starts(), made.says("list")

    @pytest.mark.parametrize("tool", ["pipx", "uv"])
    def test_environments_that_have_no_pip(home: Home, tmp_path: Path, tool: str) -> None:
        tools, folder = tmp_path / "tools", home.root / "pipx/venvs/nvidia-tao"
        subprocess.run([sys.executable, "-m", "venv", tools], check=True)
        subprocess.run([tools / "bin/pip", "install", "-q", tool], check=True, capture_output=True)
        # uv asks no pip.conf whom to trust
        home.environ |= {name: value for name, value in os.environ.items() if name.startswith("SSL_")}
        environ = {**home.environ, "PIPX_HOME": f"{home.root}/pipx", "PIPX_BIN_DIR": f"{home.root}/bin"}
        steps = (
            [["pipx", "install", "-q", "--python", sys.executable, "nvidia-tao==5.3.0"]]
            if tool == "pipx"
            else [
                ["uv", "venv", "-q", "--python", sys.executable, str(folder)],
                ["uv", "pip", "install", "-q", "--python", f"{folder}/bin/python", "nvidia-tao==5.3.0"],
            ]
        )
        for step in steps:
            subprocess.run([tools / "bin" / step[0], *step[1:]], env=environ, check=True, capture_output=True)
        made = Made(home, folder)
        home.environ |= {name: environ[name] for name in ("PIPX_HOME", "PIPX_BIN_DIR")}
        home.environ["PATH"] = f"{tools}/bin:{home.environ['PATH']}"
        assert "Not supported URL scheme http+docker" in made.says("list")
        hint = made.findings()["launcher-import"]["hint"]
        assert hint.startswith({"pipx": "pipx runpip nvidia-tao ", "uv": "uv pip install --python "}[tool])
        made.mend(hint)
        assert made.findings() == {}
        assert made.starts()
