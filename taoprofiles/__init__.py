"""Named mount profiles for the NVIDIA TAO launcher.

``taoprofiles.use("detectnet_v2")`` switches ``~/.tao_mounts.json`` as ``taoprof use`` does; it raises subclasses of
``TaoprofError`` and prints nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taoprofiles.api import current, use
    from taoprofiles.errors import (
        BusyError,
        InvalidProfileError,
        InvalidStateError,
        NotFoundError,
        TaoprofError,
        UsageError,
    )

__all__ = [
    "BusyError",
    "InvalidProfileError",
    "InvalidStateError",
    "NotFoundError",
    "TaoprofError",
    "UsageError",
    "current",
    "use",
]


def __getattr__(name: str) -> object:
    # Importing the package must cost nothing: `taoprof current` runs at every shell prompt.
    if name not in __all__:
        raise AttributeError(f"module 'taoprofiles' has no attribute '{name}'")
    from importlib import import_module

    module = "errors" if name.endswith("Error") else "api"
    return getattr(import_module(f"taoprofiles.{module}"), name)
