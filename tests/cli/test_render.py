"""``render`` and ``run --image`` as a person has them, without an engine: which image, which task, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from taoprofiles.export import TARGETS
from tests.support.commands import call, one_clear_error
from tests.support.home import Home, write_program

KEY = "tlt_encode_of_ours"
NEW = {
    "format_version": 3.0,
    "task_group": {
        "model": {"dockers": {"nvidia/tao": {
            "6-tf": {"docker_registry": "nvcr.io", "tasks": ["unet"]},
            "6-pyt": {"docker_registry": "nvcr.io", "tasks": ["dino"]}}}},
        "deploy": {"dockers": {"nvidia/tao": {"6-deploy": {"docker_registry": "nvcr.io", "tasks": ["dino", "only"]}}}},
    },
}  # fmt: skip
MIDDLE = {
    "format_version": 2.0,
    "dockers": {"nvidia/tao-tf": {"3-a": {"docker_registry": "nvcr.io", "tasks": ["unet"]},
                                  "3-b": {"docker_registry": "nvcr.io", "tasks": ["dino"]}}},
}  # fmt: skip
OLD = {
    "format_version": 1.0,
    "dockers": {"nvidia/tlt": {"docker_registry": "nvcr.io", "docker_tag": "v3", "tasks": ["dino"]}},
}


def launcher(home: Home, package: str, config: object) -> None:
    """Put a ``tao`` on the home's PATH whose Python has such a package."""
    folder = home.root / "launcher"
    (folder / package / "config").mkdir(parents=True)
    (folder / package / "__init__.py").write_text("raise SystemExit('nothing of the launcher is to be run')\n")
    (folder / package / "config/config.json").write_text(json.dumps(config))
    release = folder / f"nvidia_tao-{'6.26.3' if package == 'nvidia_tao_cli' else '4.0.1'}.dist-info"
    release.mkdir()
    (release / "METADATA").write_text(f"Name: nvidia-tao\nVersion: {release.name[11:-10]}\n")
    write_program(folder / "tao", f"#!{Path(sys.executable).resolve()}\n")  # this environment's has a launcher
    home.environ |= {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": str(folder)}


def image(home: Home, *words: str) -> str:
    done = call(home, "--json", "render", "a", "--to", "docker", "--", *words)
    return str(done.envelope["data"]["image"])


@pytest.mark.parametrize(
    ("package", "config", "words", "expected"),
    [
        ("nvidia_tao_cli", NEW, "tao model dino train", "nvcr.io/nvidia/tao:6-pyt"),
        ("nvidia_tao_cli", NEW, "dino train", "nvcr.io/nvidia/tao:6-pyt"),
        ("nvidia_tao_cli", NEW, "tao deploy dino gen", "nvcr.io/nvidia/tao:6-deploy"),
        ("nvidia_tao_cli", NEW, "only gen", "nvcr.io/nvidia/tao:6-deploy"),
        ("tlt", MIDDLE, "tao dino train", "nvcr.io/nvidia/tao-tf:3-b"),
        ("tlt", OLD, "tao dino train", "nvcr.io/nvidia/tlt:v3"),
    ],
)
def test_the_launchers_table_gives_the_image(
    home: Home, package: str, config: object, words: str, expected: str
) -> None:
    home.profile("a")
    launcher(home, package, config)
    assert image(home, *words.split()) == expected
    if package != "tlt" and not words.startswith("tao model"):
        return  # the rest once for each generation
    home.environ["OVERRIDE_REGISTRY"] = "lab:5000"
    assert image(home, *words.split()) == expected.replace("nvcr.io", "lab:5000")
    del home.environ["OVERRIDE_REGISTRY"]
    own = home.root / (".tlt" if package == "tlt" else ".tao") / "config.json"
    own.parent.mkdir()
    own.write_text(json.dumps(config).replace("nvcr.io", "own.io"))
    assert image(home, *words.split()) == expected.replace("nvcr.io", "own.io"), "the person's own table counts"


def test_check_knows_the_tasks_that_there_are(home: Home) -> None:
    home.profile("a")
    launcher(home, "nvidia_tao_cli", NEW)
    (home.root / ".docker").mkdir()
    (home.root / ".docker/config.json").write_text('{"auths": {"nvcr.io": {}}}')
    known = call(home, "--json", "check", "a", "--", "tao", "model", "dino", "train").envelope["data"]
    assert (known["refusal"], known["container"]["image"]) == (None, "nvcr.io/nvidia/tao:6-pyt")
    unknown = call(home, "--json", "check", "a", "--", "tao", "model", "dinu", "train").envelope["data"]
    assert unknown["refusal"]["message"] == "invalid choice: 'dinu'"
    assert "launcher-refuses" in [finding["id"] for finding in unknown["findings"]]
    named = call(home, "--json", "check", "a", "--launcher", "5.5.1", "--", "tao", "model", "dinu", "train").envelope
    assert named["data"]["refusal"] is None, "the table of that launcher is not known"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tao", "model", "nosuch", "train"], "has no task 'nosuch' of group 'model'"),
        (["tao", "model", "only", "x"], "has no task 'only' of group 'model'"),
        (["din", "train"], "did you mean 'dino'?"),
        (["tao", "list"], "'tao list' starts no task"),
        (["tao", "model"], "'tao model' starts no task"),
        (["tao", "model", "dino", "train", "--volume", "/a:/b"], "--volume works only with the launcher"),
        ([], "no image given"),
    ],
)
def test_no_known_image_is_one_clear_error(home: Home, words: list[str], message: str) -> None:
    home.profile("a")
    launcher(home, "nvidia_tao_cli", NEW)
    one_clear_error(call(home, "render", "a", "--to", "docker", "--", *words), 2, message)


@pytest.mark.parametrize("config", [{}, [], {"task_group": 3}, {"dockers": {"a": []}}, "x"])
def test_an_invalid_table_and_no_launcher(home: Home, config: object) -> None:
    home.profile("a")
    launcher(home, "nvidia_tao_cli", config)
    one_clear_error(call(home, "render", "a", "--to", "docker", "--", "dino"), 2, "--image IMAGE")
    home.environ["PATH"] = "/nowhere"
    assert "no launcher is installed" in call(home, "render", "a", "--to", "slurm", "--", "dino").err


WITH_COMMAND = [target for target in TARGETS if target != "edf"]
"""An EDF names an environment; the command is srun's."""


@pytest.mark.parametrize("target", WITH_COMMAND)
def test_secrets_are_masked_and_omissions_reported(home: Home, target: str) -> None:
    home.profile(
        "a",
        f'layout = "custom"\n[variables]\nKEY = "{KEY}"\nRESULTS_DIR = "/results"\n[container.env]\n'
        'API_TOKEN = "${KEY}"\nPLAIN = "plain $$x"\n[docker]\nulimits = { memlock = -1 }\nports = { "8888" = 8888 }\n',
    )
    words = ("render", "a", "--to", target, "--image", "i:1", "--", "t", "-k", "$KEY", "-k", KEY, "$RESULTS_DIR/x")
    done = call(home, *words)
    assert done.status == 0
    assert KEY not in done.out + done.err
    assert "/results/x" in done.out
    assert "export API_TOKEN=…" in done.err
    assert 'KEY: eval "$(taoprof env a --reveal)"' in done.err
    data = call(home, "--json", *words).envelope["data"]
    assert (data["text"], data["secrets"]) == (done.out, ["API_TOKEN", "KEY"])
    assert KEY not in json.dumps(data)
    warnings = "\n".join(data["warnings"])
    assert ("docker.ulimits" in warnings) == (target in ("kubernetes", "slurm"))
    assert ("docker.ports" in warnings) == (target == "slurm")


def test_what_cannot_be_rendered_is_one_clear_error(home: Home) -> None:
    home.profile("b")
    home.profile("a", 'layout = "custom"\n[[mounts]]\nsource = "/a,b"\ndestination = "/c d"\n')
    one_clear_error(
        call(home, "render", "a", "--to", "slurm", "--image", "i"), 3, "mounts[0].source", "mounts[0].destination"
    )
    one_clear_error(call(home, "render", "a", "--to", "docker", "--image", "--rm"), 2)
    one_clear_error(call(home, "render", "a", "--to", "docker", "--image=--rm"), 3)
    one_clear_error(call(home, "render", "a", "--to", "docker", "--image", "i.sqsh"), 3)
    assert " nvcr.io/a:1\n" in call(home, "render", "b", "--to", "docker", "--image", "docker://nvcr.io#a:1").out
    one_clear_error(call(home, "render", "a", "--to", "nomad", "--image", "i"), 2)
    one_clear_error(call(home, "render", "nosuch", "--to", "docker", "--image", "i"), 4)
    one_clear_error(call(home, "render", "a", "--to", "docker", "--image", "i", "--gpus", "0"), 2)


# run --image


def docker(home: Home, status: int = 0) -> Path:
    """Put a ``docker`` on the home's PATH that writes down its words and its environment."""
    folder = home.root / "docker"
    arguments_file = folder / "arguments"
    write_program(folder / "docker", f'printf "%s\\0" "$@" >{arguments_file}\nenv >{folder}/env\nexit {status}')
    home.environ["PATH"] = f"{folder}:/usr/bin:/bin"
    return arguments_file


def test_run_with_an_image_is_docker_run(home: Home) -> None:
    home.profile("a", f'layout = "custom"\n[variables]\nKEY = "{KEY}"\n[container.env]\nMY_KEY = "${{KEY}}"\n')
    arguments_file = docker(home, 3)
    words = (
        "run", "a", "--image", "i:1", "--gpus", "none", "--", "tao", "model", "dino", "train",
        "-k", "$KEY", "${y}",
    )  # fmt: skip
    done = home.run(*words, environ={"DOCKER_CONTEXT": "other"})
    assert done.returncode == 3, done.stderr
    arguments = arguments_file.read_bytes().decode().split("\0")[:-1]
    (record,) = home.json("history")["data"]["runs"]
    assert arguments[:5] == ["run", "--rm", "--interactive", "--name", f"taoprof-a-{record['id']}"]
    assert arguments[arguments.index("i:1") :] == ["i:1", "dino", "train", "-k", KEY, "${y}"]
    assert ("--gpus" in arguments, "--tty" in arguments) == (False, False)
    assert arguments[arguments.index("--env") + 1] == "MY_KEY"
    environ = (arguments_file.parent / "env").read_text().splitlines()
    assert f"MY_KEY={KEY}" in environ
    assert f"DOCKER_HOST={home.environ['DOCKER_HOST']}" in environ
    assert not [line for line in environ if line.startswith(("DOCKER_CONTEXT=", "LAUNCHER_MOUNTS="))]
    assert (record["status"], record["command"]) == (3, ["tao", "model", "dino", "train", "-k", "***", "${y}"])
    assert not list((home.state / "holds").glob("*.mounts.json"))


def test_a_secret_that_is_spelt_out_elsewhere_is_in_no_word_of_docker_run_either(home: Home) -> None:
    text = f'layout = "custom"\n[variables]\nKEY = "{KEY}"\n[container.env]\nURL = "https://{KEY}@host"\n'
    home.profile("a", text)
    arguments_file = docker(home)
    assert home.run("run", "a", "--image", "i", "--", "t").returncode == 0
    assert KEY not in arguments_file.read_text()
    assert f"URL=https://{KEY}@host" in (arguments_file.parent / "env").read_text().splitlines()
    (home.root / KEY).mkdir()
    home.profile("a", f'{text}[[mounts]]\nsource = "{home.root}/{KEY}"\ndestination = "/d"\n')
    one_clear_error(
        call(home, "run", "a", "--image", "i", "--", "t"),
        3,
        "mounts[0].source: it contains the value of the secret 'KEY'",
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--image", "i", "--shared", "--", "t"], 2, "--image cannot be combined with --shared"),
        (["--gpus", "none", "--", "t"], 2, "--gpus none needs --image"),
        (["--image", "", "--", "t"], 3, "is not the name of an image"),
        (["--image", "i", "--", "tao", "list"], 2, "starts no task"),
        (["--image", "i"], 2, "no command to run"),
        (["--image", "i", "--", "t"], 127, "command not found: 'docker'"),
    ],
)
def test_run_with_an_image_refuses(home: Home, words: list[str], status: int, message: str) -> None:
    home.profile("a")
    home.environ["PATH"] = "/nowhere"
    before = home.tree()
    one_clear_error(call(home, "run", "a", *words), status, message)
    assert not list((home.state / "holds").glob("*")), "nothing is held"
    assert home.tree() == before or status == 127


def test_dockers_own_refusal_is_an_envelope_too(home: Home) -> None:
    home.profile("a")
    docker(home, 125)
    done = home.run("run", "a", "--image", "i", "--", "t")
    assert done.returncode == 125
    assert "the engine did not start the container" in done.stderr
    script = "import taoprofiles; print(taoprofiles.run('a', ['t', 'x'], image='i:1', gpus='none').status)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=home.environ, stdin=-3, capture_output=True, text=True, timeout=60)
    assert done.stdout == "125\n", done.stderr


@pytest.mark.parametrize("target", WITH_COMMAND)
def test_render_prints_no_secret_inside_of_an_argument(home: Home, target: str) -> None:
    home.profile("a", 'layout = "custom"\n')
    render = ("render", "a", "--to", target, "--image", "i:1", "--", "sh", "-c")
    for secret in (f"true -k {KEY}", f"https://{KEY}@h", f"-k{KEY}"):
        done = call(home, *render, secret)
        assert KEY not in done.out + done.err
        assert "$ARGUMENT_2 replaces it" in done.err
    done = call(home, *render, 'true -k $K; curl https://$T@h -H "Authorization: Bearer $T" --key="$K"')
    assert "ARGUMENT_2" not in done.out + done.err, "these are references already"
