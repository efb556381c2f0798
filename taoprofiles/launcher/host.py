"""The machine as a launcher sees it: an environment, a current folder, and the files."""

import errno
import os
import posixpath
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.storage.paths import MAPPING_FILE, expand_user

if TYPE_CHECKING:
    from taoprofiles.launcher.versions import Behaviour

OWN_FILE = f"~/{MAPPING_FILE}"
_LIMIT = 64 << 20
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
                content = file.read(_LIMIT + 1)
            if len(content) > _LIMIT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        return content


def runs_without_docker(environ: Mapping[str, str], behaviour: "Behaviour | None" = None) -> bool:
    """Check whether the launcher runs its tasks on the host itself; ``behaviour`` None means 4.0.0 or later."""
    return environ.get("TAO_DOCKER_DISABLE") == "1" and (behaviour is None or behaviour.has_no_docker_mode)


def runs_in_ci(environ: Mapping[str, str], behaviour: "Behaviour | None" = None) -> bool:
    """Check whether the launcher takes the host for a GitLab runner, and starts the container by ``docker run``.

    ``behaviour`` None means 5.0.0 or later.
    """
    return "CI_PROJECT_DIR" in environ and (behaviour is None or behaviour.ci)


def skips_login(environ: Mapping[str, str], behaviour: "Behaviour") -> bool:
    """Check whether the launcher does without a login to NVIDIA's registry."""
    return "OVERRIDE_REGISTRY" in environ and behaviour.override_skips_login


def find_mounts_path(host: Host, behaviour: "Behaviour | None") -> str:
    """Return the path of the one mounts file that a launcher reads, whether it exists or not.

    ``behaviour`` None means a launcher of 5.0.0 or later.
    """
    named = host.environ.get("LAUNCHER_MOUNTS")
    if named is None:
        named = OWN_FILE
        if behaviour is not None and not host.exists(host.expanduser(OWN_FILE)):
            named = behaviour.fallback_file
    return host.expanduser(named)


def find_mounts_file(environ: Mapping[str, str], folder: str, behaviour: "Behaviour | None" = None) -> str:
    """Return the absolute path of the mounts file that a launcher reads when it is started in ``folder``.

    "" if LAUNCHER_MOUNTS is empty: then the launcher reads no file.
    """
    path = find_mounts_path(Host(environ, folder), behaviour)
    return posixpath.join(folder, path) if path else ""


# Positions in the input, and resolved mounts


ENTRY_KEYS = {"Mounts": ("source", "destination"), "Envs": ("variable", "value")}
"""By list of the mounts file: the keys that each entry needs. The launcher reads no others."""


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


def resolve(mapping: Mapping[str, Any], host: Host) -> list[ResolvedMount]:
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
