"""A source on a file server that does not answer: a look at it hangs, as on NFS, and hinders nobody else."""

from __future__ import annotations

import os
import threading
import time

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.runs import run
from taoprofiles.switching import preflight, switch
from tests.support.commands import CommandResult, call
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
    monkeypatch.setattr(preflight.require_answer, "__defaults__", (1.0,))
    yield sandbox
    over.set()


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
    assert errors == [f"'{DEAD}' does not answer within 1 s: its file server may be down"]
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
    results: list[CommandResult] = []
    thread = threading.Thread(target=lambda: results.append(call(dead, *words)))
    thread.start()
    thread.join(15)
    assert results, "it hangs"
    assert "does not answer within 1 s" in results[0].err


def test_a_run_gives_up(dead: Sandbox) -> None:
    with pytest.raises(TaoprofError, match="does not answer within 1 s"):
        run.prepare(dead.context, "dead", ["true"])
    assert dead.holds() == []
