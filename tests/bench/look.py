"""What the look at processes and containers adds to a switch, beyond the imports.

    python tests/bench/look.py

Starts 500 processes, and 50 containers such as the launcher's on a Docker engine: the machine's own if one answers and
has the images of the tests, else one of its own (root only).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.mounts import mapping
from taoprofiles.storage.paths import Context
from tests.bench.in_process import report
from tests.support.engine import TASKS, Daemon, Engine, answers, until

NOWHERE = "unix:///nowhere/docker.sock"


@contextlib.contextmanager
def processes(count: int) -> Iterator[None]:
    """Start processes with command lines as long as those of a desktop."""
    started = [subprocess.Popen(["sleep", "600"], env={"FILLER": "x" * 2000}) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


@contextlib.contextmanager
def containers(folder: Path, count: int, mounts: dict[str, str]) -> Iterator[None]:
    """Start containers with every GPU asked for and the given mounts."""
    daemon = None if answers() else Daemon()
    try:
        if daemon is not None:
            assert daemon.started(), daemon.tail()
        engine = Engine(folder)
        engine.make_images()
        binds = [f"--volume={source}:{place}" for source, place in mounts.items()]
        ids = [
            engine.docker("run", "--detach", "--rm", "--gpus=all", *binds, engine.images[TASKS[0]]).strip()
            for _ in range(count)
        ]
        try:
            yield
        finally:
            engine.docker("rm", "--force", *ids)
            until(lambda: not set(ids) & set(engine.docker("ps", "-aq", "--no-trunc").split()), "they are gone")
            engine.remove_images()
    finally:
        if daemon is not None:
            daemon.end()


def times(context: Context, content: bytes, count: int = 100) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter()
        find_active_holds(context, content)
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        theirs, mine = home / "theirs", home / "mine"
        theirs.mkdir()
        mine.mkdir()
        content = mapping.to_bytes({"Mounts": [{"source": str(mine), "destination": "/data"}]})
        nothing = Context({"HOME": scratch, "DOCKER_HOST": NOWHERE})
        find_active_holds(nothing, content)
        sys.stdout.write(f"{len(os.listdir('/proc'))} entries in /proc\n")
        report("the look, no engine", times(nothing, content))
        here = Context({"HOME": scratch})
        with processes(500):
            report("  500 more processes", times(nothing, content))
            with containers(home, 50, {str(theirs): "/data"}):
                report("  and 50 containers with other mounts", times(here, content))
        with containers(home, 1, {str(mine): "/data"}):
            report("1 container with these mounts", times(here, content))


if __name__ == "__main__":
    main()
