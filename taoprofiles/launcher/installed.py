"""The launchers on this machine: which ``tao`` a shell starts, its Python, and the packages of that Python."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.launcher.argv import MAIN_PROGRAMS
from taoprofiles.storage import files
from taoprofiles.system.commands import run_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Launcher", "config", "first", "inspect", "on_path", "survey"]

OTHER_PROGRAM = "other-program"
NO_INTERPRETER = "no-interpreter"
NO_ANSWER = "no-answer"
NO_LAUNCHER = "no-launcher"


class Launcher(NamedTuple):
    """One ``tao`` of PATH. Unknown values are "" or empty, and ``problem`` is the reason.

    ``distribution`` and ``version`` are those of the installed package, ``python`` the interpreter's path, ``release``
    its version such as (3, 11, 7), ``packages`` the version by name of what decides whether it starts at all.
    ``trouble`` is "" or one of the constants above; ``imports`` the exception, in one line, of importing what the
    launcher imports; ``pip`` is the program that changes its packages, "pip", "pipx" or "uv", or "" where the system's
    package manager forbids it (PEP 668). ``left`` is the version that is installed in an environment whose Python is
    gone, ``folder`` has the launcher's own modules.
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
    """Every ``tao`` of PATH, the one that a shell starts first; ``elsewhere`` are those in usual folders not on PATH.

    ``environment`` is the active environment's folder (VIRTUAL_ENV or CONDA_PREFIX), ``release`` that of the
    ``python3`` on PATH.
    """

    found: tuple[Launcher, ...] = ()
    elsewhere: tuple[str, ...] = ()
    environment: str = ""
    more: int = 0


DISTRIBUTIONS = ("nvidia-tao", "nvidia-tlt")
"""The names under which PyPI has the launcher: nvidia-tlt up to 0.1.21, nvidia-tao since."""

BESIDE = (*DISTRIBUTIONS, "docker", "requests", "urllib3", "tabulate", "setuptools", "six", "rich")
"""The packages that decide whether it starts."""

PATIENCE = 10.0
"""Seconds for an interpreter: the home may be on a network, and its modules not compiled yet."""

_TABLE_LIMIT = 4 << 20

INSPECTED = 4
"""Launchers of PATH that are inspected; more than two are rare, and each takes a second."""

# The imports are in the launcher's order: of several faults the user sees the first. Nothing of the launcher itself is
# imported. A file in the current folder must not replace a module.
_ASK = """
import sys
sys.path[:] = [place for place in sys.path if place]
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
found, wrong = {}, ""
for name in sys.argv[1:]:
    try:
        found[name] = str(version(name))[:100]
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
told = {"python": list(sys.version_info[:3]), "prefix": sys.prefix, "distutils": has, "packages": found,
        "imports": wrong, "pip": pip, "managed": managed, "folder": folder}
sys.stdout.write("\\n" + json.dumps(told) + "\\n")
"""


def on_path(environ: Mapping[str, str], names: tuple[str, ...] = MAIN_PROGRAMS) -> list[str]:
    """Return every executable of these names on PATH, the one that a shell starts first; no file twice."""
    found: dict[str, str] = {}
    for name in names:
        for folder in environ.get("PATH", "").split(os.pathsep):
            path = shutil.which(name, path=folder) if folder else None
            if path:
                found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def first(environ: Mapping[str, str]) -> Launcher | None:
    """Return the launcher that a shell starts, or None."""
    paths = on_path(environ)
    return inspect(paths[0], environ) if paths else None


def survey(environ: Mapping[str, str], home: str, beside: str) -> Launchers:
    """Inspect every launcher of PATH, in parallel. ``beside`` is a further folder to search."""
    paths = on_path(environ)
    with ThreadPoolExecutor(INSPECTED) as pool:
        found = tuple(pool.map(lambda path: inspect(path, environ), paths[:INSPECTED]))
    environment = environ.get("VIRTUAL_ENV") or environ.get("CONDA_PREFIX") or ""
    folders = [os.path.join(home, ".local/bin"), beside, *([os.path.join(environment, "bin")] if environment else [])]
    known = {os.path.realpath(path) for path in paths}
    elsewhere = dict.fromkeys(path for path in on_path({"PATH": os.pathsep.join(folders)}))
    there = tuple(path for path in elsewhere if os.path.realpath(path) not in known)
    return Launchers(found, there, environment, max(0, len(paths) - INSPECTED))


def inspect(path: str, environ: Mapping[str, str]) -> Launcher:
    """Return what the Python of a ``tao`` has installed. Nothing of the launcher itself is started."""
    python = interpreter(path, environ)
    if not python:
        real = _behind_pyenv(path, environ)
        python = interpreter(real, environ) if real else ""
    if not python:
        return Launcher(path, problem="it is not a Python script", trouble=OTHER_PROGRAM)
    answer = run_bounded([python, "-c", _ASK, *BESIDE], environ, PATIENCE)
    if answer.status == -1 and not answer.out:
        problem = f"its Python {answer.problem.removeprefix('it ')}"
        return Launcher(path, python, problem=problem, trouble=NO_INTERPRETER, left=_left(python))
    answer_data = _parse_answer(answer.out)
    if answer_data is None:
        said = (answer.err.strip().splitlines() or [""])[-1][:200]
        problem = f"its Python does not answer{': ' + said if said else ''}"
        return Launcher(path, python, problem=problem, trouble=NO_ANSWER, left=_left(python))
    packages: dict[str, str] = answer_data["packages"]
    distribution = next((name for name in DISTRIBUTIONS if name in packages), "")
    problem, trouble = ("", "") if distribution else ("its Python has no launcher installed", NO_LAUNCHER)
    prefix: str = answer_data["prefix"]
    is_pipx = os.path.exists(os.path.join(prefix, "pipx_metadata.json"))
    pip = "" if answer_data["managed"] else "pipx" if is_pipx else "pip" if answer_data["pip"] else "uv"
    return Launcher(
        path,
        python,
        tuple(answer_data["python"]),
        prefix,
        distribution,
        packages.get(distribution, ""),
        answer_data["distutils"],
        packages,
        problem,
        trouble,
        answer_data["imports"],
        pip,
        folder=answer_data["folder"],
    )


def config(launcher: Launcher | None) -> bytes | None:
    """Return the content of its table of tasks and images, for ``Host``; None if it cannot be read."""
    if launcher is None or not launcher.folder:
        return None
    content, problem = files.try_read(os.path.join(launcher.folder, "config/config.json"), _TABLE_LIMIT)
    return None if problem else content


def _parse_answer(out: str) -> dict[str, Any] | None:  # a sitecustomize may print as well
    for line in reversed(out.splitlines()):
        try:
            answer_data = json.loads(line)
        except (ValueError, RecursionError):
            continue
        kinds = {"python": list, "prefix": str, "distutils": bool, "packages": dict, "imports": str}
        kinds |= {"pip": bool, "managed": bool, "folder": str}
        if isinstance(answer_data, dict) and all(isinstance(answer_data.get(key), kind) for key, kind in kinds.items()):
            release, texts = answer_data["python"], (*answer_data["packages"].values(), answer_data["prefix"])
            are_texts = all(isinstance(text, str) and text.isprintable() for text in texts)
            if are_texts and len(release) == 3 and all(isinstance(part, int) for part in release):
                return answer_data
    return None


def interpreter(path: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the Python in the first lines of a script of pip, pipx, conda or uv; "" for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = os.read(fd, 1024).decode("utf-8", "surrogateescape")
        finally:
            os.close(fd)
    except OSError:
        return ""
    looked_up = re.match(r"#! ?/usr/bin/env +(?:-S +)?(python[0-9.]*)[ \t]*\n", head)
    if looked_up:
        return shutil.which(looked_up[1], path=(environ or os.environ).get("PATH", "")) or looked_up[1]
    # pip writes the second form where the path is too long for a first line or has a blank.
    found = re.match(r"#! ?(\S*(?:python|pypy)[0-9.]*)(?:[ \t]+-\w+)*[ \t]*\n", head) or re.match(
        r"#!/bin/sh\n'''exec' \"?([^\"\n]*(?:python|pypy)[0-9.]*)\"? \"\$0\"", head
    )
    return found[1] if found else ""


def _left(python: str) -> str:
    """Return the launcher in the environment of an interpreter that does not start, as NAME==VERSION; "" for none."""
    lib = os.path.join(os.path.dirname(os.path.dirname(python)), "lib")
    for name in DISTRIBUTIONS:
        pattern = os.path.join(glob.escape(lib), "python*", "site-packages", name.replace("-", "_") + "-*.dist-info")
        for folder in glob.glob(pattern):
            found = re.fullmatch(r"[a-z_]+-([0-9][0-9.]*)\.dist-info", os.path.basename(folder))
            if found:
                return f"{name}=={found[1]}"
    return ""


def _behind_pyenv(path: str, environ: Mapping[str, str]) -> str:
    if os.path.basename(os.path.dirname(path)) != "shims":
        return ""
    return run_bounded(["pyenv", "which", os.path.basename(path)], environ, PATIENCE).out.strip()
