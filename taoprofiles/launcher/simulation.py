"""The oracle: what a launcher of a given version will do, told without starting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taoprofiles.launcher import command, docker_config, mounts, sdk
from taoprofiles.launcher.prediction import CONTAINER, Call, Change, Place, Prediction
from taoprofiles.launcher.refusal import RefusedError, refuse, refusing
from taoprofiles.launcher.versions import behaviour as behaviour_of

if TYPE_CHECKING:
    from taoprofiles.launcher.prediction import Machine
    from taoprofiles.launcher.versions import Behaviour

_CI_OPTIONS = ("tty", "privileged", "shm_size")


def predict(version: str, machine: Machine, arguments: list[str] | None) -> Prediction:
    """Tell what ``tao ARGUMENTS`` does with the mounts file that it would find, up to its last call of Docker.

    Docker is taken to answer, and to have the image. ``arguments`` of None stand for any task: then the task is not
    looked for, the login to the registry not tested, and ``call.image`` is "". Nothing is read but through ``machine``.

    Raises ValueError for what is no version of the launcher (see ``versions.parse``).
    """
    return _Start(behaviour_of(version), machine).told(arguments)


class _Start:
    """One start, step by step, in the launcher's order."""

    def __init__(self, behaviour: Behaviour, machine: Machine) -> None:
        self.behaviour = behaviour
        self.machine = machine
        self.changes: list[Change] = []
        self.source_file: str | None = None
        self.call: Call | None = None
        self.shell = ""

    def told(self, arguments: list[str] | None) -> Prediction:
        refusal = None
        try:
            self._goes(arguments)
        except RefusedError as error:
            refusal, self.call, self.shell = error.refusal, None, ""
        return Prediction(self.behaviour.version, self.source_file, refusal, self.call, self.changes, self.shell)

    def _goes(self, arguments: list[str] | None) -> None:
        bare = command.check_mode(self.behaviour, self.machine)
        if bare:
            self.changes.append(Change("no-docker", Place("environ", key="TAO_DOCKER_DISABLE")))
        if arguments is None:
            task = command.Task("", [], "", "", "")
        else:
            found = command.task(self.behaviour, self.machine, arguments)
            if found is None:
                if not bare and (arguments == ["list"] or (arguments[:1] == ["stop"] and arguments[1:])):
                    docker_config.proxies(self.machine)  # they make the same client
                return
            task = found
        if bare:
            self.shell = command.bare_line(task.name, task.rest) if arguments is not None else ""
            command.check_line(self.shell, Place("command"))
            return
        if arguments is not None:
            docker_config.check_login(self.behaviour, self.machine, task.registry)
        if task.image != task.usual:
            place = Place("environ", key="OVERRIDE_REGISTRY")
            self.changes.append(Change("image-renamed", place, task.usual, task.image))
        proxies = docker_config.proxies(self.machine)
        volumes = command.take_volumes(task.rest) if self.behaviour.volume_argument else []
        unseen = [word for word in task.rest if word == "--volume" or word.startswith("--volume=")]
        self.changes += [Change("volume-not-seen", Place("command"), was=word) for word in unseen]
        line = command.line(task.name, task.rest)
        content = self._file()
        if self.behaviour.ci and "CI_PROJECT_DIR" in self.machine.environ:
            self._ci(task.image, content, volumes, line)
        else:
            self._container(task.image, content, volumes, line, proxies)

    def _file(self) -> mounts.Content:
        path = mounts.file_read(self.behaviour, self.machine)
        self.source_file = path if self.machine.exists(path) else None
        return mounts.read(path, self.machine, self.changes)

    def _container(
        self, image: str, content: mounts.Content, given: list[tuple[Place, str]], line: str, proxies: list[str]
    ) -> None:
        all_mounts = list(content.mounts)
        for place, text in given:
            with refusing(*place):
                parts = text.split(":")
                all_mounts.append((place, parts[0], parts[1]))
            if parts[2:] and parts[2:] != ["rw"]:
                self.changes.append(Change("mode-ignored", place, was=":".join(parts[2:])))
        volumes = mounts.volumes(all_mounts, self.machine, self.changes)
        environment = list(content.environment)
        if self.behaviour.tells_client_type:
            environment.append("TAO_CLIENT_TYPE=launcher")
        tty = True
        if self.behaviour.needs_options:
            with refusing("DockerOptions"):
                tty = content.options["tty"] if "tty" in list(content.options.keys()) else True
        options = {"tty": True, **self._options(content.options)}
        if "user" not in options:
            self.changes.append(Change("root-user", Place("DockerOptions", key="user")))
        if proxies:
            names = ", ".join(each.partition("=")[0] for each in proxies)
            self.changes.append(Change("proxy-added", Place("login", key="proxies"), now=names))
        environment = proxies + environment
        body = sdk.body(image, volumes, environment, options, self.behaviour.entrypoint)
        host = body["HostConfig"]
        self.call = Call(
            image,
            volumes,
            environment,
            body.get("User"),
            host.get("ShmSize"),
            options.get("ulimits", {}),
            host.get("PortBindings", {}),
            options.get("network") or None,
            bool(options.get("privileged")),
            bool(tty),
            body,
        )
        interactive = "-it" if tty else "-i"
        self.shell = f"bash -c 'docker exec {interactive} {CONTAINER} {line}'"

    def _options(self, options: Any) -> dict[str, Any]:
        if options is None:
            return {}
        with refusing("DockerOptions"):
            items = list(options.items())
        valid = self.behaviour.options
        for key, value in items:
            place = Place("DockerOptions", key=key)
            if key not in valid:
                message = (
                    f'The parameter "{key}" mentioned in the config file isn\'t a valid option.'
                    f"\nPlease choose one of the following: {valid}"
                )
                raise refuse("AssertionError", message, place)
            if key == "ulimits":
                if not isinstance(value, dict):
                    raise refuse("AssertionError", "Ulimits should be a dictionary of params", place)
                for name, limit in value.items():
                    sdk.ulimit(name, limit)
        return dict(items)

    def _ci(self, image: str, content: mounts.Content, given: list[tuple[Place, str]], line: str) -> None:
        volumes = mounts.volumes(content.mounts, self.machine, self.changes)
        with refusing("DockerOptions"):
            tty = bool(content.options.get("tty", True))
            options = dict(content.options)
        words = ["docker run", "-it" if tty else "-i", "--rm", "--gpus all"]
        words.append(" ".join(f"-v {source}:{destination}:rw" for source, destination in volumes.items()))
        words.append(" ".join(f"-e {variable}" for variable in content.environment))
        for key, value in options.items():
            words += ["--privileged"] if key == "privileged" and value else []
            words += [f"--shm-size {value}"] if key == "shm_size" else []
        self.shell = f"{' '.join(words)} {image} {line}"
        command.check_line(self.shell, Place("file"))
        dropped = [Place("DockerOptions", key=key) for key in options if key not in _CI_OPTIONS]
        dropped += [place for place, _ in given]
        self.changes += [Change("ci-dropped", place) for place in dropped]
        self.changes.append(Change("root-user", Place("DockerOptions", key="user")))
        privileged = bool(options.get("privileged"))
        self.call = Call(
            image,
            volumes,
            content.environment,
            None,
            options.get("shm_size"),
            {},
            {},
            None,
            privileged,
            tty,
            None,
        )
