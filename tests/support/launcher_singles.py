"""One odd thing at a time, in a start that is otherwise good: every value of the pools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.support import launcher_values
from tests.support.launcher_values import Case, Pairs

GOOD = {
    "Mounts": [{"source": "{root}/home/data", "destination": "/data"}],
    "Envs": [{"variable": "A", "value": "0"}],
    "DockerOptions": {"shm_size": "16G", "user": "1000:1000", "ulimits": {"memlock": -1}},
}
BASE = Case(
    {}, launcher_values.LOGGED_IN, None, {"HOME": "{root}/home"}, ("model", "unet"), ("train", "-e", "/specs/t.yaml")
)


def _with(content: Any, base: Case = BASE) -> Case:
    raw = content if isinstance(content, bytes) else launcher_values.text(content).encode()
    return base._replace(files={"tao": raw})


def mappings() -> Iterator[Any]:
    """Yield mounts files: GOOD, each with one part replaced."""
    yield from (GOOD, *launcher_values.WRONG, {}, {**GOOD, "Comment": 1}, {**GOOD, "mounts": []})
    yield Pairs([("Mounts", []), *GOOD.items()])
    yield Pairs(reversed(GOOD.items()))
    for section in GOOD:
        yield from ({**GOOD, section: wrong} for wrong in launcher_values.WRONG)
        yield {name: value for name, value in GOOD.items() if name != section}
    mount, entry = GOOD["Mounts"][0], GOOD["Envs"][0]  # type: ignore[index]
    for source in (
        *launcher_values.SOURCES,
        *launcher_values.ODD_SOURCES,
        *launcher_values.WRONG_TYPES,
        "\0",
        "\ud800",
    ):
        yield {**GOOD, "Mounts": [mount, {"source": source, "destination": "/second"}]}
    for destination in (*launcher_values.DESTINATIONS, *launcher_values.ODD_DESTINATIONS, *launcher_values.WRONG_TYPES):
        yield {**GOOD, "Mounts": [{**mount, "destination": destination}]}
    for name in (*launcher_values.NAMES, *launcher_values.WRONG_TYPES):
        yield {**GOOD, "Envs": [entry, {**entry, "variable": name}]}
    for value in (*launcher_values.VALUES, *launcher_values.WRONG):
        yield {**GOOD, "Envs": [{**entry, "value": value}]}
    for broken in ([{"source": "/"}], [{"destination": "/"}], [mount, None], [{**mount, "mode": "ro"}]):
        yield {**GOOD, "Mounts": broken}
    yield {**GOOD, "Envs": [{"variable": "A"}]}


def options() -> Iterator[dict[str, Any]]:
    """Yield DockerOptions with one option."""
    for size in (*launcher_values.SIZES, *launcher_values.ODD_SIZES, *launcher_values.WRONG):
        yield {"shm_size": size}
    for limit in (*launcher_values.LIMITS, *launcher_values.WRONG):
        yield {"ulimits": {"stack": limit}}
    for port in (*launcher_values.HOST_PORTS, *launcher_values.ODD_HOST_PORTS, *launcher_values.WRONG_TYPES):
        yield {"ports": {"8888": port}}
    yield from ({"ports": {port: 1}} for port in launcher_values.PORTS)
    for name, values in {"user": launcher_values.USERS, "network": launcher_values.NETWORKS}.items():
        yield from ({name: value} for value in values)
    for name in ("user", "network", "tty", "privileged", "ulimits", "ports", "ipc_mode"):
        yield from ({name: value} for value in (*launcher_values.WRONG_TYPES, True, False, ["x"]))


def singles() -> Iterator[Case]:
    """Yield all of them."""
    good = launcher_values.text(GOOD)
    for content in mappings():
        yield _with(content)
    for each in options():
        case = _with({**GOOD, "DockerOptions": each})
        yield case
        if each.keys() & {"privileged", "tty"} or each in ({"shm_size": None}, {"shm_size": "16 G"}):
            yield case._replace(environ={**BASE.environ, "CI_PROJECT_DIR": "/builds"})
    yield from (_with(launcher_values.damaged(good, how)) for how in launcher_values.DAMAGE)
    fine = _with(GOOD)
    elsewhere = {"other": good.encode(), "here": good.encode()}
    yield fine._replace(files=elsewhere)
    yield fine._replace(files={"tlt": good.encode()})
    for name, values in (*launcher_values.ENVIRON.items(), ("HOME", launcher_values.HOMES)):
        for value in values:
            odd = fine._replace(environ={**BASE.environ, name: value})
            yield odd
            if name == "LAUNCHER_MOUNTS":
                yield odd._replace(files=elsewhere)
            if name == "OVERRIDE_REGISTRY":
                yield odd._replace(login=b'{"auths": {"reg.local": {}}}')
    yield from (fine._replace(login=login) for login in launcher_values.LOGINS)
    for table in launcher_values.TABLES:
        yield fine._replace(override=table, login=b'{"auths": {"own.local": {}, "second.local": {}}}')
        yield fine._replace(override=table, environ={**BASE.environ, "TAO_DOCKER_DISABLE": "1"})
    yield from commands(fine)


def commands(fine: Case) -> Iterator[Case]:
    """Yield cases with one odd command each."""
    for words in (*launcher_values.TASKS, *launcher_values.ODD_TASKS):
        yield fine._replace(words=words, rest=())
        yield fine._replace(words=words, rest=(), environ={**BASE.environ, "TAO_DOCKER_DISABLE": "1"})
    for word in launcher_values.WORDS:
        yield fine._replace(rest=(word, "x"))
    for volume in launcher_values.VOLUMES:
        yield fine._replace(rest=("train", "--volume", volume, "-r"))
        yield fine._replace(rest=("train", "--volume", "/tmp:/tmp", "--volume", volume))
    for rest in ((), ("--volume", "a:b"), ("train", "--volume"), ("train", "--volume=a:b")):
        yield fine._replace(rest=rest)
        yield fine._replace(rest=rest, environ={**BASE.environ, "CI_PROJECT_DIR": ""})
        yield fine._replace(rest=rest, environ={**BASE.environ, "TAO_DOCKER_DISABLE": "1"})
