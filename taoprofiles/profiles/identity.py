"""The identity of a container's user: what its id needs if the image does not know it, a name, a home and caches.

Sources: NVIDIA's skill bank (NVIDIA-TAO/tao-skill-bank 163d060 and skills/platform/tao-run-on-docker/SKILL.md of
49672c2); docker/Dockerfile of tao-pytorch 7.0.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

USER_NAME = "tao"
"""The name of the container's user, for programs that ask for one; any name will do."""

USER_ENV = {"USER": USER_NAME, "LOGNAME": USER_NAME}
"""Variables of a container whose user id has no name in the image: without one, torch 2 stops at its import."""

FOLDER_VARIABLES = {
    "HOME": "",
    "XDG_CACHE_HOME": "/.cache",
    "HF_HOME": "/.cache/huggingface",
    "TORCH_HOME": "/.cache/torch",
    "TRITON_CACHE_DIR": "/.cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/.cache/torchinductor",
    "MPLCONFIGDIR": "/.cache/matplotlib",
}
"""Variables of a container with a folder that must exist and be writable; the folder below HOME of the layout tao7."""

NAMED_UID = "1000"
"""Known to NVIDIA's images for PyTorch, with a home; to others perhaps not, and a second name does no harm."""

_NAME_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""What Python's ``getpass.getuser`` looks at, before the image's list of users."""


def missing_identity(options: object, names: Collection[object]) -> dict[str, str]:
    """Return the variables that a container needs because the id of its user may be unknown in the image.

    ``options`` are its DockerOptions, ``names`` its variables.
    """
    user = str(options.get("user") or "") if isinstance(options, dict) else ""
    uid = user.partition(":")[0]
    if not (uid.isascii() and uid.isdigit() and int(uid)):
        return {}
    missing = {} if any(name in names for name in _NAME_VARIABLES) else dict(USER_ENV)
    return missing if "HOME" in names or uid == NAMED_UID else {**missing, "HOME": "/tmp"}  # noqa: S108 - in there


def with_identity(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping for one container, whose user has a name and a home; the shared file never gets them."""
    envs = mapping.get("Envs", [])
    missing = missing_identity(mapping.get("DockerOptions"), [entry["variable"] for entry in envs])
    added = [{"variable": name, "value": value} for name, value in missing.items()]
    return {**mapping, "Envs": [*envs, *added]} if added else dict(mapping)
