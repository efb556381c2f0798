"""The launchers of PyPI, broken as they are when installed today: the real message, and the command that fixes it.

Each environment is made by pip, and its ``tao`` started.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.home import Home, require

pytestmark = [pytest.mark.index, pytest.mark.timeout(300)]

HIDING = """\
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "distutils":
            raise ModuleNotFoundError("No module named 'distutils'", name=name)

shims = [finder for finder in sys.meta_path if type(finder).__name__ == "DistutilsMetaFinder"]
sys.meta_path.insert(len(shims), Hidden())
"""
"""Makes a Python before 3.12 one without distutils, but for setuptools' own."""


class Environment(NamedTuple):
    """An environment with a launcher, and the home that it is started in."""

    home: Home
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        # python3 is the one that runs the tests: a hint that makes an environment again asks for it by that name.
        # Of the rest, nothing but the system's programs: a launcher that is on PATH would be one of several.
        path = f"{self.folder}/bin:{Path(sys._base_executable).parent}:{os.defpath}"  # type: ignore[attr-defined]
        return {**self.home.environ, "PATH": path}

    def output(self, word: str) -> str:
        """Start the launcher, through a shell as people do; return its output."""
        command = ["bash", "-c", f'"{self.folder}/bin/tao" {word}']
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    def findings(self) -> dict[str, dict]:
        done = self.home.run("doctor", "--json", environ={"PATH": self.environ["PATH"]})
        assert done.returncode == 3, done.stderr  # there is no engine either
        findings = json.loads(done.stdout)["data"]["findings"]
        return {finding["id"]: finding for finding in findings if finding["id"].startswith(("tao-", "launcher-"))}

    def fix(self, id: str) -> str:
        """Run the hint of the only finding; return what was found. The launcher then gets as far as the engine."""
        findings = self.findings()
        assert list(findings) == [id]
        hint = findings[id]["hint"]
        done = subprocess.run(["bash", "-c", hint], env=self.environ, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, (hint, done.stdout, done.stderr)
        assert self.findings() == {}
        assert "usage: tao" in self.output("--help")
        assert "FileNotFoundError(2" in self.output("list")
        return str(findings[id]["what"])


def install(home: Home, folder: Path, launcher: str) -> Environment:
    query = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", os.devnull, "nvidia-tao==0"]
    answer = subprocess.run(query, capture_output=True, text=True).stderr
    require("from versions:" in answer and "from versions: none" not in answer, "pip's index does not answer")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", launcher], check=True, capture_output=True)
    return Environment(home, folder)


def test_an_old_launcher_as_it_is_installed_today(home: Home, tmp_path: Path) -> None:
    """4.0.1: tabulate hides what requests would say next, and one command fixes both."""
    environment = install(home, tmp_path / "venv", "nvidia-tao==4.0.1")
    assert "ImportError: cannot import name 'Iterable' from 'collections'" in environment.output("--help")
    expected = ["tabulate", "requests", *(["distutils", "six"] if sys.version_info >= (3, 12) else [])]
    what = environment.fix("launcher-import")
    assert all(package in what for package in expected)


def test_the_newest_launcher_without_distutils_and_then_without_its_python(home: Home, tmp_path: Path) -> None:
    environment = install(home, tmp_path / "venv", "nvidia-tao==6.26.3")
    if sys.version_info < (3, 12):
        subprocess.run([environment.folder / "bin/pip", "uninstall", "-q", "-y", "setuptools"], check=True)
        next(environment.folder.glob("lib/python*/site-packages")).joinpath("sitecustomize.py").write_text(HIDING)
    assert "ModuleNotFoundError: No module named 'distutils'" in environment.output("--help")
    assert "distutils" in environment.fix("launcher-import")

    for path in environment.folder.glob("bin/python*"):  # as when the Python that it was made with is upgraded
        path.unlink()
    assert re.search(r"bad interpreter: No such file|required file not found", environment.output("--help"))
    environment.fix("tao-broken-python")
