"""Translation of paths between host and container, and what a path means inside the container.

``mounts`` is always destination by source, both resolved on this host, as ``mapping.mounted`` returns it.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.storage import files
from taoprofiles.storage.paths import is_inside
from taoprofiles.system.filesystem import real_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

LINK_LIMIT = 40
"""Symlinks that the kernel follows in one path (MAXSYMLINKS of Linux)."""
NAMES_LIMIT = 2000
"""Names of a folder among which one similar to a missing file's is looked for."""
IMAGE_FOLDERS = tuple("/bin /boot /dev /etc /lib /lib64 /opt /proc /run /sbin /sys /tmp /usr /var".split())
"""Folders that every image has. Not /workspace: projects are mounted there, so a missing mount must be reported."""
HOST_STATE_FOLDERS = ("/run/", "/tmp/", "/var/")  # noqa: S108 - of the container
"""Image folders whose content differs between machines: a file in them on this host is not in the image."""
_GLOB = re.compile(r"[*?\[$]")


class _IndexedMounts(dict[str, str]):
    """Mounts with the sources of each destination: of thousands, none is compared with every part of a path."""

    def __init__(self, mounts: Mapping[str, str]) -> None:
        super().__init__(mounts)
        self.sources: dict[str, list[str]] = {}
        for source, destination in mounts.items():
            self.sources.setdefault(destination.rstrip("/") or "/", []).append(source)


def _indexed(mounts: Mapping[str, str]) -> _IndexedMounts:
    return mounts if isinstance(mounts, _IndexedMounts) else _IndexedMounts(mounts)


def _with_parents(path: str) -> Iterator[str]:
    """Yield a normalised path, then the folders above it, the deepest first."""
    path = "/" + path.lstrip("/") if path.startswith("/") else path
    yield path
    while (parent := os.path.dirname(path)) != path:
        yield (path := parent)


def host_paths(container_paths: Sequence[str], mounts: Mapping[str, str]) -> list[str]:
    """Return the host paths behind container paths, by the deepest mount; paths in no mount are left out."""
    paths, sources = [], _indexed(mounts).sources
    for path in map(os.path.normpath, container_paths):
        deepest = next((folder for folder in _with_parents(path) if folder in sources), "")
        for source in sources.get(deepest, ()):
            paths.append(os.path.normpath(os.path.join(source, os.path.relpath(path, deepest))))
    return paths


def container_paths(host_path: str, mounts: Mapping[str, str]) -> list[str]:
    """Return where a host path is visible in the container, the path through the deepest source first.

    A path that another mount covers is left out.
    """
    real = next(real_paths([host_path]))
    mounts = _indexed(mounts)
    sources = (folder for folder in _with_parents(real) if folder in mounts)
    paths = [os.path.normpath(os.path.join(mounts[source], os.path.relpath(real, source))) for source in sources]
    return list(dict.fromkeys(path for path in paths if real in host_paths([path], mounts)))


def follow_links(path: str, mounts: Mapping[str, str], read_link: Callable[[str], str | None]) -> tuple[str, str]:
    """Follow a container path as the container's kernel does; return (the final container path, its host path).

    ``read_link`` returns the target of a symlink on this host, None for anything else. An absolute target is a path *of
    the container*. The host path is "" if no mount has the final path.
    """
    mounts, parts, current, followed = _indexed(mounts), path.split("/")[::-1], "/", 0
    while parts:
        part = parts.pop()
        if part in ("", ".", ".."):
            current = os.path.dirname(current) if part == ".." else current
            continue
        step = os.path.join(current, part)
        behind = host_paths([step], mounts)
        target = read_link(behind[0]) if behind and step not in mounts.sources and followed < LINK_LIMIT else None
        if target is None:
            current = step
            continue
        followed += 1
        parts += target.split("/")[::-1]
        current = "/" if target.startswith("/") else current
    return current, next(iter(host_paths([current], mounts)), "")


def is_mounted(host_path: str, mounts: Mapping[str, str]) -> bool:
    """Check whether a resolved host path is the source of a mount, or inside one."""
    return any(folder in mounts for folder in _with_parents(host_path))


class HostFiles:
    """The questions about this host's files that decide what a path means; tests pass their own answers."""

    def exists(self, path: str) -> bool:
        """Check whether ``path`` exists; True also if it cannot be examined, since the container may run as root."""
        try:
            os.stat(path)
        except PermissionError:
            return True
        except (OSError, ValueError):
            return False
        return True

    def link(self, path: str) -> str | None:
        """Return the target of a symlink, None for anything else."""
        return files.link_target(path)

    def names(self, folder: str) -> list[str]:
        """Return at most NAMES_LIMIT names in a folder, none if it cannot be read."""
        try:
            with os.scandir(folder) as entries:
                return [entry.name for _, entry in zip(range(NAMES_LIMIT), entries, strict=False)]
        except OSError:
            return []

    def matches(self, pattern: str) -> list[str]:
        """Return the files that a glob pattern matches; none for a pattern that could search a whole disk."""
        if sum(glob.has_magic(part) for part in pattern.split("/")) > 2:
            return []
        return sorted(glob.glob(pattern))


class Resolution(NamedTuple):
    """What ``path`` means inside the container, by ``kind``.

    - found: ``host`` is the file behind it, which exists; "" if it is in a volume
    - missing: a mount has it, but ``host`` does not exist
    - link-out: a link in a mounted folder, ``host``, leads to ``container``, which is in no mount
    - entry-out: a folder that exists, of which the entry ``host`` is such a link, as in a snapshot of Hugging Face
    - host: a path of this host, which the container has as ``container``
    - covered: a path of this host below a mount's source that another mount covers in the container
    - host-only: it exists on this host, and is in no mount
    - image: every image has it, or may have it
    - unmapped: none of these
    """

    kind: str
    path: str
    container: str
    host: str = ""


class PathResolver:
    """Decides what the absolute paths of a command or a spec file mean inside the container."""

    def __init__(self, mounts: Mapping[str, str], files: HostFiles | None = None, volumes: Sequence[str] = ()) -> None:
        """``volumes`` are destinations of mounts whose content is not on this host: every path in them counts."""
        self.mounts, self.files, self.volumes = _indexed(mounts), files or HostFiles(), volumes

    def resolve(self, path: str) -> Resolution:
        """Return what an absolute path means that a task receives."""
        whole = os.path.normpath("/" + path.lstrip("/"))
        fixed = _without_glob(whole)
        if any(is_inside(whole, volume) for volume in self.volumes):
            return Resolution("found", path, whole)
        if host_paths([whole], self.mounts):
            return self._resolve_mounted(path, whole, fixed)
        inside = container_paths(whole, self.mounts)
        if inside:
            return Resolution("host", path, inside[0], whole)
        if is_mounted(os.path.realpath(whole), self.mounts):
            return Resolution("covered", path, "", whole)
        exists = fixed != "/" and self.files.exists(fixed)
        # '/conv.*' is a regex of layers or a glob of the root folder: nothing is certain.
        if fixed == "/" or (_is_in_image(whole) and not (exists and whole.startswith(HOST_STATE_FOLDERS))):
            return Resolution("image", path, whole)
        return Resolution("host-only" if exists else "unmapped", path, whole, whole)

    def _resolve_mounted(self, path: str, whole: str, fixed: str) -> Resolution:
        target, host = follow_links(fixed, self.mounts, self.files.link)
        if not host:
            may_exist = _is_in_image(target) and not self.files.exists(target)
            return Resolution("image" if may_exist else "link-out", path, target, host_paths([fixed], self.mounts)[0])
        if not self.files.exists(host):
            return Resolution("missing", path, whole, host)
        return self._entry_out(path, target, host) or Resolution("found", path, whole, host)

    def _entry_out(self, path: str, folder: str, host: str) -> Resolution | None:
        """Return the resolution of a folder with a link that leads out of the mounts, though not to the image."""
        for name in self.files.names(host):
            link = os.path.join(host, name)
            if self.files.link(link) is not None:
                target, behind = follow_links(os.path.join(folder, name), self.mounts, self.files.link)
                if not behind and not _is_in_image(target):
                    return Resolution("entry-out", path, target, link)
        return None


def _is_in_image(path: str) -> bool:
    """Check whether ``path`` is in a folder of every image, or of TAO's own images below /workspace."""
    if re.match(r"/workspace/(tao-(?!experiments)|examples/)", path):
        return True
    return path == "/" or any(is_inside(path, folder) for folder in IMAGE_FOLDERS)


def _without_glob(path: str) -> str:
    """Return the folder above the first part with a glob or a ``${…}`` of the spec, else the path."""
    match = _GLOB.search(path)
    return path if match is None else path[: path.rfind("/", 0, match.start())] or "/"


# The text of findings about wrong paths


def explain(resolver: PathResolver, resolution: Resolution, access: str = "") -> tuple[str, str, str]:
    """Return (what, why, hint) about a path that is wrong; ``access`` is "read", "write" or "" for unknown."""
    kind, path, container, host = resolution
    if kind == "host":
        return f"'{path}' is a host path, but the task runs inside the container", f"use '{container}' instead", ""
    if kind == "covered":
        hint = "mount that folder on a destination of its own"
        return f"'{path}' cannot be seen in the container: another mount covers it", "", hint
    if kind in ("link-out", "entry-out"):
        why = "links are followed inside the container, which has only the mounted folders"
        source, _ = follow_links(host, {"/": "/"}, resolver.files.link)
        hint = f"mount '{source}' on '{container}', or move the files into the mounted folder"
        inside = container_paths(source, resolver.mounts)
        if inside:  # an absolute link from one mounted folder into another, or within one
            hint = f"the container has it as '{inside[0]}': use that path, or a relative link within one mount"
        if not resolver.files.exists(source):
            hint = f"the link leads nowhere on this host either: '{source}' does not exist"
        link = path if kind == "link-out" else os.path.join(path, os.path.basename(host))
        return f"'{link}' is a link to '{container}', which is in no mount", why, hint
    if kind == "missing":
        return f"no such file in the container: '{path}' (on this host: '{host}')", "", _similar(resolver, host)
    why = {
        "write": "what a task writes there is lost with the container",
        "read": "the task finds it only if the image contains it",
    }.get(access, "the image may contain it; what a task writes there is lost with the container")
    destinations = ", ".join(sorted(resolver.mounts.values())[:8])
    hint = f"mount that folder, or use a path below one of the mounted destinations: {destinations}"
    hint = hint if destinations else "the profile mounts nothing"
    exists = "exists on this host, but " if kind == "host-only" else ""
    return f"'{path}' {exists}is in no mount", why, hint


def _similar(resolver: PathResolver, host: str) -> str:
    """Return which names similar to a missing file's exist next to it, or in the first folder that exists."""
    folder = name = host
    while folder != "/" and not resolver.files.exists(folder):
        name, folder = os.path.basename(folder), os.path.dirname(folder)
    names = {name.lower(): name for name in sorted(resolver.files.names(folder))}
    similar = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if similar:
        return "did you mean " + " or ".join(f"'{names[name]}'" for name in similar) + "?"
    return f"'{folder}' contains nothing with a similar name"
