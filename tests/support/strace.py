"""Runs one switch under strace: which system calls it makes, and what comes of it if one of them is hit.

The victim loads everything first, so that between its two marks there are the calls of the switch and nothing else. It
says in strace's log whether the call that was hit was one of those, so a miscounted call cannot pass as a test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from taoprofiles.storage.files import MAPPING_LIMIT
from tests.support.home import Home, require

WATCHED = (
    "%file,read,write,pread64,pwrite64,close,fstat,flock,fcntl,fsync,fdatasync,ftruncate,fchmod,fchown,lseek,getdents64"
)
BEGIN, END = "/the-switch-begins", "/the-switch-ends"

VICTIM = f"""
import contextlib, hashlib, io, os, signal
from taoprofiles.cli import main
from taoprofiles.switching import switch
from taoprofiles.system import processes

processes.scan = list  # it only reads, and how many calls it makes depends on what else the machine is doing

def marked(*args, really=switch.switch_profile, **options):
    os.access("{BEGIN}", 0)
    try:
        return really(*args, **options)
    finally:
        os.access("{END}", 0)

with contextlib.redirect_stdout(io.StringIO()):
    main.run(["use", "b", "--dry-run"])
switch.switch_profile = marked
raise SystemExit(main.run(["use", "b"]))
"""

COMMANDS = """
import contextlib, io, json, sys
from taoprofiles.cli import main
answers = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.run(words)
    answers.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""


READS = (
    "access execve faccessat2 fcntl fstat getcwd getdents64 lseek lstat newfstatat pread64 read readlink stat".split()
)


class SyscallPoint(NamedTuple):
    """The ``number``-th ``call`` of the whole process; ``line`` is strace's text of it."""

    call: str
    number: int
    line: str

    @property
    def changes_something(self) -> bool:
        """Return whether the call may change files or locks: a kill before any other call leaves the same files."""
        if self.call in READS:
            return False
        return self.call != "openat" or any(flag in self.line for flag in ("O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC"))


class Scenario:
    """A home made ready once, of which every run gets a fresh copy, and the mappings that may be in its file."""

    def __init__(self, folder: Path, state: str) -> None:
        self.folder, self.state = folder, state
        self.sources = {name: folder / "data" / name for name in "abc"}
        self.home = Home(folder / "home")
        self.home.root.mkdir()
        texts = {}
        for name, source in self.sources.items():
            source.mkdir(parents=True)
            self.home.profile(
                name,
                f'schema = 1\nlayout = "custom"\n[[mounts]]\nsource = "{source}"\n'
                'destination = "/workspace/tao-experiments"\n',
            )
            self.home.run("use", name, check=True)
            texts[name] = self.home.mapping_file.read_bytes()
        self.mapping = texts
        # The templates stay: a victim that validates a profile would load pydantic between its marks.
        self.home.mapping_file.unlink()
        for path in (self.home.state / "objects", self.home.state / "history.jsonl", self.home.state / "cache/prompt"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.active = None
        self._arrange()
        self.old = self.home.mapping_file.read_bytes() if self.home.mapping_file.exists() else None
        self._copies = 0

    def _arrange(self) -> None:
        """Bring the home into the state; profile a active, or a file that no profile made, or none."""
        path = self.home.mapping_file
        if self.state == "foreign":
            path.write_text('{"Mounts": [{"source": "/theirs", "destination": "/data"}]}')
            path.chmod(0o644)
        if self.state == "symlink":
            target = self.home.root / "dotfiles/mounts.json"
            target.parent.mkdir()
            path.symlink_to("dotfiles/mounts.json")
        if self.state in ("own", "symlink", "read-only"):
            self.home.run("use", "a", check=True)
            self.active = "a"
        if self.state == "read-only":
            path.chmod(0o400)

    def copy(self) -> Home:
        self._copies += 1
        root = self.folder / f"copy-{self._copies}"
        shutil.copytree(self.home.root, root, symlinks=True)
        return Home(root)

    def points(self) -> list[SyscallPoint]:
        """Run the switch unhurt, and give the calls that it makes."""
        found: list[SyscallPoint] = []
        counts: Counter[str] = Counter()
        home = self.copy()
        done, log = victim(home)
        assert done.returncode == 0, done.stderr
        assert home.mapping_file.read_bytes() == self.mapping["b"]
        inside = False
        for line in log:
            call = _call(line)
            if call is None:
                continue
            counts[call] += 1
            if END in line:
                return found
            if inside:
                found.append(SyscallPoint(call, counts[call], line.split(" ", 1)[1]))
            inside = inside or BEGIN in line
        raise AssertionError("the victim never came to its second mark")


def victim(home: Home, injection: str | None = None) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run ``use b`` under strace, with something done to one call, and give what it said and the log."""
    require(shutil.which("strace"), "strace is not installed")
    log = home.root.with_name(home.root.name + ".strace")
    options = ["-e", f"inject={injection}"] if injection else []
    if injection is None or ":signal=" not in injection:
        options += ["-f", "--seccomp-bpf"]  # quicker, but strace 6.1 then sends no signals
    done = subprocess.run(
        ["strace", "-qq", "-o", str(log), "-e", f"trace={WATCHED}", *options, sys.executable, "-c", VICTIM],
        env={**home.environ, "PYTHONDONTWRITEBYTECODE": "1", "DOCKER_HOST": "unix:///nowhere/docker.sock"},
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    return done, log.read_text().splitlines()


def hit_inside(log: list[str], point: SyscallPoint) -> bool:
    """Check whether what was done to ``point`` was done between the marks, and to that call."""
    begun = next((number for number, line in enumerate(log) if BEGIN in line), None)
    if begun is None:
        return False
    after = log[begun + 1 :]
    return any(_call(line) == point.call and ("(INJECTED)" in line or line.endswith("= ?")) for line in after)


def commands(home: Home, *words: list[str]) -> list[tuple[int, str, str]]:
    """Run command lines one after the other in one new process; give status, stdout and stderr of each."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(words)],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return [tuple(answer) for answer in json.loads(done.stdout)]


def whole_and_reported_right(home: Home, scene: Scenario, before: bytes | None) -> None:
    """Check what must hold after anything: the right profile is named, and all goes on as usual with the next one."""
    current, use, history, listed, after = commands(
        home, ["current", "--json"], ["use", "c"], ["history", "--json"], ["list"], ["current"]
    )
    data = json.loads(current[1])["data"]
    answer = data["name"], data["state"]
    if before == scene.mapping["b"]:
        assert answer == ("b", "active")
    elif before is None:
        assert answer[1] == "none"
    else:
        assert answer == (scene.active, "active" if scene.active else "unmanaged")
    assert use[0] == 0, use
    assert history[0] == listed[0] == 0, (history, listed)
    assert (after[0], after[1]) == (0, "c\n")
    assert home.mapping_file.read_bytes() == scene.mapping["c"]
    entries = json.loads(history[1])["data"]["entries"]
    assert entries[0]["profile"] == "c"
    if scene.old is not None and scene.active is None:
        kept = [path.read_bytes() for path in (home.state / "objects").iterdir() if path.stat().st_size < MAPPING_LIMIT]
        assert scene.old in kept, "the foreign mapping can no longer be brought back"


def leftovers(home: Home) -> list[str]:
    """List the temporary files in the home."""
    found = home.root.rglob(".taoprof-*")
    return [str(path.relative_to(home.root)) for path in found]


def content(home: Home) -> bytes | None:
    return home.mapping_file.read_bytes() if os.path.exists(home.mapping_file) else None


def _call(line: str) -> str | None:
    found = re.match(r"(?:\d+\s+)?(\w+)\(", line)
    return found[1] if found else None
