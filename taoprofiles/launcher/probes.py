"""Probes of this machine: the launchers on it, the home folder, and the login to NVIDIA's registry.

The launchers: which ``tao`` a shell starts, its Python, and the packages of that Python. The home: variables that
redirect the launcher, similar file names, file systems, WSL.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from taoprofiles.launcher.argv import MAIN_PROGRAMS
from taoprofiles.launcher.behaviour import Host, find_mounts_file
from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.masking import mask_text
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.system import filesystem
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
    - ``previous``: the launcher in an environment whose Python is gone, as NAME==VERSION
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
    previous: str = ""
    folder: str = ""


class Launchers(NamedTuple):
    """Every ``tao`` of PATH, the one that a shell starts first; ``elsewhere`` are those in other usual folders."""

    on_path: tuple[Launcher, ...] = ()
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
    has_distutils = True
except ImportError:
    has_distutils = False
packages, imports = {}, ""
for name in sys.argv[1:]:
    try:
        packages[name] = str(version(name))[:100]
    except Exception:
        pass
for name in ("docker", "tabulate", "requests"):
    try:
        __import__(name)
    except BaseException as error:
        imports = (type(error).__name__ + ": " + str(error))[:300]
        break
try:
    import importlib.util
    pip = "pip" if importlib.util.find_spec("pip") else "uv"
except Exception:
    pip = "uv"
folder = ""
for name in ("nvidia_tao_cli", "tlt"):  # the first from 5.0.0 on
    try:
        folder = folder or list(importlib.util.find_spec(name).submodule_search_locations)[0]
    except Exception:
        pass
import sysconfig
pip = "pipx" if os.path.exists(os.path.join(sys.prefix, "pipx_metadata.json")) else pip
if sys.prefix == getattr(sys, "base_prefix", sys.prefix) and os.path.exists(
        os.path.join(sysconfig.get_path("stdlib") or "", "EXTERNALLY-MANAGED")):
    pip = ""
answer = {"release": list(sys.version_info[:3]), "prefix": sys.prefix, "has_distutils": has_distutils,
          "packages": packages, "imports": imports, "pip": pip, "folder": folder}
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


def first_launcher(environ: Mapping[str, str]) -> Launcher | None:
    """Return the launcher that a shell starts, or None."""
    path = next(iter(_on_path(environ.get("PATH", "")).values()), None)
    return inspect_launcher(path, environ) if path else None


def version_of(program: str, environ: Mapping[str, str]) -> str:
    """Return the version of the launcher that ``program``, a ``tao`` or a Python, starts, or "" if it is unknown."""
    path = shutil.which(program, path=environ.get("PATH", ""))
    return inspect_launcher(path, environ).version if path else ""


def probe_launchers(environ: Mapping[str, str], home: str, beside: str) -> Launchers:
    """Inspect every launcher of PATH, in parallel. ``beside`` is a further folder to search."""
    programs = _on_path(environ.get("PATH", ""))
    with ThreadPoolExecutor(_MAX_INSPECTED) as pool:
        paths = list(programs.values())[:_MAX_INSPECTED]
        launchers = tuple(pool.map(lambda path: inspect_launcher(path, environ), paths))
    environment = environ.get("VIRTUAL_ENV") or environ.get("CONDA_PREFIX") or ""
    folders = [os.path.join(home, ".local/bin"), beside, *([os.path.join(environment, "bin")] if environment else [])]
    others = _on_path(os.pathsep.join(folders)).items()
    return Launchers(launchers, tuple(path for real, path in others if real not in programs))


def inspect_launcher(path: str, environ: Mapping[str, str]) -> Launcher:
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
        previous = _find_previous_version(python)
        return Launcher(path, python, problem=f"its Python {problem}", trouble=trouble, previous=previous)
    launcher = Launcher(path, python, **json.loads(line.removeprefix("ANSWER ")))
    launcher = launcher._replace(release=tuple(launcher.release))
    for name in DISTRIBUTIONS:
        if version := launcher.packages.get(name):
            return launcher._replace(distribution=name, version=version)
    return launcher._replace(problem="its Python has no launcher installed", trouble=NO_LAUNCHER)


def launcher_config(launcher: Launcher) -> bytes | None:
    """Return the content of its table of tasks and images, for ``Host``; None if it cannot be read."""
    path = os.path.join(launcher.folder, "config/config.json")
    content, problem = files.try_read(path, _TABLE_LIMIT) if launcher.folder else (b"", "unknown")
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


# The home folder


class FileSystem(NamedTuple):
    """The file system of ``path``, by its ``use``: "home", "state" or "images". Sizes are in bytes."""

    use: str
    path: str
    kind: str = ""
    free: int = 0
    size: int = 0


class Home(NamedTuple):
    """The home and the variables (those of PROBED_VARIABLES) that say where things are.

    ``similar_files`` may have been meant to be the mapping file, ``system`` is "wsl" or "". ``mounts_state`` is what is
    wrong with the file that LAUNCHER_MOUNTS names, and ``mounts_meant`` the file that was probably intended.
    """

    path: str
    uid: int
    variables: Mapping[str, str]
    mapping_file: str
    has_mapping: bool = False
    similar_files: tuple[str, ...] = ()
    system: str = ""
    sudo_home: str = ""
    mounts_state: str = ""
    mounts_meant: str = ""
    file_systems: tuple[FileSystem, ...] = ()


PROBED_VARIABLES = (
    *("LAUNCHER_MOUNTS", "CI_PROJECT_DIR", "TAO_DOCKER_DISABLE", "OVERRIDE_REGISTRY", "LAUNCHER_MODE_INTERNAL"),
    *("SUDO_USER", "TAOPROF_HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT"),
)
"""The variables that the rules use: each one redirects a program, and none is secret."""

_SIMILAR_NAME = re.compile(r"\.?(tao|tlt)[-_. ]?(toolkit[-_. ]?)?mounts?(\.jso?n?)?", re.IGNORECASE)


def probe_home(context: Context, locations: Iterable[tuple[str, str]]) -> Home:
    """Look at the home, and for mounts files in the current folder.

    ``locations`` are file systems to measure, each by its use and a path on it.
    """
    environ, mapping_file = context.environ, context.mapping_file
    variables = {name: mask_text(environ[name][:1000]) for name in PROBED_VARIABLES if name in environ}
    mounts_state = ""
    if variables.get("LAUNCHER_MOUNTS"):
        problem = files.try_read(find_mounts_file({**environ, "HOME": context.home}, os.curdir), files.MAPPING_LIMIT)[1]
        mounts_state = f"what cannot be read ({problem})" if problem else ""
        mounts_state = "a file that is not there" if problem == "absent" else mounts_state
    changed, table = _change_time(mapping_file), filesystem.file_systems()
    similar_files = find_similar_files(mapping_file, context.folder)
    return Home(
        path=environ.get("HOME", context.home),
        uid=context.uid,
        variables=variables,
        mapping_file=mapping_file,
        has_mapping=os.path.lexists(mapping_file),
        similar_files=tuple(path for path in similar_files if _change_time(path) > changed),
        system="wsl" if filesystem.is_wsl() else "",
        sudo_home=_home_of(variables.get("SUDO_USER", "")),
        mounts_state=mounts_state,
        mounts_meant=guess_mounts_file(variables.get("LAUNCHER_MOUNTS", ""), environ),
        file_systems=tuple(_measure(use, path, table) for use, path in locations),
    )


def _home_of(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir if user else ""
    except (KeyError, ValueError):
        return ""


def _measure(use: str, path: str, table: list[tuple[str, str]]) -> FileSystem:
    """Measure the file system of ``path``, or of its nearest existing parent."""
    real = filesystem.nearest_existing(path).real
    kind = filesystem.file_system(real, table)
    try:
        status = os.statvfs(real)
    except (OSError, ValueError):
        return FileSystem(use, path, kind)
    return FileSystem(use, path, kind, status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


def guess_mounts_file(path: str, environ: Mapping[str, str]) -> str:
    """Return the file that LAUNCHER_MOUNTS was meant to name, if its variables, blanks or folder are wrong; else ""."""
    plain = expand_variables(path, environ, unset="").strip()
    is_right = plain == path and path.startswith(("/", "~"))
    return os.path.abspath(plain) if not is_right and os.path.isfile(plain) else ""


def find_similar_files(mapping_file: str, folder: str) -> list[str]:
    """Return the files that may have been meant to be the mapping file.

    These have a similar name beside it, or a similar or the same name in the current ``folder``, where notebooks are.
    """
    home, name = os.path.split(mapping_file)
    paths = [os.path.join(home, other) for other in _similar_names(home) if other != name]
    if os.path.realpath(folder) != os.path.realpath(home):
        paths += [os.path.join(folder, other) for other in _similar_names(folder)]
    return paths[:10]


def _similar_names(folder: str) -> list[str]:
    try:
        return sorted(filter(_SIMILAR_NAME.fullmatch, os.listdir(folder)))
    except (OSError, ValueError):
        return []


def _change_time(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except (OSError, ValueError):
        return 0.0


# The login to NVIDIA's registry, as the launcher reads it in Docker's config.json


REGISTRIES = ("nvcr.io", "stg.nvcr.io")


class Login(NamedTuple):
    """The login as the launcher reads it, without anything secret.

    ``state`` is "", "absent", "unreadable" or "broken", and ``problem`` why the file cannot be read. ``registries`` are
    those that the launcher needs and ``auths`` has, ``missing_helpers`` the credential helpers that are not on PATH.
    ``elsewhere`` is the file that DOCKER_CONFIG makes the docker command use instead; ``owner`` is a user id or -1.
    """

    path: str
    state: str = ""
    problem: str = ""
    registries: tuple[str, ...] = ()
    missing_helpers: tuple[str, ...] = ()
    elsewhere: str = ""
    owner: int = -1


def probe_login(environ: Mapping[str, str]) -> Login:
    """Return the state of the login, without anything secret."""
    path = Host(environ, "").expanduser("~/.docker/config.json")
    folder = environ.get("DOCKER_CONFIG", "")
    elsewhere = os.path.join(folder, "config.json") if folder else ""
    if elsewhere and os.path.realpath(elsewhere) == os.path.realpath(path):
        elsewhere = ""
    try:
        owner = os.stat(path).st_uid
    except (OSError, ValueError):
        owner = -1
    login = Login(path, elsewhere=elsewhere, owner=owner)
    content, problem = files.try_read(path, _TABLE_LIMIT)
    if problem:
        return login._replace(state="absent" if problem == "absent" else "unreadable", problem=problem)
    data, problem = files.parse_json(content)
    auths = data.get("auths", {}) if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(auths, dict):
        return login._replace(state="broken", problem=problem or "it is not a valid Docker config.json")
    missing = tuple(name for name in _helpers(data) if not shutil.which(name, path=environ.get("PATH", "")))
    return login._replace(missing_helpers=missing, registries=tuple(name for name in REGISTRIES if name in auths))


def _helpers(data: dict[str, object]) -> tuple[str, ...]:
    """Return the programs that keep the credentials of the registries."""
    by_registry = data.get("credHelpers")
    names = [by_registry.get(name) for name in REGISTRIES] if isinstance(by_registry, dict) else []
    names.insert(0, data.get("credsStore"))
    # docker ignores a name with a slash, and one that no file can have.
    valid = dict.fromkeys(name for name in names if isinstance(name, str) and name.isprintable() and name)
    return tuple(f"docker-credential-{name[:100]}" for name in valid if "/" not in name)
