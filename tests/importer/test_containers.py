"""Containers of TAO's images that notebooks, scripts and Compose files start become profiles; nothing is run."""

from __future__ import annotations

import os
import subprocess
import tomllib
from itertools import pairwise
from typing import Any

import pytest

from tests.support.commands import call, one_clear_error
from tests.support.home import Home
from tests.support.notebooks import notebook

IMAGE = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt"
DEPLOY = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-deploy"
SCRIPT = f"""#!/bin/bash
DATA=ROOT/data
export RESULTS="${{1:-ROOT/results}}"
mkdir -p "$RESULTS" && touch ROOT/canary
if nvidia-smi; then
sudo docker run --rm -it --gpus '"device=0,1"' --shm-size=16g --user $(id -u):$(id -g) -e HF_TOKEN -e HOME=/tmp \\
    -v "$DATA":/data:ro -v ${{RESULTS}}:/results -v $(pwd)/specs:/specs --ulimit memlock=-1 -p 8888:8888 \\
    {IMAGE} dino train -e /specs/train.yaml results_dir=/results
fi
docker run --gpus all -v $RESULTS:/results {DEPLOY} dino gen_trt_engine -e /specs/trt.yaml
docker run -v /elsewhere:/data postgres
"""
COMPOSE = f"""
x-common: &common
  image: {IMAGE}
  shm_size: 16g
services:
  train:
    <<: *common
    user: "1000:1000"
    command: dino train -e /specs/t.yaml
    volumes: ["./data:/data:ro", {{type: bind, source: "${{RESULTS:-./results}}", target: /results}}, "cache:/cache"]
    environment: {{HF_TOKEN: null, HOME: /tmp, X: "a$$b"}}
    deploy: {{resources: {{reservations: {{devices: [{{driver: nvidia, device_ids: ["3"], capabilities: [gpu]}}]}}}}}}
  db: {{image: postgres, volumes: ["./db:/data"]}}
"""


@pytest.fixture(autouse=True)
def folders(home: Home) -> None:
    for name in ("data", "results", "specs"):
        (home.root / name).mkdir()


def imported(home: Home, name: str, text: str, *words: str) -> dict[str, Any]:
    path = home.root / name
    path.write_text(text.replace("ROOT", str(home.root)))
    done = call(home, "import", str(path), "--name", "p", "--force", *words)
    assert done.status == 0, done.err
    return tomllib.loads((home.root / ".config/taoprofiles/profiles/p.toml").read_text())


def test_a_shell_script(home: Home) -> None:
    profile = imported(home, "train.sh", SCRIPT)
    assert profile["variables"] == {"DATA": "~/data", "RESULTS": "~/results"}
    assert profile["mounts"] == [
        {"source": "${DATA}", "destination": "/data", "read_only": True},
        {"source": "${RESULTS}", "destination": "/results"},
        {"source": "~/specs", "destination": "/specs"},
    ]
    assert profile["container"]["env"] == {"HF_TOKEN": "${env:HF_TOKEN}", "HOME": "/tmp"}
    assert profile["docker"] == {
        "user": "auto", "shm_size": "16g", "ulimits": {"memlock": -1}, "ports": {"8888": 8888},
    }  # fmt: skip
    assert (profile["image"], profile["images"]) == (IMAGE, {"dino gen_trt_engine": DEPLOY})
    assert profile["gpus"] == "0,1"
    assert not (home.root / "canary").exists()


IDIOMS = [
    'HERE=$(cd "$(dirname "$0")"; pwd)\nRUN -v $HERE/data:/data -v "$HERE/../x":/x',
    'TOP="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null 2>&1 && pwd)"\nRUN -v "$TOP/x:/x"',
    'D="$( cd "$( dirname "${BASH_SOURCE[0]}" )" >/dev/null 2>&1 && pwd -P )"\nRUN -v "$D/x:/x"',
    'DIR=$(dirname "$(readlink -f "$0")")\nRUN -v $DIR/data:/data -v "$(dirname "$0")/specs:/specs"',
    "D=$(dirname $(realpath $0))\nRUN -v ${D}/data:/data",
    'OPTS=(\n  --rm --shm-size=8g  # memory\n  -v "$PWD/data:/data"\n)\nOPTS+=(-v $PWD/specs:/specs)\nRUN "${OPTS[@]}"',
    'D=/opt/data  # the data\nO="${OUT:-${BASE:-/opt}/out}"\nRUN -v "$D:/data" -v "$O":/results',
    "is_up() {\n  local name=$1\n  docker inspect $name\n}\nD=/opt/data\nRUN -v $D:/data",
    'I=${IMAGE_OF_TAO:-$DEFAULT}\nD="${1:-/opt/data}"\nRUN -v "$D":/data',
]


@pytest.mark.parametrize("text", IDIOMS)
def test_a_script_mounts_what_it_mounts_when_bash_runs_it(home: Home, text: str) -> None:
    text = f"DEFAULT={IMAGE}\n" + text.replace("RUN", "docker run") + (' "$I"' if "I=$" in text else f" {IMAGE}")
    script = home.root / "p/t.sh"
    script.parent.mkdir()
    script.write_text(f"{text} dino train\n")
    (home.root / "bin").mkdir()
    docker = home.root / "bin/docker"
    docker.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n')
    docker.chmod(0o755)
    environ = {"PATH": f"{docker.parent}:/usr/bin:/bin", "HOME": str(home.root)}
    done = subprocess.run(["bash", str(script)], cwd=script.parent, env=environ, capture_output=True, text=True)
    words = done.stdout.splitlines()
    volumes = [words[number + 1].split(":") for number, word in enumerate(words) if word == "-v"]
    assert volumes, done.stderr
    assert call(home, "import", str(script), "--name", "p").status == 0
    data = home.json("show", "p")["data"]
    mounts = [(os.path.normpath(mount["source"]), mount["destination"]) for mount in data["mounts"]]
    assert mounts == [(os.path.normpath(source), destination) for source, destination in volumes]
    assert not {"name", "1"} & data["variables"].keys()


def test_an_image_that_is_not_known_and_a_placeholder_are_named(home: Home) -> None:
    (home.root / "t.sh").write_text("docker run --gpus all -v /a:/data $1 dino train\n")
    done = call(home, "import", str(home.root / "t.sh"))
    assert "line 1: starts an image that is not known" in done.err
    (home.root / "t.sh").write_text(f"docker run --ipc=host -v <path-to-data>:/data {IMAGE} dino train\n")
    done = call(home, "import", str(home.root / "t.sh"))
    one_clear_error(done, 2)
    assert "/data: a placeholder, '<path-to-data>' (line 1)" in done.err
    done = call(home, "import", str(home.root / "t.sh"), "--set", f"/data={home.root}/data")
    assert "--ipc is not imported; a profile has docker.shm_size" in done.err


def test_a_file_that_grows_when_it_is_read_is_refused_at_once(home: Home) -> None:
    lists = "".join(
        f" {b}: &{b} {{image: x, environment: [{','.join([f'*{a}'] * 10)}]}}\n" for a, b in pairwise("abcdefghij")
    )
    loop = "services:\n a: &a {environment: [*a]}\n"
    for text in (f"services:\n a: &a {{image: {IMAGE}}}\n{lists}", loop):
        (home.root / "compose.yaml").write_text(text)
        assert "its aliases make it too large" in call(home, "import", "compose.yaml", "--name", "p", cwd=home.root).err
    deep = f"docker run {IMAGE} {'$(' * 20_000}{')' * 20_000}\n"
    (home.root / "deep.sh").write_text(deep)
    assert call(home, "import", "deep.sh", "--name", "p", cwd=home.root).status == 0


def test_a_compose_file_and_a_script_that_starts_it(home: Home) -> None:
    profile = imported(home, "compose.yaml", COMPOSE)
    assert profile["mounts"] == [
        {"source": "~/data", "destination": "/data", "read_only": True},
        {"source": "~/results", "destination": "/results"},
    ]
    assert profile["container"]["env"] == {"HF_TOKEN": "${env:HF_TOKEN}", "HOME": "/tmp", "X": "a$$b"}
    assert (profile["image"], profile["gpus"], profile["docker"]["user"]) == (IMAGE, "3,", "1000:1000")
    assert imported(home, "up.sh", "docker compose -f compose.yaml up train\n") == profile
    assert imported(home, "up.sh", "docker-compose up -d\n") == profile
    (home.root / "up.sh").write_text("docker compose run --rm -v./x:/data --user=7:8 -e A=b train dino train -w 3\n")
    done = call(home, "import", "up.sh", "--name", "q", cwd=home.root)
    assert "line 1: not imported of 'compose run': -v, --user, -e\n" in done.err


def test_what_a_service_has_elsewhere_is_named(home: Home) -> None:
    text = f"services: {{a: {{image: {IMAGE}, secrets: [s], gpus: [{{count: 2}}]}}, b: {{extends: {{service: a}}}}, "
    (home.root / "compose.yaml").write_text(text + "c: {image: redis, secrets: [s]}}")
    done = call(home, "import", "compose.yaml", "--name", "p", cwd=home.root)
    assert "not imported of the service 'a': secrets" in done.err
    assert "not imported of the service 'b': extends" in done.err
    assert "'c'" not in done.err
    assert "gpus: 2\n" in done.out


CELLS = {
    "a command": f"!docker run --gpus all -v $HOST_DATA_DIR:/data -v {{root}}/specs:/specs {IMAGE} dino train",
    "a command of two lines": f"!docker run --gpus all -v $HOST_DATA_DIR:/data \\\n -v {{root}}/specs:/specs {IMAGE} t",
    "a bash cell": f"%%bash\nS=ROOT/specs\ndocker run --gpus all -v $HOST_DATA_DIR:/data -v $S:/specs {IMAGE} t",
    "a list of words": "import subprocess\nsubprocess.run(['docker', 'run', '--gpus', 'all', '-v', "
    f"os.environ['HOST_DATA_DIR'] + ':/data', '-v', f'{{root}}/specs:/specs', '{IMAGE}', 'dino', 'train'])",
    "os.system": f"os.system(f'docker run --gpus all -v $HOST_DATA_DIR:/data -v {{root}}/specs:/specs {IMAGE} dino')",
}


@pytest.mark.parametrize("form", CELLS)
def test_a_notebook(home: Home, form: str) -> None:
    first = "import os\nroot = 'ROOT'\nos.environ['HOST_DATA_DIR'] = f'{root}/data'"
    profile = imported(home, "n.ipynb", notebook([first, CELLS[form]]).decode())
    assert profile["mounts"] == [
        {"source": "${HOST_DATA_DIR}", "destination": "/data"}, {"source": "~/specs", "destination": "/specs"},
    ]  # fmt: skip
    assert (profile["image"], profile["variables"]) == (IMAGE, {"HOST_DATA_DIR": "~/data"})


def test_a_variable_that_the_script_does_not_set_is_asked_for(home: Home) -> None:
    text = f"docker run --gpus all -v $DATA:/data -v $(find / -name x):/specs {IMAGE} dino train\n"
    (home.root / "t.sh").write_text(text)
    done = call(home, "import", str(home.root / "t.sh"))
    one_clear_error(done, 2)
    assert "/data: $DATA is not set in the code" in done.err
    profile = imported(home, "t.sh", text, "--set", f"/data={home.root}/data", "--set", f"/specs={home.root}/specs")
    assert [mount["source"] for mount in profile["mounts"]] == ["~/data", "~/specs"]


def test_what_contradicts_and_what_has_no_place_is_named(home: Home) -> None:
    lines = [
        f"docker run --gpus all -v ROOT/{name}:/data --env-file e {IMAGE} dino train" for name in ("data", "specs")
    ]
    (home.root / "t.sh").write_text("\n".join(lines).replace("ROOT", str(home.root)))
    done = call(home, "import", str(home.root / "t.sh"))
    assert "line 2: the mount at /data differs from that of line 1" in done.err
    assert "line 1: not imported: --env-file" in done.err
    line = f"docker run --gpus '\"device=%s\"' -v {home.root}/data:/data {IMAGE} dino train"
    (home.root / "u.sh").write_text("\n".join([f"X=a\nY=$(date)\n{line % 0}", line % 1, "export Z=`date`"]))
    done = call(home, "import", str(home.root / "u.sh"))
    assert "line 4: --gpus differs from that of line 3" in done.err
    assert "Y is left out: line 2: the output of a command" in done.err
    assert "Z is left out: line 5: the output of a command" in done.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.sh", "docker run -v /a:/b postgres\ndocker ps\n"),
        ("t.sh", f"echo docker run {IMAGE} >log; docker pull {IMAGE}\n"),
        ("t.sh", "'"), ("t.sh", "docker run -v"), ("c.yaml", "services: [1]"), ("c.yaml", "services: [")
    ],
)  # fmt: skip
def test_a_file_without_a_container_of_tao(home: Home, name: str, text: str) -> None:
    (home.root / name).write_text(text)
    done = call(home, "import", str(home.root / name))
    one_clear_error(done, 3)
    assert "starts no TAO image" in done.err


def test_a_variable_of_the_shell_that_is_passed_on_is_taken_from_it_and_another_is_asked_for_by_its_name(
    home: Home,
) -> None:
    run = 'docker run -e NGC_KEY=$NGC_KEY -e "HF_TOKEN=${HF_TOKEN}" -v /dev/null/x:/data IMAGE dino train\n'
    run = run.replace("IMAGE", "nvcr.io/nvidia/tao/tao-toolkit:5.5.0-pyt")
    (home.root / "a.sh").write_text(run)
    done = home.run("import", "a.sh", check=True)
    assert "the container gets NGC_KEY from the environment: export NGC_KEY=…\n" in done.stderr
    assert "/dev/null/x does not exist, and '/dev/null' is not a folder. To use a folder" in done.stderr
    env = {"NGC_KEY": "${env:NGC_KEY}", "HF_TOKEN": "${env:HF_TOKEN}"}
    assert tomllib.loads((home.profiles / "a.toml").read_text())["container"]["env"] == env
    (home.root / "b.sh").write_text(run.replace("-v", '-e "A=$B" --shm-size $SHM -v'))
    done = home.run("import", "b.sh")
    assert "  B: $B is not set in the code (line 1)\n" in done.stderr
    assert "hint: taoprof import b.sh --set B=… --set SHM=…\n" in done.stderr
    home.run("import", "b.sh", "--set", "B=1", "--set", "SHM=8G", check=True)
    (home.root / "c.sh").write_text(run.replace("-v", "--gpus $N -v $CACHE:/cache -v"))
    done = home.run("import", "c.sh", "--set", f"/cache={home.root}", check=True)
    assert "not imported: --gpus …\n" in done.stderr
