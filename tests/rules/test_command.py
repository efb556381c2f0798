"""The rules for a launcher command: paths that mean something else inside, and words that a shell changes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.launcher.behaviour import behaviour_of
from taoprofiles.mounts.paths import HostFiles
from taoprofiles.rules.command_paths import (
    CommandContext,
    check_command,
    check_task,
    find_host_results,
    find_results,
    path_arguments,
)
from taoprofiles.rules.finding import Finding

MOUNTS = {
    "/h/ana/p": "/workspace/tao-experiments",
    "/h/ana/p/specs": "/specs",
    "/h/ana/out": "/results",
    "/big": "/data",
}
VARIABLES = {"SPECS_DIR": "/specs", "RESULTS_DIR": "/results", "KEY": "nvidia_tlt", "MY_TOKEN": "s3cret-token"}
THERE = {
    "/h/ana/p": ["specs", "Train.YAML"],
    "/h/ana/p/specs": ["train.yaml", "eval.yaml"],
    "/h/ana/p/specs/train.yaml": [],
    "/h/ana/p/notes.txt": [],
    "/h/ana/out": ["model_epoch_009.pth"],
    "/h/ana/out/model_epoch_009.pth": [],
    "/big": ["val"],
    "/big/val": [],
    "/h/bob/x": [],
    "/mnt/raid/coco": [],
    "/": [],
}  # fmt: skip
LINKS = {"/big/raid": "/mnt/raid/coco", "/big/up": "../x", "/x": "/h/bob/x", "/big/gone": "/nowhere",
         "/big/spec": "/h/ana/p/specs/train.yaml"}  # fmt: skip


class Files(HostFiles):
    """A host with the files of THERE and LINKS, or with every file, or with none."""

    def __init__(self, every: bool | None = None, matching: Sequence[str] = ()) -> None:
        self.every, self.matching = every, matching

    def exists(self, path: str) -> bool:
        return (path in THERE or path in LINKS) if self.every is None else self.every

    def link(self, path: str) -> str | None:
        return LINKS.get(path) if self.every is None else None

    def names(self, folder: str) -> list[str]:
        return THERE.get(folder, []) if self.every is None else []

    def matches(self, pattern: str) -> list[str]:
        return list(self.matching)


def check(words: list[str], variables: Mapping[str, str] = VARIABLES, **more: Any) -> list[Finding]:
    return check_command(words, CommandContext(MOUNTS, variables, **{"folder": "", **more}))


def findings_of(words: str, **more: Any) -> list[Finding]:
    options = {"environ": {"HOME": "/h/ana"}, "folder": "/h/ana/p", "files": Files(), **more}
    return check(["tao", "model", "dino", *shlex.split(words)], **options)


def ids(words: str, **more: Any) -> list[str]:
    return [finding.id for finding in findings_of(words, **more)]


SOUND = (
    "train -e /specs/train.yaml results_dir=/results/new -k /abc",
    "train -e '$SPECS_DIR/train.yaml' -r '${RESULTS_DIR}/new'",
    "train --experiment_spec_file=/workspace/tao-experiments/specs/train.yaml",
    "train dataset.train_data_sources.[0].image_dir=/data/val", "train dataset.x=[/data/val,/data]",
    "train dataset.x=[{image_dir:/data/val}]",
    "train train.num_gpus=2 --gpus 1 export.onnx_file=/results/x.onnx",
    "evaluate evaluate.checkpoint=/results/model_epoch_009.pth",
    "train --cache /tmp/x model.x=/opt/nvidia/weights.pth url=http://host/x",
    "train --volume /h/bob/x:/bob -e /specs/train.yaml x=/bob/y", "train --volume '/h/bob/$(x):/bob'",
    "train wandb.x=/data/val/*.png", "inference inference.label_dump_path=/results/labels.json",
    "train train.checkpoint_dir=/results/checkpoints", "converter -k x -e /results/trt.engine /data",
    "converter -d 3,384,1248 /results/model_epoch_009.pth", "", "train 'x*'", "train --gpus -1 -k x -r /results/x",
    "train -d /results/new",  # the results folder of some tasks
    "train '-e /specs/train.yaml'",  # the launcher's shell makes two words of it
    "gen_trt_engine gen_trt_engine.trt_engine=/results/no.engine", "export export.onnx_file=/results/no.onnx",
)  # fmt: skip
MISSING = (
    "dataset_convert -d /specs/no.yaml -o /results/x", "dataset_convert -i /data/val -a /data/no.json -o /results/x",
    "gen_trt_engine gen_trt_engine.onnx_file=/results/no.onnx", "evaluate evaluate.trt_engine=/results/no.engine",
    "evaluate -m /results/no.engine", "inference inference.trt_engine=/results/no.engine",
    "export export.checkpoint=/results/no.pth", "export -m /results/no.hdf5 -o /results/no.onnx",
)  # fmt: skip
OWN = "train '$UID' 'x=${results_dir}' '$_' '$1' 'y=${oc.env:HOME}'"
"""Variables that are not TAO's."""


@pytest.mark.parametrize(
    ("words", "options", "expected"),
    [
        *((words, {}, []) for words in SOUND),
        *((words, {}, ["missing-file"]) for words in MISSING),
        ("train -e/specs/no.yaml -r/nowhere/x", {}, ["missing-file", "unmapped-path"]),
        ("train --volume '/h/bob/$(x):/bob'", {"behaviour": behaviour_of("5.5.1")}, ["arg-needs-quoting"]),
        ("train 'x*'", {"files": Files(matching=["xa", "xb"])}, ["arg-needs-quoting"]),
        (OWN, {}, ["arg-needs-quoting"] * 5),
        (OWN, {"is_quoted": True}, []),
        *(
            (f"train -e {path}", {"is_quoted": quoted}, ["arg-empty-variable"])
            for path in ("/train.yaml", "'$SPECS/train.yaml'", "'${SPECS}/t.yaml'")
            for quoted in (False, True)
        ),
        *(
            ("train -e '$SPECS/train.yaml'", {"environ": {"SPECS": "/specs"}, "is_quoted": quoted}, [])
            for quoted in (False, True)
        ),
    ],
)
def test_the_findings_of_a_command(words: str, options: dict[str, Any], expected: list[str]) -> None:
    assert ids(words, **options) == expected


@pytest.mark.parametrize(
    ("words", "better"),
    [
        ("train -e /h/ana/p/specs/train.yaml", "train -e /specs/train.yaml"),
        ("train -e ~/p/specs/train.yaml", "train -e /specs/train.yaml"),
        ("train -e specs/train.yaml", "train -e /specs/train.yaml"),
        ("train -r /h/ana/out/x", "train -r /results/x"),
        ("train --results_dir=/h/ana/out/x", "train --results_dir=/results/x"),
        ("train results_dir=~/out/x", "train results_dir=/results/x"),
        ("train 'x=$HOME/out/x'", "train x=/results/x"),
        ("train a.[0].image_dir=/big/val", "train 'a.[0].image_dir=/data/val'"),
        ("train x=[/big/a,/big/b]", "train 'x=[/data/a,/data/b]'"),
        ("train '-e' '/big/my dir'", "train -e '\"/data/my dir\"'"),
        ("train -k '$KEY' -e /big/val", "train -k '$KEY' -e /data/val"),
        ("train 'x=[{image_dir:/big/val}]' y=file:///big/val", "train 'x=[{image_dir:/data/val}]' y=file:///data/val"),
        ("train x=/h/ana/p/notes.txt", "train x=/workspace/tao-experiments/notes.txt"),
    ],
)
def test_host_path(words: str, better: str) -> None:
    """The corrected command is right for the launcher's shell."""
    hints = {finding.hint for finding in findings_of(words) if finding.id == "host-path"}
    assert hints == {f"tao model dino {better}"}
    again = check(shlex.split(hints.pop()), files=Files(every=True), environ={"HOME": "/h"})
    assert again == []


def test_a_command_with_a_secret_is_not_repeated() -> None:
    for words in ("train -k hidden -e /h/ana/p/specs/train.yaml", "train x=s3cret-token -e /h/ana/p/specs/train.yaml"):
        (finding,) = findings_of(words)
        assert finding.hint == "-e /specs/train.yaml"


@given(st.sampled_from(["-k", "--api_key", "--encryption-key"]), st.text(st.sampled_from("aZ$ '/;\"~"), min_size=6))
def test_secrets_are_masked(option: str, value: str) -> None:
    secret = "q7q7" + value
    for words in ([option, secret], [f"-k{secret}"], [f"-k={secret}"], [f"x={{api_key: /{secret}, dir: /home/x}}"]):
        reported = check(["tao", "x", *words], {}, files=Files(every=False))
        assert not [finding for finding in reported if secret[:4] in str(finding.as_dict())]


def test_a_secret_variable_is_masked() -> None:
    for words in ("train 'x=/data/$MY_TOKEN' \"a b $MY_TOKEN\"", "train '/x/$MY_TOKEN'"):
        assert "s3cret-token" not in str([finding.as_dict() for finding in findings_of(words)])


@pytest.mark.parametrize("word", ["trian", "rtain", "tran", "ttrain", "traim", "train"])
def test_a_misspelt_action(word: str) -> None:
    for program in ("tao model dino", "dino"):
        words = [*shlex.split(program), word, "-e", "/specs/train.yaml"]
        context = CommandContext(MOUNTS, VARIABLES, files=Files(every=True), folder="")
        findings = check_command(words, context) or check_task(words, context)
        hints = [] if word == "train" else [f"{program} train -e /specs/train.yaml"]
        assert [(finding.id, finding.hint) for finding in findings] == [("action-misspelt", hint) for hint in hints]


@pytest.mark.parametrize("word", ["generate", "convert", "retrain", "run", "trial", "tarni", "Train2x", "-e", "t", ""])
def test_another_action(word: str) -> None:
    assert "action-misspelt" not in ids(f"{shlex.quote(word)} x")


@pytest.mark.parametrize(
    ("words", "path", "behind", "hint"),
    [
        ("train -e {}", "/specs/trian.yaml", "p/specs/trian.yaml", "did you mean 'train.yaml' or 'eval.yaml'?"),
        (
            "train -e '$SPECS_DIR/sub/train.yaml'", "/specs/sub/train.yaml", "p/specs/sub/train.yaml",
            "'/h/ana/p/specs' contains nothing with a similar name",
        ),
        ("train -e {}", "/workspace/tao-experiments/train.yaml", "p/train.yaml", "did you mean 'Train.YAML'?"),
        (
            "evaluate evaluate.checkpoint={}", "/results/model_epoch_10.pth", "out/model_epoch_10.pth",
            "did you mean 'model_epoch_009.pth'?",
        ),
    ],
)  # fmt: skip
def test_missing_file(words: str, path: str, behind: str, hint: str) -> None:
    (finding,) = findings_of(words.format(path))
    what = f"no such file in the container: '{path}' (on this host: '/h/ana/{behind}')"
    assert (finding.id, finding.what, finding.hint) == ("missing-file", what, hint)


MOVE = "or move the files into the mounted folder"


@pytest.mark.parametrize(
    ("name", "target", "hint"),
    [
        ("raid", "/mnt/raid/coco", f"mount '/mnt/raid/coco' on '/mnt/raid/coco', {MOVE}"),
        ("up", "/x", f"mount '/h/bob/x' on '/x', {MOVE}"),
        ("spec", "/h/ana/p/specs/train.yaml", "the container has it as '/specs/train.yaml': use that path"),
        ("gone", "/nowhere", "the link leads nowhere on this host either: '/nowhere' does not exist"),
    ],
)
def test_a_link_that_leads_out(name: str, target: str, hint: str) -> None:
    (finding,) = findings_of(f"train image_dir=/data/{name}")
    what = f"'/data/{name}' is a link to '{target}', which is in no mount"
    assert (finding.id, finding.what) == ("missing-file", what)
    assert finding.hint.startswith(hint)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("train -r /out", "what a task writes there is lost with the container"),
        ("train -r /opt/out", "what a task writes there is lost with the container"),
        ("train -e /workspace/specs/train.yaml", "the task finds it only if the image contains it"),
        ("train -e /h/bob/x", "the task finds it only if the image contains it"),
        ("train x=/nowhere", "the image may contain it; what a task writes there is lost with the container"),
    ],
)
def test_unmapped(words: str, why: str) -> None:
    (finding,) = findings_of(words)
    assert (finding.id, finding.why) == ("unmapped-path", why)
    assert finding.hint.endswith(" mounted destinations: /data, /results, /specs, /workspace/tao-experiments")


@pytest.mark.parametrize("words", ["train -k '$NO_KEY'", "train --gpus '$NUM_GPUS'", "train 'x=$A/$NO'", "train '$NO'"])
def test_a_variable_that_nobody_sets(words: str) -> None:
    for quoted in (True, False):
        (finding,) = findings_of(words, is_quoted=quoted, environ={"A": "/data"})
        assert (finding.id, finding.why) == ("arg-empty-variable", finding.why)
        assert "is not set" in finding.what


@pytest.mark.parametrize(
    ("words", "what", "spelling"),
    [
        ("'/data/my dir'", "turns '/data/my dir' into 2 words '/data/my', 'dir'", "'\"/data/my dir\"'"),
        ("'x=a;b'", "ends the command inside 'x=a;b', and runs the rest as a command on this host", "'\"x=a;b\"'"),
        ("'x=(1,2)'", "finds a syntax error in 'x=(1,2)'", "'\"x=(1,2)\"'"),
        ("'x={a,b}'", "expands the braces of 'x={a,b}' to several words", "'\"x={a,b}\"'"),
        ("'x=\"y\"'", "turns 'x=\"y\"' into 'x=y'", None),
        ("'x=${results_dir}/y'", "turns 'x=${results_dir}/y' into 'x=/y'", "'\"x=\\${results_dir}/y\"'"),
        ("''", "drops the empty word", "'\"\"'"),
        ("'#x'", "ignores everything after the '#' of '#x'", "'\"#x\"'"),
    ],
)
def test_needs_quoting(words: str, what: str, spelling: str | None) -> None:
    reported = [finding for finding in findings_of(f"train {words}") if finding.id == "arg-needs-quoting"]
    assert [finding.what for finding in reported] == [f"the launcher's shell {what}"]
    if spelling:
        assert reported[0].hint.endswith(f" train {spelling}"), "the whole command, to paste"
        assert "arg-needs-quoting" not in ids(f"train {spelling}"), "what the hint says to write is not complained of"
    assert "arg-needs-quoting" not in ids(f"train {words}", is_quoted=True)


@pytest.mark.parametrize(
    "words",
    ["train -k", "train -k -e /specs/train.yaml", "train -r ''", "train -e -r /results/x", "train results_dir="],
)
def test_an_option_without_a_value(words: str) -> None:
    reported = [finding for finding in findings_of(words, is_quoted=True) if finding.what == "it has no value"]
    assert [(finding.id, finding.where) for finding in reported] == [
        ("arg-empty-variable", words.split()[1].strip("="))
    ]


def test_an_option_and_its_value_in_one_word() -> None:
    words = "train '-e /h/ana/p/specs/train.yaml'"
    (finding,) = findings_of(words)
    assert (finding.id, finding.hint) == ("host-path", "tao model dino train -e /specs/train.yaml")
    (finding,) = findings_of("train '-e /specs/train.yaml'", is_run=True, profile="p")
    assert (finding.id, finding.where) == ("arg-needs-quoting", "-e")
    assert finding.hint == "taoprof run p -- tao model dino train -e /specs/train.yaml"
    (finding,) = findings_of("train '-k $KEY'", is_run=True, profile="p")
    assert (finding.where, finding.what) == ("-k", "'-k $KEY' is one argument; the task needs '-k' and '$KEY' as two")


@pytest.mark.parametrize(
    ("wrappers", "is_lost", "hint"),
    [
        ("sudo", True, "tao model dino train"),
        ("nohup sudo -u root", True, ""),
        ("doas", True, "tao model dino train"),
        ("sudo -E", False, ""),
        ("sudo --preserve-env=A,LAUNCHER_MOUNTS -nE", False, ""),
        ("sudo --preserve-env=HOME", True, ""),
        ("nohup", False, ""),
    ],
)
def test_sudo_does_not_pass_the_mounts_file_on(wrappers: str, is_lost: bool, hint: str) -> None:
    findings = check([*wrappers.split(), "tao", "model", "dino", "train"])
    lost = [("home-under-sudo", "error", hint)] if is_lost else []
    assert [(finding.id, finding.severity, finding.hint) for finding in findings] == lost


def test_a_launcher_behind_another_program() -> None:
    words = ["timeout", "-k", "5", "8h", "env", "A=1", "tao", "model", "dino", "train", "-e", "/specs/no.yaml"]
    assert [finding.id for finding in check(words, files=Files())] == ["missing-file"]
    assert check(["echo", "tao", "model", "dino", "-e", "/specs/no.yaml"], files=Files()) == []


def test_without_docker_paths_are_those_of_this_host() -> None:
    environ = {"HOME": "/h/ana", "TAO_DOCKER_DISABLE": "1"}
    assert ids("train -e /h/ana/p/specs/train.yaml -r /h/ana/out/x", environ=environ) == []
    (finding,) = findings_of("train -e /specs/train.yaml", environ=environ)
    assert (finding.id, finding.hint) == ("missing-file", "tao model dino train -e /h/ana/p/specs/train.yaml")
    (finding,) = findings_of("train -e /h/ana/p/specs/no.yaml -r /h/ana/new", environ=environ)
    assert (finding.id, finding.what) == ("missing-file", "no such file: '/h/ana/p/specs/no.yaml'")
    assert ids("train -e /specs/train.yaml", environ=environ, behaviour=behaviour_of("0.1.24")) == []


def test_a_hint_is_quoted_for_the_launchers_mode() -> None:
    (two,) = findings_of('train "x=it\'s"')
    assert two.hint.endswith("""'"x=it'"'"'\\'"'"''"'"'s"'""")
    (finding,) = findings_of('train "x=it\'s"', environ={"CI_PROJECT_DIR": "/x"})
    assert finding.hint.endswith("""'"x=it'"'"'s"'""")


@given(st.lists(st.text(st.sampled_from("a/=-[]{},:'\"$~ .+"), max_size=12), max_size=5))
def test_any_words_can_be_judged(words: list[str]) -> None:
    reported = check(["tao", *words], files=Files(every=False), environ={"HOME": "/h"})
    assert all(finding.severity and finding.what and "\n" not in finding.where for finding in reported)
    list(path_arguments(["tao", *words]))


def test_a_very_long_command_is_not_repeated_for_each_word() -> None:
    reported = check(["tao", *["x=(1,2)"] * 3000], {}, files=Files(every=False))
    assert len(reported) == 3000
    assert all(len(finding.hint) < 200 for finding in reported)


def test_deep_and_long_words() -> None:
    long = ("x=" * 20_000, "{" * 50_000, "/a" * 2_000, "'" * 30_000, "$" * 30_000, "{,}" * 9_000)
    for word in ("[" * 50_000 + "]" * 50_000, *long):
        check(["tao", word], files=Files(every=True))


@pytest.mark.parametrize(
    "words",
    [
        "train -e /h/ana/p/specs/train.yaml 'a b=$x'",
        "train '-e /h/ana/p/specs/train.yaml' -r /h/ana/out",
        "train -e /train.yaml -r /h/ana/out",
    ],
)
def test_each_hint_with_the_whole_command_has_every_correction(words: str) -> None:
    hints = {finding.hint for finding in findings_of(words, is_run=True, profile="p") if " train " in finding.hint}
    assert len(hints) == 1, hints
    assert "/h/ana" not in hints.pop()


SPEC = "results_dir: /results/all\ntrain:\n  results_dir: /results/train\n"
RESULTS = {
    "dino train -e /specs/a.yaml": ["train"],
    "dino evaluate -e $SPECS_DIR/a.yaml": ["all"],
    "dino train -e /specs/a.yaml results_dir=/results/b": ["b"],
    "dino train -e /specs/none.yaml": ["."],
    "dino evaluate -e /specs/none.yaml": [],
    "dino train --volume {root}/other:/other results_dir=/other/b": ["../other/b"],
}


@pytest.mark.parametrize("words", RESULTS)
def test_the_results_folders_of_a_command(tmp_path: Path, words: str) -> None:
    for name in ("specs", "results", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "specs/a.yaml").write_text(SPEC)
    mounts = {f"{tmp_path}/specs": "/specs", f"{tmp_path}/results": "/results"}
    context = CommandContext(mounts, VARIABLES)
    folders = find_host_results(shlex.split(words.format(root=tmp_path)), context)
    assert folders == [os.path.normpath(tmp_path / "results" / name) for name in RESULTS[words]]


@pytest.mark.parametrize(
    ("words", "folders"),
    [
        ("tao model unet train -r /r", ["/r"]),
        ("tao model unet train --results_dir /r", ["/r"]),
        ("tao model unet train --results-dir /r", ["/r"]),
        ("tao model unet train --results_dir=/r", ["/r"]),
        ("tao model segformer train -e /s results_dir=/r", ["/r"]),
        ("tao model segformer train train.results_dir=/r evaluate.results_dir=/q", ["/r", "/q"]),
        ("tao model unet train -r $X/y", ["/x/y"]),
        ("tao model unet train -r ${X}/y", ["/x/y"]),
        ("tao model unet train -r $NONE/y", ["$NONE/y"]),
        ("tao model unet train", ["/results"]),
        ("tao model unet export -m x", ["/results"]),
        ("tao model unet evaluate -m x", []),
        ("tao model unet inference -m x", []),
        ("tao model unet train -r", ["/results"]),
        ("jupyter notebook", []),
        ("", []),
    ],
)
def test_the_results_folders_that_the_words_name(words: str, folders: list[str]) -> None:
    variables = {"RESULTS_DIR": "/results", "USER_EXPERIMENT_DIR": "/exp", "X": "/x"}
    assert find_results(words.split(), CommandContext({}, variables)) == folders
    for name, others in (("RESULTS_DIR", ["/exp"]), ("USER_EXPERIMENT_DIR", [])):
        del variables[name]
        expected = others if folders == ["/results"] else folders
        assert find_results(words.split(), CommandContext({}, variables)) == expected


def test_the_spec_files_of_another_machine_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SPEC)
    mounts, remote = {str(tmp_path): "/results"}, {"DOCKER_HOST": "tcp://192.0.2.1:2376"}
    words = "dino train -e /results/a.yaml".split()
    assert find_host_results(words, CommandContext(mounts, VARIABLES)) == [str(tmp_path / "train")]
    assert find_host_results(words, CommandContext(mounts, VARIABLES, remote)) == [str(tmp_path)]
