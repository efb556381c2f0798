"""What the history says after accidents: kills in the middle, renames, removals, other programs that write along."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.cli import main
from taoprofiles.errors import TaoprofError
from taoprofiles.storage import atomic, files
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status, switch
from tests.support.guard_process import FOREIGN, kept
from tests.support.home import ALL, Home, forked


@pytest.fixture
def home(home: Home) -> Home:
    for name in "abc":
        home.profile(name)
    return home


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(home: Home, patch: Callable[[], None], *words: str) -> None:
    """Run a command, in a process of its own, that kills itself where ``patch`` says."""

    def patch_and_run() -> int:
        patch()
        return main.run(list(words))

    assert forked(patch_and_run, home.environ, "/").returncode == -signal.SIGKILL


def at_the_replacement() -> None:
    really = atomic.replace
    atomic.replace = lambda path, *a, **k: die() if path.endswith(".tao_mounts.json") else really(path, *a, **k)


def at_the_exchange(*, before: bytes = b"", is_done: bool = False) -> None:
    """Die where the two names are exchanged, or just after it; another program writes ``before``."""
    really = atomic.exchange

    def exchange(name: str, other: str) -> bool:
        if not other.endswith("_mounts.json"):
            return really(name, other)
        if before:
            Path(other).write_bytes(before)
        if is_done:
            really(name, other)
        return bool(die())

    atomic.exchange = exchange


def current(home: Home) -> dict[str, Any]:
    data = home.json("current")["data"]
    return {"name": data["name"], "state": data["state"]}


def test_killed_in_a_rename(home: Home) -> None:
    """Its line stands in the history, and the file has the old name still."""
    home.run("use", "b", check=True)
    home.run("use", "a", check=True)
    killed(home, lambda: setattr(files, "rename", die), "rename", "a", "x")
    assert current(home) == {"name": "a", "state": "active"}
    newest = home.json("history")["data"]["entries"][0]
    assert (newest["action"], newest["took_effect"]) == ("rename", False)
    home.run("undo", check=True)
    assert current(home) == {"name": "b", "state": "active"}, "what is undone is the last change that was one"


def test_previous_and_undo_follow_renames(home: Home) -> None:
    home.run("use", "a", check=True)
    home.run("use", "b", check=True)
    use_b = home.json("history")["data"]["entries"][0]["id"]
    home.run("rename", "a", "x", check=True)
    home.run("use", "-", check=True)
    assert current(home) == {"name": "x", "state": "active"}
    home.run("use", "b", check=True)
    home.run("undo", str(use_b), check=True)
    assert current(home) == {"name": "x", "state": "active"}


def test_previous_skips_what_is_gone_and_what_never_was(home: Home) -> None:
    for name in "abc":
        home.run("use", name, check=True)
    home.run("remove", "b", check=True)
    home.run("use", "-", check=True)
    assert current(home)["name"] == "a"
    home.profile("d")
    killed(home, at_the_replacement, "use", "d")
    assert current(home)["name"] == "a"
    home.run("use", "-", check=True)
    assert current(home)["name"] == "c"


@pytest.mark.parametrize("moment", ["before the rename", "after the rename"])
@pytest.mark.parametrize("has_leftovers", [True, False])
def test_a_foreign_write_after_an_interrupted_switch(home: Home, moment: str, has_leftovers: bool) -> None:
    """What it replaced is what was there: the old mapping, or the new one where the file was replaced already."""
    home.run("use", "a", check=True)
    is_replaced = moment == "after the rename"
    killed(home, lambda: at_the_exchange(is_done=is_replaced), "use", "b")
    if not has_leftovers:
        switch.recover(home.context)
    assert current(home)["name"] == ("b" if is_replaced else "a")
    home.mapping_file.write_bytes(FOREIGN)
    assert home.json("status")["data"]["last"] == ("b" if is_replaced else "a")
    home.run("undo", check=True)
    assert current(home) == {"name": "b" if is_replaced else "a", "state": "active"}
    took_effect = {entry["id"]: entry["took_effect"] for entry in home.json("history")["data"]["entries"]}
    assert took_effect == {1: True, 2: is_replaced, 3: True, 4: True}


@pytest.fixture
def overwritten(home: Home) -> Home:
    """A notebook writes its mapping, 'use a' replaces it, and the notebook writes the same mapping again."""
    home.mapping_file.write_bytes(FOREIGN)
    home.run("use", "a", check=True)
    home.mapping_file.write_bytes(FOREIGN)
    return home


def test_a_completed_switch_is_never_called_interrupted(overwritten: Home) -> None:
    entries = overwritten.json("history")["data"]["entries"]
    assert [(entry["action"], entry["took_effect"]) for entry in entries] == [("use", True), ("found", True)]
    data = overwritten.json("status")["data"]
    assert (data["state"], data["last"], data["entry"]) == ("unmanaged", "a", None)


def test_undo_after_an_external_change_restores_what_it_replaced(overwritten: Home) -> None:
    done = overwritten.run("undo", check=True)
    assert current(overwritten) == {"name": "a", "state": "active"}
    assert done.stderr.startswith("taoprof: undoing entry 3 (")
    assert "(mapping file written by another program, " in done.stderr
    assert ": restores the mapping of 'a' in ~/.tao_mounts.json" in done.stderr
    overwritten.run("undo", check=True)
    assert overwritten.mapping_file.read_bytes() == FOREIGN


def test_a_journal_without_completion_is_read_as_before(overwritten: Home) -> None:
    """Lines of older versions do not say that a change was completed, so the contents decide."""
    journal = overwritten.state / "history.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    old = [{key: line[key] for key in line if key != "done"} for line in lines if "action" in line]
    journal.write_text("".join(json.dumps(line) + "\n" for line in old))
    entries = overwritten.json("history")["data"]["entries"]
    assert [entry["took_effect"] for entry in entries] == [False, True]
    assert overwritten.run("use", "-").returncode == 4, "no profile was active before"


@pytest.mark.parametrize("is_overwritten", [False, True])
@pytest.mark.parametrize("way", ["undo", "use"])
def test_a_mapping_file_removed_by_hand(home: Home, way: str, is_overwritten: bool) -> None:
    home.run("new", "dino", "--layout", "custom", check=True)
    home.run("use", "a", check=True)
    if is_overwritten:  # and nobody has seen it: 'a' was not active when the file was removed
        home.mapping_file.write_bytes(FOREIGN)
    home.mapping_file.unlink()
    text = home.run("status", check=True).stdout
    assert "was removed by another program; the last profile known to be active is 'a'. To use it again: " in text
    home.run("undo" if way == "undo" else "use", *(["a"] if way == "use" else []), check=True)
    assert current(home) == {"name": "a", "state": "active"}
    assert (home.profiles / "dino.toml").exists()


def test_undo_of_a_change_of_a_profile_after_an_external_change(overwritten: Home) -> None:
    """The last change is undone, whichever file it was made to."""
    os.utime(overwritten.mapping_file, (1, 1))
    overwritten.run("set", "a", "NUM_GPUS=2", check=True)
    assert "restores profile 'a'" in overwritten.run("undo", check=True).stderr
    assert overwritten.mapping_file.read_bytes() == FOREIGN


def test_a_foreign_write_in_the_moment_of_a_switch_that_is_killed(home: Home) -> None:
    home.run("use", "a", check=True)
    killed(home, lambda: at_the_exchange(before=FOREIGN, is_done=True), "use", "b")
    assert not kept(home, FOREIGN)
    home.run("use", "c", check=True)
    assert kept(home, FOREIGN), "the only copy was in the temporary file"
    entry = next(e for e in home.json("history")["data"]["entries"] if e["action"] == "found")
    home.run("undo", str(entry["id"] + 1), check=True)
    assert home.mapping_file.read_bytes() == FOREIGN


def test_a_switch_names_the_entry_of_a_foreign_write_in_its_moment(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.run("use", "a", check=True)
    really = atomic.exchange

    def write_first(name: str, other: str) -> bool:
        if other.endswith("_mounts.json"):
            Path(other).write_bytes(FOREIGN)
        return really(name, other)

    monkeypatch.setattr(atomic, "exchange", write_first)
    number = switch.switch_profile(home.context, "b").saved_entry
    monkeypatch.undo()
    home.run("undo", str(number), check=True)
    assert home.mapping_file.read_bytes() == FOREIGN


def test_an_editor_saved_in_the_moment_of_a_set(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.profile("a")
    really = atomic.replace

    def save_first(target: str, data: bytes, **options: Any) -> None:
        if target == str(path):
            path.write_text(path.read_text() + "# handwork\n")
        really(target, data, **options)

    monkeypatch.setattr(atomic, "replace", save_first)
    from taoprofiles.profiles import manage

    with pytest.raises(TaoprofError, match="changed by another program"):
        manage.set_keys(home.context, "a", {"NUM_GPUS": "2"})
    assert path.read_text().endswith("# handwork\n")


def test_removing_a_link_leaves_what_it_leads_to(home: Home) -> None:
    (home.profiles / "link.toml").symlink_to("a.toml")
    (home.profiles / "loose.toml").symlink_to("nowhere")
    home.run("remove", "link", check=True)
    assert not os.path.lexists(home.profiles / "link.toml")
    assert (home.profiles / "a.toml").exists()
    assert home.run("rename", "b", "loose").returncode == 2
    assert (home.profiles / "b.toml").exists()


def test_undo_does_not_remove_the_active_profile(home: Home) -> None:
    home.run("new", "dino", "--layout", "custom", check=True)
    entry_id = home.json("history")["data"]["entries"][0]["id"]
    home.run("use", "dino", check=True)
    done = home.run("undo", str(entry_id))
    assert done.returncode == 2
    assert done.stderr.startswith("taoprof: error: 'dino' is the active profile"), "nothing is said to be undone"


def test_a_switch_between_the_two_reads_of_a_look(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.run("use", "a", check=True)
    really, times = files.read, [0]

    def read(path: str, limit: int) -> bytes | None:
        content = really(path, limit)
        if path == str(home.mapping_file) and times[0] < 1:
            times[0] += 1
            monkeypatch.setattr(files, "read", really)
            switch.switch_profile(home.context, "b")
            switch.switch_profile(home.context, "c")
            monkeypatch.setattr(files, "read", read)
        return content

    monkeypatch.setattr(files, "read", read)
    mapping_status = status.get_status(home.context)
    assert (mapping_status.name, mapping_status.state) == ("c", "active")


SWITCHER = """
import sys, taoprofiles
for number in range(int(sys.argv[1])):
    try:
        taoprofiles.switch("ab"[number % 2])
    except taoprofiles.TaoprofError as error:
        if "overwritten by another program" not in error.message:
            raise
"""


def test_two_state_folders_for_one_mapping_file(home: Home, tmp_path: Path) -> None:
    """Two shells with different XDG_STATE_HOME have two locks, and still tear nothing."""
    home.run("use", "a", check=True)
    environs = [home.environ, {**home.environ, "XDG_STATE_HOME": str(tmp_path / "other")}]
    number = "150" if ALL else "20"
    switchers = [subprocess.Popen([sys.executable, "-c", SWITCHER, number], env=environ) for environ in environs]
    try:
        while any(switcher.poll() is None for switcher in switchers):
            assert "Mounts" in json.loads(home.mapping_file.read_bytes())
    finally:
        for switcher in switchers:
            switcher.kill()
            switcher.wait()
    assert [switcher.returncode for switcher in switchers] == [0, 0]


def test_edit_of_a_text_that_was_changed_meanwhile(home: Home) -> None:
    """A draft of an older text is never taken for the profile's."""
    editor = home.root / "editor.sh"
    editor.write_text("#!/bin/sh\necho '# draft' >> \"$1\"\nkill -9 $PPID\n")
    editor.chmod(0o755)
    home.run("edit", "a", environ={"EDITOR": str(editor)})
    home.run("set", "a", "NUM_GPUS=7", check=True)
    home.run("edit", "a", environ={"EDITOR": "true"}, check=True)
    text = (home.profiles / "a.toml").read_text()
    assert 'NUM_GPUS = "7"' in text
    assert "# draft" not in text
    (draft,) = (home.state / "rejected").glob("*.toml")
    assert "# draft" in draft.read_text()


def test_use_in_a_shell_that_has_another_profiles_variables(home: Home) -> None:
    """After 'eval "$(taoprof env …)"' a notebook or script started there would go on in the other project."""
    for name in ("one", "two", "three"):
        home.run("new", name, "--project-dir", name, "--layout", "host", check=True)
    home.run("use", "one", "--mkdir", check=True)
    variables = {**home.json("env", "one", "--reveal")["data"]["variables"], "SHELL": "/bin/bash"}
    done = home.run("use", "two", "--mkdir", environ=variables, check=True)
    line = (
        "taoprof: this shell still has the variables of 'one' (LOCAL_PROJECT_DIR, HOST_DATA_DIR, HOST_RESULTS_DIR and "
        '1 more). To update them: eval "$(taoprof env two --reveal)"'
    )
    assert line in done.stderr
    done = home.run("use", "three", "--mkdir", environ={**variables, "SHELL": "/usr/bin/fish"}, check=True)
    assert "has variables that differ from profile 'three'" in done.stderr
    assert done.stderr.endswith("taoprof env three --reveal --format fish | source\n")
    for environ in ({}, {"NUM_GPUS": "2"}):
        assert "this shell" not in home.run("use", "one", environ=environ, check=True).stderr
    assert "this shell" not in home.run("use", "one", environ=variables, check=True).stderr


@pytest.mark.parametrize("environ", [{}, {"LOGNAME": "ana"}, {"USER": "ana", "LOGNAME": "bob"}])
def test_the_history_names_the_user_also_in_a_job_of_cron(home: Home, environ: dict[str, str]) -> None:
    """Its environment may have no USER: then it is the name of the account."""
    home.profile("a")
    names = {name: value for name, value in home.environ.items() if name not in ("USER", "LOGNAME")}
    switch.switch_profile(Context(names | environ), "a")
    expected = "ana" if environ else pwd.getpwuid(os.getuid()).pw_name
    assert home.json("history")["data"]["entries"][-1]["by"].startswith(f"{expected}@")
