"""A real JupyterLab server for a scratch home, on a free port of the loopback interface.

JupyterLab is in an environment of its own (``.jupyterlab``, see ``.ci/run``): its server asks for a websocket-client
of which the launcher pins an older one. Its kernels are this environment's, with the launcher and taoprofiles, as a
person's registered kernel would be.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support.engine import until
from tests.support.home import Home, require

ROOT = Path(__file__).parents[2]
KERNEL = "tao"

QUIET = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},  # else the outputs out of sight are not in the page
}
"""What a person would set in the settings editor: no popups, and every output there to be read."""

OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port=0",
    "--LabApp.expose_app_in_browser=True",  # the page's commands, for Browser
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=",
    "--LabApp.extension_manager=readonly",  # the other one asks the package index
    "--LanguageServerManager.autodetect=False",
)


class JupyterLabServer:
    """``with JupyterLabServer(home) as lab: …`` has JupyterLab serve the home, from its first answer on."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.token = secrets.token_hex(16)
        self.url = ""
        self._log = home.root.parent / f"lab-{len(list(home.root.parent.glob('lab-*.log')))}.log"
        self.environ = {**home.environ, "PATH": kernel_path(), "JUPYTER_TOKEN": self.token}
        share_kernel(home)
        for name, settings in QUIET.items():
            path = home.root / f".jupyter/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings))
        program = jupyter_lab()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, *OPTIONS, f"--ServerApp.root_dir={home.root}"],
                env=self.environ,
                cwd=home.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest, which then ends it
            )

    def __enter__(self) -> JupyterLabServer:
        try:
            self.url = until(self._address, "JupyterLab says where it is", seconds=60, details=self.tail)
            until(self._answers, "JupyterLab answers", details=self.tail)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()  # it shuts its kernels down first
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.tail()
        try:
            info = self.home.root / f".local/share/jupyter/runtime/jpserver-{self.process.pid}.json"
            return str(json.loads(info.read_text())["url"])
        except (OSError, ValueError):  # not there yet, or half written
            return None

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.tail()
        try:
            request = urllib.request.Request(f"{self.url}api/status", headers={"Authorization": f"token {self.token}"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return "started" in json.loads(answer.read())
        except (OSError, ValueError):
            return False

    def tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def jupyter_lab() -> str:
    """Find the program: in the environment that CI makes for it, or where a person has it."""
    own = ROOT / ".jupyterlab/bin/jupyter-lab"
    found = str(own) if own.exists() else shutil.which("jupyter-lab")
    require(found, f"JupyterLab is neither in {own.parents[1].name} nor on PATH")
    assert found is not None
    return found


def kernel_path() -> str:
    """Return the PATH of a kernel in an activated environment: ``!tao`` and ``!taoprof`` are this environment's."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def share_kernel(home: Home) -> None:
    """Register this environment's kernel for the home's owner, as ``ipykernel install --user`` would."""
    spec = home.root / f".local/share/jupyter/kernels/{KERNEL}/kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "TAO", "language": "python"}))


def write_notebook(path: Path, *cells: str, kernel: str = KERNEL) -> Path:
    """Write a notebook of code cells that wants a kernel, without one the registered one."""
    made = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for number, source in enumerate(cells)
    ]
    spec = {"name": kernel, "display_name": "TAO", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": spec}, "cells": made}))
    return path
