"""Results folders and GPUs, which runs must not share."""

from __future__ import annotations

from taoprofiles.errors import HeldError, UsageError
from taoprofiles.holds.hold import OWN_KINDS, Hold, gpu_conflicts, results_conflicts
from taoprofiles.holds.liveness import ActiveHolds
from taoprofiles.system import processes


def parse_gpus(text: str) -> list[str] | int | str:
    """Parse ``--gpus``: "all", a count of free GPUs, a list such as 0,1 (a single index is ``1,``), or none: [].

    Raises UsageError.
    """
    if text == "all":
        return text
    if text == "none":
        return []
    if is_count(text):
        return int(text)
    words = [word.strip() for word in text.split(",") if word.strip()]
    if "," in text and words and all(word.isascii() and word.replace("-", "").isalnum() for word in words):
        return list(dict.fromkeys(words))
    raise UsageError(
        f"--gpus '{text}' is invalid",
        hint="--gpus all, --gpus 2 (any two free ones), --gpus 0,1, --gpus 1, (GPU 1) or --gpus none",
    )


def is_count(text: str | None) -> bool:
    """Check whether ``--gpus`` asks for a count of free GPUs."""
    return text is not None and text.isascii() and text.isdigit() and int(text) > 0


def reserve(
    hold: Hold, active: ActiveHolds, gpus: str | None, available: list[str] | None, *, allow_overlap: bool
) -> None:
    """Set the GPUs of ``hold`` for the option ``gpus``.

    Raises HeldError if an active run uses them, or its results folder, unless ``allow_overlap``; and UsageError.
    """
    runs = [run for run in active.holds if run.kind in OWN_KINDS and not run.released]
    conflicts = results_conflicts(runs, hold.results)
    if conflicts and not allow_overlap:
        raise HeldError(
            f"cannot start '{hold.profile}': another training is writing to '{conflicts[0][1]}'",
            problems=[other.line() for other, _ in conflicts],
            hint=f"choose another folder with -r, wait with 'taoprof run {hold.profile} --wait -- …', or start anyway "
            "with --force",
            holds=[other for other, _ in conflicts],
        )
    on_this_machine = [run for run in runs if processes.same_machine(run.host_id, hold.host_id)]
    hold.gpus = _choose_gpus(hold, gpus, available, on_this_machine, active.others)


def _choose_gpus(
    hold: Hold, option: str | None, available: list[str] | None, active_runs: list[Hold], others: list[Hold]
) -> list[str] | str | None:
    """Return the GPUs for ``--gpus``: indices, "all", or None without the option.

    ``available`` are the indices that the driver lists, None without a driver. Those that ``others``, containers of
    other users, have reserved are taken last, but never refused.
    """
    if option is None:
        return None
    gpus = parse_gpus(option)
    if gpus == []:
        return []
    if isinstance(gpus, int):
        if available is None:
            raise UsageError(
                "cannot tell which GPUs are free: the NVIDIA driver does not respond",
                hint="give their indices, such as --gpus 0,1",
            )
        if gpus > len(available):
            raise UsageError(f"{gpus} GPUs requested, but this machine has {len(available)}")
        free = [index for index in available if not gpu_conflicts(active_runs, [index])]
        if len(free) >= gpus:
            reserved = [other for other in others if other.gpus != "all"]  # a plain launcher always asks for all
            return sorted(sorted(free, key=lambda gpu: bool(gpu_conflicts(reserved, [gpu])))[:gpus], key=free.index)
        gpus = "all"  # the error names every run that uses one
    users = gpu_conflicts(active_runs, gpus)
    if users:
        raise HeldError(
            f"cannot start '{hold.profile}': the GPUs that it requests are in use",
            problems=[f"GPU {_gpu_names(other)}: {other.line()}" for other in users],
            hint=f"'taoprof run {hold.profile} --gpus {option} --wait -- …' starts when they are free",
            holds=users,
        )
    return gpus


def _gpu_names(hold: Hold) -> str:
    return hold.gpus if isinstance(hold.gpus, str) else ",".join(hold.gpus or [])
