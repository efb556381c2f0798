"""Mounts files, environments and command lines, good and odd, any number of odd things at once."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.support import launcher_values
from tests.support.launcher_values import Case, Pairs, text

ABSENT = "<absent>"


def _mostly(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any], share: int = 12) -> st.SearchStrategy[Any]:
    return st.integers(0, share).flatmap(lambda roll: odd if roll == share else good)


WRONG = st.sampled_from(launcher_values.WRONG)
SOURCE = _mostly(
    st.sampled_from(launcher_values.SOURCES), _mostly(st.sampled_from(launcher_values.ODD_SOURCES), WRONG, 3)
)
DESTINATION = _mostly(
    st.sampled_from(launcher_values.DESTINATIONS), _mostly(st.sampled_from(launcher_values.ODD_DESTINATIONS), WRONG, 3)
)


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


MOUNTS = st.lists(_entry("source", SOURCE, "destination", DESTINATION), max_size=4)
VALUE = _mostly(st.sampled_from(launcher_values.VALUES), WRONG, 4)
ENVS = st.lists(_entry("variable", _mostly(st.sampled_from(launcher_values.NAMES), WRONG), "value", VALUE), max_size=3)
ODD_SIZE = st.one_of(WRONG, st.sampled_from(launcher_values.ODD_SIZES), st.text("0123456789.bBkKmMgGi e²٣", max_size=5))
LIMIT = _mostly(st.sampled_from(launcher_values.LIMITS), WRONG, 4)
HOST_PORT = _mostly(
    st.sampled_from(launcher_values.HOST_PORTS), st.one_of(WRONG, st.sampled_from(launcher_values.ODD_HOST_PORTS)), 4
)
OPTION = {
    "user": _mostly(st.sampled_from(launcher_values.USERS), WRONG, 4),
    "ports": _mostly(st.dictionaries(st.sampled_from(launcher_values.PORTS), HOST_PORT, max_size=3), WRONG, 6),
    "shm_size": _mostly(st.sampled_from(launcher_values.SIZES), ODD_SIZE, 3),
    "ulimits": _mostly(st.dictionaries(st.sampled_from(launcher_values.LIMIT_NAMES), LIMIT, max_size=3), WRONG, 6),
    "privileged": _mostly(st.booleans(), WRONG, 4),
    "network": _mostly(st.sampled_from(launcher_values.NETWORKS), WRONG, 4),
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
    how = draw(_mostly(st.just("good"), st.sampled_from(launcher_values.DAMAGE), 10))
    return launcher_values.damaged(whole, how, draw(st.integers(0, 400)) if how == "cut" else 0)


@st.composite
def _rest(draw: st.DrawFn) -> tuple[str, ...]:
    words = draw(st.lists(st.sampled_from(launcher_values.WORDS), max_size=4))
    for _ in range(draw(_mostly(st.just(0), st.integers(1, 3), 3))):
        form = draw(st.sampled_from(["two", "two", "two", "one", "alone"]))
        value = draw(st.sampled_from(launcher_values.VOLUMES))
        new = {"two": ["--volume", value], "one": [f"--volume={value}"], "alone": ["--volume"]}[form]
        at = draw(st.integers(0, len(words)))
        words[at:at] = new
    return tuple(words)


_SHARES = {"LAUNCHER_MOUNTS": 2, "CI_PROJECT_DIR": 6, "OVERRIDE_REGISTRY": 8}


@st.composite
def _environ(draw: st.DrawFn) -> dict[str, str]:
    environ = {"HOME": draw(_mostly(st.just("{root}/home"), st.sampled_from(launcher_values.HOMES), 15))}
    for name, values in launcher_values.ENVIRON.items():
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
    words = draw(_mostly(st.sampled_from(launcher_values.TASKS), st.sampled_from(launcher_values.ODD_TASKS), 10))
    rest = draw(_rest()) if len(words) == 2 and words[1] != "--help" else ()
    login = draw(_mostly(st.just(launcher_values.LOGGED_IN), st.sampled_from(launcher_values.LOGINS), 8))
    override = draw(_mostly(st.none(), st.sampled_from(launcher_values.TABLES), 20))
    environ = draw(_environ())
    if "OVERRIDE_REGISTRY" in environ or len(words) < 2:  # the launcher's own test of the login is not made
        login = launcher_values.LOGGED_IN
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
    envs = [
        {"variable": name, "value": draw(st.sampled_from([*launcher_values.VALUES, 5, None, True]))} for name in names
    ]
    every = {
        "user": st.sampled_from(["1000:1000", "0", "root", "5", 1000]),
        "shm_size": st.sampled_from(["16G", "16GB", "1 G", "64m", "1.5g", 1 << 30, "100kb"]),
        "ulimits": st.dictionaries(
            st.sampled_from(["memlock", "stack", "nofile"]), st.sampled_from([-1, 1024, 1 << 26])
        ),
        "ports": st.dictionaries(
            st.sampled_from(["8888", "6006/tcp", "53/udp"]), st.sampled_from([8888, "9999", None])
        ),
        "network": st.sampled_from(launcher_values.NETWORKS),
        "privileged": st.booleans(),
        "tty": st.booleans(),
    }
    chosen = draw(st.lists(st.sampled_from(list(every)), unique=True))
    options = {name: draw(every[name]) for name in chosen}
    content = json.dumps({"Mounts": mounts, "Envs": envs, "DockerOptions": options}).encode()
    rest = draw(st.sampled_from([("train",), ("train", "--volume", "{root}/empty:/given"), ()]))
    environ = {"HOME": "{root}/home"}
    return Case({"tao": content}, launcher_values.LOGGED_IN, None, environ, ("model", "detectnet_v2"), rest)
