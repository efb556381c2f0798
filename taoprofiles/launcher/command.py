"""The command line: which image a task has, and what ``bash`` is given to run.

``main`` of each version's entrypoint, ``launch_command`` and ``parse_launcher_config`` in local_instance.py and
whl_instance.py, and types/task.py.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.launcher.argv import HANDLERS
from taoprofiles.launcher.prediction import Place
from taoprofiles.launcher.refusal import refuse, refusing

if TYPE_CHECKING:
    from taoprofiles.launcher.prediction import Machine
    from taoprofiles.launcher.versions import Behaviour

SHELL = "/bin/bash"
"""What is run in the container when no command is given."""


class Task(NamedTuple):
    """What a start is of: ``rest`` are the arguments behind the task, ``image`` "" where no table is there to tell.

    ``registry`` is the one to be logged in to.
    """

    name: str
    rest: list[str]
    image: str
    registry: str
    usual: str


def task(behaviour: Behaviour, machine: Machine, arguments: list[str]) -> Task | None:
    """Find the task that the command line names; None where it asks for no container. Raises RefusedError."""
    known = table(behaviour, machine)
    depth = 2 if behaviour.task_groups else 1
    words, rest = arguments[:depth], list(arguments[depth:])
    if known is None and len(words) == depth and not words[-1].startswith("-") and words[0] not in HANDLERS:
        return Task(words[-1], rest, "", "nvcr.io", "")
    tasks = known or {}
    key = tuple(words) if behaviour.task_groups else ("", *words)
    if len(words) == depth and key in tasks:
        registry, name = tasks[key]
        override = machine.environ.get("OVERRIDE_REGISTRY")
        used = registry if override is None else override
        return Task(words[-1], rest, f"{used}/{name}", used, f"{registry}/{name}")
    if not words or words[0].startswith("-"):
        return None
    groups = {group for group, _ in tasks} if behaviour.task_groups else set()
    if words[0] in HANDLERS and not _without_docker(behaviour, machine):
        return None
    if words[0] not in groups:
        raise refuse("SystemExit", f"invalid choice: '{words[0]}'", Place("command", 0), 2)
    if len(words) == depth and not words[1].startswith("-"):
        raise refuse("SystemExit", f"invalid choice: '{words[1]}'", Place("command", 1), 2)
    return None


def check_mode(behaviour: Behaviour, machine: Machine) -> bool:
    """Tell whether it does without Docker altogether. Raises RefusedError."""
    if behaviour.can_do_without_docker and machine.environ.get("TAO_DOCKER_DISABLE", "0") not in ("0", "1"):
        place = Place("environ", key="TAO_DOCKER_DISABLE")
        raise refuse("AssertionError", "Invalid value for TAO_DOCKER_DISABLE", place)
    return _without_docker(behaviour, machine)


def take_volumes(rest: list[str]) -> list[tuple[Place, str]]:
    """Take ``--volume VALUE`` out of a task's arguments, wherever they stand. Raises RefusedError."""
    taken: list[tuple[Place, str]] = []
    while "--volume" in rest:
        at = rest.index("--volume")
        if at + 1 == len(rest):
            message = "Missing mount given --volume arg provided"
            raise refuse("AssertionError", message, Place("--volume", len(taken)))
        taken.append((Place("--volume", len(taken)), rest[at + 1]))
        del rest[at : at + 2]
    if taken and not rest:  # it looks at the first argument of those that are left
        raise refuse("IndexError", "list index out of range", Place("command"))
    return taken


def line(name: str, rest: list[str]) -> str:
    """Give the text that is run in the container: the arguments joined with blanks, nothing quoted."""
    if not rest:
        return SHELL
    return " ".join(rest[1:]) if rest[0] == "run" else f"{name} " + " ".join(rest)


def bare_line(name: str, rest: list[str]) -> str:
    """Give the text that is run on the host, without Docker. Raises RefusedError: it fails without arguments."""
    if not rest:
        message = "cannot access local variable 'command' where it is not associated with a value"
        raise refuse("UnboundLocalError", message, Place("command"))
    return line(name, rest)


def check_line(text: str, place: Place) -> None:
    """Refuse what can be given to no program. Raises RefusedError."""
    with refusing(*place):
        text.encode("utf-8", "surrogateescape")
        if "\0" in text:
            raise ValueError("embedded null byte")


def _without_docker(behaviour: Behaviour, machine: Machine) -> bool:
    return behaviour.can_do_without_docker and machine.environ.get("TAO_DOCKER_DISABLE", "0") == "1"


def table(behaviour: Behaviour, machine: Machine) -> dict[tuple[str, ...], tuple[str, str]] | None:
    """Give registry and NAME:TAG by (group, task); before 5.0.0 the group is "". None where no table is known.

    Raises RefusedError.
    """
    own = machine.expanduser(behaviour.override_config)
    content = machine.config
    with refusing("config"):
        if machine.exists(own):
            with suppress(IsADirectoryError):
                content = machine.read(own)
        if content is None:
            return None
        data = json.loads(content)
        if not behaviour.task_groups and not _without_docker(behaviour, machine):
            _ = data["dockers"].keys()  # looked at before anything else
        if "format_version" not in list(data.keys()):  # what has no keys is to say so
            raise KeyError("format is a required key in the launcher config.")
        form = data["format_version"]
        if form == 3.0 and behaviour.task_groups:
            groups = {group: about["dockers"] for group, about in data["task_group"].items()}
        elif form in (1.0, 2.0):
            groups = {"container_actions" if behaviour.task_groups else "": data["dockers"]}
        else:
            raise refuse("NotImplementedError", f"Invalid format type: {form}", Place("config"))
        if form == 1.0:
            dockers = groups.popitem()
            groups = {dockers[0]: {name: {about["docker_tag"]: about} for name, about in dockers[1].items()}}
        return {
            (group, each): (about["docker_registry"], f"{name}:{tag}")
            for group, images in groups.items()
            for name, tags in images.items()
            for tag, about in tags.items()
            for each in about["tasks"]
        }
