"""A client of the container engine's HTTP API, Docker's or Podman's. Every request has a deadline.

The Docker SDK takes 190 ms to import, more than a whole ``use``; the few requests here need a socket and JSON. HTTP 1.0
keeps it that small: the engine closes the connection after its answer and sends no chunks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from taoprofiles.errors import reason_of
from taoprofiles.storage import files

if TYPE_CHECKING:
    import socket

T = TypeVar("T")

PROFILE_LABEL, STATE_LABEL, RUN_LABEL = "taoprofiles.profile", "taoprofiles.state", "taoprofiles.run"
"""Labels of containers started without the launcher: the profile, the state folder of its owner, and the run's id."""

AGENT_LABELS = ("tao-job", "tao-sdk-job-id", "com.nvidia.tao.nemoclaw.results-token", "com.nvidia.tao.nemoclaw.managed")
"""Labels of containers that NVIDIA's skills, its TAO SDK and its nemoclaw server start; the value is the job's id.

Sources: tao-run-on-docker of NVIDIA's skill bank (7.1.0), handler.py of nvidia-tao-sdk 7.2.0, docker_runtime.py of
nemoclaw. The last one is the mark of a container without a job.
"""

AGENT_RESULTS = "com.nvidia.tao.nemoclaw.results-path"
"""nemoclaw's label with its results folder: its mounts are parts of volumes, of which the engine tells no path."""

LABELS = (PROFILE_LABEL, STATE_LABEL, RUN_LABEL, *AGENT_LABELS, AGENT_RESULTS)

DEFAULT = "unix:///var/run/docker.sock"
"""Where the launcher's clients look without DOCKER_HOST (DEFAULT_DOCKER_PATH in its docker_handler.py)."""

TIMEOUT = 2.0
"""Seconds that a question may take before the engine counts as one that does not answer."""

SSH_TIMEOUT = 10.0
"""The same for an engine behind ssh, where each question is a separate login of up to two seconds."""

_LIMIT = 64 << 20
_FILE_LIMIT = 1 << 20


ABSENT, REFUSED, DENIED, TIMED_OUT, INVALID = "absent", "refused", "denied", "silent", "odd"
"""The kinds of an EngineError, as they are in the JSON of ``taoprof doctor``. ABSENT: there is no engine at all."""


class EngineError(Exception):
    """The engine could not be reached, or refused; the text says why, and ``kind`` is one of the above."""

    def __init__(self, reason: str, kind: str = INVALID) -> None:
        super().__init__(reason)
        self.kind = kind
        self.absent = kind == ABSENT


_INVALID_RESPONSE = "its response is not that of a Docker API"


class Endpoint(NamedTuple):
    """Where the ``docker`` command finds its engine, and why there.

    ``context`` is the Docker context that names it, "" if DOCKER_HOST does or nothing; ``certificates`` is the folder
    of ``ca.pem``, ``cert.pem`` and ``key.pem``, "" without TLS; ``is_verified``: the engine's certificate is checked.
    """

    address: str
    context: str = ""
    certificates: str = ""
    is_verified: bool = True

    @property
    def is_remote(self) -> bool:
        """Check whether the engine is on another machine, so that the folders that it mounts are that machine's."""
        scheme, _, rest = self.address.partition("://")
        host = rest.rpartition("@")[2].partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
        is_here = host.strip("[]") in ("localhost", "::1") or host.startswith("127.")
        return scheme == "ssh" or (scheme in ("tcp", "http", "https") and not is_here)

    @property
    def is_denied(self) -> bool:
        """Check whether there is a socket that this user may not use."""
        scheme, _, path = self.address.partition("://")
        return scheme == "unix" and os.path.exists(path) and not os.access(path, os.W_OK)

    @property
    def timeout(self) -> float:
        """Return the seconds that all questions of a search together may take."""
        return SSH_TIMEOUT if self.address.startswith("ssh:") else TIMEOUT

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables with which the ``docker`` command uses this engine, whatever its context is."""
        tls = {"DOCKER_TLS_VERIFY" if self.is_verified else "DOCKER_TLS": "1", "DOCKER_CERT_PATH": self.certificates}
        return {"DOCKER_HOST": self.address, **(tls if self.certificates and self.context else {})}


def find_endpoint(environ: Mapping[str, str]) -> Endpoint:
    """Return the engine that the ``docker`` command uses: DOCKER_HOST, DOCKER_CONTEXT, the current context, the socket.

    ``resolveContextName`` in cli/command/cli.go of docker/cli 28; a context's files: cli/context/store.
    """
    home = environ.get("HOME", "/")
    folder = environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker")
    if address := environ.get("DOCKER_HOST"):
        certificates = environ.get("DOCKER_CERT_PATH") or os.path.join(home, ".docker")
        is_verified = bool(environ.get("DOCKER_TLS_VERIFY"))
        has_tls = is_verified or bool(environ.get("DOCKER_TLS"))
        return Endpoint(address, certificates=certificates if has_tls else "", is_verified=is_verified)
    # A file that cannot be read has for the docker command its default too.
    settings = files.read_json(os.path.join(folder, "config.json"), _FILE_LIMIT)
    name = environ.get("DOCKER_CONTEXT") or _as(str, settings.get("currentContext"))
    if name in ("", "default"):
        return Endpoint(DEFAULT)
    import hashlib

    digest = hashlib.sha256(os.fsencode(name)).hexdigest()
    context = files.read_json(os.path.join(folder, "contexts/meta", digest, "meta.json"), _FILE_LIMIT)
    docker = _as(dict, _as(dict, context.get("Endpoints")).get("docker"))
    tls = os.path.join(folder, "contexts/tls", digest, "docker")
    return Endpoint(
        _as(str, docker.get("Host")) or f"context://{name}",
        name,
        tls if os.path.isdir(tls) else "",
        is_verified=docker.get("SkipTLSVerify") is not True,
    )


class Engine:
    """The engine that the ``docker`` command would use with this environment."""

    def __init__(
        self,
        environ: Mapping[str, str],
        timeout: float = TIMEOUT,
        end: float = float("inf"),
        *,
        address: str | None = None,
    ) -> None:
        """``end`` is when all questions together must be answered, by the monotonic clock.

        ``address`` is another engine's than the environment names: the one that a hold was made on.
        """
        self._environ = environ
        self.endpoint = find_endpoint(environ)
        if address not in (None, self.endpoint.address):
            self.endpoint = find_endpoint({**environ, "DOCKER_HOST": address or DEFAULT})
        self.address = self.endpoint.address
        self._timeout, self._end = self.endpoint.timeout if timeout == TIMEOUT else timeout, end

    def containers(self) -> list[dict[str, Any]]:
        """Return the containers that have not ended (running, paused, restarting); see ``parse_container_list``."""
        return parse_container_list(self._ask("GET", "/containers/json"))

    def inspect(self, container: str) -> dict[str, Any] | None:
        """Return ``parse_container`` of a container, None if it does not exist."""
        answer = self._ask("GET", f"/containers/{container}/json")
        return None if answer is None else parse_container(answer)

    def info(self) -> dict[str, Any]:
        """Return what the engine reports about itself; see ``parse_info``."""
        return parse_info(self._ask("GET", "/info"))

    def stop(self, container: str, seconds: int = 10) -> bool:
        """Stop a container: SIGTERM, and SIGKILL after ``seconds``. False if it does not exist."""
        slow_engine = Engine(self._environ, self._timeout + seconds + 5, address=self.address)
        return slow_engine._ask("POST", f"/containers/{container}/stop?t={seconds}") is not None

    def kill(self, container: str) -> None:
        """Kill a container, if it exists."""
        self._ask("POST", f"/containers/{container}/kill")

    def past_events(self, container: str) -> list[dict[str, Any]]:
        """Return the events (``parse_event``) about a container that the engine still has, the oldest first.

        Docker keeps the last 256 of all containers, until it is restarted (``eventsLimit`` in its daemon/events).
        """
        filters = f"%7B%22container%22%3A%7B%22{container}%22%3Atrue%7D%7D"
        body = self._get_body("GET", f"/events?since=1&until={time.time():.9f}&filters={filters}")[1]
        events = [parse_event(_parse_json(line)) for line in body.split(b"\n") if line.strip()]
        return [event for event in events if event is not None and event["Id"] == container]

    def events(self, since: float, *, idle: float = 1.0) -> Iterator[dict[str, Any] | None]:
        """Yield the events (``parse_event``) from ``since`` (seconds since 1970) on, as they come, without end.

        None comes first, once the engine has answered, and then whenever nothing has come for ``idle`` seconds.
        Raises EngineError if the stream breaks.
        """
        path = f"/events?since={since:.9f}&filters=%7B%22type%22%3A%7B%22container%22%3Atrue%7D%7D"
        with self._request("GET", path, time.monotonic() + self._timeout) as (connection, _, received):
            connection.settimeout(idle)
            rest = received
            yield None
            while True:
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    if line.strip() and (event := parse_event(_parse_json(line))) is not None:
                        yield event
                try:
                    chunk = connection.recv(1 << 16)
                except TimeoutError:
                    yield None
                    continue
                if not chunk:
                    raise EngineError("it ended the stream of events")
                rest += chunk

    def _ask(self, method: str, path: str) -> Any:
        status, body = self._get_body(method, path)
        return None if status == 404 else _parse_json(body or b"{}")

    def _get_body(self, method: str, path: str) -> tuple[int, bytes]:
        """Return the status and the body of an answer. Raises EngineError."""
        deadline = min(time.monotonic() + self._timeout, self._end)
        with self._request(method, path, deadline) as (connection, status, received):
            body = received
            while chunk := _receive(connection, deadline):
                body += chunk
                if len(body) > _LIMIT:
                    raise EngineError("its response is too long")
        return status, body

    @contextmanager
    def _request(self, method: str, path: str, deadline: float) -> Iterator[tuple[socket.socket, int, bytes]]:
        """Send a request; yield the connection, the status of the answer and what has come of its body.

        Raises EngineError, also for a connection that breaks in the block.
        """
        length = "Content-Length: 0\r\n" if method == "POST" else ""
        try:
            with self._connect(deadline) as connection:
                connection.sendall(f"{method} {path} HTTP/1.0\r\nHost: docker\r\n{length}\r\n".encode())
                yield connection, *_read_head(connection, deadline)
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> EngineError:
        if isinstance(error, TimeoutError):
            return EngineError(f"no response within {self._timeout:g} s", TIMED_OUT)
        if isinstance(error, FileNotFoundError):  # a certificate, or the docker command
            return EngineError(f"'{error.filename}' does not exist", ABSENT)
        if isinstance(error, PermissionError):
            return EngineError("permission denied", DENIED)
        if isinstance(error, ConnectionRefusedError):
            return EngineError("connection refused", REFUSED)
        text = reason_of(error)
        return EngineError(text, REFUSED if isinstance(error, ConnectionError) else INVALID)

    def _connect(self, deadline: float) -> socket.socket:
        remaining = max(0.01, deadline - time.monotonic())
        scheme, _, rest = self.address.partition("://")
        try:
            if scheme == "unix":
                return _connect_unix(rest, remaining)
            if scheme in ("tcp", "http", "https"):
                return self._connect_tcp(rest, remaining, secure=scheme == "https" or bool(self.endpoint.certificates))
            if scheme == "ssh":
                return self._connect_through_docker(remaining)
        except ValueError:  # a NUL, or a character that no address and no path can have
            raise EngineError(f"DOCKER_HOST '{self.address}' is not an address") from None
        if scheme == "context":
            raise EngineError(f"the Docker context '{rest}' does not exist", ABSENT)
        raise EngineError(f"DOCKER_HOST '{self.address}' has a scheme that taoprof does not support")

    def _connect_tcp(self, rest: str, remaining: float, *, secure: bool) -> socket.socket:
        host, _, port = rest.rstrip("/").rpartition(":")
        if not port.isdigit():
            raise EngineError(f"DOCKER_HOST '{self.address}' names no port")
        import socket

        connection = socket.create_connection((host.strip("[]"), int(port)), remaining)
        if not secure:
            return connection
        import ssl

        folder = self.endpoint.certificates or os.path.join(self._environ.get("HOME", "/"), ".docker")
        paths = {name: os.path.join(folder, f"{name}.pem") for name in ("ca", "cert", "key")}
        tls = ssl.create_default_context(cafile=paths["ca"] if self.endpoint.is_verified else None)
        if not self.endpoint.is_verified:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        tls.load_cert_chain(paths["cert"], paths["key"])
        return tls.wrap_socket(connection, server_hostname=host.strip("[]"))

    def _connect_through_docker(self, remaining: float) -> socket.socket:
        import signal
        import socket
        import subprocess

        class Tunnel(socket.socket):
            def close(self) -> None:
                is_open = self.fileno() >= 0
                super().close()
                with suppress(ProcessLookupError):
                    if is_open:  # an ssh that hangs would stay
                        os.killpg(process.pid, signal.SIGTERM)

        ours, theirs = socket.socketpair()
        with theirs:
            command = ["docker", "--host", self.address, "system", "dial-stdio"]
            end = theirs.fileno()
            environ = {**self._environ, "SSH_ASKPASS_REQUIRE": "never"}
            # In a session of its own it asks no terminal for a password.
            process = subprocess.Popen(  # noqa: S603
                command, stdin=end, stdout=end, stderr=subprocess.DEVNULL, env=environ, start_new_session=True
            )
        tunnel = Tunnel(fileno=ours.detach())
        tunnel.settimeout(remaining)
        return tunnel


def _connect_unix(path: str, seconds: float) -> socket.socket:
    try:
        # First, since the import takes long where there is no engine; what is no socket's path is refused by 'connect'.
        if 0 < len(os.fsencode(path)) < 108 and "\0" not in path:
            os.stat(path)
        import socket

        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(seconds)
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
    except (FileNotFoundError, NotADirectoryError):
        raise EngineError("there is no engine", ABSENT) from None
    return connection


def _receive(connection: socket.socket, deadline: float) -> bytes:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    connection.settimeout(remaining)
    return connection.recv(1 << 18)


def _read_head(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """Return the status of an answer and what has come of its body. Raises EngineError if the engine refuses."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = _receive(connection, deadline)
        received += chunk
        if not chunk or len(received) > _LIMIT:
            raise EngineError(_INVALID_RESPONSE)
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise EngineError(_INVALID_RESPONSE)
    status = int(words[1])
    if status >= 400 and status != 404:
        raise EngineError(f"HTTP status {status}")
    return status, body


def _parse_json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise EngineError(_INVALID_RESPONSE) from None


# The used fields of the engine's answers, with the types that the Docker Engine API 1.41 promises; Podman's are alike.


def parse_container_list(value: object) -> list[dict[str, Any]]:
    """Return the containers of ``GET /containers/json``. Raises EngineError for anything but a list.

    Keys: Id, Image, Created, Binds (destination by source) and Labels, of which only ours are kept.
    """
    if not isinstance(value, list):
        raise EngineError("its response is not a list of containers")
    return [
        {
            "Id": item["Id"],
            "Image": _as(str, item.get("Image")),
            "Created": float(item["Created"]) if isinstance(item.get("Created"), (int, float)) else 0.0,
            "Binds": _binds(item),
            "Labels": {
                name: _as(str, value) for name, value in _as(dict, item.get("Labels")).items() if name in LABELS
            },
        }
        for item in value
        if isinstance(item, dict) and is_id(item.get("Id"))
    ]


def parse_container(value: object) -> dict[str, Any]:
    """Return the used fields of ``GET /containers/ID/json``.

    Keys: Id, Image, Command, Env, User, ShmSize, Ulimits, Binds, Gpus ("all", or the requested ids), Running, and Execs
    (the ids of what ``docker exec`` runs in it now, None if the engine does not tell). A number of GPUs means the first
    ones, as with NVIDIA's runtime.
    """
    whole = _as(dict, value)
    config, host = _as(dict, whole.get("Config")), _as(dict, whole.get("HostConfig"))
    requests = _dicts(host.get("DeviceRequests"))
    gpus = [str(gpu) for item in requests for gpu in _as(list, item.get("DeviceIDs"))]
    counts = [item.get("Count") for item in requests if not item.get("DeviceIDs")]
    gpus += [str(number) for count in counts if isinstance(count, int) for number in range(min(count, 64))]
    return {
        "Id": _as(str, whole.get("Id")),
        "Image": _as(str, config.get("Image")),
        "Command": [
            word for key in ("Entrypoint", "Cmd") for word in _as(list, config.get(key)) if isinstance(word, str)
        ],
        "Env": [word for word in _as(list, config.get("Env")) if isinstance(word, str)],
        "User": _as(str, config.get("User")),
        "ShmSize": host.get("ShmSize"),
        "Ulimits": {_as(str, item.get("Name")): item.get("Soft") for item in _dicts(host.get("Ulimits"))},
        "Binds": _binds(whole),
        "Gpus": "all" if any(item.get("Count") == -1 for item in requests) else gpus,
        "Running": _as(dict, whole.get("State")).get("Running") is True,
        "Execs": _as(list, whole["ExecIDs"]) if "ExecIDs" in whole else None,
    }


def parse_info(value: object) -> dict[str, Any]:
    """Return the used fields of ``GET /info``: id, product (Docker or Podman), version, system, root and is_rootless.

    Podman gives another id with each answer; only Podman has BuildahVersion and Rootless.
    """
    whole = _as(dict, value)
    security = [word for word in _as(list, whole.get("SecurityOptions")) if isinstance(word, str)]
    return {
        "id": _as(str, whole.get("ID"))[:200],
        "product": "Podman" if "BuildahVersion" in whole else "Docker",
        "version": _as(str, whole.get("ServerVersion"))[:100],
        "system": _as(str, whole.get("OperatingSystem"))[:200],
        "root": _as(str, whole.get("DockerRootDir")),
        "is_rootless": any("rootless" in word for word in security) or whole.get("Rootless") is True,
    }


def parse_event(value: object) -> dict[str, Any] | None:
    """Return Id, Action, Command, ExitCode, Task, Run and Stamp of an event of ``GET /events``, None if it is none.

    Command and Task are the command and the id of the exec that it is about; Run is the container's label of a run, or
    ""; Stamp is in nanoseconds by the engine's clock. Podman 4.3.1 has other names for some actions, and gives the exit
    status of an exec as the container's.
    """
    whole = _as(dict, value)
    actor, stamp = _as(dict, whole.get("Actor")), whole.get("timeNano")
    name = whole.get("id") or actor.get("ID")
    if not is_id(name) or not isinstance(stamp, int):
        return None
    action, _, command = _as(str, whole.get("Action") or whole.get("status")).partition(":")
    action = {"exec": "exec_start", "exec_died": "exec_die", "died": "die", "remove": "destroy"}.get(action, action)
    attributes = _as(dict, actor.get("Attributes"))
    code = attributes.get("exitCode", attributes.get("containerExitCode") if action == "exec_die" else None)
    status = int(code) if isinstance(code, str) and code.isascii() and code.isdigit() else None
    task = _as(str, attributes.get("execID"))
    run = _as(str, attributes.get(RUN_LABEL))  # the labels are attributes of the event
    facts = {"Id": name, "Action": action, "Command": command.strip(), "ExitCode": status, "Task": task}
    return {**facts, "Run": run, "Stamp": stamp}


def is_id(value: object) -> bool:
    """Check whether this is a container id: hexadecimal digits, which are safe in a path."""
    return isinstance(value, str) and 12 <= len(value) <= 64 and set(value) <= set("0123456789abcdef")


def _binds(whole: dict[str, Any]) -> dict[str, str]:
    mounts = [item for item in _dicts(whole.get("Mounts")) if item.get("Type") == "bind"]
    return {_as(str, item.get("Source")): _as(str, item.get("Destination")) for item in mounts}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in _as(list, value) if isinstance(item, dict)]


def _as(kind: type[T], value: object) -> T:
    """Return ``value`` if it is of that type, else an empty value of it."""
    return value if isinstance(value, kind) else kind()
