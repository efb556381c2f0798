"""What is written for docker run, compose, Kubernetes and Slurm: all of the plan, each thing once, and no secret."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from taoprofiles.errors import CannotRenderError, InvalidProfileError
from taoprofiles.export import TARGETS
from taoprofiles.export.export import RENDERERS
from taoprofiles.export.plan import Plan, Rendered, Secret, plan_container, to_yaml
from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.profiles.model import Profile, parse, template
from taoprofiles.profiles.rendering import Renderer
from taoprofiles.storage.paths import Context
from tests.support.generated_profiles import AROUND, fixed_context, moderate, valid_profiles, value_text
from tests.support.home import ALL, find_command

IMAGE = "nvcr.io/nvidia/tao/tao-toolkit:6.26.3-pyt"
_MAJOR, _NEWEST = map(int, kubernetes_validate.latest_version().split(".")[:2])
KUBERNETES_VERSIONS = [f"{_MAJOR}.{_NEWEST - age}" for age in range(3)]
SECRET = "s3cr3t, $(HOME) 'x' \"y\" \\ "
gpus = st.one_of(st.just("all"), st.integers(1, 8), st.lists(st.sampled_from("01234567"), max_size=3, unique=True))
words = st.one_of(value_text, st.sampled_from(["-k", "--api_key", "$NGC", "${KEY}", "$KEY", "a=$KEY", f"x={SECRET}"]))


class Case(NamedTuple):
    plan: Plan
    values: list[str]
    command: list[str]
    """What the container is to run, with every secret in its place."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Plans of any profile that can be rendered, with a variable KEY that is a secret."""
    generated = draw(valid_profiles())
    variables = {**generated.variables, "KEY": SECRET.replace("$", "$$")}
    profile = Profile.model_validate({**generated.model_dump(exclude_none=True, by_alias=True), "variables": variables})
    name = draw(st.sampled_from(["p", "Detect_Net.v2-", "9" * 64]))
    renderer = Renderer(template(profile, name="p"), AROUND, name=name, path="p.toml")
    command = draw(st.lists(words, max_size=5))
    try:
        plan = plan_container(
            renderer, image=IMAGE, command=command, gpus=draw(gpus),
            labels={"taoprofiles.profile": "p", "taoprofiles.state": "/home/a na/$x"},
        )  # fmt: skip
    except (InvalidProfileError, CannotRenderError):
        assume(False)
        raise
    hidden = [value for _, value in renderer.secret_values() if len(value) >= 4 and not value.startswith("/")]
    return Case(plan, hidden, [expand_variables(word, renderer.variables()) for word in command])


def written(target: str, case: Case) -> Rendered:
    try:
        rendered = RENDERERS[target](case.plan)
    except CannotRenderError as error:
        assert error.problems
        assert target in ("kubernetes", "slurm", "edf")
        assume(False)
        raise
    text = json.dumps([rendered.text, *rendered.warnings, rendered.store])[1:-1]
    for value in case.values:
        assert value not in rendered.text
        assert json.dumps(value)[1:-1] not in text
    return rendered


def shell(text: str, program: str, environ: dict[str, str]) -> list[str]:
    """Return the words that bash passes to the program of a command line."""
    caught = f'{program}() {{ printf "%s\\0" "$@"; }}\n{text}'
    done = subprocess.run(["bash", "-c", caught], env={"LANG": "C.UTF-8", **environ}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), (text, done.stderr)
    return done.stdout.decode().split("\0")[:-1]


def environment(plan: Plan) -> dict[str, str]:
    return {name: f"value of {name}" for name in plan.secrets}


def filled(plan: Plan) -> list[str]:
    """The command's words, with the secrets as ``environment`` has them."""
    return [
        "".join(f"value of {piece.name}" if isinstance(piece, Secret) else piece for piece in word)
        for word in plan.command
    ]


def is_usable(name: str) -> bool:
    """Check whether bash takes such a variable from its environment and leaves it alone."""
    return name not in ("_", "BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "UID", "EUID", "PPID", "SHLVL", "PWD")


@given(cases())
@moderate(60 if ALL else 30)
def test_docker(case: Case) -> None:
    plan = case.plan
    assume(all(map(is_usable, plan.secrets)))
    argv = shell(written("docker", case).text, "docker", environment(plan))
    assert argv[0] == "run"
    at = argv.index(IMAGE)
    assert argv[at + 1 :] == filled(plan)
    flags = {"--rm", "--interactive", "--tty", "--init", "--privileged"}
    options: dict[str, list[str]] = {}
    rest = iter(argv[1:at])
    for word in rest:
        options.setdefault(word, []).append("" if word in flags else next(rest))
    mounts = [next(csv.reader([item])) for item in options.get("--mount", [])]
    assert mounts == [
        ["type=bind", f"source={m.source}", f"target={m.destination}", *(["readonly"] if m.read_only else [])]
        for m in plan.mounts
    ]
    assert options.get("--env", []) == [n if v is None else f"{n}={v}" for n, v in plan.env.items()]
    assert options.get("--user", [None]) == [plan.user]
    assert options.get("--shm-size", [None]) == [plan.shm_size and str(plan.shm_size)]
    assert options.get("--ulimit", []) == [f"{n}={v}:{v}" for n, v in plan.ulimits.items()]
    assert options.get("--network", [None]) == [plan.network]
    assert ("--privileged" in options) == plan.privileged
    assert ("--tty" in options) == (plan.tty is not False)
    assert ("--gpus" in options) == (plan.gpus != [])
    assert len(options.get("--publish", [])) + len(options.get("--expose", [])) == len(plan.ports)
    assert options["--label"] == [f"{n}={v}" for n, v in plan.labels.items()]


def expanded(value: Any, environ: dict[str, str], pattern: str = r"\$(?:\$|\{(\w+):\?\})") -> Any:
    """Return a value with ``$$`` and references to variables expanded, by default as compose does."""
    if isinstance(value, dict):
        return {key: expanded(item, environ, pattern) for key, item in value.items()}
    if isinstance(value, list):
        return [expanded(item, environ, pattern) for item in value]
    if not isinstance(value, str):
        return value
    return re.sub(pattern, lambda match: environ[match[1]] if match[1] else "$", value)


@given(cases())
@moderate(60 if ALL else 40)
def test_compose(case: Case) -> None:
    plan = case.plan
    document = yaml.safe_load(written("compose", case).text)
    environ = environment(plan)
    ((name, service),) = expanded(document, environ)["services"].items()
    assert (name, service["image"]) == (plan.name, IMAGE)
    assert service.get("command", []) == filled(plan)
    assert service.get("volumes", []) == [
        {"type": "bind", "source": m.source, "target": m.destination, **({"read_only": True} if m.read_only else {})}
        for m in plan.mounts
    ]
    wanted = {key: environ[key] if value is None else value for key, value in plan.env.items()}
    assert service.get("environment", {}) == wanted
    assert service["labels"] == plan.labels
    assert (service.get("user"), service.get("shm_size")) == (plan.user, plan.shm_size)
    assert service.get("ulimits", {}) == {n: {"soft": v, "hard": v} for n, v in plan.ulimits.items()}
    assert len(service.get("ports", [])) + len(service.get("expose", [])) == len(plan.ports)
    assert service.get("privileged", False) == plan.privileged
    assert ("deploy" in service) == (plan.gpus != [])


KUBERNETES = r"\$(?:\$|\((\w+)\))"
"""What Kubernetes expands (expansion.Expand)."""


@given(cases())
@moderate(60 if ALL else 40)
def test_kubernetes(case: Case) -> None:
    plan = case.plan
    rendered, document = written("kubernetes", case), manifest(plan)
    pod = document["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environ = environment(plan)
    assert expanded(container.get("args", []), environ, KUBERNETES) == filled(plan)
    env = container.get("env", [])
    assert all(n == 1 for n in Counter(item["name"] for item in env).values())
    plain = {item["name"]: expanded(item["value"], {}, KUBERNETES) for item in env if "value" in item}
    assert plain == {name: value for name, value in plan.env.items() if value is not None}
    references = {item["name"]: item["valueFrom"]["secretKeyRef"]["key"] for item in env if "valueFrom" in item}
    assert references == {name: name for name in plan.secrets}
    volumes = {item["name"]: item for item in pod.get("volumes", [])}
    places = {item["mountPath"]: volumes[item["name"]] for item in container.get("volumeMounts", [])}
    assert len(places) == len(volumes) == len(container.get("volumeMounts", []))
    assert all(places[m.destination]["hostPath"]["path"] == m.source for m in plan.mounts)
    read_only = {item["mountPath"] for item in container.get("volumeMounts", []) if item.get("readOnly")}
    assert read_only == {m.destination for m in plan.mounts if m.read_only}
    assert ("shm" in volumes) == (plan.shm_size is not None and "/dev/shm" not in [m.destination for m in plan.mounts])
    warnings = "\n".join(rendered.warnings)
    assert ("docker.ulimits" in warnings) == bool(plan.ulimits)
    numbers = plan.user is not None and all(part.isdigit() for part in plan.user.split(":"))
    security = container.get("securityContext", {})
    assert plan.user is None or ("runAsUser" in security and numbers) or "docker.user" in warnings
    name = document["metadata"]["name"]
    assert len(name) <= 63
    assert name[-1].isalnum()


@given(cases())
@moderate(60 if ALL else 30)
def test_slurm(case: Case) -> None:
    plan = case.plan
    assume(all(map(is_usable, plan.secrets)))
    rendered = written("slurm", case)
    argv = shell(rendered.text, "srun", environment(plan))
    options = {word.partition("=")[0]: word.partition("=")[2] for word in argv if word.startswith("--")}
    assert options["--container-image"] == "nvcr.io#nvidia/tao/tao-toolkit:6.26.3-pyt"
    mounts = [tuple(item.split(":")) for item in options.get("--container-mounts", "").split(",") if item]
    assert mounts == [(m.source, m.destination, *(["ro"] if m.read_only else [])) for m in plan.mounts]
    assert options.get("--container-env", "").split(",") == (plan.secrets or [""])
    rest = list(argv)
    while rest[0].startswith("--"):
        rest.pop(0)
    plain = [f"{name}={value}" for name, value in plan.env.items() if value is not None]
    assert rest == [*(["env", *plain] if plain else []), *(filled(plan) or ["bash"])]
    warnings = "\n".join(rendered.warnings)
    assert ("docker.ulimits" in warnings) == bool(plan.ulimits)
    assert ("docker.ports" in warnings) == bool(
        plan.ports or (case.plan.network == "host" and "docker.ports" in warnings)
    )
    assert ("docker.shm_size" in warnings) == (plan.shm_size is not None)
    assert ("docker.privileged" in warnings) == plan.privileged


@given(cases())
@moderate(60 if ALL else 30)
def test_edf(case: Case) -> None:
    plan = case.plan
    document = tomllib.loads(written("edf", case).text)
    assert document["image"] == "nvcr.io#nvidia/tao/tao-toolkit:6.26.3-pyt"
    assert document.get("mounts", []) == [f"{m.source}:{m.destination}{':ro' * m.read_only}" for m in plan.mounts]
    around = {name: f"value of {name}" for name, value in plan.env.items() if value is None}
    env = expanded(document.get("env", {}), around, r"\$(?:\$|\{(\w+)\})")
    assert env == {name: around.get(name, value) for name, value in plan.env.items()}
    assert document.keys() <= {"image", "mounts", "env"}


def readable(words: list[str]) -> list[str]:
    """Replace the line ends of YAML 1.1 by blanks: docker-compose prints them so that it cannot read them again."""
    return [re.sub("[\x85\u2028\u2029]", " ", word) for word in words]


def test_compose_takes_them(tmp_path: Path) -> None:
    """The real docker-compose reads hostile profiles, and gives back what was meant."""
    compose = find_command("docker-compose")
    services: dict[str, Any] = {}
    networks: dict[str, Any] = {}
    plans: list[Case] = []

    @given(cases())
    @moderate(40)
    def collect(case: Case) -> None:
        plan = case.plan._replace(
            name=f"s{len(plans)}", ulimits={n: min(v, 1 << 40) for n, v in case.plan.ulimits.items()}
        )
        document = yaml.safe_load(written("compose", Case(plan, case.values, case.command)).text)
        service = document["services"][plan.name]
        if document.get("networks"):
            networks[f"n{len(plans)}"] = document["networks"]["profile"]
            service["networks"] = [f"n{len(plans)}"]
        services[plan.name] = service
        plans.append(case)

    collect()
    (tmp_path / "docker-compose.yml").write_text(to_yaml({"services": services, "networks": networks}))
    environ = {name: value for case in plans for name, value in environment(case.plan).items()}
    done = subprocess.run(
        [compose, "config"], cwd=tmp_path, env={"PATH": os.environ["PATH"], **environ}, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parsed = expanded(yaml.safe_load(done.stdout), {})["services"]
    assert len(parsed) == len(plans) >= (20 if ALL else 10)
    for number, case in enumerate(plans):
        service = parsed[f"s{number}"]
        assert readable(service.get("command", [])) == readable(filled(case.plan))
        volumes = [path for item in service.get("volumes", []) for path in (item["source"], item["target"])]
        assert readable(volumes) == readable([path for m in case.plan.mounts for path in (m.source, m.destination)])


def plan_of(text: str = "", context: Context = AROUND, **options: Any) -> Plan:
    profile = parse(f'layout = "custom"\n{text}'.encode(), name="p", path="p.toml")
    renderer = Renderer(template(profile, name="p"), context, name="p", path="p.toml")
    return plan_container(renderer, **{"image": IMAGE, **options})


def manifest(plan: Plan) -> dict[str, Any]:
    """Return the Kubernetes manifest of a plan, which every supported version takes."""
    document: dict[str, Any] = yaml.safe_load(RENDERERS["kubernetes"](plan).text)
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)
    return document


def pod_of(plan: Plan) -> dict[str, Any]:
    pod: dict[str, Any] = manifest(plan)["spec"]["template"]["spec"]
    return pod


def mount(source: str, destination: str) -> str:
    return f"[[mounts]]\nsource = {json.dumps(source)}\ndestination = {json.dumps(destination)}\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (mount("/d/${env:NGC_KEY}", "/data"), {}, "contains the value of the secret 'NGC_KEY'"),
        (mount("/d\n", "/data"), {}, "a control character"),
        ('[docker]\nports = { "80-90" = 1 }\n', {}, "'80-90' is not a container port"),
        ('[docker]\nports = { "99999" = 1 }\n', {}, "'99999' is not a container port"),
        ("", {"image": "--privileged"}, "not the name of an image"),
        ("", {"image": "a b"}, "not the name of an image"),
    ],
)
def test_what_no_target_can_express_is_one_error(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CannotRenderError) as caught:
        plan_of(text, **options)
    assert message in str(caught.value)
    assert AROUND.environ["NGC_KEY"] not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "written"),
    [("/images/tao.sqsh", "/images/tao.sqsh"), ("tao.sqsh", "./tao.sqsh"), ("~/tao.sqsh", "/home/ana/tao.sqsh"),
     ("docker://nvcr.io/nvidia/tao:1", "docker://nvcr.io#nvidia/tao:1"), ("ubuntu:24.04", "ubuntu:24.04"),
     ("docker://nvcr.io#nvidia/tao:1", "docker://nvcr.io#nvidia/tao:1"), ("localhost:5000/a", "localhost:5000#a")],
)  # fmt: skip
def test_pyxis_takes_files_and_addresses(monkeypatch: pytest.MonkeyPatch, image: str, written: str) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    argv = shell(RENDERERS["slurm"](plan_of(image=image)).text, "srun", {})
    assert f"--container-image={written}" in argv


def test_a_pod_logs_in_to_nvidias_registry() -> None:
    assert pod_of(plan_of())["imagePullSecrets"] == [{"name": "nvcr-io"}]
    assert "kubectl create secret generic nvcr-io " in RENDERERS["kubernetes"](plan_of()).warnings[-1]
    other = RENDERERS["kubernetes"](plan_of(image="lab:5000/tao:1"))
    assert "imagePullSecrets" not in other.text
    assert not any("nvcr" in line for line in other.warnings)


def test_claims_replace_the_nodes_folders() -> None:
    settings = (
        '[kubernetes]\nnamespace = "vision"\npull_secret = "ngc.login"\n[kubernetes.claims]\n'
        '"/data" = "tao-data"\n"/results" = "tao.all/results/r 1"\n"/specs" = "tao.all/specs"\n'
    )
    mounts = "".join(mount(f"/h{path}", path) for path in ("/data", "/results", "/specs", "/models"))
    document = manifest(plan_of(mounts + settings))
    assert document["metadata"]["namespace"] == "vision"
    pod = document["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "ngc.login"}]
    volumes = {item.pop("name"): item for item in pod["volumes"]}
    assert len(volumes) == 3, "a claim is one volume, however many of its folders are mounted"
    mounted = {
        item["mountPath"]: (volumes[item["name"]], item.get("subPath")) for item in pod["containers"][0]["volumeMounts"]
    }
    assert mounted == {
        "/data": ({"persistentVolumeClaim": {"claimName": "tao-data"}}, None),
        "/results": ({"persistentVolumeClaim": {"claimName": "tao.all"}}, "results/r 1"),
        "/specs": ({"persistentVolumeClaim": {"claimName": "tao.all"}}, "specs"),
        "/models": ({"hostPath": {"path": "/h/models", "type": "Directory"}}, None),
    }
    with pytest.raises(CannotRenderError, match=r"kubernetes\.claims: no mount is on '/dat'"):
        RENDERERS["kubernetes"](plan_of(mounts + '[kubernetes.claims]\n"/dat" = "tao-data"\n'))


@pytest.mark.parametrize(
    "text",
    ['slurm.partition = "a b"', 'slurm.options = ["--mem=1G\\n#SBATCH --wrap=x"]', 'slurm.options = ["true"]',
     'kubernetes.namespace = "A"', 'kubernetes.claims."/data" = "A/b"'],
)  # fmt: skip
def test_settings_of_a_cluster_are_checked(text: str) -> None:
    with pytest.raises(InvalidProfileError):
        plan_of(text)


def test_the_script_has_the_settings_of_the_profile() -> None:
    settings = '[slurm]\npartition = "a100"\naccount = "vision"\ntime = "1-12:00:00"\noptions = ["--mem=64G", "-c8"]\n'
    rendered = RENDERERS["slurm"](plan_of(settings, image="/images/tao.sqsh", gpus=2))
    assert rendered.text.splitlines()[:9] == [
        "#!/bin/bash", "#SBATCH --job-name=taoprof-p", "#SBATCH --partition=a100", "#SBATCH --account=vision",
        "#SBATCH --time=1-12:00:00", "#SBATCH --gpus-per-node=2", "#SBATCH --mem=64G", "#SBATCH -c8", "",
    ]  # fmt: skip
    assert not any("pulled" in line for line in rendered.warnings)
    pulled = RENDERERS["slurm"](plan_of(image="nvcr.io/nvidia/tao:1"))
    assert any("enroot import -o tao.sqsh 'docker://nvcr.io#nvidia/tao:1'" in line for line in pulled.warnings)


@pytest.mark.parametrize("path", ["/a,b", "/a b", "/a\\b", "/a$b"])
def test_pyxis_takes_no_separators(path: str) -> None:
    path = path.replace("$", "$$")
    for source, destination in ((path, "/x"), ("/x", path)):
        plan = plan_of(mount(source, destination))
        with pytest.raises(CannotRenderError, match="--container-mounts does not support"):
            RENDERERS["slurm"](plan)
        assert all(RENDERERS[target](plan).text for target in set(TARGETS) - {"slurm", "edf"})


def test_a_path_named_like_a_secret_is_not_masked() -> None:
    plan = plan_of('[variables]\nKEYS_DIR = "/keys"\n' + mount("${KEYS_DIR}", "/data"))
    assert plan.mounts[0].source == "/keys"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["t", "-k", "abcdef"], ["t", "-k", ("KEY",)]),
        (["t", "-k", "$OTHER"], ["t", "-k", ("OTHER",)]),
        (["t", "--api-token", "abcdef"], ["t", "--api-token", ("API_TOKEN",)]),
        (["t", "export.key=abc"], ["t", ("export.key=", "KEY")]),
        (["t", "x.encryption_key=$KEY"], ["t", ("x.encryption_key=", "KEY")]),
        (["t", "/data/tlt_encode/x"], ["t", ("/data/", "KEY", "/x")]),
        (["t", "$NGC", "$$", "${DATA_DIR}/x"], ["t", "$NGC", "$$", "/data/x"]),
    ],
)
def test_secrets_in_the_command_become_references(command: list[str], words: list[Any]) -> None:
    plan = plan_of('[variables]\nKEY = "tlt_encode"\nDATA_DIR = "/data"\n', command=command)
    assert [
        w[0] if len(w) == 1 and isinstance(w[0], str) else tuple(getattr(p, "name", p) for p in w) for w in plan.command
    ] == words
    for target in TARGETS:
        rendered = RENDERERS[target](plan)
        assert "tlt_encode" not in rendered.text
        assert "abcdef" not in rendered.text


@pytest.mark.parametrize("program", ["bash", "zsh"])
def test_the_secret_of_a_job_is_in_no_word_of_kubectl(tmp_path: Path, program: str) -> None:
    value = 'it\'s "one" of $HOME\nand more\n'
    rendered = RENDERERS["kubernetes"](plan_of('[container.env]\nA_KEY = "tlt_encode"\nB_KEY = "tlt_encode_too"\n'))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        '#!/bin/sh\nprintf "<%s>" "$@"\nfor w; do case $w in --from-file=*) cat "${w##*=}";; esac; done\n'
    )
    kubectl.chmod(0o755)
    around = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LANG": "C.UTF-8"}
    line = [find_command(program), "-c", rendered.store]
    done = subprocess.run(line, env={**around, "A_KEY": value, "B_KEY": "b"}, capture_output=True, text=True)
    words, _, files = done.stdout.rpartition(">")
    assert files == f"{value}b"
    assert words.startswith("<create><secret><generic><taoprof-p><--from-file=A_KEY=/")
    assert value not in words
    done = subprocess.run(line, env={**around, "A_KEY": value}, capture_output=True, text=True)
    assert (done.returncode != 0, done.stdout, "B_KEY" in done.stderr) == (True, "", True), "no Secret without a value"


def test_gpus_by_name_make_the_profiles_own_choice_meaningless() -> None:
    text = '[container.env]\nCUDA_VISIBLE_DEVICES = "3"\n'
    assert "CUDA_VISIBLE_DEVICES" in plan_of(text).env
    plan = plan_of(text, gpus=["3"])
    assert (plan.env, len(plan.warnings)) == ({}, 1)
    assert "--gpus device=3" in RENDERERS["docker"](plan).text
    assert """--gpus '"device=1,3"'""" in RENDERERS["docker"](plan_of(text, gpus=["1", "3"])).text


def test_kubernetes_has_numbers_for_users_gpus_and_sizes() -> None:
    docker = '[docker]\nuser = "auto"\nshm_size = "16G"\nprivileged = true\nports = { "53/udp" = [1, 2] }\n'
    pod = pod_of(plan_of(docker, gpus=2))
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    assert container["securityContext"] == {"runAsUser": 1000, "runAsGroup": 1001, "privileged": True}
    assert {"containerPort": 53, "protocol": "UDP", "hostPort": 2} in container["ports"]
    (shm,) = pod["volumes"]
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}


def test_ports_on_the_hosts_network_are_left_out_with_a_warning() -> None:
    plan = plan_of('[docker]\nnetwork = "host"\nports = { "8888" = 8888 }\n')
    assert plan.ports == []
    for target in TARGETS:
        assert any("docker.ports" in line for line in RENDERERS[target](plan).warnings), target


@pytest.mark.parametrize(
    "text", ["0o17", "1e3", "yes", "1_000", "12:30", "~", "null", ".5", "- a", "a: b", "#x", "\u2028", "\x85"]
)
def test_a_value_stays_text_for_every_reader_of_yaml(text: str) -> None:
    plan = plan_of(f"[container.env]\nA = {json.dumps(text)}\n")
    rendered = RENDERERS["compose"](plan).text
    assert yaml.safe_load(rendered)["services"]["p"]["environment"]["A"] == text
    (line,) = [line for line in rendered.splitlines() if line.strip().startswith("A:")]
    assert line.strip()[3] == '"'


def test_a_container_of_the_caller_has_the_callers_groups_and_a_name() -> None:
    """Only the caller's own: a profile that says root, or another user, asks for no more."""
    context = fixed_context({})
    context.groups = [7, 8]
    groups = {"auto": ["7", "8"], "1000:1001": ["7", "8"], "1000": [], "root": [], "4:4": []}
    for user, wanted in groups.items():
        plan = plan_of(f'[docker]\nuser = "{user}"\n', context)
        argv = shell(RENDERERS["docker"](plan).text, "docker", {})
        assert [argv[n + 1] for n, word in enumerate(argv) if word == "--group-add"] == wanted
        service = yaml.safe_load(RENDERERS["compose"](plan).text)["services"]["p"]
        assert service.get("group_add", []) == wanted
        groups_of_pod = pod_of(plan).get("securityContext", {}).get("supplementalGroups", [])
        assert groups_of_pod == list(map(int, wanted))
        name = {"USER": "tao", "LOGNAME": "tao"}
        assert plan.env == {"root": {}, "4:4": {**name, "HOME": "/tmp"}}.get(user, name), "1000 has a home"


def test_a_mount_that_hides_files_of_the_image_is_named() -> None:
    (warning,) = plan_of(mount("/p", "/workspace/") + mount("/q", "/workspace/tao")).warnings
    assert "'/workspace' of TAO's images has files of NVIDIA, and this mount hides them" in warning
