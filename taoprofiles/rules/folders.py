"""Whether the container's user may use the folders, and what their file systems are like for Docker."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from taoprofiles.rules.finding import Finding
from taoprofiles.storage.paths import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    class Folder(Protocol):
        """What is known of a folder: see ``world.places.Folder``."""

        path: str
        real: str
        uid: int
        gid: int
        mode: int

        def may(self, uid: int, gid: int, bits: int) -> bool:
            """Whether that user may do what ``bits`` says."""


_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs")
_WINDOWS = ("9p", "drvfs")


def user_ids(user: object, uid: int, gid: int) -> tuple[int, int] | None:
    """Give the ids that the container works with, by the option ``user``; None for a name that only the image knows."""
    if user in (None, "", "root", "0", 0):
        return 0, 0
    first, _, second = str(user).partition(":")
    if not first.isdigit():
        return None
    return int(first), int(second) if second.isdigit() else (gid if int(first) == uid else 0)


def sources(
    listed: Sequence[tuple[str, Folder, str]], ids: tuple[int, int] | None, *, home: str, snap: bool
) -> Iterator[Finding]:
    """Judge the sources: (where, the folder, the type of its file system); ``snap``: Docker is a snap package.

    ``ids`` are the container's user and group, None where only the image knows them.
    """
    for where, folder, kind in listed:
        if ids is not None and not folder.may(*ids, 5):
            yield Finding(
                "src-of-another-user", where, f"'{folder.path}' belongs to user {folder.uid}, mode {folder.mode:o}",
                f"the container's user {ids[0]}:{ids[1]} may not look into it",
                f"chmod o+rx {shlex.quote(folder.path)}, by its owner",
            )  # fmt: skip
        yield from _file_system(where, folder, kind, ids)
        inside = folder.real[len(home) :] if is_inside(folder.real, home) else None
        if snap and (inside is None or "/." in inside):
            what = "is in a hidden folder" if inside is not None else "is outside of your home"
            why = "Docker's snap package sees neither: the container gets an empty folder"
            yield Finding(
                "snap-docker", where, f"'{folder.path}' {what}", why, "apt install docker.io, or move the folder"
            )


def _file_system(where: str, folder: Folder, kind: str, ids: tuple[int, int] | None) -> Iterator[Finding]:
    if kind in _NETWORK:
        if ids is None or ids[0] == 0 or not folder.mode & 0o005:
            why = "where the server maps root to nobody (root_squash), Docker is refused: permission denied"
            hint = "let the container work as you (taoprof set NAME docker.user=auto), and: chmod o+rx on the way there"
            yield Finding("nfs-root-squash", where, f"'{folder.path}' is on {kind}", why, hint)
    elif kind in _WINDOWS:
        why = "Windows' disks are slow from Linux, and know no owner: training waits for its data"
        hint = "copy the data to this Linux's own disk, such as ~/data"
        yield Finding("slow-file-system", where, f"'{folder.path}' is on a disk of Windows ({kind})", why, hint)
    elif kind.startswith("fuse"):
        why = "Docker works as root, and a FUSE mount shows itself to its owner only: the container gets an error"
        hint = "mount it with -o allow_other (user_allow_other in /etc/fuse.conf)"
        yield Finding("fuse-mount", where, f"'{folder.path}' is on {kind}", why, hint)


def results(listed: Sequence[tuple[str, str, Folder]], ids: tuple[int, int] | None) -> Iterator[Finding]:
    """Judge the folders into which results go: (where, the path, the nearest folder above that is there)."""
    for where, path, folder in listed:
        if ids is not None and not folder.may(*ids, 3):
            whose = "root" if folder.uid == 0 else f"user {folder.uid}"
            yield Finding(
                "results-not-writable-as-user", where,
                f"results go to '{path}', and '{folder.path}' belongs to {whose}",
                f"user {ids[0]}:{ids[1]} cannot write there: PermissionError: [Errno 13] Permission denied",
                f"sudo chown -R {ids[0]}:{ids[1]} {shlex.quote(folder.path)}",
            )  # fmt: skip


def owned(where: str, folder: str, found: tuple[int, str, bool], ids: tuple[int, int]) -> Iterator[Finding]:
    """Judge what belongs to somebody else in a results folder: (count, the first one, whether all was looked at)."""
    count, first, complete = found
    if count:
        number = str(count) if complete else f"at least {count}"
        yield Finding(
            "foreign-owned-files", where, f"{number} entries in '{folder}' are not user {ids[0]}'s, such as '{first}'",
            "an earlier run worked as another user; overwriting or deleting them fails: Permission denied",
            f"sudo chown -R {ids[0]}:{ids[1]} {shlex.quote(folder)}",
        )  # fmt: skip
