"""Which argument vectors start the launcher, and with which task."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.errors import UsageError
from taoprofiles.launcher.argv import (
    PACKAGES,
    PROGRAMS,
    RUNNERS,
    LauncherCommand,
    add_volumes,
    container_words,
    parse_launcher_argv,
    script_of,
    simple_commands,
)
from taoprofiles.launcher.behaviour import KNOWN_VERSIONS, behaviour_of
from taoprofiles.system import processes

MODULE = "nvidia_tao_cli.entrypoint.tao_launcher"
LAUNCHERS = (
    "tao model unet train", "/x/bin/tao model unet train", "tlt unet train", "tao-deploy unet gen_trt_engine",
    "python /x/bin/tao model unet train", "/usr/bin/python3.11 /x/bin/tao unet train", "pypy3 /x/bin/tao unet train",
    "python -X importtime /x/bin/tao model unet train", "python -Ximporttime -W ignore -u /x/bin/tao model unet train",
    "python -Wignore -I -S /x/bin/tao unet train", "python --check-hash-based-pycs always /x/bin/tlt unet train",
    f"python3.11 -m {MODULE} model unet train", f"python3.11 -u -m {MODULE} model unet train",
    f"python -um {MODULE} model unet train", f"python -m{MODULE} unet train", f"python -Im{MODULE} model unet train",
    "python -m tlt.entrypoint.entrypoint unet train", "python ./tao model unet train",
    "python /x/site-packages/nvidia_tao_cli/entrypoint/tao_launcher.py model unet train",
    "python nvidia_tao_cli/entrypoint/tao_launcher.py model unet train",
)  # fmt: skip
OTHERS = (
    "", "tao", "tao list", "tao stop --all", "tao info --verbose", "tao --help", "tao -h", "python /x/bin/tao list",
    f"python -m {MODULE} --help", "vim tao", "vim /x/bin/tao model", "python tao_notes.py model unet",
    "python /x/tao/notes.py model unet", "python -m taoprofiles use x", "python -m nvidia_tao_client model unet",
    "python -m pytest tao model", "python -", "python", "python -m", "python -c", "python -X", "grep tao x",
    "grep -r tlt .", "taoprof use x", "sudo tao model unet train", "sh -c tao", "bash /x/bin/tao.sh model",
    "taopath model unet",
)  # fmt: skip


@pytest.mark.parametrize("line", LAUNCHERS)
def test_a_launcher(line: str) -> None:
    command = parse_launcher_argv(line.split())
    assert command is not None
    assert command.words[-2:] == line.split()[-2:]
    assert command.words[0] in PROGRAMS
    assert command.task == "unet"


def test_a_program_of_any_version_is_known_and_its_process_is_found() -> None:
    """One table says which command lines start a launcher, and a coarser one which processes are looked at."""
    assert {name for version in KNOWN_VERSIONS for name in behaviour_of(version).programs} == set(PROGRAMS)
    for name in (*PROGRAMS, *PACKAGES, *RUNNERS):
        assert any(part in name.encode() for part in processes._PARTS), name


@pytest.mark.parametrize("option", ["-c", "-Ic", "-uc"])
def test_a_launcher_started_from_code(option: str) -> None:
    code = f"import sys; from {MODULE} import main; sys.exit(main())"
    command = parse_launcher_argv(["python", option, code, "model", "unet", "train"])
    assert command is not None
    assert command.words == ["tao", "model", "unet", "train"]
    assert parse_launcher_argv(["python", option, "from mytlt.x import y", "model", "x"]) is None


@pytest.mark.parametrize("line", OTHERS)
def test_not_a_launcher(line: str) -> None:
    assert parse_launcher_argv(line.split(" ")) is None


TELLING = """tao tlt python python3.11 /x/tao -m -c -X -W - -- docker nvidia_tao_cli -um -mtlt list model
nvidia_tao_cli.entrypoint tlt. /tlt/entrypoint/""".split()
WORDS = st.text(max_size=12) | st.sampled_from(["", *TELLING])


@given(st.lists(WORDS, max_size=8))
def test_any_argv_can_be_parsed(argv: list[str]) -> None:
    command = parse_launcher_argv(argv)
    assert command is None or command.words[0] in PROGRAMS


def test_the_parts_of_a_command() -> None:
    words = ["tao", "model", "dino", "train", "-e", "x"]
    assert parse_launcher_argv(words) == LauncherCommand(words, "model", "dino", ["train", "-e", "x"])
    assert parse_launcher_argv(["/bin/tlt", "unet"]) == LauncherCommand(["tlt", "unet"], "", "unet", [])
    assert parse_launcher_argv(["tao", "model"]) == LauncherCommand(["tao", "model"], "model", "", [])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("tao model dino train -e x", "dino train -e x"),
        ("/opt/bin/tao dino train", "dino train"),
        (f"python -m {MODULE} model dino train", "dino train"),
        ("tlt detectnet_v2 train", "detectnet_v2 train"),
        ("dino train", "dino train"),
        ("tao model dino run ls /", "ls /"),
        ("tao deploy dino", "/bin/bash"),
        ("", ""),
    ],
)
def test_the_words_in_the_container(argv: str, words: str) -> None:
    assert container_words(argv.split()) == words.split()


@pytest.mark.parametrize("argv", ["tao", "tao list", "tao model", "tao model --help", "tao model dino --volume /a:/b"])
def test_what_starts_no_task(argv: str) -> None:
    with pytest.raises(UsageError):
        container_words(argv.split())


@pytest.mark.parametrize(
    ("command", "script"),
    [
        *((f"{shell} X", "X") for shell in ("bash -c", "bash -euo pipefail -c", "bash --login -c +o posix")),
        *(("/bin/sh -lc X name", "X"), ("env A=b timeout 1h bash -l -c X", "X")),
        *((words, None) for words in ("bash X -c", "bash -c", "bash", "bash -o", "dino -c X", "dino bash -c X", "")),
    ],
)
def test_the_script_of_a_shell(command: str, script: str | None) -> None:
    assert script_of(command.split()) == script


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("cd /x && A=1 dino train; (b | c)", ["cd /x", "dino train", "b", "c"]),
        ("for i in 1 2; do dino train -e $i; done", ["for i in 1 2", "dino train -e $i", "done"]),
        ("if ! time exec dino train\nthen a; fi", ["dino train", "a", "fi"]),
        ("# it's a comment; no command\ndino a#b c # it's", ["dino a#b c"]),
        ('dino "a\nb" c\nd', ["dino a\nb c", "d"]),
        ("dino train \\\n -e x", ["dino train -e x"]),
        ("it's\na\n", ["it's …", "a"]),
        ("cat <<'E'\nit's\nE\ndino", ["cat << E", "E", "dino"]),
        ("cat <<< x\nit's\nE", ["cat <<< x", "it's …", "E"]),
        ("bash -c 'a; sh -c b'; c", ["a", "b", "c"]),
        ("timeout 9 tao model dino train", ["tao model dino train"]),
        (" \n;&", []),
    ],
)
def test_the_commands_of_a_script(script: str, commands: list[str]) -> None:
    assert [" ".join(words) for words in simple_commands(["bash", "-c", script])] == commands


@given(st.text("abc 'is\"#\\\n;&|()<E$-", max_size=40))
def test_any_script_can_be_read(script: str) -> None:
    assert all(words for words in simple_commands(["sh", "-c", script]))


def test_a_long_script_with_open_quotes_takes_no_time() -> None:
    assert len(simple_commands(["sh", "-c", "a 'b\n" + 'c "d\n' * 10_001 + "e"])) > 100


def test_volumes_are_mounts(tmp_path: Path) -> None:
    words = ["tao", "model", "dino", "--volume", f"{tmp_path}:/d:ro", "x", "--volume", "none", "--volume"]
    assert add_volumes(words, {"/a": "/b"}) == {"/a": "/b", str(tmp_path): "/d"}
    assert add_volumes(words, {str(tmp_path): "/b"}) == {str(tmp_path): "/d"}
