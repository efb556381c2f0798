"""The machine's GPUs, as nvidia-smi lists them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.errors import UsageError
from taoprofiles.system.commands import run_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TIMEOUT = 20.0
"""Seconds for nvidia-smi, which initializes every GPU if no persistence daemon is running."""

_FIELDS = "index,uuid,memory.used,memory.total,utilization.gpu,name"


class Gpu(NamedTuple):
    """A GPU; memory is in MiB, ``utilization`` in percent; None is what the driver does not tell.

    ``number`` is its index; ``pids`` are the processes that compute on it, of all users.
    """

    number: str
    uuid: str
    memory_used: int | None
    memory_total: int | None
    utilization: int | None
    name: str
    pids: tuple[int, ...] = ()

    def is_called(self, name: str) -> bool:
        """Check whether ``name`` is its index or its UUID, which CUDA also takes shortened."""
        return name == self.number or (name.startswith("GPU-") and len(name) > 4 and self.uuid.startswith(name))


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


def query_gpus(
    fields: str, environ: Mapping[str, str], seconds: float, tool: str = "nvidia-smi"
) -> tuple[list[str], str]:
    """Return a line with the ``fields`` of each GPU, and "", or no lines and why nvidia-smi failed."""
    result = run_bounded([tool, f"--query-gpu={fields}", "--format=csv,noheader"], environ, seconds)
    count = fields.count(",")
    lines = [line.strip() for line in result.out.splitlines()[:100] if line.count(",") >= count and line.strip()]
    if result.status == 0 and not result.problem and lines:
        return lines, ""
    messages = (result.out + result.err).strip().splitlines() or [f"exit status {result.status}"]
    return [], result.problem or messages[0][:200]


def list_gpus(environ: Mapping[str, str], seconds: float = TIMEOUT) -> list[Gpu]:
    """Return the machine's GPUs and what computes on them; none if no NVIDIA driver answers within ``seconds``."""
    lines, _ = query_gpus(_FIELDS, environ, seconds)
    rows = [[cell.strip() for cell in line.split(",", 5)] for line in lines]
    gpus = [
        Gpu(index, uuid, _number(used), _number(total), _number(utilization), name)
        for index, uuid, used, total, utilization, name in rows
        if index.isdigit()
    ]
    if not gpus:
        return []
    result = run_bounded(["nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader"], environ, seconds)
    apps = [line.replace(",", " ").split() for line in result.out.splitlines()[:1000]] if result.status == 0 else []
    pairs = [(app[0], int(app[1])) for app in apps if len(app) == 2 and app[1].isdigit()]
    return [gpu._replace(pids=tuple(pid for uuid, pid in pairs if uuid == gpu.uuid)) for gpu in gpus]


def to_indices(names: Iterable[str], gpus: Iterable[Gpu]) -> list[str]:
    """Return the index for each name of a GPU; a name that is not known stays."""
    gpus = list(gpus)
    return list(dict.fromkeys(next((gpu.number for gpu in gpus if gpu.is_called(name)), name) for name in names))


def visible_devices(environ: Mapping[str, str]) -> list[str] | None:
    """Return the names in CUDA_VISIBLE_DEVICES; None if it is not set. As for CUDA, nothing after an invalid one."""
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    names = []
    for name in (word.strip() for word in value.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name, re.ASCII):
            break
        names.append(name)
    return names


def _number(text: str) -> int | None:
    """Return the number of "1024 MiB" or "35 %", None for "[N/A]"."""
    word = text.partition(" ")[0]
    return int(word) if word.isascii() and word.isdigit() else None
