"""A switch whose system calls fail one by one, and a disk that is full: a clear error, and all is as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import injection, strace
from tests.support.home import Home, require
from tests.support.strace import Scenario, SyscallPoint

pytestmark = pytest.mark.timeout(240)

FAILURES = injection.FAILURES | {
    "pwrite64": ("ENOSPC", "EIO", "EDQUOT"),
    "fsync": ("ENOSPC", "EIO", "EDQUOT"),
    "close": ("ENOSPC", "EIO", "EDQUOT"),
    "linkat": ("ENOSPC", "EIO", "EACCES", "EPERM", "EXDEV"),
    "fchown": ("EIO", "EPERM"),
}


def clear(done: subprocess.CompletedProcess[str], statuses: tuple[int, ...] = (1, 3)) -> None:
    """Check that an error is one line, perhaps with the problems and a hint, and no traceback."""
    assert done.returncode in statuses, (done.returncode, done.stderr[-300:])
    first, *rest = done.stderr.splitlines()
    assert first.startswith("taoprof: error: "), done.stderr[-300:]
    for line in rest:
        is_folder = line.startswith("  ") and "   (mounted at " in line
        assert is_folder or line.startswith(("  mounts[", "hint: ")), done.stderr[-300:]
    assert done.stdout == ""


@pytest.mark.strace
@pytest.mark.parametrize(("number", "state"), [*enumerate(["none", "own", "foreign", "symlink"])])
def test_each_call_fails(tmp_path: Path, number: int, state: str) -> None:
    scene = Scenario(tmp_path, state)
    failures = []
    for turn, point in enumerate(scene.points(), number):
        errors = FAILURES.get(point.call)
        if errors:  # which error it is matters to the same code: each state begins with another one
            failures.append((point, errors[turn % len(errors)]))
    with ThreadPoolExecutor(2) as pool:
        faults = [fault for fault in pool.map(lambda both: _fail(scene, *both), failures) if fault]
    print(f"{state}: {len(failures)} failures")
    assert not faults, f"{len(faults)} of {len(failures)} failures:\n" + "\n".join(faults)


def _fail(scene: Scenario, point: SyscallPoint, error: str) -> str | None:
    home = scene.copy()
    try:
        done, log = strace.victim(home, f"{point.call}:error={error}:when={point.number}")
        assert strace.hit_inside(log, point), "the call was not hit inside the switch"
        found = strace.content(home)
        if done.returncode == 0:
            assert found == scene.mapping["b"], "the switch said that it was done"
        else:
            clear(done)
            assert found == scene.old, f"not as it was, after: {done.stderr}"
        assert home.mapping_file.is_symlink() == (scene.state == "symlink")
        strace.whole_and_reported_right(home, scene, found)
        assert not strace.leftovers(home), f"left behind: {strace.leftovers(home)}"
    except AssertionError as fault:
        return f"  {error}: {point.line[:170]}\n    → {str(fault)[:400]}"
    finally:
        shutil.rmtree(home.root)
    return None


@pytest.mark.strace
@pytest.mark.parametrize("error", ["ENOLCK", "EIO", "ENOSYS"])
def test_file_system_without_locks(tmp_path: Path, error: str) -> None:
    """Every flock fails: told as what it is at once, not as another command that would be at work."""
    scene = Scenario(tmp_path, "own")
    done, _ = strace.victim(scene.home, f"flock:error={error}:when=1+")
    if done.returncode != 0:
        clear(done)
        assert "another taoprof command" not in done.stderr
        assert strace.content(scene.home) == scene.old
    else:
        assert done.stderr == ""
    strace.whole_and_reported_right(scene.home, scene, strace.content(scene.home))


@pytest.mark.strace
@pytest.mark.parametrize("calls", ["fsync", "pwrite64", "rename"])
def test_everything_fails_from_then_on(tmp_path: Path, calls: str) -> None:
    """A disk that has gone: not even what was begun can be taken back by these calls."""
    scene = Scenario(tmp_path, "own")
    last = next(point for point in scene.points() if point.call == calls and "cache" not in point.line)
    done, log = strace.victim(scene.home, f"{calls}:error=EIO:when={last.number}+")
    assert strace.hit_inside(log, last)
    if done.returncode != 0:
        clear(done)
        assert strace.content(scene.home) == scene.old
    strace.whole_and_reported_right(scene.home, scene, strace.content(scene.home))


FULL = """
set -e
mount -t tmpfs -o size=64k,mode=700 tmpfs "$HOME"
cp -a "$HOME-before/." "$HOME"
dd if=/dev/zero of="$HOME/ballast" bs=4096 2>/dev/null || true
truncate -s "-$1" "$HOME/ballast"
status=0
"$TAOPROF" use b || status=$?
cp -a "$HOME" "$HOME-after"
rm -f "$HOME/ballast"
"$TAOPROF" use b >/dev/null
"$TAOPROF" current
exit $status
"""


@pytest.mark.parametrize("free", [0, 4096, 8192, 12288])
def test_full_disk(tmp_path: Path, free: int) -> None:
    """A really full file system, at several depths of the switch; once there is space, the same command works."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "only root may mount a small file system")
    scene = Scenario(tmp_path, "own")
    home = scene.home
    home.root.rename(tmp_path / "home-before")
    home.root.mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", FULL, "sh", str(free)],
        env={**home.environ, "TAOPROF": home.taoprof},
        capture_output=True,
        text=True,
        timeout=60,
    )
    after = Home(tmp_path / "home-after")
    assert done.stdout.endswith("b\n"), (done.stdout, done.stderr)
    if done.returncode == 0:
        assert free > 0, "a disk with nothing free makes the switch fail"
        assert strace.content(after) == scene.mapping["b"]
        return
    assert done.returncode == 1, done.stderr
    first, hint = done.stderr.splitlines()
    assert first.startswith("taoprof: error: cannot ") and "no space left on device" in first
    assert hint == "hint: free some space, then run the command again; nothing was changed"
    assert strace.content(after) == scene.old
    assert not strace.leftovers(after)
    assert (after.state / "history.jsonl").read_bytes() == (
        tmp_path / "home-before/.local/state/taoprofiles/history.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("words", [["list"], ["current", "--json"], ["use", "a"], ["history"]])
@pytest.mark.parametrize("where", ["full", "closed"])
def test_answer_that_cannot_be_written(home: Home, words: list[str], where: str) -> None:
    """Standard output on a full disk, or closed by the caller (``>&-``): told, or nothing to tell; no traceback."""
    home.profile("a")
    home.run("use", "a", check=True)
    to = ">/dev/full" if where == "full" else ">&-"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {to}', home.taoprof, *words],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr[-300:]
    if where == "full":
        assert done.returncode == 1
        assert done.stderr.startswith("taoprof: error: ")
