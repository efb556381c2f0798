"""The guard under all that a busy person does: does its memory grow, do its descriptors, does the file drift?

    python -m tests.bench.soak [MINUTES]

Each minute 20 switches, 5 runs on the shared file and 10 foreign writes, one after the other at random; after each, the
file must be what the rules say. One line a minute.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from tests.bench.guard import cost, guarded_home, replace
from tests.support.actors import Stage
from tests.support.engine import until
from tests.support.guarding import Guarded, is_sealed


def main() -> None:
    minutes = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with guarded_home() as (stage, guard):
        for minute in range(minutes):
            begun = time.monotonic()
            deeds = ["switch"] * 20 + ["run"] * 5 + ["write"] * 10
            random.Random(minute).shuffle(deeds)
            for number, deed in enumerate(deeds):
                guard.has_told("")  # as a service manager does, read what it says
                do(stage, deed, number, guard)
                time.sleep(max(0.0, begun + 60 * (number + 1) / len(deeds) - time.monotonic()))  # spread over it
            cpu, memory = cost(guard.process.pid)
            files = len(os.listdir(f"/proc/{guard.process.pid}/fd"))
            line = f"minute {minute + 1}: {memory} MB resident, {files} descriptors, {cpu:.1f} s of CPU"
            sys.stdout.write(f"{line}, history of {size(stage)} kB\n")
            sys.stdout.flush()


def do(stage: Stage, deed: str, number: int, guard: Guarded) -> None:
    name = "ab"[number % 2]
    if deed == "switch":
        stage.run("use", name, check=True)
        assert stage.json("current")["data"]["name"] == name
    elif deed == "run":
        stage.run("use", name, check=True)
        wanted = stage.mapping_file.read_bytes()
        tao, run = stage.in_run(name, "--shared")
        until(lambda: is_sealed(stage.mapping_file), "it is sealed", told=guard.said)
        replace(stage, b'{"Mounts": [], "held": %d}' % number)
        until(lambda: stage.mapping_file.read_bytes() == wanted, "it is put back", told=guard.said)
        tao.end()
        stage.wait(run)
        assert run.stdout is not None
        run.stdout.close()
        tao.close()
        until(lambda: not is_sealed(stage.mapping_file), "it is not sealed", told=guard.said)
        assert stage.mapping_file.read_bytes() == wanted
    else:
        content = b'{"Mounts": [], "free": %d}' % number
        replace(stage, content)
        until(lambda: stage.json("current")["data"]["state"] == "unmanaged", "it is taken in", told=guard.said)
        assert stage.mapping_file.read_bytes() == content


def size(stage: Stage) -> int:
    return Path(stage.context.history).stat().st_size >> 10


if __name__ == "__main__":
    main()
