"""A run without the launcher: its container straight on the engine, by ``docker run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taoprofiles.export import docker, plan
from taoprofiles.launcher.argv import container_words
from taoprofiles.system import processes
from taoprofiles.system.engine_schema import PROFILE_LABEL, RUN_LABEL, STATE_LABEL

if TYPE_CHECKING:
    from taoprofiles.export.plan import Plan
    from taoprofiles.holds.hold import Hold
    from taoprofiles.profiles.rendering import Renderer
    from taoprofiles.storage.paths import Context


def labels(context: Context, name: str) -> dict[str, str]:
    """Give the labels by which a container is known that was started without the launcher."""
    return {PROFILE_LABEL: name, STATE_LABEL: context.state}


class Direct:
    """What such a run is made of: its hold, with the profile's name, the image, and the words of the task."""

    def __init__(self, context: Context, hold: Hold, renderer: Renderer, image: str) -> None:
        self._context, self._hold, self._renderer, self._image = context, hold, renderer, image
        self._words: list[str] = []
        self._has_terminal = False

    @classmethod
    def of(
        cls,
        context: Context,
        hold: Hold,
        renderer: Renderer,
        image: str | None,
        /,
        command: list[str],
        *,
        has_terminal: bool,
    ) -> Direct | None:
        """Give it, None without an image. Raises CannotRenderError and UsageError, so that nothing is done then."""
        if image is None:
            return None
        made = cls(context, hold, renderer, image)
        made._words = plan.expanded(container_words(command), renderer.variables())
        made._has_terminal = has_terminal
        made._plan(renderer.mapping())
        return made

    def docker_run(self, wanted: dict[str, Any], environ: dict[str, str], notes: list[str]) -> list[str]:
        """Give the words of ``docker run``, and change ``environ`` into the environment for it.

        ``wanted`` is the mapping with the run's mark; of it is taken what the container does not get, and that is said
        in ``notes``. A secret goes through the environment: the words of a command are there for all to see.
        """
        hold = self._hold
        made = self._plan(wanted)
        notes += made.warnings
        values = {one["variable"]: str(one["value"]) for one in wanted["Envs"]}
        wanted["Envs"] = [one for one in wanted["Envs"] if one["variable"] in made.env]
        environ |= {name: values[name] for name, value in made.env.items() if value is None}
        # One engine for all: DOCKER_HOST counts more than the docker command's context, and less than DOCKER_CONTEXT.
        environ["DOCKER_HOST"] = hold.engine or ""
        environ.pop("DOCKER_CONTEXT", None)
        terminal = ["--interactive", "--tty"] if self._has_terminal and made.tty is not False else ["--interactive"]
        if processes.in_background():
            terminal = []  # docker would be stopped when it asks the terminal, and with it who minds the run
        options = [word for option in docker.options(made) for word in option]
        named = ["--name", f"taoprof-{hold.profile}-{hold.id}"]
        return ["docker", "run", "--rm", *terminal, *named, *options, made.image, *self._words]

    def _plan(self, wanted: dict[str, Any]) -> Plan:
        name = self._hold.profile or ""
        made = plan.make(
            wanted,
            name=name,
            image=self._image,
            command=[],
            variables={},
            secrets=self._renderer.secret_values(),
            secret_env=self._renderer.secrets()[1],
            gpus="all" if self._hold.gpus is None else self._hold.gpus,
            labels={**labels(self._context, name), RUN_LABEL: self._hold.id},
        )
        # Docker takes a source as it is, where the launcher and the proof resolve it.
        return made._replace(mounts=[one.resolved() for one in made.mounts])
