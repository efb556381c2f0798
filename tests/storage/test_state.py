"""The state folder as accidents leave it: torn or damaged history, contents that are gone, leftovers, no hard links."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import atomic, files, journal, locks
from taoprofiles.storage.journal import History, digest_of
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.switching import switch
from taoprofiles.switching.status import get_status
from tests.support.commands import call
from tests.support.home import Home, require
from tests.support.injection import fail_calls
from tests.support.notebooks import notebook
from tests.support.sandbox import Sandbox

FOREIGN = b'{"Mounts": []}'


@pytest.fixture
def used(home: Home) -> Home:
    """A home in which a, then b was used."""
    home.profile("c")
    return home.profiles_named("b", "a")


@pytest.mark.parametrize("keep", [1, 40, -40, -1])
def test_torn_last_line(used: Home, keep: int) -> None:
    """A power cut while a line was written: the switch it was for had not begun."""
    journal = used.state / "history.jsonl"
    whole = journal.read_bytes()
    torn = whole.splitlines(keepends=True)[-1].replace(b'"id": 2', b'"id": 3')[:keep]
    journal.write_bytes(whole + torn)
    assert used.json("current")["data"] == {"name": "b", "state": "active"}
    used.run("use", "c", check=True)
    assert used.run("current").stdout == "c\n"
    entries = used.json("history")["data"]["entries"]
    assert [entry["profile"] for entry in entries if entry["took_effect"]] == ["c", "b", "a"]
    used.run("undo", check=True)
    assert used.run("current").stdout == "b\n"


@pytest.mark.parametrize(
    "garbage",
    [b"garbage", b"\0" * 9000, b"[]", b"{}", b'{"v": 1}', b"\xff\xfe", b"[" * 50_000, b"null", b'{"v":""}'],
    ids=["text", "zeros", "list", "empty", "bare", "not UTF-8", "deep", "null", "version"],
)
def test_garbage_line(used: Home, garbage: bytes) -> None:
    """A line that is no entry, before, between and behind the entries, is passed over."""
    journal = used.state / "history.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(garbage + b"\n" + b"".join(line + garbage + b"\n" for line in lines))
    assert used.run("current").stdout == "b\n"
    assert [entry["id"] for entry in used.json("history")["data"]["entries"]] == [2, 1]
    used.run("list", check=True)
    used.run("use", "c", check=True)
    used.run("use", "-", check=True)
    assert used.run("current").stdout == "b\n"


def test_history_of_a_newer_version(used: Home) -> None:
    journal = used.state / "history.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"v": 1', b'"v": 2'))
    before = used.tree()
    done = used.run("use", "c")
    assert done.returncode == 3
    assert "newer taoprofiles" in done.stderr and "upgrade taoprofiles" in done.stderr
    assert used.tree() == before


@pytest.mark.parametrize("damage", ["missing", "changed", "folder gone"])
def test_content_that_the_history_no_longer_has(used: Home, damage: str) -> None:
    before = used.mapping_file.read_bytes()
    wanted = used.json("history")["data"]["entries"][0]["before"]
    kept = used.state / "objects" / wanted
    if damage == "missing":
        kept.unlink()
    elif damage == "changed":
        kept.write_bytes(b"{}")
    else:
        shutil.rmtree(used.state / "objects")
    done = used.run("undo")
    assert done.returncode == 3
    first, *_ = done.stderr.splitlines()
    assert first.startswith("taoprof: error: content stored in the history is ") and wanted in first
    assert used.mapping_file.read_bytes() == before
    used.run("use", "c", check=True)
    assert used.run("current").stdout == "c\n"


def test_damaged_content_is_stored_again(used: Home) -> None:
    """What is stored is compared, not only looked for: the next switch that needs the content repairs it."""
    mapping = used.mapping_file.read_bytes()
    stored = used.state / "objects" / digest_of(mapping)
    stored.write_bytes(b"damaged")
    used.run("use", "c", check=True)
    assert stored.read_bytes() == mapping
    used.run("undo", check=True)
    assert used.run("current").stdout == "b\n"


@pytest.fixture
def long(used: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A journal that the next entry compacts to three, before which c was used once and another program wrote."""
    used.run("use", "c", check=True)
    used.mapping_file.write_bytes(FOREIGN)
    used.run("use", "a", check=True)
    used.run("use", "b", check=True)
    for number in range(5):
        used.run("set", "a", f"NUM_GPUS={number}", check=True)
    monkeypatch.setattr(journal, "SIZE_LIMIT", 100)
    monkeypatch.setattr(journal, "KEPT_SIZE", size_of_newest(used, 3))
    return used


def size_of_newest(home: Home, number: int) -> int:
    """Return how many bytes the newest entries have in the journal."""
    lines = (home.state / "history.jsonl").read_bytes().splitlines(keepends=True)
    sizes = [len(line) for line in lines if b'"action"' in line]
    return sum(sizes[-number:]) if number else 0


def test_compaction(long: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    long.run("list", check=True)  # it notes how far it has read the journal
    used = {profile["name"]: profile["last_used"] for profile in long.json("list")["data"]["profiles"]}
    newest = long.json("history")["data"]["entries"][0]["id"]
    long.run("set", "a", "NUM_GPUS=9", check=True)
    entries = long.json("history", "--all")["data"]["entries"]
    stored = {path.name for path in (long.state / "objects").iterdir()}
    assert {entry[side] for entry in entries for side in ("before", "after")} - {None} == stored
    ids = [entry["id"] for entry in entries if entry["action"] == "set"]
    assert ids == [newest + 1, newest, newest - 1, newest - 2]
    assert [entry["profile"] for entry in entries if entry["action"] == "use"] == ["b", "a", "c"]
    assert long.run("current").stdout == "b\n"
    assert {profile["name"]: profile["last_used"] for profile in long.json("list")["data"]["profiles"]} == used
    monkeypatch.undo()
    for number in ids:
        long.run("undo", str(number), check=True)
    done = long.run("undo", str(entries[-1]["id"]))
    assert (done.returncode, "no longer has what was before" in done.stderr) == (3, True)
    assert FOREIGN not in [path.read_bytes() for path in (long.state / "objects").iterdir()]
    long.run("use", "-", check=True)
    assert long.run("current").stdout == "a\n"
    long.run("undo", check=True)
    assert long.run("current").stdout == "b\n"


def test_no_compaction_while_something_is_held(long: Home) -> None:
    long.run("hold", "b", "--reason", "test", check=True)
    long.run("set", "a", "NUM_GPUS=9", check=True)
    assert len(long.json("history", "--all")["data"]["entries"]) == 12
    assert long.run("history", "--purge", "--yes").returncode == 2


@pytest.mark.slow
def test_a_journal_of_100000_entries(used: Home) -> None:
    line = (used.state / "history.jsonl").read_text().splitlines()[0].replace('"mapping"', '"profile"') + "\n"
    journal_file = used.state / "history.jsonl"
    journal_file.write_text(journal_file.read_text() + line * 100_000)
    used.run("use", "a", check=True)
    assert journal_file.stat().st_size < 4 << 20
    assert used.run("current").stdout == "a\n"


def test_a_compaction_deletes_not_everything_at_once(long: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """All other commands wait for it."""
    monkeypatch.setattr(journal, "_DELETED_CONTENTS", 2)
    stored = [len(list((long.state / "objects").iterdir()))]
    for number in range(10, 20):
        long.run("set", "a", f"NUM_GPUS={number}", check=True)
        stored.append(len(list((long.state / "objects").iterdir())))
    changes = [after - before for before, after in pairwise(stored)]
    assert min(changes) == -1, "each 'set' stores one and deletes two"
    assert stored[-1] == stored[-2]
    entries = long.json("history", "--all")["data"]["entries"]
    assert {entry[side] for entry in entries for side in ("before", "after")} - {None} == {
        path.name for path in (long.state / "objects").iterdir()
    }


def test_many_used_profiles_do_not_make_every_change_compact(used: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their last uses are kept, beside the newest entries."""
    journal_file = used.state / "history.jsonl"
    entry = next(json.loads(line) for line in journal_file.read_text().splitlines() if '"use"' in line)
    uses = [json.dumps(entry | {"profile": f"p{number}", "done": True}) + "\n" for number in range(400)]
    others = [json.dumps(entry | {"action": "set", "target": "profile", "done": True}) + "\n" for _ in range(4000)]
    journal_file.write_text("".join([*uses, *others]) + journal_file.read_text())
    size = journal_file.stat().st_size
    monkeypatch.setattr(journal, "SIZE_LIMIT", size - 1)
    monkeypatch.setattr(journal, "KEPT_SIZE", size * 9 // 10)
    used.run("set", "a", "NUM_GPUS=1", check=True)
    assert journal_file.stat().st_size < size * 0.95, "the next changes compact nothing"
    entries = used.json("history", "--all")["data"]["entries"]
    assert len([entry for entry in entries if entry["action"] == "use"]) >= 400


def test_purged_secrets(used: Home) -> None:
    secret = "s3cr3t-in-an-old-mapping"
    text = (used.profiles / "a.toml").read_text()
    used.profile("a", text + f'[container.env]\nKEY = "{secret}"\n')
    used.run("use", "a", check=True)
    used.run("set", "a", "container.env.KEY=", check=True)
    used.run("use", "b", check=True)

    def with_secret() -> list[Path]:
        return [path for path in used.root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]

    log = used.state / "logs/abcde.log"
    log.parent.mkdir()
    log.write_text(f"printed by a task whose taoprof was killed: {secret}\n")
    assert len(with_secret()) > 1
    assert used.run("history", "--purge").returncode == 2, "a script is not asked"
    used.run("history", "--purge", "--yes", check=True)
    assert with_secret() == []
    assert used.json("current")["data"] == {"name": "b", "state": "active"}
    used.run("use", "-", check=True)
    assert used.run("current").stdout == "a\n"
    used.run("undo", check=True)
    assert used.run("current").stdout == "b\n"


@pytest.mark.parametrize(
    ("content", "is_old"), [("the profile's", False), ("the profile's", True), ("foreign", False), ("none", False)]
)
def test_nothing_is_undoable_after_a_purge(used: Home, content: str, is_old: bool) -> None:
    used.run("use", "a", check=True)
    used.run("use", "b", check=True)
    if content == "foreign":
        used.mapping_file.write_bytes(FOREIGN)
    elif content == "none":
        used.mapping_file.unlink()
    used.run("history", "--purge", "--yes", check=True)
    if is_old:  # earlier versions had no mark
        journal_file = used.state / "history.jsonl"
        lines = [json.loads(line) for line in journal_file.read_text().splitlines()]
        for line in lines:
            del line["dropped"]
            line["before"] = line["after"]
        journal_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before, current = used.tree(), used.json("current")["data"]
    numbers = [str(entry["id"]) for entry in used.json("history")["data"]["entries"]]
    for arguments in ([], *([number] for number in numbers)):
        done = used.run("undo", *arguments)
        assert (done.returncode, "the history no longer has what was before" in done.stderr) == (3, True), done.stderr
    assert (used.tree(), used.json("current")["data"]) == (before, current)


@pytest.mark.parametrize("content", [b'{"Mounts":[],"y":1}', None])
def test_undo_of_an_external_change_after_a_purge(used: Home, content: bytes | None) -> None:
    used.mapping_file.write_bytes(FOREIGN)
    used.run("history", "--purge", "--yes", check=True)
    used.mapping_file.unlink() if content is None else used.mapping_file.write_bytes(content)
    used.run("undo", check=True)
    assert used.mapping_file.read_bytes() == FOREIGN


def test_an_external_change_before_a_purge_by_an_older_version(used: Home) -> None:
    """It kept the uses without their contents, and nothing about the file."""
    journal_file = used.state / "history.jsonl"
    lines = [json.loads(line) for line in journal_file.read_text().splitlines()]
    uses = [{**line, "before": None, "after": None, "done": True} for line in lines if "action" in line]
    journal_file.write_text("".join(json.dumps(line) + "\n" for line in uses))
    used.mapping_file.write_bytes(FOREIGN)
    done = used.run("undo")
    assert (done.returncode, used.mapping_file.read_bytes()) == (3, FOREIGN)
    used.mapping_file.unlink()
    assert used.json("current")["data"]["name"] is None
    used.run("undo", check=True)
    assert used.mapping_file.read_bytes() == FOREIGN


def test_compaction_keeps_names_that_were_used_again(used: Home) -> None:
    words = ("use c", "use a", "use b", "rename a x", "rename b a", "rename x b", "set b NUM_GPUS={}")

    def data(*line: str) -> dict:
        return call(used, *line, "--json").envelope["data"]

    def uses() -> dict[str, float]:
        call(used, "list")
        entries = History(used.context).timeline(used.mapping_file.read_bytes())
        last = {entry.profile or "": entry.time for entry, _ in reversed(list(entries)) if entry.action == "use"}
        listed = {profile["name"]: profile["last_used"] for profile in data("list")["profiles"]}
        assert listed == last
        return listed

    for keep in (4, 3, 2, 1, 0):
        for line in words:
            assert call(used, *line.format(keep).split()).status == 0
        before, entries = uses(), data("history", "--all")["entries"]
        History(used.context).compact(size_of_newest(used, keep))
        assert uses() == before
        kept = [entry["profile"] for entry in data("history")["entries"]]
        assert kept[:keep] == [entry["profile"] for entry in entries][:keep]
        assert call(used, "current").out == "a\n"


def test_a_hold_that_has_ended_does_not_stop_a_purge(used: Home) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        used.run("hold", "--reason", "test", "--pid", str(process.pid), check=True)
        assert used.run("history", "--purge", "--yes").returncode == 2
        process.kill()
    used.run("history", "--purge", "--yes", check=True)


def test_a_launcher_stops_a_purge(sandbox: Sandbox) -> None:
    """It has no record, and its container is recognised by the mappings in the history."""
    sandbox.plain()
    assert len(sandbox.holds()) == 1
    assert sandbox.run("history", "--purge", "--yes").returncode == 2


@pytest.mark.parametrize("what", ["history.jsonl", "."])
def test_history_or_state_folder_deleted(used: Home, what: str) -> None:
    path = used.state / what
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert used.json("current")["data"]["state"] == "unmanaged"
    used.run("use", "c", check=True)
    assert used.run("current").stdout == "c\n"


@pytest.mark.parametrize("what", ["history.jsonl", "objects", "cache", "lock"])
def test_something_else_in_the_state_folder(used: Home, what: str) -> None:
    """A folder for a file, a file for a folder: told in one line, or done without."""
    path = used.state / what
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")
    else:
        path.unlink()
        path.mkdir()
    before = used.mapping_file.read_bytes()
    done = used.run("use", "c")
    if what == "cache":
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode in (1, 3)
        assert done.stderr.startswith("taoprof: error: ") and str(path) in done.stderr
        assert len(done.stderr.splitlines()) <= 2
        assert used.mapping_file.read_bytes() == before


def test_leftovers_of_a_killed_switch_are_swept(used: Home) -> None:
    """Whatever switch was killed, and whatever profile the next one is to."""
    for folder in (used.root, used.state / "objects"):
        for end in ("new", "old"):
            (folder / f".taoprof-{end}").write_text("torn")
    used.run("use", "c", check=True)
    assert [path.name for path in used.root.rglob("*") if path.name.endswith(("-new", "-old"))] == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_without_hard_links(used: Home, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fail_calls(monkeypatch, number, lambda *_: True, "link")
    done = switch.switch_profile(used.context, "c")
    assert (done.name, done.previous, done.changed) == ("c", "b", True)
    assert used.run("current").stdout == "c\n"
    assert [path.name for path in used.root.iterdir() if "taoprof-" in path.name] == []


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_error_after_the_rename_takes_it_back(used: Home, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """The folder cannot be flushed: the old content is back, and the history says so too."""
    if not links:
        fail_calls(monkeypatch, errno.EPERM, lambda *_: True, "link")
        monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    before, really = used.mapping_file.read_bytes(), atomic.DirectoryLock.sync

    def fail(turn: atomic.DirectoryLock) -> None:
        if turn._folder == str(used.root):
            raise OSError(errno.EIO, os.strerror(errno.EIO), turn._folder)
        really(turn)

    monkeypatch.setattr(atomic.DirectoryLock, "sync", fail)
    with pytest.raises(TaoprofError, match="cannot write"):
        switch.switch_profile(used.context, "c")
    assert used.mapping_file.read_bytes() == before
    mapping_status = get_status(used.context)
    assert (mapping_status.name, mapping_status.state) == ("b", "active")


def test_nobody_else_can_prevent_a_switch(used: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can open the home may lock it; in a sticky folder another's file under our name cannot be deleted."""
    monkeypatch.setattr(locks, "_FOLDER_TIMEOUT", 0.05)
    folder = os.open(used.root, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert switch.switch_profile(used.context, "c").changed
    os.close(folder)
    names = {used.root / name for name in (".taoprof-new", ".taoprof-old")}
    for path in names:
        path.write_bytes(FOREIGN)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)

    fail_calls(monkeypatch, errno.EPERM, lambda path, *_: Path(path) in names, "unlink", "rename")
    done = switch.switch_profile(used.context, "b")
    assert (done.changed, done.saved_entry) == (True, None)
    assert {path for path in used.root.iterdir() if "taoprof-" in path.name} == names
    assert os.geteuid() != 0 or not History(used.context).has_content(FOREIGN), "it is not what a killed switch left"


def test_another_users_link_gets_none_of_our_files_into_the_history(used: Home) -> None:
    """In a folder such as /tmp, somebody makes a link with the name of a replaced file."""
    require(os.geteuid() == 0, "a file of another user needs root")
    secret, link = used.root / "secret", used.root / ".taoprof-old"
    secret.write_bytes(b"a key")
    link.symlink_to(secret)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    for name in ("a", "b"):
        used.run("use", name, check=True)
    assert secret.stat().st_nlink == 1 and not History(used.context).has_content(b"a key")


def test_what_a_killed_switch_left_is_not_deleted_unread(used: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = used.root / ".taoprof-old"
    path.write_bytes(FOREIGN)
    History(used.context).store_content(FOREIGN)  # by a command that was killed before it wrote the entry
    fail_calls(monkeypatch, errno.EIO, lambda name, *_: name == str(path), "open")
    with pytest.raises(TaoprofError, match="cannot read"):
        switch.switch_profile(used.context, "c")
    assert path.read_bytes() == FOREIGN
    monkeypatch.undo()
    switch.switch_profile(used.context, "c")
    assert History(used.context).has_content(FOREIGN)


@pytest.mark.parametrize("words", [("remove", "c"), ("rename", "c", "d")], ids=" ".join)
def test_a_change_that_cannot_be_flushed_is_not_said_to_have_failed(
    used: Home, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """It has happened, so its entry stays, and undo undoes it and nothing else."""

    def fail(folder: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), folder)

    content = (used.profiles / "c.toml").read_bytes()
    monkeypatch.setattr(files, "sync_folder", fail)
    done = call(used, *words)
    assert done.status == 0, done.err
    assert not (used.profiles / "c.toml").exists()
    monkeypatch.undo()
    used.run("undo", check=True)
    assert (used.profiles / "c.toml").read_bytes() == content
    assert used.run("current").stdout == "b\n"


def test_a_reader_that_stops_early_prints_no_error_of_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"first\nlast\n")
    close = os.close

    def fail(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, "Input/output error")

    lines = journal.lines_backwards(str(path))
    assert next(lines) == b""
    monkeypatch.setattr(journal.os, "close", fail)
    lines.close()


def test_a_folder_that_cannot_be_looked_at_is_named_as_that(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as something that is no folder."""
    folder = str(home.root / "there")
    Path(folder).mkdir()
    fail_calls(monkeypatch, errno.EACCES, lambda path: path == folder, "stat")
    with pytest.raises(TaoprofError, match="permission denied") as caught:
        files.make_folder(folder)
    assert caught.value.status == 1


def test_the_group_is_the_users_and_not_that_of_newgrp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a profile with user = "auto" would differ from one terminal to the next."""
    primary = pwd.getpwuid(os.getuid()).pw_gid
    monkeypatch.setattr(os, "getgid", lambda: primary + 1)
    assert Context().gid == primary


def test_what_root_creates_in_a_users_home_belongs_to_that_user(home: Home) -> None:
    """Root with the user's HOME, as by 'sudo -E' or 'su -m': the user could not switch afterwards."""
    require(os.geteuid() == 0, "only root can create another user's files")
    for folder in (home.root, *home.root.rglob("*")):
        os.chown(folder, 12345, 12345, follow_symlinks=False)
    before = set(home.root.rglob("*"))
    home.run("new", "dino", "--layout", "custom", check=True)
    home.run("use", "dino", check=True)
    home.run("list", check=True)
    created = set(home.root.rglob("*")) - before
    assert home.mapping_file in created and home.state / "lock" in created
    assert [path for path in created if path.lstat().st_uid != 12345] == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("rename a b", ".config/taoprofiles/profiles/b.toml"),
        ("new d --project-dir projects/a --project", "projects/a/.taoprof.toml"),
        (f"kernel install a --python {sys.executable}", ".local/share/jupyter/kernels/taoprof-a/kernel.json"),
        ("import x.ipynb --name d --kernel --in-place", "x.ipynb.bak"),
        ("edit a", ".local/state/taoprofiles/rejected/a.DIGEST.toml"),
    ],
)
def test_what_cannot_be_looked_at_is_not_overwritten(
    used: Home, monkeypatch: pytest.MonkeyPatch, code: int, words: str, path: str
) -> None:
    """The error of a disk, even if it comes but once, is not taken for 'there is none'."""
    text = (used.profiles / "a.toml").read_bytes()
    target = used.root / path.replace("DIGEST", digest_of(text)[:12])
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("{}\n")
    cell = f"with open('{used.mapping_file}', 'w') as file: file.write('{FOREIGN.decode()}')"
    (used.root / "x.ipynb").write_bytes(notebook([cell]))
    before = target.read_bytes()
    left = [str(target)]

    def is_first(path: str) -> bool:
        is_hit = os.path.abspath(path) in left
        if is_hit:
            left.clear()
        return is_hit

    fail_calls(monkeypatch, code, is_first, "stat", "lstat")
    done = call(used, *words.split(), environ={"EDITOR": "true"})
    monkeypatch.undo()
    assert done.status == 1 and target.name in done.err, done
    assert target.read_bytes() == before


@pytest.mark.parametrize("folder", ["objects", "cache/templates", "logs"])
def test_a_purge_names_what_it_could_not_delete(used: Home, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    (used.state / "logs").mkdir()
    (used.state / "logs/abcde.log").touch()
    fail_calls(monkeypatch, errno.EIO, lambda path: path.startswith(f"{used.state / folder}/"), "unlink")
    done = call(used, "history", "--purge", "--yes")
    assert done.status == 1 and str(used.state / folder) in done.err, done
    monkeypatch.undo()
    others = {"objects", "cache/templates", "logs"} - {folder}
    assert [path for other in others for path in (used.state / other).iterdir()] == [
        used.state / "objects" / digest_of(used.mapping_file.read_bytes())
    ] * ("objects" in others)
    used.run("history", "--purge", "--yes", check=True)
    assert [path.name for path in (used.state / folder).iterdir()] == [digest_of(used.mapping_file.read_bytes())] * (
        folder == "objects"
    )


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE])
def test_a_replaced_link_waits_until_the_file_behind_it_can_be_read(
    used: Home, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    content, link = b'{"Mounts": [], "mine": 1}', used.root / ".taoprof-old-1"
    (used.root / "other.json").write_bytes(content)
    link.symlink_to("other.json")
    fail_calls(monkeypatch, code, lambda path, *_: path == str(link), "open")
    with Lock(used.context.lock), pytest.raises(TaoprofError):
        switch.recover(used.context)
    monkeypatch.undo()
    assert link.is_symlink()
    used.run("use", "a", check=True)
    assert History(used.context).has_content(content) and not link.is_symlink()
