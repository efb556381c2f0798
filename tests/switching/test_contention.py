"""Many processes switch at once while others read the mapping file without pause: nothing torn, nothing lost.

``TAOPROF_TEST_SECONDS=600`` makes it the long version, with about a million reads.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.home import ALL, Home
from tests.support.sandbox import rendered

pytestmark = pytest.mark.slow

NAMES = [f"p{number}" for number in range(8)]
SECONDS = int(os.environ.get("TAOPROF_TEST_SECONDS", 10 if ALL else 1))

WORKER = """
import json, os, random, subprocess, sys, time
import taoprofiles
how, seed, seconds, taoprof, *names = sys.argv[1:]
choose = random.Random(int(seed))
end = time.monotonic() + float(seconds)
calls, switches = 0, []
while time.monotonic() < end or not calls:
    name = choose.choice(names)
    if how == "api":
        try:
            result = taoprofiles.switch(name)
            changed, previous = result.changed, result.previous
        except taoprofiles.BusyError:  # on a machine so slow that one switch takes 10 s
            continue
    else:
        answer = subprocess.run([taoprof, "use", name, "--json"], stdout=subprocess.PIPE)
        if answer.returncode == 7:
            continue
        assert answer.returncode == 0
        data = json.loads(answer.stdout)["data"]
        changed, previous = data["changed"], data["previous"]
    calls += 1
    if changed:
        switches.append([previous, name])
print(json.dumps({"calls": calls, "switches": switches}))
"""

READER = """
import json, os, sys
path, stop, *known = sys.argv[1:]
known = {json.dumps(json.loads(text)) for text in known}
reads, contents = 0, set()
while reads % 64 or not os.path.exists(stop):
    with open(path, "rb") as file:
        found = json.dumps(json.loads(file.read()))
    assert found in known, found
    contents.add(found)
    reads += 1
print(json.dumps({"reads": reads, "contents": len(contents)}))
"""


@pytest.fixture
def crowd(home: Home) -> Home:
    for name in NAMES:
        home.profile(name)
        home.run("use", name, check=True)
    return home


@pytest.mark.timeout(SECONDS + 300)
def test_readers_never_see_anything_else(crowd: Home, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    known = {name: rendered(crowd, name).decode() for name in NAMES}
    before = _entries(crowd)
    began = time.monotonic()
    ways = ["api"] * 8 + ["command"] * 8
    workers = [_start(crowd, WORKER, way, n, SECONDS, crowd.taoprof, *NAMES) for n, way in enumerate(ways)]
    readers = [_start(crowd, READER, crowd.mapping_file, stop, *known.values()) for _ in range(4)]
    try:
        worked = [_answer(process, SECONDS + 60) for process in workers]
        stop.touch()
        read = [_answer(process, 60) for process in readers]
    finally:
        for process in workers + readers:
            process.kill()
            process.wait(30)
    seconds = time.monotonic() - began
    reads, calls = sum(r["reads"] for r in read), sum(w["calls"] for w in worked)
    switches = [tuple(pair) for w in worked for pair in w["switches"]]
    print(f"\n{reads} reads, {calls} switches ({len(switches)} changed the file), 20 processes, {seconds:.1f} s")

    assert all(w["calls"] > 0 for w in worked)
    assert all(r["contents"] > 1 for r in read), "a reader that saw no change tested nothing"
    entries = _entries(crowd)
    # Each tells from which profile it came: put in the order of the history, these are the profiles before.
    names = [entry["profile"] for entry in entries[len(before) - 1 :]]
    assert sorted(switches) == sorted(itertools.pairwise(names))
    assert [entry["id"] for entry in entries] == list(range(1, len(entries) + 1))
    assert {entry["action"] for entry in entries} == {"use"}
    assert all(entry["took_effect"] for entry in entries)
    for earlier, later in itertools.pairwise(entries):
        assert later["before"] == earlier["after"], (earlier, later)
    assert len({entry["by"] for entry in entries[len(before) :]}) > 8
    content = crowd.mapping_file.read_bytes()
    assert hashlib.sha256(content).hexdigest() == entries[-1]["after"]
    assert crowd.run("current", check=True).stdout.strip() == entries[-1]["profile"]
    assert content.decode() == known[entries[-1]["profile"]]
    assert [path.name for path in crowd.root.iterdir() if "taoprof-" in path.name] == []


def _start(home: Home, script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _answer(process: subprocess.Popen[str], timeout: float) -> dict[str, Any]:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, (out, err)
    assert err == ""
    answer: dict[str, Any] = json.loads(out)
    return answer


def _entries(home: Home) -> list[dict[str, Any]]:
    """List the history, the oldest entry first."""
    entries: list[dict[str, Any]] = home.json("history", "--all")["data"]["entries"]
    return entries[::-1]
