"""How long the parts take within one process: the durable swap, a whole switch, and 10,000 profiles.

python tests/bench/in_process.py
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from taoprofiles.profiles.store import Store
from taoprofiles.storage import atomic
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch
from taoprofiles.switching.status import get_status
from tests.bench.commands import make_profiles


def report(name: str, times: list[float]) -> None:
    high = sorted(times)[int(len(times) * 0.99)] * 1e3
    middle = statistics.median(times) * 1e3
    sys.stdout.write(f"{name:40} median {middle:8.3f} ms   99 % {high:8.3f} ms   n {len(times)}\n")


def repeat(count: int, action: Callable[[int], object]) -> list[float]:
    times = []
    for number in range(count):
        start = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as scratch:
        home = Path(scratch)
        make_profiles(home, 10_000)
        context = Context({"HOME": str(home)})
        target = str(home / "swap.json")
        contents = [b"x" * 800, b"y" * 800]
        atomic.replace(target, contents[0])
        report("durable swap", repeat(1000, lambda n: atomic.replace(target, contents[n % 2])))

        def bare_fsyncs(number: int) -> None:
            fd = os.open(target + ".probe", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(fd, contents[number % 2])
            os.fsync(fd)
            os.close(fd)

        report("  of which: write and fsync one file", repeat(1000, bare_fsyncs))
        report(
            "whole switch (among 10,000 profiles)", repeat(500, lambda n: switch.switch_profile(context, f"p{n % 2}"))
        )
        report("current", repeat(500, lambda _: get_status(context)))
        store = Store(context)
        report("list of 10,000, first time", repeat(1, lambda _: store.summaries(may_write=True)))
        time.sleep(0.1)
        store.summaries(may_write=True)
        report("list of 10,000, nothing changed", repeat(20, lambda _: store.summaries(may_write=True)))
        report("names of 10,000, for completion", repeat(20, lambda _: store.names()))


if __name__ == "__main__":
    main()
