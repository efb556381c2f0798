"""Named mount profiles for the NVIDIA TAO launcher.

``taoprofiles.use("detectnet_v2")`` uses a profile in this process, ``taoprofiles.run(…)`` runs a command with one, and
``taoprofiles.switch(…)`` switches ``~/.tao_mounts.json``. They raise subclasses of ``TaoprofError`` and print nothing.
In IPython, ``%load_ext taoprofiles`` provides ``%taoprof``.
"""

from __future__ import annotations

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


def load_ipython_extension(shell: object) -> None:
    """Add ``%taoprof`` to an IPython shell; ``%load_ext taoprofiles`` calls this."""
    from taoprofiles.jupyter.extension import load

    load(shell)


def unload_ipython_extension(shell: object) -> None:
    """Remove ``%taoprof`` again; ``%unload_ext taoprofiles`` calls this."""
    from taoprofiles.jupyter.extension import unload

    unload(shell)
