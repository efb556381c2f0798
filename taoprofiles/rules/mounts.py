"""What the launcher and Docker will make of the mounts: formatted_mounts in docker_handler.py of nvidia-tao 6.26.3."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from taoprofiles.rules.finding import Finding
from taoprofiles.storage.paths import is_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    from taoprofiles.rules.locations import Where

    class Source(Protocol):
        """What is known of a folder of this host: see ``world.places.Folder``."""

        path: str
        real: str
        problem: str

    Mount = tuple[Source, str, str]
    """The source; the destination as it is written; and where that name leads on this host."""

# Not compiled here: 'use' has no time, and seldom needs it.
_PLACEHOLDER = r"(?i)FIXME|CHANGE_?ME|TODO|YOUR[_-]|/path/to\b|<[^/>]+>"


def placeholder(text: str) -> str:
    """Give the part of a text that somebody was to fill in (FIXME, /path/to, YOUR_…), "" for none."""
    found = re.search(_PLACEHOLDER, text)
    return found.group() if found else ""


def judge(
    mounts: Sequence[Mount], where: Where, *, written: Sequence[dict[str, Any]], wsl: Callable[[], bool], expanded: bool
) -> Iterator[Finding]:
    """Find what is wrong with the mounts, in their order; ``written`` is how each stands in the mapping.

    ``expanded``: they come of a profile, whose variables have been put in: a ``$`` that is left is one.
    """
    sources: dict[str, int] = {}
    places: dict[str, int] = {}
    for number, (source, destination, leads) in enumerate(mounts):
        at_source, at_place = where("Mounts", number, "source"), where("Mounts", number, "destination")
        yield from _source(source, str(written[number]["source"]), at_source, wsl=wsl, expanded=expanded)
        first = sources.setdefault(source.real, number)
        if first != number and mounts[first][2] != leads:
            lost = mounts[first][1]
            yield Finding(
                "src-duplicate", at_source, f"'{source.path}' is the same folder as the source of mount {first}",
                f"the launcher keeps only one mount of a folder, the last: nothing would be on '{lost}'",
                "mount a folder above it once, or give one of the two a folder of its own",
            )  # fmt: skip
        yield from _destination(destination, leads, at_place)
        first = places.setdefault(leads, number)
        if first != number and mounts[first][0].real != source.real:
            yield Finding(
                "dst-duplicate", at_place, f"'{destination}' is already the destination of mount {first}",
                "Docker refuses two mounts on one place: Duplicate mount point",
                "give one of the two another destination",
            )  # fmt: skip
    yield from _nested(mounts, where)


def _source(source: Source, written: str, where: str, *, wsl: Callable[[], bool], expanded: bool) -> Iterator[Finding]:
    refusal = f"the launcher would stop: Mount point source path doesn't exist. {source.real}"
    if written[:1].isalpha() and written[1:3] in (":\\", ":/"):
        linux = f"/mnt/{written[0].lower()}/" + written[3:].replace("\\", "/")
        hint = "write the folder as this machine names it, such as /data"
        hint = f"in WSL that folder is '{linux}'" if wsl() else hint
        yield Finding("src-windows-path", where, f"'{written}' is a path of Windows", refusal, hint)
        return
    if not written.startswith(("/", "~")):
        yield Finding(
            "src-relative", where, f"'{written}' depends on the folder that tao is started in",
            f"from here it is '{source.real}'", f"write it out: {source.real}",
        )  # fmt: skip
    if ":" in source.real:
        yield _colon(where, source.real)
    if source.problem == "missing":
        left = placeholder(written)
        if left:
            hint = "put the folder's own path there"
            yield Finding("src-placeholder", where, f"'{written}' still has '{left}' in it", refusal, hint)
        elif "$" in written and not expanded:
            hint = "write the path out: the launcher expands a leading ~ and no variable"
            yield Finding("src-unexpanded-var", where, f"'{written}' has a '$', and is no folder", refusal, hint)
        else:
            make = ("mkdir", source.path)
            hint = f"mkdir -p {_quoted(source.path)}"
            what = f"folder '{source.path}' does not exist"
            yield Finding("src-missing", where, what, refusal, hint, fix=make)
    elif source.problem:
        # The launcher would say that it does not exist, which leads astray.
        yield Finding("src-unseen", where, f"'{source.path}' cannot be seen: {source.problem}", refusal)


def _quoted(path: str) -> str:
    import shlex  # not for 'use', which has no time

    return shlex.quote(path)


def _destination(destination: str, leads: str, where: str) -> Iterator[Finding]:
    plain = os.path.normpath(destination)
    if not destination.startswith("/"):
        kind = "is a path of the host's home" if destination.startswith("~") else "is not absolute"
        yield Finding(
            "dst-relative", where, f"'{destination}' {kind}",
            f"the launcher works it out on this host, and would mount on '{leads}'",
            "write the path as the container is to see it, such as /data",
        )  # fmt: skip
    elif leads.lstrip("/") == "":
        yield Finding("dst-root", where, f"'{destination}' is the container's root", "Docker refuses to mount there")
    elif leads.lstrip("/") != plain.lstrip("/"):
        yield Finding(
            "dst-symlinked-on-host", where, f"'{destination}' leads to '{leads}' on this host",
            f"the launcher resolves the name here and would mount on '{leads}': nothing would be on '{destination}'",
            "choose a name that is no symlink on this host, such as /workspace/data",
        )  # fmt: skip
    if ":" in leads:
        yield _colon(where, leads)


def _colon(where: str, path: str) -> Finding:
    why = "Docker is given source:destination:mode, and takes the ':' for the end of the path"
    return Finding("src-colon", where, f"'{path}' has a ':'", why, "give the folder a name without ':'")


def _nested(mounts: Sequence[Mount], where: Where) -> Iterator[Finding]:
    """Find mounts inside of others: what they hide, or what Docker would make on the host for them."""
    for number, (inner, _, place) in enumerate(mounts):
        around = [one for one in mounts if place != one[2] and is_inside(place, one[2])]
        if not around:
            continue
        outer, _, above = max(around, key=lambda one: len(one[2]))
        point = os.path.join(outer.real, os.path.relpath(place, above))
        at = where("Mounts", number, "destination")
        if outer.problem or os.path.realpath(point) == inner.real:
            continue
        if not os.path.lexists(point):
            yield Finding(
                "dst-makes-folder", at, f"'{place}' is inside the mount on '{above}', and '{point}' does not exist",
                "Docker makes it on this host, as root: then you cannot write there",
                f"mkdir -p {_quoted(point)}", fix=("mkdir", point),
            )  # fmt: skip
        elif os.path.isdir(point) and _holds_something(point):
            yield Finding("dst-shadow", at, f"'{place}' hides what is in '{point}' from the container")


def _holds_something(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
