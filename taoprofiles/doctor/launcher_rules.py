"""Rules about the launcher's installation: which ``tao`` is started, and whether its packages fit its Python.

Each fault, and each command that fixes it, was tried with the launcher from PyPI: tests/doctor/test_launcher_fixes.py.
"""

from __future__ import annotations

import os
import re
import shlex

from taoprofiles.launcher.installed import NO_ANSWER, NO_INTERPRETER, Launcher, Launchers
from taoprofiles.rules.finding import Finding, error, warning

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
    return [*_check_packages(first), *_check_others(first, others)]


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


_NO_DISTUTILS = "distutils-less Python"
_COPY = "Python 3.12 has removed find_module"
_LATE = "'tao list' and each task fail before they ask the engine"
_CONFLICTS: tuple[tuple[str, tuple[int, ...], str, tuple[int, ...], str, list[str]], ...] = (
    ("tabulate", (0, 8, 8), "Python", (3, 10), "it mistakes Python 3.10 for a version before 3.3", ["tabulate>=0.9"]),
    ("six", (1, 16), "Python", (3, 12), _COPY, ["six>=1.16"]),
    ("urllib3", (1, 26, 15), "Python", (3, 12), _COPY, ["urllib3>=1.26.15,<2", "requests>=2.26,<2.32"]),
    ("docker", (7,), _NO_DISTUTILS, (3,), "setuptools contains a copy of it", ["setuptools"]),
    ("docker", (7, 1), "requests", (2, 32), _LATE, ["requests<2.32", "urllib3<2"]),
    ("docker", (6, 1), "urllib3", (2,), _LATE, ["urllib3<2"]),
)
"""A package before a version that does not work with another from a version on: why, and the packages that do work."""


def _check_packages(launcher: Launcher) -> list[Finding]:
    """Check the packages beside the launcher; one finding names all conflicts, since one command fixes them all."""
    python = "Python" if launcher.has_distutils else _NO_DISTUTILS
    release = ".".join(map(str, launcher.release[:2]))
    versions = {**launcher.packages, "Python": release, python: release}
    texts, reasons, requirements = [], [], []
    for name, below, other, since, why, working in _CONFLICTS:
        if (0,) < _numbers(versions.get(name, "")) < below and _numbers(versions.get(other, "")) >= since:
            texts.append(f"{name} {versions[name]} does not work with {other} {versions[other]}")
            reasons.append(why)
            requirements += working
    if not texts and launcher.imports:
        texts.append(f"a package that 'tao' imports cannot be imported: {launcher.imports}")
        requirements = ["--force-reinstall", f"{launcher.distribution}=={launcher.version}"]
    if not texts:
        return []
    what, why = "; ".join(texts), "; ".join(dict.fromkeys(reasons))
    hint = install_command(launcher, list(dict.fromkeys(requirements)))
    return [error("launcher-import", launcher.path, what, why, hint)]


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


def _check_others(first: Launcher, others: list[Launcher]) -> list[Finding]:
    others = [item for item in others if (item.prefix, item.version) != (first.prefix, first.version)]
    if not others:
        return []
    listed = ", ".join(f"'{item.path}' ({item.version or item.problem})" for item in others)
    what = f"more than one launcher is on PATH; the first one is used ({first.version})"
    hint = f"if it is the wrong one: {shlex.quote(first.python)} -m pip uninstall {first.distribution}"
    return [warning("tao-several", first.path, what, f"also on PATH: {listed}", hint)]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part[:9]) for part in match[0].split(".")) if match else (0,)
