"""``uninstall``: what taoprof has installed goes, what is the user's stays unless they agree."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from taoprofiles.cli.commands import integration
from taoprofiles.guard.service import UNIT, Service
from tests.support.commands import Terminal, call, one_clear_error
from tests.support.engine import until
from tests.support.guard_process import GuardProcess
from tests.support.home import Home, find_command

BASHRC = 'alias ll="ls -l"\neval "$(taoprof init bash)"\n# eval "$(taoprof init bash)" was here\nexport X=1'


@pytest.fixture
def home(home: Home) -> Home:
    """A home with an active profile, its kernel, and the lines of the documentation in start files."""
    home.profile("a")
    home.run("use", "a", check=True)
    home.environ["PATH"] = f"{Path(sys.executable).parent}:{home.environ['PATH']}"
    home.run("kernel", "install", "a", "--python", sys.executable, check=True)
    (home.root / ".bashrc").write_text(BASHRC)
    (home.root / ".bashrc").chmod(0o640)
    fish = home.root / ".config/fish/config.fish"
    fish.parent.mkdir()
    fish.write_text("taoprof init fish | source\n")
    return home


def kernel(home: Home) -> Path:
    return home.root / ".local/share/jupyter/kernels/taoprof-a"


def test_dry_run_names_everything_and_changes_nothing(home: Home) -> None:
    before = home.tree()
    done = home.run("uninstall", "--dry-run", check=True)
    assert home.tree() == before
    for text in ("TAO: a", "~/.bashrc", "line 2", "~/.config/fish/config.fish", "1 profile, only if", "~/.local/state"):
        assert text in done.stdout
    assert json.loads(home.run("uninstall", "--dry-run", "--json").stdout)["data"]["dry_run"] is True


def test_profiles_history_and_mapping_file_stay(home: Home) -> None:
    target = home.root / "dotfiles"
    (home.root / ".bashrc").rename(target)
    (home.root / ".bashrc").symlink_to(target)
    mapping, profile = home.mapping_file.read_bytes(), (home.profiles / "a.toml").read_bytes()
    done = home.run("uninstall", "--yes", check=True)
    assert not kernel(home).exists()
    assert target.read_text() == BASHRC.replace('eval "$(taoprof init bash)"\n', "", 1)
    assert ((home.root / ".bashrc").is_symlink(), target.stat().st_mode & 0o777) == (True, 0o640)
    assert (home.root / ".config/fish/config.fish").read_text() == ""
    assert (home.mapping_file.read_bytes(), (home.profiles / "a.toml").read_bytes()) == (mapping, profile)
    assert "not removed: ~/.config/taoprofiles, ~/.local/state/taoprofiles, ~/.tao_mounts.json" in done.stdout
    assert home.run("history").stdout.count("\n") > 1
    again = home.run("uninstall", "--yes", check=True)
    assert "nothing is left to remove" in again.stdout


def test_with_state_only_the_mapping_file_stays(home: Home) -> None:
    mapping = home.mapping_file.read_bytes()
    done = home.run("uninstall", "--yes", "--state", check=True)
    assert "not removed: ~/.tao_mounts.json\n" in done.stdout
    assert home.mapping_file.read_bytes() == mapping
    left = {str(path.relative_to(home.root)) for path in home.root.rglob("*") if path.is_file()}
    assert {name for name in left if "taoprof" in name} == set()
    home.run("new", "again", "--project-dir", "projects", check=True)


@pytest.mark.parametrize(("answers", "stays"), [("n", "all"), ("yn", "state"), ("yy", "nothing")])
def test_it_asks_twice(home: Home, answers: str, stays: str) -> None:
    with Terminal([home.taoprof, "uninstall"], environ=home.environ, cwd=home.root) as terminal:
        terminal.wait_for("Remove this? [y/N] ")
        terminal.send(f"{answers[0]}\n")
        if len(answers) > 1:
            terminal.wait_for("1 profile")
            terminal.wait_for("It cannot be restored. [y/N] ")
            terminal.send(f"{answers[1]}\n")
        status, _ = terminal.finish()
    assert status in ((0,) if stays != "all" else (-2, 130))
    assert kernel(home).exists() == (stays == "all")
    assert home.profiles.exists() == home.state.exists() == (stays != "nothing")
    assert home.mapping_file.exists()


def test_nothing_is_removed_without_an_answer(home: Home) -> None:
    before = home.tree()
    one_clear_error(home.run("uninstall", stdin=subprocess.DEVNULL), 2)
    assert home.tree() == before


def test_other_lines_about_taoprof_are_named_and_stay(home: Home) -> None:
    init = 'eval "$(taoprof init zsh)"\n'
    text = "PS1='[$TAOPROF_PROMPT] \\w \\$ '\nalias t='taoprof run a -- tao x -k=sesame'\n(taoprofd &)\n"
    (home.root / ".zshrc").write_text(init + text)
    assert "~/.zshrc also names taoprof in lines 2, 3, 4, not removed\n" in home.run("uninstall", "--dry-run").stderr
    done = home.run("uninstall", "--yes", check=True)
    assert (home.root / ".zshrc").read_text() == text
    assert "~/.zshrc also names taoprof in lines 1, 2, 3, not removed\n" in done.stderr, "as the file is now"
    assert "sesame" not in done.stderr


def test_the_prompt_of_an_open_shell_creates_no_state_again(home: Home) -> None:
    assert home.run("uninstall", "--yes", "--state", check=True) and home.mapping_file.exists()
    assert home.run("current", "--short").stdout == "?\n"
    assert not home.state.exists()


@pytest.mark.parametrize(
    "before", ["if true; then\n  ", "if true; then\n# TAO\n", "true &&\n", "f() {\n", "case x in\nx)\n", "echo \\\n"]
)
def test_a_line_that_others_need_stays(home: Home, before: str) -> None:
    text = before + 'eval "$(taoprof init bash)"\nfi\n'
    (home.root / ".zshrc").write_text(text)
    done = home.run("uninstall", "--yes", check=True)
    assert (home.root / ".zshrc").read_text() == text
    assert "~/.zshrc also names taoprof in line" in done.stderr


def test_a_comment_in_another_encoding_is_no_obstacle(home: Home) -> None:
    (home.root / ".zshrc").write_bytes(b'# a fi in\neval "$(taoprof init bash)"  # f\xfcr TAO\n')
    home.run("uninstall", "--yes", check=True)
    assert (home.root / ".zshrc").read_bytes() == b"# a fi in\n"


def test_work_that_needs_the_state_refuses_it(home: Home) -> None:
    hold = home.json("hold", "--reason", "a demo")["data"]["id"]
    before = home.tree()
    done = home.run("uninstall", "--yes", "--state")
    one_clear_error(done, 5)
    assert done.stderr.endswith(f"hint: nothing was changed. To end this work: taoprof release {hold}\n")
    assert home.tree() == before
    home.run("release", hold, "--yes", check=True)
    sleep = [home.taoprof, "run", "a", "--", find_command("sleep"), "60"]
    with subprocess.Popen(sleep, env=home.environ, cwd=home.root) as run:
        try:
            until(home.holds, "the run has a hold")
            one_clear_error(home.run("uninstall", "--yes"), 5)
            assert kernel(home).exists()
        finally:
            run.terminate()


def test_a_guard_without_systemd_is_ended(home: Home) -> None:
    with GuardProcess(home) as guard:
        done = home.run("uninstall", "--yes", "--state", check=True)
        assert f"pid {guard.process.pid}" in done.stdout
        assert guard.process.wait(10) == 0
    assert not home.state.exists()


@pytest.fixture
def unit(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installed unit of this home, on a machine without a systemd: the scratch home is that of the database."""
    entry = pwd.getpwuid(os.getuid())
    changed = pwd.struct_passwd([*entry[:5], str(home.root), entry[6]])
    monkeypatch.setattr("pwd.getpwuid", lambda _: changed)
    tools = home.root.parent / "tools"
    tools.mkdir()
    for name in ("taoprof", "python"):
        (tools / name).symlink_to(find_command(name))
    home.environ["PATH"] = str(tools)
    path = home.root / ".config/systemd/user" / UNIT
    path.parent.mkdir(parents=True)
    path.write_text(Service(home.context).unit())
    return path


def test_what_cannot_be_removed_is_named_and_the_rest_is_removed(home: Home, unit: Path) -> None:
    done = call(home, "uninstall", "--yes")
    assert done.status == 1
    assert f"warning: ~/.config/systemd/user/{UNIT} was not removed: " in done.err
    assert unit.exists()
    assert not kernel(home).exists()
    assert str(kernel(home)).replace(str(home.root), "~") in done.out


def test_the_service_of_another_home_is_left_alone(home: Home, unit: Path) -> None:
    assert "service" in call(home, "uninstall", "--dry-run").out
    other = {"HOME": str(home.root.parent)}
    assert "service" not in call(home, "uninstall", "--dry-run", environ=other).out


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("uv-receipt.toml", "", "uv tool uninstall taoprofiles"),
        ("pipx_metadata.json", '{"main_package": {"package": "taoprofiles"}}', "pipx uninstall taoprofiles"),
        ("pipx_metadata.json", '{"main_package": {"package": "nvidia-tao"}}', "pipx uninject nvidia-tao taoprofiles"),
        ("pipx_metadata.json", "{", "/my env/bin/python' -m pip uninstall taoprofiles"),
        ("pyvenv.cfg", "", "/my env/bin/python' -m pip uninstall taoprofiles"),
    ],
)
def test_the_command_that_removes_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str, expected: str
) -> None:
    (tmp_path / file).write_text(content)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/my env/bin/python")
    assert integration.program_line().endswith(expected)
