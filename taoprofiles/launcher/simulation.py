"""The simulation of a start: what a launcher of a given version does, found out without starting it."""

from __future__ import annotations

from typing import Any

from taoprofiles.launcher import command_line, mounts_file, sdk
from taoprofiles.launcher.host import Host, Location, ResolvedMount, find_mounts_path, runs_in_ci, runs_without_docker
from taoprofiles.launcher.prediction import CONTAINER, Call, Prediction, RefusedError, StartLog
from taoprofiles.launcher.versions import behaviour_of

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
    log = start.log
    return Prediction(
        start.behaviour.version,
        start.source_file,
        start.content,
        start.volumes,
        log.refusals,
        log.changes,
        start.call,
        start.shell,
    )


class _Start:
    """One start, step by step, in the launcher's order; a step that is refused is left out."""

    def __init__(self, version: str, host: Host, *, ignore_ci: bool) -> None:
        self.behaviour = behaviour_of(version)
        self.host = host
        self.log = StartLog()
        self.is_ci = runs_in_ci(host.environ, self.behaviour)
        self.ignore_ci = ignore_ci
        self.source_file: str | None = None
        self.content: mounts_file.Content | None = None
        self.volumes: list[ResolvedMount] = []
        self.call: Call | None = None
        self.shell = ""

    def run(self, arguments: list[str] | None) -> None:
        log = self.log
        if self.behaviour.has_no_docker_mode and self.host.environ.get("TAO_DOCKER_DISABLE", "0") not in ("0", "1"):
            with log.step("environ", key="TAO_DOCKER_DISABLE"):
                raise AssertionError("Invalid value for TAO_DOCKER_DISABLE")
        is_bare = runs_without_docker(self.host.environ, self.behaviour)
        task: command_line.Task | None = _ANY_TASK
        if arguments is not None:
            with log.step("config"):
                task = command_line.find_task(self.behaviour, self.host, arguments)
        if task is not None and not is_bare:
            self._start_task(task)
        elif task is not None and task is not _ANY_TASK:
            with log.step("command"):
                if not task.rest:
                    message = "cannot access local variable 'command' where it is not associated with a value"
                    raise RefusedError("UnboundLocalError", message, Location("command"))
                self.shell = command_line.container_command_line(task.name, task.rest)
                command_line.check_argument(self.shell)

    def _start_task(self, task: command_line.Task) -> None:
        log = self.log
        if task is not _ANY_TASK:
            command_line.check_login(self.behaviour, self.host, task.registry, log)
        given = command_line.take_volumes(task.rest, log) if self.behaviour.volume_argument else []
        for word in task.rest:
            if word == "--volume" or word.startswith("--volume="):
                log.change("volume-not-seen", Location("command"), was=word)
        path = find_mounts_path(self.host, self.behaviour)
        self.source_file = path if self.host.exists(path) else None
        self.content = mounts_file.read(path, self.host, log)
        if self.content is None:
            return
        line = command_line.container_command_line(task.name, task.rest)
        if self.is_ci and not self.ignore_ci:
            self._run_in_ci(task.image, self.content, line)
        else:
            self._run_container(task.image, self.content, given, line)

    def _run_container(
        self, image: str, content: mounts_file.Content, given: list[tuple[Location, str]], line: str
    ) -> None:
        log, host = self.log, self.host
        for location, text in given:
            with log.step(*location):
                parts = text.split(":")
                entry = {"source": parts[0], "destination": parts[1]}
                self.volumes.append(ResolvedMount(location, host.realpath(parts[0]), host.realpath(parts[1]), entry))
                if parts[2:] and parts[2:] != ["rw"]:
                    log.change("mode-ignored", location, ":".join(parts[2:]))
        volumes = mounts_file.get_volumes([*content.mounts, *self.volumes])
        environment = list(content.environment)
        if self.behaviour.sets_client_type:
            environment.append("TAO_CLIENT_TYPE=launcher")
        tty: Any = True
        has_options = content.options is not None
        if self.behaviour.needs_options:
            has_options = False
            with log.step("DockerOptions"):
                tty = content.options["tty"] if "tty" in list(content.options.keys()) else True
                has_options = True
        options = {"tty": True, **(self._check_options(content.options) if has_options else {})}
        if self.is_ci:
            dropped = [Location("DockerOptions", key=key) for key in options if key not in _CI_OPTIONS]
            for location in [*dropped, *(location for location, _ in given)]:
                log.change("ci-dropped", location)
        body = sdk.create_request(image, volumes, environment, options, entrypoint=self.behaviour.entrypoint, log=log)
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
        with self.log.step("DockerOptions"):
            items = list(options.items())
        for key, value in self.log.while_few(items):
            with self.log.step("DockerOptions", key=key):
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
        for name, limit in self.log.while_few(value.items()):  # each is both the soft and the hard one
            with self.log.step("DockerOptions", key=f"ulimits.{name}"):
                if limit and not isinstance(limit, int):
                    raise ValueError("Ulimit.soft must be an integer")
                limits[name] = limit
        return limits

    def _run_in_ci(self, image: str, content: mounts_file.Content, line: str) -> None:
        tty, options = True, {}
        with self.log.step("DockerOptions"):
            tty = bool(content.options.get("tty", True))
            options = dict(content.options)
        words = ["docker run", "-it" if tty else "-i", "--rm", "--gpus all"]
        volumes = mounts_file.get_volumes(content.mounts)
        words.append(" ".join(f"-v {source}:{destination}:rw" for source, destination in volumes.items()))
        words.append(" ".join(f"-e {variable}" for variable in content.environment))
        for key, value in options.items():
            words += ["--privileged"] if key == "privileged" and value else []
            words += [f"--shm-size {value}"] if key == "shm_size" else []
        self.shell = f"{' '.join(words)} {image} {line}"
        with self.log.step("file"):
            command_line.check_argument(self.shell)
