"""How long the parts take within one process: the durable swap, a whole switch, and 10,000 profiles.

    python -m tests.bench.in_process [--holds]

With --holds: the search for active holds, beyond the imports. It starts 500 processes, and 50 containers such as the
launcher's on a Docker engine: the machine's own if one answers and has the images of the tests, else one of its own
(root only).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import atomic
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch
from taoprofiles.switching.status import get_status
from tests.bench.commands import make_profiles
from tests.support.engine import TASKS, Daemon, Engine, answers, until


def report(name: str, count: int, action: Callable[[int], object]) -> None:
    """Do something so many times, and print how long it takes."""
    times = []
    for number in range(count):
        start = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - start)
    high = sorted(times)[int(len(times) * 0.99)] * 1e3
    middle = statistics.median(times) * 1e3
    sys.stdout.write(f"{name:40} median {middle:8.3f} ms   99 % {high:8.3f} ms   n {len(times)}\n")


def measure_files(home: Path) -> None:
    make_profiles(home, 10_000)
    context = Context({"HOME": str(home)})
    target = str(home / "swap.json")
    contents = [b"x" * 800, b"y" * 800]
    atomic.replace(target, contents[0])
    report("durable swap", 1000, lambda n: atomic.replace(target, contents[n % 2]))

    def bare_fsyncs(number: int) -> None:
        fd = os.open(target + ".probe", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, contents[number % 2])
        os.fsync(fd)
        os.close(fd)

    report("  of which: write and fsync one file", 1000, bare_fsyncs)
    report("whole switch (among 10,000 profiles)", 500, lambda n: switch.switch_profile(context, f"p{n % 2}"))
    report("current", 500, lambda _: get_status(context))
    store = Store(context)
    report("list of 10,000, first time", 1, lambda _: store.summaries(may_write=True))
    time.sleep(0.1)
    store.summaries(may_write=True)
    report("list of 10,000, nothing changed", 20, lambda _: store.summaries(may_write=True))
    report("names of 10,000, for completion", 20, lambda _: store.names())


@contextmanager
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


@contextmanager
def containers(folder: Path, count: int, mounts: dict[str, str]) -> Iterator[None]:
    """Start containers with every GPU asked for and the given mounts."""
    daemon = None if answers() else Daemon()
    try:
        if daemon is not None:
            assert daemon.started(), daemon.tail()
        engine = Engine(folder)
        engine.make_images()
        binds = [f"--volume={source}:{place}" for source, place in mounts.items()]
        words = ["run", "--detach", "--rm", "--gpus=all", *binds, engine.images[TASKS[0]]]
        ids = [engine.docker(*words).strip() for _ in range(count)]
        try:
            yield
        finally:
            engine.docker("rm", "--force", *ids)
            until(lambda: not set(ids) & set(engine.docker("ps", "-aq", "--no-trunc").split()), "they are gone")
            engine.remove_images()
    finally:
        if daemon is not None:
            daemon.end()


def measure_search(home: Path) -> None:
    theirs, mine = home / "theirs", home / "mine"
    theirs.mkdir()
    mine.mkdir()
    content = mapping.to_bytes({"Mounts": [{"source": str(mine), "destination": "/data"}]})
    nothing = Context({"HOME": str(home), "DOCKER_HOST": "unix:///nowhere/docker.sock"})
    find_active_holds(nothing, content)
    sys.stdout.write(f"{len(os.listdir('/proc'))} entries in /proc\n")
    report("the search, no engine", 100, lambda _: find_active_holds(nothing, content))
    here = Context({"HOME": str(home)})
    with processes(500):
        report("  500 more processes", 100, lambda _: find_active_holds(nothing, content))
        with containers(home, 50, {str(theirs): "/data"}):
            report("  and 50 containers with other mounts", 100, lambda _: find_active_holds(here, content))
    with containers(home, 1, {str(mine): "/data"}):
        report("1 container with these mounts", 100, lambda _: find_active_holds(here, content))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as scratch:
        (measure_search if "--holds" in sys.argv else measure_files)(Path(scratch))
