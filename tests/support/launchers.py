"""The six launchers that predictions are held against, each in a long-lived process of its own (launcher_runner.py)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.home import launcher_python

_NEW = "nvidia_tao_cli.entrypoint.tao_launcher"
ENTRYPOINTS = {
    "0.1.21": "tlt.entrypoint.entrypoint",
    "4.0.1": "tlt.entrypoint.tao",
    "5.5.1": _NEW,
    "6.0.0": _NEW,
    "6.25.11": _NEW,
    "6.26.3": _NEW,
}


def own_config(version: str) -> bytes:
    """Return an installed launcher's table of tasks and images."""
    folder = launcher_python(version).parents[1]
    (path,) = folder.glob(f"lib/*/site-packages/{ENTRYPOINTS[version].partition('.')[0]}/config/config.json")
    return path.read_bytes()


class Launcher:
    """One installed launcher, asked case by case."""

    def __init__(self, version: str, *words: str) -> None:
        self.version = version
        self.config = own_config(version)
        self.process = subprocess.Popen(
            [launcher_python(version), Path(__file__).with_name("launcher_runner.py"), ENTRYPOINTS[version], *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, environ: dict[str, str], cwd: str, arguments: list[str]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"environ": environ, "cwd": cwd, "arguments": arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the runner of {self.version} ended with {self.process.wait(10)}"
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


@contextmanager
def start_launchers() -> Iterator[list[Launcher]]:
    """Start all of them."""
    launchers = [Launcher(version) for version in ENTRYPOINTS]
    yield launchers
    for launcher in launchers:
        launcher.end()
