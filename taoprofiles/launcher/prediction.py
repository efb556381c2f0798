"""What is told of a start that has not happened: plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTAINER = "CONTAINER"
"""Stands in ``Prediction.shell`` for the id that the engine will give."""


class Machine(Protocol):
    """What the launcher looks at. ``world.host.Host`` is the real one.

    A relative path is taken from the folder that the launcher would be started in, an empty one is that of ``os.path``:
    it exists nowhere. The methods raise what the functions of the same name in ``os.path`` and ``open`` raise.
    """

    @property
    def environ(self) -> Mapping[str, str]:
        """The launcher's environment."""
        ...

    @property
    def config(self) -> bytes | None:
        """The installed launcher's own ``config/config.json``, its tasks and images; None where it is not known."""
        ...

    def expanduser(self, path: str) -> str:
        """Do as ``os.path.expanduser``, with the HOME of ``environ``."""
        ...

    def realpath(self, path: str) -> str:
        """Do as ``os.path.realpath``."""
        ...

    def exists(self, path: str) -> bool:
        """Do as ``os.path.exists``."""
        ...

    def read(self, path: str) -> bytes:
        """Give the content of a file."""
        ...


class Place(NamedTuple):
    """Where something stands, as in ``Mounts[1].source``.

    ``section`` is Mounts, Envs or DockerOptions of the mounts file, ``--volume`` (of the command), ``command``,
    ``environ`` (``key`` names the variable), ``file`` (the mounts file as a whole), ``login`` or ``config``;
    ``number`` counts from 0.
    """

    section: str
    number: int | None = None
    key: str = ""

    def __str__(self) -> str:
        number = "" if self.number is None else f"[{self.number}]"
        return f"{self.section}{number}" + (f".{self.key}" if self.key else "")


class Refusal(NamedTuple):
    """How it ends without a container.

    ``kind`` is the name of the exception's class as the last line of the traceback has it (without a module), or
    "SystemExit" where the launcher says so itself; ``message`` its text; ``status`` the exit status of ``tao``.
    """

    kind: str
    message: str
    place: Place
    status: int = 1


class Change(NamedTuple):
    """Something that will not be as it was written, and that nobody is told of. ``was`` and ``now`` are never secret.

    ========================= =================================================================================
    no-file                   no mounts file at ``was``: a start without mounts, variables and options
    json-duplicate-key        ``was`` stands twice in one object: what came first is lost
    unknown-keys              keys of an entry that nothing reads, ``was`` names them
    mode-ignored              a mount is writable whatever ``was`` says
    moved-destination         the destination is resolved on this host: from ``was`` to ``now``
    dropped-same-source       this mount does not happen: ``now`` names the place of the one with the same source
    volume-not-seen           a ``--volume`` (``was``) that goes to the task as an argument
    volume-source-missing     the source of a ``--volume`` is not there: Docker makes a folder of root's at ``was``
    env-none                  null becomes the text None
    env-stringified           a value that is no text becomes one
    env-twice                 the variable ``was`` comes twice: the last one counts
    root-user                 the container runs as root
    ci-dropped                under CI_PROJECT_DIR this does not reach Docker
    image-renamed             OVERRIDE_REGISTRY: another image, from ``was`` to ``now``
    proxy-added               variables of ``~/.docker/config.json`` come first, ``now`` names them
    no-docker                 TAO_DOCKER_DISABLE: no container, the mounts file is not read
    ========================= =================================================================================
    """

    kind: str
    place: Place
    was: str = ""
    now: str = ""


class Call(NamedTuple):
    """The container that Docker is asked for.

    ``volumes`` is the destination by source, both as they reach Docker, all writable; ``environment`` has NAME=VALUE
    lines, secrets and all; ``ulimits`` the limit by name; ``ports`` what Docker gets as PortBindings; ``shm_size`` is
    in bytes where it was text. None or {} is: not asked for. ``body`` is the whole of it as the Docker SDK sends it to
    ``/containers/create``; None under CI_PROJECT_DIR, where the shell is given ``Prediction.shell`` instead, and
    ``shm_size`` is as written. All GPUs are asked for, always.
    """

    image: str
    volumes: dict[str, str]
    environment: list[str]
    user: str | None
    shm_size: Any
    ulimits: dict[str, Any]
    ports: dict[str, Any]
    network: Any
    privileged: bool
    tty: bool
    body: dict[str, Any] | None


class Prediction(NamedTuple):
    """What the launcher does up to its last call of Docker.

    Either ``refusal`` or ``call`` is there, or neither: where no container is asked for (``tao list``, ``--help``,
    TAO_DOCKER_DISABLE). ``version`` is the known launcher that the prediction is of, ``source_file`` the path of the
    mounts file that it reads, None if it reads none, ``shell`` the line that it then gives to ``/bin/sh`` on the host.
    """

    version: str
    source_file: str | None
    refusal: Refusal | None
    call: Call | None
    changes: list[Change]
    shell: str = ""
