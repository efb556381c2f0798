"""Rules for the folders of this host behind a container's mounts: whether its user may read and write them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

from taoprofiles.launcher.host import ResolvedMount
from taoprofiles.mounts import paths
from taoprofiles.rules import container
from taoprofiles.rules.finding import Finding
from taoprofiles.rules.locations import Locator
from taoprofiles.storage.paths import Context
from taoprofiles.system import filesystem
from taoprofiles.system.filesystem import PathInfo, find_foreign_files

_RESULTS = ("results", "result", "output", "outputs", "experiments")
"""Names of container folders for results, where neither the command, a spec file nor a variable names one."""


def check(
    context: Context,
    mounts: Sequence[ResolvedMount],
    locate: Locator,
    *,
    mounted: Mapping[str, str],
    user: object,
    results: Sequence[str],
    profile: str | None,
) -> Iterator[Finding]:
    """Check the sources and the results folders for the container's ``user``.

    ``mounted`` is destination by source as it reaches the container; ``results`` are the folders in it that the task
    writes to, () if they are not known, and ``profile`` is named in hints.
    """
    ids = container.user_ids(user, context.uid, context.gid)
    table, sources = filesystem.file_systems(), []
    for mount in mounts:
        source = PathInfo(mount.source)
        if not source.problem:
            where = locate(mount.location._replace(key="source"))
            sources.append((where, source, filesystem.file_system(source.real, table)))
    docker = os.path.realpath(shutil.which("docker", path=context.environ.get("PATH")) or "")
    yield from container.check_sources(
        sources, ids, home=context.home, snap=docker.startswith("/snap/"), profile=profile
    )
    usual = [destination for destination in mounted.values() if os.path.basename(destination) in _RESULTS]
    named = results or usual
    existing = [(path, filesystem.nearest_existing(path)) for path in dict.fromkeys(paths.host_paths(named, mounted))]
    # Not those in a source that does not exist, which is reported.
    inside = [(path, info) for path, info in existing if paths.is_mounted(info.path, mounted)]
    yield from container.check_results(inside, ids)
    for _, folder in inside:
        if ids is not None and ids[0] != 0 and folder.may(*ids, 3):
            yield from container.check_owners(folder.path, find_foreign_files(folder.path, ids[0]), ids)
