"""Runs without the launcher: ``docker run``, and the runners of NVIDIA's source trees (``launcher.argv.RUNNERS``)."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING, Any

from taoprofiles.export.plan import plan_container, refuse_names
from taoprofiles.launcher.argv import container_words
from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.system import processes
from taoprofiles.system.engine import RUN_LABEL, Engine

if TYPE_CHECKING:
    from taoprofiles.launcher.argv import RunnerCommand
    from taoprofiles.profiles.rendering import Renderer
    from taoprofiles.runs.run import Run
    from taoprofiles.runs.start import RunOptions


def use_runner(run: Run, renderer: Renderer, runner: RunnerCommand, wanted: dict[str, Any]) -> None:
    """Pass what the profile says besides the mounts to a source tree's runner as its options, before the user's own.

    ``wanted`` is the mapping with the run tag. The runner prints the values, and they pass through a shell: a secret is
    a variable of that shell.
    """
    hidden = renderer.secrets()[1]
    refuse_names(run.hold.profile or "", sorted(hidden))
    words: list[str] = []
    for item in wanted["Envs"]:
        name, value = item["variable"], str(item["value"])
        run.environ |= {name: value} if name in hidden else {}
        words += ["--env", f'{name}="${name}"' if name in hidden else f"{name}={shlex.quote(value)}"]
    docker = dict(wanted.get("DockerOptions", {}))
    if str(docker.get("user", "")) == f"{run.context.uid}:{run.context.gid}":
        words.append("--run_as_user")
        del docker["user"]
    words += ["--shm_size", str(docker.pop("shm_size"))] if "shm_size" in docker else []
    for name, limit in (docker.pop("ulimits", None) or {}).items():
        words += ["--ulimit", f"{name}={limit}:{limit}"]
    words += ["--gpus", ",".join(run.hold.gpus)] if isinstance(run.hold.gpus, list) else []
    words += [] if processes.has_terminal() else ["--no-tty"]
    left_out = [key for key, value in docker.items() if key != "tty" and value != "host"]
    run.notes += [f"warning: {runner.name} has no option for docker.{key}: it is left out" for key in left_out]
    prefix, function = runner.prefix, f"BASH_FUNC_{runner.name}%%"  # as scripts/envsetup.sh exports it
    if function in run.environ and shutil.which(prefix[0], path=run.environ.get("PATH")) is None:
        prefix = ["bash", "-c", f'{runner.name} "$@"', runner.name]
    own = runner._replace(task=[shlex.quote(expand_variables(word, run.variables)) for word in runner.task]).words[1:]
    run.argv, run.is_runner = [*prefix, *words, *own], True
    source, destination = runner.checkout(run.environ, run.context.folder)
    run.wanted = {**wanted, "Mounts": [*wanted["Mounts"], {"source": source, "destination": destination}]}


def use_docker(run: Run, renderer: Renderer, command: list[str], options: RunOptions, wanted: dict[str, Any]) -> None:
    """Make ``docker run`` the command of a run. Raises CannotRenderError and UsageError.

    ``wanted`` is the mapping with the run tag. Secrets go through the environment: every user can read a command line.
    """
    from taoprofiles.export import docker  # only for --image

    hold, name = run.hold, run.hold.profile or ""
    planned = plan_container(
        renderer,
        image=options.image or "",
        mapping=wanted,
        gpus="all" if options.gpus is None or hold.gpus is None else hold.gpus,
        labels={**docker.labels(run.context, name), RUN_LABEL: hold.id},
    )
    # Docker uses a source as it is; the launcher, and the comparison with the container, resolve symlinks.
    if not Engine(run.context.environ).endpoint.is_remote:
        planned = planned._replace(mounts=[mount.resolved() for mount in planned.mounts])
    values = {item["variable"]: str(item["value"]) for item in wanted["Envs"]}
    run.environ |= {name: values[name] for name, value in planned.env.items() if value is None}
    # The engine of the hold. DOCKER_HOST has priority over the docker command's current context.
    run.environ |= Engine(run.context.environ).endpoint.environ
    run.environ.pop("DOCKER_CONTEXT", None)
    terminal = ["--interactive", "--tty"] if options.terminal and planned.tty is not False else ["--interactive"]
    if processes.in_background():
        terminal = []  # a background job that uses the terminal is stopped, and with it the run's monitor
    words = [word for option in docker.options(planned) for word in option]
    words += [planned.image, *(expand_variables(word, run.variables) for word in container_words(command))]
    run.argv = ["docker", "run", "--rm", *terminal, "--name", f"taoprof-{name}-{hold.id}", *words]
    run.wanted = {**wanted, "Envs": [item for item in wanted["Envs"] if item["variable"] in planned.env]}
    run.notes += planned.warnings
