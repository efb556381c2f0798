"""How long a profile's kernel takes to start, against a plain ipykernel in the same run.

    python -m tests.bench.kernel [--check] [ROUNDS]

Each round starts both, in an environment with a compiled wheel of this checkout and ipykernel, and measures the seconds
until the kernel answers, until its first cell is done, and the CPU time of all that, which depends less on what else
the machine does. Prints the medians, and that of the differences of the same round. With --check it exits with status 1
if a profile's kernel takes more than 0.3 s longer to answer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.commands import install, make_profiles

GOAL = 0.3
"""Seconds that the start of a profile's kernel may take more (docs/explanation/speed.md)."""


WHAT = ("until it answers", "until its first cell is done", "CPU time")


def cpu_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(name: str, environ: dict[str, str]) -> list[float]:
    """Start a kernel and run a cell; return the seconds for each of ``WHAT``."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    specs = KernelSpecManager(kernel_dirs=[f"{environ['HOME']}/.local/share/jupyter/kernels"])
    manager = KernelManager(kernel_name=name, kernel_spec_manager=specs)
    client = None
    cpu, seconds = cpu_time(), []
    start = time.perf_counter()
    manager.start_kernel(env=environ, stderr=subprocess.DEVNULL)
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        seconds.append(time.perf_counter() - start)
        client.execute_interactive("1", timeout=60, output_hook=lambda message: None)
        seconds.append(time.perf_counter() - start)
    finally:
        if client is not None:
            client.stop_channels()
        manager.shutdown_kernel(now=True)
    return [*seconds, cpu_time() - cpu]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a start is over its goal")
    parser.add_argument("rounds", nargs="?", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        commands, home = install(Path(scratch)), Path(scratch, "home")
        pip = [commands / "python", "-m", "pip", "-qq", "--disable-pip-version-check", "install", "ipykernel>=7"]
        subprocess.run(pip, env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}, check=True)
        make_profiles(home, 100)
        environ = {"HOME": str(home), "PATH": f"{commands}:/usr/bin:/bin", "DOCKER_HOST": "unix:///none"}
        subprocess.run([commands / "taoprof", "kernel", "install", "p1"], env=environ, check=True, capture_output=True)
        plain = home / ".local/share/jupyter/kernels/plain/kernel.json"
        plain.parent.mkdir()
        argv = [str(commands / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        plain.write_text(json.dumps({"argv": argv, "display_name": "plain", "language": "python"}))
        rounds = [(timed("plain", environ), timed("taoprof-p1", environ)) for _ in range(options.rounds + 1)][1:]
    slow = False
    for at, what in enumerate(WHAT):
        bare, ours = ([times[kernel][at] for times in rounds] for kernel in (0, 1))
        more = statistics.median(mine - base for mine, base in zip(ours, bare, strict=True))
        slow |= at == 0 and more > GOAL
        sys.stdout.write(
            f"{what:30} plain {statistics.median(bare):.2f} s   profile {statistics.median(ours):.2f} s   "
            f"difference {more:.2f} s   ({options.rounds} rounds)\n"
        )
    return 1 if options.check and slow else 0


if __name__ == "__main__":
    sys.exit(main())
