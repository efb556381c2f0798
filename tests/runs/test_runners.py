"""The runners of NVIDIA's source trees, tao_pt and its like: checked, held, and given what a profile says."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from taoprofiles.launcher.argv import parse_runner
from taoprofiles.runs.start import prepare
from tests.support.commands import call, one_clear_error
from tests.support.home import Home, write_program
from tests.support.stand_ins import RUNNER

PROFILE = """
layout = "custom"
gpus = "1,"
[variables]
NAME = "a b"
MY_TOKEN = "tok-0123456789"
[container.env]
HOME = "/tmp"
TITLE = "it's ${NAME}"
HF_TOKEN = "${MY_TOKEN}"
[docker]
user = "auto"
shm_size = "2G"
ports = { 8888 = 8888 }
[docker.ulimits]
memlock = -1
[[mounts]]
source = "SOURCE"
destination = "/specs"
"""


@pytest.fixture
def runner(home: Home) -> list[str]:
    """A checkout with the runner, a docker command that records its arguments, and an active profile p."""
    (home.root / "tree/runner").mkdir(parents=True)
    (home.root / "tree/runner/tao_pt.py").write_text(RUNNER)
    (home.root / "specs").mkdir()
    (home.root / "specs/train.yaml").write_text("a: 1\n")
    docker = write_program(home.root / "bin/docker", f'printf "%s\\0" "$@" >{home.root}/arguments\nexit 7')
    home.environ |= {
        "PATH": f"{docker.parent}:{home.environ['PATH']}", "IMAGE": "tao:dev",
        "NV_TAO_PYTORCH_TOP": str(home.root / "tree"),
    }  # fmt: skip
    home.profile("p", PROFILE.replace("SOURCE", str(home.root / "specs")))
    assert call(home, "use", "p").status == 0
    return [sys.executable, str(home.root / "tree/runner/tao_pt.py")]


def arguments(home: Home) -> list[str]:
    return (home.root / "arguments").read_text().split("\0")[:-1]


def test_run_gives_it_what_the_profile_says(home: Home, runner: list[str]) -> None:
    done = home.run(
        "run", "p", "--", *runner, "--tag", "x", "--", "dino", "train", "-e", "/specs/x $NAME.yaml", "x=(1)"
    )
    words = arguments(home)
    pairs = [words[number + 1] for number, word in enumerate(words) if word == "-e"]
    assert {"HOME=/tmp", "TITLE=it's a b", "HF_TOKEN=tok-0123456789"} <= set(pairs)
    assert [words[words.index(option) + 1] for option in ("--shm-size", "--ulimit", "--gpus")] == [
        "2G", "memlock=-1:-1", '"device=1"',
    ]  # fmt: skip
    assert words[words.index("--user") + 1] == f"{home.context.uid}:{home.context.gid}"
    assert f"{home.root}/specs:/specs" in words
    assert words[words.index("tao:dev") + 1 :] == ["dino", "train", "-e", "/specs/x a b.yaml", "x=(1)"]
    assert "-it" not in words, "without a terminal"
    assert "tok-0123456789" not in done.stdout + done.stderr, "the runner prints its command"
    assert "has no option for docker.ports" in done.stderr
    assert (done.returncode, "started no container" in done.stderr) == (1, True), "although the runner exits with 0"
    (record,) = home.json("history")["data"]["runs"]
    assert (record["status"], record["shared"], record["gpus"]) == (1, True, ["1"])


def test_its_container_is_not_taken_for_an_idle_one(home: Home, runner: list[str]) -> None:
    """No ``docker exec`` is in it: in a launcher's container, that would mean that its launcher was killed."""
    run = prepare(home.context, "p", [*runner, "--", "dino", "train"])
    assert run.hold.task == "", "the container's own command is the task"
    run.discard()


def test_the_function_of_a_shell_is_found(home: Home, runner: list[str]) -> None:
    """scripts/envsetup.sh exports it; there is no program of that name."""
    assert "source scripts/envsetup.sh" in home.run("run", "p", "--", "tao_pt", "--", "dino", "train").stderr
    function = f'() {{ {shlex.join(runner)} "$@"\n}}'
    home.run("run", "p", "--", "tao_pt", "--", "dino", "train", environ={"BASH_FUNC_tao_pt%%": function})
    assert arguments(home)[-3:] == ["tao:dev", "dino", "train"]


def test_it_needs_the_shared_mapping_file(home: Home, runner: list[str]) -> None:
    (home.root / "other").mkdir()
    home.profile("q", PROFILE.replace("SOURCE", str(home.root / "other")))
    before = home.mapping_file.read_bytes()
    done = home.run("run", "q", "--", *runner, "--", "dino", "train")
    one_clear_error(done, 2)
    assert "taoprof run q --shared -- tao_pt -- dino train" in done.stderr
    assert home.mapping_file.read_bytes() == before
    home.run("run", "q", "--shared", "--", *runner, "--", "dino", "train")
    assert f"{home.root}/other:/specs" in arguments(home)
    done = home.run("run", "q", "--image", "i", "--", *runner, "--", "dino", "train")
    one_clear_error(done, 2)
    assert "starts its own image" in done.stderr


def ids(home: Home, *words: str, **environ: str) -> list[str]:
    done = call(home, "--json", "check", *words, environ=environ)
    return [finding["id"] for finding in done.envelope["data"]["findings"]]


def test_it_is_checked(home: Home, runner: list[str]) -> None:
    task = ["--", "dino", "train", "-e", "/specs/train.yaml"]
    always = {"runner-exit-status"}
    sound = ["--run_as_user", "--env", "HOME=/tmp", "--env", "USER=x", *task]
    assert set(ids(home, "--", *runner, *sound)) == always
    extra = home.root / "extra.json"
    extra.write_text(json.dumps({"Mounts": [{"source": str(home.root), "destination": "/specs"}]}))
    cases = {
        "dst-duplicate": ["--mounts_file", str(extra), *sound],
        "runner-mounts-file": ["--mounts_file", "/nowhere.json", *sound],
        "key-ignored": ["--env", "HF_TOKEN", *sound],
        "env-secret-plain": ["--env", "HF_TOKEN=hf_0123456789", *sound],
        "gpus-missing": ["--gpus", "none", *sound],
        "gpu-ids-outside": ["--gpus", "3", *sound, "train.gpu_ids=[3]"],
        "arg-needs-quoting": [*sound, "x=(1)"],
        "missing-file": [*sound[:-1], "/specs/nope.yaml"],
        "host-path": [*sound[:-1], f"{home.root}/specs/train.yaml"],
        "src-missing": ["--volume", "/nowhere:/x", *sound],
    }
    for id, words in cases.items():
        assert set(ids(home, "--", *runner, *words)) == {*always, id}, id
    assert "runner-mounts-file" in ids(home, "--", *runner, *sound, LAUNCHER_MOUNTS="/x.json")
    assert "runner-ignores-options" in ids(home, "p", "--", *runner, *sound)
    done = call(home, "check", "p", "--", "tao_pt", "--run_as_user", "dino", "train", "--gpus", "0")
    assert "error: tao_pt: the command of the container does not follow '--' [runner-separator]" in done.out
    assert "-- tao_pt --run_as_user dino train --gpus 0\n" in done.out


@pytest.mark.parametrize(
    ("words", "name", "task"),
    [
        ("tao_pt", "tao_pt", []), ("tao_deploy --gpus=0 -- a b", "tao_deploy", ["a", "b"]),
        ("/x/runner/tao_ds.py --run_as_user -- a -- b", "tao_ds", ["a", "--", "b"]),
        ("python3 -u /x/tao_pt.py --env", "tao_pt", []),
    ],
)  # fmt: skip
def test_its_command_line(words: str, name: str, task: list[str]) -> None:
    runner = parse_runner(words.split())
    assert (runner.name, runner.task) == (name, task)
    assert parse_runner(runner.words) is not None


@pytest.mark.parametrize("words", ["", "tao", "python3", "python3 x.py tao_pt.py", "echo tao_pt"])
def test_what_is_no_runner(words: str) -> None:
    assert parse_runner(words.split()) is None
