"""Rules for mounts: what the launcher refuses or alters, Docker's own refusals, and the state of the folders.

Sources: ``formatted_mounts`` in docker_handler.py of nvidia-tao 6.26.3; the volume rules of ``docker run``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from taoprofiles.launcher.host import Host, Location, ResolvedMount, missing_source
from taoprofiles.launcher.versions import find_hidden
from taoprofiles.profiles.rendering import find_placeholder, is_windows_path
from taoprofiles.rules.finding import INFO, Finding, Locator, error, quoted, warning
from taoprofiles.system.filesystem import PathInfo, creation_problem, is_wsl, nearest_existing


def check(mounts: Sequence[ResolvedMount], locate: Locator, host: Host) -> Iterator[Finding]:
    """Check the mounts that the launcher understands, those of ``--volume`` at the end."""
    missing = {mount.location for mount in mounts if not host.exists(mount.source)}
    for mount in mounts:
        if mount.location.section == "Mounts":
            yield from _check_source(mount, locate, host, missing=mount.location in missing)
        elif mount.location in missing:
            yield _missing_volume(mount, host)
        yield from _check_destination(mount, locate)
    yield from _check_same_source(mounts, locate)
    yield from _check_same_destination({mount.source: mount for mount in mounts}.values(), locate)
    yield from _check_nested(mounts, missing, locate)


def check_direct(
    mounts: Sequence[ResolvedMount], locate: Locator, host: Host, created: Collection[Location]
) -> Iterator[Finding]:
    """Check the mounts of a container that is started without the launcher; its paths are used as they are written.

    ``created`` are the mounts whose source the engine creates if it does not exist: those of ``docker run --volume``.
    """
    missing = {mount.location for mount in mounts if not host.exists(mount.source)}
    for mount in mounts:
        stops = "Docker stops: bind source path does not exist"
        if mount.location in created:
            stops = "Docker creates it, empty and as root: the task finds no data there, and you cannot write to it"
        yield from _check_source(mount, locate, host, missing=mount.location in missing, stops=stops)
        if not mount.destination.startswith("/") or not mount.destination.strip("/"):
            what = f"'{mount.destination}' is not an absolute path below '/'"
            where = locate(mount.location._replace(key="destination"))
            yield error("dst-relative", where, what, "Docker refuses it: invalid mount path", by_hand=True)
    first: dict[str, ResolvedMount] = {}
    for mount in mounts:
        before = first.setdefault(mount.source, mount)
        if before.destination != mount.destination:
            what = f"'{mount.source}' is also mounted at '{before.destination}'"
            why = "Docker mounts both; the launcher and NVIDIA's TAO SDK keep only one mount of a folder, the last"
            hint = "mount a parent folder once, or give one of the two its own folder"
            yield warning("src-duplicate", locate(mount.location._replace(key="source")), what, why, hint)
    yield from _check_same_destination(mounts, locate)
    yield from _check_nested(mounts, missing, locate)


def _check_source(
    mount: ResolvedMount, locate: Locator, host: Host, *, missing: bool, stops: str = ""
) -> Iterator[Finding]:
    """Check the source of a mount; ``stops`` is what happens if it does not exist."""
    written = str(mount.entry["source"])
    stops = stops or f"the launcher stops: ValueError: {missing_source(mount.source)}"
    where = locate(mount.location._replace(key="source"))
    if is_windows_path(written):
        hint = "write the Linux path of the folder, such as /data"
        if is_wsl():
            linux_path = f"/mnt/{written[0].lower()}/" + written[3:].replace("\\", "/")
            hint = f"in WSL that folder is '{linux_path}'"
        yield error("src-missing", where, f"'{written}' is a Windows path", stops, hint, by_hand=True)
        return
    if not written.startswith(("/", "~")):
        why = f"from here it is '{mount.source}'"
        what = f"'{written}' depends on the folder in which the command is started"
        yield warning("src-relative", where, what, why, f"write the whole path: {mount.source}", by_hand=True)
    if ":" in mount.source:
        yield _colon(where, mount.source)
    if missing:
        yield _missing_source(written, where, host, stops)


def _missing_volume(mount: ResolvedMount, host: Host) -> Finding:
    written, what = str(mount.entry["source"]), f"folder '{mount.source}' does not exist"
    hint = f"mkdir -p {quoted(mount.source)}"
    if written.startswith("~"):
        what = f"the launcher does not expand the '~' of '{written}'"
        hint = f"--volume {quoted(host.expanduser(written))}:{quoted(str(mount.entry['destination']))}"
    return warning("volume-argument", "--volume", what, f"Docker creates '{mount.source}' as root", hint)


def _missing_source(written: str, where: str, host: Host, stops: str) -> Finding:
    path = os.path.join(host.folder, host.expanduser(written))
    problem, left = PathInfo(path).problem, find_placeholder(written)
    if problem and problem != "missing":
        # The launcher says that it does not exist, which is misleading.
        return error("src-missing", where, f"'{path}' cannot be read: {problem}", stops)
    if left:
        what, hint = f"'{written}' still contains '{left}'", "write the real path of the folder"
        return error("placeholder", where, what, stops, hint, by_hand=True)
    missing = path.removeprefix(nearest_existing(path).path)  # a folder that exists may have such a name
    unexpanded, comment = re.search(r"\$\w+|\$\{[^}]*\}", missing), re.search(r"\s#.*", missing)
    if unexpanded:
        hint = "write the path itself; in a profile, ${env:NAME} is a variable of your environment"
        what = f"nothing expands '{unexpanded[0]}' in '{written}'"
        return error("src-missing", where, what, stops, hint, by_hand=True)
    if comment:
        what, hint = f"'{written}' ends with a comment", "remove it: '%env NAME=value # …' makes it part of the value"
        return error("src-missing", where, what, stops, hint, by_hand=True)
    what, hint = f"folder '{path}' does not exist", f"mkdir -p {quoted(path)}"
    if reason := creation_problem(path):
        return error("src-missing", where, f"{what}, and {reason}", stops, "use a folder of this machine", by_hand=True)
    return error("src-missing", where, what, stops, hint, fix=("mkdir", path))


def _check_destination(mount: ResolvedMount, locate: Locator) -> Iterator[Finding]:
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
        yield error("dst-relative", where, what, "Docker refuses to mount there", by_hand=True)
    elif os.path.normpath(written).lstrip("/") != real.lstrip("/"):
        yield error(
            "dst-symlinked-on-host", where, f"'{written}' is '{real}' on this host",
            f"the launcher resolves symlinks on the host and would mount at '{real}': nothing would be at '{written}'",
            "choose a destination that is not a symlink on this host, such as /workspace/data", by_hand=True,
        )  # fmt: skip
    else:
        yield from check_hiding(real, where)
    if ":" in real:
        yield _colon(where, real)


def check_hiding(destination: str, where: str) -> Iterator[Finding]:
    """Check whether a mount hides files of NVIDIA's images."""
    if what := find_hidden(destination):
        hint = f"mount it below, such as at {destination}/specs"
        yield warning("dst-hides-image", where, what, "a task that needs them fails", hint, by_hand=True)


def _colon(where: str, path: str) -> Finding:
    why = "Docker splits source:destination:mode at the ':' in the path"
    return error("src-colon", where, f"'{path}' contains a ':'", why, "rename the folder without ':'", by_hand=True)


def _check_same_source(mounts: Sequence[ResolvedMount], locate: Locator) -> Iterator[Finding]:
    """Check for a mount that the launcher drops: it keeps only one of each source, the last."""
    last: dict[str, ResolvedMount] = {}
    for mount in mounts:
        dropped = last.get(mount.source, mount)
        last[mount.source] = mount
        if dropped.destination != mount.destination:
            yield error(
                "src-duplicate", locate(mount.location._replace(key="source")),
                f"'{mount.entry['source']}' is the same folder as the source of {dropped.location}",
                "the launcher keeps only one mount of a folder, the last: nothing would be mounted at "
                f"'{dropped.destination}'",
                "mount a parent folder once, or give one of the two its own folder", by_hand=True,
            )  # fmt: skip


def _check_same_destination(mounts: Iterable[ResolvedMount], locate: Locator) -> Iterator[Finding]:
    why = "Docker refuses two mounts at one place: Duplicate mount point"
    first: dict[str, ResolvedMount] = {}
    for mount in mounts:
        other = first.setdefault(mount.destination, mount)
        if other is not mount:
            where = locate(mount.location._replace(key="destination"))
            name = other.location if other.location.section == "Mounts" else "another mount"
            what = f"'{mount.entry['destination']}' is already the destination of {name}"
            yield error("dst-duplicate", where, what, why, "give one of the two another destination", by_hand=True)


def by_destination(mounts: Sequence[ResolvedMount]) -> dict[str, ResolvedMount]:
    """Return the mounts by their place in the container; the first of several at one place."""
    return {mount.destination: mount for mount in reversed(mounts)}


def find_outer(inner: ResolvedMount, mounts: Mapping[str, ResolvedMount]) -> ResolvedMount | None:
    """Return the innermost of ``mounts``, whose sources exist, that has the mount point of ``inner``, or None.

    ``mounts`` are those of ``by_destination``.
    """
    folder, above = inner.destination, os.path.dirname(inner.destination)
    while above != folder:
        if above in mounts:
            return mounts[above]
        folder, above = above, os.path.dirname(above)
    return None if inner.destination == "/" else mounts.get("/")


def _check_nested(mounts: Sequence[ResolvedMount], missing: Collection[Location], locate: Locator) -> Iterator[Finding]:
    """Check each mount inside another: what it hides, or which folder Docker would create on the host for it.

    ``missing`` are the mounts whose source does not exist.
    """
    existing = by_destination([mount for mount in mounts if mount.location not in missing])
    for inner in mounts:
        at, outer = inner.destination, find_outer(inner, existing)
        if outer is None:
            continue
        point = os.path.join(outer.source, os.path.relpath(at, outer.destination))
        where = locate(inner.location._replace(key="destination"))
        if os.path.realpath(point) == os.path.realpath(inner.source):
            continue
        if not os.path.lexists(point):
            what = f"'{at}' is inside the mount at '{outer.destination}', and '{point}' does not exist"
            why = "Docker creates it on this host as root: then you cannot write there"
            yield warning("dst-makes-folder", where, what, why, f"mkdir -p {quoted(point)}", fix=("mkdir", point))
        elif os.path.isdir(point) and _has_entries(point):
            yield Finding("dst-shadow", where, f"'{at}' hides the content of '{point}' in the container", severity=INFO)


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
