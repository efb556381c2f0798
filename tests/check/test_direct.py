"""Commands without the launcher: a task with a profile, a docker run of one's own, and what is neither."""

from __future__ import annotations

import os
import resource
import shlex
from pathlib import Path

import pytest

from taoprofiles.system.docker_run import RunMount, parse
from tests.support.commands import call, one_clear_error
from tests.support.home import Home
from tests.support.sandbox import FakeEngine, answer

PROFILE = """
layout = "custom"
[container.env]
HOME = "/tmp"
[docker]
user = "auto"
shm_size = "1G"
[[mounts]]
source = "{0}/specs"
destination = "/specs"
"""
IMAGE = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt"


@pytest.fixture(autouse=True)
def profile(home: Home) -> Path:
    (home.root / "specs").mkdir()
    (home.root / "specs/train.yaml").write_text("train:\n  num_gpus: 2\n")
    home.profile("p", PROFILE.format(home.root))
    return home.root


def check(home: Home, *words: str) -> list[dict[str, str]]:
    """Return the findings of 'check'."""
    findings: list[dict[str, str]] = call(home, "--json", "check", *words).envelope["data"]["findings"]
    return findings


def ids(home: Home, *words: str) -> list[str]:
    return [finding["id"] for finding in check(home, *words)]


@pytest.mark.parametrize(
    "command",
    [
        "dino train -e {0}",
        "python -m nvidia_tao_pytorch.cv.nvpanoptix3d.entrypoint.nvpanoptix3d train -e {0}",
        "bash -c 'cd /x && dino train -e {0}'",
        "timeout 1h sh -euo pipefail -c 'for i in 1; do dino train -e {0} results_dir=/specs/$i; done # it'\\''s'",
        "nohup dino train -e {0}",
        "a_network_of_next_year train -e {0}",
    ],
)
def test_a_task_is_checked_with_the_mounts_of_the_profile(home: Home, command: str) -> None:
    home.profile("p", f'image = "{IMAGE}"\n' + PROFILE.format(home.root))
    wrong, sound = (command.format(f"{folder}/specs/train.yaml") for folder in (home.root, ""))
    assert ids(home, "p", "--", *shlex.split(wrong)) == ["host-path"]
    data = call(home, "--json", "check", "p", "--", *shlex.split(sound)).envelope["data"]
    assert data["findings"] == []
    assert data["launcher"] == {"version": None, "path": None}
    assert data["container"]["mounts"] == [{"source": f"{home.root}/specs", "destination": "/specs"}]


def test_a_profile_with_an_image_is_checked_for_docker_run_where_no_launcher_is_installed(home: Home) -> None:
    home.environ["PATH"] = "/usr/bin:/bin"
    home.profile("p", f'image = "{IMAGE}"\n' + PROFILE.format(home.root))
    (home.root / "specs").rename(home.root / "moved")
    data = home.json("check", "p")["data"]
    assert [finding["id"] for finding in data["findings"]] == ["src-missing"]
    assert (data["launcher"]["version"], data["container"]["image"]) == (None, IMAGE)
    assert home.json("check", "p", "--launcher", "6.26.3")["data"]["launcher"]["version"] == "6.26.3"


def test_a_task_is_checked_with_the_mounts_file_without_a_profile(home: Home) -> None:
    call(home, "use", "p")
    assert ids(home, "--", "dino", "train", "-e", "/specs/x.yaml") == ["missing-file"]


def test_the_corrected_command_is_one_that_runs(home: Home) -> None:
    with_docker = f"docker run --gpus all --shm-size 1g -v {home.root}/specs:/specs {IMAGE} dino train -e"
    for words, begins in (
        ("p -- dino train -e", "taoprof run p --image IMAGE -- dino train -e"),
        (f"-- {with_docker}", with_docker),
    ):
        findings = check(home, *words.split(), f"{home.root}/specs/train.yaml")
        hints = [finding["hint"] for finding in findings if finding["id"] == "host-path"]
        assert hints == [f"{begins} /specs/train.yaml"]


@pytest.mark.parametrize(
    "command", ["dino train -e /specs/train.yaml", "nothing", "./train.sh", "A=1 dino train", "cd x"]
)
def test_a_program_that_does_not_exist_is_the_same_error_of_check_and_run(home: Home, command: str) -> None:
    """Without an image, run starts the command on this machine."""
    words = ["--", *command.split()]
    assert call(home, "check", "p", *words).status == 3
    (finding,) = (finding for finding in check(home, "p", *words) if finding["severity"] == "error")
    assert finding["id"] == "command-not-found"
    for options in ([], ["--wait"]):
        refused = call(home, "--json", "run", "p", *options, *words)
        error = refused.envelope["error"]
        assert (refused.status, error["message"], error["hint"]) == (127, finding["what"], finding["hint"]), options
    home.profile("p", f'image = "{IMAGE}"\n' + PROFILE.format(home.root))
    assert "command-not-found" not in ids(home, "p", *words)


def test_the_shared_memory_of_the_host_is_that_of_the_container(home: Home) -> None:
    words = f"docker run --gpus all -v {home.root}/specs:/specs {IMAGE} dino train -e /specs/train.yaml"
    assert "shm-too-small" in ids(home, "--", *words.split())
    for option in ("--ipc=host", "--ipc host"):
        shared = words.replace("--gpus", f"{option} --gpus")
        assert "shm-too-small" not in ids(home, "--", *shared.split())


def test_the_variables_of_a_profile_are_those_of_a_docker_run(home: Home) -> None:
    home.profile("p", PROFILE.format(home.root) + '[variables]\nSPECS_DIR = "/specs"\n')
    words = ["docker", "run", "--gpus", "all", "-v", f"{home.root}/specs:/specs", IMAGE, "dino", "train", "-e"]
    assert "missing-file" in ids(home, "p", "--", *words, "$SPECS_DIR/nope.yaml")
    assert "missing-file" not in ids(home, "p", "--", *words, "$SPECS_DIR/train.yaml")


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("python train.py", "'python' is no launcher, no 'docker run' and no task of TAO"),
        (f"docker run --gpus all {IMAGE} python train.py", "'python' is not a task of TAO"),
        (f"docker run --gpus all --env-file e {IMAGE} dino train", "not checked: --env-file"),
        ("bash -c 'tao model dino train; python train.py'", "'python' is no launcher"),
        ("docker compose up", "'docker' is no launcher, no 'docker run' and no task of TAO"),
    ],
)
def test_what_is_not_understood_is_named(home: Home, tmp_path: Path, command: str, what: str) -> None:
    for program in ("python", "docker"):
        (tmp_path / program).touch(0o755)
    for name in ([], ["p"]):
        environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = call(home, "check", *name, "--", *shlex.split(command), environ=environ)
        assert what in done.out
        assert "no problems found" not in done.out


@pytest.mark.parametrize("command", ["dino train", "tao model dino train"])
def test_the_image_and_the_gpus_are_those_of_run(home: Home, command: str) -> None:
    words = [*command.split(), "-e", "/specs/train.yaml"]
    assert ids(home, "p", "--image", IMAGE, "--", *words) == []
    assert ids(home, "p", "--image", IMAGE, "--gpus", "1", "--", *words) == ["gpu-count"]
    deploy = IMAGE.replace("pyt", "deploy")
    assert ids(home, "p", "--image", deploy, "--", *words) == ["image-not-for-task"]
    refused = call(home, "run", "p", "--gpus", "1,", "--image", IMAGE, "--", *words)
    hint = f"taoprof check p --image {IMAGE} --gpus 1, -- dino train -e /specs/train.yaml"
    one_clear_error(refused, 3)
    assert "train.num_gpus: 2 GPUs, but the container gets 1 GPU" in refused.err
    assert hint in refused.err
    done = call(home, *shlex.split(hint)[1:])
    assert "train.num_gpus: 2 GPUs, but the container gets 1 GPU" in done.out


@pytest.mark.parametrize("command", ["", "tao model dino train", f"docker run {IMAGE} dino train", "tao_pt -- true"])
def test_the_gpus_of_another_command_are_refused(home: Home, command: str) -> None:
    done = call(home, "check", "p", "--gpus", "1", "--", *command.split())
    one_clear_error(done, 2)


def test_volumes_of_docker_are_not_folders_of_this_host(home: Home) -> None:
    words = f"docker run --gpus all -v data:/data --tmpfs /scratch {IMAGE} dino train -e /data/x.yaml -r /scratch/r"
    findings = ids(home, "--", *words.split())
    assert not {"missing-file", "unmapped-path", "src-missing"} & set(findings)
    assert "spec-unchecked" in findings


def test_each_of_many_mounts_of_one_folder_counts(home: Home) -> None:
    mounts = " ".join(f"-v {home.root}/specs:/s{number % 40}" for number in range(2000))
    words = f"docker run --gpus all --shm-size 1g {mounts} {IMAGE} dino train -e /s39/train.yaml"
    findings = ids(home, "--", *words.split())
    assert "dst-duplicate" in findings
    assert not {"missing-file", "unmapped-path"} & set(findings)


# The parser


def test_the_forms_of_options() -> None:
    run = parse(
        shlex.split(
            """sudo -E docker --context lab container run -itd --rm=true
            --gpus '"device=0,3"' -v/a:/data:ro,z -v=$PWD:/x --user=1:2
            --mount 'type=bind,"src=/q,1",dst=/r,readonly' -eA=b=c -e HF_TOKEN --shm-size 8g --ulimit memlock=-1
            --ulimit stack=67108864:67108864 -p 8888:80 -p 127.0.0.1:9000:9001 --net host -v named:/n --tmpfs /t:size=1g
            --entrypoint bash IMAGE -c 'dino train'"""
        )
    )
    assert run is not None
    assert run.mounts == [
        RunMount("/a", "/data", "bind", True, True), RunMount("$PWD", "/x", "bind", False, True),
        RunMount("named", "/n", "volume"), RunMount("/q,1", "/r", "bind", True), RunMount("", "/t", "tmpfs"),
    ]  # fmt: skip
    assert (run.env, run.gpus, run.user, run.shm_size) == ([("A", "b=c"), ("HF_TOKEN", None)], ["0", "3"], "1:2", "8g")
    assert (run.ulimits, run.ports) == ({"memlock": -1, "stack": 67108864}, {"80": 8888, "9001": 9000})
    assert (run.network, run.entrypoint, run.image, run.command) == ("host", "bash", "IMAGE", ["-c", "dino train"])
    assert run.unknown == []


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("all", "all"), ("2", 2), ("device=1", ["1"]), ("'device=1'", ["1"]), ('"device=0,1"', ["0", "1"]),
        ("count=2", 2), ("device=GPU-1a", ["GPU-1a"]), ('"device=0,1",capabilities=compute', ["0", "1"]),
    ],
)  # fmt: skip
def test_the_forms_of_gpus(gpus: str, expected: object) -> None:
    run = parse(["docker", "run", "--gpus", gpus, "x"])
    assert run is not None
    assert run.gpus == expected


@pytest.mark.parametrize("script", ["dino train; python train.py", "dino train -e x\npython it's"])
def test_each_command_of_a_script_that_is_not_understood_is_named(home: Home, script: str) -> None:
    assert "'python" in call(home, "check", "p", "--", "bash", "-c", script).out
    missing = ids(home, "--", "bash", "-c", script)
    assert missing == ["no-mapping-file"], "a task of TAO, but there are no mounts"


@pytest.mark.parametrize(
    "command",
    ["", "docker", "docker ps", "docker compose run x", "docker exec x", "echo docker run x", "-- docker run"],
)
def test_what_is_no_docker_run(command: str) -> None:
    assert parse(command.split()) is None


@pytest.mark.parametrize("command", ["docker run", "podman run -v", "docker run --gpus", "docker create --mount ,, -p"])
def test_a_command_that_is_cut_off(command: str) -> None:
    run = parse(command.split())
    assert run is not None
    assert run.image == ""


@pytest.mark.parametrize("command", [["tao", "model", "dino", "train"], ["dino", "train"], ["--docker"]])
def test_a_rootless_engine(home: Home, monkeypatch: pytest.MonkeyPatch, command: list[str], tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (8, 8) if limit == resource.RLIMIT_MEMLOCK else (-1, -1))
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    limits = "[docker.ulimits]\nmemlock = -1\nstack = 67108864\nnproc = 9\n"
    home.profile("p", PROFILE.format(home.root).replace("[[mounts]]", limits + "[[mounts]]"))
    if command == ["--docker"]:
        options = ["-v", f"{home.root}/specs:/specs", "--user", "4321", "--ulimit", "memlock=-1", "--shm-size", "1g"]
        command = [*"docker run --gpus all -e HOME=/tmp -e USER=x".split(), *options, IMAGE, "dino", "train"]

    def places() -> dict[str, list[str]]:
        """Return where the findings are, by id."""
        result: dict[str, list[str]] = {}
        for finding in check(home, "p", "--", *command):
            result.setdefault(finding["id"], []).append(finding["where"])
        return result

    with FakeEngine(tmp_path) as engine:
        home.environ |= engine.environ
        assert "docker-rootless" not in places()
        engine.rules["/info"] = lambda connection: answer(connection, {"SecurityOptions": ["name=rootless"]})
        section = "--" if command[0] == "docker" else "docker."
        assert places()["docker-rootless"] == [f"{section}user", f"{section}ulimits.memlock"]
        assert "user-not-me" not in places()
        if command[0] != "docker":
            assert call(home, "check", "p", "--fix", "--yes", "--", *command).status in (0, 3)
            assert not {"docker-rootless", "user-not-me"} & places().keys(), "root is the user"
        engine.rules["/info"] = lambda connection: connection.close()
        assert "docker-rootless" not in places(), "it does not answer"


@pytest.mark.parametrize(
    "options",
    ["--volumes-from x", "--gpsu all", "--gpus -5", "--ulimit memlock=x"]
    + [f"--volume {volume}" for volume in ("/a:/b:weird", "/a:/b:/c:/d", "a:b")],
)
def test_options_and_values_that_docker_refuses_are_named(home: Home, options: str) -> None:
    done = call(home, "check", "--", "docker", "run", *options.split(), "--shm-size", "1g", IMAGE, "dino", "train")
    assert f"not checked: {options.removesuffix(' x').replace('gpsu all', 'gpsu')}" in done.out


def test_the_options_of_docker_itself_are_known(home: Home) -> None:
    known = parse(["docker", "run", *DOCKER_OPTIONS.split(), "x"])
    assert known is not None
    assert known.unknown == []


DOCKER_OPTIONS = """--cap-add SYS_NICE --rm -it --name x --gpus "device=0,1" --gpus count=2,capabilities=compute
-v /a:/b:ro,z -v /b -v name:/c -v C:\\\\x:/d --ulimit memlock=-1 --ulimit nofile=1:2 --shm-size 16.5GiB --pid host
--health-start-period 5s --health-start-interval 1s"""


def test_a_spec_file_is_looked_for_from_the_working_folder_that_is_named(home: Home) -> None:
    words = ["docker", "run", "--gpus", "all", "-v", f"{home.root}/specs:/specs", "-w", "/specs", IMAGE]
    assert "missing-file" not in ids(home, "--", *words, "dino", "train", "-e", "train.yaml")
    assert "missing-file" in ids(home, "--", *words, "dino", "train", "-e", "no.yaml")


def test_a_context_that_does_not_exist(home: Home) -> None:
    words = ["docker", "--context", "nosuch", "run", "--gpus", "all", IMAGE, "dino", "train"]
    assert "docker-down" in ids(home, "--", *words)


@pytest.mark.parametrize("command", ["dino train", "tao_pt -- dino train"])
@pytest.mark.parametrize(
    "content",
    [
        '{"Mounts": 5}',
        '{"Mounts": [5]}',
        '{"Mounts": [{"source": "/tmp\\u0000", "destination": "/x"}]}',
        '{"Mounts": [], "Envs": [{"variable": "A"}]}',
        '{"Mounts": [], "DockerOptions": {"ports": [1]}}',
    ],
)
def test_a_mapping_file_that_is_not_well_formed_is_a_finding(home: Home, content: str, command: str) -> None:
    home.mapping_file.write_text(content)
    done = call(home, "--json", "check", "--", *command.split())
    assert done.status in (0, 3), "a runner takes only the mounts"
    if command == "dino train" or '"Mounts": []' not in content:
        assert "file-shape" in {finding["id"] for finding in done.envelope["data"]["findings"]}
