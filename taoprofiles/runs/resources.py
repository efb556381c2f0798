"""What runs must not take from each other: the results folders that they write, and the GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.errors import HeldError, UsageError
from taoprofiles.holds.hold import using_gpus, writing_to

if TYPE_CHECKING:
    from taoprofiles.holds.hold import Hold


def parse_gpus(text: str) -> list[str] | int | str:
    """Read ``--gpus``: "all", a number of free ones, a list such as 0,1 (one alone is ``1,``), or none: [].

    Raises UsageError.
    """
    if text == "all":
        return text
    if text == "none":
        return []
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    words = [word.strip() for word in text.split(",") if word.strip()]
    if "," in text and words and all(w.isascii() and w.replace("-", "").isalnum() for w in words):
        return list(dict.fromkeys(words))
    raise UsageError(
        f"'{text}' is no choice of GPUs",
        hint="--gpus all, --gpus 2 (two free ones), --gpus 0,1, --gpus 1, (GPU 1) or --gpus none",
    )


def check_results(name: str, hold: Hold, living: list[Hold]) -> None:
    """Raise HeldError if one of ``living`` writes a results folder of ``hold``."""
    same = writing_to(living, hold.results)
    if same:
        raise HeldError(
            f"'{name}' not started: another run writes '{same[0][1]}'",
            problems=[other.line() for other, _ in same],
            hint=f"'-r' with another folder, 'taoprof run {name} --wait -- …', or --force",
            holds=[other for other, _ in same],
        )


def choose_gpus(name: str, wish: str | None, present: list[str] | None, living: list[Hold]) -> list[str] | str | None:
    """Choose the GPUs for a wish; ``present`` is what the driver lists. Raises HeldError, UsageError."""
    if wish is None:
        return None
    wanted = parse_gpus(wish)
    if wanted == []:
        return []
    if isinstance(wanted, int):
        if present is None:
            raise UsageError(
                "no NVIDIA driver answers here, so the free GPUs are not known", hint="name them, such as --gpus 0,1"
            )
        if wanted > len(present):
            raise UsageError(f"{wanted} GPUs asked for, and this machine has {len(present)}")
        free = [index for index in present if not using_gpus(living, [index])]
        if len(free) >= wanted:
            return free[:wanted]
        wanted = "all"  # for the message: whoever has one is in the way
    taken = using_gpus(living, wanted)
    if taken:
        raise HeldError(
            f"'{name}' not started: its GPUs are taken",
            problems=[f"GPU {_gpu_names(other)}: {other.line()}" for other in taken],
            hint=f"'taoprof run {name} --gpus {wish} --wait -- …' starts when they are free",
            holds=taken,
        )
    return wanted


def _gpu_names(hold: Hold) -> str:
    return hold.gpus if isinstance(hold.gpus, str) else ",".join(hold.gpus or [])
