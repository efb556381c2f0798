"""The summary of a profile for ``show`` and notebooks: every value and mount, and what exists on this host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.masking import MASK
from taoprofiles.mounts import mapping, paths

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.profiles.rendering import Renderer, Template
    from taoprofiles.storage.paths import Context


def summarize(context: Context, template: Template, renderer: Renderer, *, reveal: bool = False) -> dict[str, Any]:
    """Return a rendered profile as plain data, with secrets masked unless ``reveal``. Raises InvalidProfileError."""
    secrets, env_secrets = (set(), set()) if reveal else renderer.secrets()
    rendered = renderer.mapping()
    env = {item["variable"]: item["value"] for item in rendered.get("Envs", [])}
    return {
        "description": template["description"],
        "layout": template["layout"],
        "project_dir": template["project_dir"] and context.expand_user(template["project_dir"]),
        "variables": {key: MASK if key in secrets else value for key, value in renderer.variables().items()},
        "mounts": [{**mount, "exists": os.path.exists(mount["source"])} for mount in rendered["Mounts"]],
        "env": {key: MASK if key in env_secrets else value for key, value in env.items()},
        "docker": rendered.get("DockerOptions", {}),
    }


def variable_paths(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each variable with its path ``outside`` and ``inside`` the container, one of which is its value.

    Both are "" for a value that is no path or in no mount; ``exists`` on this host is None then.
    """
    mounts = mapping.mounted({"Mounts": summary["mounts"]})
    variables = []
    for name, value in summary["variables"].items():
        outside = inside = ""
        if value.startswith("/"):
            if container_paths := paths.container_paths(value, mounts):
                outside, inside = value, container_paths[0]
            elif host_paths := paths.host_paths([value], mounts):
                outside, inside = host_paths[0], value
        exists = os.path.exists(outside) if outside else None
        variables.append({"name": name, "value": value, "outside": outside, "inside": inside, "exists": exists})
    return variables
