"""The picker on a terminal, the completion in shells, and thousands of profiles."""

from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taoprofiles.cli.commands.runs import LONG_AGO
from taoprofiles.cli.dispatch import COMMANDS
from taoprofiles.holds.records import HoldRecords
from taoprofiles.profiles import store
from tests.support.commands import Terminal, call, one_clear_error
from tests.support.engine import until
from tests.support.home import Home, find_command

NAMES = ["city", "detectnet_v2", "dino"]


@pytest.fixture
def home(home: Home) -> Home:
    """A home with three profiles, and a PATH that has taoprof but no fzf."""
    for name in NAMES:
        home.profile(name)
    tools = home.root.parent / "tools"
    tools.mkdir()
    (tools / "taoprof").symlink_to(home.taoprof)
    for name in ("env", "cat", "sh", "python3"):
        (tools / name).symlink_to(find_command(name))
    home.environ["PATH"] = str(tools)
    return home


def on_terminal(home: Home, *words: str, columns: int = 200) -> Terminal:
    return Terminal([home.taoprof, *words], environ=home.environ, cwd=home.root, columns=columns)


def shown(home: Home, *words: str, columns: int = 80) -> str:
    """Return what a command shows on a terminal."""
    with on_terminal(home, *words, columns=columns) as terminal:
        return terminal.finish()[1].decode()


class AnsweringTerminal(Terminal):
    """A terminal that answers the query for the cursor's position, as real ones do; fzf waits for it."""

    def _read(self, timeout: float) -> bool:
        more = super()._read(timeout)
        while b"\x1b[6n" in self.output:
            self.output = self.output.replace(b"\x1b[6n", b"", 1)
            self.send("\x1b[1;1R")
        return more


@contextmanager
def use_with_fzf(home: Home) -> Iterator[Terminal]:
    """Run ``use`` where there is a real fzf, up to the moment when that shows its list."""
    (Path(home.environ["PATH"]) / "fzf").symlink_to(find_command("fzf"))
    with AnsweringTerminal([home.taoprof, "use"], environ=home.environ, cwd=home.root) as terminal:
        terminal.wait_for("3/3")
        yield terminal


# The picker


@pytest.mark.parametrize(("answer", "chosen"), [("2", "detectnet_v2"), (" dino ", "dino"), ("3", "3")])
def test_picker_by_number_or_name(home: Home, answer: str, chosen: str) -> None:
    if chosen == "3":  # the name counts first: it is what is typed in full everywhere else
        home.profile("3")
    with on_terminal(home, "use") as terminal:
        shown = terminal.wait_for("profile (number or name): ")
        names = [*(["3"] if chosen == "3" else []), *NAMES]
        assert [line.split()[1] for line in shown.splitlines()[:-1]] == names
        terminal.send(f"{answer}\n")
        terminal.wait_for(f"switched to '{chosen}'")
        assert terminal.finish()[0] == 0
    assert home.run("current").stdout == f"{chosen}\n"


@pytest.mark.parametrize("answer", ["\n", "0\n", "nosuch\n", "../x\n", "²\n", "\x04"])
def test_picker_refuses_what_is_not_in_the_list(home: Home, answer: str) -> None:
    before = home.tree()
    with on_terminal(home, "use") as terminal:
        terminal.wait_for("profile (number or name): ")
        terminal.send(answer)
        status, rest = terminal.finish()
    assert status == 2
    assert (b"no profile chosen" in rest) == (answer in ("\n", "\x04"))
    assert b"Traceback" not in rest
    assert home.tree() == before


def interrupted(home: Home, terminal: Terminal) -> None:
    terminal.send("\x03")
    status, rest = terminal.finish()
    assert status in (-2, 130), rest
    assert b"Traceback" not in rest
    assert not home.mapping_file.exists()


def test_both_pickers_are_ended_by_ctrl_c(home: Home) -> None:
    with on_terminal(home, "use") as terminal:
        terminal.wait_for("profile (number or name): ")
        interrupted(home, terminal)
    with use_with_fzf(home) as terminal:
        interrupted(home, terminal)


def test_picker_with_fzf(home: Home) -> None:
    with use_with_fzf(home) as terminal:
        terminal.send("din")
        terminal.wait_for("1/3")
        terminal.send("zzz")
        terminal.wait_for("0/3")
        terminal.send("\x7f\x7f\x7f")
        terminal.wait_for("1/3")
        terminal.send("\r")
        terminal.wait_for("switched to 'dino'")
        assert terminal.finish()[0] == 0
    assert home.run("current").stdout == "dino\n"


def test_no_picker_without_a_profile(home: Home) -> None:
    for name in NAMES:
        (home.profiles / f"{name}.toml").unlink()
    with on_terminal(home, "use") as terminal:
        terminal.wait_for("there are no profiles yet")
        assert terminal.finish()[0] == 2


def test_the_whole_home_is_taken_only_after_a_question(home: Home) -> None:
    for answer, status in (("\n", 0), ("y\n", 0)):
        with on_terminal(home, "new", "whole") as terminal:
            terminal.wait_for("is your home folder. Use all of it as the project folder? [y/N] ")
            terminal.send(answer)
            ended, output = terminal.finish()
        assert ended == (-2 if answer == "\n" else status), output
        assert (home.profiles / "whole.toml").exists() == (answer == "y\n")
    (home.root / "kitti").mkdir()
    done = home.run("new", "kitti", "--project-dir", "kitti")
    assert done.stdout.startswith("profile 'kitti' created for ~/kitti ")
    assert "is your home folder" in home.run("new", "other").stderr


def test_stop_asks_unless_it_is_what_was_started_last(home: Home) -> None:
    command = ["--", find_command("sleep"), "60"]
    runs = [subprocess.Popen([home.taoprof, "run", name, *command], env=home.environ) for name in NAMES[:2]]
    try:
        until(lambda: len(home.holds()) == 2, "both run")
        first = home.holds()[0]["id"]
        with on_terminal(home, "stop", first) as terminal:
            terminal.wait_for("Stop it? [y/N] ")
            terminal.send("n\n")
            assert b"not stopped" in terminal.finish()[1]
        assert len(home.holds()) == 2
        with on_terminal(home, "stop", home.holds()[1]["id"]) as terminal:
            assert b": stopped" in terminal.finish()[1]
        until(lambda: len(home.holds()) == 1, "it has ended")
        with on_terminal(home, "stop", "-") as terminal:  # the newest that is active is not what was started last
            terminal.wait_for("This is not what you started last. Stop it? [y/N] ")
            terminal.send("n\n")
            terminal.finish()
        records = HoldRecords(home.context)
        (hold,) = records.all()
        hold.since -= 2 * LONG_AGO
        records.write(hold)
        with on_terminal(home, "stop", first) as terminal:
            terminal.wait_for("This started 2 h ")
            terminal.wait_for(" ago. Stop it? [y/N] ")
            terminal.send("n\n")
            terminal.finish()
        home.run("stop", first, "--yes", check=True)
        assert [run.wait(20) for run in runs] != [0, 0]
    finally:
        for run in runs:
            run.kill()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["stop", "HOLD"], "is a manual hold without a command"),
        (["new", "dino"], "profile 'dino' already exists"),
        (["new", "a/b"], "'a/b' is not a valid profile name"),
    ],
)
def test_a_question_is_not_asked_if_the_command_would_fail(home: Home, words: list[str], error: str) -> None:
    home.run("use", "city", check=True)
    hold_id = home.json("hold", "--reason", "a test")["data"]["id"]
    output = shown(home, *(hold_id if word == "HOLD" else word for word in words))
    assert error in output
    assert "[y/N]" not in output


MEANT = {
    "ls": "list", "rm": "remove", "ps": "status", "start": "run", "restore": "undo", "attach": "logs -f", "cat": "show",
    "switch": "use", "delete": "remove", "top": "status", "holds": "status", "lst": "list", "swtich": "use",
    "activte": "use", "version": "--version", "-V": "--version", "--verison": "--version", "--hlep": "--help",
}  # fmt: skip


def test_a_suggestion_is_what_was_meant(home: Home) -> None:
    for word, meant in MEANT.items():
        assert f"did you mean 'taoprof {meant}'?" in call(home, word).err
    for careless in ("sto", "relese", "remov", "ssop", "und", "delte", "kil", "unlok"):
        error = call(home, careless).err
        assert not any(f"taoprof {command}'" in error for command in ("stop", "release", "remove", "undo"))


TRAIN = ["tao", "model", "detectnet_v2", "train", "-e", "$SPECS_DIR/a b.txt", "-k", "key", "--gpus", "1"]
QUOTED = "tao model detectnet_v2 train -e '$SPECS_DIR/a b.txt' -k key --gpus 1"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["run", "dino", *TRAIN], f"taoprof run dino -- {QUOTED}"),
        (["run", "dino", "--gpus", "0,", *TRAIN], f"taoprof run dino --gpus 0, -- {QUOTED}"),
        (["render", "dino", "--to", "docker", *TRAIN], f"taoprof render dino --to docker -- {QUOTED}"),
        (["run", *TRAIN], f"taoprof run NAME -- {QUOTED}"),
        (["check", "--strict", *TRAIN], f"taoprof check --strict NAME -- {QUOTED}"),
        (["run", "nohup", *TRAIN], f"taoprof run NAME -- nohup {QUOTED}"),
        (["run", "dino", "python", "x.py", "-e", "3"], "taoprof run dino -- python x.py -e 3"),
        (["run", "dino", "--gpu", "0,", "--", "true"], "did you mean --gpus?"),
        (["run", "dino", "--gpus"], "see 'taoprof run --help'"),
        (["service", "instal"], "hint: did you mean 'install'?"),
        (["render", "a", "--to", "slrm"], "hint: did you mean 'slurm'?"),
        (["init", "tcsh"], "hint: see 'taoprof init --help'"),
        (["help", "usee"], "hint: did you mean 'taoprof use'?"),
        (["run", "--", "ls"], "'taoprof list' shows the profiles; see 'taoprof run --help'"),
        (["stop"], "'taoprof status' shows the ids; see 'taoprof stop --help'"),
        (["new"], "hint: such as: taoprof new segformer; see 'taoprof new --help'"),
        (["init"], "hint: such as: eval \"$(taoprof init bash)\"; see 'taoprof init --help'"),
        (["new", "my net"], "hint: such as 'my-net'"),
        (["new", "测试"], "ASCII letters (a-z, A-Z), digits, '.', '_' and '-', starting with a letter or digit"),
        (["use", "/home/ana/profiles/dino.toml"], "hint: such as 'dino'"),
        (["import"], "hint: taoprof import NOTEBOOK.ipynb; for the mapping file as it is: taoprof import --name NAME"),
        (["set", "dino", "NUM_GPUS", "2"], "hint: taoprof set dino NUM_GPUS=2; to remove it: --unset NUM_GPUS"),
        (["set", "dino", "NUM_GPUS", "A=2"], "hint: taoprof set dino NUM_GPUS=VALUE; to remove it: --unset NUM_GPUS"),
        (["set", "dino", "num_gpus=2"], "NUM_GPUS; a key is project_dir, docker.shm_size or container.env.NAME"),
        (["kernel", "install"], "hint: 'taoprof list' shows the profiles"),
        (["kernel", "install", "--python", "/no/python", "dino"], "hint: name one with --python PATH"),
        (["run", "--gpu=0,", "dino", *TRAIN], "did you mean --gpus?"),
        (["use", "dino", "--relese", "x"], "did you mean --release?"),
        (["run", "dino", "--wait", "5", "minutes", "--", "true"], "hint: --wait 5m"),
        (["hold", "--reason", "x", "--for", "2", "hours"], "hint: --for 2h"),
    ],
)
def test_a_hint_keeps_the_words_of_a_command_line(home: Home, words: list[str], hint: str) -> None:
    result = call(home, *words)
    one_clear_error(result, 2)
    assert result.err.endswith(f"{hint}\n")


@pytest.mark.parametrize("stream", ["stdin", "stderr", "both"])
def test_nothing_is_asked_without_a_terminal(home: Home, stream: str) -> None:
    """A script that has half a terminal must not wait for an answer either."""
    master, slave = pty.openpty()
    streams: dict[str, int] = {"stdin": slave, "stdout": subprocess.PIPE, "stderr": slave}
    for name in ("stdin", "stderr"):
        if stream in (name, "both"):
            streams[name] = subprocess.DEVNULL if name == "stdin" else subprocess.PIPE
    try:
        done = subprocess.run([home.taoprof, "use"], env=home.environ, cwd=home.root, timeout=30, **streams)  # type: ignore[call-overload]
    finally:
        os.close(slave)
        os.close(master)
    assert (done.returncode, done.stdout) == (2, b"")
    assert not home.mapping_file.exists()
    if stream == "both":
        one_clear_error(home.run("use", stdin=subprocess.DEVNULL), 2)
        home.profile("a")
        one_clear_error(home.run("edit", "a", stdin=subprocess.DEVNULL), 2)


def test_colour_only_on_a_terminal(home: Home) -> None:
    assert "\x1b" not in home.run("use", "nosuch").stderr
    assert "\x1b[31merror:\x1b[0m" in shown(home, "use", "nosuch")
    home.environ["NO_COLOR"] = "1"
    assert "\x1b" not in shown(home, "use", "nosuch")


def test_a_table_fits_the_terminal(home: Home) -> None:
    for name in ("wide", "数据"):
        (home.root / (name * 30)).mkdir(parents=True)
    long = " ".join(["word"] * 40)
    home.run("new", "wide", "--project-dir", "wide" * 30, "--description", long, check=True)
    home.run("new", "other", "--project-dir", "数据" * 30, check=True)
    whole = home.run("list").stdout
    assert ("wide" * 30 in whole, long in whole) == (True, True)
    for columns in (80, 120):
        lines = shown(home, "list", columns=columns).splitlines()
        assert len(lines) == 6
        assert max(len(line) + sum(character in "数据" for character in line) for line in lines) <= columns
        assert "…" in lines[-1]
    home.run("use", "city", check=True)
    home.run("hold", "--reason", long, check=True)
    (row,) = (line for line in shown(home, "status").splitlines() if " manual " in line)
    assert len(row) <= 80
    assert row.endswith("…")
    home.run("run", "wide", "--force", "--", "sh", "-c", "exit 7; # a long command that has no room")
    assert "run, exit 7" in shown(home, "history"), "what is cut is the command"


# Completion


def completed(home: Home, line: str, *, shell: str = "bash") -> list[str]:
    """Ask for completions as the shells' scripts do: the line in the environment, the answer on descriptor 8."""
    reader, writer = os.pipe()
    environ = {
        **home.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": shell, "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9",
        "COMP_LINE": line, "COMP_POINT": str(len(line.encode())), "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    command = [find_command("bash"), "-c", f'exec 8>&{writer} 9>/dev/null; exec "$0" >/dev/null', home.taoprof]
    with os.fdopen(reader) as answer:
        with os.fdopen(writer):
            subprocess.run(command, env=environ, pass_fds=[writer], timeout=60, cwd=home.root, check=True)
        return sorted(answer.read().split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("taoprof us", ["use"]),
        ("taoprof use ", NAMES),
        ("taoprof use --dry-run de", ["detectnet_v2"]),
        ("taoprof diff city di", ["dino"]),
        ("taoprof remove ci", ["city"]),
        ("taoprof use x", []),
        ("taoprof env city --format ", ["bash", "dotenv", "fish", "json"]),
        ("taoprof use --dr", ["--dry-run"]),
        ("taoprof render city --to s", ["slurm"]),
    ],
)
def test_completion(home: Home, line: str, expected: list[str]) -> None:
    words = completed(home, line)
    if not line.rpartition(" ")[2].startswith("-"):
        words = [word for word in words if not word.startswith("-")]
    assert words == expected


def test_completion_describes_each_profile(home: Home) -> None:
    """Of words without a description zsh shows an empty one, '--'."""
    assert all(":" in word.rstrip(":") for word in completed(home, "taoprof use ci", shell="zsh"))


def test_completion_offers_every_command_and_writes_nothing(home: Home) -> None:
    before = home.tree()
    assert set(completed(home, "taoprof ")) >= set(COMMANDS)
    completed(home, "taoprof use d")
    assert home.tree() == before
    assert not home.state.exists()


def test_completion_in_a_broken_home(home: Home) -> None:
    for name in NAMES:
        (home.profiles / f"{name}.toml").unlink()
    home.profiles.rmdir()
    home.profiles.write_text("")
    assert [word for word in completed(home, "taoprof use ") if not word.startswith("-")] == []
    home.environ["HOME"] = "relative"
    assert [word for word in completed(home, "taoprof use ") if not word.startswith("-")] == []


def script(home: Home, shell: str) -> Path:
    done = home.run("init", shell, check=True)
    assert done.stderr == ""
    path = home.root.parent / f"completion.{shell}"
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize(
    ("shell", "options", "setup"),
    [
        ("bash", ("--norc", "--noprofile", "-i"), ""),
        ("zsh", ("-f", "-i"), "autoload -U compinit; compinit -u -D; "),
        ("zsh", ("-f", "-i"), ""),
    ],
)
def test_completion_in_an_interactive_shell(home: Home, shell: str, options: tuple[str, ...], setup: str) -> None:
    sourced = script(home, shell)
    environ = {**home.environ, "PS1": "> ", "ZDOTDIR": str(home.root)}
    with Terminal([find_command(shell), *options], environ=environ, cwd=home.root) as terminal:
        if shell == "bash":
            terminal.wait_for("> ")
        terminal.send(f"{setup}source {sourced} && echo loa''ded\n")
        terminal.wait_for("loaded\r\n")
        terminal.send("taoprof us\tdete\t\n")
        terminal.wait_for("switched to 'detectnet_v2'")
        terminal.send("exit\n")
        terminal.finish()
    assert home.run("current").stdout == "detectnet_v2\n"


def fish(home: Home, line: str, *, whole: bool = False) -> list[str]:
    code = "source $argv[1]; complete -C $argv[2]"
    words = [find_command("fish"), "--no-config", "-c", code, str(script(home, "fish")), line]
    done = subprocess.run(words, env=home.environ, capture_output=True, text=True, timeout=60, cwd=home.root)
    assert (done.returncode, done.stderr) == (0, "")
    return [word if whole else word.split("\t")[0] for word in done.stdout.splitlines()]


def test_ids_are_completed_with_what_they_are(home: Home) -> None:
    home.run("use", "city", check=True)
    hold = home.json("hold", "--reason", "a demo")["data"]["id"]
    assert hold in completed(home, "taoprof release ")
    assert hold in completed(home, "taoprof use --release ")
    assert "1" in completed(home, "taoprof undo ")
    assert "a demo" in fish(home, "taoprof release ", whole=True)[0]


def test_completion_in_fish(home: Home) -> None:
    assert fish(home, "taoprof use de") == ["detectnet_v2"]
    assert fish(home, "taoprof use d") == ["detectnet_v2", "dino"]
    assert fish(home, "taoprof us") == ["use"]


# Thousands

MANY = 3000

WATCH = """
import os, sys
from collections import Counter
opened = Counter()
folder = sys.argv[1]
def watch(event, args):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str) and args[0].startswith(folder):
        opened[args[0]] += 1
sys.addaudithook(watch)
from taoprofiles.cli import main
status = main.run(sys.argv[2:])
sys.stdout.flush()
import json
print(json.dumps([status, opened]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Home:
    root = tmp_path_factory.mktemp("crowd") / "home"
    root.mkdir()
    home = Home(root)
    home.profiles.mkdir(parents=True)
    folder = root / "project"
    folder.mkdir()
    for number in range(MANY):
        text = f'layout = "custom"\n[[mounts]]\nsource = "{folder}"\ndestination = "/d{number}"\n'
        path = home.profiles / f"p{number:05}.toml"
        path.write_text(text)
    until(lambda: is_settled(path), "the last one counts as unchanged")
    return home


def is_settled(path: Path) -> bool:
    """Check whether a file is so old that another change would show in its times: newer ones are read each time."""
    return time.time_ns() - path.stat().st_ctime_ns > store._SETTLING


def watched(home: Home, *words: str) -> tuple[int, dict[str, int]]:
    """Run a command; return its status and what it opened or listed in the folder of the profiles."""
    command = [sys.executable, "-c", WATCH, str(home.profiles), *words]
    done = subprocess.run(command, env=home.environ, capture_output=True, text=True, timeout=60, cwd=home.root)
    status, opened = json.loads(done.stderr.splitlines()[-1])
    return status, opened


def seconds(home: Home, *words: str) -> float:
    """Run a command and return the CPU time that it took: how busy the machine is does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    home.run(*words, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_one_of_many_opens_no_other(crowd: Home) -> None:
    crowd.run("list", check=True)  # whose index tells 'set' which profiles extend it
    for line in ("use p02777", "use p00001 --dry-run", "show p00002", "set p00004 A=1", "current"):
        words = line.split()
        status, opened = watched(crowd, *words)
        assert status == 0
        own = str(crowd.profiles / f"{words[1] if len(words) > 1 else 'p02777'}.toml")
        active = {str(crowd.profiles / "p02777.toml")} if words[0] == "set" else set()  # is its mapping to be renewed?
        assert {path for path in opened if path.endswith(".toml")} <= {own, *active}
        assert own in opened or words[0] == "current"
        assert str(crowd.profiles) not in opened or words[0] == "set", "nor does it list them"
    assert str(crowd.profiles) in watched(crowd, "list")[1]


def test_many_profiles_stay_usable(crowd: Home) -> None:
    """Generous limits: what is measured exactly stands in the benchmark; this is against a cost that grows too fast."""
    assert len(crowd.run("list", check=True).stdout.splitlines()) == MANY + 1
    for words in (["list"], ["use", "p01234"], ["use", "p02321"], ["use", "-"], ["current"]):
        assert seconds(crowd, *words) < 2, words
    assert len(completed(crowd, "taoprof use p012")) == 100
    one_clear_error(crowd.run("use", "q01234"), 4)


def test_one_changed_profile_is_read_again_and_no_other(crowd: Home) -> None:
    crowd.run("use", "p00006", check=True)
    crowd.run("list", check=True)
    changed = crowd.profiles / "p02555.toml"
    changed.write_text(changed.read_text() + "\n# changed\n")
    until(lambda: is_settled(changed), "it counts as unchanged from now on")
    _, opened = watched(crowd, "list")
    assert {path for path in opened if path.endswith(".toml")} == {str(changed), str(crowd.profiles / "p00006.toml")}, (
        "the active one is compared with the file"
    )


FOLDERS = """schema = 1
layout = "custom"
mounts = [
    { source = "~/new", destination = "/a" }, { source = "~/file/x", destination = "/b" },
    { source = "~/a-folder-with-a-long-name/and/one/more/below/it", destination = "/workspace/tao-experiments/data" },
]
"""


@pytest.mark.parametrize("command", ["use f --mkdir", "run f --mkdir -- true", "check f --fix --yes"])
def test_what_was_created_before_a_failure_is_told(home: Home, command: str) -> None:
    home.profile("f", FOLDERS)
    (home.root / "file").symlink_to("nowhere")
    done = home.run(*command.split())
    one_clear_error(done, done.returncode)
    assert f"; created before: {home.root}/new" in done.stderr
    assert (home.root / "new").is_dir()
    assert "nothing was changed" not in done.stderr


def test_mounts_fit_a_narrow_terminal(home: Home) -> None:
    """Nothing of a path is cut: it may be copied."""
    home.profile("f", FOLDERS)
    output = shown(home, "show", "f")
    assert all(len(line) <= 80 for line in output.splitlines()), output
    long = "  ~/a-folder-with-a-long-name/and/one/more/below/it\r\n    → /workspace/tao-experiments/data (missing)\r\n"
    assert long in output


def test_created_folders_are_on_lines_of_their_own(home: Home) -> None:
    (home.root / "seg").mkdir()
    home.run("new", "segformer", "--layout", "tao7", cwd=home.root / "seg", check=True)
    for options, what in ((["--dry-run"], "would create"), ([], "created")):
        first, *lines = call(home, "use", "segformer", "--mkdir", *options).err.splitlines()
        folders = [line for line in lines if line.startswith("  ")]
        assert first == f"taoprof: {what} 3 folders:"
        assert folders == ["  ~/seg/data", "  ~/seg/specs", "  ~/seg/segformer/results"]
    single = call(home, "set", "segformer", "HOST_DATA_DIR=~/elsewhere").err
    assert "taoprof: 1 folder does not exist: ~/elsewhere. To create it: mkdir -p ~/elsewhere" in single


def test_the_hint_to_create_folders_has_the_options_that_were_given(home: Home) -> None:
    home.profile("new", 'schema = 1\nlayout = "custom"\nmounts = [{source = "~/none", destination = "/data"}]\n')
    done = home.run("use", "--wait", "2h", "new", "--reveal")
    assert "To create it: taoprof use --wait 2h new --reveal --mkdir\n" in done.stderr


@pytest.mark.parametrize(
    ("command", "creates"),
    [
        *((command, True) for command in (
            "use dine", "run dine -- true", "shell dine", "check dine", "kernel install dine", "env dine",
            "render dine --to docker", "path /x dine",
        )),
        *((command, False) for command in (
            "show dine", "show dine --toml", "diff dine", "diff dine city", "diff city dine", "rename dine x",
            "remove dine", "edit dine", "set dine A=1", "new y --from dine", "new y --extends dine",
        )),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_offered_to_be_created_only_where_the_profile_is_used(
    home: Home, command: str, creates: bool
) -> None:
    done = home.run(*command.split())
    one_clear_error(done, 4)
    assert "did you mean 'dino'? 'taoprof list' shows all" in done.stderr
    assert ("'taoprof new dine' creates it" in done.stderr) == creates
