"""What the cases are made of: a home that is there on disk, and good and odd values for every part of a start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from taoprofiles.launcher.versions import behaviour_of

FILES = {"tao": "home/.tao_mounts.json", "tlt": "home/.tlt_mounts.json", "other": "home/other.json",
         "here": "cwd/other.json"}  # fmt: skip


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written: a key may come twice."""


class Case(NamedTuple):
    """``files`` by what FILES calls them; ``{root}`` in any text is the folder that all is in.

    ``login`` is the content of ``~/.docker/config.json``, ``override`` of ``~/.tao/config.json``;
    ``words`` begin with the group.
    """

    files: dict[str, bytes]
    login: bytes | None
    override: bytes | None
    environ: dict[str, str]
    words: tuple[str, ...]
    rest: tuple[str, ...]

    def arguments(self, version: str, root: Path) -> list[str]:
        """Return the command line; launchers before 5.0.0 know no groups."""
        grouped = behaviour_of(version).task_groups
        plain = self.words[1:] if len(self.words) == 2 and not grouped else self.words
        return [word.replace("{root}", str(root)) for word in (*plain, *self.rest)]

    def environ_in(self, root: Path) -> dict[str, str]:
        """Return the environment."""
        return {name: value.replace("{root}", str(root)) for name, value in self.environ.items()}

    def lay_out(self, root: Path) -> None:
        """Put the files of this case in place of those of the last."""
        places = {path: self.files.get(name) for name, path in FILES.items()}
        places["home/.docker/config.json"] = self.login
        places["home/.tao/config.json"] = places["home/.tlt/config.json"] = self.override
        for path, content in places.items():
            if content is None:
                (root / path).unlink(missing_ok=True)
            else:
                (root / path).write_bytes(content.replace(b"{root}", str(root).encode()))


def make_tree(root: Path) -> None:
    """Make what all cases share: folders, links, a loop."""
    for folder in ("home/.docker", "home/.tao", "home/.tlt", "home/data", "home/with blank", "home/dätä", "home/a:b",
                   "cwd/sub/data", "cwd/~/x", "disk/data", "empty"):  # fmt: skip
        (root / folder).mkdir(parents=True)
    for link, target in (("home/link", "data"), ("linked", "disk"), ("cwd/up", ".."), ("loop", "loop"),
                         ("broken", "nowhere"), ("home/results", "../disk/data")):  # fmt: skip
        (root / link).symlink_to(target)


def text(value: Any) -> str:
    """Write JSON, objects as ``Pairs`` or dicts."""
    if isinstance(value, (Pairs, dict)):
        pairs = value.items() if isinstance(value, dict) else value
        return "{" + ", ".join(f"{json.dumps(key)}: {text(inner)}" for key, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(text(inner) for inner in value) + "]"
    return json.dumps(value)


DAMAGE = ("cut", "bom", "comma", "latin", "crlf", "crlf and more", "utf-8", "comment", "empty", "utf-16", "twice",
          "NaN", "digits", "deep")  # fmt: skip


def damaged(whole: str, how: str, at: int = 20) -> bytes:
    """Write a mounts file in a way that an editor, or a person, would; ``at`` is where it is cut."""
    if how == "cut":
        whole = whole[: at % (len(whole) + 1)]
    elif how == "comma":
        whole = whole.replace("]", ",]", 1)
    elif how == "comment":
        whole = "// mine\n" + whole
    elif how.startswith("crlf"):
        whole = whole.replace(", ", ",\r\n").replace("{", "\r{", 1) + ("\r\n]" if "more" in how else "")
    elif how == "NaN":
        whole = whole.replace('"value": "0"', '"value": NaN')
    elif how == "digits":
        whole = whole.replace('"value": "0"', f'"value": {"9" * 5000}')
    elif how == "deep":
        whole = "[" * 100_000 + whole
    elif how == "twice":
        whole += whole
    elif how in ("utf-8", "latin"):
        whole = json.dumps(json.loads(whole), ensure_ascii=False).replace("\ud800", "é")
    codec = {"bom": "utf-8-sig", "latin": "latin-1", "utf-16": "utf-16"}.get(how, "utf-8")
    return b"" if how == "empty" else whole.encode(codec, "replace")


WRONG = [None, True, False, 0, 5, -1, 1.5, 0.0, "", "x", [], ["x"], {}, {"a": 1}, 1e400, "\0", "\ud800"]
WRONG_TYPES = [None, 5, "", {"a": 1}]
SOURCES = [
    "{root}/home/data", "{root}/disk/data", "{root}/cwd/sub", "{root}/empty", "{root}/home/data/", "{root}/home/link",
    "{root}/linked/data", "{root}/home/results", "{root}/home/with blank", "{root}/home/dätä", "~/data", "~",
    "~/link/../data", "sub", "./sub/data", "up/home/data", "/", "/tmp",
]  # fmt: skip
ODD_SOURCES = [
    "{root}/nowhere", "{root}/loop", "{root}/broken", "$HOME/data", "~nobody-of-that-name/x", "C:\\data", "",
    "{root}/home/a:b", "~root", "FIXME", " {root}/home/data", "{root}//home/./data", "//tmp", "~/x\n",
]  # fmt: skip
DESTINATIONS = [
    "/data", "/specs", "/results", "/workspace/tao-experiments", "/workspace/tao-experiments/data", "/data/", "/dätä",
    "/a b", "{root}/linked/x", "{root}/home/link",
]  # fmt: skip
ODD_DESTINATIONS = ["data", "~/x", "~", "", "/data/../x", "//data", "/", "{root}/loop/x", "/a:b", "$D", "up/x"]
NAMES = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WANDB_API_KEY", "A=B", "É"]
VALUES = ["0", "a b", "", "PCI_BUS_ID", "$HOME", "'", "é", "x=y"]
SIZES = ["16G", "16GB", "16 G", "64m", "1.5g", "1024", "100kb", "2k", "12b", 1 << 30, 16]
ODD_SIZES = [*"16GiB G b bb 1T 0x10 -1g 1e3 nang infg 5² 1_0k \u212a 1ib 7Kb".split(), ""]
LIMITS = [-1, 67108864, 1024, 0]
LIMIT_NAMES = ["memlock", "stack", "nofile", ""]
PORTS = ["8888", "6006/tcp", "53/udp", "x", "", "1/2/3"]
HOST_PORTS = [8888, "8888", None, [8888, 8889]]
ODD_HOST_PORTS = [{"HostPort": 1}, {"HostPort": "1", "HostIp": "::"}, {"HostIp": "::"}, [None, {}]]
USERS = ["1000:1000", "0", "root", "UID:GID", 1000]
NETWORKS = ["host", "bridge", "none"]


def _table(form: float) -> bytes:
    about = {"docker_registry": "own.local", "tasks": ["unet", "mine"]}
    dockers: Any = {"a/b": {"1": about, "2": {**about, "tasks": ["unet"], "docker_registry": "second.local"}}}
    if form == 1.0:
        dockers = {"a/b": {**about, "docker_tag": "1"}, "c": {**about, "tasks": ["unet"], "docker_tag": "3"}}
    tasks = {"task_group": {"model": {"dockers": dockers}}} if form == 3.0 else {"dockers": dockers}
    return json.dumps({"format_version": form, **tasks}).encode()


TABLES = [_table(1.0), _table(2.0), _table(3.0), _table(4.0), b"{}", b"{", b'{"a": 1}', b"[]"]
LOGGED_IN = b'{"auths": {"nvcr.io": {}}}'
LOGINS = [
    None,
    b"{}",
    b'{"auths": {}}',
    b'{"auths": {"reg.local": {}}}',
    b"",
    b"{",
    b"[]",
    b'"auths"',
    b'{"auths": [1]}',
    b'{"auths": {"nvcr.io": {}}, "credHelpers": {"nvcr.io": "x"}}',
    b'{"auths": {"nvcr.io": {"auth": "eDp5"}}}',
]
TASKS = [("model", "unet"), ("model", "detectnet_v2"), ("model", "ssd")]
ODD_TASKS: list[tuple[str, ...]] = [
    ("model", "nosuch"), ("nosuch", "unet"), ("model", "mine"), ("container_actions", "unet"), ("deploy", "unet"),
    ("dataset", "annotations"), ("list",), ("info",), ("--help",), (), ("model", "--help"),
    ("--nosuch", "model", "unet", "train"), ("--nosuch", "unet", "train"), ("--gpus", "1", "model"), ("--nosuch",),
    ("model", "--nosuch"), ("model", "--nosuch", "unet"), ("--nosuch", "-h", "unet"), ("--nosuch", "unet", "--he"),
    ("--nosuch", "model"), ("model",), ("unet", "-x", "-"), ("--nosuch", "list"),
]  # fmt: skip
VOLUMES = [
    "{root}/home/data:/data", "{root}/disk/data:/results", "{root}/nowhere:/x", "a:b", "{root}/home/link:/specs:ro",
    "~/x:/y", "C:\\x:/y", "a", "", ":", "{root}/empty:{root}/linked/x", "sub:/z:rw", "a:b:c:d",
]  # fmt: skip
WORDS = ["train", "-e", "/specs/t.yaml", "run", "a b", "$HOME", "'", '"', "*", "(x)", "é", "\udcff", "", "-r", "--all"]
HOMES = ["{root}/home/", "{root}/empty", "", "../home"]
ENVIRON = {
    "LAUNCHER_MOUNTS": [
        "{root}/home/other.json", "~/other.json", "other.json", "./other.json", "up/home/other.json", "",
        "{root}/home/other.json ", "$HOME/other.json", "{root}/home", "/nowhere.json", "~", "{root}/loop", "é",
        "~nobody-of-that-name/other.json",
    ],
    "CI_PROJECT_DIR": ["/builds/x", ""],
    "OVERRIDE_REGISTRY": ["reg.local", "", "nvcr.io", "1"],
    "TAO_DOCKER_DISABLE": ["0", "1", "2", ""],
    "DOCKER_CONFIG": ["{root}/empty", ""],
    "DOCKER_HOST": ["tcp://127.0.0.1:1", ""],
}  # fmt: skip
