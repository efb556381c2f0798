"""The known faults of TAO 7 that a check can prevent: silent before, now a finding whose hint mends it.

Each case is what a person types, and the same after the hint was followed. The faults are those of NVIDIA's trackers:
the pull requests, commits and bug numbers of its skill bank that the names give.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import call
from tests.support.home import Home

IMAGE = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt"
SOUND = "--gpus device=3 --shm-size 16g --user 1000:1000 -e HOME=/tmp -v ROOT/specs:/specs -v ROOT/results:/results "
SOUND += "-v ROOT/data:/data"
"""Options of ``docker run`` that have no finding but for the user, who is not the one of the tests."""
SPEC = "results_dir: /results/r1\ntrain:\n  num_gpus: 1\n  gpu_ids: [0]\ndataset:\n  train_dir: /data/train\n"
TRAIN = "dino train -e /specs/train.yaml"


class Fault(NamedTuple):
    """``wrong`` and ``mended`` are (options, command or image and command, spec); "" means the sound one."""

    id: str
    wrong: tuple[str, str, str]
    mended: tuple[str, str, str] = ("", "", "")
    hint: str = ""


def without(text: str) -> str:
    assert text in SOUND
    return SOUND.replace(text, "")


def spec(old: str, new: str) -> tuple[str, str, str]:
    assert old in SPEC
    return "", "", SPEC.replace(old, new)


FAULTS = {
    "ef95438 a path of the spec is not mounted": Fault(
        "unmapped-path", spec("train_dir: /data/train", "train_dir: /mnt/coco"), hint="/data, /results, /specs"
    ),
    "#124 a host path in the spec": Fault("host-path", spec("/data/train", "ROOT/data/train"), hint="${EDITOR:-vi} +6"),
    "#152 a file of a snapshot is a link out of the mount": Fault(
        "missing-file",
        ("", "", SPEC + "model:\n  pretrained_model_path: /data/snapshot\n"),
        (f"{SOUND} -v ROOT/blobs:/blobs", "", SPEC + "model:\n  pretrained_model_path: /data/mended\n"),
        "mount 'ROOT/blobs/model.bin'",
    ),
    "#119 only /data and /results are mounted": Fault(
        "unmapped-path", ("", f"{TRAIN} model.pretrained_backbone_path=/models/x.pth", ""),
        (f"{SOUND} -v ROOT/data:/models", f"{TRAIN} model.pretrained_backbone_path=/models/train", ""),
        "mount that folder",
    ),
    "#150 a user id without a name": Fault(
        "user-without-name", (SOUND.replace("1000:1000", "1234:1234"), "", ""),
        (SOUND.replace("1000:1000", "1234:1234 -e USER=tao -e LOGNAME=tao"), "", ""), "--env USER=tao",
    ),
    "163d060 a user without a home": Fault(
        "user-without-home", (without("-e HOME=/tmp"), "", ""), hint="--env HOME=/tmp"
    ),
    "#174 results belong to root": Fault("user-not-me: root", (without("--user 1000:1000"), "", ""), hint="--user"),
    "#157 the host's number of a GPU in the spec": Fault("gpu-ids-outside", spec("[0]", "[3]"), hint="write [0]"),
    "#157 the host's number of a GPU in the command": Fault(
        "gpu-ids-outside", ("", f"{TRAIN} train.gpu_ids=[3]", ""), ("", f"{TRAIN} train.gpu_ids=[0]", ""),
        "train.gpu_ids=[0]",
    ),
    "#156 CUDA_VISIBLE_DEVICES of the host": Fault(
        "gpu-ids-outside", (f"{SOUND} -e CUDA_VISIBLE_DEVICES=3", "", ""),
        (f"{SOUND} -e CUDA_VISIBLE_DEVICES=0", "", ""),
        "set it to 0",
    ),
    "#129 another number of GPUs in the spec": Fault("gpu-count", spec("num_gpus: 1", "num_gpus: 2"), hint="write 1"),
    "e454e87 GPUs by number": Fault("gpus-by-count", (SOUND.replace("device=3", "1"), "", ""), hint="device="),
    "a container without a GPU": Fault("gpus-missing", (without("--gpus device=3"), "", ""), hint="--gpus all"),
    "4ff3719 /workspace is hidden": Fault(
        "dst-hides-image", (f"{SOUND} -v ROOT/work:/workspace", "", ""),
        (f"{SOUND} -v ROOT/work:/workspace/specs", "", ""),
        "/workspace/specs",
    ),
    "f70515b results into a read-only mount": Fault(
        "results-read-only", (SOUND.replace(":/results", ":/results:ro"), f"{TRAIN} results_dir=/results/r1", ""),
        ("", f"{TRAIN} results_dir=/results/r1", ""), "writable",
    ),
    "f70515b results by the spec into a read-only mount": Fault(
        "results-read-only", (SOUND.replace(":/results", ":/results:ro"), "", ""), hint="writable"
    ),
    "#174 results that the user cannot write": Fault(
        "results-not-writable-as-user", spec("/results/r1", "/data/locked/r1"), hint="sudo install -d -o 1000"
    ),
    "4ff3719 Docker makes a missing source, empty": Fault(
        "src-missing", (SOUND.replace("ROOT/data", "ROOT/dta"), "", ""), hint="mkdir -p ROOT/dta"
    ),
    "SDK: two mounts of one folder": Fault(
        "src-duplicate", (f"{SOUND} -v ROOT/data:/again", "", ""), hint="mount a parent folder once"
    ),
    "two mounts at one place": Fault(
        "dst-duplicate", (f"{SOUND} -v ROOT/blobs:/data", "", ""), hint="another destination"
    ),
    "JOB_ID in the container": Fault("env-job-id", (f"{SOUND} -e JOB_ID=x", "", ""), hint="TAO_JOB_ID"),
    "started without a command": Fault("image-without-command", ("", IMAGE, ""), hint="add the task"),
    "6587006 Cosmos Reason in 7.1.0-pyt": Fault(
        "image-not-for-task", ("", f"{IMAGE} cosmos_reason train", ""), hint="7.0.1-cosmos-rl"
    ),
    "BEVFusion in a later image": Fault("image-not-for-task", ("", f"{IMAGE} bevfusion train", ""), hint="5.5.0-pyt"),
    "an engine in the image of the trainings": Fault(
        "image-not-for-task", ("", f"{IMAGE} dino gen_trt_engine -e /specs/train.yaml", ""),
        ("", f"{IMAGE.replace('pyt', 'deploy')} dino gen_trt_engine -e /specs/train.yaml", ""), "7.1.0-deploy",
    ),
    "a secret in the command line": Fault(
        "env-secret-plain", (f"{SOUND} -e HF_TOKEN=hf_0123456789", "", ""), (f"{SOUND} -e HF_TOKEN", "", ""),
        "--env HF_TOKEN",
    ),
    "the launcher in the container": Fault(
        "command-not-checked", ("", "tao model dino train", ""), hint="the task itself"
    ),
    "the default shared memory": Fault("shm-too-small", (without("--shm-size 16g"), "", ""), hint="--shm-size 16G"),
}  # fmt: skip


@pytest.fixture
def project(home: Home) -> Path:
    for name in ("specs", "results", "data/train", "data/snapshot", "data/mended", "blobs", "work"):
        (home.root / name).mkdir(parents=True)
        (home.root / name).chmod(0o777)
    (home.root / "data/locked").mkdir(mode=0o555)
    (home.root / "blobs/model.bin").write_text("")
    (home.root / "data/snapshot/model.bin").symlink_to("../../blobs/model.bin")
    (home.root / "data/mended/model.bin").symlink_to("../../blobs/model.bin")
    return home.root


def find(home: Home, parts: tuple[str, str, str]) -> dict[str, str]:
    """Return the findings about a ``docker run``: the hint by id."""
    options, command, text = parts
    command = command if command.startswith("nvcr") else f"{IMAGE} {command or TRAIN}"
    (home.root / "specs/train.yaml").write_text((text or SPEC).replace("ROOT", str(home.root)))
    words = shlex.split(f"docker run --rm {options or SOUND} {command}".replace("ROOT", str(home.root)))
    findings = call(home, "--json", "check", "--", *words).envelope["data"]["findings"]
    assert "hf_0123456789" not in str(findings)
    who = {True: "user-not-me: root", False: "user-not-me"}
    return {who["as root" in f["what"]] if f["id"] == "user-not-me" else f["id"]: f["hint"] for f in findings}


def test_a_sound_command_has_no_finding(home: Home, project: Path) -> None:
    assert find(home, ("", "", "")).keys() <= {"user-not-me", "foreign-owned-files"}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(home: Home, project: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taoprofiles.storage.paths.os.getuid", lambda: 1000)  # root is never told to be another user
    fault = FAULTS[name]
    hints = find(home, fault.wrong)
    assert fault.hint.replace("ROOT", str(project)) in hints[fault.id]
    assert fault.id not in find(home, fault.mended)
