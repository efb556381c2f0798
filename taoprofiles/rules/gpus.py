"""Rules for GPUs: the numbers that a task names are the container's, from 0 on, whatever the engine calls its GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_IDS = ("gpu_ids", "gpu_id", "gpu_indices", "gpu_index")
_COUNTS = ("num_gpus", "num_gpu", "gpus")


class WrongGpus(NamedTuple):
    """GPUs that a container does not have; ``right`` are the numbers to write instead."""

    id: str
    what: str
    why: str
    right: list[str]


def is_gpu_key(key: str) -> bool:
    """Check whether an option or a spec's key names GPUs or their number."""
    return _last(key) in _IDS + _COUNTS


def wrong_gpus(key: str, values: Sequence[str], gpus: int) -> WrongGpus | None:
    """Return what is wrong with GPUs that a command or spec names for a container with so many ``gpus``."""
    name, numbers = _last(key), [int(value) for value in values if value.isdecimal() and len(value) < 4]
    if not numbers or len(numbers) < len(values):
        return None
    has = f"the container gets {gpus or 'no'} GPU{'s' if gpus > 1 else ''}"
    if name in _IDS and max(numbers) >= gpus > 0:
        listed = "0" if gpus == 1 else f"0 to {gpus - 1}"
        why = "inside the container GPUs are numbered from 0 on, whatever numbers the host has for them"
        what = f"GPU {','.join(map(str, numbers))}, but {has}: {listed}"
        return WrongGpus("gpu-ids-outside", what, why, [str(number) for number in range(min(gpus, len(numbers)))])
    if name in _COUNTS and len(numbers) == 1 and numbers[0] > max(gpus, 0) and gpus:
        what = f"{numbers[0]} GPUs, but {has}"
        return WrongGpus("gpu-count", what, "the task fails: invalid device ordinal", [str(gpus)])
    return None


def _last(key: str) -> str:
    return key.lstrip("-+~").rpartition(".")[2].replace("-", "_").lower()
