"""A hold, the record that some work needs a mapping, the task in its container, and the pure decisions about holds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from taoprofiles.errors import TaoprofError
from taoprofiles.masking import shorten
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.system import processes

RUN_VARIABLE = "TAOPROF_RUN"
"""The environment variable with a hold's id (the run tag), in the processes of a run and in its containers."""

OWN_KINDS = ("run", "shell", "notebook")
"""Work that taoprofiles started: its processes inherit a lock and have the run tag in their environment."""

QUEUED = "queued"
"""The phase of a detached run that waits in the queue."""

AGENT = "agent"
"""The kind of a container that NVIDIA's agents or tools started: it needs no mapping, and is never stopped here."""

KINDS = (*OWN_KINDS, "manual", "found", AGENT)


class Hold:
    """One hold; fields that are not given have their defaults. Times are in seconds since 1970."""

    id: str = ""  # five letters or digits
    kind: str = "run"  # one of KINDS; "found": work that taoprofiles did not start
    phase: str = "pending"  # "bound" when the container exists; "queued": a detached run that holds nothing yet
    profile: str | None = None
    digest: str | None = None  # of the mapping that the work needs (``mapping.digest``)
    content: str | None = None  # its content in the history (``History.store_content``), None if it may not be there
    shared: bool = False  # whether the work needs the shared mapping file; an isolated run has its own file
    reason: str = ""  # of a manual hold or a notebook's
    user: str = ""
    host: str = ""  # its name
    host_id: str = ""  # ``processes.host_id``
    pid: int = 0
    start: int = 0  # of the process, in clock ticks since boot; for a manual hold without a pid when it was made
    command: list[str]
    folder: str = ""  # where the command was started
    container: str | None = None  # its full id
    image: str | None = None
    engine: str | None = None  # its address
    cluster: str | None = None  # "slurm" or "kubernetes", of a job there
    namespace: str | None = None  # CONTEXT/NAMESPACE of Kubernetes
    job: str | None = None  # its id on the cluster, None until it is known, or that of an agent's job
    state: str = ""  # of a job, as the cluster names it
    task: str | None = ""  # the id of the launcher's ``docker exec``, None until it is known; "" if there is none
    since: float = 0.0
    until: float | None = None  # the time limit; a job on a cluster has one while the cluster does not list it
    released: bool = False  # by the owner, while the work is still running
    results: list[str]  # the host folders that the work writes
    gpus: list[str] | str | None = None  # the devices that it uses, "all", or None
    mounts: list[list[str]]  # pairs of source and destination
    ended: float | None = None
    status: int | None = None  # None is unknown
    differences: list[str]  # between the container and its mapping

    def __init__(self, **fields: Any) -> None:
        self.command, self.results, self.mounts, self.differences = [], [], [], []
        for name, value in fields.items():
            setattr(self, FIELDS.get(name, name), value)

    def is_valid(self) -> bool:
        """Check whether each field has a value of its type and range, which those of a damaged record may not have."""
        if not all(map(isinstance, map(self.__getattribute__, _TYPES), _TYPES.values())) or self.kind not in KINDS:
            return False
        texts = [*self.command, *self.results, *self.differences, *(self.gpus if isinstance(self.gpus, list) else ())]
        for pair in self.mounts:
            texts += pair if isinstance(pair, list) and len(pair) == 2 else [None]
        times = (self.since, self.until, self.ended)
        return all(isinstance(text, str) for text in texts) and all(abs(seconds or 0) < 1e11 for seconds in times)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they are written to the record and to JSON output."""
        return {key: getattr(self, name) for key, name in FIELDS.items()}

    def is_same(self, other: Hold) -> bool:
        """Check whether both belong to the same process or the same container."""
        by_process = bool(self.pid) and (self.pid, self.start) == (other.pid, other.start)
        return by_process or (self.container is not None and self.container == other.container)

    def has_process_here(self) -> bool:
        """Check whether its process is one of this host, and alive."""
        return self.host_id == processes.host_id() and processes.alive(self.pid, self.start)

    def line(self, *, when: str = "") -> str:
        """Return the hold in one line: what it runs, for whom, for how long (or ``when``) and where."""
        is_remote = self.host and self.host != os.uname().nodename
        parts = (
            f"pid {self.pid}" if self.pid else "",
            self.user,
            when or format_age(time.time() - self.since),
            f"{self.cluster} job {self.job or 'unknown'}" if self.cluster else f"on {self.host}" if is_remote else "",
            f"container {self.container[:6]}" if self.container else "",
            "" if self.kind in ("manual", AGENT) else self.phase,
            f"{'agent' if self.kind == AGENT else 'hold'} {self.id}",
        )
        return f"{self.title()}   " + ", ".join(part for part in parts if part)

    def title(self) -> str:
        """Return the command (of an agent with its job), or a manual hold's reason; a long one is shortened."""
        job = [f"job {self.job}:"] if self.kind == AGENT else []
        return shorten_command([*job, *self.command] or [self.reason or self.kind])


FIELDS = {"place" if name == "host_id" else name: name for name in Hold.__annotations__}
"""By the key in records and in JSON output: the field of ``Hold``."""


class HeldError(TaoprofError):
    """Running work needs the mapping, the results folder or the GPUs; ``holds`` are its holds."""

    code = "held"
    status = 5

    def __init__(self, message: str, *, holds: Sequence[Hold] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.holds = list(holds)
        self.more = {"holders": [hold.as_dict() for hold in holds]}


def shorten_command(words: list[str]) -> str:
    """Return a command as text; a long one is shortened in the middle."""
    return shorten(" ".join(words), 90, end=27)


def new_hold(context: Context, kind: str, **fields: Any) -> Hold:
    """Return a hold of this user on this host that has not been written yet."""
    return Hold(kind=kind, user=context.user, host=os.uname().nodename, host_id=processes.host_id(), **fields)


def without_run_tag(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the run tag, for a program that is no work of the run around it."""
    return {name: value for name, value in environ.items() if name != RUN_VARIABLE}


_NAMED = {"float": (int, float), "None": (type(None),), "str": (str,), "bool": (bool,), "int": (int,)}
_TYPES = {
    name: tuple(kind for part in annotation.split(" | ") for kind in _NAMED.get(part, (list,)))
    for name, annotation in Hold.__annotations__.items()
}
"""The types of each field; the texts in its lists are checked apart (``Hold.is_valid``)."""


def format_age(seconds: float, *, exact: bool = False) -> str:
    """Return a duration in at most two units, such as "2 h 14 min".

    With ``exact``, minutes have their seconds too, and less than ten seconds their tenths.
    """
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s" if exact else f"{minutes} min"
    return f"{seconds:.1f} s".replace(".0 ", " ") if exact and 0 < seconds < 10 else f"{whole} s"


def shared_holds(holds: Iterable[Hold]) -> list[Hold]:
    """Return the holds that need the shared mapping file."""
    return [hold for hold in holds if hold.shared and not hold.released]


def blocking_holds(holds: Iterable[Hold], digest: str) -> list[Hold]:
    """Return the holds that need another mapping in the shared mapping file than the one with this digest."""
    return [hold for hold in shared_holds(holds) if hold.digest != digest]


def folders_overlap(folders: Iterable[str], others: Iterable[str]) -> bool:
    """Check whether one of the folders is, contains or lies in one of the others."""
    others = list(others)
    return any(is_inside(folder, other) or is_inside(other, folder) for folder in folders for other in others)


def results_conflicts(holds: Iterable[Hold], results: list[str]) -> list[tuple[Hold, str]]:
    """Return each active run that writes one of the folders ``results``, or one inside or around it, and the folder.

    Work that taoprofiles did not start is none.
    """
    return [
        (hold, folder)
        for hold in holds
        for folder in results
        if hold.ended is None and hold.kind != "found" and folders_overlap([folder], hold.results)
    ]


def gpus_overlap(gpus: list[str] | int | str | None, others: list[str] | int | str | None) -> bool:
    """Check whether a request for GPUs must follow the request ``others``, or conflicts with those in use.

    "all" overlaps with every GPU. A number of free GPUs may be any, so that it must be served before a later request;
    a later number takes others than the GPUs that are named.
    """
    if not gpus or not others:
        return False
    if isinstance(gpus, list) and isinstance(others, list):
        return bool(set(gpus) & set(others))
    return not (isinstance(gpus, int) and isinstance(others, list))


def seconds_held(hold: Hold) -> float:
    """Return the age of a manual hold: by the time since boot, which setting the clock does not change.

    After a reboot and for a hold of another host there is only the clock.
    """
    if hold.host_id == processes.host_id() and not hold.pid:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - hold.start / os.sysconf("SC_CLK_TCK")
    return time.time() - hold.since


class ContainerTask:
    """A container of a run, and the task in it, by the engine's events.

    The launcher itself exits with 0 whatever happens to the task (run_container in docker_handler.py of every version
    from 0.1.21 to 6.26.3), and the container is removed at once, so only the event ``exec_die`` has the exit status.
    """

    def __init__(self, container_id: str, task: str | None) -> None:
        """Start with nothing known but ``Hold.task``."""
        self.id = container_id
        self.task = task or None  # the launcher's own ``docker exec``, the first in the container
        self.command: list[str] = []  # the words of that
        self.is_docker_run = task == ""  # the task is the container's own command
        self.status: int | None = None  # of the task, None while it is unknown
        self.ended: float | None = None  # when it, or the container, ended: seconds since 1970 by the engine's clock
        self.is_over = False  # whether the container has ended

    def handle(self, event: dict[str, Any]) -> bool:
        """Take over what an event (``engine.parse_event``) says; return whether it is the start of the task."""
        action, status = event["Action"], event["ExitCode"]
        is_start = action == "exec_start" and self.task is None  # later ones are users who inspect the container
        if is_start:
            self.task, self.command = event["Task"], event["Command"].split()
        if action == "exec_die" and status is not None and self.task in (None, event["Task"]):
            self.status, self.ended = status, event["Stamp"] / 1e9
        if action in ("die", "destroy"):
            self.is_over = True
            self.ended = self.ended or event["Stamp"] / 1e9
            if status is not None and self.is_docker_run:
                self.status = status
        return is_start
