"""What launchers do: their versions and the differences between them, the mounts file that they read; NVIDIA's images.

The versions are those on PyPI: nvidia-tlt 0.1.21, nvidia-tao all others. The table was read in the wheels and is
compared with the launchers themselves by tests/launcher. Sources for the images: versions.yaml of NVIDIA's skill bank
(7.1.0), config.json of nvidia-tao 6.26.3, the Dockerfiles of the three repositories. The variable TAO_TOOLKIT_VERSION
in the images does not tell the version: in 7.0.1 it is 6.25.10.
"""

import errno
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from taoprofiles.storage.paths import MAPPING_FILE, expand_user

KNOWN_VERSIONS = (
    "0.1.21", "0.1.23", "0.1.24", "4.0.0", "4.0.1", "5.0.0", "5.1.0", "5.2.0", "5.2.0.1", "5.3.0", "5.5.1", "6.0.0",
    "6.0.1", "6.25.7", "6.25.9", "6.25.10", "6.25.11", "6.25.11.1", "6.26.3",
)  # fmt: skip
NEWEST_VERSION = KNOWN_VERSIONS[-1]


class _Since:
    """A difference between launchers: true from a version on."""

    def __init__(self, *first: int) -> None:
        self.first = first

    def __get__(self, behaviour: "Behaviour", owner: object) -> bool:
        return _VERSION_NUMBERS[behaviour.version] >= self.first


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


def parse_version(version: str) -> tuple[int, ...]:
    """Return a version as numbers to compare. Raises ValueError for anything that is not a version of the launcher."""
    parts = version.split(".")
    if len(parts) > 4 or not version.isascii() or not all(part.isdigit() and len(part) <= 4 for part in parts):
        raise ValueError(f"'{version}' is not a launcher version such as {NEWEST_VERSION}")
    numbers = tuple(map(int, parts))
    numbers += (0,) * (3 - len(numbers))
    if not (0, 1) <= numbers < (7,):
        raise ValueError(f"there is no launcher {version}: the first is {KNOWN_VERSIONS[0]}, and TAO 7 has none")
    return numbers


_VERSION_NUMBERS = {version: parse_version(version) for version in KNOWN_VERSIONS}


def behaviour_of(version: str) -> Behaviour:
    """Return the behaviour of a version: its own if it is known, else that of the last known version before it.

    Raises ValueError for anything that is not a version of the launcher.
    """
    wanted = parse_version(version)
    earlier = (known for known in reversed(KNOWN_VERSIONS) if _VERSION_NUMBERS[known] <= wanted)
    return Behaviour(next(earlier, KNOWN_VERSIONS[0]))


def behaviour_or_newest(version: str) -> Behaviour:
    """Return the behaviour of an installed launcher: the newest's if the version is "" or unknown."""
    try:
        return behaviour_of(version)
    except ValueError:
        return behaviour_of(NEWEST_VERSION)


# The machine as a launcher sees it


OWN_FILE = f"~/{MAPPING_FILE}"
_READ_LIMIT = 64 << 20
"""Bytes: a larger file is an error here, although the launcher would read it."""


class Host:
    """File system and environment of a simulated launcher; the methods mirror ``os.path`` and ``open``.

    ``environ`` is the launcher's environment, ``folder`` its current folder, ``config`` the content of the installed
    launcher's ``config/config.json``, or None; ``files`` has contents by path that take the place of the real files.
    A path may be anything that a mounts file can hold, including values that are not paths: then TypeError or
    ValueError is raised with Python's own message. A relative path starts at ``folder``; an empty one never exists.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: str,
        config: bytes | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.environ, self.folder, self.config, self.files = environ, folder, config, files or {}

    def expanduser(self, path: str) -> str:
        """Replace a leading ``~`` by the home folder: the environment's HOME."""
        home = self.environ.get("HOME")
        return os.path.expanduser(path) if home is None or not isinstance(path, str) else expand_user(path, home)

    def realpath(self, path: str) -> str:
        """Resolve every symlink; components that do not exist stay as they are."""
        os.fsencode(path)  # raises TypeError or ValueError for a value that is not a path
        return os.path.realpath(os.path.join(self.folder, path))

    def exists(self, path: str) -> bool:
        """Check whether there is a file or folder that the user may see."""
        return path != "" and (path in self.files or os.path.exists(os.path.join(self.folder, path)))

    def read(self, path: str) -> bytes:
        """Return the content of a regular file. Raises OSError with the path as it was given.

        The launcher would wait for a FIFO, and read a device until memory is full: here both are an error.
        """
        if path in self.files:
            return self.files[path]
        try:
            fd = os.open(os.path.join(self.folder, path), os.O_RDONLY | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                if stat.S_ISFIFO(mode := os.fstat(fd).st_mode) or stat.S_ISCHR(mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")
                content = file.read(_READ_LIMIT + 1)
            if len(content) > _READ_LIMIT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        return content


def runs_without_docker(environ: Mapping[str, str], behaviour: Behaviour | None = None) -> bool:
    """Check whether the launcher runs its tasks on the host itself; ``behaviour`` None means 4.0.0 or later."""
    return environ.get("TAO_DOCKER_DISABLE") == "1" and (behaviour is None or behaviour.has_no_docker_mode)


def runs_in_ci(environ: Mapping[str, str], behaviour: Behaviour | None = None) -> bool:
    """Check whether the launcher takes the host for a GitLab runner, and starts the container by ``docker run``.

    ``behaviour`` None means 5.0.0 or later.
    """
    return "CI_PROJECT_DIR" in environ and (behaviour is None or behaviour.ci)


def skips_login(environ: Mapping[str, str], behaviour: Behaviour) -> bool:
    """Check whether the launcher does without a login to NVIDIA's registry."""
    return "OVERRIDE_REGISTRY" in environ and behaviour.override_skips_login


def find_mounts_path(host: Host, behaviour: Behaviour | None) -> str:
    """Return the path of the one mounts file that a launcher reads, whether it exists or not.

    ``behaviour`` None means a launcher of 5.0.0 or later.
    """
    named = host.environ.get("LAUNCHER_MOUNTS")
    if named is None:
        named = OWN_FILE
        if behaviour is not None and not host.exists(host.expanduser(OWN_FILE)):
            named = behaviour.fallback_file
    return host.expanduser(named)


def find_mounts_file(environ: Mapping[str, str], folder: str, behaviour: Behaviour | None = None) -> str:
    """Return the absolute path of the mounts file that a launcher reads when it is started in ``folder``.

    "" if LAUNCHER_MOUNTS is empty: then the launcher reads no file.
    """
    path = find_mounts_path(Host(environ, folder), behaviour)
    return os.path.join(folder, path) if path else ""


# Positions in the input, and resolved mounts


ENTRY_KEYS = {"Mounts": ("source", "destination"), "Envs": ("variable", "value")}
"""By list of the mounts file: the keys that each entry needs. The launcher reads no others."""

SECTIONS = (*ENTRY_KEYS, "DockerOptions")
"""The keys of the mounts file that the launcher reads."""


class Location(NamedTuple):
    """A position in the launcher's input, such as ``Mounts[1].source``.

    ``section`` is Mounts, Envs or DockerOptions of the mounts file, ``--volume`` (of the command), ``command``,
    ``environ`` (``key`` is the variable), ``file`` (the mounts file as a whole), ``login`` or ``config``;
    ``number`` counts from 0.
    """

    section: str
    number: int | None = None
    key: str = ""

    def __str__(self) -> str:
        number = "" if self.number is None else f"[{self.number}]"
        return f"{self.section}{number}" + (f".{self.key}" if self.key else "")


class ResolvedMount(NamedTuple):
    """A mount that the launcher understands: ``entry`` is as written; the paths are resolved on this host."""

    location: Location
    source: str
    destination: str
    entry: Mapping[str, Any]


def resolve_mounts(mapping: Mapping[str, Any], host: Host) -> list[ResolvedMount]:
    """Return the mounts of a mapping that a profile renders, all of which are well formed."""
    return [
        ResolvedMount(
            Location("Mounts", number), host.realpath(entry["source"]), host.realpath(entry["destination"]), entry
        )
        for number, entry in enumerate(mapping["Mounts"])
    ]


def missing_source(path: str) -> str:
    """Return what the launcher says about a source that does not exist."""
    return f"Mount point source path doesn't exist. {path}"


# NVIDIA's images


_IMAGE_NAMES = ("nvidia/tao/", "nvidia/tlt", "nvstaging/tao/")
_IMAGE_TAG = r":(\d+)\.(\d+)\.(\d+)-([a-z][a-z0-9.-]*)\Z"

_FOLDERS_WITH_FILES = frozenset(("/workspace", "/opt", "/opt/nvidia"))
"""Folders of the images: libraries are in /workspace too (tao-skill-bank 4ff3719), TAO itself in /opt/nvidia."""


def explain_hidden_folder(destination: str) -> str:
    """Return what a mount at ``destination`` hides of NVIDIA's images, as a sentence; "" if nothing."""
    if destination not in _FOLDERS_WITH_FILES:
        return ""
    return f"'{destination}' of TAO's images has files of NVIDIA, and this mount hides them"


def is_tao_image(image: str) -> bool:
    """Check whether an image is one of NVIDIA's TAO images, by its name."""
    return any(name in image for name in _IMAGE_NAMES)


def parse_image_tag(image: str) -> tuple[tuple[int, int, int], str] | None:
    """Return the release and the kind that the tag of a TAO image has, as in ``7.1.0-pyt``; None for any other image.

    The kind is pyt, deploy, data-services, tf2 and the like.
    """
    match = re.search(_IMAGE_TAG, image) if is_tao_image(image) or "tao-toolkit" in image else None
    return None if match is None else ((int(match[1]), int(match[2]), int(match[3])), match[4])
