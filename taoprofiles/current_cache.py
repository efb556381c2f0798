"""The fast path of ``taoprof current``, which shell prompts run: it answers from a cache and imports only ``os``.

The cache holds the answer, and the bytes of the profile, of the one that it extends and of the mapping file, from which
it was computed. While they have the same bytes, and no switch has been recorded since, it is still right.
``History.record`` deletes it with every entry about the mapping file; changes of other profiles do not touch it.
Without a cache that is still right, ``current`` computes the answer and writes one, unless the profile uses an
environment variable. The cache is not JSON, whose import would take as long as the whole answer: its fields are
separated by SEPARATOR, and ``cli/prompt_scripts`` read it without starting a process, so it also holds the profile's
project file.
"""

from __future__ import annotations

import os

from taoprofiles.storage.paths import Context

FORMAT = 5
SEPARATOR = b"\x1e"
"""Neither TOML nor JSON may contain it, and unlike NUL every shell can split a text at it."""
_DRIFTED, UNMANAGED = "drifted", "unmanaged"


def answer(argv: list[str]) -> str | None:
    """Return what the command line ``argv`` prints, None unless it is ``current`` and the cached answer is right.

    Raises InvalidStateError if there is no home.
    """
    if argv not in (["current"], ["current", "--short"]):
        return None
    context = Context()
    own = own_profile(context)
    if own is not None:
        return own if len(argv) > 1 else None  # without --short it says what the mapping file has
    known = read(context)
    if known is None or (os.path.lexists(context.seal) and _is_orphaned(context)):
        return None  # after a guard was killed the command must make the mapping file writable again
    state, name = known
    if len(argv) > 1:
        return short(state, name)
    return None if state in (_DRIFTED, UNMANAGED) else name  # the command says what has changed


def short(state: str, name: str | None) -> str:
    """Return what ``current --short`` prints."""
    return {_DRIFTED: f"{name}~", UNMANAGED: "?"}.get(state, name or "")


def own_profile(context: Context) -> str | None:
    """Return the profile of the shell or notebook around this process if it has a mounts file of its own."""
    run, mounts_file = context.environ.get("TAOPROF_RUN"), context.environ.get("LAUNCHER_MOUNTS")
    is_own = run and mounts_file == os.path.join(context.holds, f"{run}.mounts.json")
    return context.environ.get("TAOPROF_PROFILE") if is_own else None


def read(context: Context) -> tuple[str, str] | None:
    """Return the state ("active", "drifted" or UNMANAGED) and name of the active profile ("" if unmanaged).

    None if the cache is outdated.
    """
    try:
        with open(context.current_cache, "rb") as file:
            written_for, _, _, path, text, base_path, base_text, mapping, state, name = file.read().split(SEPARATOR)
        if written_for != key(context):
            return None
        files = [(os.fsdecode(path), text), (os.fsdecode(base_path), base_text), (context.mapping_file, mapping)]
        for file_path, content in files:
            if not file_path:
                continue
            fd = os.open(file_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if os.read(fd, len(content) + 1) != content:
                    return None
            finally:
                os.close(fd)
        return state.decode(), name.decode()
    except (OSError, ValueError):
        return None


def write(
    context: Context,
    state: str,
    name: str,
    profiles: list[tuple[str, bytes]],
    *,
    project_file: str | None = None,
    mapping: bytes,
) -> None:
    """Write the answer for what the files hold now; ``name`` is "" if unmanaged. Needs the lock.

    ``profiles`` are the paths and contents of the profile and of the one that it extends, if any.
    """
    from taoprofiles.storage import files

    fields = [key(context), short(state, name).encode(), os.fsencode(project_file or "")]
    for path, content in (*profiles, ("", b""), ("", b""))[:2]:  # as many fields for each profile
        fields += os.fsencode(path), content
    fields += mapping, state.encode(), name.encode()
    if not any(byte in field for field in fields for byte in (SEPARATOR, b"\0")):
        files.write_cache(context.current_cache, SEPARATOR.join(fields))


def key(context: Context) -> bytes:
    """Return what a cache must have been written for: format, home, user and folder of the profiles."""
    return os.fsencode(f"{FORMAT}:{context.home}:{context.uid}:{context.profiles}")


def _is_orphaned(context: Context) -> bool:
    from taoprofiles.errors import TaoprofError
    from taoprofiles.storage import locks

    try:
        return locks.is_orphaned(context.seal, context.guard)
    except TaoprofError:
        return True
