"""The folders of a mapping on this host: what is missing, and what the launcher would make of the rest."""

from __future__ import annotations

import os

from taoprofiles.errors import InvalidProfileError
from taoprofiles.state.refusals import unusable
from taoprofiles.values.template import not_valid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def missing(mapping: dict[str, Any], *, name: str, path: str, mkdir: bool) -> list[str]:
    """List the source folders that are not there; ``name`` and ``path`` are the profile's, for the message.

    Raises InvalidProfileError with all of them unless ``mkdir``, and for mounts that the launcher would silently drop
    or move: it resolves both sides on the host and keeps one mount of a source (formatted_mounts in docker_handler.py
    of nvidia-tao 6.26.3).
    """
    absent: list[str] = []
    absences: list[str] = []
    faults: list[str] = []
    real: dict[str, int] = {}
    for number, mount in enumerate(mapping["Mounts"]):
        where, source, destination = f"mounts[{number}]", mount["source"], os.path.normpath(mount["destination"])
        same = real.setdefault(os.path.realpath(source), number)
        if same != number:
            faults.append(
                f"{where}.source: '{source}' is the same folder as the source of mounts[{same}], and the launcher "
                "keeps only one mount of a folder"
            )
        moved = os.path.realpath(destination)
        if moved != destination:
            faults.append(
                f"{where}.destination: '{destination}' leads to '{moved}' on this host, and the launcher would mount "
                "there: choose a name that is no symlink here"
            )
        try:
            os.stat(source)
        except (FileNotFoundError, NotADirectoryError):
            absent.append(source)
            absences.append(f"{where}.source: folder '{source}' does not exist")
        except OSError as error:  # the launcher would say that it does not exist, which leads astray
            faults.append(f"{where}.source: '{source}' cannot be seen: {(error.strerror or '').lower()}")
    if faults:
        raise not_valid(name, path, faults + ([] if mkdir else absences))
    if absent and not mkdir:
        count = "1 of its folders is" if len(absent) == 1 else f"{len(absent)} of its folders are"
        raise InvalidProfileError(
            f"'{name}' not activated: {count} missing",
            problems=absences,
            hint=f"nothing was changed; 'taoprof use {name} --mkdir' makes them",
        )
    return absent


def make(folders: list[str]) -> None:
    """Make the person's own folders, with the rights that their umask gives. Raises TaoprofError."""
    for folder in folders:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise unusable(folder, "make the folder", error) from error
