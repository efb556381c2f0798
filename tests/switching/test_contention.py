"""Many processes switch at once while others read the mapping file without pause: nothing torn, nothing lost.

``TAOPROF_TEST_READS=1000000`` makes it the long version: the switching goes on until that many reads were made.
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

pytestmark = pytest.mark.slow

NAMES = [f"p{number}" for number in range(8)]
READS = int(os.environ.get("TAOPROF_TEST_READS", "0"))
SECONDS = 10 if ALL else 1
LONGEST = 1800 if READS else 60

WORKER = """
import json, os, random, subprocess, sys, time
import taoprofiles
how, seed, seconds, stop, taoprof, *names = sys.argv[1:]
seed, seconds = int(seed), float(seconds)
choose = random.Random(seed)
end = time.monotonic() + seconds
calls = changed = 0
while (time.monotonic() < end or not calls) and not os.path.exists(stop):
    name = choose.choice(names)
    if how == "api":
        try:
            done = taoprofiles.switch(name).changed
        except taoprofiles.BusyError:  # on a machine so slow that one switch takes 10 s
            continue
    else:
        answer = subprocess.run([taoprof, "use", name, "--json"], stdout=subprocess.PIPE)
        if answer.returncode == 7:
            continue
        assert answer.returncode == 0
        done = json.loads(answer.stdout)["data"]["changed"]
    calls, changed = calls + 1, changed + done
print(json.dumps({"calls": calls, "changed": changed}))
"""

READER = """
import json, os, sys
path, stop, limit, known = sys.argv[1], sys.argv[2], int(sys.argv[3]), set(sys.argv[4:])
known = {json.dumps(json.loads(text)) for text in known}
reads, contents = 0, set()
while (not limit or reads < limit) and (reads % 64 or not os.path.exists(stop)):
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


@pytest.mark.timeout(LONGEST + 60)
def test_readers_never_see_anything_else(crowd: Home, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    known = {name: _mapping(crowd, name) for name in NAMES}
    before = _entries(crowd)
    began = time.monotonic()
    workers = [
        _start(
            crowd, WORKER, "api" if n < 8 else "command", n, LONGEST if READS else SECONDS, stop, crowd.taoprof, *NAMES
        )
        for n in range(16)
    ]
    readers = [_start(crowd, READER, crowd.mapping_file, stop, -(-READS // 4), *known.values()) for _ in range(4)]
    try:
        first, then = (readers, workers) if READS else (workers, readers)
        answers = [_answer(process, LONGEST) for process in first]
        stop.touch()
        rest = [_answer(process, 60) for process in then]
    finally:
        _end(workers + readers)
    seconds = time.monotonic() - began
    worked, read = (rest, answers) if READS else (answers, rest)
    reads, calls = sum(r["reads"] for r in read), sum(w["calls"] for w in worked)
    changed = sum(w["changed"] for w in worked)
    print(f"\n{reads} reads, {calls} switches ({changed} changed the file), 20 processes, {seconds:.1f} s")

    assert all(w["calls"] > 0 for w in worked)
    assert all(r["contents"] > 1 for r in read), "a reader that saw no change tested nothing"
    assert reads >= READS
    entries = _entries(crowd)
    assert len(entries) - len(before) == changed
    _unbroken(entries)
    assert len({entry["by"] for entry in entries[len(before) :]}) > 8
    _file_is_what_was_said_last(crowd, entries, known)


def test_64_at_once(crowd: Home) -> None:
    known = {name: _mapping(crowd, name) for name in NAMES}
    before = _entries(crowd)
    processes = [
        subprocess.Popen(
            [crowd.taoprof, "use", NAMES[number % 8], "--json"],
            env=crowd.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(64 if ALL else 24)
    ]
    try:
        answers = [_answer(process, 60)["data"] for process in processes]
    finally:
        _end(processes)
    entries = _entries(crowd)
    assert len(entries) - len(before) == sum(answer["changed"] for answer in answers)
    # Each tells from which profile it came: put in the order of the history, these are the profiles before.
    switches = sorted((answer["previous"], answer["name"]) for answer in answers if answer["changed"])
    names = [entry["profile"] for entry in entries[len(before) - 1 :]]
    assert switches == sorted(itertools.pairwise(names))
    _unbroken(entries)
    _file_is_what_was_said_last(crowd, entries, known)


def _mapping(home: Home, name: str) -> str:
    """Return the text of a profile's mapping, as the launcher would read it."""
    home.run("use", name, check=True)
    return home.mapping_file.read_text()


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


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait(30)


def _entries(home: Home) -> list[dict[str, Any]]:
    """List the history, the oldest entry first."""
    entries: list[dict[str, Any]] = home.json("history", "--all")["data"]["entries"]
    return entries[::-1]


def _unbroken(entries: list[dict[str, Any]]) -> None:
    assert [entry["id"] for entry in entries] == list(range(1, len(entries) + 1))
    assert {entry["action"] for entry in entries} == {"use"}
    assert all(entry["took_effect"] for entry in entries)
    for earlier, later in itertools.pairwise(entries):
        assert later["before"] == earlier["after"], (earlier, later)


def _file_is_what_was_said_last(home: Home, entries: list[dict[str, Any]], known: dict[str, str]) -> None:
    held = home.mapping_file.read_bytes()
    assert hashlib.sha256(held).hexdigest() == entries[-1]["after"]
    name = home.run("current", check=True).stdout.strip()
    assert name == entries[-1]["profile"]
    assert held.decode() == known[name]
    assert [path.name for path in home.root.iterdir() if path.name.startswith("..tao")] == []
