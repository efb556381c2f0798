"""``use`` with each of its system calls failing, or hit by SIGKILL or Ctrl-C, whatever stood in the mapping file.

``tests/cli/test_faults.py`` tries a sample of the calls of every command; here are all of the switch's.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import filelock  # noqa: F401 - loaded before the forks
import pytest

from taoprofiles.cli import main
from tests.support import injection
from tests.support.commands import call
from tests.support.home import Home, require
from tests.support.injection import Ended, Point

pytestmark = pytest.mark.timeout(600)

STATES = ["none", "own", "foreign", "symlink", "read-only"]


class Scene(NamedTuple):
    """A home from which every run gets a fresh copy, and what may be in the mapping file after it."""

    home: Home
    state: str
    old: bytes | None
    new: bytes

    def hit(self, injected: str, number: object) -> tuple[Home, Ended]:
        """Run the switch in a copy of the home with something done to one call."""
        copy = injection.copied(self.home, self.home.root.with_name(f"copy-{number}"))
        return copy, injection.run(copy, use_b, injected)


def use_b() -> int:
    return main.run(["use", "b"])


def make_scene(folder: Path, state: str) -> Scene:
    """Bring a home into the state: profile a is active, or a file that no profile made is there, or none."""
    home = Home(folder / "home")
    home.root.mkdir()
    for name in "cab":
        home.profile(name)
        home.run("use", name, check=True)
    new = home.mapping_file.read_bytes()
    home.mapping_file.unlink()
    (home.state / "history.jsonl").unlink()
    shutil.rmtree(home.state / "objects")
    if state == "foreign":
        home.mapping_file.write_text('{"Mounts": [{"source": "/theirs", "destination": "/data"}]}')
        home.mapping_file.chmod(0o644)
    elif state != "none":
        if state == "symlink":
            (home.root / "dotfiles").mkdir()
            home.mapping_file.symlink_to("dotfiles/mounts.json")
        home.run("use", "a", check=True)
    if state == "read-only":
        home.mapping_file.chmod(0o400)
    call(injection.copied(home, folder / "warm"), "use", "b")  # everything is loaded
    return Scene(home, state, home.content(), new)


def check_error(status: int, out: str, err: str) -> None:
    """Check that an error is one line, perhaps with the problems and a hint, and no traceback."""
    assert status in (1, 3), (status, err[-300:])
    first, *rest = err.splitlines()
    assert first.startswith("taoprof: error: "), err[-300:]
    for line in rest:
        is_folder = line.startswith("  ") and "   (mounted at " in line
        assert is_folder or line.startswith(("  mounts[", "hint: ")), err[-300:]
    assert out == ""


def check_home(scene: Scene, home: Home) -> None:
    """Check what must hold after anything: the right profile is named, and all goes on as usual with the next one."""
    content = home.content()
    assert content in (scene.old, scene.new), f"neither the old nor the new mapping: {content!r}"
    assert home.mapping_file.is_symlink() == (scene.state == "symlink")
    if content is not None:
        mode = 0o600 if scene.old is None else stat.S_IMODE(scene.home.mapping_file.stat().st_mode)
        assert stat.S_IMODE(home.mapping_file.stat().st_mode) == mode
    states = {"none": (None, "none"), "foreign": (None, "unmanaged")}
    expected = ("b", "active") if content == scene.new else states.get(scene.state, ("a", "active"))
    data = call(home, "current", "--json").envelope["data"]
    assert (data["name"], data["state"]) == expected
    for words in (["use", "c"], ["history"], ["list"]):
        done = call(home, *words)
        assert done.status == 0, done
    assert call(home, "current").out == "c\n"
    left = [path.name for path in home.root.rglob("*") if ".taoprof-" in path.name]
    assert not left, f"left behind: {left}"


def injections(point: Point, turn: int) -> list[str]:
    """Return what is done to a call: one of its errors, since the same code handles all, and what could kill it."""
    errors = [way for way in point.injections if way.startswith("error=")]
    kills = [way for way in point.injections if way.startswith("signal=")]
    return [errors[turn % len(errors)], *kills, *(["signal=SIGINT"] if kills else [])]


@pytest.mark.strace
@pytest.mark.parametrize("state", STATES)
def test_each_call_fails_or_is_hit_by_a_signal(tmp_path: Path, state: str) -> None:
    scene = make_scene(tmp_path, state)
    points = injection.points(injection.copied(scene.home, tmp_path / "clean"), use_b)
    every = [(point, way) for turn, point in enumerate(points) for way in injections(point, turn)]
    faults, missed = [], 0
    for number, (point, way) in enumerate(every):
        home, ended = scene.hit(f"{point.call}:{way}:when={point.number}", number)
        try:
            if not way.endswith("SIGINT") and not injection.was_hit(ended, point, home):
                missed += 1
            elif ended.status == 0:
                assert home.content() == scene.new, "the switch said that it was done"
            elif way.startswith("error="):
                check_error(ended.status, ended.out, ended.err)
                assert home.content() == scene.old, f"not as it was, after: {ended.err}"
            check_home(scene, home)
        except AssertionError as fault:
            faults.append(f"{way} {point.line[:170]}\n    → {str(fault)[:400]}")
        shutil.rmtree(home.root)
    print(f"{state}: {len(every)} injections, {missed} missed")
    assert not faults, f"{len(faults)} of {len(every)}:\n" + "\n".join(faults)
    assert missed <= len(every) // 4  # what it calls depends a little on the time


@pytest.mark.strace
@pytest.mark.parametrize(
    "injected", ["flock:ENOLCK", "flock:EIO", "flock:ENOSYS", "fsync:EIO", "pwrite64:EIO", "rename:EIO"]
)
def test_everything_fails_from_then_on(tmp_path: Path, injected: str) -> None:
    """A file system without locks, or a disk that has gone: what was begun cannot be taken back by these calls."""
    name, error = injected.split(":")
    scene = make_scene(tmp_path, "own")
    points = injection.points(injection.copied(scene.home, tmp_path / "clean"), use_b)
    first = next(point for point in points if point.call == name and "cache" not in point.line)
    home, ended = scene.hit(f"{name}:error={error}:when={first.number}+", 0)
    assert injection.was_hit(ended, first, home)
    if ended.status != 0:
        check_error(ended.status, ended.out, ended.err)
        assert "another taoprof command" not in ended.err, "missing locks are told as what they are, at once"
        assert home.content() == scene.old
    elif name == "flock":
        assert ended.err == ""
    check_home(scene, home)


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
    scene = make_scene(tmp_path, "own")
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
        assert after.content() == scene.new
        return
    assert done.returncode == 1, done.stderr
    first, hint = done.stderr.splitlines()
    assert first.startswith("taoprof: error: cannot ") and "no space left on device" in first
    assert hint == "hint: free some space, then run the command again; nothing was changed"
    assert after.content() == scene.old
    assert not list(after.root.rglob(".taoprof-*"))
    assert (after.state / "history.jsonl").read_bytes() == (
        tmp_path / "home-before/.local/state/taoprofiles/history.jsonl"
    ).read_bytes()
