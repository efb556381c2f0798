"""The guard while it restores and seals, with each of its system calls failing, or being the last one before SIGKILL.

It goes on, and the next look does what this one could not; after a kill the next guard does.
"""

from __future__ import annotations

import random
import shutil
import stat
from pathlib import Path

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.guard.daemon import Daemon
from taoprofiles.guard.guard import Options
from taoprofiles.storage.paths import Context
from tests.support import injection
from tests.support.guard_process import FOREIGN, held, kept, replaced
from tests.support.home import Home
from tests.support.injection import STEP

pytestmark = [pytest.mark.strace, pytest.mark.timeout(7200)]

LOOKS = 4


def guarded(home: Home) -> int:
    """Do what a guard does from its start to its end."""
    daemon = Daemon(Context(home.environ), Options())
    try:
        daemon._guard.files.acquire()
    except TaoprofError as error:
        return error.status  # the service manager starts it again
    for _ in range(LOOKS):
        daemon._step({"changed"})
    try:
        daemon._guard.end()
    except (TaoprofError, OSError):
        return 1  # the next command unseals
    return 0


@pytest.mark.parametrize("case", ["a restore", "a foreign write", "a hold"])
def test_a_call_fails_or_is_the_last(tmp_path: Path, case: str) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    for name in "ba":
        home.profile(name)
        home.run("use", name, check=True)
    wanted = home.mapping_file.read_bytes()
    if case != "a foreign write":
        held(home)
    if case != "a hold":
        replaced(home)
    if case == "a foreign write":
        wanted = FOREIGN
    clean = injection.copied(home, tmp_path / "clean")
    every = [(point, way) for point in injection.points(clean, lambda: guarded(clean)) for way in point.injections]
    some = every[random.randrange(STEP) :: STEP] if STEP > 1 else every
    faults, missed = [], 0
    for number, (point, way) in enumerate(some):
        copy = injection.copied(home, tmp_path / f"copy-{number}")
        ended = injection.run(copy, lambda: guarded(copy), f"{point.call}:{way}:when={point.number}")  # noqa: B023
        if not injection.was_hit(ended, point, copy):
            missed += 1
        elif problem := wrong(copy, ended, wanted, is_foreign=case != "a hold"):
            faults.append(f"{way} {point.line[:200].replace(str(clean.root), '~')}\n    → {problem[:1200]}")
        shutil.rmtree(copy.root)
    print(f"{case}: {len(every)} injections, {len(some)} tried, {missed} missed, {len(faults)} faults")
    assert not faults, f"{len(faults)} of {len(some)}:\n" + "\n".join(faults)
    assert missed <= len(some) // 2  # what it calls depends a little on the time


def wrong(home: Home, ended: injection.Ended, wanted: bytes, *, is_foreign: bool) -> str:
    """Return what is wrong, "" if nothing is."""
    if "Traceback" in ended.err or "internal error" in ended.err:
        return ended.err[-1100:]
    if ended.status not in (0, 1, -9):
        return f"status {ended.status}: {ended.err}"
    if ended.status != 0:
        again = injection.run(home, lambda: guarded(home))
        if again.status != 0 or "Traceback" in again.err:
            return f"the next guard: {again.status} {again.err}"
    if home.mapping_file.read_bytes() != wanted:
        return f"there is {home.mapping_file.read_bytes()!r}; {ended.err}"
    if is_foreign and not kept(home, FOREIGN):
        return f"the foreign content is lost; {ended.err}"
    if problem := injection.run_next(home, ["list"], ["history"], ["status"]):
        return problem
    if stat.S_IMODE(home.mapping_file.stat().st_mode) & 0o200 == 0:  # a command unseals what no guard could
        return f"it stays sealed; {ended.err}"
    if any(home.root.glob(".taoprof-*-*")):  # a replaced file that could not be read waits for the next guard
        injection.run(home, lambda: guarded(home))
    left = [path.name for path in home.root.glob(".taoprof-*-*")]  # the others wait for the next switch
    return f"left behind: {left}" if left else ""
