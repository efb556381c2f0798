"""A switch that is killed before any of its changes: the file is the old or the new one, and the next command works."""

from __future__ import annotations

import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import strace
from tests.support.strace import Scenario, SyscallPoint

pytestmark = [pytest.mark.strace, pytest.mark.timeout(240)]

STATES = ["none", "own", "foreign", "symlink", "read-only"]


@pytest.mark.parametrize("state", STATES)
def test_killed_at_each_change(tmp_path: Path, state: str) -> None:
    scene = Scenario(tmp_path, state)
    _sweep(scene, "SIGKILL", -9)


@pytest.mark.parametrize("state", ["none", "own", "foreign"])
def test_interrupted_at_each_change(tmp_path: Path, state: str) -> None:
    """Ctrl-C runs the clean-up, which must leave the file and the history agreeing."""
    _sweep(Scenario(tmp_path, state), "SIGINT", None)


def _sweep(scene: Scenario, signal: str, status: int | None) -> None:
    """Send the signal before each call that changes something, and before the last call of all."""
    *points, last = scene.points()
    points = [*(point for point in points if point.changes_something), last]
    with ThreadPoolExecutor(2) as pool:
        faults = [fault for fault in pool.map(lambda point: _hit(scene, point, signal, status), points) if fault]
    print(f"{scene.state}: {signal} at {len(points)} points")
    assert not faults, f"{len(faults)} of {len(points)} points:\n" + "\n".join(faults)


def _hit(scene: Scenario, point: SyscallPoint, signal: str, status: int | None) -> str | None:
    home = scene.copy()
    try:
        done, log = strace.victim(home, f"{point.call}:signal={signal}:when={point.number}")
        if status is not None:
            assert strace.hit_inside(log, point), "the call was not hit inside the switch"
            assert done.returncode == status, done.stderr
        found = strace.content(home)
        assert found in (scene.old, scene.mapping["b"]), f"neither the old nor the new mapping: {found!r}"
        path = home.mapping_file
        assert path.is_symlink() == (scene.state == "symlink")
        if found is not None:
            mode = stat.S_IMODE(scene.home.mapping_file.stat().st_mode) if scene.old is not None else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == mode
        strace.whole_and_reported_right(home, scene, found)
        assert not strace.leftovers(home), f"left behind: {strace.leftovers(home)}"
    except AssertionError as error:
        return f"  {point.line[:150]}\n    → {str(error)[:300]}"
    finally:
        shutil.rmtree(home.root)
    return None
