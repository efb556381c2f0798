"""Containers of TAO's images that code starts without the launcher: ``docker run`` lines and Compose files.

Nothing is run. A Compose service becomes the words of a ``docker run``, so that one parser reads both.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import TaoprofError
from taoprofiles.importer.state import (
    Segment,
    SimulatedException,
    SourceLocation,
    TracedStr,
    Unknown,
    concat,
    cut,
)
from taoprofiles.launcher.argv import KEYWORDS, commands_of_script
from taoprofiles.launcher.behaviour import is_tao_image, parse_image_tag
from taoprofiles.masking import is_secret
from taoprofiles.storage import files
from taoprofiles.system.docker_run import ENGINES, DockerRun, parse

if TYPE_CHECKING:
    from taoprofiles.importer.evaluator import Evaluator

COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_COMPOSE_LIMIT = 1 << 20
_NOT_READ = ("extends", "configs", "secrets", "volumes_from")
"""Keys of a Compose service that are reported, and not imported."""
_RUN_OPTIONS = frozenset(
    "-v --volume -e --env --env-from-file -u --user -p --publish -w --workdir --entrypoint --name -l --label".split()
)
"""Options with a value of ``docker compose run``, which change its container; they are only named."""

_NESTING = 20
"""Command substitutions inside of each other that are read."""

_STARTS = re.compile(rf"\b(?:{'|'.join(ENGINES)})(?:-compose)?\s")
_SCRIPT = r"(?:\"?(?:\$0|\$\{?BASH_SOURCE(?:\[0\])?\}?)\"?)"
_DIRNAME = rf"\$\(\s*dirname\s+(?:--\s+)?\"?(?:{_SCRIPT}|\$\(\s*(?:readlink -f|realpath)\s+{_SCRIPT}\s*\))\"?\s*\)"
_FOLDER = rf"\$\(\s*cd\s+(?:--\s+)?\"?{_DIRNAME}(/[\w./-]*)?\"?[^()]*?(?:&&|;)\s*pwd(?:\s+-P)?\s*\)"
"""The usual ways to name the folder of the script itself."""
_SUBSTITUTIONS = (
    (re.compile(_FOLDER), r"${__folder}\1"),
    (re.compile(_DIRNAME), "${__folder}"),
    (re.compile(r"\$\(\s*id -u\s*\)|`id -u`|\$UID\b|\$\{UID\}"), "${__uid}"),
    (re.compile(r"\$\(\s*id -g\s*\)|`id -g`|\$GID\b|\$\{GID\}"), "${__gid}"),
    (re.compile(r"\$\(\s*pwd\s*\)|`pwd`|\$PWD\b|\$\{PWD\}"), "${__folder}"),
    (re.compile(r"\$\([^()]*\)|`[^`\n]*`"), "${__unknown}"),
)
"""What a shell puts in the place of a command. It comes before the words are split: ``(`` ends a command."""
_PLACEHOLDER = re.compile(r"(?<=\s)<[A-Za-z][\w-]*>(?=[:/\s])")
"""``<path>`` as in instructions; a shell would take it for two redirections."""
_COMMENT = re.compile(r"^(\s*(?:export |readonly )?[A-Za-z_]\w*=\S*)[ \t]+#.*", re.M)
"""An assignment with a comment after it."""
_ARRAY = re.compile(r"^\s*(?:declare -a |local )?(\w+)(\+?)=\(([^()]*)\)", re.M)
_REFERENCE = re.compile(r"\$\{(\w+)(?::?-((?:[^{}]|\$\{[^{}]*\})*))?\}|\$(\w+)|(\{[^{}]+\})")
_SAME = re.compile(r"(--env=|-e)?([A-Za-z_]\w*)=(?:\$\2|\$\{\2\})")
"""NAME=$NAME: a variable of the shell, passed on."""
_ASSIGNS = re.compile(r"^\s*(?:(?:export|readonly|local|declare) )?([A-Za-z_]\w*)=", re.M)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.S)
_KEYWORDS = KEYWORDS | {"export", "declare", "readonly", "local"}
_MARK = "\ue000"
"""Surrounds the number of an unknown value in a text: a private character that no path has."""


class StartedContainer(NamedTuple):
    """A container that the code starts: as in a mounts file, and what a profile says besides."""

    location: SourceLocation
    mapping: dict[str, Any]
    image: str
    task: str
    gpus: str | None
    read_only: frozenset[str]


def scan(ev: Evaluator, script: str, *, has_python: bool = False, sets_variables: bool = False) -> None:
    """Record the containers of TAO's images that a shell script starts.

    ``has_python``: ``{name}`` and ``$name`` are Python's first, as in a ``!command``; ``sets_variables``: assignments
    are variables of the file, as in a script of its own.
    """
    if not _STARTS.search(script):
        return
    shell, first = _Words(ev, has_python=has_python), ev.state.location
    lines = _find_lines(script) if sets_variables else {}  # else everything is in the line of the cell

    def go_to_next(name: str) -> None:
        ev.state.location = first._replace(line=first.line + (lines[name].pop(0) if lines.get(name) else 0))

    for words in commands_of_script(_substituted(script), keeps_assignments=True):
        is_variable = sets_variables and words[:1] != ["local"]
        words = list(itertools.dropwhile(_KEYWORDS.__contains__, words))  # noqa: PLW2901
        assignments = list(itertools.takewhile(_ASSIGNMENT.fullmatch, words))
        command = words[len(assignments) :]
        if any(os.path.basename(word).startswith(ENGINES) for word in command):
            go_to_next("")
            shell.start(command)
        elif not command:  # else they are the environment of the command
            for name, _, value in (assignment.partition("=") for assignment in assignments):
                go_to_next(name)
                shell.assign(name, value, is_variable=is_variable)
    ev.state.location = first


def _find_lines(script: str) -> dict[str, list[int]]:
    """Return the numbers of the lines that assign each variable, and by "" of those that start a container."""
    lines = {"": [number for number, line in enumerate(script.splitlines()) if _STARTS.search(line)]}
    for match in _ASSIGNS.finditer(script):
        lines.setdefault(match[1], []).append(script.count("\n", 0, match.start(1)))
    return lines


def _substituted(script: str) -> str:
    """Return a script without command substitutions, arrays and ``<placeholders>``: the words that they stand for."""
    before = ""
    for _ in range(_NESTING):  # one inside of another
        if before == script:
            break
        before = script
        for pattern, name in _SUBSTITUTIONS:
            script = pattern.sub(name, script)
    script = _COMMENT.sub(r"\1", script)
    script = _PLACEHOLDER.sub(lambda match: f"'{match[0]}'", script)
    arrays: dict[str, str] = {}
    for match in _ARRAY.finditer(script):
        words = " ".join(re.sub(r"(^|\s)#.*", "", match[3], flags=re.M).split())
        arrays[match[1]] = f"{arrays.get(match[1], '')} {words}" if match[2] else words
    script = _ARRAY.sub(lambda match: "\n" * match[0].count("\n"), script)
    for name, words in arrays.items():
        script = re.sub(rf'"?\$\{{{name}\[[@*]\]\}}"?', lambda _, words=words: words, script)  # type: ignore[misc]
    return script


def start(ev: Evaluator, command: object) -> None:
    """Record the container of a command that Python code starts: a text for a shell, or a list of words."""
    if isinstance(command, str):
        scan(ev, command)
    elif isinstance(command, list):
        words = [word if isinstance(word, (str, Unknown)) else str(word) for word in command]
        _Words(ev, has_python=False).record(words)


def read_compose(ev: Evaluator, text: str, folder: str) -> None:
    """Record the containers of a Compose file in ``folder``."""
    import yaml  # 30 ms

    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe one
        _require_bounded(document)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        ev.state.note(f"not a Compose file: {str(error).splitlines()[0]}")
        return
    services = document.get("services") if isinstance(document, dict) else None
    words = _Words(ev, has_python=False, folder=folder)
    for name, service in services.items() if isinstance(services, dict) else ():
        if isinstance(service, dict):
            left_out = [key for key in _NOT_READ if service.get(key)]
            if "extends" in left_out or (left_out and is_tao_image(str(service.get("image")))):
                ev.state.note(f"not imported of the service '{name}': {', '.join(left_out)}")
            words.start([word.replace("$$", f"{_MARK}{_MARK}") for word in _compose_words(service)])


def _require_bounded(document: object) -> None:
    """Raise ValueError for a document that its aliases make too large, or that contains itself."""
    left, size = [document], 0
    while left:
        value = left.pop()
        items = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else None
        size += 1 + (len(str(value)) if items is None else len(items))
        if size > _COMPOSE_LIMIT:
            raise ValueError("its aliases make it too large")
        left += items or []


def _find_run_options(words: Sequence[str]) -> list[str]:
    """Return the names of the options before the service of a ``docker compose run``; those behind are the task's."""
    rest = iter(words[words.index("run") + 1 :] if "run" in words else ())
    options: dict[str, None] = {}
    for word in itertools.takewhile(lambda word: word.startswith("-"), rest):
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if name in _RUN_OPTIONS:
            options[name] = None
            if name == word:
                next(rest, None)
    return [name for name in options if name not in ("--name", "-l", "--label")]


class _Words:
    """Expands the words of a shell with what is known, and makes mappings of the containers that they start.

    Both keep which variables a text is made of.
    """

    def __init__(self, ev: Evaluator, *, has_python: bool, folder: str = "") -> None:
        self._ev, self._has_python = ev, has_python
        self._folder = folder or ev.state.folder
        self._own: dict[str, str | Unknown] = {}
        self._unknown: list[Unknown] = []
        self._words: Sequence[str] = ()
        """The words of the command that is recorded."""

    def assign(self, name: str, text: str, *, is_variable: bool) -> None:
        value = self._unmarked(self._expand(text))
        if is_variable:
            self._ev.state.set_environment(name, value)
        else:
            self._own[name] = value

    def start(self, words: Sequence[str]) -> None:
        """Record the container that a command starts, if it does."""
        names = {os.path.basename(word) for word in words[:12]}
        has_engine = not names.isdisjoint(ENGINES)
        if not names.isdisjoint(("docker-compose", "podman-compose")) or ("compose" in names and has_engine):
            self._read_compose_files(words)
        elif has_engine:
            self.record([self._expand(word) for word in words])

    def _read_compose_files(self, words: Sequence[str]) -> None:
        named = [words[number + 1] for number, word in enumerate(words[:-1]) if word in ("-f", "--file")]
        if not isinstance(self._folder, str) or not {"up", "run", "create"} & set(words):
            return
        if options := _find_run_options(words):
            self._ev.state.note(f"not imported of 'compose run': {', '.join(options)}")
        paths = [os.path.join(self._folder, str(self._expand(name))) for name in named]
        paths = paths or [os.path.join(self._folder, name) for name in COMPOSE_FILES]
        for path in paths if named else [path for path in paths if os.path.isfile(path)][:1]:
            try:
                content = files.read(path, _COMPOSE_LIMIT)
            except TaoprofError as error:
                self._ev.state.note(error.message)
                continue
            if content is None:
                self._ev.state.note(f"the Compose file '{path}' does not exist here")
            else:
                read_compose(self._ev, content.decode("utf-8", "replace"), os.path.dirname(path))

    def record(self, words: Sequence[str | Unknown]) -> None:
        """Record the container of a ``docker run`` of a TAO image."""
        self._words = [word if isinstance(word, str) else self._mark(word) for word in words]
        run = parse(self._words)
        state = self._ev.state
        if run is not None and (_MARK in run.image or "$" in run.image):
            state.note("starts an image that is not known")
        elif run is not None and (is_tao_image(run.image) or parse_image_tag(run.image)):
            state.containers.append(self._build(run))

    def _build(self, run: DockerRun) -> StartedContainer:
        """Return the container of a parsed ``docker run``."""
        note = self._ev.state.note
        mounts = [
            {"source": self._path(mount.source), "destination": self._traced(mount.destination)}
            for mount in run.mounts if mount.kind == "bind"
        ]  # fmt: skip
        left_out = [mount.source or mount.destination for mount in run.mounts if mount.kind == "volume"]
        if left_out:
            note(f"volumes of Docker are left out, a profile mounts folders: {', '.join(map(self._shown, left_out))}")
        if run.ipc:
            note("--ipc is not imported; a profile has docker.shm_size")
        if run.unknown:
            note(f"not imported: {', '.join(map(self._shown, dict.fromkeys(run.unknown)))}")
        envs = [pair for pair in (self._variable(name, value) for name, value in run.env) if pair is not None]
        options: dict[str, Any] = {
            "user": self._traced(run.user), "shm_size": self._traced(run.shm_size), "ulimits": run.ulimits,
            "ports": run.ports, "network": self._traced(run.network), "privileged": run.is_privileged,
        }  # fmt: skip
        task = " ".join(itertools.takewhile(lambda word: not word.startswith("-") and "=" not in word, run.command[:2]))
        gpus = None if run.gpus == "all" else run.gpus
        if isinstance(gpus, list):
            gpus = ",".join(gpus) + ("," if len(gpus) == 1 else "")
        return StartedContainer(
            self._ev.state.location,
            {
                "Mounts": mounts, "Envs": envs,
                "DockerOptions": {name: value for name, value in options.items() if value},
            },
            str(run.image), task, None if gpus is None or _MARK in str(gpus) else str(gpus),
            frozenset(mount.destination for mount in run.mounts if mount.is_read_only),
        )  # fmt: skip

    def _variable(self, name: str, value: str | None) -> dict[str, Any] | None:
        state = self._ev.state
        if value is not None:
            known = self._traced(value)
        elif is_secret(name):
            known = TracedStr([Segment(state.context.environ.get(name) or "-", "env", name)])
        elif not isinstance(known := state.environment(name), str):
            state.note(f"the container's variable {name} comes from the shell, and is left out")
            return None
        return {"variable": name, "value": known}

    def _path(self, text: str) -> str | Unknown:
        path: str | Unknown = self._traced(text)
        if isinstance(path, str) and path.startswith(".") and isinstance(self._folder, str):
            return concat(os.path.normpath(os.path.join(self._folder, path)))
        return path

    def _traced(self, text: str | None) -> Any:
        if text is None:
            return None
        if _MARK in text:
            value = self._unmarked(text)
            return concat(value.replace(f"{_MARK}{_MARK}", "$")) if isinstance(value, str) else value
        for word in self._words:
            at = word.find(text)
            if at >= 0 and isinstance(word, TracedStr):
                return cut(word, at, at + len(text))
        return concat(text)

    def _shown(self, text: str) -> str:
        return re.sub(rf"{_MARK}\d+{_MARK}", "…", text)

    def _unmarked(self, text: str | Unknown) -> str | Unknown:
        """Return the unknown value that a text has a mark of, if it has one."""
        number = re.search(rf"{_MARK}(\d+){_MARK}", text) if isinstance(text, str) else None
        return self._unknown[int(number[1])] if number else text

    def _mark(self, unknown: Unknown) -> str:
        self._unknown.append(unknown)
        return f"{_MARK}{len(self._unknown) - 1}{_MARK}"

    def _expand(self, text: str) -> str | Unknown:
        same = _SAME.fullmatch(text)
        if same and same[2] not in self._own and self._ev.state.environment(same[2]) is None:
            text = f"{same[1] or ''}{same[2]}"  # to docker '-e NAME' is the same, and of a secret no value is needed
        pieces: list[str] = []
        position = 0
        for match in _REFERENCE.finditer(text):
            pieces.append(text[position : match.start()])
            position = match.end()
            value = self._value(match[1] or match[3], match[2]) if match[4] is None else self._python(match[4])
            value = match[0] if value is None else value
            pieces.append(value if isinstance(value, str) else self._mark(value))
        return concat(*pieces, text[position:]) if pieces else concat(text)

    def _python(self, field: str) -> str | Unknown | None:
        try:
            return self._ev.text(field[1:-1]) if self._has_python else None
        except SimulatedException:
            return None

    def _value(self, name: str, default: str | None) -> str | Unknown:
        state = self._ev.state
        if name in ("__uid", "__gid"):
            kind = name.removeprefix("__")
            return TracedStr([Segment(str(getattr(state.context, kind)), kind)])
        if name == "__folder":
            return self._folder
        if name == "__unknown":
            return state.unknown("the output of a command")
        if self._has_python and name in state.names:
            return self._python(f"{{{name}}}") or ""
        value = self._own.get(name, state.environment(name))
        if value is None and default is not None:
            return self._expand(default)
        if value is None and name.isdigit():
            return state.unknown("an argument of the script")
        if value is None:
            state.unset.setdefault(name, state.location)
            return state.unset_values.setdefault(name, state.unknown(f"${name} is not set in the code"))
        return value


def merge(notes: list[str], containers: Sequence[StartedContainer]) -> StartedContainer:
    """Return what a profile needs for all containers; what contradicts the first is named in ``notes``."""
    first = containers[0]
    mounts: dict[str, Any] = {}
    envs: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for container in containers:
        if container.gpus != first.gpus:
            notes.append(f"{container.location}: --gpus differs from that of {first.location}")
        for kind, known, items in (
            ("the mount at", mounts, ((str(m["destination"]), m) for m in container.mapping["Mounts"])),
            ("the variable", envs, ((e["variable"], e) for e in container.mapping["Envs"])),
            ("the option", options, container.mapping["DockerOptions"].items()),
        ):
            for key, value in items:
                if known.setdefault(key, value) != value:
                    notes.append(f"{container.location}: {kind} {key} differs from that of {first.location}")
    whole = {"Mounts": list(mounts.values()), "Envs": list(envs.values()), "DockerOptions": options}
    read_only = frozenset.intersection(
        *(c.read_only | (mounts.keys() - {str(m["destination"]) for m in c.mapping["Mounts"]}) for c in containers)
    )
    return first._replace(mapping={key: value for key, value in whole.items() if value or key == "Mounts"},
                          read_only=read_only)  # fmt: skip


def images(containers: Sequence[StartedContainer]) -> dict[str, str]:
    """Return the images of the tasks that have another one than the first container, by their first words."""
    others = {container.task: container.image for container in containers if container.image != containers[0].image}
    return {task: image for task, image in others.items() if task}


def _compose_words(service: Mapping[str, Any]) -> list[str]:
    """Return a Compose service as a ``docker run``. What is not of the right type is left out."""
    words = ["docker", "run"]
    for volume in _list(service.get("volumes")):
        if isinstance(volume, str):
            words += ["--volume", volume]
        elif isinstance(volume, dict):
            fields = {"type": volume.get("type"), "source": volume.get("source"), "target": volume.get("target")}
            text = ",".join(f"{key}={value}" for key, value in fields.items() if value)
            words += ["--mount", text + (",readonly" if volume.get("read_only") else "")]
    environment = service.get("environment")
    if isinstance(environment, dict):
        environment = [name if value is None else f"{name}={_scalar(value)}" for name, value in environment.items()]
    words += [word for variable in _list(environment) for word in ("--env", str(variable))]
    for key, option in (("user", "--user"), ("shm_size", "--shm-size"), ("network_mode", "--network")):
        words += [option, str(service[key])] if isinstance(service.get(key), (str, int)) else []
    limits = service.get("ulimits")
    for name, limit in limits.items() if isinstance(limits, dict) else ():
        words += ["--ulimit", f"{name}={limit.get('soft') if isinstance(limit, dict) else limit}"]
    words += [word for port in _list(service.get("ports")) for word in ("--publish", str(port))]
    words += ["--privileged"] if service.get("privileged") is True else []
    words += ["--env-file", ""] if service.get("env_file") else []
    gpus = _compose_gpus(service)
    words += ["--gpus", gpus] if gpus else []
    command = service.get("command")
    command = _split(command) if isinstance(command, str) else list(map(str, _list(command)))
    return [*words, str(service.get("image") or ""), *command]


def _compose_gpus(service: Mapping[str, Any]) -> str:
    resources: Any = service
    for key in ("deploy", "resources", "reservations"):
        resources = resources.get(key) if isinstance(resources, dict) else None
    devices = _list(resources.get("devices")) if isinstance(resources, dict) else []
    for device in (*devices, *_list(service.get("gpus"))):
        if isinstance(device, dict) and "gpu" in _list(device.get("capabilities", ["gpu"])):
            ids = _list(device.get("device_ids"))
            return f'"device={",".join(map(str, ids))}"' if ids else str(device.get("count", "all"))
    return "all" if service.get("gpus") == "all" or service.get("runtime") == "nvidia" else ""


def _scalar(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
