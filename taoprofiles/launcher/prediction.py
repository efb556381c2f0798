"""The result of a simulated start: the container that is asked for, every refusal and every silent effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.launcher.host import Location, ResolvedMount

if TYPE_CHECKING:
    from typing import TypeVar

    from taoprofiles.launcher.simulation import Content

    T = TypeVar("T")

CONTAINER = "CONTAINER"
"""Placeholder in ``Prediction.shell`` for the container's id, which the engine assigns."""

_ERRORS = (AssertionError, AttributeError, LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError)
"""What the launcher's own statements raise on values of a wrong type or form."""


class Refusal(NamedTuple):
    """A reason for which the launcher ends before it starts a container.

    ``kind`` is the name of the exception's class as in the last line of the traceback (without the module), or
    "SystemExit" if the launcher itself ends; ``message`` its text; ``status`` the exit status of ``tao``.
    """

    kind: str
    message: str
    location: Location
    status: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.message.strip()}".replace("\n", " ")[:300]


class SilentEffect(NamedTuple):
    """A silent effect that is not visible in the mounts file itself. ``was`` never holds secrets.

    - volume-not-seen: a ``--volume`` (``was``) that goes to the task as an argument
    - mode-ignored: a ``--volume`` is writable in spite of its mode ``was``
    - ci-dropped: with CI_PROJECT_DIR this does not reach Docker
    """

    kind: str
    location: Location
    was: str = ""


class Call(NamedTuple):
    """The container that Docker is asked for.

    ``volumes`` is the destination by source, both as they reach Docker, all writable; ``environment`` has NAME=VALUE
    lines, secrets included; ``ulimits`` the limit by name; ``ports`` the PortBindings of the request; ``shm_size`` is
    in bytes if it was text. None or {} means: not asked for. ``body`` is the whole request that the Docker SDK
    sends to ``/containers/create``. All GPUs are always asked for.
    """

    image: str
    volumes: dict[str, str]
    environment: list[str]
    user: str | None
    shm_size: Any
    ulimits: Mapping[str, Any]
    ports: Mapping[str, Any]
    network: Any
    privileged: bool
    tty: bool
    body: dict[str, Any]


class RefusedError(Exception):
    """Raised if the launcher ends with a message of its own, or of the Docker SDK."""

    def __init__(self, kind: str, message: str, location: Location, status: int = 1) -> None:
        super().__init__(message)
        self.refusal = Refusal(kind, message, location, status)


MOST_REFUSALS = 1000
"""No more are looked for: a mounts file has room for 300,000 entries, each of which is wrong."""


class StartLog:
    """The refusals and silent effects of a start, in the order of the launcher."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.changes: list[SilentEffect] = []

    def change(self, kind: str, location: Location, was: str = "") -> None:
        """Record a silent effect."""
        self.changes.append(SilentEffect(kind, location, was))

    def while_few(self, entries: Iterable[T]) -> Iterator[T]:
        """Yield the entries until there are MOST_REFUSALS."""
        return takewhile(lambda _: len(self.refusals) < MOST_REFUSALS, entries)

    @contextmanager
    def step(self, section: str, number: int | None = None, key: str = "") -> Iterator[None]:
        """Record an exception in the body as a refusal, and end the step.

        The body does what the launcher does, such as ``keys()`` of a list, so that Python's message is the same.
        """
        try:
            yield
        except RefusedError as error:
            self.refusals.append(error.refusal)
        except _ERRORS as error:
            message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            self.refusals.append(Refusal(type(error).__name__, message, Location(section, number, key)))


class Prediction(StartLog):
    """What the launcher does up to its last call of Docker.

    ``version`` is the known launcher whose behaviour is predicted; ``source_file`` the path of the mounts file that it
    reads, None if it reads none; ``content`` what it takes from that file; ``volumes`` the mounts of ``--volume``.
    ``refusals`` are in the order of the launcher, which stops at the first. ``call`` and ``shell``, the command line
    that it then gives to ``/bin/sh`` on the host, leave out what is refused. ``call`` is None and ``shell`` empty if
    no container is asked for (``tao list``, ``--help``, TAO_DOCKER_DISABLE) or the mounts file cannot be read; under
    CI_PROJECT_DIR ``shell`` alone starts the container.
    """

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        self.source_file: str | None = None
        self.content: Content | None = None
        self.volumes: list[ResolvedMount] = []
        self.call: Call | None = None
        self.shell = ""

    @property
    def refusal(self) -> Refusal | None:
        """Return the refusal that the user sees, or None."""
        return self.refusals[0] if self.refusals else None
