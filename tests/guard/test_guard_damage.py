"""The guard, and commands beside it, where what is on disk is not what it should be."""

from __future__ import annotations

import errno
import json
import os

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.holds import manage
from taoprofiles.switching.guard_files import Seal
from tests.support.engine import until
from tests.support.guard_process import GuardProcess, held, is_sealed, replaced
from tests.support.home import ALL
from tests.support.injection import fail_calls
from tests.support.sandbox import Sandbox, kill


@pytest.mark.skipif(not ALL, reason="takes a dozen seconds: TAOPROF_TEST_ALL=1, as in CI")
@pytest.mark.parametrize("kind", ["folder", "pipe", "huge"])
@pytest.mark.parametrize("before_start", [True, False])
def test_an_invalid_mapping_file_is_reported_and_waited_for(sandbox: Sandbox, kind: str, before_start: bool) -> None:
    mapping, before = sandbox.mapping_file, sandbox.mapping_file.read_bytes()

    def take_its_place() -> None:
        fresh = sandbox.root / "fresh"
        if kind == "folder":
            fresh.mkdir()
            mapping.unlink()  # a folder cannot replace a file in one step
        elif kind == "pipe":
            os.mkfifo(fresh)
        else:
            fresh.write_bytes(b"")
            os.truncate(fresh, 17 << 20)
            fresh.chmod(0o640)
        fresh.rename(mapping)

    held(sandbox)
    if before_start:
        take_its_place()
    with GuardProcess(sandbox) as guard:
        if not before_start:
            until(lambda: is_sealed(mapping), "it is sealed")
            take_its_place()
        guard.until_logged("needs the previous mapping" if not before_start else ".tao_mounts.json'")
        looks = guard.notifications.count("WATCHDOG=1")
        guard.wait_for_loops(3)
        assert guard.notifications.count("WATCHDOG=1") - looks < 40, "it does not look without end"
        assert guard.log_text().count("needs the previous mapping") == 1, "it is said once"
        if kind == "huge":
            assert mapping.stat().st_mode & 0o777 == 0o640
        mapping.rmdir() if kind == "folder" else mapping.unlink()
        until(lambda: mapping.is_file() and mapping.read_bytes() == before, "it is put back", details=guard.log_text)


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        "{",
        '{"path": "a\\u0000b", "ino": 1, "mode": 384, "by": "a"}',
        '{"path": "/x", "ino": 1, "mode": -5, "by": ""}',
    ],
)
@pytest.mark.parametrize("lives", [True, False])
def test_a_damaged_seal_does_no_harm(sandbox: Sandbox, record: str, lives: bool) -> None:
    with GuardProcess(sandbox) as guard:
        hold = guard.hold()
        if not lives:
            kill(guard.process.pid)
            guard.process.wait()
        (sandbox.state / "guard/seal.json").write_text(record)
        manage.release(sandbox.context, hold)
        sandbox.run("status", check=True)
        sandbox.run("use", "b", check=True)
        if lives:
            until(
                lambda: sandbox.mapping_file.stat().st_mode & 0o7777 == 0o600, "it has its mode", details=guard.log_text
            )
    assert sandbox.mapping_file.stat().st_mode & 0o7000 == 0


def test_a_damaged_record_of_a_hold_takes_no_protection_from_others(sandbox: Sandbox) -> None:
    before = sandbox.mapping_file.read_bytes()
    held(sandbox)
    (sandbox.state / "holds/zzzzz.json").write_text("[]")
    with GuardProcess(sandbox) as guard:
        guard.until_sealed()
        replaced(sandbox)
        guard.until_logged(": restored")
        assert sandbox.mapping_file.read_bytes() == before
        assert "is damaged" in guard.log_text()


def test_what_a_guard_published_may_be_anything(sandbox: Sandbox) -> None:
    nonsense = {"v": 1, "pid": "x", "line": 5, "problem": [], "holds": [1], "unseen": 3, "engine": 7}
    with GuardProcess(sandbox):
        (published,) = [path for path in (sandbox.state / "guard").glob("*.json") if path.name != "seal.json"]
        published.write_text(json.dumps(nonsense))
        for verb in ("status", "list"):
            sandbox.run(verb, check=True)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("what", ["the file", "the record"])
def test_a_seal_that_cannot_be_removed_now_is_removed_later(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, code: int, what: str
) -> None:
    """Its record stays: without it the file would be read-only for ever."""
    assert Seal(sandbox.context).apply("a test", sandbox.mapping_file.stat().st_size)

    def is_hit(path: str, flags: int, *_: int) -> bool:
        return bool(flags & os.O_PATH) if what == "the file" else path == sandbox.context.seal

    fail_calls(monkeypatch, code, is_hit, "open")
    with pytest.raises(TaoprofError):
        Seal(sandbox.context).remove()
    monkeypatch.undo()
    sandbox.run("status", check=True)
    assert not is_sealed(sandbox.mapping_file)
