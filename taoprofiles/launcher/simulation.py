"""The simulation of a start: what a launcher of a given version does, and whether a container is what it should be.

It reads the mounts file in the order of the launcher, which stops at the first error (``_get_mount_env_data``,
``formatted_mounts`` and ``formatted_envs`` in docker_handler.py of every version), and makes the request to the engine
as the Docker SDK does: docker 4.3.1, which every launcher so far pins (``containers.run`` in models/containers.py,
``HostConfig`` and ``ContainerConfig`` in types/containers.py). The SDK refuses some values before it calls the engine;
the engine judges the others. The command line: ``main`` of each version's entrypoint, ``launch_command`` and
``parse_launcher_config`` in local_instance.py and whl_instance.py, and types/task.py.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

from taoprofiles.launcher.argv import GROUPS, HANDLERS, VOLUME
from taoprofiles.launcher.behaviour import (
    ENTRY_KEYS,
    Behaviour,
    Host,
    Location,
    ResolvedMount,
    behaviour_of,
    find_mounts_path,
    missing_source,
    runs_in_ci,
    runs_without_docker,
    skips_login,
)
from taoprofiles.masking import mask_command
from taoprofiles.system.filesystem import real_paths

T = TypeVar("T")

_ERRORS = (AssertionError, AttributeError, LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError)
"""What the launcher's own statements raise on values of a wrong type or form."""


class Refusal(NamedTuple):
    """A reason for which the launcher ends before it starts a container.

    ``kind`` is the name of the exception's class as in the last line of the traceback (without the module), or
    "SystemExit" if the launcher itself ends; ``message`` its text.
    """

    kind: str
    message: str
    location: Location

    def __str__(self) -> str:
        return f"{self.kind}: {self.message.strip()}".replace("\n", " ")[:300]


class Call(NamedTuple):
    """The container that Docker is asked for.

    ``volumes`` is the destination by source, both as they reach Docker, all writable; ``environment`` has NAME=VALUE
    lines, secrets included; ``ulimits`` the limit by name; ``ports`` the PortBindings of the request; ``shm_size`` is
    in bytes if it was text. None or {} means: not asked for. ``body`` is the whole request that the Docker SDK
    sends to ``/containers/create``. All GPUs are always asked for.
    """

    image: str
    volumes: dict[str, str]
    environment: list[str]
    user: str | None
    shm_size: Any
    ulimits: Mapping[str, Any]
    ports: Mapping[str, Any]
    network: Any
    privileged: bool
    tty: bool
    body: dict[str, Any]


class RefusedError(Exception):
    """Raised with the fields of a Refusal, if the launcher ends with a message of its own, or of the Docker SDK."""


MOST_REFUSALS = 1000
"""No more are looked for: a mounts file has room for 300,000 entries, each of which is wrong."""


class StartLog:
    """The refusals of a start, in the order of the launcher."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []

    def while_few(self, entries: Iterable[T]) -> Iterator[T]:
        """Yield the entries until there are MOST_REFUSALS."""
        return takewhile(lambda _: len(self.refusals) < MOST_REFUSALS, entries)

    @contextmanager
    def step(self, section: str, number: int | None = None, key: str = "") -> Iterator[None]:
        """Record an exception in the body as a refusal, and end the step.

        The body does what the launcher does, such as ``keys()`` of a list, so that Python's message is the same.
        """
        try:
            yield
        except RefusedError as error:
            self.refusals.append(Refusal(*error.args))
        except _ERRORS as error:
            message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            self.refusals.append(Refusal(type(error).__name__, message, Location(section, number, key)))


class Prediction(StartLog):
    """What the launcher does up to its last call of Docker.

    ``version`` is the known launcher whose behaviour is predicted; ``source_file`` the path of the mounts file that it
    reads, None if it reads none; ``content`` what it takes from that file; ``volumes`` the mounts of ``--volume``.
    ``refusals`` are in the order of the launcher, which stops at the first. ``call`` leaves out what is refused, and
    is None if no container is asked for (``tao list``, ``--help``, TAO_DOCKER_DISABLE) or the mounts file cannot be
    read. CI_PROJECT_DIR makes the launcher put together a ``docker run`` instead, from a part of the same: ``call`` is
    that of a start without the variable, and ``dropped_in_ci`` what the launcher then leaves out.

    Silent, and not visible in the mounts file: ``unseen_volumes`` are the words ``--volume`` that go to the task as
    arguments, ``ignored_modes`` the modes of volumes that are writable in spite of them.
    """

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        self.source_file: str | None = None
        self.content: Content | None = None
        self.volumes: list[ResolvedMount] = []
        self.call: Call | None = None
        self.dropped_in_ci: list[Location] = []
        self.unseen_volumes: list[str] = []
        self.ignored_modes: list[str] = []


# The mounts file


class Content(NamedTuple):
    """What the launcher takes from a mounts file: the entries that it accepts, and DockerOptions as written."""

    mounts: list[ResolvedMount]
    variables: list[tuple[Location, dict[str, Any]]]
    options: Any


def read_mounts_file(path: str, host: Host, log: StartLog) -> Content | None:
    """Read a mounts file; return None if it is not a JSON object. A file that does not exist is empty."""
    content = Content([], [], {})
    if not host.exists(path):
        return content
    data: dict[str, Any] | None = None
    with log.step("file"):
        value = json.loads(io.TextIOWrapper(io.BytesIO(host.read(path)), encoding="utf-8").read())
        _ = value.keys()
        data = value
    if data is None:
        return None
    if "Mounts" not in data:
        log.refusals.append(Refusal("AssertionError", "Invalid json file. Requires Mounts key.", Location("file")))
    for section, value in log.while_few(data.items()):
        if section == "Mounts":
            content = content._replace(mounts=_take_mounts(value, host, log))
        elif section == "Envs":
            message = "Env variables aren't formatter correctly."
            content = content._replace(variables=list(_entries(value, "Envs", message, log)))
        elif section == "DockerOptions":
            content = content._replace(options=value)
        else:
            message = f"Invalid field {section} found in {path} file."
            log.refusals.append(Refusal("KeyError", message, Location("file", key=section)))
    return content


def get_volumes(mounts: Iterable[ResolvedMount]) -> dict[str, str]:
    """Return what reaches Docker, destination by source: of several mounts of one source only the last."""
    return {mount.source: mount.destination for mount in mounts}


def _take_mounts(value: Any, host: Host, log: StartLog) -> list[ResolvedMount]:
    mounts: list[ResolvedMount] = []
    for location, entry in _entries(value, "Mounts", "Mounts are not formatted correctly.", log):
        paths = []
        for key in ENTRY_KEYS["Mounts"]:
            with log.step("Mounts", location.number, key):
                paths.append(host.realpath(host.expanduser(entry[key])))
        if len(paths) == 2:
            if not host.exists(paths[0]):
                log.refusals.append(Refusal("ValueError", missing_source(paths[0]), location._replace(key="source")))
            mounts.append(ResolvedMount(location, paths[0], paths[1], entry))
    return mounts


def _entries(value: Any, section: str, message: str, log: StartLog) -> Iterator[tuple[Location, dict[str, Any]]]:
    """Yield the entries of a list that have the keys that they need; ``message`` is said of the others."""
    entries: list[Any] = []
    with log.step(section):
        entries = list(value)
    for number, entry in log.while_few(enumerate(entries)):
        with log.step(section, number):
            if not set(ENTRY_KEYS[section]) <= set(entry.keys()):
                raise RefusedError("AssertionError", message, Location(section, number))
            yield Location(section, number), entry


# The task, its image and the login that it needs


class Task(NamedTuple):
    """The task of a start.

    ``rest`` are the arguments after the task; ``image`` is "" if no table of images is known; ``registry`` must be
    logged in to.
    """

    rest: list[str]
    image: str
    registry: str


def find_task(behaviour: Behaviour, host: Host, arguments: list[str]) -> Task | None:
    """Find the task that the command line names, or None if it asks for no container.

    Raises RefusedError, and what a damaged table of images makes the launcher raise.
    """
    known = read_images(behaviour, host)
    depth = 2 if behaviour.task_groups else 1
    words, rest = arguments[:depth], list(arguments[depth:])
    if known is None and len(words) == depth and not words[-1].startswith("-") and words[0] not in HANDLERS:
        if (words[0] in GROUPS) is not behaviour.task_groups:
            raise RefusedError("SystemExit", f"invalid choice: '{words[0]}'", Location("command", 0))
        return Task(rest, "", "nvcr.io")
    is_bare = runs_without_docker(host.environ, behaviour)
    tasks = known or {}
    key = tuple(words) if behaviour.task_groups else ("", *words)
    if len(words) == depth and key in tasks:
        registry, name = tasks[key]
        return Task(rest, f"{registry}/{name}", registry)
    if not words or (words[0] in HANDLERS and not is_bare):
        return None
    choices = {group if behaviour.task_groups else name for group, name in tasks} or set(GROUPS)
    if _shows_help(arguments, choices if is_bare else {*choices, *HANDLERS}, depth):
        return None
    if is_bare:
        message = "Task asked for wasn't implemented to run on WHL instance. " + words[-1]
        if behaviour.task_groups and words[0] not in choices:
            message = f"Task group asked for wasn't implemented to run on WHL instance: {words[0]}"
        raise RefusedError("NotImplementedError", message, Location("command"))
    if words[0] in choices:
        return None  # 'tao model --nosuch': it does nothing
    message = "The tasks provided must be in instance handlers tasks or supported DL tasks."
    raise RefusedError("AssertionError", message, Location("command"))


def _shows_help(arguments: list[str], choices: Collection[str], depth: int) -> bool:
    """Check whether the launcher's argparse prints the help for arguments that name no task.

    It skips every option that it does not know, and each other argument must be one of ``choices``, at any depth: the
    parsers of the groups and tasks have the first parser as their parent. Raises RefusedError for one that is not.
    """
    for number, word in enumerate(arguments):
        if word == "-h" or (len(word) > 2 and "--help".startswith(word)):
            return True
        is_option = word.startswith("-") and word != "-" and " " not in word
        if not is_option and word not in choices:
            message = f"invalid choice: '{mask_command(arguments)[number]}'"
            raise RefusedError("SystemExit", message, Location("command", number))
    return len(arguments) < depth  # then the launcher adds --help


def known_images(behaviour: Behaviour, host: Host) -> dict[tuple[str, ...], tuple[str, str]]:
    """Return what ``read_images`` does, {} for no table or a damaged one."""
    images = None
    with StartLog().step("config"):
        images = read_images(behaviour, host)
    return images or {}


def read_images(behaviour: Behaviour, host: Host) -> dict[tuple[str, ...], tuple[str, str]] | None:
    """Return registry, which OVERRIDE_REGISTRY replaces, and NAME:TAG by (group, task); None if no table is known.

    Before 5.0.0 the group is "".

    Raises RefusedError, and what a damaged table makes the launcher raise.
    """
    own = host.expanduser(behaviour.override_config)
    content = host.config
    if host.exists(own):
        with suppress(IsADirectoryError):
            content = host.read(own)
    if content is None:
        return None
    data = json.loads(content)
    if not behaviour.task_groups and not runs_without_docker(host.environ, behaviour):
        _ = data["dockers"].keys()  # the launcher reads it first
    if "format_version" not in list(data.keys()):  # raises as in the launcher if it is not an object
        raise KeyError("format is a required key in the launcher config.")
    form = data["format_version"]
    if form == 3.0 and behaviour.task_groups:
        groups = {group: about["dockers"] for group, about in data["task_group"].items()}
    elif form in (1.0, 2.0):
        groups = {"container_actions" if behaviour.task_groups else "": data["dockers"]}
    else:
        raise RefusedError("NotImplementedError", f"Invalid format type: {form}", Location("config"))
    if form == 1.0:
        dockers = groups.popitem()
        groups = {dockers[0]: {name: {about["docker_tag"]: about} for name, about in dockers[1].items()}}
    return {
        (group, task): (host.environ.get("OVERRIDE_REGISTRY", about["docker_registry"]), f"{name}:{tag}")
        for group, images in groups.items()
        for name, tags in images.items()
        for tag, about in tags.items()
        for task in about["tasks"]
    }


# The container


_ALL_GPUS = {"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _parse_size(text: str) -> int:
    """Return a size such as ``16G``, ``1.5 g`` or ``64MB`` in bytes, also the unit if there is none; 0 for no text.

    Raises RefusedError; and OverflowError or ValueError for infinity and the like.
    """
    if not text:
        return 0
    if text[-2:].isalpha() and len(text) > 1 and text[-1] in "bB":
        text = text[:-1]
    number, unit = (text, "b") if text[-1].isdigit() else (text[:-1], text[-1].lower())
    message = (
        f"The specified value for memory ({text}) should specify the units. "
        "The postfix should be one of the `b` `k` `m` `g` characters"
    )
    if unit in _UNITS:
        try:
            size = float(number)
        except ValueError:
            message = f"Failed converting the string value for memory ({number}) to an integer."
        else:
            return int(size * _UNITS[unit])
    raise RefusedError("DockerException", message, Location("DockerOptions", key="shm_size"))


def size_in_bytes(size: object) -> int | None:
    """Return a size, given as text or number, in bytes; None for anything else."""
    try:
        return _parse_size(size) if isinstance(size, str) else int(size) if isinstance(size, int) else None
    except (RefusedError, ValueError, OverflowError):
        return None


def _port_bindings(ports: Any, log: StartLog) -> dict[str, list[dict[str, Any]]]:
    items: list[tuple[str, Any]] = []
    bindings: dict[str, list[dict[str, Any]]] = {}
    with log.step("DockerOptions", key="ports"):
        items = list(ports.items())
    for key, hosts in items:
        with log.step("DockerOptions", key=f"ports.{key}"):
            bindings[key if "/" in key else f"{key}/tcp"] = [
                _binding(host) for host in (hosts if isinstance(hosts, list) else [hosts])
            ]
    return bindings


def _binding(host: Any) -> dict[str, Any]:
    address = ""
    if isinstance(host, dict):
        if "HostPort" not in host:
            raise ValueError(host)
        host, address = host["HostPort"], host.get("HostIp", "")
    return {"HostIp": address, "HostPort": "" if host is None else str(host)}


_CI_OPTIONS = ("tty", "privileged", "shm_size")
_ANY_TASK = Task([], "", "")


def predict(version: str, host: Host, arguments: list[str] | None) -> Prediction:
    """Return what ``tao ARGUMENTS`` does with the mounts file that it reads, up to its last call of Docker.

    Docker is assumed to answer, and to have the image. ``arguments`` None means any task: then the task is not
    looked up, the login to the registry not tested, and ``call.image`` is "". Only ``host`` is read.

    Raises ValueError for anything that is not a version of the launcher (see ``parse_version``).
    """
    start = _Start(version, host)
    start.run(arguments)
    return start


class _Start(Prediction):
    """One start, step by step, in the launcher's order; a step that is refused is left out."""

    def __init__(self, version: str, host: Host) -> None:
        self.behaviour, self.host = behaviour_of(version), host
        super().__init__(self.behaviour.version)

    def run(self, arguments: list[str] | None) -> None:
        if self.behaviour.has_no_docker_mode and self.host.environ.get("TAO_DOCKER_DISABLE", "0") not in ("0", "1"):
            location = Location("environ", key="TAO_DOCKER_DISABLE")
            self.refusals.append(Refusal("AssertionError", "Invalid value for TAO_DOCKER_DISABLE", location))
        task: Task | None = _ANY_TASK
        if arguments is not None:
            with self.step("config"):
                task = find_task(self.behaviour, self.host, arguments)
        if task is not None and not runs_without_docker(self.host.environ, self.behaviour):
            self._start_task(task)
        elif task is not None and task is not _ANY_TASK and not task.rest:
            message = "cannot access local variable 'command' where it is not associated with a value"
            self.refusals.append(Refusal("UnboundLocalError", message, Location("command")))

    def _start_task(self, task: Task) -> None:
        if task is not _ANY_TASK:
            self._check_login(task.registry)
        volumes = self._take_volumes(task.rest) if self.behaviour.volume_argument else []
        self.unseen_volumes = [word for word in task.rest if word == VOLUME or word.startswith(f"{VOLUME}=")]
        path = find_mounts_path(self.host, self.behaviour)
        self.source_file = path if self.host.exists(path) else None
        self.content = read_mounts_file(path, self.host, self)
        if self.content is not None:
            self._add_volumes(volumes)
            options = self._accept_options(self.content.options)
            if runs_in_ci(self.host.environ, self.behaviour):
                dropped = [Location("DockerOptions", key=key) for key in options if key not in _CI_OPTIONS]
                self.dropped_in_ci = [*dropped, *(Location(VOLUME, number) for number in range(len(volumes)))]
            self._ask_docker(task.image, self.content, options)

    def _check_login(self, registry: str) -> None:
        """Repeat the launcher's test of the login: the registry must be a key of ``auths`` in its one file.

        ``docker_logged_in`` in the launcher's utils.py (nvidia-tao 6.26.3 lines 147 to 173, and the same in 0.1.21 and
        4.0.1): DOCKER_CONFIG and the credential helpers do not count.
        """
        if skips_login(self.host.environ, self.behaviour):
            return
        path = self.host.expanduser("~/.docker/config.json")
        with self.step("login"):
            if not self.host.exists(path):
                message = f"Config path must be a valid unix path. No file found at: {path}. Did you run docker login?"
                raise RefusedError("AssertionError", message, Location("login"))
            data = json.loads(self.host.read(path).decode())
            if "auths" not in list(data.keys()):
                message = "Docker CLI hasn't been logged in to a registry.Please run `docker login nvcr.io`"
                raise RefusedError("ValueError", message, Location("login"))
            with self.step("login", key="auths"):
                if registry not in list(data["auths"].keys()):
                    message = f"\nDocker not logged in to {registry}. Please run docker login {registry}"
                    raise RefusedError("AssertionError", message, Location("login", key=registry))

    def _take_volumes(self, rest: list[str]) -> list[str]:
        """Take every ``--volume VALUE`` out of a task's arguments."""
        values: list[str] = []
        with self.step(VOLUME):
            while VOLUME in rest:
                at = rest.index(VOLUME)
                if at + 1 == len(rest):
                    message = "Missing mount given --volume arg provided"
                    raise RefusedError("AssertionError", message, Location(VOLUME, len(values)))
                values.append(rest[at + 1])
                del rest[at : at + 2]
            if values and not rest:  # the launcher looks at the first of the remaining arguments
                raise RefusedError("IndexError", "list index out of range", Location("command"))
        return values

    def _add_volumes(self, values: list[str]) -> None:
        for number, text in enumerate(values):
            location, parts = Location(VOLUME, number), text.split(":")
            with self.step(*location):
                entry = {"source": parts[0], "destination": parts[1]}
                source, destination = map(self.host.realpath, entry.values())
                self.volumes.append(ResolvedMount(location, source, destination, entry))
                if parts[2:] and parts[2:] != ["rw"]:
                    self.ignored_modes.append(":".join(parts[2:]))

    def _accept_options(self, written: Any) -> dict[str, Any]:
        """Return the options that the launcher gives to the Docker SDK; ``written`` is DockerOptions, of any type."""
        items: list[tuple[str, Any]] = []
        with self.step("DockerOptions"):
            if self.behaviour.needs_options:
                written.keys()  # it looks for "tty" first
            if written is not None:
                items = list(written.items())
        accepted: dict[str, Any] = {"tty": True}
        for key, value in self.while_few(items):
            with self.step("DockerOptions", key=key):
                accepted[key] = self._accept_option(key, value)
        return accepted

    def _accept_option(self, key: str, value: Any) -> Any:
        location = Location("DockerOptions", key=key)
        if key not in self.behaviour.options:
            message = (
                f'The parameter "{key}" mentioned in the config file isn\'t a valid option.'
                f"\nPlease choose one of the following: {self.behaviour.options}"
            )
            raise RefusedError("AssertionError", message, location)
        if key != "ulimits":
            return value
        if not isinstance(value, dict):
            raise RefusedError("AssertionError", "Ulimits should be a dictionary of params", location)
        limits = {}
        for name, limit in self.while_few(value.items()):  # each is both the soft and the hard one
            with self.step("DockerOptions", key=f"ulimits.{name}"):
                if limit and not isinstance(limit, int):
                    raise ValueError("Ulimit.soft must be an integer")
                limits[name] = limit
        return limits

    def _ask_docker(self, image: str, content: Content, options: dict[str, Any]) -> None:
        """Make the body of the request ``/containers/create``; ``options`` are the launcher's arguments."""
        volumes = get_volumes([*content.mounts, *self.volumes])
        environment = [f"{entry['variable']}={entry['value']}" for _, entry in content.variables]
        if self.behaviour.sets_client_type:
            environment.append("TAO_CLIENT_TYPE=launcher")
        network = options.get("network")
        host: dict[str, Any] = {"AutoRemove": True, "DeviceRequests": [_ALL_GPUS], "NetworkMode": network or "default"}
        networking = None
        with self.step("DockerOptions", key="network"):
            networking = {network: None} if network else None
        size = options.get("shm_size")
        with self.step("DockerOptions", key="shm_size"):
            host["ShmSize"] = _parse_size(size) if isinstance(size, str) else size
        host["Privileged"] = options.get("privileged") or None
        if volumes:
            host["Binds"] = [f"{source}:{destination}:rw" for source, destination in volumes.items()]
        ports = options.get("ports")
        bindings = _port_bindings(ports, self) if ports else {}
        host["PortBindings"] = bindings if ports else None
        ulimits = options.get("ulimits", {})
        if "ulimits" in options:
            host["Ulimits"] = [{"Name": name, "Soft": v, "Hard": v} for name, v in ulimits.items()]
        user = None if options.get("user") is None else str(options["user"])
        request = {
            "Image": image,
            "Entrypoint": self.behaviour.entrypoint,
            "User": user,
            "Tty": options["tty"],
            "Env": environment or None,
            "Volumes": {bind: {} for bind in volumes.values()} if volumes else None,
            "ExposedPorts": {port: {} for port in bindings} if bindings else None,
            "NetworkingConfig": networking,
            "HostConfig": {key: value for key, value in host.items() if value is not None},
        }
        never = ("OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr", "NetworkDisabled")
        body = {key: value for key, value in request.items() if value is not None} | dict.fromkeys(never, False)
        self.call = Call(
            image, volumes, environment, user, host.get("ShmSize"), ulimits, bindings, network or None,
            bool(options.get("privileged")), bool(options["tty"]), body,
        )  # fmt: skip


def differences(wanted: Mapping[str, Any], container: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Return how a container differs from its mapping, one line each, with the launcher's reason if it is known.

    ``container`` is what ``engine.parse_container`` returns; ``environ`` is the environment of the launcher. The
    lines contain no values of variables, which may be secret.
    """
    lines = _mount_differences(wanted, container["Binds"])
    for item in wanted.get("Envs", []):
        if f"{item['variable']}={item['value']}" not in container["Env"]:
            lines.append(f"the variable {item['variable']} differs from the mapping")
    options = wanted.get("DockerOptions", {})
    if "user" in options and container["User"] != str(options["user"]):
        lines.append(f"the user is '{container['User'] or 'root'}', not '{options['user']}'")
    if "shm_size" in options and container["ShmSize"] != size_in_bytes(options["shm_size"]):
        lines.append(f"the shared memory has {container['ShmSize']} bytes, not {options['shm_size']}")
    for name, limit in (options.get("ulimits") or {}).items():
        if container["Ulimits"].get(name) != limit:
            lines.append(f"the limit {name} is {container['Ulimits'].get(name)}, not {limit}")
    if lines and runs_in_ci(environ):
        lines.append("CI_PROJECT_DIR is set: the launcher ignores user, limits, ports and network; unset it")
    return lines


def _mount_differences(wanted: Mapping[str, Any], binds: Mapping[str, str]) -> list[str]:
    sources = real_paths(mount["source"] for mount in wanted["Mounts"])
    expected = [
        (source, os.path.normpath(mount["destination"]))
        for source, mount in zip(sources, wanted["Mounts"], strict=True)
    ]
    actual = {destination: source for source, destination in binds.items()}
    missing = [(source, destination) for source, destination in expected if actual.get(destination) != source]
    if expected and len(missing) == len(expected) and not set(actual.values()) & {source for source, _ in expected}:
        return ["none of the profile's folders is mounted: the launcher read another mounts file, or none"]
    lines = []
    for source, destination in missing:
        real = os.path.realpath(destination)
        reason = ""
        if real != destination and actual.get(real) == source:
            reason = f": it is on '{real}', because the destination is a link on this host"
        elif source in actual.values():
            reason = ": the launcher keeps only the last mount of a folder"
        elif destination in actual:
            reason = f": '{actual[destination]}' is mounted there"
        lines.append(f"'{source}' is not mounted on '{destination}'{reason}")
    for destination, source in actual.items():
        if not missing and (source, destination) not in expected:
            lines.append(f"'{source}' is mounted on '{destination}', which the profile does not ask for")
    return lines
