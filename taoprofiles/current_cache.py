"""The fast path of ``taoprof current``, which shell prompts run: it answers from a cache and imports only ``os``.

The cache holds the answer, and the bytes of the profile, of the one that it extends and of the mapping file that it was
worked out from. While they hold these very bytes, and no switch has been recorded since, it is still right.
``History.record`` deletes it with every entry about the mapping file; changes of other profiles do not touch it.
Without a cache that is still right, ``current`` works out the answer and writes one, unless the profile uses an
environment variable. The cache is not JSON, whose import would take as long as the whole answer: it is NUL-separated,
and ``cli/prompt_scripts`` read it without starting a process.
"""

from __future__ import annotations

import os

from taoprofiles.storage.paths import Context

FORMAT = b"4"
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
        return own if len(argv) > 1 else None  # without --short it says what the shared file has
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
            version, user, _, state, name, *profiles, mapping = file.read().split(b"\0")
        if version != FORMAT or user != user_key(context):
            return None
        files = [(context.mapping_file, mapping)]
        files += [(os.fsdecode(path), text) for path, text in zip(profiles[::2], profiles[1::2], strict=True) if path]
        for path, content in files:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if os.read(fd, len(content) + 1) != content:
                    return None
            finally:
                os.close(fd)
        return state.decode(), name.decode()
    except (OSError, ValueError):
        return None


def write(context: Context, state: str, name: str, profiles: list[tuple[str, bytes]], *, mapping: bytes) -> None:
    """Write the answer for what the files hold now; ``name`` is "" if unmanaged. Needs the lock.

    ``profiles`` are the paths and contents of the profile and of the one that it extends, if any.
    """
    from taoprofiles.storage import best_effort

    texts = (short(state, name), state, name)
    fields = [FORMAT, user_key(context), *(text.encode() for text in texts)]
    for path, content in (*profiles, ("", b""), ("", b""))[:2]:  # as many fields for each profile
        fields += os.fsencode(path), content
    fields.append(mapping)
    if not any(b"\0" in field for field in fields):
        best_effort.write(context.current_cache, b"\0".join(fields))


def user_key(context: Context) -> bytes:
    """Return what a cache must have been written for: the user, the home and the folder of the profiles."""
    return os.fsencode(f"{context.home}:{context.uid}:{context.profiles}")


def _is_orphaned(context: Context) -> bool:
    from taoprofiles.errors import TaoprofError
    from taoprofiles.storage import locks

    try:
        return locks.is_orphaned(context.seal, context.guard)
    except TaoprofError:
        return True
