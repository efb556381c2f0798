"""Whether the launcher starts at all: which ``tao`` it is, and whether what it is made of fits its Python.

Each fault and each command that mends it was tried with the launcher from PyPI: tests/mending.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from taoprofiles.launcher.installed import NO_ANSWER, NO_INTERPRETER
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.storage.paths import is_inside

if TYPE_CHECKING:
    from taoprofiles.launcher.installed import Launcher, Launchers

INSTALL = "python3 -m venv ~/tao-launcher && ~/tao-launcher/bin/pip install nvidia-tao setuptools"
"""setuptools brings the distutils that Python 3.12 and later do not have."""

FIRST = 'export PATH="$HOME/tao-launcher/bin:$PATH"'


def judge(launchers: Launchers) -> list[Finding]:
    """Judge the launcher that a shell would start, and those that stand in its way or its shade."""
    if not launchers.found:
        return [_missing(launchers)]
    first, *others = launchers.found
    found = _identity(first, others) or _parts(first)
    if not first.trouble:
        found += _several(launchers)
    return found


def _missing(launchers: Launchers) -> Finding:
    why = "a shell says 'tao: command not found'"
    if launchers.elsewhere:
        there = launchers.elsewhere[0]
        hint = f'export PATH={shlex.quote(os.path.dirname(there))}:"$PATH"'
        return error("tao-missing", "PATH", f"'tao' is not on PATH, but at '{there}'", why, hint)
    return error("tao-missing", "PATH", "there is no 'tao'", why, f"{INSTALL} && {FIRST}")


def _identity(first: Launcher, others: list[Launcher]) -> list[Finding]:
    if not first.trouble:
        return []
    real = next((other for other in others if not other.trouble), None)
    if first.trouble in (NO_INTERPRETER, NO_ANSWER):
        why = f"the environment that it was installed in was moved, or its Python '{first.python}' upgraded or removed"
        return [error("tao-broken-python", first.path, f"'tao' does not start: {first.problem}", why, _anew(first))]
    if real is not None:
        why = f"the launcher is the next on PATH, '{real.path}', and never started"
        hint = f'export PATH={shlex.quote(os.path.dirname(real.path))}:"$PATH"'
    else:
        why, hint = "another program has the name, or the launcher was uninstalled", f"{INSTALL} && {FIRST}"
    return [error("tao-not-launcher", first.path, f"this 'tao' is not the launcher: {first.problem}", why, hint)]


def _anew(dead: Launcher) -> str:
    wanted = shlex.quote(dead.left or "nvidia-tao")
    folder = os.path.dirname(os.path.dirname(dead.python))
    if not dead.left or folder in ("", "/", "/usr", "/usr/local"):
        return f"{INSTALL} && {FIRST}"
    place = shlex.quote(folder)
    return f"python3 -m venv --clear {place} && {place}/bin/pip install {wanted} setuptools"


def _parts(launcher: Launcher) -> list[Finding]:
    """Judge the packages beside it. One command mends all of them, so each of the findings gives that one."""
    have = {name: _numbers(version) for name, version in launcher.packages.items()}
    docker, requests = have.get("docker", (0,)), have.get("requests", (0,))
    python = ".".join(map(str, launcher.release[:2]))
    version = launcher.packages
    faults: list[tuple[str, str, str]] = []
    wanted: list[str] = []
    if launcher.release >= (3, 10) and (0,) < have.get("tabulate", (0,)) < (0, 8, 8):
        wanted.append("tabulate>=0.9")
        what = f"tabulate {version['tabulate']} does not import on Python {python}"
        faults.append(("tabulate-python-310", what, "it takes 3.10 for older than 3.3, and looks in the wrong place"))
    if launcher.release >= (3, 12) and (0,) < have.get("six", (0,)) < (1, 16):
        wanted.append("six>=1.16")
        what = f"six {version['six']} does not import on Python {python}"
        faults.append(("six-python-312", what, "Python 3.12 has no find_module any more"))
    if launcher.release >= (3, 12) and (0,) < have.get("urllib3", (0,)) < (1, 26, 15):
        wanted += ["urllib3>=1.26.15,<2", "requests>=2.26,<2.32"]
        what = f"urllib3 {version['urllib3']} has a six of its own, which does not import on Python {python}"
        faults.append(("six-python-312", what, "Python 3.12 has no find_module any more"))
    if not launcher.has_distutils and (0,) < docker < (7,):
        wanted.append("setuptools")
        what = f"Python {python} has no distutils, which docker {version['docker']} imports"
        faults.append(("python-312-distutils", what, "setuptools has one of its own"))
    if docker and (0,) < docker < (7, 1) and requests >= (2, 32):
        wanted += ["requests<2.32", "urllib3<2"]
        what = f"requests {version['requests']} does not know the sockets of docker {version['docker']}"
        faults.append(("requests-232", what, "'tao list' and each task end before the engine is asked"))
    elif (0,) < docker < (6, 1) and have.get("urllib3", (0,)) >= (2,):
        wanted.append("urllib3<2")
        what = f"urllib3 {version['urllib3']} does not fit docker {version['docker']}"
        faults.append(("urllib3-2", what, "'tao list' and each task end before the engine is asked"))
    if launcher.imports and not faults:
        wanted += ["--force-reinstall", f"{launcher.distribution}=={launcher.version}"]
        faults.append(("launcher-import", f"what 'tao' imports does not import: {launcher.imports}", ""))
    hint = mend(launcher, wanted)
    return [error(id, launcher.path, what, why, hint) for id, what, why in faults]


def mend(launcher: Launcher, wanted: list[str]) -> str:
    """Give the command that installs ``wanted`` beside a launcher, by what changes packages there."""
    words = shlex.join(wanted)
    if launcher.pip == "pipx":
        return f"pipx runpip {shlex.quote(os.path.basename(launcher.prefix))} install {words}"
    if launcher.pip == "uv":
        words = words.replace("--force-reinstall", "--reinstall")
        return f"uv pip install --python {shlex.quote(launcher.python)} {words}"
    if launcher.pip == "pip":
        return f"{shlex.quote(launcher.python)} -m pip install {words}"
    # The system's own Python, where pip refuses (PEP 668): an environment of its own instead.
    itself = f"{launcher.distribution}=={launcher.version}"
    words = shlex.join([itself, *(word for word in wanted if word not in (itself, "--force-reinstall"))])
    return f"python3 -m venv ~/tao-launcher && ~/tao-launcher/bin/pip install {words} && {FIRST}"


def _several(launchers: Launchers) -> list[Finding]:
    first = launchers.found[0]
    others = [one for one in launchers.found[1:] if (one.prefix, one.version) != (first.prefix, first.version)]
    found = []
    if others:
        told = ", ".join(f"'{one.path}' ({one.version or one.problem})" for one in others)
        what = f"there are several on PATH, and this one ({first.version}) is started"
        hint = f"if it is not the one meant: {shlex.quote(first.python)} -m pip uninstall {first.distribution}"
        found.append(warning("tao-several", first.path, what, f"after it: {told}", hint))
    inside = launchers.environment
    theirs = [one.path for one in others if inside and is_inside(one.path, inside)]
    theirs += [path for path in launchers.elsewhere if inside and is_inside(path, inside)]
    if inside and theirs and not is_inside(first.path, inside):
        what = f"it is not the 'tao' of the active environment, '{theirs[0]}'"
        why = "PATH was changed after the environment was activated, or the shell remembers an older place"
        hint = f'export PATH={shlex.quote(os.path.dirname(theirs[0]))}:"$PATH"; hash -r'
        found.append(warning("tao-other-python", first.path, what, why, hint))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part[:9]) for part in found[0].split(".")) if found else (0,)
