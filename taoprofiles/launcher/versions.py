"""The released launchers, a table of the differences in their behaviour, and NVIDIA's images.

The versions are those on PyPI: nvidia-tlt 0.1.21, nvidia-tao all others. The table was read in the wheels and is
compared with the launchers themselves by tests/launcher. Sources for the images: versions.yaml of NVIDIA's skill bank
(7.1.0), config.json of nvidia-tao 6.26.3, the Dockerfiles of the three repositories. The variable TAO_TOOLKIT_VERSION
in the images does not tell the version: in 7.0.1 it is 6.25.10.
"""

from __future__ import annotations

import re

KNOWN = (
    "0.1.21", "0.1.23", "0.1.24", "4.0.0", "4.0.1", "5.0.0", "5.1.0", "5.2.0", "5.2.0.1", "5.3.0", "5.5.1", "6.0.0",
    "6.0.1", "6.25.7", "6.25.9", "6.25.10", "6.25.11", "6.25.11.1", "6.26.3",
)  # fmt: skip
NEWEST = KNOWN[-1]


class _Since:
    """A difference between launchers: true from a version on."""

    def __init__(self, *first: int) -> None:
        self.first = first

    def __get__(self, behaviour: Behaviour, owner: object) -> bool:
        return _NUMBERS[behaviour.version] >= self.first


class Behaviour:
    """The behaviour of a launcher; ``version`` is the known one from which it is taken."""

    def __init__(self, version: str) -> None:
        self.version = version

    has_no_docker_mode = _Since(4, 0, 0)
    """TAO_DOCKER_DISABLE=1 runs the task on this host."""
    task_groups = _Since(5, 0, 0)
    """``tao model TASK``; before: ``tao TASK``"""
    ci = _Since(5, 0, 0)
    """With CI_PROJECT_DIR the launcher starts ``docker run`` as one string."""
    tty_option = _Since(5, 0, 0)
    needs_options = _Since(5, 0, 0)
    """DockerOptions of null is an error."""
    override_skips_login = _Since(5, 0, 0)
    """With OVERRIDE_REGISTRY nvcr.io need not be logged in to."""
    volume_argument = _Since(6, 0, 0)
    """``--volume SOURCE:DESTINATION``"""
    sets_client_type = _Since(6, 25, 11)
    """TAO_CLIENT_TYPE=launcher is set in the container."""

    @property
    def programs(self) -> tuple[str, ...]:
        """Return the names of the launcher's programs; nvidia-tlt had 'tlt', and only 4.0.x has 'tao-deploy'."""
        if self.task_groups:
            return ("tao",)
        return ("tao", "tao-deploy") if self.has_no_docker_mode else ("tao", "tlt")

    @property
    def fallback_file(self) -> str:
        """Return the mounts file that is read if ``~/.tao_mounts.json`` does not exist; since 5.0.0 that same one."""
        return "~/.tao_mounts.json" if self.task_groups else "~/.tlt_mounts.json"

    @property
    def override_config(self) -> str:
        """Return the file whose tasks and images replace the launcher's own."""
        return "~/.tao/config.json" if self.task_groups else "~/.tlt/config.json"

    @property
    def entrypoint(self) -> list[str] | None:
        """Return the container's entrypoint."""
        return ["/bin/bash"] if self.version == "0.1.24" else None

    @property
    def options(self) -> list[str]:
        """Return the names in DockerOptions that this version accepts, in the order of its error message."""
        plain = ["user", "ports", "shm_size", "ulimits", "privileged", "network"]
        return [*plain, "tty"] if self.tty_option else plain


def parse(version: str) -> tuple[int, ...]:
    """Return a version as numbers to compare. Raises ValueError for anything that is not a version of the launcher."""
    parts = version.split(".")
    if len(parts) > 4 or not version.isascii() or not all(part.isdigit() and len(part) <= 4 for part in parts):
        raise ValueError(f"'{version}' is not a launcher version such as {NEWEST}")
    numbers = tuple(map(int, parts))
    numbers += (0,) * (3 - len(numbers))
    if not (0, 1) <= numbers < (7,):
        raise ValueError(f"there is no launcher {version}: the first is {KNOWN[0]}, and TAO 7 has none")
    return numbers


_NUMBERS = {known: parse(known) for known in KNOWN}


def behaviour_of(version: str) -> Behaviour:
    """Return the behaviour of a version: its own if it is known, else that of the last known version before it.

    Raises ValueError for anything that is not a version of the launcher.
    """
    wanted = parse(version)
    known = next((known for known in reversed(KNOWN) if _NUMBERS[known] <= wanted), KNOWN[0])
    return Behaviour(known)


def behaviour_or_newest(version: str) -> Behaviour:
    """Return the behaviour of an installed launcher: the newest's if the version is "" or unknown."""
    try:
        return behaviour_of(version)
    except ValueError:
        return behaviour_of(NEWEST)


_NAMES = ("nvidia/tao/", "nvidia/tlt", "nvstaging/tao/")
_TAG = r":(\d+)\.(\d+)\.(\d+)-([a-z][a-z0-9.-]*)\Z"

_WITH_FILES = frozenset(("/workspace", "/opt", "/opt/nvidia"))
"""Folders of the images: libraries are in /workspace too (tao-skill-bank 4ff3719), TAO itself in /opt/nvidia."""


def find_hidden(destination: str) -> str:
    """Return what a mount at ``destination`` hides of NVIDIA's images, as a sentence; "" if nothing."""
    if destination not in _WITH_FILES:
        return ""
    return f"'{destination}' of TAO's images has files of NVIDIA, and this mount hides them"


def is_tao_image(image: str) -> bool:
    """Check whether an image is one of NVIDIA's TAO images, by its name."""
    return any(name in image for name in _NAMES)


def find_tag(image: str) -> tuple[tuple[int, int, int], str] | None:
    """Return the release and the kind that the tag of a TAO image has, as in ``7.1.0-pyt``; None for any other image.

    The kind is pyt, deploy, data-services, tf2 and the like.
    """
    match = re.search(_TAG, image) if is_tao_image(image) or "tao-toolkit" in image else None
    return None if match is None else ((int(match[1]), int(match[2]), int(match[3])), match[4])
