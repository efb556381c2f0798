"""Jupyter kernels that run in a profile: kernelspecs, written without jupyter_client."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.profiles.store import Store, is_name
from taoprofiles.storage import atomic, best_effort, files
from taoprofiles.storage.locks import Lock
from taoprofiles.system.commands import run_bounded

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

LOGOS = ("logo-svg.svg", "logo-32x32.png", "logo-64x64.png")
"""Jupyter's names of a kernel's logos; the files are in ``profiles/logos`` (``tests/support/logo.py`` draws them)."""

_SPEC, _PREFIX = "kernel.json", "taoprof-"
_LIMIT = 1 << 20
_NOTEBOOK_LIMIT = 64 << 20
_SECONDS = 20.0
_NO_IPYKERNEL = "it has no ipykernel"


def user_folder(context: Context) -> str:
    """Return Jupyter's folder of the user's kernels."""
    environ = context.environ
    share = environ.get("XDG_DATA_HOME") or os.path.join(context.home, ".local/share")
    return os.path.join(context.absolute(environ.get("JUPYTER_DATA_DIR") or os.path.join(share, "jupyter")), "kernels")


def prefix_folder(context: Context, prefix: str) -> str:
    """Return the folder of the kernels of an environment, such as /usr/local."""
    return os.path.join(context.absolute(prefix), "share/jupyter/kernels")


def known_folders(context: Context) -> list[str]:
    """Return the folders in which a user's kernels are looked for: the user's, and those of the environments in use."""
    data = context.environ.get("JUPYTER_PATH", "").split(os.pathsep)
    prefixes = [sys.prefix, *(context.environ.get(name, "") for name in ("VIRTUAL_ENV", "CONDA_PREFIX"))]
    folders = [user_folder(context), *(os.path.join(context.absolute(folder), "kernels") for folder in data if folder)]
    folders += [prefix_folder(context, prefix) for prefix in prefixes if prefix]
    return list({os.path.realpath(folder): folder for folder in reversed(folders)}.values())[::-1]


def kernel_name(profile: str) -> str:
    """Return the kernel's name: Jupyter ignores case, so capitals (and the '.' that marks them) become '.' and hex."""
    return _PREFIX + "".join(f".{ord(c):x}" if c == "." or c.isupper() else c for c in profile)


def display_name(profile: str) -> str:
    """Return the name that a launcher shows."""
    return f"TAO: {profile}"


def taoprof() -> str:
    """Return the path of the command ``taoprof``."""
    return os.path.join(sysconfig.get_path("scripts"), "taoprof")


def install(context: Context, profile: str, python: str, folder: str) -> dict[str, Any]:
    """Write the kernel of a profile, replacing an earlier one; return it as ``installed`` does.

    Other users may read it, unless ``folder`` is the user's own. Raises InvalidStateError if another program's kernel
    has the same name.
    """
    argv = [taoprof(), "run", profile, "--", python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    metadata = {"taoprof": {"profile": profile}, "debugger": True}
    spec = {"argv": argv, "display_name": display_name(profile), "language": "python", "metadata": metadata}
    return _describe(context, _write(context, profile, folder, spec), profile, spec)


def installed(context: Context, folders: list[str], profile: str | None = None) -> list[dict[str, Any]]:
    """Return the kernels of profiles, or of one, by their metadata; other kernels are left out."""
    return [_describe(context, *kernel) for kernel in _find(folders, profile)]


def remove(context: Context, profile: str | None, folders: list[str]) -> list[dict[str, Any]]:
    """Remove the kernels of a profile, of all with None. Raises NotFoundError if ``profile`` has none."""
    kernels = installed(context, folders, profile)
    if profile is not None and not kernels:
        raise NotFoundError(f"profile '{profile}' has no kernel", hint="to see all: taoprof kernel list")
    with Lock(context.lock):
        for kernel in kernels:
            _remove(kernel["path"])
    return kernels


def follow(context: Context, profile: str, renamed: str | None) -> list[str]:
    """Update the kernels of a profile that was renamed, or was removed if ``renamed`` is None; return messages."""
    messages: list[str] = []
    try:
        kernels = _find(known_folders(context), profile)
    except TaoprofError as error:  # the profile has been renamed or removed
        return [f"warning: the kernels of profile '{profile}' were not updated: {error.message}"]
    for path, _, spec in kernels:
        try:
            if renamed is not None:
                _write(context, renamed, os.path.dirname(path), _renamed(spec, profile, renamed))
            with Lock(context.lock):
                _remove(path)
        except TaoprofError as error:
            messages.append(f"warning: the kernel in '{path}' still has profile '{profile}': {error.message}")
        else:
            new = "removed" if renamed is None else f"is now '{display_name(renamed)}'"
            messages.append(f"kernel '{display_name(profile)}' {new}")
    return messages


def set_in_notebook(context: Context, path: str, profile: str) -> str | None:
    """Make the kernel of a profile the notebook's; return the path of the copy of the file as it was.

    None if the notebook has that kernel already. Raises InvalidStateError for a file that is no notebook.
    """
    wanted = {"display_name": display_name(profile), "language": "python", "name": kernel_name(profile)}
    with Lock(context.lock):
        content, status = files.read(path, _NOTEBOOK_LIMIT) or b"", files.stat_or_none(path)
        try:
            notebook = json.loads(content)
            metadata = notebook.setdefault("metadata", {})
            before, metadata["kernelspec"] = metadata.get("kernelspec"), wanted
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise InvalidStateError(f"'{path}' is not a notebook: it has no metadata, or is not valid JSON") from None
        if before == wanted or status is None:
            return None
        indent = re.match(rb"\s*\{\r?\n([ \t]+)", content)
        text = json.dumps(notebook, indent=indent[1].decode() if indent else 1, ensure_ascii=content.isascii()) + "\n"
        backups = (f"{path}.bak{number}" for number in itertools.chain([""], itertools.count(2)))
        backup = next(name for name in backups if not os.path.lexists(name))
        attributes = atomic.FileAttributes(status.st_mode, status.st_uid, status.st_gid)
        atomic.replace(backup, content, attributes=attributes)
        atomic.replace(path, text.encode("utf-8", "backslashreplace"))
    return backup


def find_python(context: Context, python: str | None) -> str:
    """Return the absolute path of an interpreter that has ipykernel: ``python``, or the one that is in use here.

    Raises UsageError.
    """
    venv = context.environ.get("VIRTUAL_ENV")
    own = sys.executable if find_spec("ipykernel") is not None else "python3"
    wanted = python or (os.path.join(venv, "bin/python") if venv else own)
    path = shutil.which(context.expand_user(wanted), path=context.environ.get("PATH"))
    if path is None:
        raise UsageError(f"there is no Python '{wanted}'", hint="name one with --python PATH")
    path = os.path.abspath(path)  # a link is kept: it is how a virtual environment is recognised
    problem = python_problem(path, context.environ)
    if problem:
        hint = "name another one with --python PATH"
        if problem == _NO_IPYKERNEL:
            hint = f"to install it: {_install_command(path, context.environ)}"
        raise UsageError(f"'{path}' cannot run a kernel: {problem}", hint=hint)
    return path


def _install_command(python: str, environ: Mapping[str, str]) -> str:
    """Return the command that installs ipykernel for an interpreter.

    For the system's own it is an environment of its own, because pip refuses there (PEP 668); uv's have no pip.
    """
    code = (
        "import importlib.util, os, sys, sysconfig\n"
        "marker = os.path.join(sysconfig.get_path('stdlib'), 'EXTERNALLY-MANAGED')\n"
        "is_system = sys.prefix == sys.base_prefix and os.path.exists(marker)\n"
        "sys.exit(3 if is_system else 4 if importlib.util.find_spec('pip') is None else 0)"
    )
    status = run_bounded([python, "-c", code], environ, _SECONDS).status
    if status == 3:
        return "python3 -m venv ~/tao-env && . ~/tao-env/bin/activate && pip install ipykernel"
    if status == 4:
        return shlex.join(["uv", "pip", "install", "--python", python, "ipykernel"])
    return shlex.join([python, "-m", "pip", "install", "ipykernel"])


def python_problem(python: str, environ: Mapping[str, str]) -> str:
    """Return why an interpreter cannot run a kernel, "" if it can."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('ipykernel') is None)"
    done = run_bounded([python, "-c", code], environ, _SECONDS)
    return done.problem or (_NO_IPYKERNEL if done.status else "")


def _find(folders: list[str], profile: str | None) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the path, profile and kernelspec of each profile's kernel, or of those of one profile.

    Raises TaoprofError if one of the user's folders or kernels cannot be read: it would count as none.
    """
    paths = []
    for folder in folders:
        try:
            paths += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            status = files.stat_or_none(folder)
            if status is None or status.st_uid == os.geteuid():
                raise files.to_taoprof_error(folder, "list", error) from error
    read = [(path, *_read(path)) for path in paths]
    return [(path, name, spec) for path, name, spec in read if name is not None and profile in (None, name)]


def _read(path: str) -> tuple[str | None, dict[str, Any]]:
    """Return the profile of the kernel in a folder and its kernelspec; no profile if the kernel is not a profile's.

    Raises TaoprofError for a kernel with a name of ours that cannot be read.
    """
    spec: Any = None
    try:
        spec = json.loads(files.read(os.path.join(path, _SPEC), _LIMIT) or b"null")
    except (InvalidStateError, ValueError, RecursionError):
        pass
    except TaoprofError:
        if os.path.basename(path).startswith(_PREFIX):
            raise
    spec = spec if isinstance(spec, dict) else {}
    metadata = spec.get("metadata")
    ours = metadata.get("taoprof") if isinstance(metadata, dict) else None
    name = ours.get("profile") if isinstance(ours, dict) else None
    return (name if isinstance(name, str) else None), spec


def _words(spec: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the words of a kernelspec's command before and after '--'; a person may have added options."""
    argv = spec.get("argv")
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _renamed(spec: dict[str, Any], profile: str, renamed: str) -> dict[str, Any]:
    """Return the kernelspec of a renamed profile: what a person has changed in it stays."""
    options, command = _words(spec)
    options = [renamed if word == profile else word for word in options[2:]]
    shown = spec.get("display_name")
    return {
        **spec,
        "argv": [taoprof(), "run", *options, "--", *command],
        "display_name": display_name(renamed) if shown == display_name(profile) else shown,
        "metadata": {**spec["metadata"], "taoprof": {"profile": renamed}},
    }


def _write(context: Context, profile: str, folder: str, spec: dict[str, Any]) -> str:
    """Write the kernel of a profile into a folder of kernels, and return its path."""
    folder_mode, mode = (0o700, 0o600) if folder == user_folder(context) else (0o755, 0o644)
    path = os.path.join(folder, kernel_name(profile))
    content = {
        name: files.read(os.path.join(os.path.dirname(__file__), "logos", name), _LIMIT) or b"" for name in LOGOS
    }
    content[_SPEC] = json.dumps(spec, indent=1).encode() + b"\n"  # last: without it the folder is no kernel
    with Lock(context.lock):
        Store(context).template(profile, may_write=True)  # so that the kernel's start need not validate it
        is_new = not os.path.lexists(path)
        if os.path.exists(os.path.join(path, _SPEC)) and _read(path)[0] is None:
            hint = f"to keep it under another name: mv {shlex.quote(path)} {shlex.quote(os.path.join(folder, 'NAME'))}"
            raise InvalidStateError(f"'{path}' has a kernel that was not installed by taoprof", hint=hint)
        try:
            files.make_folder(path, folder_mode)
            for name, data in content.items():
                attributes = atomic.FileAttributes(mode, os.geteuid(), os.getegid())
                atomic.replace(os.path.join(path, name), data, attributes=attributes, link=None)
        except BaseException:
            if is_new:
                _delete(path)
            raise
    return path


def _describe(context: Context, path: str, profile: str, spec: dict[str, Any]) -> dict[str, Any]:
    options, command = _words(spec)
    python = next(iter(command), "")
    problem = "" if os.path.exists(python) else "no such Python"
    if options and not os.path.exists(options[0]):
        problem = "no such taoprof"
    if not (is_name(profile) and os.path.lexists(Store(context).path(profile))):
        problem = "no such profile"
    return {
        "profile": profile, "kernel": os.path.basename(path), "path": path, "python": python, "problem": problem
    }  # fmt: skip


def _remove(path: str) -> None:
    """Remove a kernel; of a symlink, only the symlink."""
    if os.path.islink(path):
        return files.remove(path)
    files.remove(os.path.join(path, _SPEC))
    return _delete(path)


def _delete(path: str) -> None:
    """Delete the folder of a kernel, and what taoprof wrote into it."""
    for name in (_SPEC, *LOGOS):
        best_effort.unlink_quietly(os.path.join(path, name))
    best_effort.rmdir_quietly(path)
