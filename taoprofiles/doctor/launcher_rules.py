"""Rules about the launcher's installation: which ``tao`` is started, and whether its packages fit its Python.

Each fault, and each command that fixes it, was tried with the launcher from PyPI: tests/doctor/test_launcher_fixes.py.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from taoprofiles.launcher.installed import NO_ANSWER, NO_INTERPRETER, Launcher, Launchers
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.storage.paths import is_inside

INSTALL = "python3 -m venv ~/tao-launcher && ~/tao-launcher/bin/pip install nvidia-tao setuptools"
"""setuptools contains the distutils that Python 3.12 and later do not have."""

FIRST = 'export PATH="$HOME/tao-launcher/bin:$PATH"'


def check_launchers(launchers: Launchers) -> list[Finding]:
    """Check the launcher that a shell would start, and the others that it hides."""
    if not launchers.found:
        return [_missing(launchers)]
    first, *others = launchers.found
    if first.trouble:
        return [_unusable(first, others)]
    return [*_check_packages(first), *_check_others(launchers)]


def _missing(launchers: Launchers) -> Finding:
    why = "a shell says 'tao: command not found'"
    if launchers.elsewhere:
        path = launchers.elsewhere[0]
        hint = f'export PATH={shlex.quote(os.path.dirname(path))}:"$PATH"'
        return error("tao-missing", "PATH", f"'tao' is not on PATH; it is at '{path}'", why, hint)
    return error("tao-missing", "PATH", "'tao' is not installed", why, f"{INSTALL} && {FIRST}")


def _unusable(first: Launcher, others: list[Launcher]) -> Finding:
    if first.trouble in (NO_INTERPRETER, NO_ANSWER):
        why = f"its environment was moved, or its Python '{first.python}' was upgraded or removed"
        return error("tao-broken-python", first.path, f"'tao' does not start: {first.problem}", why, _reinstall(first))
    real = next((other for other in others if not other.trouble), None)
    if real is not None:
        why = f"the launcher comes later on PATH, '{real.path}', and is never started"
        hint = f'export PATH={shlex.quote(os.path.dirname(real.path))}:"$PATH"'
    else:
        why, hint = "another program has the name, or the launcher was uninstalled", f"{INSTALL} && {FIRST}"
    return error("tao-not-launcher", first.path, f"this 'tao' is not the launcher: {first.problem}", why, hint)


def _reinstall(launcher: Launcher) -> str:
    folder = os.path.dirname(os.path.dirname(launcher.python))
    if not launcher.left or folder in ("", "/", "/usr", "/usr/local"):
        return f"{INSTALL} && {FIRST}"
    venv = shlex.quote(folder)
    return f"python3 -m venv --clear {venv} && {venv}/bin/pip install {shlex.quote(launcher.left)} setuptools"


class _Conflict(NamedTuple):
    """Packages that do not fit each other or Python, and the requirements with which they do."""

    what: str
    why: str
    requirements: list[str]


def _check_packages(launcher: Launcher) -> list[Finding]:
    """Check the packages beside the launcher; one finding names all conflicts, since one command fixes them all."""
    conflicts = [*_python_conflicts(launcher), *_docker_conflicts(launcher)]
    if not conflicts and launcher.imports:
        what = f"a package that 'tao' imports cannot be imported: {launcher.imports}"
        conflicts.append(_Conflict(what, "", ["--force-reinstall", f"{launcher.distribution}=={launcher.version}"]))
    if not conflicts:
        return []
    what = "; ".join(conflict.what for conflict in conflicts)
    why = "; ".join(dict.fromkeys(conflict.why for conflict in conflicts))
    requirements = [word for conflict in conflicts for word in conflict.requirements]
    return [error("launcher-import", launcher.path, what, why, install_command(launcher, requirements))]


def _python_conflicts(launcher: Launcher) -> Iterator[_Conflict]:
    version = launcher.packages
    python = ".".join(map(str, launcher.release[:2]))
    if launcher.release >= (3, 10) and _is_older(launcher, "tabulate", (0, 8, 8)):
        what = f"tabulate {version['tabulate']} cannot be imported on Python {python}"
        yield _Conflict(what, "it compares versions as text, and takes 3.10 for older than 3.3", ["tabulate>=0.9"])
    why = "Python 3.12 has removed find_module"
    if launcher.release >= (3, 12) and _is_older(launcher, "six", (1, 16)):
        yield _Conflict(f"six {version['six']} cannot be imported on Python {python}", why, ["six>=1.16"])
    if launcher.release >= (3, 12) and _is_older(launcher, "urllib3", (1, 26, 15)):
        what = f"urllib3 {version['urllib3']} contains a copy of six that cannot be imported on Python {python}"
        yield _Conflict(what, why, ["urllib3>=1.26.15,<2", "requests>=2.26,<2.32"])
    if not launcher.has_distutils and _is_older(launcher, "docker", (7,)):
        what = f"Python {python} has no distutils, which docker {version['docker']} imports"
        yield _Conflict(what, "setuptools contains a copy of it", ["setuptools"])


def _docker_conflicts(launcher: Launcher) -> Iterator[_Conflict]:
    version = launcher.packages
    why = "'tao list' and each task fail before they ask the engine"
    if _is_older(launcher, "docker", (7, 1)) and _numbers(version.get("requests", "")) >= (2, 32):
        what = f"docker {version['docker']} does not work with requests {version['requests']}"
        yield _Conflict(what, why, ["requests<2.32", "urllib3<2"])
    elif _is_older(launcher, "docker", (6, 1)) and _numbers(version.get("urllib3", "")) >= (2,):
        what = f"docker {version['docker']} does not work with urllib3 {version['urllib3']}"
        yield _Conflict(what, why, ["urllib3<2"])


def _is_older(launcher: Launcher, package: str, than: tuple[int, ...]) -> bool:
    return (0,) < _numbers(launcher.packages.get(package, "")) < than


def install_command(launcher: Launcher, wanted: list[str]) -> str:
    """Return the command that installs ``wanted`` beside a launcher, with the tool that manages its environment."""
    words = shlex.join(wanted)
    if launcher.pip == "pipx":
        return f"pipx runpip {shlex.quote(os.path.basename(launcher.prefix))} install {words}"
    if launcher.pip == "uv":
        words = words.replace("--force-reinstall", "--reinstall")
        return f"uv pip install --python {shlex.quote(launcher.python)} {words}"
    if launcher.pip == "pip":
        return f"{shlex.quote(launcher.python)} -m pip install {words}"
    # The system's own Python, where pip refuses (PEP 668): a new environment instead.
    itself = f"{launcher.distribution}=={launcher.version}"
    words = shlex.join([itself, *(word for word in wanted if word not in (itself, "--force-reinstall"))])
    return f"python3 -m venv ~/tao-launcher && ~/tao-launcher/bin/pip install {words} && {FIRST}"


def _check_others(launchers: Launchers) -> list[Finding]:
    first = launchers.found[0]
    others = [item for item in launchers.found[1:] if (item.prefix, item.version) != (first.prefix, first.version)]
    findings = []
    if others:
        listed = ", ".join(f"'{item.path}' ({item.version or item.problem})" for item in others)
        what = f"several launchers are on PATH; this one ({first.version}) is started"
        hint = f"if it is the wrong one: {shlex.quote(first.python)} -m pip uninstall {first.distribution}"
        findings.append(warning("tao-several", first.path, what, f"after it: {listed}", hint))
    active = launchers.environment
    paths = [path for path in (*(item.path for item in others), *launchers.elsewhere) if is_inside(path, active)]
    if active and paths and not is_inside(first.path, active):
        what = f"the active environment has another 'tao', '{paths[0]}'"
        why = "PATH was changed after the environment was activated, or the shell remembers an old path"
        hint = f'export PATH={shlex.quote(os.path.dirname(paths[0]))}:"$PATH"; hash -r'
        findings.append(warning("tao-other-python", first.path, what, why, hint))
    return findings


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part[:9]) for part in match[0].split(".")) if match else (0,)
