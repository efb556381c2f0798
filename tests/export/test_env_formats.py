"""``env`` written for a shell, a program or a notebook, and read back by the real one: the same values, to the byte."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st

from taoprofiles.export.plan import fish_word, format_variables, shell_word
from taoprofiles.profiles import ENV_FORMATS
from tests.support.generated_profiles import moderate
from tests.support.home import Home, find_command, require

SHELLS = {
    "bash": ("bash", ["--norc", "--noprofile", "-c", '. "$1"; exec env -0', "-"]),
    "zsh": ("bash", ["-f", "-c", '. "$1"; exec env -0', "-"]),
    "fish": ("fish", ["--no-config", "-c", "source $argv[1]; exec env -0"]),
}
"""By shell: the format that is for it, and the arguments with which it reads a file and gives its environment."""

AWKWARD = [
    "", " ", "  a  ", "'", "''", '"', "\\", "\\\\", "\\'", "'\\''", "\\n", "\n", "\n\n", "a\n", "\r\n", "\r", "\t", "$",
    "$$", "$HOME", "${HOME}", "$(id)", "`id`", "!", "!!", "#", "a #b", "a # b", ";", "&", "|", "*", "?", "[a]", "{a,b}",
    "~", "~root", "=", "a=b", "%", "%s", "\x1b[31m", "\x07", "\x7f", "\x01", "\x80", "\x9b", "\xa0", "ä", "e\u0301",
    "漢字", "😀", "\u200b", "\u202e", "\u2028", "\u2029", "\ufeff", "\uffff", "\U0010ffff", "a" * 5000, "-n",
    "-e", "a:b", "\\x41", "\\101", "\\u0041", "\\X41", "\x1f1", "\x0141", "\nexport A=b", "'; id; '", "\\\n", "'\n'",
    '"\n"', "$'a'", "(a)", "<a>", "^a", "\x0b", "\x0c", "\x1c", "\x85",
]  # fmt: skip

values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
shell_text = st.text(st.sampled_from("'\"\\$`!#{}()\n\r\t ~*a0x7X\x01\x1b\x7f\x85ä漢😀"), max_size=20)
many = st.lists(values | shell_text, min_size=20, max_size=60)


def named(values: list[str]) -> dict[str, str]:
    """Name each value; some end in PATH, which fish treats as lists."""
    return {f"T{number}{'_PATH' if number % 5 == 0 else ''}": value for number, value in enumerate(values)}


def environment(argv: list[str], **environ: str) -> dict[str, bytes]:
    done = subprocess.run(argv, env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode("utf-8", "replace")[-500:]
    return dict(item.split(b"=", 1) for item in done.stdout.split(b"\0") if item)  # type: ignore[misc]


def check(shell: str, texts: list[str], folder: Path, **environ: str) -> None:
    form, arguments = SHELLS[shell]
    variables = named(texts)
    script = folder / "variables"
    script.write_bytes(format_variables(variables, form, hidden=["KEY"]).encode())
    result = environment([find_command(shell), *arguments, str(script)], HOME=str(folder), **environ)
    result = {key.decode(): value for key, value in result.items()}  # type: ignore[attr-defined]
    assert {name: result.get(name) for name in variables} == {name: value.encode() for name, value in variables.items()}
    assert "KEY" not in result


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_awkward_values_in_shells(shell: str, locale: str, tmp_path: Path) -> None:
    check(shell, AWKWARD, tmp_path, LC_ALL=locale)


@pytest.mark.parametrize(
    ("shell", "locale"), [("bash", "C"), ("bash", "C.UTF-8"), ("zsh", "C"), ("zsh", "C.UTF-8"), ("fish", "C.UTF-8")]
)
def test_any_value_in_shells(shell: str, locale: str, tmp_path: Path) -> None:
    @moderate(15)
    @given(many)
    def hold(texts: list[str]) -> None:
        check(shell, texts, tmp_path, LANG=locale)

    hold()


@moderate(50)
@given(many)
@example(AWKWARD)
def test_json(texts: list[str]) -> None:
    assert json.loads(format_variables(named(texts), "json", hidden=["KEY"])) == named(texts)


def test_dotenv(tmp_path: Path) -> None:
    """python-dotenv replaces ``${NAME}`` unless it is told not to (docs/how-to/shells.md)."""
    require(find_spec("dotenv"), "python-dotenv is not installed")
    from dotenv import dotenv_values

    @moderate(50)
    @given(many)
    @example(AWKWARD)
    def hold(texts: list[str]) -> None:
        text = format_variables(named(texts), "dotenv", hidden=["KEY"])
        (tmp_path / ".env").write_bytes(text.encode())
        assert dotenv_values(tmp_path / ".env", interpolate=False) == named(texts)
        assert dotenv_values(stream=io.StringIO(text), interpolate=False) == named(texts)

    hold()


@pytest.mark.parametrize("form", ENV_FORMATS)
def test_no_variables(form: str) -> None:
    text = format_variables({}, form, hidden=["KEY"])
    assert text.endswith("\n")
    assert ("KEY" in text) == (form != "json"), "what is left out is named where there are comments"


@pytest.mark.parametrize(("shell", "quote"), [("bash", shell_word), ("fish", fish_word)])
def test_a_path_that_is_no_text(shell: str, quote: Callable[[str], str]) -> None:
    script = f"printf %s {quote(os.fsdecode(b'/x' + bytes([0xFF]) + b'y'))}"
    done = subprocess.run([find_command(shell), "-c", script], capture_output=True, check=True)
    assert done.stdout == b"/x" + bytes([0xFF]) + b"y"


@pytest.mark.parametrize("form", ["bash", "fish", "json"])
def test_no_control_character_is_written_raw(form: str) -> None:
    """It may be read on a terminal before it is read by the shell."""
    text = format_variables({"T": "\x1b[31m\x07\r\x7f\x9b\u202e\n\u2028"}, form)
    assert all(line.isprintable() for line in text.split("\n"))


# The whole way: a profile's file, the command, the shell


@pytest.fixture
def awkward_home(home: Home) -> Home:
    texts = {name: text.replace("$", "$$") for name, text in named(AWKWARD).items() if not text.startswith("~")}
    texts = {name: text for name, text in texts.items() if len(text) < 4096}
    home.profile("a", tomli_w.dumps({"layout": "custom", "variables": texts}))
    home.wanted = {name: text.replace("$$", "$").encode() for name, text in texts.items()}  # type: ignore[attr-defined]
    return home


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", 'eval "$(taoprof env a)"; exec env -0'),
        ("bash", ". <(taoprof env a); exec env -0"),
        ("zsh", 'eval "$(taoprof env a)"; exec env -0'),
        ("fish", "taoprof env a --format fish | source; exec env -0"),
    ],
)
def test_the_real_command_in_a_shell(awkward_home: Home, shell: str, line: str) -> None:
    home = awkward_home
    path = f"{Path(home.taoprof).parent}:{home.environ['PATH']}"
    options = {"zsh": ["-f"], "fish": ["--no-config"], "bash": ["--norc", "--noprofile"]}[shell]
    environ = {**home.environ, "PATH": path, "LANG": "C"}
    done = subprocess.run([find_command(shell), *options, "-c", line], env=environ, capture_output=True, timeout=60)
    assert done.stderr == b""
    result = dict(item.split(b"=", 1) for item in done.stdout.split(b"\0") if item)  # type: ignore[misc]
    wanted: dict[str, bytes] = home.wanted  # type: ignore[attr-defined]
    assert {name: result.get(name.encode()) for name in wanted} == wanted


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_output_in_another_encoding(home: Home, encoding: str) -> None:
    """A terminal or a pipe that is not UTF-8: no traceback, whatever the text."""
    home.profile("a", 'layout = "custom"\nmounts = []\ndescription = "漢字 😀 ü"\n[variables]\nA = "漢字 😀 ü"\n')
    for words, status in ((["list"], 0), (["show", "a"], 0), (["env", "a"], 0), (["show", "ü→😀"], 2), (["--help"], 0)):
        around = {**home.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([home.taoprof, *words], env=around, capture_output=True, cwd=home.root, timeout=60)
        assert b"Traceback" not in done.stderr, (words, done.stderr[-200:])
        assert done.returncode == status, words
    result = environment(["bash", "-c", f'eval "$({home.taoprof} env a)"; exec env -0'], **around)
    assert result[b"A"] == "漢字 😀 ü".encode()  # type: ignore[index]
