"""A position in the launcher's input, and a mount with its paths as the launcher resolves them on this host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from taoprofiles.launcher.host import Host

ENTRY_KEYS = {"Mounts": ("source", "destination"), "Envs": ("variable", "value")}
"""By list of the mounts file: the keys that each entry needs. The launcher reads no others."""


class Location(NamedTuple):
    """A position in the launcher's input, such as ``Mounts[1].source``.

    ``section`` is Mounts, Envs or DockerOptions of the mounts file, ``--volume`` (of the command), ``command``,
    ``environ`` (``key`` is the variable), ``file`` (the mounts file as a whole), ``login`` or ``config``;
    ``number`` counts from 0.
    """

    section: str
    number: int | None = None
    key: str = ""

    def __str__(self) -> str:
        number = "" if self.number is None else f"[{self.number}]"
        return f"{self.section}{number}" + (f".{self.key}" if self.key else "")


class ResolvedMount(NamedTuple):
    """A mount that the launcher understands: ``entry`` is as written; the paths are resolved on this host."""

    location: Location
    source: str
    destination: str
    entry: Mapping[str, Any]


def resolve(mapping: Mapping[str, Any], host: Host) -> list[ResolvedMount]:
    """Return the mounts of a mapping that a profile renders, all of which are well formed."""
    return [
        ResolvedMount(
            Location("Mounts", number), host.realpath(entry["source"]), host.realpath(entry["destination"]), entry
        )
        for number, entry in enumerate(mapping["Mounts"])
    ]


def missing_source(path: str) -> str:
    """Return what the launcher says about a source that does not exist."""
    return f"Mount point source path doesn't exist. {path}"
