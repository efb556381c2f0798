"""A run without the launcher: its container is started with ``docker run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.export import docker, plan
from taoprofiles.launcher.argv import container_words
from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.system import processes
from taoprofiles.system.engine import RUN_LABEL

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan
    from taoprofiles.holds.hold import Hold
    from taoprofiles.profiles.rendering import Renderer
    from taoprofiles.storage.paths import Context


class DockerCommand(NamedTuple):
    """``argv`` of ``docker run``, what ``environ`` adds to its environment, and the mapping that the container gets."""

    argv: list[str]
    environ: dict[str, str]
    mapping: dict[str, Any]
    warnings: list[str]


class DockerRun:
    """Builds the ``docker run`` command of a run. Raises CannotRenderError and UsageError at once, not in ``build``."""

    def __init__(
        self, context: Context, hold: Hold, renderer: Renderer, image: str, command: list[str], *, has_terminal: bool
    ) -> None:
        self._context, self._hold, self._renderer, self._image = context, hold, renderer, image
        variables = renderer.variables()
        self._words = [expand_variables(word, variables) for word in container_words(command)]
        self._has_terminal = has_terminal
        self._plan(renderer.mapping())

    def build(self, wanted: dict[str, Any]) -> DockerCommand:
        """Build the command for the mapping ``wanted``, which has the run tag, once the hold has its id and GPUs.

        Secrets go through the environment, since every user can read a command line.
        """
        hold, container = self._hold, self._plan(wanted)
        values = {item["variable"]: str(item["value"]) for item in wanted["Envs"]}
        mapping = {**wanted, "Envs": [item for item in wanted["Envs"] if item["variable"] in container.env]}
        environ = {name: values[name] for name, value in container.env.items() if value is None}
        # The engine of the hold. DOCKER_HOST has priority over the docker command's current context.
        environ["DOCKER_HOST"] = hold.engine or ""
        terminal = (
            ["--interactive", "--tty"] if self._has_terminal and container.tty is not False else ["--interactive"]
        )
        if processes.in_background():
            terminal = []  # a background job that uses the terminal is stopped, and with it the run's monitor
        name = ["--name", f"taoprof-{hold.profile}-{hold.id}"]
        options = [word for option in docker.options(container) for word in option]
        argv = ["docker", "run", "--rm", *terminal, *name, *options, container.image, *self._words]
        return DockerCommand(argv, environ, mapping, container.warnings)

    def _plan(self, wanted: dict[str, Any]) -> Plan:
        name = self._hold.profile or ""
        container = plan.make(
            self._renderer,
            name,
            image=self._image,
            mapping=wanted,
            gpus="all" if self._hold.gpus is None else self._hold.gpus,
            labels={**docker.labels(self._context, name), RUN_LABEL: self._hold.id},
        )
        # Docker uses a source as it is; the launcher, and the comparison with the container, resolve symlinks.
        return container._replace(mounts=[mount.resolved() for mount in container.mounts])
