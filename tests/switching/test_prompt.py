"""``taoprof current`` at a shell prompt: answered from a cache, which never says what is no longer true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from unittest import mock

import pytest

from taoprofiles import current_cache
from tests.support.home import Home, find_command
from tests.support.sandbox import rendered

Change: TypeAlias = Callable[[Home], object]

ASK = """
import sys, json
before = set(sys.modules)
from taoprofiles import current_cache
answers = [current_cache.answer(["current"]), current_cache.answer(["current", "--short"])]
loaded = [name for name in sys.modules if name not in before and name.partition(".")[0] != "taoprofiles"]
print(json.dumps([answers, [name for name in loaded if name != "__future__"]]))
"""


@pytest.fixture
def used(home: Home) -> Home:
    home.profile("b")
    return home.profiles_named("a")


def noted(home: Home, **environ: str) -> list[str | None]:
    """The answers from the cache alone to ``current`` and ``current --short``."""
    with mock.patch.dict(os.environ, {**home.environ, **environ}, clear=True):
        return [current_cache.answer(["current"]), current_cache.answer(["current", "--short"])]


def short(home: Home) -> str:
    return home.run("current", "--short", check=True).stdout.strip()


def test_the_note_of_a_switch(used: Home) -> None:
    done = subprocess.run([sys.executable, "-c", ASK], env=used.environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["a", "a"], []], "it imports nothing but os"
    assert used.run("current", check=True).stdout == "a\n"


def test_changes_of_other_profiles_leave_the_note(used: Home) -> None:
    used.run("set", "b", "description=other", check=True)
    used.run("rename", "b", "c", check=True)
    used.run("remove", "c", check=True)
    assert noted(used) == ["a", "a"]


def edit(name: str) -> Change:
    """Change the file of a profile, and not its mapping."""
    return lambda home: (home.profiles / f"{name}.toml").open("a").write("# a comment\n")


def run(*words: str) -> Change:
    return lambda home: home.run(*words, check=True)


CHANGES: dict[str, tuple[list[Change], str]] = {
    "another key of the profile": ([run("set", "a", "description=other")], "a"),
    "a comment": ([edit("a")], "a"),
    "drift": ([run("set", "a", "container.env.EXTRA=1")], "a~"),
    "drift, and back": ([run("set", "a", "container.env.EXTRA=1"), short, run("undo")], "a"),
    "a rename": ([run("rename", "a", "x")], "x"),
    "the profile is removed": ([run("remove", "a", "--force")], "a~"),
    "the extended profile is edited": ([run("use", "child"), edit("b")], "child"),
    "the extended profile is removed": ([run("use", "child"), run("remove", "b", "--force")], "child~"),
    "an external change": ([lambda home: home.mapping_file.write_bytes(b"{}")], "?"),
    "an external change, and back": (
        [lambda home: home.mapping_file.write_bytes(b"{}"), short, lambda home: put_back(home)],
        "a",
    ),
    "the mapping file is removed": ([lambda home: home.mapping_file.unlink()], ""),
    # The mapping file does not tell the two apart.
    "undo of a switch to the same mapping": ([run("use", "twin"), run("undo")], "a"),
}


def put_back(home: Home) -> None:
    home.mapping_file.write_bytes(rendered(home, "a"))


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_the_note_is_gone_and_the_next_command_writes_it(used: Home, change: str) -> None:
    used.profile("child", 'extends = "b"\n')
    used.profile("twin", (used.profiles / "a.toml").read_text())
    steps, shown = CHANGES[change]
    for step in steps:
        step(used)
    assert noted(used) == [None, None]
    assert short(used) == shown
    if "remove" not in change:  # what is not there has no note
        assert noted(used) == [None if shown[-1] in "~?" else shown, shown]


def test_a_profile_that_uses_the_environment_has_no_note(used: Home) -> None:
    path = used.profiles / "a.toml"
    path.write_text(path.read_text() + '[container.env]\nTOKEN = "${env:SOME_TOKEN}"\n')
    environ = {"SOME_TOKEN": "one"}
    used.run("use", "a", environ=environ, check=True)
    assert noted(used, **environ) == [None, None]
    assert used.run("current", "--short", environ=environ, check=True).stdout == "a\n"
    assert noted(used, **environ) == [None, None]


def test_a_folder_that_cannot_be_written_is_no_error(used: Home, tmp_path: Path) -> None:
    used.run("set", "a", "description=other", check=True)
    (used.state / "cache").rename(tmp_path / "cache")
    (used.state / "cache").write_bytes(b"")
    assert short(used) == "a"


SHELLS = {"bash": ("--norc", "--noprofile"), "zsh": ("-f",), "fish": ("--no-config",)}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_prompt_of_a_shell_starts_no_process(used: Home, shell: str) -> None:
    """``init`` sets a variable to what ``current --short`` prints; the cache, once written, is all that it reads."""
    program, trace = find_command(shell), used.root / "trace"
    script = used.root / f"init.{shell}"
    script.write_text(used.run("init", shell, check=True).stdout)
    path = f"{Path(used.taoprof).parent}:{used.environ['PATH']}"
    needed = "compdef() { true; }; " if shell == "zsh" else ""
    code = f'{needed}source {script}; _taoprof_update_prompt; echo "[$TAOPROF_PROMPT]"'
    words = [program, *SHELLS[shell], "-c", code]
    words = [find_command("strace"), "-f", "-qq", "-e", "trace=process", "-o", str(trace), *words]

    def prompt(folder: Path = used.root, **environ: str) -> tuple[str, bool]:
        done = subprocess.run(
            words, env={**used.environ, "PATH": path, **environ}, cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        calls = trace.read_text().splitlines()
        started = any(re.search(r" (v?fork|clone3?)\(", line) and "CLONE_THREAD" not in line for line in calls)
        return done.stdout.strip()[1:-1], started

    assert prompt() == ("a", False)
    used.run("set", "a", "container.env.EXTRA=it's `$$x` %n", check=True)
    assert prompt() == ("a~", True), "the first time the command works it out"
    assert prompt() == ("a~", False)
    used.mapping_file.write_bytes(b"{}\n")
    assert prompt() == ("?", True)
    assert prompt() == ("?", False)
    own = f"{used.state}/holds/1.mounts.json"
    assert prompt(TAOPROF_RUN="1", LAUNCHER_MOUNTS=own, TAOPROF_PROFILE="b") == ("b", False)
    used.mapping_file.unlink()
    assert prompt() == ("", False)
    used.run("use", "b", check=True)
    assert prompt() == ("b", False)
    used.profile("child", 'extends = "a"\n')
    used.run("use", "child", check=True)
    assert prompt() == ("child", False)
    used.run("set", "a", "container.env.MORE=1", check=True)
    assert prompt() == ("child~", True), "of the profile that it extends"
    assert prompt() == ("child~", False)
    used.run("use", "b", check=True)
    project = used.root / "it's"
    (project / "below").mkdir(parents=True)
    assert prompt(project / "below") == ("b", False)
    (project / ".taoprof.toml").write_text('layout = "custom"\n')
    assert prompt(project / "below") == ("b!", False), "the project's profile is another one"
    used.run("trust", "--yes", "--name", "project", check=True, cwd=project)
    used.run("use", check=True, cwd=project)
    assert prompt(project / "below") == ("project", False)
    used.profile("child", 'extends = "project"\n')
    used.run("use", "child", check=True)
    assert prompt(project) == ("child", False)
    used.run("use", "b", check=True)
    (used.profiles / "b.toml").write_bytes((used.profiles / "b.toml").read_bytes() + b"\0x")
    assert prompt() == ("b~", True), "what is no profile any more"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_mark_of_a_project_follows_every_change(used: Home, shell: str) -> None:
    """In the same folder too, and by its real path; what a folder is called is never executed."""
    below = used.root / "$(touch x)`touch x`%{\\e[31m%}'\"\nx" / "*\n"
    below.mkdir(parents=True)
    (used.root / "link").symlink_to(below.parent)
    (used.root / ".git").mkdir()
    script = used.root / f"init.{shell}"
    script.write_text(used.run("init", shell, check=True).stdout)
    steps = [
        ("true", "a"),
        ("touch .taoprof.toml", "a!"),
        ("rm .taoprof.toml", "a"),
        ("touch ../.taoprof.toml", "a!"),
        ("mkdir .git", "a"),
        ("rmdir .git", "a!"),
        ("cd ..", "a!"),
        ("mv .taoprof.toml ..", "a!"),
        ("mkdir .git", "a"),
        ("cd /", "a"),
    ]
    if os.getuid() == 0:
        steps += [("cd ~; chown 12345 .taoprof.toml", "a")]
    code = "".join(f"{step}; _taoprof_update_prompt; echo $TAOPROF_PROMPT; " for step, _ in steps)
    before = "compdef() { :; }; setopt nounset; " if shell == "zsh" else "set -u; " if shell == "bash" else ""
    words = [find_command(shell), *SHELLS[shell], "-c", f"{before}source {script}; cd ~/link/*; {code}"]
    done = subprocess.run(words, env=used.environ, cwd=used.root, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == ([mark for _, mark in steps], "")
    assert not list(used.root.rglob("x"))
