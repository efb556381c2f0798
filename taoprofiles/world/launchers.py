"""The launchers on this machine: which ``tao`` would start, with which Python, and what is installed beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DISTRIBUTIONS = ("nvidia-tao", "nvidia-tlt")
"""The names under which PyPI has the launcher: nvidia-tlt up to 0.1.21, nvidia-tao since."""

BESIDE = (*DISTRIBUTIONS, "docker", "requests", "urllib3", "tabulate", "setuptools", "six", "rich")
"""What decides whether it starts at all."""

_ASK = """
import importlib.metadata as m, json, sys
try:
    import distutils
    has = True
except ImportError:
    has = False
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps({"python": list(sys.version_info[:3]), "prefix": sys.prefix, "distutils": has, "packages": found}))
"""


class Launcher(NamedTuple):
    """One ``tao`` of PATH. What could not be learnt is "" or empty, and ``problem`` says why.

    ``distribution`` and ``version`` are those of the installed package, ``python`` the interpreter's path, ``release``
    its version such as (3, 11, 7), ``packages`` the version by name of what ``BESIDE`` lists.
    """

    path: str
    python: str = ""
    release: tuple[int, ...] = ()
    prefix: str = ""
    distribution: str = ""
    version: str = ""
    has_distutils: bool = True
    packages: Mapping[str, str] = {}
    problem: str = ""


def on_path(environ: Mapping[str, str], names: tuple[str, ...] = ("tao", "tlt")) -> list[str]:
    """Give every executable of these names on PATH, the one that a shell would start first; no file twice."""
    found: dict[str, str] = {}
    for name in names:
        for folder in environ.get("PATH", "").split(os.pathsep):
            path = shutil.which(name, path=folder) if folder else None
            if path:
                found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def first(environ: Mapping[str, str]) -> Launcher | None:
    """Give the launcher that a shell would start, or None."""
    paths = on_path(environ)
    return inspect(paths[0], environ) if paths else None


def inspect(path: str, environ: Mapping[str, str]) -> Launcher:
    """Ask the Python of a ``tao`` what is installed there. Nothing of the launcher's own is started."""
    python = interpreter(path)
    if not python:
        real = _behind_pyenv(path, environ)
        python = interpreter(real) if real else ""
    if not python:
        return Launcher(path, problem="it is not a Python script")
    try:
        command = [python, "-c", _ASK, *BESIDE]
        answer = subprocess.run(  # noqa: S603
            command, env=dict(environ), capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL
        )
        told = json.loads(answer.stdout.splitlines()[-1])
        packages = dict(told["packages"])
        release, prefix, has = tuple(told["python"]), told["prefix"], told["distutils"]
    except OSError as error:
        return Launcher(path, python, problem=f"its Python cannot be started: {(error.strerror or '').lower()}")
    except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        return Launcher(path, python, problem="its Python does not answer")
    distribution = next((name for name in DISTRIBUTIONS if name in packages), "")
    problem = "" if distribution else "its Python has no launcher installed"
    return Launcher(path, python, release, prefix, distribution, packages.get(distribution, ""), has, packages, problem)


def interpreter(path: str) -> str:
    """Give the Python in the first lines of a script that pip, pipx, conda or uv made; "" for anything else."""
    try:
        with open(path, "rb") as file:
            head = file.read(1024).decode(errors="replace")
    except OSError:
        return ""
    # pip writes the second form where the path is too long for a first line or has a blank.
    found = re.match(r"#! ?(\S*python[0-9.]*)[ \t]*\n", head) or re.match(
        r"#!/bin/sh\n'''exec' \"?([^\"\n]*python[0-9.]*)\"? \"\$0\"", head
    )
    return found[1] if found else ""


def _behind_pyenv(path: str, environ: Mapping[str, str]) -> str:
    if os.path.basename(os.path.dirname(path)) != "shims":
        return ""
    try:
        command = ["pyenv", "which", os.path.basename(path)]
        answer = subprocess.run(  # noqa: S603
            command, env=dict(environ), capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
