"""Detached runs of which somebody is killed at a random moment.

    python -m tests.bench.detach [TIMES]

The starter, the run's own process, its command, a follower of the log, the guard, or who sends the notification. Each
run has one end, which is told once, nothing is held, and no line is lost.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.system import processes
from tests.support.engine import until
from tests.support.guard_process import GuardProcess
from tests.support.sandbox import Sandbox, kill
from tests.support.servers import WebReceiver

LINES = 60
SCRIPT = f"n=0; while [ $n -lt {LINES} ]; do echo line $n; n=$((n+1)); sleep 0.01; done; exit 7"
VICTIMS = ("starter", "run", "command", "follower", "guard", "sender")


def main() -> None:
    times = int(sys.argv[1]) if sys.argv[1:] else 200
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder)) as sandbox:
        sandbox.profiles_named("a", "b")
        sandbox.records.mkdir(exist_ok=True)
        with WebReceiver() as web:
            for number in range(times):
                # A new one each time: one that was killed is as one that was never started.
                with GuardProcess(sandbox) as guard:
                    outcomes[play(sandbox, web, guard, random.Random(number))] += 1
    sys.stdout.write("".join(f"{count:4} {outcome}\n" for outcome, count in sorted(outcomes.items())))


def play(sandbox: Sandbox, web: WebReceiver, guard: GuardProcess, chance: random.Random) -> str:
    """Start a run, kill one of those who have a part in it, and return how the run ended."""
    before = known(sandbox)
    words = (sandbox.taoprof, "run", "b", "--detach", "--notify", web.url, "--", "sh", "-c", SCRIPT)
    starter = sandbox.start(*words, stdout=subprocess.PIPE)
    victim = chance.choice(VICTIMS)
    moment = chance.uniform(0, 0.8 if victim != "sender" else 0.3)
    if victim != "starter":
        until(lambda: list(sandbox.records.glob("?????.json")) or starter.poll() is not None, "there is a run")
    follower = sandbox.start(sandbox.taoprof, "logs", "-f", "-", stdout=-3, stderr=-3) if victim == "follower" else None
    if victim == "sender":
        until(lambda: list((sandbox.state / "notifications").glob("*")), "a notification is being sent")
    time.sleep(moment)
    if victim == "guard":
        kill(guard.process.pid)
    elif victim in ("starter", "follower"):
        (follower or starter).kill()
    else:
        for pid in pids_of(sandbox, victim):
            kill(pid)
    out, _ = starter.communicate(timeout=60)
    until(
        # A temporary file of a command that was killed (.taoprof-new) is removed by the next change.
        lambda: sandbox.holds() == [] and not list(sandbox.records.glob("[!.]*")),
        f"nothing is held ({victim} killed after {moment:.3f} s)",
        details=lambda: f"{list(sandbox.records.iterdir())} {sandbox.holds()}",
    )
    # Without a guard it is the commands that look here.
    until(lambda: sandbox.holds() == [] and not list((sandbox.state / "notifications").glob("*")), "the end is titles")
    fresh = [run for run in sandbox.json("history", "--all")["data"]["runs"] if run["id"] not in before]
    assert len(fresh) <= 1, fresh
    if not fresh:
        assert victim == "starter" and out == "", (victim, out)
        return "starter killed: no run"
    (run,) = fresh
    titles = [message["title"] for message in web.about(run["id"])]
    wanted = "exit status unknown" if run["status"] is None else f"exit status {run['status']}"
    assert titles in ([], ["b finished"]) or all(wanted in title for title in titles), (run["status"], titles)
    assert len(titles) == 1 or (victim == "sender" and len(titles) == 2), (victim, titles)
    assert out in ("", f"{run['id']}\n")
    assert run["ended"] is not None
    log = sandbox.state / f"logs/{run['id']}.log"
    text = sandbox.run("logs", run["id"]).stdout if log.exists() else ""
    lines = [int(line) for line in re.findall(r"(?m)^line (\d+)$", text)]
    assert lines == list(range(len(lines))), lines
    if run["status"] == 7:
        assert len(lines) == LINES, lines
    if victim in ("follower", "guard", "sender"):
        assert run["status"] == 7, run
    lines_seen = "all lines" if len(lines) == LINES else "some lines" if lines else "no line"
    return f"{victim} killed: status {run['status']}, {lines_seen}, titles {len(titles)} times"


def known(sandbox: Sandbox) -> set[str]:
    return {run["id"] for run in sandbox.json("history", "--all")["data"]["runs"]}


def pids_of(sandbox: Sandbox, victim: str) -> list[int]:
    """Return the pids of the run's own process, its command or its sender, none if they do not exist now."""
    if victim == "sender":
        homes = processes.with_variable(os.getuid(), "HOME")
        own = [pid for pid, home in homes if home == str(sandbox.root)]
        return [pid for pid in own if b"runs.notify" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    holds = sandbox.holds()
    if victim == "run":
        return [hold["pid"] for hold in holds if hold["pid"]]
    ids = {hold["id"] for hold in holds}
    return [pid for pid, tag in processes.with_variable(os.getuid(), RUN_VARIABLE) if tag in ids]


if __name__ == "__main__":
    main()
