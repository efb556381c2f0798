"""The command line of ``docker run``, as Docker's own command line parses it; Podman's is alike.

Sources: cli/command/container/opts.go and opts/mount.go of docker/cli 27; pflag for how options are written.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from taoprofiles.system.processes import WRAPPERS

ENGINES = ("docker", "podman", "nvidia-docker")
_FLAGS = frozenset(
    "--detach --disable-content-trust --help --init --interactive --no-healthcheck --oom-kill-disable --privileged "
    "--publish-all --quiet --read-only --rm --sig-proxy --tty --use-api-socket".split()
)
"""The options without a value."""
_WITHOUT_EFFECT = frozenset(
    "--add-host --annotation --attach --cap-add --cap-drop --cgroup-parent --cgroupns --cidfile --cpu-period "
    "--cpu-quota --cpu-shares --cpus --cpuset-cpus --cpuset-mems --detach-keys --device --dns --dns-option "
    "--dns-search --domainname --expose --group-add --health-cmd --health-interval --health-retries "
    "--health-start-interval --health-start-period --health-timeout --hostname --ip --ip6 --label --label-file --link "
    "--log-driver --log-opt --mac-address --memory --memory-reservation --memory-swap --memory-swappiness --name "
    "--network-alias --oom-score-adj --pid --pids-limit --platform --pull --restart --runtime --security-opt "
    "--stop-signal --stop-timeout --storage-opt --sysctl --uts".split()
)
"""Options with a value of which nothing is checked."""
_READ = frozenset(
    "--entrypoint --env --gpus --ipc --mount --network --publish --shm-size --tmpfs --ulimit --user --volume "
    "--workdir".split()
)
_SHORT = {
    "a": "--attach", "c": "--cpu-shares", "d": "--detach", "e": "--env", "h": "--hostname", "i": "--interactive",
    "l": "--label", "m": "--memory", "P": "--publish-all", "p": "--publish", "q": "--quiet", "t": "--tty",
    "u": "--user", "v": "--volume", "w": "--workdir",
}  # fmt: skip
_ALIASES = {"--net": "--network"}
_ENGINE_OPTIONS = frozenset(
    ("-H", "--host", "-c", "--context", "-l", "--log-level", "--config", "--connection", "--url")
)
"""Options of ``docker`` itself that have a value and stand before ``run``."""
_MODES = "ro|rw|z|Z|U|O|r?shared|r?slave|r?private|nocopy|consistent|cached|delegated|exec|noexec|dev|nodev|suid|nosuid"
_FORMS = {
    "--volume": re.compile(rf"/[^:]*|([A-Za-z]:)?[^:]*:/[^:]*(:(({_MODES})(,({_MODES}))*)?)?"),
    "--ulimit": re.compile(r"\w+=-?[0-9]+(:-?[0-9]+)?"),
    "--gpus": re.compile(r"all|none|-1|[0-9]{1,9}|.*[=,].*"),
    "--shm-size": re.compile(r"[0-9.]{1,15} ?[bkmgtpBKMGTP]?i?[bB]?"),
}
"""What Docker accepts; anything else it refuses."""
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


class RunMount(NamedTuple):
    """A mount of a container.

    ``kind`` is bind, volume (``source`` is its name, "" for an anonymous one) or tmpfs; ``is_created``: the engine
    creates a source that does not exist, as ``--volume`` does and ``--mount`` does not.
    """

    source: str
    destination: str
    kind: str = "bind"
    is_read_only: bool = False
    is_created: bool = False


class DockerRun(NamedTuple):
    """What a ``docker run`` asks for.

    - ``words``: all words up to the image, the image included; ``command``: the words after it
    - ``env``: NAME and value, None for a value that comes from the environment
    - ``gpus``: "all", a number, a list of devices, or None if none are requested
    - ``unknown``: options that are not understood, also by their values
    - ``workdir``: the value of ``--workdir``
    - ``ipc``: the value of ``--ipc``
    - ``engine``: variables that name the engine, by options of ``docker`` itself
    """

    words: list[str]
    image: str
    command: list[str]
    mounts: list[RunMount]
    env: list[tuple[str, str | None]]
    gpus: str | int | list[str] | None
    user: str | None
    shm_size: str | None
    ulimits: dict[str, int]
    ports: dict[str, int]
    network: str | None
    is_privileged: bool
    entrypoint: str | None
    unknown: list[str]
    engine: dict[str, str]
    ipc: str | None
    workdir: str | None


def parse(words: Sequence[str]) -> DockerRun | None:
    """Parse ``docker run …``, also after ``sudo`` and with options of ``docker`` itself; None for anything else."""
    start = _options_start(words)
    if start is None:
        return None
    given, position = _read_options(words, start)
    last = {option: values[-1] for option, values in given.items()}
    mounts = [parse_volume(value) for value in given.get("--volume", [])]
    mounts += [_parse_mount(value) for value in given.get("--mount", [])]
    mounts += [RunMount("", value.partition(":")[0], "tmpfs") for value in given.get("--tmpfs", [])]
    env = [parse_variable(value) for value in given.get("--env", [])]
    return DockerRun(
        list(words[: position + 1]),
        words[position] if position < len(words) else "",
        list(words[position + 1 :]),
        mounts,
        env,
        _parse_gpus(last["--gpus"]) if "--gpus" in last else _visible_devices(last, env),
        last.get("--user"),
        last.get("--shm-size"),
        dict(filter(None, map(_parse_ulimit, given.get("--ulimit", [])))),
        dict(filter(None, map(_parse_port, given.get("--publish", [])))),
        last.get("--network"),
        "--privileged" in given,
        last.get("--entrypoint"),
        list(_find_unknown(given)),
        _engine(words[:start]),
        last.get("--ipc"),
        last.get("--workdir"),
    )


def _find_unknown(given: dict[str, list[str]]) -> Iterator[str]:
    """Yield the options that are not understood; ``given`` has their values."""
    for option, values in given.items():
        if option not in _READ | _FLAGS | _WITHOUT_EFFECT:
            yield option
        form = _FORMS.get(option)
        yield from (f"{option} {value}" for value in values if form is not None and not form.fullmatch(value))


def _read_options(words: Sequence[str], position: int) -> tuple[dict[str, list[str]], int]:
    """Return the values of the options by their long names, and the number of the word after them."""
    given: dict[str, list[str]] = {}
    while position < len(words) and words[position].startswith("-") and words[position] != "--":
        count = 1
        for option, written, takes_next in _options(words[position]):
            value = written
            if takes_next:
                value = words[position + 1] if position + 1 < len(words) else ""
                count = 2
            if value.lower() != "false" or option not in _FLAGS:
                given.setdefault(_ALIASES.get(option, option), []).append(value)
        position += count
    return given, position + (list(words[position : position + 1]) == ["--"])


def _options_start(words: Sequence[str]) -> int | None:
    """Return the number of the first word after ``run``; None if this is no ``docker run``."""
    names = [os.path.basename(word) for word in words]
    position = next((number for number, name in enumerate(names) if name in ENGINES), -1)
    if position < 0 or (position > 0 and names[0] not in WRAPPERS):
        return None
    position += 1
    while position < len(words) and words[position].startswith("-"):
        position += 2 if words[position] in _ENGINE_OPTIONS else 1
    position += position < len(words) and words[position] == "container"
    return position + 1 if list(words[position : position + 1]) in (["run"], ["create"]) else None


def _engine(words: Sequence[str]) -> dict[str, str]:
    """Return the variables that say the same as options of ``docker`` itself about its engine.

    Options before ``docker``, such as those of ``taskset -c 0`` and ``sudo -H``, are those of another program.
    """
    start = next(number for number, word in enumerate(words) if os.path.basename(word) in ENGINES)
    for option, value in itertools.pairwise(words[start:]):
        if option in ("-H", "--host"):
            return {"DOCKER_HOST": value}
        if option in ("-c", "--context"):
            return {"DOCKER_HOST": "", "DOCKER_CONTEXT": value}
    given = (word.partition("=") for word in words)
    return next(({"DOCKER_HOST": value} for name, _, value in given if name in ("--host", "DOCKER_HOST")), {})


def _options(word: str) -> Iterator[tuple[str, str, bool]]:
    """Yield each option in a word: its long name, its value, and whether the value is the next word."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        yield name, value, not equals and name not in _FLAGS
        return
    for number, letter in enumerate(word[1:], 2):
        name = _SHORT.get(letter, f"-{letter}")
        rest = word[number:]
        if name not in _FLAGS:
            yield name, rest.removeprefix("="), not rest
            return
        if rest.startswith("="):
            yield name, rest[1:], False
            return
        yield name, "", False


def parse_volume(text: str) -> RunMount:
    """Parse a value of ``--volume``, SOURCE:DESTINATION[:OPTIONS]; a source that is no path is a volume's name."""
    drive = re.match(r"[A-Za-z]:[\\/]", text)
    head, rest = (text[:2], text[2:]) if drive else ("", text)
    parts = rest.split(":")
    if len(parts) == 1:
        return RunMount("", text, "volume")
    source, options = head + parts[0], parts[2].split(",") if len(parts) > 2 else []
    kind = "bind" if drive or not _VOLUME_NAME.match(source) else "volume"
    return RunMount(source, parts[1], kind, "ro" in options, kind == "bind")


def _parse_mount(text: str) -> RunMount:
    """Parse a value of ``--mount``: fields of a line of CSV."""
    fields = {}
    for field in next(csv.reader([text]), []):
        name, equals, value = field.partition("=")
        fields[name.strip().lower()] = value if equals else "true"
    source = fields.get("source", fields.get("src", ""))
    destination = fields.get("target", fields.get("destination", fields.get("dst", "")))
    is_read_only = fields.get("readonly", fields.get("ro", "false")) in ("true", "1")
    return RunMount(source, destination, fields.get("type", "volume"), is_read_only)


def parse_variable(text: str) -> tuple[str, str | None]:
    """Parse NAME=VALUE of ``--env``, or NAME, whose value comes from the environment."""
    name, equals, value = text.partition("=")
    return name, value if equals else None


def _parse_gpus(text: str) -> str | int | list[str]:
    """Parse a value of ``--gpus``: all, a number, or ``device=0,1``, in the quotes that its CSV needs."""
    for field in next(csv.reader([text.strip("'")]), []):
        name, equals, value = field.partition("=")
        if name.strip() == "device" and equals:
            return [device for device in re.split(r"[,\s]+", value) if device]
        amount = value if name.strip() == "count" else name.strip()
        if amount.isascii() and amount.isdigit():
            return int(amount)
        if amount in ("all", "-1"):
            return "all"
    return "all"


def _visible_devices(last: dict[str, str], env: Sequence[tuple[str, str | None]]) -> str | list[str] | None:
    """Return the GPUs that the NVIDIA runtime gives by NVIDIA_VISIBLE_DEVICES, as on Tegra."""
    visible = dict(env).get("NVIDIA_VISIBLE_DEVICES")
    if last.get("--runtime") != "nvidia" and "--device" not in last:
        return None
    return visible.split(",") if visible and visible != "all" else "all"


def _parse_ulimit(text: str) -> tuple[str, int] | None:
    name, _, limits = text.partition("=")
    soft = limits.partition(":")[0]
    return (name, int(soft)) if re.fullmatch(r"-?[0-9]{1,18}", soft) else None


def _parse_port(text: str) -> tuple[str, int] | None:
    """Parse a value of ``--publish`` of one port; None for a range, or a port that the engine chooses."""
    *host, inside = text.split(":")
    return (inside, int(host[-1])) if host and re.fullmatch("[0-9]{1,5}", host[-1]) else None
