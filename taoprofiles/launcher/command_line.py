"""The command line: the image of a task, the login that it needs, and what ``bash`` is given to run.

``main`` of each version's entrypoint, ``launch_command`` and ``parse_launcher_config`` in local_instance.py and
whl_instance.py, and types/task.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

from taoprofiles.launcher.argv import GROUPS, HANDLERS
from taoprofiles.launcher.host import Host, Location, runs_without_docker, skips_login
from taoprofiles.launcher.prediction import RefusedError, StartLog
from taoprofiles.launcher.versions import Behaviour
from taoprofiles.masking import mask_command


class Task(NamedTuple):
    """The task of a start.

    ``rest`` are the arguments after the task; ``image`` is "" if no table of images is known; ``registry`` must be
    logged in to.
    """

    name: str
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
            raise RefusedError("SystemExit", f"invalid choice: '{words[0]}'", Location("command", 0), 2)
        return Task(words[-1], rest, "", "nvcr.io")
    is_bare = runs_without_docker(host.environ, behaviour)
    tasks = known or {}
    key = tuple(words) if behaviour.task_groups else ("", *words)
    if len(words) == depth and key in tasks:
        registry, name = tasks[key]
        return Task(words[-1], rest, f"{registry}/{name}", registry)
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
    """Return whether the launcher's argparse prints the help for arguments that name no task.

    It skips every option that it does not know, and each other argument must be one of ``choices``, at any depth: the
    parsers of the groups and tasks have the first parser as their parent. Raises RefusedError for one that is not.
    """
    for number, word in enumerate(arguments):
        if word == "-h" or (len(word) > 2 and "--help".startswith(word)):
            return True
        is_option = word.startswith("-") and word != "-" and " " not in word
        if not is_option and word not in choices:
            message = f"invalid choice: '{mask_command(arguments)[number]}'"
            raise RefusedError("SystemExit", message, Location("command", number), 2)
    return len(arguments) < depth  # then the launcher adds --help


def check_login(behaviour: Behaviour, host: Host, registry: str, log: StartLog) -> None:
    """Repeat the launcher's test of the login: the registry must be a key of ``auths`` in its one file.

    ``docker_logged_in`` in the launcher's utils.py (nvidia-tao 6.26.3 lines 147 to 173, and the same in 0.1.21 and
    4.0.1): DOCKER_CONFIG and the credential helpers do not count.
    """
    if skips_login(host.environ, behaviour):
        return
    path = host.expanduser("~/.docker/config.json")
    with log.step("login"):
        if not host.exists(path):
            message = f"Config path must be a valid unix path. No file found at: {path}. Did you run docker login?"
            raise RefusedError("AssertionError", message, Location("login"))
        data = json.loads(host.read(path).decode())
        if "auths" not in list(data.keys()):
            message = "Docker CLI hasn't been logged in to a registry.Please run `docker login nvcr.io`"
            raise RefusedError("ValueError", message, Location("login"))
        with log.step("login", key="auths"):
            if registry not in list(data["auths"].keys()):
                message = f"\nDocker not logged in to {registry}. Please run docker login {registry}"
                raise RefusedError("AssertionError", message, Location("login", key=registry))


def take_volumes(rest: list[str], log: StartLog) -> list[tuple[Location, str]]:
    """Take every ``--volume VALUE`` out of a task's arguments."""
    volumes: list[tuple[Location, str]] = []
    with log.step("--volume"):
        while "--volume" in rest:
            at = rest.index("--volume")
            if at + 1 == len(rest):
                message = "Missing mount given --volume arg provided"
                raise RefusedError("AssertionError", message, Location("--volume", len(volumes)))
            volumes.append((Location("--volume", len(volumes)), rest[at + 1]))
            del rest[at : at + 2]
        if volumes and not rest:  # the launcher looks at the first of the remaining arguments
            raise RefusedError("IndexError", "list index out of range", Location("command"))
    return volumes


def container_command_line(name: str, rest: list[str]) -> str:
    """Return the text that is run in the container: the arguments joined with blanks, without quoting."""
    if not rest:
        return "/bin/bash"
    return " ".join(rest[1:]) if rest[0] == "run" else f"{name} " + " ".join(rest)


def check_argument(text: str) -> None:
    """Raise ValueError for a text that cannot be an argument of a program."""
    text.encode("utf-8", "surrogateescape")
    if "\0" in text:
        raise ValueError("embedded null byte")


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
