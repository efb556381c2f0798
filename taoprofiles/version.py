"""The version, in the one place that the build reads, too, and the commit of a development build."""

from __future__ import annotations

import os

VERSION = "0.1.0"

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def find_commit() -> str | None:
    """Return the commit that this is, or was built from, with " with changes" if files differ from it.

    None for a release, which is a commit with the tag "v" and the version, and where nothing is known. A checkout asks
    git; the build wrote the answer into the file ``commit``.
    """
    try:
        with open(os.path.join(_PACKAGE, "commit"), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        pass
    root = os.path.dirname(_PACKAGE)
    if not os.path.lexists(os.path.join(root, ".git")):  # else git would answer for a repository around it
        return None
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or (not changes and f"v{VERSION}" in (_git(root, "tag", "--points-at") or "").split()):
        return None
    return f"{commit} with changes" if changes else commit


def _git(root: str, *words: str) -> str | None:
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", root, *words],  # noqa: S607 - the git of the developer's PATH
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
