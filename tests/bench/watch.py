"""What ``status --watch`` costs on a terminal: the CPU time of the program and of all that it starts.

    python -m tests.bench.watch [SECONDS]

With nothing to show; with three runs, of which one writes 100 lines a second, and an nvidia-smi; and with 500 more
processes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.in_process import processes
from tests.support.commands import Terminal
from tests.support.sandbox import Sandbox
from tests.support.stand_ins import NOW, driver, epoch_line, gpus


def cpu_time(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(sandbox: Sandbox, name: str, seconds: float) -> None:
    with Terminal([sandbox.taoprof, "status", "--watch"], environ=sandbox.environ, cwd=sandbox.root) as terminal:
        terminal.wait_for("q or Ctrl-C")
        before, end = cpu_time(terminal.process.pid), time.monotonic() + seconds
        while time.monotonic() < end:
            terminal._read(0.5)  # what is drawn must be taken
        used = cpu_time(terminal.process.pid) - before
        share = 100 * used / seconds
        sys.stdout.write(f"{name}: {used:.2f} s of CPU time in {seconds:g} s, {share:.2f} % of a core\n")


@contextlib.contextmanager
def writer(path: Path) -> Iterator[None]:
    """Write 100 lines a second, an epoch in each hundredth."""
    is_over = threading.Event()

    def write() -> None:
        number = 0
        with path.open("ab", buffering=0) as file:
            while not is_over.wait(0.01):
                number += 1
                file.write(epoch_line(int(time.time()) - NOW, number // 100 % 50, message="x" * 80))

    path.parent.mkdir(parents=True)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as scratch, Sandbox(Path(scratch)) as sandbox:
        sandbox.profiles_named("a", "b", "c")
        measure(sandbox, "nothing is running, no nvidia-smi", seconds)
        driver(sandbox, gpus(4))
        for number, name in enumerate("abc"):
            command = ("tao", "model", "unet", "train", f"results_dir=/workspace/tao-experiments/{name}")
            sandbox.in_run(name, "--gpus", f"{number},", command=command)
        queued = sandbox.start(
            *(sandbox.taoprof, "run", "a", "--gpus", "0,", "--wait", "--", "true"), stderr=subprocess.PIPE
        )
        assert queued.stderr is not None
        queued.stderr.readline()
        with writer(sandbox.root / "projects/a/a/train/status.json"):
            measure(sandbox, "3 runs, 1 waiting, 100 lines a second, 4 GPUs", seconds)
            with processes(500):
                measure(sandbox, "  500 more processes", seconds)


if __name__ == "__main__":
    main()
