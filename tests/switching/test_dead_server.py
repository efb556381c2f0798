"""A source on a file server that does not answer: a look at it hangs, as on NFS, and hinders nobody else."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.runs.start import prepare
from taoprofiles.switching import switch
from taoprofiles.system import filesystem
from tests.support.commands import CommandResult, call
from tests.support.engine import until
from tests.support.sandbox import Sandbox

DEAD = "/dead/data"
PROFILE = f'schema = 1\nlayout = "custom"\n[[mounts]]\nsource = "{DEAD}"\ndestination = "/data"\n'


@pytest.fixture
def dead(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Return a home with the profile ``dead``; every look at its source hangs until the test ends."""
    over, stat, lstat = threading.Event(), os.stat, os.lstat

    def hanging(real):
        def look(path, *args, **options):
            if str(path).startswith("/dead"):
                over.wait(60)
                raise FileNotFoundError(path)
            return real(path, *args, **options)

        return look

    sandbox.profile("dead", PROFILE)
    monkeypatch.setattr(os, "stat", hanging(stat))
    monkeypatch.setattr(os, "lstat", hanging(lstat))
    monkeypatch.setattr(filesystem, "ANSWER_TIMEOUT", 0.5)
    yield sandbox
    over.set()
    until(lambda: not filesystem._waiting, "the looks have ended")


def test_a_switch_gives_up_and_others_do_not_wait(dead: Sandbox) -> None:
    errors: list[str] = []

    def attempt() -> None:
        with pytest.raises(TaoprofError) as raised:
            switch.switch_profile(dead.context, "dead")
        errors.append(raised.value.message)

    thread = threading.Thread(target=attempt)
    thread.start()
    time.sleep(0.1)
    dead.run("use", "b", check=True)
    assert thread.is_alive() or errors, "it looks at the source meanwhile"
    thread.join(20)
    assert errors == [f"'{DEAD}' does not answer within 0.5 s: its file server may be down"]
    assert dead.run("current").stdout == "b\n"


COMMANDS = [
    ["check"],
    ["check", "dead"],
    ["check", "dead", "--", "tao", "model", "dino", "train", "-e", "/data/x.yaml"],
    ["set", "dead", "DATA_DIR=/data"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_check_gives_up(dead: Sandbox, words: list[str]) -> None:
    dead.mapping_file.write_text(f'{{"Mounts": [{{"source": "{DEAD}", "destination": "/data"}}]}}')
    assert "does not answer within 0.5 s" in finish(dead, *words).err


SILENT = "does not answer within 0.5 s: its file server may be down"
READING = {
    "show dead": f"{DEAD}  →  /data  (does not answer)",
    "show dead --svg map.svg": "path map of 'dead' written to",
    "path /data/x dead": f"{DEAD}/x\n",
    f"path {DEAD}/x dead": "/data/x\n",
    "path /data/x": f"{DEAD}/x\n",
    "list": "dead",
    "status": "similar to    'dead'",
    "render dead --to docker --image i --gpus none": f"source={DEAD}",
    f"history {DEAD}": "",
    "new copy --from dead": "profile 'copy' created",
    "import --name imported": "imported as profile",
}


@pytest.mark.parametrize("command", READING)
def test_a_command_that_reads_shows_what_it_knows(dead: Sandbox, command: str) -> None:
    """One wait for all sources, however many profiles there are."""
    for number in range(10):
        dead.profile(f"dead{number}", PROFILE.replace(DEAD, f"{DEAD}{number}"))
    mounts = [{"source": DEAD, "destination": "/data"}, {"source": "/tmp", "destination": "/tmp"}]
    dead.mapping_file.write_text(json.dumps({"Mounts": mounts}))
    result = finish(dead, *command.split())
    assert result.status == 0, result.err
    assert READING[command] in result.out
    if command.startswith(("path", "render", "status")):
        assert SILENT in result.err


def test_a_path_that_does_not_answer_is_refused(dead: Sandbox) -> None:
    for words in (["new", "n", "--project-dir", f"{DEAD}/n"], ["path", "/dead/other", "b"]):
        assert SILENT in finish(dead, *words).err


def finish(home: Sandbox, *words: str) -> CommandResult:
    """Run a command, which must end."""
    results: list[CommandResult] = []
    thread = threading.Thread(target=lambda: results.append(call(home, *words)), daemon=True)
    thread.start()
    thread.join(15)
    assert results, "it hangs"
    return results[0]


def test_a_run_gives_up(dead: Sandbox) -> None:
    with pytest.raises(TaoprofError, match=r"does not answer within 0\.5 s"):
        prepare(dead.context, "dead", ["true"])
    assert dead.holds() == []
