"""Each exit status, from a real process."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.profiles.store import Store
from tests.support.cases import ANSWERS, CASES, prepare, with_ids
from tests.support.commands import call, one_clear_error
from tests.support.home import Home, write_program


@contextmanager
def held(home: Home) -> Iterator[None]:
    """Hold the lock, as another command at work does."""
    lock = Path(home.context.lock)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def editor(home: Home, script: str) -> dict[str, str]:
    return {"EDITOR": str(write_program(home.root / "editor.sh", script))}


def test_0_new_use_current(home: Home) -> None:
    project = home.root / "tao/kitti"
    project.mkdir(parents=True)
    home.run("new", "detectnet_v2", cwd=project, check=True)
    home.run("use", "detectnet_v2", "--mkdir", check=True)
    assert home.run("current").stdout == "detectnet_v2\n"
    assert home.mapping()["Mounts"][0] == {"source": str(project), "destination": "/workspace/tao-experiments"}


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("k", "~/tao/k"), (".", "~/tao"), ('"~/tao/k"', "~/tao/k"), ("$HOME/tao/k", "~/tao/k"), ("~/tao/k", "~/tao/k"),
        ("~nobody9/x", "there is no user 'nobody9'"), ("$NOSUCH/x", "refers to a variable that is not set"),
        ("file", "/file' is not a folder"), ("file/x", "/file' is not a folder"), ("/", "cannot be a project folder"),
    ],
)  # fmt: skip
def test_a_folder_is_read_as_a_shell_does_or_refused(home: Home, typed: str, wanted: str) -> None:
    """And nothing is written: ``set`` could make a profile that nothing can use."""
    (home.root / "tao").mkdir()
    (home.root / "tao/file").touch()
    home.run("new", "old", "--project-dir", "tao", "--layout", "host", check=True)
    text = (home.profiles / "old.toml").read_text()
    for words in (
        ["new", "a", "--project-dir", typed], ["new", "b", "--notebook-dir", typed],
        ["set", "old", f"project_dir={typed}"], ["set", "old", f"notebook_dir={typed}"],
    ):  # fmt: skip
        before = home.tree()
        done = home.run(*words, cwd=home.root / "tao")
        if wanted.startswith("~"):
            name, key = words[1], words[2].strip("-").partition("=")[0].replace("-", "_")
            assert f'{key} = "{wanted}"' in (home.profiles / f"{name}.toml").read_text(), done
        else:
            one_clear_error(done, 2)
            assert wanted in done.stderr
            assert home.tree() == before
    assert ((home.profiles / "old.toml").read_text() == text) == (not wanted.startswith("~"))
    one_clear_error(home.run("set", "old", "HOST_DATA_DIR=k"), 3, "mounts[1].source: 'k' is not an absolute path")
    one_clear_error(
        home.run("edit", "old", environ=editor(home, 'printf \'[variables]\\nHOST_DATA_DIR = "k"\\n\' >> "$1"')),
        3,
        "mounts[1].source: 'k' is not an absolute path",
    )
    assert "HOST_DATA_DIR" not in (home.profiles / "old.toml").read_text()


def test_1_the_system_refuses(home: Home) -> None:
    home.profile("a")
    one_clear_error(home.run("edit", "a", environ=editor(home, "exit 3")), 1)


@pytest.mark.parametrize(
    "words", ["use z", "use z --mkdir", "check z", "run z -- true", "show z", "path ~/中文", "status"]
)
def test_a_locale_that_does_not_have_a_paths_characters(home: Home, words: str) -> None:
    project = home.root / "中文"
    project.mkdir()
    home.run("new", "z", "--project-dir", str(project), "--layout", "host", check=True)
    environ = {**home.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([home.taoprof, *words.split()], env=environ, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    if words.startswith("use"):
        assert "does not have all characters of" in done.stderr and "hint: export PYTHONUTF8=1" in done.stderr


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
NOT_ASCII = """schema = 1
layout = "custom"
description = "描述 é „“ 🚗"
mounts = [{ source = "/tmp", destination = "/workspace/tao-experiments" }]
[variables]
GREETING = "héllo"
[container.env]
NAME = "naïve"
"""


@pytest.mark.slow  # each in a process of its own; the test above has those that show paths
@pytest.mark.parametrize("command", CASES)
def test_every_command_in_a_locale_that_has_only_ascii(home: Home, command: str) -> None:
    prepare(home)
    for name in "ab":
        home.profile(name, NOT_ASCII)
    (home.root / "mounts.json").write_text('{"Mounts": [], "Envs": [{"variable": "N", "value": "é"}]}')
    words, _, _ = CASES[command]
    with with_ids(home, words) as words:
        environ = {**home.environ, **ASCII}
        argv = [home.taoprof, command, *words]
        done = subprocess.run(
            argv, env=environ, cwd=home.root, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
        )
    assert done.returncode == {**ANSWERS, "diff": 6}.get(command, 0), done.stderr
    assert b"Traceback" not in done.stderr


def test_a_home_whose_name_the_locale_does_not_have(home: Home) -> None:
    """Then it is not the profile that is to be edited."""
    root = home.root / "hömé"
    root.mkdir()
    home.run("new", "z", "--project-dir", str(root), environ={"HOME": str(root)}, check=True)
    environ = {**home.environ, **ASCII, "HOME": root}
    done = subprocess.run([home.taoprof, "show", "z"], env=environ, capture_output=True, text=True, timeout=60)
    one_clear_error(done, 3)
    assert done.stderr.endswith("hint: nothing was changed. To correct it: export PYTHONUTF8=1 LC_ALL=C.UTF-8\n")


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (2, ["lst", "use", "use a b", "use ../a", "use a --nosuch", "env a --f=x"]),
        (3, ["use broken", "use a"]),
        (4, ["undo 7", "use -"]),
    ],
)
def test_2_usage_3_invalid_profile_and_state_4_nothing_of_that_name(home: Home, status: int, lines: list[str]) -> None:
    home.profile("a")
    home.profile("broken", "layout = 1")
    if status == 3:
        home.mapping_file.mkdir()
    for line in lines:
        one_clear_error(home.run(*line.split()), status)


def test_4_no_such_profile(home: Home) -> None:
    home.profile("detectnet_v2")
    one_clear_error(home.run("use", "detectnet"), 4, "did you mean 'detectnet_v2'?")


def test_6_differs(home: Home) -> None:
    home.profile("a")
    home.profile("b")
    assert home.run("status", "--check").returncode == 6
    home.run("use", "a", check=True)
    assert [home.run(*words.split()).returncode for words in ("status --check", "diff", "diff b")] == [0, 0, 6]


def test_130_ctrl_c_while_an_editor_is_open(home: Home) -> None:
    home.profile("a")
    environ = {**home.environ, **editor(home, "kill -INT $PPID")}
    done = subprocess.run([home.taoprof, "edit", "a"], env=environ, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    script = f"{home.taoprof} edit a; echo $?"
    shown = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, timeout=30)
    assert (shown.stdout, shown.stderr) in {("130\n", ""), ("", "")}  # bash may stop its script, as it should


def test_130_ctrl_c_while_waiting_for_the_lock(home: Home) -> None:
    home.profile("a")
    with held(home):
        command = [sys.executable, "-X", "importtime", home.taoprof, "use", "a"]
        process = subprocess.Popen(command, env=home.environ, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith("| filelock"):  # which is loaded for waiting only
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert [line for line in err.splitlines() if not line.startswith("import time:")] == []
    assert not home.mapping_file.exists()
    home.run("use", "a", check=True)


@pytest.mark.parametrize(
    "words",
    [["use", "a"], ["use", "a", "--json"], ["list"], ["list", "--json"], ["env", "a"], ["--help"], ["use", "-h"]],
)
def test_141_the_reader_has_gone_and_1_a_full_disk(home: Home, words: list[str]) -> None:
    home.profile("a")
    read, write = os.pipe()
    os.close(read)
    command = {"env": home.environ, "stderr": subprocess.PIPE, "text": True, "timeout": 30}
    done = subprocess.run([home.taoprof, *words], stdout=write, **command)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
    for unbuffered in ({}, {"PYTHONUNBUFFERED": "1"}):
        with open("/dev/full", "w") as full:
            done = subprocess.run([home.taoprof, *words], stdout=full, **command | {"env": home.environ | unbuffered})
        message = "taoprof: error: cannot write the output: no space left on device\n"
        message += "" if words[-1] in ("-h", "--help") else "hint: the command itself has succeeded\n"
        assert (done.returncode, done.stderr) == (1, message)


def test_system_errors_have_no_traceback(home: Home) -> None:
    home.profile("a")
    refusal = RuntimeError("can't start new thread")
    with mock.patch("threading.Thread.start", side_effect=refusal):
        one_clear_error(call(home, "run", "a", "--", "true"), 1)
    with mock.patch("taoprofiles.profiles.store.Store.summaries", side_effect=OSError(24, "Too many open files")):
        one_clear_error(call(home, "list"), 1)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_closed_stream_does_not_prevent_the_switch(home: Home, closed: str) -> None:
    home.profile("a")
    done = subprocess.run(
        ["sh", "-c", f"{home.taoprof} use a {closed}"], env=home.environ, capture_output=True, text=True, timeout=30
    )
    assert "Traceback" not in done.stderr
    assert home.run("current").stdout == "a\n"


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (("new", "d", "--project-dir", "."), "profile 'd' was created"),
        (("new", "d", "--from", "a"), "profile 'd' was created"),
        (("import", "mounts.json", "--name", "d"), "profile 'd' was created"),
        (("set", "a", "description=x"), "profile 'a' was changed"),
    ],
)
def test_an_error_behind_a_change_says_that_it_was_made(home: Home, words: tuple[str, ...], change: str) -> None:
    home.profile("a")
    (home.root / "mounts.json").write_text('{"Mounts": [{"source": "/tmp", "destination": "/data"}]}')
    before, patches = Store.write, ExitStack()

    def fails_from_now_on(*args: object, **options: object) -> None:
        before(*args, **options)  # type: ignore[arg-type]
        refusal = mock.Mock(side_effect=TaoprofError("cannot read 'FILE': input/output error"))
        for name in ("template", "renderer"):
            patches.enter_context(mock.patch.object(Store, name, refusal))

    with patches:
        patches.enter_context(mock.patch.object(Store, "write", fails_from_now_on))
        done = call(home, *words)
    one_clear_error(done, 1)
    assert f"taoprof: error: {change}, but cannot read 'FILE': input/output error" in done.err
