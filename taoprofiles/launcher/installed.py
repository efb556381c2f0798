"""The launchers on this machine: which ``tao`` a shell starts, its Python, and the packages of that Python."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from taoprofiles.launcher.argv import MAIN_PROGRAMS
from taoprofiles.storage import files
from taoprofiles.system.commands import run_bounded

OTHER_PROGRAM, NO_INTERPRETER, NO_ANSWER, NO_LAUNCHER = "other-program", "no-interpreter", "no-answer", "no-launcher"


class Launcher(NamedTuple):
    """One ``tao`` of PATH. Unknown values are "" or empty, and ``problem`` is the reason.

    - ``python``: the interpreter's path; ``release``: its version such as (3, 11, 7)
    - ``distribution``, ``version``: the name and version of the installed package
    - ``packages``: by name the versions of the packages that decide whether the launcher starts at all
    - ``trouble``: "" or one of the constants above
    - ``imports``: the exception, in one line, of importing what the launcher imports
    - ``pip``: the program that changes its packages, "pip", "pipx" or "uv"; "" if the system's package manager forbids
      it (PEP 668)
    - ``left``: the launcher in an environment whose Python is gone, as NAME==VERSION
    - ``folder``: where the launcher's own modules are
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
    trouble: str = ""
    imports: str = ""
    pip: str = "pip"
    left: str = ""
    folder: str = ""


class Launchers(NamedTuple):
    """Every ``tao`` of PATH, the one that a shell starts first; ``elsewhere`` are those in other usual folders."""

    found: tuple[Launcher, ...] = ()
    elsewhere: tuple[str, ...] = ()


DISTRIBUTIONS = ("nvidia-tao", "nvidia-tlt")
"""The names under which PyPI has the launcher: nvidia-tlt up to 0.1.21, nvidia-tao since."""

_PACKAGES = (*DISTRIBUTIONS, "docker", "requests", "urllib3", "tabulate", "setuptools", "six", "rich")
"""The packages that decide whether it starts."""

_TIMEOUT = 10.0
"""Seconds for an interpreter: the home may be on a network, and its modules not compiled yet."""

_TABLE_LIMIT = 4 << 20
_MAX_INSPECTED = 4
"""Launchers of PATH that are inspected; more than two are rare, and each takes a second."""

# The imports are in the launcher's order: of several faults the user sees the first. Nothing of the launcher itself is
# imported. A file in the current folder must not replace a module. A sitecustomize may print as well.
_PROBE_SCRIPT = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import json, os
try:
    import importlib.metadata as metadata
    version = metadata.version
except ImportError:
    import pkg_resources
    version = lambda name: pkg_resources.get_distribution(name).version
try:
    import distutils
    has = True
except ImportError:
    has = False
packages, wrong = {}, ""
for name in sys.argv[1:]:
    try:
        packages[name] = str(version(name))[:100]
    except Exception:
        pass
for name in ("docker", "tabulate", "requests"):
    try:
        __import__(name)
    except BaseException as error:
        wrong = (type(error).__name__ + ": " + str(error))[:300]
        break
try:
    import importlib.util
    pip = importlib.util.find_spec("pip") is not None
except Exception:
    pip = False
folder = ""
for name in ("nvidia_tao_cli", "tlt"):  # the first from 5.0.0 on
    try:
        folder = folder or list(importlib.util.find_spec(name).submodule_search_locations)[0]
    except Exception:
        pass
import sysconfig
managed = sys.prefix == getattr(sys, "base_prefix", sys.prefix) and os.path.exists(
    os.path.join(sysconfig.get_path("stdlib") or "", "EXTERNALLY-MANAGED"))
answer = {"python": list(sys.version_info[:3]), "prefix": sys.prefix, "distutils": has, "packages": packages,
          "imports": wrong, "pip": pip, "managed": managed, "folder": folder}
sys.stdout.write("\\nANSWER " + json.dumps(answer) + "\\n")
"""


def _on_path(search_path: str) -> dict[str, str]:
    """Return every launcher's executable on a PATH by its real path, the one that a shell starts first."""
    programs: dict[str, str] = {}
    for name in MAIN_PROGRAMS:
        for folder in search_path.split(os.pathsep):
            path = shutil.which(name, path=folder) if folder else None
            if path:
                programs.setdefault(os.path.realpath(path), path)
    return programs


def first(environ: Mapping[str, str]) -> Launcher | None:
    """Return the launcher that a shell starts, or None."""
    path = next(iter(_on_path(environ.get("PATH", "")).values()), None)
    return inspect(path, environ) if path else None


def version_of(program: str, environ: Mapping[str, str]) -> str:
    """Return the version of the launcher that ``program``, a ``tao`` or a Python, starts, or "" if it is unknown."""
    path = shutil.which(program, path=environ.get("PATH", ""))
    return inspect(path, environ).version if path else ""


def probe_launchers(environ: Mapping[str, str], home: str, beside: str) -> Launchers:
    """Inspect every launcher of PATH, in parallel. ``beside`` is a further folder to search."""
    programs = _on_path(environ.get("PATH", ""))
    with ThreadPoolExecutor(_MAX_INSPECTED) as pool:
        launchers = tuple(pool.map(lambda path: inspect(path, environ), list(programs.values())[:_MAX_INSPECTED]))
    environment = environ.get("VIRTUAL_ENV") or environ.get("CONDA_PREFIX") or ""
    folders = [os.path.join(home, ".local/bin"), beside, *([os.path.join(environment, "bin")] if environment else [])]
    others = _on_path(os.pathsep.join(folders)).items()
    return Launchers(launchers, tuple(path for real, path in others if real not in programs))


def inspect(path: str, environ: Mapping[str, str]) -> Launcher:
    """Return what the Python of a ``tao``, or the Python ``path`` itself, has installed.

    Nothing of the launcher itself is started.
    """
    is_python = os.path.basename(path).startswith(("python", "pypy"))
    python = path if is_python else interpreter(path, environ)
    if not python and os.path.basename(os.path.dirname(path)) == "shims":  # of pyenv
        real = run_bounded(["pyenv", "which", os.path.basename(path)], environ, _TIMEOUT).out.strip()
        python = interpreter(real, environ) if real else ""
    if not python:
        return Launcher(path, problem="it is not a Python script", trouble=OTHER_PROGRAM)
    output = run_bounded([python, "-c", _PROBE_SCRIPT, *_PACKAGES], environ, _TIMEOUT)
    line = next((line for line in output.out.splitlines() if line.startswith("ANSWER {")), "")
    if not line:
        cannot_start = output.status == -1 and not output.out
        last = (output.err.strip().splitlines() or [""])[-1][:200]
        problem = output.problem.removeprefix("it ") if cannot_start else "does not answer" + (last and f": {last}")
        trouble = NO_INTERPRETER if cannot_start else NO_ANSWER
        return Launcher(
            path, python, problem=f"its Python {problem}", trouble=trouble, left=_find_previous_version(python)
        )
    answer = json.loads(line.removeprefix("ANSWER "))
    packages, prefix = answer["packages"], answer["prefix"]
    distribution = next((name for name in DISTRIBUTIONS if name in packages), "")
    is_pipx = os.path.exists(os.path.join(prefix, "pipx_metadata.json"))
    return Launcher(
        path,
        python,
        release=tuple(answer["python"]),
        prefix=prefix,
        distribution=distribution,
        version=packages.get(distribution, ""),
        has_distutils=answer["distutils"],
        packages=packages,
        problem="" if distribution else "its Python has no launcher installed",
        trouble="" if distribution else NO_LAUNCHER,
        imports=answer["imports"],
        pip="" if answer["managed"] else "pipx" if is_pipx else "pip" if answer["pip"] else "uv",
        folder=answer["folder"],
    )


def config(launcher: Launcher | None) -> bytes | None:
    """Return the content of its table of tasks and images, for ``Host``; None if it cannot be read."""
    if launcher is None or not launcher.folder:
        return None
    content, problem = files.try_read(os.path.join(launcher.folder, "config/config.json"), _TABLE_LIMIT)
    return None if problem else content


def interpreter(path: str, environ: Mapping[str, str]) -> str:
    """Return the Python in the first lines of a script of pip, pipx, conda or uv; "" for anything else."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0) as file:
            head = (file.read(1024) or b"").decode("utf-8", "surrogateescape")
    except OSError:
        return ""
    looked_up = re.match(r"#! ?/usr/bin/env +(?:-S +)?(python[0-9.]*)[ \t]*\n", head)
    if looked_up:
        return shutil.which(looked_up[1], path=environ.get("PATH", "")) or looked_up[1]
    # pip writes the second form if the path is too long for a first line or has a blank.
    match = re.match(r"#! ?(\S*(?:python|pypy)[0-9.]*)(?:[ \t]+-\w+)*[ \t]*\n", head) or re.match(
        r"#!/bin/sh\n'''exec' \"?([^\"\n]*(?:python|pypy)[0-9.]*)\"? \"\$0\"", head
    )
    return match[1] if match else ""


def _find_previous_version(python: str) -> str:
    """Return the launcher in the environment of an interpreter that does not start, as NAME==VERSION; "" for none."""
    prefix = os.path.dirname(os.path.dirname(python))
    for path in glob.glob(os.path.join(glob.escape(prefix), "lib/python*/site-packages/nvidia_t*.dist-info")):
        match = re.fullmatch(r"nvidia_(tao|tlt)-([0-9][0-9.]*)\.dist-info", os.path.basename(path))
        if match:
            return f"nvidia-{match[1]}=={match[2]}"
    return ""
