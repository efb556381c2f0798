"""How long the commands take, as an installed wheel, against a bare interpreter in the same run.

    python tests/bench/commands.py [--check] [ROUNDS]

Builds a wheel, installs it into a new environment, and times whole processes in turn, round by round, so that a machine
that slows down slows down all of them. Prints the median of each in milliseconds and the median of its ratio to the
bare interpreter of the same round. With --check it exits with status 1 if a ratio is over its goal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]

GOALS = {"taoprof current": 1.6, "current after set": 1.6, "taoprof list (100)": 3.5, "taoprof use -": 4.0}
"""The greatest ratio to a bare interpreter (docs/explanation/speed.md)."""

NOTEBOOK_CELL = """
import json, os
mounts_file = os.path.expanduser("~/.tao_mounts.json")
tlt_configs = {"Mounts": [{"source": os.environ["HOME"], "destination": "/workspace/tao-experiments"}]}
with open(mounts_file, "w") as mfile:
    json.dump(tlt_configs, mfile, indent=4)
"""


def install(folder: Path) -> Path:
    """Make an environment with the wheel in it, compiled, and return its folder of commands."""
    venv.create(folder / "venv", with_pip=True)
    commands = folder / "venv/bin"
    # With PYTHONDONTWRITEBYTECODE set, pip would compile nothing.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    pip = [commands / "python", "-m", "pip", "-qq", "--disable-pip-version-check"]
    # The command that an older pip (23.2) writes imports re, which takes half as long as the bare interpreter.
    subprocess.run([*pip, "install", "--upgrade", "pip"], env=environ, check=False)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder / "dist", ROOT], env=environ, check=True)
    subprocess.run([*pip, "install", *(folder / "dist").glob("*.whl")], env=environ, check=True)
    subprocess.run([commands / "python", "-m", "compileall", "-q", folder / "venv/lib"], env=environ, check=True)
    return commands


def make_profiles(home: Path, count: int) -> None:
    profiles = home / ".config/taoprofiles/profiles"
    profiles.mkdir(parents=True)
    for number in range(count):
        folder = home / f"projects/p{number}"
        (folder / "specs").mkdir(parents=True)
        (profiles / f"p{number}.toml").write_text(
            f'schema = 1\ndescription = "project {number}"\nlayout = "local"\nproject_dir = "{folder}"\n'
            '[docker]\nuser = "auto"\nshm_size = "16G"\n[docker.ulimits]\nmemlock = -1\nstack = 67108864\n'
        )


def timed(command: list[str], environ: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


def others(home: Path, environ: dict[str, str]) -> dict[str, list[str]]:
    """Name the switching commands of other tools that are installed here, set up so that each has work to do."""
    commands = {}
    if shutil.which("kubectx"):
        names = ("one", "two")
        contexts = "".join(f"- name: {n}\n  context: {{cluster: c, user: u}}\n" for n in names)
        (home / ".kube").mkdir()
        (home / ".kube/config").write_text(
            f"apiVersion: v1\nkind: Config\ncurrent-context: one\ncontexts:\n{contexts}"
            "clusters:\n- name: c\n  cluster: {server: 'https://127.0.0.1:1'}\nusers:\n- name: u\n  user: {}\n"
        )
        if shutil.which("kubectl"):
            commands["kubectx -"] = ["kubectx", "-"]
            subprocess.run(["kubectx", "two"], env=environ, check=False, capture_output=True)
    if shutil.which("docker"):
        done = subprocess.run(
            ["docker", "context", "create", "bench", "--docker", "host=unix:///nowhere"],
            env=environ, check=False, capture_output=True,
        )  # fmt: skip
        if done.returncode == 0:
            commands["docker context use"] = ["docker", "context", "use", "bench"]
    return commands


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a ratio is over its goal")
    parser.add_argument("rounds", nargs="?", type=int, default=40)
    options = parser.parse_args()
    rounds: int = options.rounds
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        commands = install(folder)
        home = folder / "home"
        make_profiles(home, 100)
        # Without an engine, wherever this runs; 'use' asks the one of this machine in a line of its own.
        environ = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "DOCKER_HOST": "unix:///none"}
        taoprof, python = str(commands / "taoprof"), str(commands / "python")
        for words in (["use", "p1"], ["use", "p2"], ["list"]):
            timed([taoprof, *words], environ)
        time.sleep(0.2)  # the index leaves out files that changed in the last 50 ms
        timed([taoprof, "list"], environ)
        edited = {**environ, "HOME": str(folder / "edited")}
        make_profiles(folder / "edited", 1)
        timed([taoprof, "use", "p0"], edited)
        timed([taoprof, "set", "p0", "OMP_NUM_THREADS=4"], edited)
        candidates = {
            "bare interpreter": [python, "-I", "-c", "pass"],
            "taoprof current": [taoprof, "current"],
            "current after set": [taoprof, "current"],
            "taoprof list (100)": [taoprof, "list"],
            "taoprof use -": [taoprof, "use", "-"],
            "use -, with an engine": [taoprof, "use", "-"],
            "the notebook's cell": ["env", f"HOME={folder}", python, "-I", "-c", NOTEBOOK_CELL],
            **others(home, environ),
        }
        environs = {"current after set": edited, "use -, with an engine": {**environ, "DOCKER_HOST": ""}}
        if not os.path.exists("/var/run/docker.sock"):
            del candidates["use -, with an engine"]
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(rounds + 2):
            for name, command in candidates.items():
                times[name].append(timed(command, environs.get(name, environ)))
        bare = times["bare interpreter"][2:]
        sys.stdout.write(f"{'':22}{'median ms':>10}{'min':>8}{'x bare':>9}   ({rounds} rounds)\n")
        slow = 0
        for name, all_rounds in times.items():
            counted = all_rounds[2:]
            ratio = statistics.median(mine / base for mine, base in zip(counted, bare, strict=True))
            is_slow = ratio > GOALS.get(name, ratio)
            slow += is_slow
            goal = f"   over the goal of {GOALS[name]:g}" if is_slow else ""
            sys.stdout.write(f"{name:22}{statistics.median(counted):10.1f}{min(counted):8.1f}{ratio:9.2f}{goal}\n")
    return 1 if options.check and slow else 0


if __name__ == "__main__":
    sys.exit(main())
