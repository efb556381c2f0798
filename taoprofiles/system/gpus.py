"""The GPUs of this machine, as its driver lists them."""

from __future__ import annotations

import subprocess


def indices() -> list[str] | None:
    """List the GPUs by index; None where there is no NVIDIA driver that answers."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],  # noqa: S607 - the driver's, on their PATH
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = [line.strip() for line in done.stdout.splitlines() if line.strip().isdigit()]
    return found if done.returncode == 0 and found else None
