"""The guard under all that a busy person does: does its memory grow, do its descriptors, does the file drift?

    python -m tests.bench.soak [MINUTES]
    nice -n -5 python -m tests.bench.soak storm [MINUTES]

Each minute 20 switches, 5 runs on the shared file and 10 foreign writes, one after the other at random; after each, the
file must be what the rules say. One line a minute. The storm (``tests/bench/storm.py``) does everything at once.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from tests.bench.guard import cost, guarded_home, replace
from tests.bench.storm import Storm
from tests.support.engine import until
from tests.support.guard_process import GuardProcess, is_sealed
from tests.support.sandbox import Sandbox


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["storm"]:
        with guarded_home() as (sandbox, guard):
            Storm(sandbox, guard).rage(float(words[1]) if words[1:] else 60)
        return
    minutes = int(words[0]) if words else 30
    with guarded_home() as (sandbox, guard):
        for minute in range(minutes):
            begun = time.monotonic()
            deeds = ["switch"] * 20 + ["run"] * 5 + ["write"] * 10
            random.Random(minute).shuffle(deeds)
            for number, deed in enumerate(deeds):
                guard.has_notified("")  # as a service manager does, read what it says
                do(sandbox, deed, number, guard)
                time.sleep(max(0.0, begun + 60 * (number + 1) / len(deeds) - time.monotonic()))  # spread over it
            cpu, memory = cost(guard.process.pid)
            files = len(os.listdir(f"/proc/{guard.process.pid}/fd"))
            line = f"minute {minute + 1}: {memory} MB resident, {files} descriptors, {cpu:.1f} s of CPU"
            sys.stdout.write(f"{line}, history of {size(sandbox)} kB\n")
            sys.stdout.flush()


def do(sandbox: Sandbox, deed: str, number: int, guard: GuardProcess) -> None:
    name = "ab"[number % 2]
    if deed == "switch":
        sandbox.run("use", name, check=True)
        assert sandbox.json("current")["data"]["name"] == name
    elif deed == "run":
        sandbox.run("use", name, check=True)
        wanted = sandbox.mapping_file.read_bytes()
        tao, run = sandbox.in_run(name, "--shared")
        until(lambda: is_sealed(sandbox.mapping_file), "it is sealed", details=guard.log_text)
        replace(sandbox, b'{"Mounts": [], "held": %d}' % number)
        until(lambda: sandbox.mapping_file.read_bytes() == wanted, "it is put back", details=guard.log_text)
        tao.end()
        sandbox.wait(run)
        assert run.stdout is not None
        run.stdout.close()
        tao.close()
        until(lambda: not is_sealed(sandbox.mapping_file), "it is not sealed", details=guard.log_text)
        assert sandbox.mapping_file.read_bytes() == wanted
    else:
        content = b'{"Mounts": [], "free": %d}' % number
        replace(sandbox, content)
        until(lambda: sandbox.json("current")["data"]["state"] == "unmanaged", "it is taken in", details=guard.log_text)
        assert sandbox.mapping_file.read_bytes() == content


def size(sandbox: Sandbox) -> int:
    return Path(sandbox.context.history).stat().st_size >> 10


if __name__ == "__main__":
    main()
