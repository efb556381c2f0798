"""Mounts files, environments and command lines, good and odd, for a home that is there on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from taoprofiles.launcher.versions import behaviour

ABSENT = "<absent>"
FILES = {"tao": "home/.tao_mounts.json", "tlt": "home/.tlt_mounts.json", "other": "home/other.json",
         "here": "cwd/other.json"}  # fmt: skip


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written: a key may come twice."""


class Case(NamedTuple):
    """``files`` by what FILES calls them; ``{root}`` in any text is the folder that all is in."""

    files: dict[str, bytes]
    login: bytes | None
    override: bytes | None
    environ: dict[str, str]
    words: tuple[str, ...]
    rest: tuple[str, ...]

    def arguments(self, version: str, root: Path) -> list[str]:
        """Give the command line; ``words`` have the group that launchers before 5.0.0 do not know."""
        grouped = behaviour(version).task_groups
        plain = self.words[1:] if len(self.words) == 2 and not grouped else self.words
        return [word.replace("{root}", str(root)) for word in (*plain, *self.rest)]

    def environ_in(self, root: Path) -> dict[str, str]:
        """Give the environment."""
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
                   "cwd/sub/data", "cwd/~/x", "disk/data", "empty", "docker"):  # fmt: skip
        (root / folder).mkdir(parents=True)
    for link, target in (("home/link", "data"), ("linked", "disk"), ("cwd/up", ".."), ("loop", "loop"),
                         ("broken", "nowhere"), ("home/results", "../disk/data")):  # fmt: skip
        (root / link).symlink_to(target)
    (root / "docker/config.json").write_text('{"auths": {}, "proxies": {"default": {"httpsProxy": "http://d:1"}}}')


def text(value: Any) -> str:
    """Write JSON, objects as ``Pairs`` or dicts."""
    if isinstance(value, (Pairs, dict)):
        pairs = value.items() if isinstance(value, dict) else value
        return "{" + ", ".join(f"{json.dumps(key)}: {text(inner)}" for key, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(text(inner) for inner in value) + "]"
    return json.dumps(value)


def _mostly(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any], share: int = 12) -> st.SearchStrategy[Any]:
    return st.integers(0, share).flatmap(lambda roll: odd if roll == share else good)


WRONG = st.sampled_from([None, True, False, 0, 5, -1, 1.5, "", "x", [], ["x"], {}, {"a": 1}, 1e400, "\0", "\ud800"])
SOURCE = st.sampled_from([
    "{root}/home/data", "{root}/home/data", "{root}/disk/data", "{root}/cwd/sub", "{root}/empty", "{root}/home/data/",
    "{root}/home/link", "{root}/linked/data", "{root}/home/results", "{root}/home/with blank", "{root}/home/dätä",
    "~/data", "~", "~/link/../data", "sub", "./sub/data", "up/home/data", "/", "/tmp",
])  # fmt: skip
ODD_SOURCE = _mostly(
    st.sampled_from([
        "{root}/nowhere", "{root}/loop", "{root}/broken", "$HOME/data", "~nobody-of-that-name/x", "C:\\data", "",
        "{root}/home/a:b", "~root", "FIXME", " {root}/home/data", "{root}//home/./data", "//tmp", "~/x\n",
    ]), WRONG, 3,
)  # fmt: skip
DESTINATION = st.sampled_from([
    "/data", "/data", "/specs", "/results", "/workspace/tao-experiments", "/workspace/tao-experiments/data", "/data/",
    "{root}/linked/x", "{root}/home/link", "/dätä", "/a b",
])  # fmt: skip
ODD_DESTINATION = _mostly(
    st.sampled_from(["data", "~/x", "~", "", "/data/../x", "//data", "/", "{root}/loop/x", "/a:b", "$D", "up/x"]),
    WRONG, 3,
)  # fmt: skip


@st.composite
def _entry(draw: st.DrawFn, first: str, firsts: Any, second: str, seconds: Any) -> Any:
    pairs = Pairs([(first, draw(firsts)), (second, draw(seconds))])
    extra = draw(_mostly(st.just(ABSENT), st.sampled_from(["mode", "ro", "comment", first, second, first.upper()]), 8))
    if extra != ABSENT:
        pairs.append((extra, draw(st.sampled_from(["ro", "rw", True, False, None, "/data", "{root}/home/data"]))))
    lost = draw(_mostly(st.just(ABSENT), st.sampled_from([first, second, "all"]), 40))
    if lost == "all":
        return draw(WRONG)
    kept = Pairs(pair for pair in pairs if pair[0] != lost)
    return kept if draw(st.booleans()) else Pairs(reversed(kept))


MOUNTS = st.lists(
    _entry("source", _mostly(SOURCE, ODD_SOURCE), "destination", _mostly(DESTINATION, ODD_DESTINATION)), max_size=4
)
NAMES = st.sampled_from(["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_NUM_THREADS", "WANDB_API_KEY", "A=B", "É"])
VALUES = st.sampled_from(["0", "a b", "", "PCI_BUS_ID", "$HOME", "'", "é", "x=y"])
ENVS = st.lists(_entry("variable", _mostly(NAMES, WRONG), "value", _mostly(VALUES, WRONG, 4)), max_size=3)

SHM = _mostly(
    st.sampled_from(["16G", "16GB", "16 G", "64m", "1.5g", "1024", "100kb", 1 << 30, 16]),
    st.one_of(
        WRONG,
        st.sampled_from(
            ["16GiB", "G", "b", "bb", "1T", "0x10", "-1g", "1e3", "nang", "infg", "5²", "1_0k", "K", "1ib"]
        ),
        st.text("0123456789.bBkKmMgGi e²٣", max_size=5),
    ),
    3,
)
LIMIT = _mostly(st.sampled_from([-1, 67108864, 1024, 0]), WRONG, 4)
ULIMITS = _mostly(st.dictionaries(st.sampled_from(["memlock", "stack", "nofile", ""]), LIMIT, max_size=3), WRONG, 6)
HOST_PORT = _mostly(
    st.sampled_from([8888, "8888", None, [8888, 8889]]),
    st.one_of(
        WRONG, st.sampled_from([{"HostPort": 1}, {"HostPort": "1", "HostIp": "::"}, {"HostIp": "::"}, [None, {}]])
    ),
    4,
)
PORTS = _mostly(
    st.dictionaries(st.sampled_from(["8888", "6006/tcp", "53/udp", "x", "", "1/2/3"]), HOST_PORT, max_size=3), WRONG, 6
)
OPTION = {
    "user": _mostly(st.sampled_from(["1000:1000", "0", "root", "UID:GID", 1000]), WRONG, 4),
    "ports": PORTS,
    "shm_size": SHM,
    "ulimits": ULIMITS,
    "privileged": _mostly(st.booleans(), WRONG, 4),
    "network": _mostly(st.sampled_from(["host", "bridge", "none"]), WRONG, 4),
    "tty": _mostly(st.booleans(), WRONG, 4),
    "ipc_mode": st.just("host"),
}


@st.composite
def _options(draw: st.DrawFn) -> Any:
    usual = st.sampled_from([name for name in OPTION if name not in ("tty", "ipc_mode")])
    names = draw(st.lists(_mostly(usual, st.sampled_from(list(OPTION)), 6), max_size=5))
    return Pairs([(name, draw(OPTION[name])) for name in names])


@st.composite
def _mapping(draw: st.DrawFn) -> Any:
    sections = Pairs([("Mounts", draw(_mostly(MOUNTS, WRONG, 40)))])
    if draw(st.booleans()):
        sections.append(("Envs", draw(_mostly(ENVS, WRONG, 20))))
    if draw(st.integers(0, 3)):
        sections.append(("DockerOptions", draw(_mostly(_options(), WRONG, 20))))
    more = draw(_mostly(st.just(ABSENT), st.sampled_from(["mounts", "Envs", "Mounts", "DockerOptions", "Comment"]), 20))
    if more != ABSENT:
        sections.append((more, draw(st.one_of(MOUNTS, WRONG))))
    sections = draw(st.permutations(sections)) if draw(st.integers(0, 4)) == 0 else sections
    return Pairs(sections[1:]) if draw(st.integers(0, 60)) == 0 else Pairs(sections)


@st.composite
def _content(draw: st.DrawFn) -> bytes:
    whole = text(draw(_mostly(_mapping(), WRONG, 50)))
    how = draw(_mostly(st.just("good"), st.sampled_from(
        ["cut", "bom", "comma", "latin", "crlf", "utf-8", "comment", "empty", "utf-16", "twice", "NaN",
         "digits", "deep"],
    ), 10))  # fmt: skip
    if how == "cut":
        whole = whole[: draw(st.integers(0, len(whole)))]
    elif how == "comma":
        whole = whole.replace("]", ",]", 1)
    elif how == "comment":
        whole = "// mine\n" + whole
    elif how == "crlf":
        whole = whole.replace(", ", ",\r\n").replace("{", "\r{", 1) + draw(st.sampled_from(["", "}", "\r\n]"]))
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


LOGGED_IN = b'{"auths": {"nvcr.io": {}}}'
LOGIN = _mostly(st.just(LOGGED_IN), st.sampled_from([
    None, b"{}", b'{"auths": {}}', b'{"auths": {"reg.local": {}}}', b"", b"{", b"[]", b'"auths"', b'{"auths": [1]}',
    b'{"auths": {"nvcr.io": {}}, "credHelpers": {"nvcr.io": "x"}}',
    b'{"auths": {"nvcr.io": {}, "reg.local": {}}, "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}}}',
    b'{"auths": {"nvcr.io": {}}, "proxies": {"default": {}, "tcp://127.0.0.1:1": {"ftpProxy": "f"}}}',
    b'{"auths": {"nvcr.io": null}}', b'{"auths": {"nvcr.io": {"auth": "eDp5"}}}',
    b'{"auths": {"nvcr.io": {"auth": "eA=="}}}',
    b'{"auths": {"nvcr.io": {"auth": "x"}}}', b'{"auths": {"nvcr.io": {"auth": 1}}}', b'{"reg": {"auth": "x"}}',
    b'{"auths": {"nvcr.io": {"auth": "x", "identitytoken": "t"}}}', b'{"credsStore": "x", "reg": {"auth": "x"}}',
    b'{"auths": {"nvcr.io": {}}, "proxies": []}', b'{"auths": {"nvcr.io": {}}, "proxies": {"default": "http://p"}}',
]), 8)  # fmt: skip


def _table(form: float, **other: Any) -> bytes:
    about = {"docker_registry": "own.local", "tasks": ["unet", "mine"]}
    dockers: Any = {"a/b": {"1": about, "2": {**about, "tasks": ["unet"], "docker_registry": "second.local"}}}
    if form == 1.0:
        dockers = {"a/b": {**about, "docker_tag": "1"}, "c": {**about, "tasks": ["unet"], "docker_tag": "3"}}
    tasks = {"task_group": {"model": {"dockers": dockers}}} if form == 3.0 else {"dockers": dockers}
    return json.dumps({"format_version": form, **tasks, **other}).encode()


OVERRIDE = _mostly(
    st.none(), st.sampled_from([_table(1.0), _table(2.0), _table(3.0), _table(4.0), b"{}", b"{", b'{"a": 1}']), 20
)
TASK = _mostly(
    st.sampled_from([("model", "unet"), ("model", "detectnet_v2"), ("model", "ssd")]),
    st.sampled_from([("model", "nosuch"), ("nosuch", "unet"), ("model", "mine"), ("container_actions", "unet"),
                     ("deploy", "unet"), ("dataset", "annotations"), ("list",), ("info",), ("--help",), (),
                     ("model", "--help")]), 10,
)  # fmt: skip
VOLUME = st.sampled_from([
    "{root}/home/data:/data", "{root}/disk/data:/results", "{root}/nowhere:/x", "a:b", "{root}/home/link:/specs:ro",
    "~/x:/y", "C:\\x:/y", "a", "", ":", "{root}/empty:{root}/linked/x", "sub:/z:rw", "a:b:c:d",
])  # fmt: skip
WORD = st.sampled_from([
    "train", "-e", "/specs/train.yaml", "run", "a b", "$HOME", "'", '"', "*", "(x)", "é", "\udcff", "", "-r", "--all",
])  # fmt: skip


@st.composite
def _rest(draw: st.DrawFn) -> tuple[str, ...]:
    words = draw(st.lists(WORD, max_size=4))
    for _ in range(draw(_mostly(st.just(0), st.integers(1, 3), 3))):
        form = draw(st.sampled_from(["two", "two", "two", "one", "alone"]))
        value = draw(VOLUME)
        new = {"two": ["--volume", value], "one": [f"--volume={value}"], "alone": ["--volume"]}[form]
        at = draw(st.integers(0, len(words)))
        words[at:at] = new
    return tuple(words)


@st.composite
def _environ(draw: st.DrawFn) -> dict[str, str]:
    def maybe(name: str, values: list[str], share: int) -> None:
        value = draw(_mostly(st.just(ABSENT), st.sampled_from(values), share))
        if value != ABSENT:
            environ[name] = value

    environ = {"HOME": draw(_mostly(st.just("{root}/home"), st.sampled_from(["{root}/home/", "{root}/empty", "",
                                                                             "../home"]), 15))}  # fmt: skip
    maybe("LAUNCHER_MOUNTS", ["{root}/home/other.json", "~/other.json", "other.json", "./other.json",
                              "up/home/other.json", "", "{root}/home/other.json ", "$HOME/other.json",
                              "{root}/home", "/nowhere.json",
                              "~nobody-of-that-name/other.json", "~", "{root}/loop", "é"], 2)  # fmt: skip
    maybe("CI_PROJECT_DIR", ["/builds/x", ""], 6)
    maybe("OVERRIDE_REGISTRY", ["reg.local", "", "nvcr.io", "1"], 8)
    maybe("TAO_DOCKER_DISABLE", ["0", "1", "2", ""], 12)
    maybe("DOCKER_CONFIG", ["{root}/docker", "{root}/empty", ""], 12)
    maybe("DOCKER_HOST", ["tcp://127.0.0.1:1", ""], 12)
    return environ


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Give any case."""
    first = draw(_content())
    files = {"tao": first, "other": first, "here": first}
    for name in list(files):
        if draw(st.integers(0, 9)) == 0:
            del files[name]
    if draw(st.integers(0, 9)) < 3:
        files["tlt"] = first
        if draw(st.booleans()):
            files.pop("tao", None)
    words = draw(TASK)
    rest = draw(_rest()) if len(words) == 2 and words[1] != "--help" else ()
    return Case(files, draw(LOGIN), draw(OVERRIDE), draw(_environ()), words, rest)
