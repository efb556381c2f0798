"""How fast the guard answers: a foreign write until the held mapping is back, the end of a hold until the unseal.

    python -m tests.bench.guard [TIMES]

Each foreign write replaces the file, or writes into it, by turns. Then what the guard costs while nothing happens.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from taoprofiles.holds import manage
from tests.support.guard_process import GuardProcess, is_sealed
from tests.support.sandbox import Sandbox

IDLE = 60.0


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with guarded_home() as (sandbox, guard):
        report("a hold to the seal", [seal(sandbox) for _ in range(times)])
        report("the end of a hold to the unseal", [unseal(sandbox) for _ in range(times)])
        manage.hold(sandbox.context, None, reason="bench")
        wait(lambda: is_sealed(sandbox.mapping_file))
        for write in (replace, overwrite):
            report(f"{write.__name__} to the held mapping", [restore(sandbox, write, n) for n in range(times)])
        cpu, memory = cost(guard.process.pid)
        time.sleep(IDLE)  # what is measured: nothing happens
        spent = cost(guard.process.pid)[0] - cpu
        sys.stdout.write(f"idle for {IDLE:g} s: {spent:.2f} s of CPU, {spent / IDLE:.3%}; {memory} MB resident\n")


@contextmanager
def guarded_home() -> Iterator[tuple[Sandbox, GuardProcess]]:
    """A home of profiles a and b and its guard, which undoes any number of foreign writes."""
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder)) as sandbox:
        sandbox.profiles_named("a", "b")
        with GuardProcess(sandbox, options=("--restores", "100000")) as guard:
            yield sandbox, guard


def wait(is_so: Callable[[], bool]) -> float:
    begun = time.perf_counter()
    while not is_so():
        if time.perf_counter() > begun + 10:
            raise TimeoutError
        time.sleep(0.0002)
    return time.perf_counter() - begun


def seal(sandbox: Sandbox) -> float:
    hold = manage.hold(sandbox.context, None, reason="bench")
    took = wait(lambda: is_sealed(sandbox.mapping_file))
    manage.release(sandbox.context, hold.id)
    wait(lambda: not is_sealed(sandbox.mapping_file))
    return took


def unseal(sandbox: Sandbox) -> float:
    hold = manage.hold(sandbox.context, None, reason="bench")
    wait(lambda: is_sealed(sandbox.mapping_file))
    manage.release(sandbox.context, hold.id)
    return wait(lambda: not is_sealed(sandbox.mapping_file))


def replace(sandbox: Sandbox, content: bytes) -> None:
    fresh = sandbox.root / "fresh"
    fresh.write_bytes(content)
    fresh.replace(sandbox.mapping_file)


def overwrite(sandbox: Sandbox, content: bytes) -> None:
    sandbox.mapping_file.chmod(0o600)
    sandbox.mapping_file.write_bytes(content)


def restore(sandbox: Sandbox, write: Callable[[Sandbox, bytes], None], number: int) -> float:
    wanted = sandbox.mapping_file.read_bytes()
    write(sandbox, b'{"Mounts": [], "number": %d}' % number)
    took = wait(lambda: sandbox.mapping_file.read_bytes() == wanted)
    wait(lambda: is_sealed(sandbox.mapping_file))
    return took


def cost(pid: int) -> tuple[float, int]:
    """Seconds of CPU, and MB of memory that is resident."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") >> 20


def report(what: str, seconds: list[float]) -> None:
    cuts = statistics.quantiles(seconds, n=100)
    shown = ", ".join(f"{percent} % {cuts[percent - 1] * 1000:.1f}" for percent in (50, 90, 99))
    sys.stdout.write(f"{what}: {shown}, all {max(seconds) * 1000:.1f} ms ({len(seconds)} times)\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
