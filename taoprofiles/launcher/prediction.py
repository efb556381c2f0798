"""The result of a simulated start: the container that is asked for, every refusal and every silent change."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from taoprofiles.launcher.mounts import Content

CONTAINER = "CONTAINER"
"""Placeholder in ``Prediction.shell`` for the container's id, which the engine assigns."""

_ERRORS = (AssertionError, AttributeError, LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError)
"""What the launcher's own statements raise on values of a wrong type or form."""


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


class Refusal(NamedTuple):
    """A reason for which the launcher ends before it starts a container.

    ``kind`` is the name of the exception's class as in the last line of the traceback (without the module), or
    "SystemExit" where the launcher itself ends; ``message`` its text; ``status`` the exit status of ``tao``.
    """

    kind: str
    message: str
    location: Location
    status: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.message.strip()}".replace("\n", " ")[:300]


class Change(NamedTuple):
    """A silent difference between what is written and what happens. ``was`` and ``now`` never hold secrets.

    ========================= =================================================================================
    no-file                   no mounts file at ``was``: a start without mounts, variables and options
    json-duplicate-key        ``was`` occurs twice in one object: the first value is lost
    unknown-keys              keys of an entry that the launcher ignores, named in ``was``
    mode-ignored              a mount is writable in spite of ``was``
    moved-destination         the destination is resolved on this host: from ``was`` to ``now``
    dropped-same-source       this mount is dropped (destination ``was``): the mount at ``now`` has the same source
    volume-not-seen           a ``--volume`` (``was``) that goes to the task as an argument
    volume-source-missing     the source of a ``--volume`` is missing: Docker creates the folder ``was`` as root
    env-none                  null becomes the text None
    env-stringified           a value that is not text becomes text
    env-twice                 the variable ``was`` is set twice: the last value counts, at ``now``
    root-user                 the container runs as root
    ci-dropped                with CI_PROJECT_DIR this does not reach Docker
    image-renamed             OVERRIDE_REGISTRY: another image, from ``was`` to ``now``
    proxy-added               variables of ``~/.docker/config.json`` come first, named in ``now``
    no-docker                 TAO_DOCKER_DISABLE: no container, and the mounts file is not read
    ========================= =================================================================================
    """

    kind: str
    location: Location
    was: str = ""
    now: str = ""


class Call(NamedTuple):
    """The container that Docker is asked for.

    ``volumes`` is the destination by source, both as they reach Docker, all writable; ``environment`` has NAME=VALUE
    lines, secrets included; ``ulimits`` the limit by name; ``ports`` the PortBindings of the request; ``shm_size`` is
    in bytes where it was text. None or {} means: not asked for. ``body`` is the whole request that the Docker SDK
    sends to ``/containers/create``; None under CI_PROJECT_DIR, where the shell is given ``Prediction.shell`` instead,
    and ``shm_size`` is as written. All GPUs are always asked for.
    """

    image: str
    volumes: dict[str, str]
    environment: list[str]
    user: str | None = None
    shm_size: Any = None
    ulimits: Mapping[str, Any] = MappingProxyType({})
    ports: Mapping[str, Any] = MappingProxyType({})
    network: Any = None
    privileged: bool = False
    tty: bool = True
    body: dict[str, Any] | None = None


class Prediction(NamedTuple):
    """What the launcher does up to its last call of Docker.

    ``version`` is the known launcher whose behaviour is predicted; ``source_file`` the path of the mounts file that it
    reads, None if it reads none; ``content`` what it takes from that file. ``refusals`` are in the order of the
    launcher, which stops at the first. ``call`` and ``shell``, the command line that it then gives to ``/bin/sh`` on
    the host, leave out what is refused; both are empty where no container is asked for (``tao list``, ``--help``,
    TAO_DOCKER_DISABLE) or the mounts file cannot be read.
    """

    version: str
    source_file: str | None
    content: Content | None
    refusals: list[Refusal]
    changes: list[Change]
    call: Call | None
    shell: str

    @property
    def refusal(self) -> Refusal | None:
        """Return the refusal that the user sees, or None."""
        return self.refusals[0] if self.refusals else None


class RefusedError(Exception):
    """Raised where the launcher ends with a message of its own, or of the Docker SDK."""

    def __init__(self, kind: str, message: str, location: Location, status: int = 1) -> None:
        super().__init__(message)
        self.refusal = Refusal(kind, message, location, status)


class StartLog:
    """The refusals and silent changes of a start, in the order of the launcher."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.changes: list[Change] = []

    def change(self, kind: str, location: Location, was: str = "", now: str = "") -> None:
        """Record a silent change."""
        self.changes.append(Change(kind, location, was, now))

    def step(self, section: str, number: int | None = None, key: str = "") -> _Step:
        """Return the context of a launcher's step: an exception in it is recorded as a refusal, and ends the step.

        The step does what the launcher does, such as ``keys()`` of a list, so that Python's message is the same.
        """
        return _Step(self, Location(section, number, key))


class _Step:
    def __init__(self, log: StartLog, location: Location) -> None:
        self._log, self._location = log, location

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, RefusedError):
            self._log.refusals.append(error.refusal)
        elif isinstance(error, _ERRORS):
            message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            self._log.refusals.append(Refusal(type(error).__name__, message, self._location))
        else:
            return False
        return True
