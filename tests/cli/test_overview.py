"""``taoprof`` alone: the status and the next commands; and the help."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from taoprofiles.cli import arguments, dispatch
from taoprofiles.cli.arguments import EXAMPLES, FIRST_STEPS
from tests.support.commands import Terminal, call
from tests.support.engine import until
from tests.support.home import Home, find_command

NOTEBOOK = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
MAPPING = '{"Mounts": [{"source": "/tmp", "destination": "/data"}]}'


def overview(home: Home) -> dict:
    """Return the data; as text it is on stdout too, with the same commands."""
    done = call(home, "--json")
    assert (done.status, done.err) == (0, "")
    text = call(home)
    assert text.status == 0
    for command in done.envelope["data"]["next"]:
        assert f"\n  {command}  " in text.out
    return done.envelope["data"]


def next_command(home: Home) -> str:
    """Return the first command that is named, which exists."""
    command = overview(home)["next"][0]
    assert command.split()[1] in dispatch.COMMANDS
    return command


def test_nothing_yet(home: Home) -> None:
    assert overview(home) == {
        "name": None, "state": "none", "profiles": [], "runs": [],
        "next": ["taoprof import NOTEBOOK", "taoprof new NETWORK"],
    }  # fmt: skip
    before = home.tree()
    assert "none yet" in call(home).out
    assert home.tree() == before


def test_a_notebook_in_the_folder_is_named(home: Home) -> None:
    (home.root / "my lab.ipynb").write_text(NOTEBOOK)
    assert next_command(home) == "taoprof import 'my lab.ipynb'"
    (home.root / "other.ipynb").write_text(NOTEBOOK)
    assert next_command(home) == "taoprof import ."


def test_each_state_has_its_next_command(home: Home) -> None:
    home.mapping_file.write_text(MAPPING)
    assert next_command(home) == "taoprof import --name NAME"
    home.profile("a")
    assert next_command(home) == "taoprof import --name NAME"
    assert overview(home)["next"][1] == "taoprof use a"
    home.mapping_file.unlink()
    assert next_command(home) == "taoprof use a"
    home.profile("b")
    assert next_command(home) == "taoprof use", "which of the two is not known"
    home.run("use", "b", check=True)
    assert next_command(home) == "taoprof check b"
    assert "'b' is active" in call(home).out
    home.mapping_file.unlink()
    assert next_command(home) == "taoprof use b", "the last one"
    home.run("use", "b", check=True)
    home.profile("b", 'layout = "custom"\nmounts = []\n')
    assert next_command(home) == "taoprof use b"
    home.profile("b", "layout = 3\n")
    assert next_command(home) == "taoprof check b"
    (home.profiles / "b.toml").unlink()
    assert next_command(home) == "taoprof use a"


def test_a_run_can_be_followed(home: Home) -> None:
    home.profile("a")
    home.run("use", "a", check=True)
    with subprocess.Popen(
        [home.taoprof, "run", "a", "--", find_command("sleep"), "60"], env=home.environ, cwd=home.root
    ) as run:
        try:
            until(home.holds, "the run has a hold")
            assert next_command(home) == "taoprof status --watch"
            assert overview(home)["runs"] == [home.holds()[0]["id"]]
            assert "running for" in call(home).out
        finally:
            run.terminate()


def test_the_profile_of_the_project_in_this_folder(home: Home) -> None:
    home.profile("a")
    home.run("use", "a", check=True)
    project = home.root / "tao/kitti"
    project.mkdir(parents=True)
    (project / ".taoprof.toml").write_text('layout = "custom"\n[variables]\nNUM_GPUS = "1"\n')

    def first() -> str:
        return call(home, "--json", cwd=project).envelope["data"]["next"][0]

    assert first() == "taoprof trust"
    assert call(home, "trust", "--yes", cwd=project).status == 0
    assert first() == "taoprof use kitti"
    home.run("use", "kitti", check=True)
    assert first() == "taoprof check kitti"
    home.run("remove", "a", "--force", check=True)
    home.mapping_file.unlink()
    commands = call(home, "--json", cwd=project).envelope["data"]["next"]
    assert commands == ["taoprof use kitti"], "for two reasons, and named once"


def test_many_profiles_are_cut(home: Home) -> None:
    for number in range(8):
        home.profile(f"p{number}")
    assert "p0, p1, p2, p3, p4 and 3 more" in call(home).out
    assert len(overview(home)["profiles"]) == 8


# The help


def test_every_command_has_examples_that_parse(home: Home) -> None:
    assert EXAMPLES.keys() == dispatch.COMMANDS.keys()
    for command, examples in {**EXAMPLES, "": FIRST_STEPS}.items():
        for line, _ in examples:
            words = shlex.split(line.replace('eval "$(', "").replace(')"', ""), comments=True)
            words = words[1 : next((i for i, word in enumerate(words) if word in ("|", ">", "&&")), None)]
            assert command in ("", words[0])
            dispatch.parse(words[0], words[1:])


@pytest.mark.parametrize("words", [["--help"], ["use", "--help"], ["help", "use"]])
def test_help_is_coloured_only_on_a_terminal(home: Home, words: list[str]) -> None:
    plain = call(home, *words).out
    assert "\x1b" not in plain

    def on_terminal(**environ: str) -> str:
        with Terminal([home.taoprof, *words], environ={**home.environ, **environ}, cwd=home.root) as terminal:
            return terminal.finish()[1].decode().replace("\r\n", "\n")

    coloured = on_terminal()
    assert "\x1b[1musage:\x1b[0m" in coloured
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[36m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain == on_terminal(NO_COLOR="1") == on_terminal(TERM="dumb")


def test_every_choice_of_an_argument_is_in_its_error(home: Home) -> None:
    for command, described in arguments.ARGUMENTS.items():
        for name, settings, _ in described:
            for choice in settings.get("choices", ()):
                words = [command, "a", name, "nosuch"] if name.startswith("-") else [command, "nosuch"]
                assert choice in call(home, *words).err
