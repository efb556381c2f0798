"""Stand-ins of NVIDIA's programs: nvidia-smi, the runner of a source tree, and the ``status.json`` of a task."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from tests.support.home import write_program

if TYPE_CHECKING:
    from tests.support.sandbox import Sandbox


def driver(sandbox: Sandbox, script: str) -> dict[str, str]:
    """Return a PATH with an nvidia-smi that answers so."""
    path = write_program(sandbox.tao.with_name("nvidia-smi"), script)
    return {"PATH": f"{path.parent}:{os.environ['PATH']}"}


def gpus(count: int, *apps: str) -> str:
    """Return what nvidia-smi does on a machine with so many GPUs; ``apps`` are lines "UUID, PID"."""
    lines = [f"{index}, GPU-{index}a{index}b, 100 MiB, 16384 MiB, 5 %, Tesla T4" for index in range(count)]
    answers = ("\n".join(rows) + "\n" if rows else "" for rows in (apps, lines))
    return "case $1 in *compute-apps*) printf '{}' ;; *) printf '{}' ;; esac".format(
        *(a.replace("%", "%%") for a in answers)
    )


def gpus_in(text: str) -> str:
    envs = {item["variable"]: item["value"] for item in json.loads(text)["Envs"]}
    return envs.get("CUDA_VISIBLE_DEVICES", "all")


RUNNER = """\
import argparse, json, os, subprocess, sys

words = sys.argv[1:]
index = words.index("--") if "--" in words else len(words)
parser = argparse.ArgumentParser()
parser.add_argument("--gpus", default="all")
parser.add_argument("--volume", action="append", default=[])
parser.add_argument("--env", action="append", default=[])
parser.add_argument("--no-tty", dest="tty", action="store_false")
parser.add_argument("--mounts_file", default="")
parser.add_argument("--shm_size", default="16G")
parser.add_argument("--run_as_user", action="store_true")
parser.add_argument("--tag")
parser.add_argument("--ulimit", action="append")
args = parser.parse_args(words[:index])
mounts = []
for path in (os.path.expanduser("~/.tao_mounts.json"), args.mounts_file):
    if os.path.exists(path):
        mounts += ["{source}:{destination}".format(**entry) for entry in json.load(open(path))["Mounts"]]
mounts += args.volume
for mount in mounts:
    if not os.path.exists(mount.split(":")[0]):
        raise ValueError("Path doesn't exist: " + mount)
parts = ["docker run -it --rm" if args.tty else "docker run --rm"]
parts += ["--gpus all" if args.gpus == "all" else "--gpus \\'\\"device={}\\"\\'".format(args.gpus)]
parts += ["-v {}:/tao-pt".format(os.getenv("NV_TAO_PYTORCH_TOP", os.getcwd()))] + ["-v " + mount for mount in mounts]
parts += ["-e PYTHONPATH=/tao-pt:$PYTHONPATH"] + ["-e " + env for env in args.env if "=" in env]
parts += ["--shm-size " + args.shm_size] + ["--ulimit " + limit for limit in args.ulimit or []]
parts += ["--user {}:{}".format(os.getuid(), os.getgid())] if args.run_as_user else []
command = " ".join([*parts, "--net=host", os.environ["IMAGE"], *words[index + 1 :]])
print(command, flush=True)
try:
    subprocess.check_call(command, stdout=sys.stderr, shell=True)
except subprocess.CalledProcessError:
    pass
"""
"""A stand-in of NVIDIA's runner/tao_pt.py: the same order of mounts, a shell without quotes, and exit status 0.

It differs in two things: the image is that of IMAGE, and the version of the engine is not asked."""

NOW = 1_800_000_000


def line(second: int, **fields: Any) -> bytes:
    """Return a line of the file; ``second`` is counted from NOW."""
    moment = time.gmtime(NOW + second)
    stamp = {
        "date": f"{moment.tm_mon}/{moment.tm_mday}/{moment.tm_year}",
        "time": f"{moment.tm_hour}:{moment.tm_min}:{moment.tm_sec}",
    }
    return json.dumps({**fields, **stamp, "status": fields.get("status", "RUNNING")}).encode() + b"\n"


def epoch_line(second: int, epoch: int, **fields: Any) -> bytes:
    """Return an epoch's line, in which every figure tells the epoch."""
    values = {"epoch": epoch, "max_epoch": 50, "time_per_epoch": f"0:{epoch:02}:00", "kpi": {"train_loss": epoch / 4}}
    return line(second, **{**values, **fields})
