"""A profile as it comes out here and now: every value, every mount, what is there and what is not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.masking import MASK
from taoprofiles.mounts import mapping, paths

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.profiles.rendering import Renderer, Template
    from taoprofiles.storage.paths import Context


def portrait(context: Context, template: Template, renderer: Renderer, *, reveal: bool = False) -> dict[str, Any]:
    """Give what a profile comes to, as plain data, secrets masked. Raises InvalidProfileError."""
    secrets, env_secrets = (set(), set()) if reveal else renderer.secrets()
    rendered = renderer.mapping()
    envs = {env["variable"]: env["value"] for env in rendered.get("Envs", [])}
    return {
        "description": template["description"],
        "layout": template["layout"],
        "project_dir": template["project_dir"] and context.expand_user(template["project_dir"]),
        "variables": {key: MASK if key in secrets else value for key, value in renderer.variables().items()},
        "mounts": [{**mount, "exists": os.path.exists(mount["source"])} for mount in rendered["Mounts"]],
        "env": {key: MASK if key in env_secrets else value for key, value in envs.items()},
        "docker": rendered.get("DockerOptions", {}),
    }


def places(portrait: dict[str, Any]) -> list[dict[str, Any]]:
    """Give each variable with its two sides: ``outside`` and ``inside`` the container, and whether it is there.

    One of them is its value. Both are "" for what is no path, or leads to no mount; ``exists`` is None then.
    """
    pairs = mapping.mounted({"Mounts": portrait["mounts"]})
    found = []
    for name, value in portrait["variables"].items():
        outside = inside = ""
        if value.startswith("/"):
            within = paths.container_paths(value, pairs)
            behind = paths.host_paths([value], pairs)
            if within:
                outside, inside = value, within[0]
            elif behind:
                outside, inside = behind[0], value
        exists = os.path.exists(outside) if outside else None
        found.append({"name": name, "value": value, "outside": outside, "inside": inside, "exists": exists})
    return found
