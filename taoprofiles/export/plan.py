"""What a container is to get, whoever starts it: a profile's mapping, an image and a command, free of any secret.

The values of secrets never come here: a variable that is one has no value, and a word of the command that holds one has
a reference in its place. So no renderer can write one out.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import CannotRenderError
from taoprofiles.launcher.quoting import VARIABLE, expand_variables
from taoprofiles.launcher.sizes import in_bytes
from taoprofiles.masking import is_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

LIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
"""The names of limits that Docker takes (ulimitNameMapping in docker/go-units)."""

MOST = (1 << 63) - 1
SHORTEST_SECRET = 4
"""Characters; a shorter value is found everywhere, and is no secret."""

_IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)
"""The grammar of distribution/reference."""
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?\Z")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")


class Secret(NamedTuple):
    """A place for the value of the variable ``name``."""

    name: str


Word = tuple["str | Secret", ...]
"""A word of a command line: its pieces, one after the other."""

_Secrets = list[tuple[str, str]]
"""Names and values."""


class Mount(NamedTuple):
    """``source`` on the host, ``destination`` in the container, both absolute."""

    source: str
    destination: str
    is_file: bool = False

    def resolved(self) -> Mount:
        """Give it with the source that its name leads to on this host."""
        return self._replace(source=os.path.realpath(self.source))


class Port(NamedTuple):
    """``host`` is None where the port is only exposed, 0 where the engine chooses."""

    container: int
    protocol: str
    host: int | None


class Plan(NamedTuple):
    """See the module. ``env``: None for a secret; ``shm_size`` in bytes; ``gpus``: "all", a number, or devices by name.

    ``tty`` is None where the profile does not say. ``caller`` is (uid, gid) of whoever asks. ``labels`` are for Docker.
    ``warnings``: what was left out of it already, one line each.
    """

    name: str
    image: str
    command: list[Word]
    mounts: list[Mount]
    env: dict[str, str | None]
    user: str | None
    shm_size: int | None
    ulimits: dict[str, int]
    ports: list[Port]
    network: str | None
    privileged: bool
    tty: bool | None
    gpus: str | int | list[str]
    caller: tuple[int, int]
    labels: dict[str, str]
    warnings: list[str]

    @property
    def secrets(self) -> list[str]:
        """Name what has to be given from outside: variables of the container, and those that the command refers to."""
        named = [piece.name for word in self.command for piece in word if isinstance(piece, Secret)]
        return list(dict.fromkeys([*(name for name, value in self.env.items() if value is None), *named]))


class Rendered(NamedTuple):
    """``text`` is the whole answer; ``warnings`` what it could not say.

    ``store`` is the command that puts the secrets where the target reads them, "" where it reads the environment.
    """

    text: str
    warnings: list[str]
    store: str = ""


def make(
    mapping: dict[str, Any],
    *,
    name: str,
    image: str,
    command: Sequence[str],
    variables: Mapping[str, str],
    secrets: Sequence[tuple[str, str]],
    secret_env: Collection[str],
    gpus: str | int | list[str] = "all",
    caller: tuple[int, int] = (0, 0),
    labels: Mapping[str, str] | None = None,
    is_file: Callable[[str], bool] = os.path.isfile,
) -> Plan:
    """Plan a container. ``mapping`` is a rendered one, ``command`` the task's own words (``task.split``).

    ``variables`` are the profile's, which the words may refer to; ``secrets`` pairs each value that must not be
    written with the variable that has it, ``secret_env`` names the container's variables that hold some. Raises
    CannotRenderError.
    """
    options = mapping.get("DockerOptions", {})
    problems: list[str] = []
    warnings: list[str] = []
    known = [(key, value) for key, value in secrets if len(value) >= SHORTEST_SECRET]
    mounts = [
        Mount(os.path.normpath(one["source"]), os.path.normpath(one["destination"]), is_file(one["source"]))
        for one in mapping["Mounts"]
    ]
    for number, one in enumerate(mounts):
        for side in ("source", "destination"):
            path = getattr(one, side)
            problems += _faults(f"mounts[{number}].{side}", path, known)
    user = str(options["user"]) if "user" in options else None
    problems += _faults("docker.user", user or "", known)
    if user is not None and (not user or user.startswith("-")):
        problems.append("docker.user: it names nobody")
    if not _IMAGE.match(image):
        problems.append(f"'{image[:100]}' is not the name of an image")
    network = options.get("network")
    if network is not None and not _NETWORK.match(network):
        problems.append("docker.network: it is not the name of a network")
    env = {one["variable"]: str(one["value"]) for one in mapping.get("Envs", [])}
    if isinstance(gpus, list) and "CUDA_VISIBLE_DEVICES" in env:
        del env["CUDA_VISIBLE_DEVICES"]  # it counts the GPUs that the container has, from 0 on
        warnings.append("CUDA_VISIBLE_DEVICES is left out: the container has just the GPUs of --gpus")
    hidden = {key for key, value in env.items() if key in secret_env or _holds(value, known)}
    ports = list(_ports(options.get("ports") or {}, problems))
    if ports and network == "host":
        ports = []
        warnings.append("docker.ports are left out: on the host's network Docker discards them")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CannotRenderError(f"profile '{name}' cannot be rendered, {count}", problems=problems)
    words, told = _words(command, variables, known)
    return Plan(
        name=name,
        image=image,
        command=words,
        mounts=mounts,
        env={key: None if key in hidden else value for key, value in env.items()},
        user=user,
        shm_size=_shm_size(options, name),
        ulimits=_ulimits(options, name),
        ports=ports,
        network=network,
        privileged=bool(options.get("privileged")),
        tty=options.get("tty"),
        gpus=gpus,
        caller=caller,
        labels=dict(labels or {}),
        warnings=warnings + told,
    )


def expanded(command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Give the words with the profile's own variables in them expanded; any other stays as it is."""
    return [expand_variables(word, variables) for word in command]


def refuse(plan: Plan, target: str, problems: Sequence[str]) -> None:
    """Raise CannotRenderError if there are problems."""
    if problems:
        raise CannotRenderError(
            f"profile '{plan.name}' cannot be written for {target}", problems=list(dict.fromkeys(problems))
        )


def _faults(where: str, text: str, secrets: _Secrets) -> Iterator[str]:
    # KEYS_DIR is no secret, although it is called like one: paths are shown everywhere.
    owner = next((key for key, value in secrets if value in text and not value.startswith("/")), None)
    if owner is not None:
        yield f"{where}: it holds the value of the secret '{owner}', which is not printed"
    elif any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        yield f"{where}: it has a control character"


def _holds(value: str, secrets: _Secrets) -> bool:
    return any(secret in value for _, secret in secrets)


def _ports(ports: Mapping[str, Any], problems: list[str]) -> Iterator[Port]:
    for key, hosts in ports.items():
        found = _PORT.match(key)
        if not found or not 0 < int(found[1]) < 65536:
            problems.append(f"docker.ports: '{key[:40]}' is no port of a container; write 8888 or 8888/udp")
            continue
        listed = list(dict.fromkeys(hosts)) if isinstance(hosts, list) else [hosts]
        for host in listed or [None]:
            yield Port(int(found[1]), found[2] or "tcp", host)


def _shm_size(options: Mapping[str, Any], name: str) -> int | None:
    size = in_bytes(options["shm_size"]) if "shm_size" in options else 0
    if size is None or size > MOST:
        raise CannotRenderError(f"profile '{name}': docker.shm_size is more than an engine can take")
    return size or None  # of 0 the engine makes its default


def _ulimits(options: Mapping[str, Any], name: str) -> dict[str, int]:
    limits: dict[str, int] = options.get("ulimits") or {}
    unknown = [key for key in limits if key not in LIMITS]
    if unknown:
        raise CannotRenderError(
            f"profile '{name}': docker.ulimits has '{unknown[0][:40]}', which Docker does not know",
            hint=f"known are {', '.join(sorted(LIMITS))}",
        )
    return limits


def _words(command: Sequence[str], variables: Mapping[str, str], secrets: _Secrets) -> tuple[list[Word], list[str]]:
    """Expand the profile's own variables in the words, and put references in the place of secrets."""
    words: list[Word] = []
    told: list[str] = []
    before = ""
    for word in command:
        name, equals, value = word.partition("=")
        key = name.rpartition(".")[2]
        made = list(_expanded(word, variables, secrets))
        has_one = any(isinstance(piece, Secret) for piece in made)
        by_option = before == "-k" or (before.startswith("--") and "=" not in before and is_secret(before))
        if by_option and not has_one and not word.startswith("-"):
            made = [_asked_for(before, word, told)]
        elif equals and value and is_secret(key) and not has_one:
            made = [f"{name}=", _asked_for(key, value, told)]
        words.append(tuple(made))
        before = word
    return words, told


def _asked_for(option: str, value: str, told: list[str]) -> Secret:
    """Give the place of a secret that stands in the command itself, or that somebody else's variable has."""
    reference = VARIABLE.fullmatch(value)
    if reference:
        return Secret(reference[1] or reference[2])
    name = "KEY" if option == "-k" else re.sub(r"\W+", "_", option.strip("-"), flags=re.ASCII).upper()
    name = name if re.match(r"[A-Z_]", name) else f"_{name}"
    told.append(f"the value behind '{option}' is a secret and is not printed: ${name} stands in its place")
    return Secret(name)


def _expanded(word: str, variables: Mapping[str, str], secrets: _Secrets) -> Iterator[str | Secret]:
    text = ""
    end = 0
    for found in VARIABLE.finditer(word):
        name = found[1] or found[2]
        text += word[end : found.start()]
        end = found.end()
        if any(name == key for key, _ in secrets):
            yield from _without(text, secrets)
            yield Secret(name)
            text = ""
        else:
            text += variables.get(name, found[0])
    yield from _without(text + word[end:], secrets)


def _without(text: str, secrets: _Secrets) -> Iterator[str | Secret]:
    """Give the text with references for the secrets' values in it, the longest value first; nothing for no text."""
    for name, value in sorted(secrets, key=lambda item: -len(item[1])):
        before, found, after = text.partition(value)
        if found:
            yield from _without(before, secrets)
            yield Secret(name)
            yield from _without(after, secrets)
            return
    if text:
        yield text
