"""Jupyter kernels that run in a profile: kernelspecs, written without jupyter_client."""

from __future__ import annotations

import json
import os
import shlex
import sysconfig
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import NotFoundError, UsageError
from taoprofiles.profiles.store import Store
from taoprofiles.storage import atomic, best_effort, files
from taoprofiles.storage.locks import Lock
from taoprofiles.system.commands import run_bounded

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

_LIMIT = 1 << 20
_SECONDS = 20.0


def data_folder(context: Context, prefix: str | None) -> str:
    """Return Jupyter's folder of kernels: the one in ``prefix``, or the user's."""
    environ = context.environ
    if prefix is not None:
        return os.path.join(context.absolute(prefix), "share/jupyter/kernels")
    share = environ.get("XDG_DATA_HOME") or os.path.join(context.home, ".local/share")
    return os.path.join(context.absolute(environ.get("JUPYTER_DATA_DIR") or os.path.join(share, "jupyter")), "kernels")


def folder_name(profile: str) -> str:
    """Return the kernel's name: Jupyter ignores case, so capitals (and the '.' that marks them) become '.' and hex."""
    return "taoprof-" + "".join(f".{ord(c):x}" if c == "." or c.isupper() else c for c in profile)


def install(context: Context, profile: str, python: str | None, prefix: str | None) -> dict[str, Any]:
    """Write the kernel of a profile, replacing an earlier one; return it as ``installed`` does."""
    Store(context).text(profile)
    python = _python(context, python)
    folder = os.path.join(data_folder(context, prefix), folder_name(profile))
    taoprof = os.path.join(sysconfig.get_path("scripts"), "taoprof")
    spec = {
        "argv": [taoprof, "run", profile, "--", python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"TAO: {profile}",
        "language": "python",
        "metadata": {"taoprof": {"profile": profile}, "debugger": True},
    }
    with Lock(context.lock):
        files.make_folder(folder)
        atomic.replace(os.path.join(folder, "kernel.json"), json.dumps(spec, indent=1).encode() + b"\n")
    return {"profile": profile, "kernel": os.path.basename(folder), "path": folder, "python": python}


def installed(context: Context, prefix: str | None) -> list[dict[str, Any]]:
    """Return the kernels of profiles, by their metadata; other kernels are left out."""
    root, found = data_folder(context, prefix), []
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        spec = best_effort.read_json(os.path.join(root, name, "kernel.json"), _LIMIT) or {}
        metadata, argv = spec.get("metadata"), spec.get("argv")
        ours = metadata.get("taoprof") if isinstance(metadata, dict) else None
        profile = ours.get("profile") if isinstance(ours, dict) else None
        if isinstance(profile, str) and isinstance(argv, list) and len(argv) > 4:
            found.append({"profile": profile, "kernel": name, "path": os.path.join(root, name), "python": str(argv[4])})
    return found


def remove(context: Context, profile: str | None, prefix: str | None) -> list[dict[str, Any]]:
    """Remove the kernels of a profile, of all with None. Raises NotFoundError if ``profile`` has none."""
    found = [kernel for kernel in installed(context, prefix) if profile in (None, kernel["profile"])]
    if profile is not None and not found:
        raise NotFoundError(f"profile '{profile}' has no kernel", hint="to see all: taoprof kernel list")
    with Lock(context.lock):
        for kernel in found:
            files.remove(os.path.join(kernel["path"], "kernel.json"))
            best_effort.rmdir_quietly(kernel["path"])
    return found


def _python(context: Context, python: str | None) -> str:
    """Return the absolute path of an interpreter that has ipykernel. Raises UsageError."""
    import shutil

    venv = context.environ.get("VIRTUAL_ENV")
    wanted = python or (os.path.join(venv, "bin/python") if venv else "python3")
    found = shutil.which(context.expand_user(wanted), path=context.environ.get("PATH"))
    if found is None:
        raise UsageError(f"there is no Python '{wanted}'", hint="name one with --python PATH")
    found = os.path.abspath(found)  # a link is kept: it is how a virtual environment is recognised
    done = run_bounded([found, "-c", "import ipykernel"], context.environ, _SECONDS)
    if done.problem or done.status:
        command = shlex.join([found, "-m", "pip", "install", "ipykernel"])
        raise UsageError(f"{found} has no ipykernel", hint=f"to install it: {command}")
    return found
