"""Named mount profiles for the NVIDIA TAO launcher.

``taoprofiles.use("detectnet_v2")`` uses a profile in this process, ``taoprofiles.run(…)`` runs a command with one, and
``taoprofiles.switch(…)`` switches ``~/.tao_mounts.json``. They raise subclasses of ``TaoprofError`` and print nothing.
In IPython, ``%load_ext taoprofiles`` provides ``%taoprof``.
"""

from __future__ import annotations

import os

VERSION = "0.1.0"
"""The build reads it, too."""

__all__ = [
    "BusyError",
    "Finished",
    "HeldError",
    "InvalidProfileError",
    "InvalidStateError",
    "NotFoundError",
    "TaoprofError",
    "UsageError",
    "current",
    "hold",
    "run",
    "switch",
    "use",
]


def __getattr__(name: str) -> object:
    # Importing the package must cost nothing: `taoprof current` runs at every shell prompt.
    if name not in __all__:
        raise AttributeError(f"module 'taoprofiles' has no attribute '{name}'")
    from importlib import import_module

    module = {"HeldError": "holds.hold"}.get(name, "errors" if name.endswith("Error") else "api")
    return getattr(import_module(f"taoprofiles.{module}"), name)


def find_commit() -> str | None:
    """Return the commit that this is, or was built from, with " with changes" if files differ from it.

    None for a release, which is a commit with the tag "v" and the version, and where nothing is known. A checkout asks
    git; the build wrote the answer into the file ``commit``.
    """
    package = os.path.dirname(os.path.abspath(__file__))
    try:
        with open(os.path.join(package, "commit"), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        pass
    root = os.path.dirname(package)
    if not os.path.lexists(os.path.join(root, ".git")):  # else git would answer for a repository around it
        return None
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or (not changes and f"v{VERSION}" in (_git(root, "tag", "--points-at") or "").split()):
        return None
    return f"{commit} with changes" if changes else commit


def _git(root: str, *words: str) -> str | None:
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", root, *words],  # noqa: S607 - the git of the developer's PATH
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def load_ipython_extension(shell: object) -> None:
    """Add ``%taoprof`` to an IPython shell; ``%load_ext taoprofiles`` calls this."""
    from importlib import import_module

    import_module("taoprofiles.jupyter.extension").load(shell)


def unload_ipython_extension(shell: object) -> None:
    """Remove ``%taoprof`` again; ``%unload_ext taoprofiles`` calls this."""
    from importlib import import_module

    import_module("taoprofiles.jupyter.extension").unload(shell)
