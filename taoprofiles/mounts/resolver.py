"""What a path means inside the container: which host file is behind it, if any, and whether that file is there."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.mounts import container_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

IMAGE = tuple("/bin /boot /dev /etc /lib /lib64 /opt /proc /run /sbin /sys /tmp /usr /var".split())
"""Folders that every image has. Not /workspace: that is where projects are mounted, so one that is missing tells."""

PASSING = ("/run/", "/tmp/", "/var/")  # noqa: S108 - of the container
"""Folders that hold other things on each machine: a file of them that is there on this host is not in the image."""

_GLOB = re.compile(r"[*?\[$]")
_READS = re.compile(
    r"spec|config|pretrained|resume|checkpoint|weights|model|image|img|json_file|annotation|label|class_?map|root_dir|"
    r"data_sources?|input|(train|val|test)_(dir|path|file)"
)
_NAMES = re.compile(r"(^|_)(paths?|files?|dirs?|folders?|root|list|location|csv|json|txt|tfrecords?|cache)(_|\Z)")
_NO_PATH = re.compile(r"regex|pattern|layer|node|tensor")
_WRITES = re.compile(
    r"(^|_)(results?|output|out|save|dump|logs?|export|onnx|trt|engine|cal_cache|cal_data|cal_json)(_|$)"
)
_USUAL = frozenset("data dataset datasets home media mnt model models raid results root specs workspace".split())
"""Folders at the root that people mount, in TAO's conventions or on their hosts."""


class Verdict(NamedTuple):
    """About a path; ``kind`` is one of the following.

    - seen: a mount has it, and ``host`` is the file behind it, which is there
    - missing: as seen, but it is not there
    - leads-out: a link of a mounted folder leads to ``place``, which no mount has
    - host: a path of this host, which the container has as ``place``
    - hidden: a path of this host below a mount's source, that the container does not have
    - here: a path that is there on this host and that no mount has
    - image: a path that every image has, or may have
    - unmapped: none of these
    """

    kind: str
    place: str
    host: str = ""


class Places:
    """The mounts (destination by source, both resolved) and what is on this host, as plain questions.

    ``exists`` tells whether a host path is there, ``link`` what a symlink points to (None: it is none), ``names`` what
    a folder has in it.
    """

    def __init__(
        self,
        mounts: Mapping[str, str],
        exists: Callable[[str], bool],
        link: Callable[[str], str | None] = lambda path: None,
        names: Callable[[str], Sequence[str]] = lambda path: (),
    ) -> None:
        self.mounts, self.exists, self._link, self._names = mounts, exists, link, names

    def about(self, path: str) -> Verdict:
        """Tell what becomes of an absolute path that a task is given."""
        whole = os.path.normpath("/" + path.lstrip("/"))
        fixed = _without_glob(whole)
        if container_paths.host_paths([whole], self.mounts):
            place, host = container_paths.resolve(fixed, self.mounts, self._link)
            if not host:
                may_be_there = is_of_image(place) and not self.exists(place)
                return Verdict("image" if may_be_there else "leads-out", place)
            return Verdict("seen" if self.exists(host) else "missing", whole, host)
        inside = container_paths.container_paths(whole, self.mounts)
        if inside:
            return Verdict("host", inside[0], whole)
        if container_paths.below(os.path.realpath(whole), self.mounts):
            return Verdict("hidden", "", whole)
        is_here = fixed != "/" and self.exists(fixed)
        # Of '/conv.*', a regex of layers or a glob of the root folder, nothing is certain.
        if fixed == "/" or (is_of_image(whole) and not (is_here and whole.startswith(PASSING))):
            return Verdict("image", whole)
        return Verdict("here" if is_here else "unmapped", whole, whole)

    def mounted(self) -> str:
        """Say where something is mounted."""
        listed = ", ".join(sorted(self.mounts.values())[:8])
        return f"mounted are {listed}" if listed else "the profile mounts nothing"

    def beside(self, verdict: Verdict) -> str:
        """Say what is there instead of what is missing."""
        above = verdict.host
        while above != "/" and not self.exists(above):
            name, above = os.path.basename(above), os.path.dirname(above)
        lower = {one.lower(): one for one in sorted(self._names(above))}
        near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
        if near:
            return f"'{above}' has " + ", ".join(f"'{lower[one]}'" for one in near)
        return f"'{above}' is there, and nothing of a similar name in it"


def is_of_image(place: str) -> bool:
    """Whether every image has the folder, or TAO's own: /workspace/examples, /workspace/tao-pytorch-backend too."""
    if re.match(r"/workspace/(tao-(?!experiments)|examples/)", place):
        return True
    return place == "/" or any(place == folder or place.startswith(folder + "/") for folder in IMAGE)


def role(key: str) -> str:
    """Tell whether an option or a key of a spec names what is read, or what is written; "" where it may be either."""
    if key in ("-r", "-o"):
        return "write"
    if key in ("-e", "-m", "-i"):
        return "read"
    last = key.lstrip("-+").replace("-", "_").rpartition(".")[2].lower()
    if _WRITES.search(last):
        return "write"
    if last in ("checkpoint_dir", "checkpoints_dir"):  # read by one task, written to by another
        return ""
    return "read" if _READS.search(last) else ""


def may_be_path(key: str) -> bool:
    """Whether a spec may have a path under this key: not under ``regex``, nor ``layers``, which begin with '/'."""
    return not _NO_PATH.search(key.replace("-", "_").lower())


def is_for_path(key: str, value: str) -> bool:
    """Whether what stands under this key of a spec is a path for certain, whatever is on this host."""
    known = role(key) or _NAMES.search(key.replace("-", "_").lower())
    return bool(known) or value.split("/")[1] in _USUAL


def _without_glob(path: str) -> str:
    """Give the folder above the first part that a program would expand itself: ``*`` and a spec's ``${…}``."""
    found = _GLOB.search(path)
    return path if found is None else path[: path.rfind("/", 0, found.start())] or "/"
