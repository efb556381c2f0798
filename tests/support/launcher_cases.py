"""Starts of a launcher, in a home that is there on disk, with good and odd values for every part of them.

``singles`` has one odd thing at a time, ``cases`` draws any number of them at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from taoprofiles.launcher.behaviour import behaviour_of

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


# Any number of odd things at once

ABSENT = "<absent>"


def _mostly(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any], share: int = 12) -> st.SearchStrategy[Any]:
    return st.integers(0, share).flatmap(lambda roll: odd if roll == share else good)


ANY_WRONG = st.sampled_from(WRONG)
SOURCE = _mostly(st.sampled_from(SOURCES), _mostly(st.sampled_from(ODD_SOURCES), ANY_WRONG, 3))
DESTINATION = _mostly(st.sampled_from(DESTINATIONS), _mostly(st.sampled_from(ODD_DESTINATIONS), ANY_WRONG, 3))


@st.composite
def _entry(draw: st.DrawFn, first: str, firsts: Any, second: str, seconds: Any) -> Any:
    pairs = Pairs([(first, draw(firsts)), (second, draw(seconds))])
    extra = draw(_mostly(st.just(ABSENT), st.sampled_from(["mode", "ro", "comment", first, second, first.upper()]), 8))
    if extra != ABSENT:
        pairs.append((extra, draw(st.sampled_from(["ro", "rw", True, False, None, "/data", "{root}/home/data"]))))
    lost = draw(_mostly(st.just(ABSENT), st.sampled_from([first, second, "all"]), 40))
    if lost == "all":
        return draw(ANY_WRONG)
    kept = Pairs(pair for pair in pairs if pair[0] != lost)
    return kept if draw(st.booleans()) else Pairs(reversed(kept))


MOUNTS = st.lists(_entry("source", SOURCE, "destination", DESTINATION), max_size=4)
VALUE = _mostly(st.sampled_from(VALUES), ANY_WRONG, 4)
ENVS = st.lists(_entry("variable", _mostly(st.sampled_from(NAMES), ANY_WRONG), "value", VALUE), max_size=3)
ODD_SIZE = st.one_of(ANY_WRONG, st.sampled_from(ODD_SIZES), st.text("0123456789.bBkKmMgGi e²٣", max_size=5))
LIMIT = _mostly(st.sampled_from(LIMITS), ANY_WRONG, 4)
HOST_PORT = _mostly(st.sampled_from(HOST_PORTS), st.one_of(ANY_WRONG, st.sampled_from(ODD_HOST_PORTS)), 4)
OPTION = {
    "user": _mostly(st.sampled_from(USERS), ANY_WRONG, 4),
    "ports": _mostly(st.dictionaries(st.sampled_from(PORTS), HOST_PORT, max_size=3), ANY_WRONG, 6),
    "shm_size": _mostly(st.sampled_from(SIZES), ODD_SIZE, 3),
    "ulimits": _mostly(st.dictionaries(st.sampled_from(LIMIT_NAMES), LIMIT, max_size=3), ANY_WRONG, 6),
    "privileged": _mostly(st.booleans(), ANY_WRONG, 4),
    "network": _mostly(st.sampled_from(NETWORKS), ANY_WRONG, 4),
    "tty": _mostly(st.booleans(), ANY_WRONG, 4),
    "ipc_mode": st.just("host"),
}


@st.composite
def _options(draw: st.DrawFn) -> Any:
    usual = st.sampled_from([name for name in OPTION if name not in ("tty", "ipc_mode")])
    names = draw(st.lists(_mostly(usual, st.sampled_from(list(OPTION)), 6), max_size=5))
    return Pairs([(name, draw(OPTION[name])) for name in names])


@st.composite
def _mapping(draw: st.DrawFn) -> Any:
    sections = Pairs([("Mounts", draw(_mostly(MOUNTS, ANY_WRONG, 40)))])
    if draw(st.booleans()):
        sections.append(("Envs", draw(_mostly(ENVS, ANY_WRONG, 20))))
    if draw(st.integers(0, 3)):
        sections.append(("DockerOptions", draw(_mostly(_options(), ANY_WRONG, 20))))
    more = draw(_mostly(st.just(ABSENT), st.sampled_from(["mounts", "Envs", "Mounts", "DockerOptions", "Comment"]), 20))
    if more != ABSENT:
        sections.append((more, draw(st.one_of(MOUNTS, ANY_WRONG))))
    sections = draw(st.permutations(sections)) if draw(st.integers(0, 4)) == 0 else sections
    return Pairs(sections[1:]) if draw(st.integers(0, 60)) == 0 else Pairs(sections)


@st.composite
def _content(draw: st.DrawFn) -> bytes:
    whole = text(draw(_mostly(_mapping(), ANY_WRONG, 50)))
    how = draw(_mostly(st.just("good"), st.sampled_from(DAMAGE), 10))
    return damaged(whole, how, draw(st.integers(0, 400)) if how == "cut" else 0)


@st.composite
def _rest(draw: st.DrawFn) -> tuple[str, ...]:
    words = draw(st.lists(st.sampled_from(WORDS), max_size=4))
    for _ in range(draw(_mostly(st.just(0), st.integers(1, 3), 3))):
        form = draw(st.sampled_from(["two", "two", "two", "one", "alone"]))
        value = draw(st.sampled_from(VOLUMES))
        new = {"two": ["--volume", value], "one": [f"--volume={value}"], "alone": ["--volume"]}[form]
        at = draw(st.integers(0, len(words)))
        words[at:at] = new
    return tuple(words)


_SHARES = {"LAUNCHER_MOUNTS": 2, "CI_PROJECT_DIR": 6, "OVERRIDE_REGISTRY": 8}


@st.composite
def _environ(draw: st.DrawFn) -> dict[str, str]:
    environ = {"HOME": draw(_mostly(st.just("{root}/home"), st.sampled_from(HOMES), 15))}
    for name, values in ENVIRON.items():
        value = draw(_mostly(st.just(ABSENT), st.sampled_from(values), _SHARES.get(name, 12)))
        if value != ABSENT:
            environ[name] = value
    return environ


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw any case."""
    first = draw(_content())
    files = {"tao": first, "other": first, "here": first}
    for name in list(files):
        if draw(st.integers(0, 9)) == 0:
            del files[name]
    if draw(st.integers(0, 9)) < 3:
        files["tlt"] = first
        if draw(st.booleans()):
            files.pop("tao", None)
    words = draw(_mostly(st.sampled_from(TASKS), st.sampled_from(ODD_TASKS), 10))
    rest = draw(_rest()) if len(words) == 2 and words[1] != "--help" else ()
    login = draw(_mostly(st.just(LOGGED_IN), st.sampled_from(LOGINS), 8))
    override = draw(_mostly(st.none(), st.sampled_from(TABLES), 20))
    environ = draw(_environ())
    if "OVERRIDE_REGISTRY" in environ or len(words) < 2:  # the launcher's own test of the login is not made
        login = LOGGED_IN
    return Case(files, login, override, environ, words, rest)


@st.composite
def good_cases(draw: st.DrawFn) -> Case:
    """Draw a start that an engine takes: absolute destinations, no two alike, and options of its own types."""
    folders = ["{root}/home/data", "{root}/disk/data", "~/with blank", "{root}/home/dätä", "~", "{root}/linked", "sub"]
    sources = draw(st.lists(st.sampled_from(folders), max_size=4))
    places = ["/data", "/specs", "/results/", "/workspace/tao-experiments", "/a b", "/dätä", "{root}/linked/x"]
    destinations = draw(st.permutations(places))
    mounts = [{"source": source, "destination": place} for source, place in zip(sources, destinations, strict=False)]
    names = draw(st.lists(st.sampled_from(["A", "B_1", "PATH", "É"]), max_size=3, unique=True))
    envs = [{"variable": name, "value": draw(st.sampled_from([*VALUES, 5, None, True]))} for name in names]
    every = {
        "user": st.sampled_from(["1000:1000", "0", "root", "5", 1000]),
        "shm_size": st.sampled_from(["16G", "16GB", "1 G", "64m", "1.5g", 1 << 30, "100kb"]),
        "ulimits": st.dictionaries(
            st.sampled_from(["memlock", "stack", "nofile"]), st.sampled_from([-1, 1024, 1 << 26])
        ),
        "ports": st.dictionaries(
            st.sampled_from(["8888", "6006/tcp", "53/udp"]), st.sampled_from([8888, "9999", None])
        ),
        "network": st.sampled_from(NETWORKS),
        "privileged": st.booleans(),
        "tty": st.booleans(),
    }
    chosen = draw(st.lists(st.sampled_from(list(every)), unique=True))
    options = {name: draw(every[name]) for name in chosen}
    content = json.dumps({"Mounts": mounts, "Envs": envs, "DockerOptions": options}).encode()
    rest = draw(st.sampled_from([("train",), ("train", "--volume", "{root}/empty:/given"), ()]))
    environ = {"HOME": "{root}/home"}
    return Case({"tao": content}, LOGGED_IN, None, environ, ("model", "detectnet_v2"), rest)


# One odd thing at a time, in a start that is otherwise good: every value of the pools

GOOD = {
    "Mounts": [{"source": "{root}/home/data", "destination": "/data"}],
    "Envs": [{"variable": "A", "value": "0"}],
    "DockerOptions": {"shm_size": "16G", "user": "1000:1000", "ulimits": {"memlock": -1}},
}
BASE = Case({}, LOGGED_IN, None, {"HOME": "{root}/home"}, ("model", "unet"), ("train", "-e", "/specs/t.yaml"))


def _with(content: Any, base: Case = BASE) -> Case:
    raw = content if isinstance(content, bytes) else text(content).encode()
    return base._replace(files={"tao": raw})


def mappings() -> Iterator[Any]:
    """Yield mounts files: GOOD, each with one part replaced."""
    yield from (GOOD, *WRONG, {}, {**GOOD, "Comment": 1}, {**GOOD, "mounts": []})
    yield Pairs([("Mounts", []), *GOOD.items()])
    yield Pairs(reversed(GOOD.items()))
    for section in GOOD:
        yield from ({**GOOD, section: wrong} for wrong in WRONG)
        yield {name: value for name, value in GOOD.items() if name != section}
    mount, entry = GOOD["Mounts"][0], GOOD["Envs"][0]  # type: ignore[index]
    for source in (
        *SOURCES,
        *ODD_SOURCES,
        *WRONG_TYPES,
        "\0",
        "\ud800",
    ):
        yield {**GOOD, "Mounts": [mount, {"source": source, "destination": "/second"}]}
    for destination in (*DESTINATIONS, *ODD_DESTINATIONS, *WRONG_TYPES):
        yield {**GOOD, "Mounts": [{**mount, "destination": destination}]}
    for name in (*NAMES, *WRONG_TYPES):
        yield {**GOOD, "Envs": [entry, {**entry, "variable": name}]}
    for value in (*VALUES, *WRONG):
        yield {**GOOD, "Envs": [{**entry, "value": value}]}
    for broken in ([{"source": "/"}], [{"destination": "/"}], [mount, None], [{**mount, "mode": "ro"}]):
        yield {**GOOD, "Mounts": broken}
    yield {**GOOD, "Envs": [{"variable": "A"}]}


def options() -> Iterator[dict[str, Any]]:
    """Yield DockerOptions with one option."""
    for size in (*SIZES, *ODD_SIZES, *WRONG):
        yield {"shm_size": size}
    for limit in (*LIMITS, *WRONG):
        yield {"ulimits": {"stack": limit}}
    for port in (*HOST_PORTS, *ODD_HOST_PORTS, *WRONG_TYPES):
        yield {"ports": {"8888": port}}
    yield from ({"ports": {port: 1}} for port in PORTS)
    for name, values in {"user": USERS, "network": NETWORKS}.items():
        yield from ({name: value} for value in values)
    for name in ("user", "network", "tty", "privileged", "ulimits", "ports", "ipc_mode"):
        yield from ({name: value} for value in (*WRONG_TYPES, True, False, ["x"]))


def singles() -> Iterator[Case]:
    """Yield all of them."""
    good = text(GOOD)
    for content in mappings():
        yield _with(content)
    for each in options():
        case = _with({**GOOD, "DockerOptions": each})
        yield case
        if each.keys() & {"privileged", "tty"} or each in ({"shm_size": None}, {"shm_size": "16 G"}):
            yield case._replace(environ={**BASE.environ, "CI_PROJECT_DIR": "/builds"})
    yield from (_with(damaged(good, how)) for how in DAMAGE)
    fine = _with(GOOD)
    elsewhere = {"other": good.encode(), "here": good.encode()}
    yield fine._replace(files=elsewhere)
    yield fine._replace(files={"tlt": good.encode()})
    for name, values in (*ENVIRON.items(), ("HOME", HOMES)):
        for value in values:
            odd = fine._replace(environ={**BASE.environ, name: value})
            yield odd
            if name == "LAUNCHER_MOUNTS":
                yield odd._replace(files=elsewhere)
            if name == "OVERRIDE_REGISTRY":
                yield odd._replace(login=b'{"auths": {"reg.local": {}}}')
    yield from (fine._replace(login=login) for login in LOGINS)
    for table in TABLES:
        yield fine._replace(override=table, login=b'{"auths": {"own.local": {}, "second.local": {}}}')
        yield fine._replace(override=table, environ={**BASE.environ, "TAO_DOCKER_DISABLE": "1"})
    yield from commands(fine)


def commands(fine: Case) -> Iterator[Case]:
    """Yield cases with one odd command each."""
    for words in (*TASKS, *ODD_TASKS):
        yield fine._replace(words=words, rest=())
        yield fine._replace(words=words, rest=(), environ={**BASE.environ, "TAO_DOCKER_DISABLE": "1"})
    for word in WORDS:
        yield fine._replace(rest=(word, "x"))
    for volume in VOLUMES:
        yield fine._replace(rest=("train", "--volume", volume, "-r"))
        yield fine._replace(rest=("train", "--volume", "/tmp:/tmp", "--volume", volume))
    for rest in ((), ("--volume", "a:b"), ("train", "--volume"), ("train", "--volume=a:b")):
        yield fine._replace(rest=rest)
        yield fine._replace(rest=rest, environ={**BASE.environ, "CI_PROJECT_DIR": ""})
        yield fine._replace(rest=rest, environ={**BASE.environ, "TAO_DOCKER_DISABLE": "1"})
