"""Rules for mounts: what the launcher refuses or alters, Docker's own refusals, and the state of the folders.

Sources: ``formatted_mounts`` in docker_handler.py of nvidia-tao 6.26.3; the volume rules of ``docker run``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from taoprofiles.launcher.host import Host
from taoprofiles.launcher.mounts import Mount, get_volumes, take_sections
from taoprofiles.launcher.prediction import Change, Refusal, StartLog
from taoprofiles.rules.finding import Finding, error, info, quoted, warning
from taoprofiles.rules.locations import Locator
from taoprofiles.storage.paths import is_inside
from taoprofiles.system.filesystem import PathInfo, is_wsl

# Not compiled here: 'use' seldom needs it, and starts faster without it.
_PLACEHOLDER = r"(?i)FIXME|CHANGE_?ME|TODO|YOUR[_-]|/path/to\b|<[^/>]+>"


def placeholder(text: str) -> str:
    """Return the part of a text that is a placeholder (FIXME, /path/to, YOUR_…), or ""."""
    match = re.search(_PLACEHOLDER, text)
    return match.group() if match else ""


def check_mapping(mapping: dict[str, Any], locate: Locator, host: Host) -> Iterator[Finding]:
    """Check the mounts of a mapping that a profile renders, without simulating the rest of a start."""
    log = StartLog()
    mounts = take_sections({"Mounts": mapping["Mounts"]}, host, log).mounts
    get_volumes(mounts, host, log)
    return check(mounts, log.refusals, log.changes, locate, host, is_rendered=True)


def check(
    mounts: Sequence[Mount],
    refusals: Sequence[Refusal],
    changes: Sequence[Change],
    locate: Locator,
    host: Host,
    *,
    is_rendered: bool,
) -> Iterator[Finding]:
    """Check the mounts that the launcher understands; ``refusals`` and ``changes`` are those of the simulated start.

    ``is_rendered``: they come from a profile, whose variables are replaced: a remaining ``$`` is part of a name.
    """
    refused = {refusal.location.number: refusal for refusal in refusals if refusal.location.section == "Mounts"}
    for mount in mounts:
        yield from _check_source(mount, refused.get(mount.location.number), locate, host, is_rendered=is_rendered)
        yield from _check_destination(mount, locate)
    yield from _check_changes(mounts, changes, locate)
    yield from _check_duplicate_destinations(mounts, locate)
    yield from _check_nested(mounts, set(refused), locate)


def _check_source(
    mount: Mount, refusal: Refusal | None, locate: Locator, host: Host, *, is_rendered: bool
) -> Iterator[Finding]:
    written = str(mount.entry["source"])
    where = locate(mount.location._replace(key="source"))
    stops = f"the launcher stops: {refusal}" if refusal else ""
    if written[:1].isalpha() and written[1:3] in (":\\", ":/"):
        hint = "write the Linux path of the folder, such as /data"
        if is_wsl():
            linux_path = f"/mnt/{written[0].lower()}/" + written[3:].replace("\\", "/")
            hint = f"in WSL that folder is '{linux_path}'"
        yield error("src-windows-path", where, f"'{written}' is a Windows path", stops, hint, by_hand=True)
        return
    if not written.startswith(("/", "~")):
        why = f"from here it is '{mount.source}'"
        what = f"'{written}' depends on the folder in which tao is started"
        yield warning("src-relative", where, what, why, f"write the whole path: {mount.source}", by_hand=True)
    if ":" in mount.source:
        yield _colon(where, mount.source)
    if refusal is None:
        return
    path = os.path.join(host.folder, host.expanduser(written))
    problem = PathInfo(path).problem
    left = placeholder(written)
    if problem and problem != "missing":
        # The launcher says that it does not exist, which is misleading.
        yield error("src-unseen", where, f"'{path}' cannot be read: {problem}", stops)
    elif left:
        what, hint = f"'{written}' still contains '{left}'", "write the real path of the folder"
        yield error("src-placeholder", where, what, stops, hint, by_hand=True)
    elif "$" in written and not is_rendered:
        hint = "write the path itself: the launcher expands a leading ~, but no variable"
        what = f"'{written}' contains a '$', and there is no such folder"
        yield error("src-unexpanded-var", where, what, stops, hint, by_hand=True)
    else:
        what, hint = f"folder '{path}' does not exist", f"mkdir -p {quoted(path)}"
        yield error("src-missing", where, what, stops, hint, fix=("mkdir", path))


def _check_destination(mount: Mount, locate: Locator) -> Iterator[Finding]:
    written, real = str(mount.entry["destination"]), mount.destination
    where = locate(mount.location._replace(key="destination"))
    if not written.startswith("/"):
        kind = "is a path in the host's home" if written.startswith("~") else "is not absolute"
        yield error(
            "dst-relative", where, f"'{written}' {kind}",
            f"the launcher resolves it on this host, and would mount at '{real}'",
            "write the path in the container, such as /data", by_hand=True,
        )  # fmt: skip
    elif not real.strip("/"):
        what = f"'{written}' is the root folder of the container"
        yield error("dst-root", where, what, "Docker refuses to mount there", by_hand=True)
    if ":" in real:
        yield _colon(where, real)


def _colon(where: str, path: str) -> Finding:
    why = "Docker gets source:destination:mode, and takes the ':' for the end of the path"
    return error("src-colon", where, f"'{path}' contains a ':'", why, "rename the folder without ':'", by_hand=True)


def _check_changes(mounts: Sequence[Mount], changes: Sequence[Change], locate: Locator) -> Iterator[Finding]:
    by_name = {str(mount.location): mount for mount in mounts}
    for kind, location, was, now in changes:
        mount = by_name.get(str(location._replace(key="")))
        if kind == "dropped-same-source" and mount is not None:
            last = by_name.get(now, mount)
            if last is not mount and last.destination == mount.destination:
                continue
            yield error(
                "src-duplicate", locate(last.location._replace(key="source")),
                f"'{last.entry['source']}' is the same folder as the source of {location._replace(key='')}",
                f"the launcher keeps only one mount of a folder, the last: nothing would be mounted at '{was}'",
                "mount a parent folder once, or give one of the two its own folder", by_hand=True,
            )  # fmt: skip
        elif kind == "moved-destination" and was.startswith("/") and now.strip("/"):
            if os.path.normpath(was).lstrip("/") == now.lstrip("/"):
                continue  # //data
            yield error(
                "dst-symlinked-on-host", locate(location), f"'{was}' is '{now}' on this host",
                f"the launcher resolves symlinks on the host and would mount at '{now}': nothing would be at '{was}'",
                "choose a name that is no symlink on this host, such as /workspace/data", by_hand=True,
            )  # fmt: skip


def _check_duplicate_destinations(mounts: Sequence[Mount], locate: Locator) -> Iterator[Finding]:
    first: dict[str, Mount] = {}
    for mount in mounts:
        other = first.setdefault(mount.destination, mount)
        if other.source != mount.source:
            yield error(
                "dst-duplicate", locate(mount.location._replace(key="destination")),
                f"'{mount.entry['destination']}' is already the destination of {other.location}",
                "Docker refuses two mounts at one place: Duplicate mount point",
                "give one of the two another destination", by_hand=True,
            )  # fmt: skip


def _check_nested(mounts: Sequence[Mount], refused: set[int | None], locate: Locator) -> Iterator[Finding]:
    """Check mounts inside others: what they hide, or which folder Docker would create on the host for them."""
    for inner in mounts:
        at = inner.destination
        outside = [mount for mount in mounts if at != mount.destination and is_inside(at, mount.destination)]
        if not outside:
            continue
        outer = max(outside, key=lambda mount: len(mount.destination))
        point = os.path.join(outer.source, os.path.relpath(at, outer.destination))
        where = locate(inner.location._replace(key="destination"))
        if outer.location.number in refused or os.path.realpath(point) == inner.source:
            continue
        if not os.path.lexists(point):
            what = f"'{at}' is inside the mount at '{outer.destination}', and '{point}' does not exist"
            why = "Docker creates it on this host as root: then you cannot write there"
            yield warning("dst-makes-folder", where, what, why, f"mkdir -p {quoted(point)}", fix=("mkdir", point))
        elif os.path.isdir(point) and _has_entries(point):
            yield info("dst-shadow", where, f"'{at}' hides the content of '{point}' in the container")


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
