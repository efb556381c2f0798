"""Spec files as a launcher command names them, read from real folders and judged by the mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.rules import specs
from taoprofiles.rules.command_paths import CommandContext, check_command
from taoprofiles.rules.finding import Finding
from tests.support.generated_profiles import moderate

DINO = """\
dataset:
  train_data_sources:
    - image_dir: /data/train2017/
      json_file: {root}/data/train.json  # a host path
  val_data_sources: [{{image_dir: /data/val2017, json_file: /datasets/val.json}}]
  num_classes: ???
train:
  pretrained_model_path: /path/to/fan.pth
  resume_training_checkpoint_path: /results/nosuch.pth
  optim: {{lr: 0.0002}}
evaluate:
  checkpoint: {root}/results/model.pth
export:
  checkpoint: ???
results_dir: /results/dino
model:
  backbone: /usr/local/lib/python3/fan.pth
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("specs", "data/train2017", "data/val2017", "results"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/train.json").write_text("{}")
    return tmp_path


def judged(project: Path, *words: str) -> list[tuple[str, str, str]]:
    return [
        (finding.id, finding.where.replace(f"{project}/", ""), finding.what.replace(str(project), "~"))
        for finding in findings_in(project, *words)
    ]


def located(project: Path, *words: str) -> list[tuple[str, str]]:
    return [(id, where) for id, where, _ in judged(project, *words)]


def findings_in(project: Path, *words: str, where: str = "/") -> list[Finding]:
    """Return the findings about a command whose places begin with ``where``: by default, those in spec files."""
    mounts = {f"{project}/{name}": f"/{name}" for name in ("specs", "data", "results")}
    findings = check_command(["tao", "model", "dino", *words], CommandContext(mounts, {"SPECS_DIR": "/specs"}))
    return [finding for finding in findings if finding.where.startswith(where)]


def test_a_yaml_spec(project: Path) -> None:
    (project / "specs/train.yaml").write_text(DINO.format(root=project))
    host = "'~/data/train.json' is a host path, but the task runs inside the container"
    wanted = [
        ("host-path", "specs/train.yaml:4", host),
        ("unmapped-path", "specs/train.yaml:5", "'/datasets/val.json' is in no mount"),
        ("placeholder", "specs/train.yaml:6", "'???' is a placeholder that was never filled in"),
        ("placeholder", "specs/train.yaml:8", "'/path/to/fan.pth' is a placeholder that was never filled in"),
        (
            "missing-file",
            "specs/train.yaml:9",
            "no such file in the container: '/results/nosuch.pth' (on this host: '~/results/nosuch.pth')",
        ),
    ]
    for spec in ("/specs/train.yaml", "$SPECS_DIR/train.yaml", f"{project}/specs/train.yaml"):
        assert judged(project, "train", "-e", spec) == wanted
    overrides = ["dataset.num_classes=91", "train.pretrained_model_path=/data/fan.pth"]
    assert judged(project, "train", "-e", spec, *overrides) == [item for item in wanted if item[0] != "placeholder"]
    assert ("host-path", "specs/train.yaml:12") in located(project, "evaluate", "-e", spec)
    findings = {finding.id: finding for finding in findings_in(project, "train", "-e", "/specs/train.yaml")}
    assert findings["host-path"].why == "use '/data/train.json' instead"
    assert findings["unmapped-path"].hint.endswith(" mounted destinations: /data, /results, /specs")
    assert (findings["unmapped-path"].severity, findings["missing-file"].severity) == ("error", "warning")


DETECTNET = """\
dataset_config {{
  data_sources {{
    tfrecords_path: "/data/tfrecords/kitti_trainval/*"
    image_directory_path: "{root}/data/train2017"
  }}
}}
model_config {{ pretrained_model_file: "/workspace/tao-experiments/resnet18.hdf5" }}
"""
CLASSIFICATION = """\
model_config:
  arch: "resnet"
train_config:
  train_dataset_path: "/workspace/tao-experiments/data/train"
  pretrained_model_path: {root}/results/resnet.hdf5
  n_epochs: 80
"""


def test_a_prototxt_spec(project: Path) -> None:
    (project / "specs/train.txt").write_text(DETECTNET.format(root=project))
    assert located(project, "train", "-e", "/specs/train.txt", "-r", "/results", "-k", "x") == [
        ("missing-file", "specs/train.txt:3"),
        ("host-path", "specs/train.txt:4"),
        ("unmapped-path", "specs/train.txt:7"),
    ]


def test_what_an_option_sets_is_no_placeholder(project: Path) -> None:
    (project / "specs/t.yaml").write_text("results_dir: ???\nencryption_key: ???\n")
    assert len(judged(project, "train", "-e", "/specs/t.yaml")) == 2
    assert judged(project, "train", "-e", "/specs/t.yaml", "-r", "/results", "-k", "x") == []
    assert judged(project, "train", "-e", "/specs/t.yaml", "--results_dir", "/results", "encryption_key=x") == []


def test_specs_that_a_spec_names(project: Path) -> None:
    (project / "specs/all.json").write_text('{"train_spec": "/specs/c.yaml",\n "self_config": "/specs/all.json"}')
    (project / "specs/c.yaml").write_text(CLASSIFICATION.format(root=project))
    assert located(project, "train", "-e", "/specs/all.json") == [
        ("unmapped-path", "specs/c.yaml:4"),
        ("host-path", "specs/c.yaml:5"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        'freeze_regex: "/block_[0-9]+.*"', 'filter: "/conv.*"', 'regex: "/data/(train|val)$"', "name: /my/run",
        'layers_precision: ["/backbone/conv1:fp32"]', "skip: [/head/fc]", "url: /v1/x", "project: /x",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_path(project: Path, line: str) -> None:
    (project / "specs/t.yaml").write_text(f"model:\n  {line}\n")
    assert judged(project, "train", "-e", "/specs/t.yaml") == []


def test_a_secret_in_a_spec_is_masked(project: Path) -> None:
    """A key in base64 may begin with a slash."""
    for key in ("encryption_key", "api_key", "wandb_token"):
        (project / "specs/t.yaml").write_text(f"{key}: /s3cr3t\nb: {{{key}: YOUR_s3cr3t}}\n{key}: ???\n")
        (finding,) = findings_in(project, "train", "-e", "/specs/t.yaml")
        assert (finding.where[-2:], finding.what[:5]) == (":3", "'???'"), key
    for value in ("/data/https://u:S3CR3T@h/x", "FIXME https://S3CR3T@h"):
        (project / "specs/t.yaml").write_text(f"results_dir: {value}\nmodel_path: {value}\n")
        findings = findings_in(project, "-e", "/specs/t.yaml")
        assert findings and "S3CR3T" not in str(findings)


def test_a_link_that_leads_out_of_the_mounts(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    raid = tmp_path_factory.mktemp("raid")
    (raid / "images").mkdir()
    (project / "data/raid").symlink_to(raid)
    (project / "specs/t.toml").write_text('image_dir = "/data/raid/images"\n')
    (finding,) = findings_in(project, "train", "-e", "/specs/t.toml")
    assert (finding.id, finding.hint) == (
        "missing-file",
        f"mount '{raid}/images' on '{raid}/images', or move the files into the mounted folder",
    )


def test_what_cannot_be_read(project: Path) -> None:
    spec = project / "specs/t.yaml"
    spec.write_bytes(b"a: 1\nb: \xff\n")
    assert judged(project, "-e", "/specs/t.yaml") == [("spec-unreadable", "specs/t.yaml:2", "it is not UTF-8 text")]
    with spec.open("wb") as file:
        file.truncate(specs.SIZE_LIMIT + 1)
    assert [finding[0] for finding in judged(project, "-e", "/specs/t.yaml")] == ["spec-unreadable"]
    spec.unlink()
    assert judged(project, "-e", "/specs/t.yaml") == []
    os.mkfifo(spec)
    assert [finding[0] for finding in judged(project, "-e", "/specs/t.yaml")] == ["spec-unreadable"]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("t.yaml", "a: /data\nb: [1, 2\nc: 3\n", 3),
        ("t.yaml", "a: /data\n\tb: 1\n", 2),
        ("t.yaml", "a: /data\nb: \x01\n", 2),
        ("t.json", '{"a": "/data",\n "b": }', 2),
        ("t.toml", 'a = "/data"\nb = 1,', 2),
        ("t.txt", 'a { # "\n b: "/data""\n c: \'"\'\n}', 2),
        ("t.txt", 'a {\n b: "{"\n c { d: 1 }\n', 1),
        ("t.txt", "a {\n}\n}\n", 3),
    ],
)
def test_a_spec_that_does_not_parse(project: Path, name: str, text: str, line: int) -> None:
    (project / "specs" / name).write_text(text)
    (finding,) = findings_in(project, "train", "-e", f"/specs/{name}")
    assert (finding.id, finding.where, finding.severity) == ("spec-syntax", f"{project}/specs/{name}:{line}", "error")


def test_what_json_allows_and_yaml_does_not(project: Path) -> None:
    text = '{"' + "k" * 2000 + '":\t"/data",\n\t"b": "\\ud83d\\ude00", "image_dir": "/datasets/x"}'
    (project / "specs/t.json").write_text(text)
    assert "spec-syntax" not in [finding.id for finding in findings_in(project, "train", "-e", "/specs/t.json")]


PIECES = ["/", "data", "..", "\\ud800", "\\0", "\\u0000", "*", "$x", '"', ": ", "\n", "a", "{", "[", "~", "%"]


@moderate(150)
@given(
    st.sampled_from(sorted(specs.FORMS)),
    st.one_of(
        st.binary(max_size=80),
        st.lists(st.sampled_from(PIECES), max_size=20).map(lambda pieces: "".join(pieces).encode()),
    ),
)
def test_whatever_stands_in_a_spec(project: Path, form: str, content: bytes) -> None:
    (project / f"specs/any.{form}").write_bytes(content)
    assert all(finding.severity for finding in findings_in(project, "train", "-e", f"/specs/any.{form}"))


def test_a_spec_is_judged_by_what_the_action_reads(project: Path) -> None:
    text = "export: {onnx_file: /data/a.onnx}\ngen_trt_engine: {onnx_file: /data/a.onnx, trt_engine: /data/a.engine}\n"
    text += "evaluate: {trt_engine: /data/a.engine}\n"
    text += "dataset: {train_data_sources: [{image_dir: /no/a}], val_csv: /no/b, infer_dir: /no/c, classmap: /no/d}\n"
    (project / "specs/t.yaml").write_text(text)
    expected = {
        "gen_trt_engine": ["/data/a.onnx"],
        "export": [],
        "train": ["/no/a", "/no/b", "/no/d"],
        "evaluate": ["/data/a.engine", "/no/b", "/no/d"],
        "inference": ["/no/c", "/no/d"],
    }
    for action, paths in expected.items():
        findings = findings_in(project, action, "-e", "/specs/t.yaml")
        assert [finding.what.split("'")[1] for finding in findings] == paths, action


def test_many_paths_are_counted(project: Path) -> None:
    (project / "specs/t.yaml").write_text("".join(f"- /datasets/{number}\n" for number in range(specs.PATHS_LIMIT + 5)))
    findings = judged(project, "-e", "/specs/t.yaml")
    assert len(findings) == specs.SHOWN + 2
    assert ("unmapped-path", "specs/t.yaml", "1980 more of the same kind in this file") in findings
    assert "spec-unreadable" in [finding[0] for finding in findings]


@pytest.mark.parametrize("words", [["python", "x.py", "-e", "/specs/t.yaml"], ["tao", "list"], ["ls"]])
def test_what_is_no_launcher_is_not_judged(project: Path, words: list[str]) -> None:
    (project / "specs/t.yaml").write_text("a: /nowhere\n")
    assert check_command(words, CommandContext({f"{project}/specs": "/specs"}, {})) == []


def test_arguments_are_judged_with_what_is_on_this_host(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "specs/train.yaml").write_text("")
    (project / "results/a.pth").symlink_to("b.pth")
    (project / "xa").touch()
    (project / "mine").mkdir()
    (project / "mine/train.yaml").touch()
    monkeypatch.chdir(project)

    def ids(*words: str) -> list[str]:
        return [f"{finding.id} {finding.hint}" for finding in findings_in(project, "train", *words, where="")]

    assert ids("-e", "/specs/train.yaml") == []
    assert ids("-e", "specs/train.yaml") == ["host-path tao model dino train -e /specs/train.yaml"]
    assert ids("-e", "mine/train.yaml")[0].startswith("unmapped-path mount that folder")
    assert ids("-e", "$SPECS_DIR/trian.yaml") == ["missing-file did you mean 'train.yaml'?"]
    assert ids("-m", "/results/a.pth") == ["missing-file did you mean 'a.pth'?"]
    assert ids("x*")[0].endswith("""train '"x*"'""")


def test_what_may_not_be_seen_is_not_called_missing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container may work as another user than the one who asks. As root nothing is closed: so stat is told no."""
    real = os.stat

    def stat(path: str, **more: bool) -> os.stat_result:
        if str(path).endswith("/closed/x.pth"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    mounts = {str(project / "data"): "/data"}
    for name, wanted in (("closed", []), ("open", ["missing-file"])):
        words = ["tao", "model", "dino", "train", f"train.pretrained_model_path=/data/{name}/x.pth"]
        assert [finding.id for finding in check_command(words, CommandContext(mounts, {}))] == wanted
