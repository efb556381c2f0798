"""A power cut at any moment of a change: the mapping file is old or new, all goes on, and nothing stored is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from taoprofiles.storage.journal import History, digest_of
from tests.support import power_loss
from tests.support.commands import call
from tests.support.guard_process import FOREIGN
from tests.support.home import ALL, Home

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

RESTORE = """
from taoprofiles.storage.atomic import FileAttributes
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch
context = Context()
history = switch.History(context)
wanted = history.load_content(history.last_mapping().after)
with Lock(context.lock):
    like = FileAttributes(0o600, context.uid, context.gid)
    switch.restore(context, wanted, "a", link=None, attributes=like, writer="vim")
"""

STEP = int(os.environ.get("TAOPROF_TEST_CRASH_STEP", 2 if ALL else 12))
"""Of the states that a crash may leave, every so many is tried; 1 is all of them."""


def unused(home: Home) -> None:
    """Nothing was ever used, and a mapping was made by hand."""
    home.mapping_file.write_bytes(FOREIGN)
    shutil.rmtree(home.state)


def active(home: Home) -> None:
    home.run("use", "a", check=True)


def overwritten(home: Home) -> None:
    home.run("use", "a", check=True)
    home.mapping_file.write_bytes(FOREIGN)


def linked(home: Home) -> None:
    (home.root / "dotfiles").mkdir()
    home.mapping_file.symlink_to("dotfiles/mounts.json")
    home.run("use", "a", check=True)


def with_project(home: Home) -> None:
    active(home)
    text = 'schema = 1\nlayout = "custom"\n[[mounts]]\nsource = "."\ndestination = "/data"\n'
    (home.root / "projects/a/.taoprof.toml").write_text(text)


COMPACTING = f"""\
from taoprofiles.storage import journal
journal.SIZE_LIMIT, journal.KEPT_SIZE = 1, 500
{power_loss.COMMAND}"""

CASES: dict[str, tuple[Callable[[Home], None], list[str], str]] = {
    "first switch": (unused, ["use", "b"], power_loss.COMMAND),
    "switch": (active, ["use", "b"], power_loss.COMMAND),
    "switch from an unmanaged mapping": (overwritten, ["use", "b"], power_loss.COMMAND),
    "switch of a symlink": (linked, ["use", "b"], power_loss.COMMAND),
    "switch that compacts the history": (overwritten, ["use", "b"], COMPACTING),
    "undo to no file": (active, ["undo"], power_loss.COMMAND),
    "restore": (overwritten, [], RESTORE),
    "hold": (active, ["hold", "a", "--reason", "test"], power_loss.COMMAND),
    "first hold": (unused, ["hold", "--reason", "test"], power_loss.COMMAND),
    "rename": (active, ["rename", "a", "x"], power_loss.COMMAND),
    "set": (active, ["set", "a", "NUM_GPUS=2"], power_loss.COMMAND),
    "new with a project file": (active, ["new", "d", "--project-dir", "projects/a", "--project"], power_loss.COMMAND),
    "trust": (with_project, ["trust", "projects/a", "--name", "d", "--yes"], power_loss.COMMAND),
    "purge": (active, ["history", "--purge", "--yes"], power_loss.COMMAND),
}


@pytest.mark.parametrize("model", ["journal", "POSIX"])
@pytest.mark.parametrize("case", CASES)
def test_power_loss(home: Home, case: str, model: str) -> None:
    prepare, words, script = CASES[case]
    for name in "abc":
        home.profile(name)
        home.run("show", name, check=True)
        home.run("use", name, check=True)
    home.mapping_file.unlink()
    for path in (home.state / "history.jsonl", home.state / "cache/prompt"):
        path.unlink(missing_ok=True)
    shutil.rmtree(home.state / "objects")
    prepare(home)
    old = home.content()
    disk = power_loss.Disk(home.root)
    disk.run(home, *words, script=script)
    new = home.content()
    faults, count = [], 0
    for tree in disk.crashes(model):
        count += 1
        if count % STEP:
            continue
        home = Home(home.root.with_name(f"crash-{count}"))
        power_loss.build(tree, home.root)
        try:
            wait_for_loops(home, case, (old, new))
        except AssertionError as error:
            faults.append(f"state {count}: {str(error)[:400]}")
        finally:
            shutil.rmtree(home.root)
    print(f"{case}, {model}: {len(disk.changes)} changes, {count} states")
    assert count > 3
    assert not faults, f"{len(faults)} of {count} states:\n" + "\n".join(faults[:10])


def wait_for_loops(home: Home, case: str, contents: tuple[bytes | None, bytes | None]) -> None:
    """Check that a home can be used on, and that the content that is not in its mapping file is stored."""
    before = home.content()
    assert before in contents, f"neither the old nor the new mapping: {before!r}"
    names = sorted(path.stem for path in home.profiles.glob("*.toml") if path.stem != "d")
    assert names in (["a", "b", "c"], ["b", "c", "x"]), names
    for line in ("status", "list", "history", "current"):
        done = call(home, *line.split())
        assert done.status == 0, done
    if contents[0] == FOREIGN and before != FOREIGN:
        history = History(home.context)
        assert history.has_content(FOREIGN), "the hand-made mapping cannot be restored"
        assert history.load_content(digest_of(FOREIGN)) == FOREIGN
    for hold in call(home, "status", "--json").envelope["data"]["holds"]:
        assert call(home, "release", hold["id"], "--yes").status == 0
    done = call(home, "use", "c", "--json")
    assert done.status == 0, done
    assert b"/projects/c" in home.mapping_file.read_bytes()
    done = call(home, "undo")
    assert done.status == 0, done
    assert home.content() == before
    assert list(home.root.glob(".taoprof-*")) == []
