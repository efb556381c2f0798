"""By finding id, and a note after ": ": a set-up that has it, and one of the same kind that is sound.

A set-up is a function that prepares a home and gives the words of ``taoprof check``; one that gives a tuple of findings
has asked a judge itself, for what a test cannot have (a disk of Windows, a network's file system).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any, TypeAlias

from taoprofiles.rules import container, start
from taoprofiles.rules.finding import Finding, in_profile
from taoprofiles.system.filesystem import PathInfo
from tests.support.home import Home, OtherUser

SetUp: TypeAlias = Callable[[Home], "list[str] | tuple[Finding, ...]"]

GOOD_DOCKER = 'user = "auto"\nshm_size = "1G"\n'


def set_up(prepare: Callable[..., list[str] | tuple[Finding, ...]]) -> Callable[..., SetUp]:
    """Make a function that prepares a home, its first argument, one that takes the other arguments first."""
    return lambda *arguments, **options: lambda home: prepare(home, *arguments, **options)


@set_up
def file(home: Home, text: str | dict[str, Any]) -> list[str]:
    """A mounts file as some notebook left it."""
    content = text if isinstance(text, str) else json.dumps(text, indent=1)
    home.mapping_file.write_text(content.replace("HOME", str(home.root)))
    return []


def mount(source: str, destination: str = "/data", **more: Any) -> SetUp:
    """A mounts file with one mount."""
    return file({"Mounts": [{"source": source, "destination": destination, **more}]})


def option(**options: Any) -> SetUp:
    """A mounts file with these DockerOptions."""
    return file({"Mounts": [], "DockerOptions": options})


def env(name: str, value: Any) -> SetUp:
    """A mounts file with one variable."""
    return file({"Mounts": [], "Envs": [{"variable": name, "value": value}]})


@set_up
def profile(home: Home, docker: str = GOOD_DOCKER, *, env: str = "", variables: str = "", more: str = "") -> list[str]:
    """A profile of the parts of its file."""
    text = f'layout = "custom"\n{more}\n[variables]\n{variables}\n[container.env]\nHOME = "/tmp"\n{env}\n'
    home.profile("p", f"{text}[docker]\n{docker}\n".replace("HOMEDIR", str(home.root)))
    return ["p"]


@set_up
def two(home: Home, first: tuple[str, str], second: tuple[str, str]) -> list[str]:
    """A mounts file with two mounts, whose folders are there."""
    for source, _ in (first, second):
        (home.root / source).mkdir(parents=True, exist_ok=True)
    listed = [{"source": str(home.root / source), "destination": place} for source, place in (first, second)]
    home.mapping_file.write_text(json.dumps({"Mounts": listed}))
    return []


@set_up
def with_folder(home: Home, name: str, then: SetUp) -> list[str] | tuple[Finding, ...]:
    """Make a folder first."""
    (home.root / name).mkdir(parents=True, exist_ok=True)
    return then(home)


@set_up
def with_environ(home: Home, then: SetUp, **more: str) -> list[str] | tuple[Finding, ...]:
    """Set these in the environment."""
    home.environ |= {name: value.replace("HOMEDIR", str(home.root)) for name, value in more.items()}
    return then(home)


@set_up
def port(home: Home, *, is_taken: bool) -> tuple[Finding, ...]:
    """Publish on a port that somebody has, or has had."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        options, known = {"ports": {"8888": number}, "shm_size": "1G"}, {number} if is_taken else set()
        return tuple(start.check_options(options, in_profile({}), memory=0, used_ports=known))


@set_up
def linked_destination(home: Home, name: str) -> list[str] | tuple[Finding, ...]:
    """A destination on this host: ``link`` is a symlink, ``elsewhere`` is not."""
    (home.root / "elsewhere").mkdir()
    (home.root / "link").symlink_to("elsewhere")
    return mount("HOME", f"{home.root}/{name}")(home)


@set_up
def nested(home: Home, *inside: str) -> list[str] | tuple[Finding, ...]:
    """A mount inside of another's place, where that has these folders and files."""
    for name in inside:
        (home.root / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (home.root / "project" / name).touch() if "." in name else (home.root / "project" / name).mkdir()
    return two(("project", "/workspace"), ("specs", "/workspace/specs"))(home)


class ForeignPath(PathInfo):
    """A folder of this host that belongs to somebody else, as the rules see it."""

    def __init__(self, path: str, uid: int, mode: int) -> None:
        super().__init__(path)
        self.real, self.uid, self.gid, self.mode, self.problem = path, uid, uid, mode, ""


def source(
    kind: str = "ext4",
    *,
    uid: int = 1000,
    mode: int = 0o755,
    path: str = "/home/ana/data",
    ids: Any = (1000, 1000),
    snap: bool = False,
) -> SetUp:
    """A source on a file system of that kind, and of that owner."""
    folder = ForeignPath(path, uid, mode)

    def prepare(home: Home) -> tuple[Finding, ...]:
        in_snap = start.check_snap("here", folder, "/home/ana") if snap else ()
        return (*start.check_source("here", folder, kind, ids, None), *in_snap)

    return prepare


def results(uid: int) -> SetUp:
    """Results that go into a folder of that owner."""
    return lambda home: tuple(start.check_results("/r/x", ForeignPath("/r", uid, 0o755), (1000, 1000)))


def owned(count: int) -> SetUp:
    """So many files of somebody else in the results."""
    return lambda home: tuple(start.check_owners("/r", (count, "/r/model.tlt", True), (1000, 1000)))


@set_up
def as_user(home: Home, options: dict[str, str], uid: int = 1000) -> tuple[Finding, ...]:
    """Those DockerOptions as user 1000 has them, whoever runs the tests."""
    context = OtherUser(home.environ)
    context.uid = context.gid = uid
    return tuple(container.check_user(options, (), in_profile({}), context))


@set_up
def mode(home: Home, bits: int) -> list[str]:
    """A mounts file with a secret, and these rights."""
    env("WANDB_API_KEY", "0123456789")(home)
    home.mapping_file.chmod(bits)
    return []


EMPTY = file({"Mounts": []})


def logged_in(home: Home) -> list[str] | tuple[Finding, ...]:
    """An empty mounts file, and a login to the registry as the launcher looks for it."""
    (home.root / ".docker").mkdir()
    (home.root / ".docker/config.json").write_text('{"auths": {"nvcr.io": {}}}')
    return EMPTY(home)


@set_up
def with_command(home: Home, *words: str, spec: bytes = b"") -> list[str]:
    """A mounts file that has a folder ``specs`` on /specs, and a command; ROOT stands for the home."""
    logged_in(home)
    (home.root / "specs").mkdir()
    (home.root / "specs/t.yaml").write_text("")
    (home.root / "specs/s.yaml").write_bytes(spec.replace(b"ROOT", os.fsencode(home.root)))
    mounts = [{"source": str(home.root / "specs"), "destination": "/specs"}]
    home.mapping_file.write_text(json.dumps({"Mounts": mounts}))
    home.environ["SPECS_DIR"] = "/specs"
    return ["--", "tao", "model", "dino", "train", *(word.replace("ROOT", str(home.root)) for word in words)]


CASES: dict[str, tuple[SetUp, SetUp]] = {
    "json-parse": (file('{"Mounts": [],}'), EMPTY),
    "json-dup-key": (file('{"Mounts": [], "Mounts": []}'), EMPTY),
    "file-shape: a key": (file({"mounts": [], "Mounts": []}), EMPTY),
    "file-shape: no Mounts": (file("{}"), EMPTY),
    "file-shape: a mount": (file({"Mounts": [{"source": "HOME"}]}), mount("HOME")),
    "file-shape: a variable": (file({"Mounts": [], "Envs": [{"variable": "A"}]}), env("A", "b")),
    "opts-shape: null": (file({"Mounts": [], "DockerOptions": None}), option()),
    "opts-shape: a list": (file({"Mounts": [], "DockerOptions": []}), option()),
    "opt-unknown-for-version": (option(ipc_mode="host"), option(network="host")),
    "command-not-found": (
        lambda home: [*profile()(home), "--", "no-such-program"], lambda home: [*profile()(home), "--", "sh"]),
    "key-ignored": (mount("HOME", mode="ro"), mount("HOME")),
    "no-mapping-file": (lambda home: [], EMPTY),
    "file-mode": (mode(0o644), mode(0o600)),
    "profile-invalid": (profile(more="colour = 1"), profile()),
    "lm-bad-path": (with_environ(EMPTY, LAUNCHER_MOUNTS="$HOME/m.json"),
                    with_environ(EMPTY, LAUNCHER_MOUNTS="HOMEDIR/.tao_mounts.json")),
    "src-missing": (mount("HOME/nowhere"), mount("HOME")),
    "placeholder: a source": (mount("/path/to/local/tao-experiments"), with_folder("FIXME", mount("HOME/FIXME"))),
    "src-missing: a variable": (mount("$HOM/data"), with_folder("$x", mount("HOME/$x"))),
    "src-relative": (mount("."), mount("HOME")),
    "src-missing: Windows": (mount("C:\\Users\\ana"), mount("HOME")),
    "src-colon": (with_folder("a:b", mount("HOME/a:b")), with_folder("ab", mount("HOME/ab"))),
    "src-duplicate": (two(("a", "/a"), ("a/../a/", "/b")), two(("a", "/a"), ("b", "/b"))),
    "src-missing: a long name": (mount("HOME/" + "x" * 300), mount("HOME")),
    "src-of-another-user": (source(uid=1001, mode=0o700), source(uid=1001)),
    "dst-symlinked-on-host": (linked_destination("link"), linked_destination("elsewhere")),
    "dst-relative": (mount("HOME", "data"), mount("HOME", "/data")),
    "dst-relative: the root": (mount("HOME", "/"), mount("HOME", "/data")),
    "dst-hides-image": (mount("HOME", "/workspace"), mount("HOME", "/workspace/data")),
    "dst-duplicate": (two(("a", "/a"), ("b", "/a/")), two(("a", "/a"), ("b", "/b"))),
    "dst-shadow": (nested("specs/train.yaml"), nested("specs")),
    "dst-makes-folder": (nested(), nested("specs")),
    "results-not-writable-as-user": (results(0), results(1000)),
    "foreign-owned-files": (owned(3), owned(0)),
    "slow-file-system": (source("9p"), source("ext4")),
    "nfs-root-squash": (source("nfs4", ids=(0, 0)), source("nfs4")),
    "fuse-mount": (source("fuse.sshfs"), source("ext4")),
    "snap-docker": (source(path="/mnt/raid", snap=True), source(path="/home/ana/data", snap=True)),
    "user-not-me: none": (as_user({}), as_user({"user": "1000:1000"})),
    "user-not-me": (as_user({"user": "1000:1000"}, uid=1001), as_user({"user": "1001"}, uid=1001)),
    "user-literal": (option(user="UID:GID"), option(user="1000:1000")),
    "user-without-name": (option(user="1001:1000"), option(user="1000:1000")),
    "user-without-name: root": (option(user="1001"), option(user="0:1000")),
    "user-without-name: a variable": (
        option(user="1001"),
        file({"Mounts": [], "Envs": [{"variable": "USER", "value": "tao"}], "DockerOptions": {"user": "1001"}}),
    ),
    "user-without-home": (option(user="1000:1000"), option(user="root")),
    "shm-too-small: none": (option(), option(shm_size="1G")),
    "shm-too-small": (option(shm_size=16), option(shm_size="1G")),
    "shm-over-memory": (option(shm_size="9999G"), option(shm_size="1G")),
    "shm-unit": (option(shm_size="16GiB"), option(shm_size="16 G")),
    "opts-shape: a limit": (option(ulimits={"memlock": "-1"}), option(ulimits={"memlock": -1})),
    "port-in-use": (port(is_taken=True), port(is_taken=False)),
    "opts-shape: ports": (option(ports=[8888]), option(ports={})),
    "ports-without-network": (option(network="host", ports={"1": 2}), option(network="bridge", ports={"1": 2})),
    "env-null": (env("CUDA_VISIBLE_DEVICES", None), env("CUDA_VISIBLE_DEVICES", "0")),
    "env-not-text": (env("OMP_NUM_THREADS", 1), env("OMP_NUM_THREADS", "1")),
    "env-twice": (file({"Mounts": [], "Envs": [{"variable": "A", "value": v} for v in "ab"]}), env("A", "b")),
    "env-secret-plain": (profile(env='MY_TOKEN = "abc"'),
                         with_environ(profile(env='MY_TOKEN = "${env:MY_TOKEN}"'), MY_TOKEN="abc")),
    "variables-differ": (with_environ(profile(variables='KEY = "a"'), KEY="b"), with_environ(
        profile(variables='KEY = "a"'), KEY="a")),
    "placeholder: a variable": (profile(variables='LOCAL_PROJECT_DIR = "FIXME"'), profile(variables='A = "/data"')),
    "variable-value": (profile(variables='NUM_GPUS = "two"'), profile(variables='NUM_GPUS = "2"')),
    "variable-value: empty": (profile(variables='MODEL = ""'), profile(variables='MODEL = "x"')),
    "ci-project-dir-set": (with_environ(option(user="1000:1000"), CI_PROJECT_DIR="/b"), option(user="1000:1000")),
    "login-missing": (lambda home: [*EMPTY(home), "--", "tao", "model", "dino", "train"], EMPTY),
    "volume-argument: one word": (
        lambda home: [*logged_in(home), "--", "tao", "model", "dino", "train", f"--volume={home.root}:/x"], EMPTY),
    "volume-argument: no source": (
        lambda home: [*logged_in(home), "--", "tao", "model", "dino", "train", "--volume", f"{home.root}/no:/x"],
        lambda home: [*logged_in(home), "--", "tao", "model", "dino", "train", "--volume", f"{home.root}:/x"]),
    "launcher-refuses": (option(network=["host"]), option(network="host")),
    **{
        name: (with_command(*wrong), with_command(*sound))
        for name, wrong, sound in (
            ("host-path", ["-e", "ROOT/specs/t.yaml"], ["-e", "/specs/t.yaml"]),
            ("unmapped-path", ["-r", "/workspace/results"], ["-r", "/specs/results"]),
            ("missing-file", ["-e", "/specs/u.yaml"], ["-e", "/specs/t.yaml"]),
            ("arg-empty-variable", ["-e", "/t.yaml"], ["-e", "$SPECS_DIR/t.yaml"]),
            ("arg-needs-quoting", ["x=(1,2)"], ['"x=(1,2)"']),
        )
    },
    **{
        name: (with_command("-e", "/specs/s.yaml", spec=wrong), with_command("-e", "/specs/s.yaml", spec=sound))
        for name, wrong, sound in (
            ("spec-syntax", b"a: [", b"a: []"),
            ("spec-unreadable", b"a: \xff", "a: \u00e4".encode()),
            ("placeholder: a spec", b"a: ???", b"a: /usr/x???"),
        )
    },
}  # fmt: skip
