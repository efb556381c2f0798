"""The machine's GPUs, as nvidia-smi lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.system.commands import run_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT = 20.0
"""Seconds for nvidia-smi, which initializes every GPU if no persistence daemon is running."""


def query_gpus(fields: str, environ: Mapping[str, str], tool: str = "nvidia-smi") -> tuple[list[str], str]:
    """Return a line with the ``fields`` of each GPU, and "", or no lines and why nvidia-smi failed."""
    result = run_bounded([tool, f"--query-gpu={fields}", "--format=csv,noheader"], environ, TIMEOUT)
    count = fields.count(",")
    lines = [line.strip() for line in result.out.splitlines()[:100] if line.count(",") >= count and line.strip()]
    if result.status == 0 and not result.problem and lines:
        return lines, ""
    messages = (result.out + result.err).strip().splitlines() or [f"exit status {result.status}"]
    return [], result.problem or messages[0][:200]


def gpu_indices(environ: Mapping[str, str]) -> list[str] | None:
    """Return the indices of the machine's GPUs, or None if no NVIDIA driver answers."""
    lines, _ = query_gpus("index", environ)
    return [line for line in lines if line.isdigit()] or None
