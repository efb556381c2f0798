"""The text of findings about paths: why a path does not exist in the container, and what to use instead."""

from __future__ import annotations

import difflib
import os

from taoprofiles.mounts.paths import PathResolver, Resolution, container_paths, follow_links


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
