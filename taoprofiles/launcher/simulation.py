"""The simulation of a start: what a launcher of a given version does, and whether a container is what it should be.

It reads the mounts file in the order of the launcher, which stops at the first error (``_get_mount_env_data``,
``formatted_mounts`` and ``formatted_envs`` in docker_handler.py of every version), and makes the request to the engine
as the Docker SDK does: docker 4.3.1, which every launcher so far pins (``containers.run`` in models/containers.py,
``HostConfig`` and ``ContainerConfig`` in types/containers.py). The SDK refuses some values before it calls the engine;
the engine judges the others.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.launcher import command_line
from taoprofiles.launcher.host import (
    ENTRY_KEYS,
    Host,
    Location,
    ResolvedMount,
    find_mounts_path,
    missing_source,
    runs_in_ci,
    runs_without_docker,
)
from taoprofiles.launcher.prediction import CONTAINER, Call, Prediction, RefusedError, StartLog
from taoprofiles.launcher.versions import behaviour_of
from taoprofiles.system.filesystem import real_paths

if TYPE_CHECKING:
    from collections.abc import Mapping


class Content(NamedTuple):
    """What the launcher takes from a mounts file: the entries that it accepts, and DockerOptions as written."""

    mounts: list[ResolvedMount]
    variables: list[tuple[Location, dict[str, Any]]]
    options: Any

    @property
    def environment(self) -> list[str]:
        """Return the variables of the container as NAME=VALUE."""
        return [f"{entry['variable']}={entry['value']}" for _, entry in self.variables]


def read_mounts_file(path: str, host: Host, log: StartLog) -> Content | None:
    """Read a mounts file; return None if it is not a JSON object. A file that does not exist is empty."""
    if not host.exists(path):
        return Content([], [], {})
    data: dict[str, Any] | None = None
    with log.step("file"):
        text = io.TextIOWrapper(io.BytesIO(host.read(path)), encoding="utf-8").read()
        value = json.loads(text)
        _ = value.keys()
        data = value
    return None if data is None else _take_sections(data, host, log, path)


def _take_sections(data: dict[str, Any], host: Host, log: StartLog, path: str) -> Content:
    mounts: list[ResolvedMount] = []
    variables: list[tuple[Location, dict[str, Any]]] = []
    options: Any = {}
    with log.step("file"):
        if "Mounts" not in data:
            raise RefusedError("AssertionError", "Invalid json file. Requires Mounts key.", Location("file"))
    for section, value in log.while_few(data.items()):
        if section == "Mounts":
            mounts = _take_mounts(value, host, log)
        elif section == "Envs":
            variables = _take_variables(value, log)
        elif section == "DockerOptions":
            options = value
        else:
            with log.step("file"):
                message = f"Invalid field {section} found in {path} file."
                raise RefusedError("KeyError", message, Location("file", key=section))
    return Content(mounts, variables, options)


def get_volumes(mounts: Iterable[ResolvedMount]) -> dict[str, str]:
    """Return what reaches Docker, destination by source: of several mounts of one source only the last."""
    return {mount.source: mount.destination for mount in mounts}


def _take_mounts(value: Any, host: Host, log: StartLog) -> list[ResolvedMount]:
    mounts: list[ResolvedMount] = []
    entries: list[Any] = []
    with log.step("Mounts"):
        entries = list(value)
    for index, entry in log.while_few(enumerate(entries)):
        location = Location("Mounts", index)
        if not _has_keys(entry, "Mounts are not formatted correctly.", location, log):
            continue
        paths: list[str] = []
        for key in ENTRY_KEYS["Mounts"]:
            with log.step("Mounts", index, key):
                paths.append(host.realpath(host.expanduser(entry[key])))
        if len(paths) < 2:
            continue
        source, destination = paths
        with log.step("Mounts", index):
            if not host.exists(source):
                raise RefusedError("ValueError", missing_source(source), location._replace(key="source"))
        mounts.append(ResolvedMount(location, source, destination, entry))
    return mounts


def _take_variables(value: Any, log: StartLog) -> list[tuple[Location, dict[str, Any]]]:
    entries: list[Any] = []
    with log.step("Envs"):
        entries = list(value)
    located = [(Location("Envs", index), entry) for index, entry in enumerate(entries)]
    message = "Env variables aren't formatter correctly."
    return [(location, entry) for location, entry in log.while_few(located) if _has_keys(entry, message, location, log)]


def _has_keys(entry: Any, message: str, location: Location, log: StartLog) -> bool:
    before = len(log.refusals)
    with log.step(*location):
        if not set(ENTRY_KEYS[location.section]) <= set(entry.keys()):
            raise RefusedError("AssertionError", message, location)
    return len(log.refusals) == before


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


def _create_request(
    image: str,
    volumes: dict[str, str],
    environment: list[str],
    options: dict[str, Any],
    *,
    entrypoint: list[str] | None,
    log: StartLog,
) -> dict[str, Any]:
    """Return the body of the request ``/containers/create``; ``options`` are the launcher's arguments, tty included."""
    network = options.get("network")
    host: dict[str, Any] = {"AutoRemove": True, "DeviceRequests": [_ALL_GPUS], "NetworkMode": network or "default"}
    networking = None
    with log.step("DockerOptions", key="network"):
        networking = {network: None} if network else None
    size = options.get("shm_size")
    with log.step("DockerOptions", key="shm_size"):
        host["ShmSize"] = _parse_size(size) if isinstance(size, str) else size
    host["Privileged"] = options.get("privileged") or None
    if volumes:
        host["Binds"] = [f"{source}:{destination}:rw" for source, destination in volumes.items()]
    ports = options.get("ports")
    bindings = _port_bindings(ports, log) if ports else {}
    host["PortBindings"] = bindings if ports else None
    if "ulimits" in options:
        host["Ulimits"] = [{"Name": name, "Soft": v, "Hard": v} for name, v in options["ulimits"].items()]
    user = options.get("user")
    request = {
        "Image": image,
        "Entrypoint": entrypoint,
        "User": None if user is None else str(user),
        "Tty": options["tty"],
        "Env": environment or None,
        "Volumes": {bind: {} for bind in volumes.values()} if volumes else None,
        "ExposedPorts": {port: {} for port in bindings} if bindings else None,
        "NetworkingConfig": networking,
        "HostConfig": {key: value for key, value in host.items() if value is not None},
    }
    never = ("OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr", "NetworkDisabled")
    return {key: value for key, value in request.items() if value is not None} | dict.fromkeys(never, False)


_CI_OPTIONS = ("tty", "privileged", "shm_size")
_ANY_TASK = command_line.Task("", [], "", "")


def predict(version: str, host: Host, arguments: list[str] | None, *, ignore_ci: bool = False) -> Prediction:
    """Return what ``tao ARGUMENTS`` does with the mounts file that it reads, up to its last call of Docker.

    Docker is assumed to answer, and to have the image. ``arguments`` None means any task: then the task is not
    looked up, the login to the registry not tested, and ``call.image`` is "". With ``ignore_ci`` the container is the
    one of a start without CI_PROJECT_DIR, and what that variable would drop is still among the changes. Only ``host``
    is read.

    Raises ValueError for anything that is not a version of the launcher (see ``versions.parse``).
    """
    start = _Start(version, host, ignore_ci=ignore_ci)
    start.run(arguments)
    return start


class _Start(Prediction):
    """One start, step by step, in the launcher's order; a step that is refused is left out."""

    def __init__(self, version: str, host: Host, *, ignore_ci: bool) -> None:
        self.behaviour, self.host, self.ignore_ci = behaviour_of(version), host, ignore_ci
        super().__init__(self.behaviour.version)
        self.is_ci = runs_in_ci(host.environ, self.behaviour)

    def run(self, arguments: list[str] | None) -> None:
        if self.behaviour.has_no_docker_mode and self.host.environ.get("TAO_DOCKER_DISABLE", "0") not in ("0", "1"):
            with self.step("environ", key="TAO_DOCKER_DISABLE"):
                raise AssertionError("Invalid value for TAO_DOCKER_DISABLE")
        is_bare = runs_without_docker(self.host.environ, self.behaviour)
        task: command_line.Task | None = _ANY_TASK
        if arguments is not None:
            with self.step("config"):
                task = command_line.find_task(self.behaviour, self.host, arguments)
        if task is not None and not is_bare:
            self._start_task(task)
        elif task is not None and task is not _ANY_TASK:
            with self.step("command"):
                if not task.rest:
                    message = "cannot access local variable 'command' where it is not associated with a value"
                    raise RefusedError("UnboundLocalError", message, Location("command"))
                self.shell = command_line.container_command_line(task.name, task.rest)
                command_line.check_argument(self.shell)

    def _start_task(self, task: command_line.Task) -> None:
        if task is not _ANY_TASK:
            command_line.check_login(self.behaviour, self.host, task.registry, self)
        given = command_line.take_volumes(task.rest, self) if self.behaviour.volume_argument else []
        for word in task.rest:
            if word == "--volume" or word.startswith("--volume="):
                self.change("volume-not-seen", Location("command"), was=word)
        path = find_mounts_path(self.host, self.behaviour)
        self.source_file = path if self.host.exists(path) else None
        self.content = read_mounts_file(path, self.host, self)
        if self.content is None:
            return
        line = command_line.container_command_line(task.name, task.rest)
        if self.is_ci and not self.ignore_ci:
            self._run_in_ci(task.image, self.content, line)
        else:
            self._run_container(task.image, self.content, given, line)

    def _run_container(self, image: str, content: Content, given: list[tuple[Location, str]], line: str) -> None:
        host = self.host
        for location, text in given:
            with self.step(*location):
                parts = text.split(":")
                entry = {"source": parts[0], "destination": parts[1]}
                self.volumes.append(ResolvedMount(location, host.realpath(parts[0]), host.realpath(parts[1]), entry))
                if parts[2:] and parts[2:] != ["rw"]:
                    self.change("mode-ignored", location, ":".join(parts[2:]))
        volumes = get_volumes([*content.mounts, *self.volumes])
        environment = list(content.environment)
        if self.behaviour.sets_client_type:
            environment.append("TAO_CLIENT_TYPE=launcher")
        tty: Any = True
        has_options = content.options is not None
        if self.behaviour.needs_options:
            has_options = False
            with self.step("DockerOptions"):
                tty = content.options["tty"] if "tty" in list(content.options.keys()) else True
                has_options = True
        options = {"tty": True, **(self._check_options(content.options) if has_options else {})}
        if self.is_ci:
            dropped = [Location("DockerOptions", key=key) for key in options if key not in _CI_OPTIONS]
            for location in [*dropped, *(location for location, _ in given)]:
                self.change("ci-dropped", location)
        body = _create_request(image, volumes, environment, options, entrypoint=self.behaviour.entrypoint, log=self)
        config = body["HostConfig"]
        self.call = Call(
            image,
            volumes,
            environment,
            body.get("User"),
            config.get("ShmSize"),
            options.get("ulimits", {}),
            config.get("PortBindings", {}),
            options.get("network") or None,
            bool(options.get("privileged")),
            bool(tty),
            body,
        )
        interactive = "-it" if tty else "-i"
        self.shell = f"bash -c 'docker exec {interactive} {CONTAINER} {line}'"

    def _check_options(self, options: Any) -> dict[str, Any]:
        items: list[tuple[str, Any]] = []
        accepted: dict[str, Any] = {}
        with self.step("DockerOptions"):
            items = list(options.items())
        for key, value in self.while_few(items):
            with self.step("DockerOptions", key=key):
                accepted[key] = self._check_option(key, value)
        return accepted

    def _check_option(self, key: str, value: Any) -> Any:
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

    def _run_in_ci(self, image: str, content: Content, line: str) -> None:
        tty, options = True, {}
        with self.step("DockerOptions"):
            tty = bool(content.options.get("tty", True))
            options = dict(content.options)
        words = ["docker run", "-it" if tty else "-i", "--rm", "--gpus all"]
        volumes = get_volumes(content.mounts)
        words.append(" ".join(f"-v {source}:{destination}:rw" for source, destination in volumes.items()))
        words.append(" ".join(f"-e {variable}" for variable in content.environment))
        for key, value in options.items():
            words += ["--privileged"] if key == "privileged" and value else []
            words += [f"--shm-size {value}"] if key == "shm_size" else []
        self.shell = f"{' '.join(words)} {image} {line}"
        with self.step("file"):
            command_line.check_argument(self.shell)


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
