"""Which image the installed launcher runs a task in: its config.json, read the way that it reads it itself."""

from __future__ import annotations

import json
import os
import subprocess

from taoprofiles.world import launchers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PACKAGES = ("nvidia_tao_cli", "tlt")
"""The launcher's package: the first from 5.0.0 on."""

_OVERRIDES = {"nvidia_tao_cli": ".tao/config.json", "tlt": ".tlt/config.json"}
"""A file in the home that counts instead of the installed one (OVERRIDE_CONFIG in instance_handler/utils.py)."""

_ASK = """
import importlib.util, sys
for name in sys.argv[1:]:
    spec = importlib.util.find_spec(name)
    if spec and spec.submodule_search_locations:
        print(name, list(spec.submodule_search_locations)[0])
        break
"""


class Images:
    """By (group, task): the image. The group is "" in launchers before 5.0.0. ``where`` is the file that says so."""

    def __init__(self, where: str, table: Mapping[tuple[str, str], str]) -> None:
        self.where, self.table = where, table

    def of(self, group: str, task: str) -> str | None:
        """Give the image of a task; without a group the first group that has it, as the launcher orders them."""
        found = (image for (its, name), image in self.table.items() if name == task and group in ("", its))
        return next(found, None)

    def tasks(self) -> list[str]:
        """Name all tasks."""
        return sorted({task for _, task in self.table})


def images(environ: Mapping[str, str]) -> Images | None:
    """Read the table of the launcher that a shell would start; None where there is none, or it cannot be read."""
    launcher = launchers.first(environ)
    if launcher is None or not launcher.python:
        return None
    try:
        answer = subprocess.run(  # noqa: S603
            [launcher.python, "-c", _ASK, *PACKAGES], env=dict(environ), capture_output=True, text=True, timeout=30,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        package, _, folder = answer.stdout.splitlines()[-1].partition(
            " "
        )  # before it may stand what a .pth file prints
        own = os.path.join(environ.get("HOME", "/"), _OVERRIDES[package])
        where = own if os.path.isfile(own) else os.path.join(folder, "config", "config.json")
        with open(where, encoding="utf-8") as file:
            content = file.read(1 << 24)
        return Images(where, table(json.loads(content), environ.get("OVERRIDE_REGISTRY")))
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def table(config: Any, registry: str | None = None) -> dict[tuple[str, str], str]:
    """Read a config.json of format 1.0 (one tag an image), 2.0 (several) or 3.0 (by task group), as the launcher does.

    ``registry`` is OVERRIDE_REGISTRY. Raises LookupError, TypeError and AttributeError for another form.
    """
    groups = {group: data["dockers"] for group, data in config.get("task_group", {"": config}).items()}
    found: dict[tuple[str, str], str] = {}
    for group, dockers in groups.items():
        for name, tags in dockers.items():
            if "tasks" in tags:
                tags = {tags["docker_tag"]: tags}  # noqa: PLW2901
            for tag, about in tags.items():
                for task in about["tasks"]:
                    found[group, task] = f"{registry or about['docker_registry']}/{name}:{tag}"
    return found
