"""NVIDIA's TAO images: which names are theirs, and what their tags tell.

Sources: versions.yaml of NVIDIA's skill bank (7.1.0), config.json of nvidia-tao 6.26.3, the Dockerfiles of the three
repositories. The variable TAO_TOOLKIT_VERSION in the images does not tell the version: in 7.0.1 it is 6.25.10.
"""

from __future__ import annotations

import re

_NAMES = ("nvidia/tao/", "nvidia/tlt", "nvstaging/tao/")
_TAG = r":(\d+)\.(\d+)\.(\d+)-([a-z][a-z0-9.-]*)\Z"

_WITH_FILES = frozenset(("/workspace", "/opt", "/opt/nvidia"))
"""Folders of the images: libraries are in /workspace too (tao-skill-bank 4ff3719), TAO itself in /opt/nvidia."""


def find_hidden(destination: str) -> str:
    """Return what a mount at ``destination`` hides of NVIDIA's images, as a sentence; "" if nothing."""
    if destination not in _WITH_FILES:
        return ""
    return f"'{destination}' of TAO's images has files of NVIDIA, and this mount hides them"


def is_tao_image(image: str) -> bool:
    """Check whether an image is one of NVIDIA's TAO images, by its name."""
    return any(name in image for name in _NAMES)


def find_tag(image: str) -> tuple[tuple[int, int, int], str] | None:
    """Return the release and the kind that the tag of a TAO image has, as in ``7.1.0-pyt``; None for any other image.

    The kind is pyt, deploy, data-services, tf2 and the like.
    """
    match = re.search(_TAG, image) if is_tao_image(image) or "tao-toolkit" in image else None
    return None if match is None else ((int(match[1]), int(match[2]), int(match[3])), match[4])
