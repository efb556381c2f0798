"""Which argument vectors start the launcher, and with which task."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.errors import UsageError
from taoprofiles.launcher.argv import PROGRAMS, LauncherCommand, container_words, parse_launcher_argv


@pytest.mark.parametrize(
    "line",
    [
        "tao model unet train",
        "/x/bin/tao model unet train",
        "tlt unet train",
        "tao-deploy unet gen_trt_engine",
        "python /x/bin/tao model unet train",
        "/usr/bin/python3.11 /x/bin/tao unet train",
        "python -X importtime /x/bin/tao model unet train",
        "python -Ximporttime -W ignore -u /x/bin/tao model unet train",
        "python -Wignore -I -S /x/bin/tao model unet train",
        "python --check-hash-based-pycs always /x/bin/tlt unet train",
        "pypy3 /x/bin/tao model unet train",
        "python3.11 -m nvidia_tao_cli.entrypoint.tao_launcher model unet train",
        "python3.11 -u -m nvidia_tao_cli.entrypoint.tao_launcher model unet train",
        "python -um nvidia_tao_cli.entrypoint.tao_launcher model unet train",
        "python -mnvidia_tao_cli.entrypoint.tao_launcher model unet train",
        "python -Imnvidia_tao_cli.entrypoint.tao_launcher model unet train",
        "python -m tlt.entrypoint.entrypoint unet train",
        "python /x/site-packages/nvidia_tao_cli/entrypoint/tao_launcher.py model unet train",
        "python nvidia_tao_cli/entrypoint/tao_launcher.py model unet train",
        "python ./tao model unet train",
    ],
)
def test_a_launcher(line: str) -> None:
    command = parse_launcher_argv(line.split())
    assert command is not None
    assert command.words[-2:] == line.split()[-2:]
    assert command.words[0] in PROGRAMS
    assert command.task == "unet"


@pytest.mark.parametrize("option", ["-c", "-Ic", "-uc"])
def test_a_launcher_started_from_code(option: str) -> None:
    code = "import sys; from nvidia_tao_cli.entrypoint.tao_launcher import main; sys.exit(main())"
    command = parse_launcher_argv(["python", option, code, "model", "unet", "train"])
    assert command is not None
    assert command.words == ["tao", "model", "unet", "train"]


def test_code_that_only_names_something_alike() -> None:
    assert parse_launcher_argv(["python", "-c", "from mytlt.x import y", "model", "x"]) is None


@pytest.mark.parametrize(
    "line",
    [
        "tao",
        "tao list",
        "tao stop --all",
        "tao info --verbose",
        "tao --help",
        "tao -h",
        "python /x/bin/tao list",
        "python -m nvidia_tao_cli.entrypoint.tao_launcher --help",
        "vim tao",
        "vim /x/bin/tao model",
        "python tao_notes.py model unet",
        "python /x/tao/notes.py model unet",
        "python -m taoprofiles use x",
        "python -m nvidia_tao_client model unet",
        "python -m pytest tao model",
        "python -",
        "python",
        "python -m",
        "python -c",
        "python -X",
        "grep tao x",
        "grep -r tlt .",
        "taoprof use x",
        "sudo tao model unet train",
        "sh -c tao",
        "bash /x/bin/tao.sh model",
        "taopath model unet",
        "",
    ],
)
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
        ("python -m nvidia_tao_cli.entrypoint.tao_launcher model dino train", "dino train"),
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
