"""A hold: the claim that a mapping must not change, and the pure decision who may not be disturbed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

RUN_VARIABLE = "TAOPROF_RUN"
"""The environment variable that carries a hold's id, in the processes of a run and in its containers."""

PROFILE_LABEL, STATE_LABEL, RUN_LABEL = "taoprofiles.profile", "taoprofiles.state", "taoprofiles.run"
"""Labels of containers started without the launcher: the profile, whose (its state folder), and the run's id."""

LABELS = (PROFILE_LABEL, STATE_LABEL, RUN_LABEL)

OWN_KINDS = ("run", "shell", "notebook")
"""Work that taoprofiles started: it has a claim, and carries its mark."""

KINDS = (*OWN_KINDS, "manual", "found")


class Hold:
    """One claim. Made with keyword arguments; what is not given is as ``DEFAULTS`` says.

    - ``id``: short and exact; ``kind``: run, shell, notebook, manual, or found (work that taoprofiles did not start)
    - ``phase``: "pending" until the container exists, then "bound"
    - ``profile``, ``digest``: the profile's name and the digest of the mapping that the work needs (``mapping.digest``)
    - ``shared``: whether it needs the shared mapping file; an isolated run has a file of its own
    - ``user``, ``host`` (its name), ``place`` (the very host: see ``world.processes.place``), ``pid``, ``start``: the
      owner; ``start`` is in clock ticks since boot, of a hold by hand without a pid that of the hold
    - ``command`` (list of words), ``folder`` (where it was started), ``container``, ``image``, ``engine`` (its address)
    - ``since``, ``until``: seconds since 1970; ``until`` is None where there is no end
    - ``released``: its owner let go of it although the work goes on
    - ``results``: the host folders that it writes; ``gpus``: the devices that it has, "all", or None
    - ``ended``, ``status``, ``differences``: of a run that is over; ``status`` None is unknown
    """

    DEFAULTS: Mapping[str, Any] = {
        "id": "", "kind": "run", "phase": "pending", "profile": None, "digest": None, "shared": False, "reason": "",
        "user": "", "host": "", "place": "", "pid": 0, "start": 0, "command": (), "folder": "", "container": None,
        "image": None, "engine": None, "since": 0.0, "until": None, "released": False, "results": (), "gpus": None,
        "mounts": (), "ended": None, "status": None, "differences": (),
    }  # fmt: skip

    id: str
    kind: str
    phase: str
    profile: str | None
    digest: str | None
    shared: bool
    reason: str
    user: str
    host: str
    place: str
    pid: int
    start: int
    command: list[str]
    folder: str
    container: str | None
    image: str | None
    engine: str | None
    since: float
    until: float | None
    released: bool
    results: list[str]
    gpus: list[str] | str | None
    mounts: list[list[str]]
    ended: float | None
    status: int | None
    differences: list[str]

    def __init__(self, **fields: Any) -> None:
        for name, default in self.DEFAULTS.items():
            value = fields.get(name, default)
            setattr(self, name, list(value) if isinstance(value, tuple) else value)

    def is_sound(self) -> bool:
        """Whether each field has a value of its type; a record that was damaged has not."""
        texts, numbers = (str, type(None)), (int, float, type(None))
        kinds: dict[str, tuple[type, ...]] = {
            **dict.fromkeys(("id", "kind", "phase", "reason", "user", "host", "place", "folder"), (str,)),
            **dict.fromkeys(("profile", "digest", "container", "image", "engine"), texts),
            **dict.fromkeys(("since", "until", "ended", "status"), numbers),
            **dict.fromkeys(("shared", "released"), (bool,)),
            **dict.fromkeys(("pid", "start"), (int,)),
        }
        lists = [self.command, self.results, self.differences, [] if isinstance(self.gpus, str) else self.gpus or []]
        return (
            all(isinstance(getattr(self, name), kind) for name, kind in kinds.items())
            and isinstance(self.since, (int, float))
            and all(abs(time or 0) < 1e11 for time in (self.since, self.until, self.ended))
            and self.kind in KINDS
            and all(isinstance(one, list) and all(isinstance(word, str) for word in one) for one in lists)
            and isinstance(self.mounts, list)
            and all(isinstance(pair, list) and len(pair) == 2 for pair in self.mounts)
            and all(isinstance(side, str) for pair in self.mounts for side in pair)
        )

    def as_dict(self) -> dict[str, Any]:
        """Give the fields, as they are written to a file and shown to programs."""
        return {name: getattr(self, name) for name in self.DEFAULTS}

    def is_same(self, other: Hold) -> bool:
        """Whether both are about the same process, or the same container."""
        by_process = bool(self.pid) and (self.pid, self.start) == (other.pid, other.start)
        return by_process or (self.container is not None and self.container == other.container)

    def line(self, now: float | None = None) -> str:
        """Say it in one line: what it does, and who, since when, where."""
        parts = [f"pid {self.pid}" if self.pid else "", self.user, format_age((now or time.time()) - self.since)]
        elsewhere = self.host and self.host != os.uname().nodename
        parts += [f"on {self.host}" if elsewhere else "", f"container {self.container[:6]}" if self.container else ""]
        parts += ["" if self.kind == "manual" else self.phase, f"hold {self.id}"]
        return f"{self.title()}   " + ", ".join(part for part in parts if part)

    def title(self) -> str:
        """Give the command, or the reason of a hold by hand; the middle of a long one is left out."""
        text = " ".join(self.command) if self.command else self.reason or self.kind
        return text if len(text) <= 90 else f"{text[:60]} … {text[-25:]}"


def format_age(seconds: float) -> str:
    """Write a time span as people say it: 2 h 14 min."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def needing_mapping_file(holds: Iterable[Hold]) -> list[Hold]:
    """Tell which holds need the shared mapping file to stay what it is."""
    return [hold for hold in holds if hold.shared and not hold.released]


def blocking_holds(holds: Iterable[Hold], digest: str) -> list[Hold]:
    """Tell which holds forbid that the shared mapping file becomes the mapping ``digest``."""
    return [hold for hold in needing_mapping_file(holds) if hold.digest != digest]


def writing_to(holds: Iterable[Hold], results: list[str]) -> list[tuple[Hold, str]]:
    """Tell which live runs write one of the folders ``results``, or one inside or around it."""
    return [
        (hold, mine)
        for hold in holds
        for mine in results
        if hold.ended is None and any(_nested(mine, theirs) for theirs in hold.results)
    ]


def using_gpus(holds: Iterable[Hold], wanted: list[str] | str) -> list[Hold]:
    """Tell which live runs have one of the GPUs ``wanted``; "all" meets every one."""
    return [
        hold for hold in holds if hold.gpus and (wanted == "all" or hold.gpus == "all" or set(wanted) & set(hold.gpus))
    ]


def _nested(a: str, b: str) -> bool:
    return a == b or a.startswith(b.rstrip("/") + "/") or b.startswith(a.rstrip("/") + "/")
