"""A script that plays nvidia-smi, and the GPUs that a run gets."""

from __future__ import annotations

import json
import os

from tests.support.sandbox import Sandbox


def driver(sandbox: Sandbox, script: str) -> dict[str, str]:
    """Return a PATH with an nvidia-smi that answers so."""
    path = sandbox.tao.with_name("nvidia-smi")
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{path.parent}:{os.environ['PATH']}"}


def gpus(count: int, *apps: str) -> str:
    """Return what nvidia-smi does on a machine with so many GPUs; ``apps`` are lines "UUID, PID"."""
    lines = [f"{index}, GPU-{index}a{index}b, 100 MiB, 16384 MiB, 5 %, Tesla T4" for index in range(count)]
    answers = ("\n".join(found) + "\n" if found else "" for found in (apps, lines))
    return "case $1 in *compute-apps*) printf '{}' ;; *) printf '{}' ;; esac".format(
        *(a.replace("%", "%%") for a in answers)
    )


def gpus_in(text: str) -> str:
    envs = {item["variable"]: item["value"] for item in json.loads(text)["Envs"]}
    return envs.get("CUDA_VISIBLE_DEVICES", "all")
