"""A note of what the last switch left, so that ``taoprof current`` can answer a shell prompt by comparing bytes.

The note says: if the journal, the profile and the mapping file are still these very bytes, and the home and the user
are the same, then this profile is active. Anything else, and the question is worked out anew. Only a profile that asks
nothing of the environment gets a note. It is kept without JSON, whose import would cost as much as the whole answer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.storage import best_effort

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

_FORMAT = b"1"


def write(context: Context, name: str, *, profile_path: str, profile: bytes, mapping: bytes) -> None:
    """Leave the note. Needs the lock."""
    fields = [name.encode(), os.fsencode(profile_path), profile, mapping]
    try:
        fields = [_FORMAT, _around(context), *fields]
    except OSError:
        return  # no note, and ``current`` works it out
    if sum(field.count(b"\0") for field in fields) == 0:
        best_effort.write(_path(context), b"\0".join(fields))


def forget(context: Context) -> None:
    """Take the note away. Needs the lock."""
    best_effort.unlink_quietly(_path(context))


def active(context: Context) -> str | None:
    """Name the active profile if the note still holds, else None."""
    try:
        with open(_path(context), "rb") as note:
            kind, around, name, profile_path, profile, mapping = note.read().split(b"\0")
        if kind != _FORMAT or around != _around(context):
            return None
        for path, content in ((os.fsdecode(profile_path), profile), (context.mapping_file, mapping)):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if os.read(fd, len(content) + 1) != content:
                    return None
            finally:
                os.close(fd)
        return name.decode()
    except (OSError, ValueError):
        return None


def _path(context: Context) -> str:
    return os.path.join(context.cache, "glance")


def _around(context: Context) -> bytes:
    # The journal only grows, so its size tells whether anything was recorded since.
    size = os.stat(context.history).st_size
    return os.fsencode(f"{context.home}:{context.uid}:{context.gid}:{context.profiles}:{size}")
