"""Results folders and GPUs, which runs must not share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import UsageError
from taoprofiles.holds.hold import AGENT, OWN_KINDS, RUN_VARIABLE, HeldError, Hold, gpus_overlap, results_conflicts
from taoprofiles.holds.liveness import ActiveHolds
from taoprofiles.profiles.layouts import with_identity
from taoprofiles.system import processes
from taoprofiles.system.gpus import Gpu, is_count, list_gpus, parse_gpus, to_indices, visible_devices

if TYPE_CHECKING:
    from taoprofiles.holds.queue import Request


_MPS_SERVER = "nvidia-cuda-mps"
"""The name of CUDA's MPS server begins so: it has a process on every GPU, and computes nothing itself."""


def ask_driver(environ: Mapping[str, str], option: str | None, in_use: Iterable[Hold]) -> list[Gpu]:
    """Return the machine's GPUs if ``--gpus`` needs them: to find free ones, or the one that has a UUID.

    For a count only those that CUDA_VISIBLE_DEVICES of this shell names, if it is set.
    """
    if option in (None, "all", "none"):
        return []
    if not is_count(option):
        requests = (parse_gpus(option or ""), *(hold.gpus for hold in in_use))
        is_known = all(name.isdigit() for gpus in requests for name in _names(gpus))
        return [] if is_known else list_gpus(environ)
    gpus, visible = list_gpus(environ), visible_devices(environ)
    return gpus if visible is None else [gpu for gpu in gpus if any(map(gpu.is_called, visible))]


class GpuUse(NamedTuple):
    """Who uses a GPU: the ids of the ``holds`` that have it or compute on it, and ``processes`` of no hold."""

    gpu: Gpu
    holds: list[str]
    processes: list[Hold]

    def users(self) -> list[str]:
        """Return the users as texts: ids of holds, and processes with their programs."""
        return self.holds + [
            " ".join([f"process {process.pid}", *map("({})".format, process.command)]) for process in self.processes
        ]


def gpu_uses(gpus: Sequence[Gpu], holds: Sequence[Hold]) -> list[GpuUse]:
    """Return who uses each GPU; ``holds`` are the active ones.

    A process of no hold is given as a hold of kind "found" that only has its pid, program, user and GPU.
    """
    uses = []
    for gpu in gpus:
        users = [hold.id for hold in holds if gpus_overlap([gpu.number], _indices(hold.gpus, gpus))]
        foreign = []
        for pid in gpu.pids:
            owner = next((hold.id for hold in holds if _is_of(pid, hold)), None)
            name, user = processes.name_and_user(pid)
            if owner is not None:
                users.append(owner)
            elif not name.startswith(_MPS_SERVER):
                start = processes.start_time(pid)
                fields: dict[str, Any] = {"pid": pid, "start": start or 0, "host_id": processes.host_id()}
                fields |= {"since": processes.epoch(start) or time.time(), "user": user, "gpus": [gpu.number]}
                fields |= {"command": [name] if name else [], "reason": "a process that is not visible here"}
                foreign.append(Hold(kind="found", id=f"p{pid}", phase="", **fields))
        uses.append(GpuUse(gpu, list(dict.fromkeys(users)), foreign))
    return uses


def _is_of(pid: int, hold: Hold) -> bool:
    if hold.pid == pid or (hold.container is not None and processes.is_in_group(pid, hold.container)):
        return True
    return processes.environment(pid).get(RUN_VARIABLE) == hold.id


def require_free_results(hold: Hold, runs: Iterable[Hold], results: list[str], *, hint: str) -> None:
    """Raise HeldError if one of ``runs`` writes to a folder that the work of ``hold`` is going to write."""
    conflicts = results_conflicts(runs, results)
    if conflicts:
        raise HeldError(
            f"cannot start '{hold.profile}': another training is writing to '{conflicts[0][1]}'",
            problems=[other.line() for other, _ in conflicts],
            hint=hint,
            holds=[other for other, _ in conflicts],
        )


def require_gpus(option: str | None, gpus: list[Gpu]) -> None:
    """Raise UsageError for a count of GPUs that ``gpus`` (``ask_driver``) can never give."""
    if not is_count(option):
        return
    if not gpus:
        raise UsageError(
            "cannot tell which GPUs are free: the NVIDIA driver does not respond, or CUDA_VISIBLE_DEVICES names none",
            hint="give their indices, such as --gpus 0,1",
        )
    if int(option or "") > len(gpus):
        raise UsageError(
            f"{option} GPUs requested, but this machine has {len(gpus)}",
            hint="CUDA_VISIBLE_DEVICES of this shell may leave out some",
        )


def reserve(
    hold: Hold,
    active: ActiveHolds,
    option: str | None,
    gpus: list[Gpu],
    *,
    retry: str,
    waiting: Sequence[Request],
    allow_overlap: bool,
) -> list[str]:
    """Set the GPUs of ``hold`` for the option ``--gpus``, and return warnings about them.

    ``gpus`` are the machine's (``ask_driver``), ``waiting`` the requests ahead in the queue, and ``retry`` is the
    command that waits. Raises HeldError if an active run uses the GPUs, or its results folder, unless
    ``allow_overlap``; and UsageError.
    """
    runs = [run for run in active.holds if run.kind in (*OWN_KINDS, AGENT) and not run.released]
    if not allow_overlap:
        way = f"start anyway with --force, or wait with: {retry}"
        require_free_results(hold, runs, hold.results, hint=f"choose another folder (results_dir=…, or -r), {way}")
    if option is None:
        return []
    users = [run for run in runs if run.gpus and processes.same_machine(run.host_id, hold.host_id)]
    wanted = parse_gpus(option)
    if isinstance(wanted, int):
        taken = [user.gpus for user in users] + [_names(request.gpus) for request in waiting]
        pids = [pid for gpu in gpus for pid in gpu.pids]
        computing = [process for use in gpu_uses(gpus, active.holds) for process in use.processes]
        computing += [run for run in active.holds if not run.gpus and any(_is_of(pid, run) for pid in pids)]
        hold.gpus = _free_gpus(wanted, gpus, taken, active.others) or None
        is_held = hold.gpus is None
        users += computing if is_held else []
    else:
        users = [user for user in users if gpus_overlap(_indices(wanted, gpus), _indices(user.gpus, gpus))]
        hold.gpus, is_held = wanted, bool(users)
    if is_held:
        is_silent = isinstance(wanted, int) and not gpus  # of a driver that responded before
        why = "the NVIDIA driver does not respond" if is_silent else "the GPUs that it requests are in use"
        raise HeldError(
            f"cannot start '{hold.profile}': {why}",
            problems=[f"GPU {','.join(_names(other.gpus)) or other.gpus or '?'}: {other.line()}" for other in users],
            hint=f"to start when they are free: {retry}",
            holds=users,
        )
    return [
        f"GPU {gpu.number} is also used by process {gpu.pids[0]}, which is no run with --gpus"
        for gpu in gpus
        if gpu.pids and any(map(gpu.is_called, _names(hold.gpus)))
    ]


def visible_in_container(rendered: Mapping[str, Any]) -> list[str] | None:
    """Return the GPUs that the profile's own CUDA_VISIBLE_DEVICES leaves to the container."""
    return visible_devices({item["variable"]: str(item["value"]) for item in rendered.get("Envs", [])}) or None


def with_tag(rendered: dict[str, Any], hold: Hold, *, set_gpus: bool = False) -> dict[str, Any]:
    """Return a mapping with the run tag, and with ``set_gpus`` the hold's GPUs, in the container's variables."""
    rendered = with_identity(rendered)
    values = {RUN_VARIABLE: hold.id}
    if set_gpus and hold.gpus and hold.gpus != "all":
        # The driver counts the GPUs by their bus, CUDA by their speed.
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if all(gpu.isdigit() for gpu in hold.gpus) else {}
        values = {"CUDA_VISIBLE_DEVICES": ",".join(hold.gpus), **order, **values}
    others = [item for item in rendered.get("Envs", []) if item["variable"] not in values]
    tagged = [{"variable": name, "value": value} for name, value in values.items()]
    return {"Mounts": rendered["Mounts"], "Envs": []} | rendered | {"Envs": others + tagged}


def _free_gpus(
    count: int, gpus: list[Gpu], taken: Iterable[list[str] | str | None], others: Iterable[Hold]
) -> list[str]:
    """Return the indices of ``count`` GPUs that are not ``taken``; none if there are too few.

    One on which a process computes is not free. Those that ``others``, containers of other users, have reserved are
    taken last, but never refused: they may be idle.
    """
    taken = [_indices(names, gpus) for names in taken]
    idle = [use.gpu for use in gpu_uses(gpus, []) if not use.processes]
    free = [gpu for gpu in idle if not any(gpus_overlap([gpu.number], names) for names in taken)]
    reserved = [other for other in others if other.gpus != "all"]  # a plain launcher always asks for all
    last = {gpu for gpu in free if any(gpus_overlap([gpu.number], other.gpus) for other in reserved)}
    best = sorted(free, key=last.__contains__)[:count]
    return [gpu.number for gpu in free if gpu in best] if len(best) == count else []


def _indices(gpus: list[str] | str | None, known: Sequence[Gpu]) -> list[str] | str | None:
    return to_indices(gpus, known) if isinstance(gpus, list) else gpus


def _names(gpus: list[str] | int | str | None) -> list[str]:
    return gpus if isinstance(gpus, list) else []
