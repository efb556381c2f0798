"""A storm: foreign writers, switches, undos, holds, runs and SIGKILLs at once, in a home with a guard.

    python -m tests.bench.storm [MINUTES]

It goes in squalls of 15 s. In every second one there are only writers that replace the file in one step, so that a
reader must find a whole file at any time; in the others the file is also truncated, written in parts, and removed.
After each squall everyone ends, and then what must be so is checked.

A foreign writer swaps the file with its own (RENAME_EXCHANGE), so that it is known which contents it destroyed itself.
Every other one must be in the history, or in the file, or in the file behind a symlink that was swapped back. After
each squall a line says what the guard and the commands cost: on a busy machine a command waits, so its CPU time counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from taoprofiles.mounts import mapping
from taoprofiles.storage import atomic
from taoprofiles.storage.journal import History
from tests.bench.guard import cost, guarded_home
from tests.support.engine import until
from tests.support.guard_process import GuardProcess
from tests.support.sandbox import Sandbox, kill, rendered

SQUALL = 15.0
SLOWEST = 2.0
"""Seconds of CPU time that a command may take; five times as long, however busy the machine is."""

READER = """
import hashlib, os, sys, time
path, folder = sys.argv[1:]
contents, reads, missing = set(), 0, 0
while not os.path.exists(folder + "/over"):
    try:
        with open(path, "rb", 0) as file:
            content = os.read(file.fileno(), 1 << 20)  # in one: others write into it
    except FileNotFoundError:
        missing += 1
        content = None
    reads += 1
    if content is not None and content not in contents:
        contents.add(content)
        with open(f"{folder}/{len(contents)}.content", "wb") as file:
            file.write(content)
    time.sleep(0.0005)
print(reads, missing)
"""

STATUSES = {
    "use": {0, 1, 5, 7},
    "undo": {0, 1, 3, 5, 7},
    "hold": {0, 2, 7},  # 2: there is no mapping file
    "release": {0, 4, 7},
    "run": {0, 1, 5, 7},
    "stop": {0, 4, 7},
}
"""What a command may exit with in a storm; others only with 0."""


def exchange(fresh: Path, path: Path) -> bool:
    """Swap two names in one step; return False if nothing has the name ``path``, and then give it to ``fresh``."""
    while not atomic.exchange(str(fresh), str(path)):
        try:
            os.link(fresh, path, follow_symlinks=False)
        except FileExistsError:
            continue
        fresh.unlink()
        return False
    return True


class Storm:
    def __init__(self, sandbox: Sandbox, guard: GuardProcess) -> None:
        self.sandbox, self.guard = sandbox, guard
        sandbox.profile("c")
        sandbox.run("use", "c", check=True)
        self.path = sandbox.mapping_file
        self.profiles = [rendered(sandbox, name) for name in "abc"]
        self.random = random.Random(int(os.environ.get("TAOPROF_TEST_SEED", "20")))
        self.counts: Counter[str] = Counter()
        self.times: list[float] = []
        self.most_cpu = 0.0
        self.faults: list[str] = []
        self.number = 0
        self.lock, self.in_place = threading.Lock(), threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self.wholes: dict[bytes, str] = {}  # each content that a writer has finished, and how
        self.excused: set[bytes | None] = set()
        self.moved: set[tuple[int, int]] = set()
        self.parts: list[bytes] = []  # what was written in parts, so that a reader may find a part
        self.ids: list[str] = []

    def rage(self, minutes: float) -> None:
        end, squalls = time.monotonic() + minutes * 60, 0
        while time.monotonic() < end:
            self._squall(is_clean=squalls % 2 == 0)
            squalls += 1
            self._report(squalls)
        print(json.dumps({**self.counts, "faults": len(self.faults)}, indent=1))
        for fault in self.faults:
            print("FAULT", fault)
        raise SystemExit(bool(self.faults))

    def fault(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)
            print("FAULT", text, flush=True)

    # One squall

    def _squall(self, *, is_clean: bool) -> None:
        self._reset()
        self.sandbox.run("use", self.random.choice("abc"), check=True)
        folder = self.sandbox.folder / "contents"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        reader = subprocess.Popen([sys.executable, "-c", READER, self.path, folder], stdout=subprocess.PIPE, text=True)
        over = threading.Event()
        deeds: list[Callable[[random.Random], object]] = [self._hold, self._run, self._look]
        deeds += [lambda chance: self._do(chance, "use", chance.choice("abc-"))] * 4
        writes: list[Callable[[random.Random], object]] = [self._rename, self._rename, self._symlink, self._chmod]
        if not is_clean:
            deeds.append(lambda chance: self._do(chance, "undo"))
            writes += [
                lambda _: self._through("in place", 0),
                lambda chance: self._through("slowly", chance.uniform(0, 0.2)),
                lambda chance: self._through("append", chance.choice((0, 0.05)), append=True),
                lambda chance: self._through("torn", chance.uniform(0, 0.05), torn=True),
                self._delete,
            ]

        threads = [threading.Thread(target=self._attend, args=(over,))]
        for choices, pause, count in ((writes, 0.15, 2), (deeds, 0.1, 4)):
            for _ in range(count):
                words = (over, choices, pause, self.random.random())
                threads.append(threading.Thread(target=self._go_on, args=words))
        for thread in threads:
            thread.start()
        time.sleep(SQUALL)
        over.set()
        for thread in threads:
            thread.join()
        self._check_quiet()
        (folder / "over").touch()
        reads, missing = map(int, reader.communicate(timeout=20)[0].split())
        self.counts["reads"] += reads
        self._check_reader(folder, missing, is_clean=is_clean)

    def _go_on(
        self, over: threading.Event, choices: list[Callable[[random.Random], object]], pause: float, seed: float
    ) -> None:
        chance = random.Random(seed)
        while not over.is_set():
            try:
                chance.choice(choices)(chance)
            except Exception as error:  # what a writer meets is a fault of the storm, or ours
                self.fault(f"{error!r}")
            over.wait(chance.random() * pause)

    def _attend(self, over: threading.Event) -> None:
        chance, at = random.Random(self.random.random()), time.monotonic() + self.random.uniform(2, SQUALL)
        while not over.wait(0.1):
            self.guard.has_notified("")
            self.guard.notifications = self.guard.notifications[-50:]
            if time.monotonic() > at and chance.random() < 0.7:
                self._kill_guard()
                at = float("inf")

    def _kill_guard(self) -> None:
        self.counts["guard killed"] += 1
        self.guard.process.kill()
        self.guard.__exit__()
        time.sleep(self.random.random())
        self.guard = GuardProcess(self.sandbox, options=("--restores", "100000")).__enter__()

    # Foreign writers

    def _content(self, kind: str) -> bytes:
        with self.lock:
            self.number += 1
            number = self.number
        self.counts[f"writes: {kind}"] += 1
        pad = " " * self.random.choice((0, 0, 100, 9000))
        return b'{"Mounts": [], "number": %d, "by": "%s"%s}' % (number, kind.encode(), pad.encode())

    def _name(self, kind: str) -> Path:
        with self.lock:
            self.number += 1
            return self.sandbox.root / f"{kind}-{self.number}"

    def _swap(self, fresh: Path) -> None:
        if exchange(fresh, self.path):
            self._excuse(fresh)

    def _excuse(self, displaced: Path) -> None:
        """Note which content a foreign writer has itself taken away. The file stays until the end of the squall."""
        try:
            status = displaced.stat()
            self.moved.add((status.st_dev, status.st_ino))
            self.excused.add(displaced.read_bytes())
        except FileNotFoundError:
            pass  # a symlink that led nowhere

    def _rename(self, _: random.Random) -> None:
        fresh, content = self._name("fresh"), self._content("rename")
        fresh.write_bytes(content)
        self.wholes[content] = "rename"
        self._swap(fresh)

    def _symlink(self, _: random.Random) -> None:
        other, content = self._name("other"), self._content("symlink")
        other.write_bytes(content)
        self.wholes[content] = "symlink"
        fresh = self._name("fresh")
        fresh.symlink_to(other.name)
        self._swap(fresh)

    def _chmod(self, chance: random.Random) -> None:
        self.counts["writes: chmod"] += 1
        try:
            self.path.chmod(chance.choice((0o600, 0o644, 0o640)))
        except FileNotFoundError:
            pass

    def _through(self, kind: str, pause: float, *, append: bool = False, torn: bool = False) -> None:
        with self.in_place:
            content = self._content(kind)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            with open(fd, "r+b", 0) as file:
                before = file.read()
                self.excused.add(before)
                if append:
                    content = before + content
                else:
                    file.seek(0)
                    self.parts.append(content)
                self.parts.append(content)
                start = len(before) if append else 0
                middle = (start + len(content)) // 2
                if not append:
                    file.truncate(0)
                file.write(content[start:middle])
                time.sleep(pause)
                if torn:  # it dies
                    content = content[:middle]
                else:
                    file.write(content[middle:])
                status = os.fstat(fd)
                self.wholes[content] = kind
            if (status.st_dev, status.st_ino) in self.moved:
                self.excused.add(content)

    def _delete(self, _: random.Random) -> None:
        self.counts["writes: delete"] += 1
        trash = self._name("trash")
        try:
            os.rename(self.path, trash)
        except FileNotFoundError:
            return
        self._excuse(trash)

    # Commands

    def _do(
        self, chance: random.Random, *words: str, chance_of_kill: float = 0.1
    ) -> subprocess.CompletedProcess[str] | None:
        begun = time.monotonic()
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            process = self.sandbox.start(self.sandbox.taoprof, *words, stdout=stdout, stderr=stderr)
            is_killed = chance.random() < chance_of_kill
            if is_killed:
                time.sleep(chance.uniform(0.02, 0.3))
                kill(process.pid)  # not by the Popen, which may reap it
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            took, cpu = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
            stdout.seek(0)
            stderr.seek(0)
            out, err = stdout.read(), stderr.read()
        if "Traceback" in err:
            self.fault(f"{words}: {err[-2000:]}")
        if is_killed:
            self.counts["commands killed"] += 1
            return None
        self.counts["commands"] += 1
        self.counts[f"{words[0]} → {process.returncode}"] += 1
        is_explained = process.returncode not in (1, 3) or words[0] == "run" or "another program" in err
        if process.returncode not in STATUSES.get(words[0], {0}) or not is_explained:
            self.fault(f"{words} → {process.returncode}: {err[-500:]}")
        if words[0] != "run":
            with self.lock:
                self.times.append(took)
                self.most_cpu = max(self.most_cpu, cpu)
                self.counts[f"commands over {SLOWEST:g} s, most of it waiting"] += took > SLOWEST
            if cpu > SLOWEST or took > 5 * SLOWEST:
                self.fault(f"{words} took {took:.2f} s, {cpu:.2f} of CPU, load {os.getloadavg()[0]:.1f}")
        return subprocess.CompletedProcess(list(words), process.returncode, out, err)

    def _hold(self, chance: random.Random) -> None:
        if self.ids:
            self._do(chance, "release", self.ids.pop())
            return
        done = self._do(chance, "hold", "--reason", "a storm", "--json")
        if done is not None and done.returncode == 0:
            self.ids.append(json.loads(done.stdout)["data"]["id"])

    def _run(self, chance: random.Random) -> None:
        shared = ["--shared"] if chance.random() < 0.6 else []
        self._do(
            chance, "run", chance.choice("abc"), *shared, "--", "sleep", f"{chance.random():.1f}", chance_of_kill=0.3
        )

    def _look(self, chance: random.Random) -> None:
        self._do(chance, *chance.choice((["status"], ["history"], ["list"], ["current"], ["status", "--json"])))

    # What must be so

    def _held(self) -> list[str]:
        holds = self.sandbox.json("status")["data"]["holds"]
        return [hold["digest"] for hold in holds if hold["shared"] and not hold["released"]]

    def _check_quiet(self) -> None:
        """Check the end of a squall: what is held is there again, nothing goes on, and all contents are kept."""
        digests = self._held()
        if None not in digests and digests:
            try:
                until(lambda: not self._held() or self._digest() in self._held(), "what is held is back", seconds=8)
            except AssertionError:
                self.fault(f"held {self._held()}, there is {self._digest()}\n{self.guard.log_text()[-1500:]}")
        for hold in self.sandbox.json("status")["data"]["holds"]:
            if hold["kind"] == "manual":
                self.sandbox.run("release", hold["id"])
        until(lambda: not self._held(), "the runs have ended", seconds=20)
        until(self._is_recorded, "the guard has looked", seconds=30, details=self.guard.log_text)
        time.sleep(0.6)  # for late writes, and the files that were replaced
        before = History(self.sandbox.context).last_mapping()
        time.sleep(1)
        after = History(self.sandbox.context).last_mapping()
        if before != after:
            self.fault(f"it goes on although nobody does anything: {after}\n{self.guard.log_text()[-1500:]}")
        self._check_kept()
        for path in self.sandbox.root.glob("*-[0-9]*"):
            if not (self.path.is_symlink() and os.path.realpath(self.path) == str(path)):
                path.unlink()
        leftover = [path.name for path in self.sandbox.root.glob(".taoprof-*")]
        if leftover:
            self.fault(f"left behind: {leftover}")

    def _is_recorded(self) -> bool:
        self.guard.has_notified("")
        content = self.path.read_bytes() if self.path.exists() else None
        return History(self.sandbox.context).external_entry(content, writer=None) is None

    def _digest(self) -> str | None:
        try:
            return mapping.digest(self.path.read_bytes())
        except FileNotFoundError:
            return None

    def _check_kept(self) -> None:
        history = History(self.sandbox.context)
        entries = list(history.newest_first())
        known = {digest for entry in entries for digest in (entry.before, entry.after)}
        there = {path.read_bytes() for path in self.sandbox.root.glob("other-*")}
        for content, kind in list(self.wholes.items()):
            self.counts["contents"] += 1
            if content in self.excused:
                self.counts["contents that another writer destroyed"] += 1
            elif hashlib.sha256(content).hexdigest() in known:
                self.counts["contents in the history"] += 1
            elif content in there:
                self.counts["contents in the file of a symlink"] += 1
            else:
                self.counts["contents lost"] += 1
                self.fault(f"lost: {kind} {content[:60]!r}")
        for digest in known - {None}:
            if not (self.sandbox.state / "objects" / str(digest)).exists():
                self.fault(f"the history names {digest}, which is not stored")

    def _check_reader(self, folder: Path, missing: int, *, is_clean: bool) -> None:
        self.counts["reads that found no file"] += missing
        if is_clean and missing:
            self.fault(f"{missing} reads found no file, though nobody removed it")
        for path in folder.glob("*.content"):
            content = path.read_bytes()
            self.counts["contents seen by a reader"] += 1
            if content in self.profiles or content in self.wholes:
                continue
            is_part = any(whole.startswith(content) for whole in self.parts)
            # An undo brings back what another squall had in the file.
            is_stored = (self.sandbox.state / "objects" / hashlib.sha256(content).hexdigest()).exists()
            if is_clean or not (is_part or is_stored):
                self.fault(f"torn or unknown, in a {'clean' if is_clean else 'dirty'} squall: {content[:200]!r}")

    def _report(self, squalls: int) -> None:
        cpu, memory = cost(self.guard.process.pid)
        files = len(os.listdir(f"/proc/{self.guard.process.pid}/fd"))
        ordered = sorted(self.times)
        shown = f"{ordered[len(ordered) // 2]:.2f}/{ordered[len(ordered) * 99 // 100]:.2f}/{ordered[-1]:.2f}"
        print(
            f"squall {squalls}: guard {memory} MB, {files} descriptors, {cpu:.1f} s CPU; commands {len(self.times)}, "
            f"median/99 %/worst {shown} s, at most {self.most_cpu:.2f} s CPU; load {os.getloadavg()[0]:.1f}; "
            f"history {Path(self.sandbox.context.history).stat().st_size >> 10} kB; faults {len(self.faults)}",
            flush=True,
        )


if __name__ == "__main__":
    with guarded_home() as (sandbox, guard):
        Storm(sandbox, guard).rage(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
