"""What other Python programs call: typed, without printing, errors as exceptions (``taoprofiles.errors``)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.errors import UsageError
from taoprofiles.operations import situation
from taoprofiles.operations import switch as switching
from taoprofiles.state.locks import DEFAULT_TIMEOUT
from taoprofiles.state.paths import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taoprofiles.operations.sessions import Session
    from taoprofiles.operations.situation import Situation
    from taoprofiles.operations.switch import Switch
    from taoprofiles.values.hold import Hold

__all__ = ["Finished", "current", "hold", "run", "switch", "use"]


class Finished(NamedTuple):
    """A run that is over: its id, the task's exit status, its container, and what is worth telling about it.

    ``differences`` says what the container had otherwise than the profile asks for, one line each.
    """

    id: str
    status: int
    container: str | None
    differences: list[str]
    messages: list[str]


def use(name: str, *, shared: bool = False, mkdir: bool = False, timeout: float = DEFAULT_TIMEOUT) -> Session:
    """Give this process the profile ``name``, as ``%taoprof use`` does in a notebook.

    ``os.environ`` gets the profile's variables, and ``LAUNCHER_MOUNTS`` a mounts file of this process's own; with
    ``shared`` the shared file becomes the profile's instead. It is held until the process ends, another ``use``, or
    ``release()`` of what is returned, which is a context manager too. ``mkdir`` makes source folders that are missing;
    ``timeout`` (s) is for another taoprof command that is at work.

    Raises NotFoundError, InvalidProfileError (also for missing source folders), HeldError, InvalidStateError,
    BusyError.
    """
    from taoprofiles.operations import sessions

    return sessions.begin(name, os.environ, shared=shared, mkdir=mkdir, timeout=timeout)


def switch(name: str, *, dry_run: bool = False, mkdir: bool = False, timeout: float = DEFAULT_TIMEOUT) -> Switch:
    """Switch the shared mapping file to the profile ``name``, as ``taoprof use`` does; "-" is the one before.

    Nothing is held. See ``operations.switch.use`` for what it raises.
    """
    return switching.use(Context(), name, dry_run=dry_run, mkdir=mkdir, timeout=timeout)


def current() -> Situation:
    """Tell which profile the shared file has: ``.name`` and ``.state`` (active, drifted, unmanaged, none)."""
    return situation.look(Context())


def run(
    name: str,
    command: Sequence[str],
    *,
    shared: bool = False,
    gpus: str | None = None,
    mkdir: bool = False,
    allow_overlap: bool = False,
    wait: float | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    say: Callable[[str], None] | None = None,
) -> Finished:
    """Run a command with a profile, beside all others, and wait for its end, as ``taoprof run`` does.

    The command's output goes where this process's goes. ``wait`` is how long (s) to wait for what is in the way, at the
    most; ``say`` is told what is worth telling meanwhile. A task that fails is a status, not an exception.

    Raises as ``use``, and ``operations.runs.CommandError`` where the command cannot be started.
    """
    from taoprofiles.operations import runs
    from taoprofiles.operations.waiting import patiently

    messages: list[str] = []

    def tell(text: str) -> None:
        messages.append(text)
        if say is not None:
            say(text)

    words = [command] if isinstance(command, str) else list(command)
    if not words:
        raise UsageError("there is no command to run")
    context = Context()
    wish = runs.Wish(mkdir=mkdir, allow_overlap=allow_overlap, shared=shared, gpus=gpus)

    def attempt() -> runs.Run:
        return runs.prepare(context, name, words, wish=wish, timeout=timeout)

    prepared = attempt() if wait is None else patiently(context, "run", attempt, seconds=wait, say=tell)
    try:
        status = prepared.start(words, say=tell)
    except runs.CommandError:
        prepared.give_up()
        raise
    status = prepared.finish(status, is_launcher=runs.is_launcher(words))
    hold = prepared.hold
    return Finished(hold.id, status, hold.container, list(hold.differences), messages)


@contextmanager
def hold(name: str | None = None, *, reason: str, timeout: float = DEFAULT_TIMEOUT) -> Iterator[Hold]:
    """Hold the shared mapping file as it is for the length of a ``with`` block, as ``taoprof hold`` does.

    ``name`` must be the active profile; without it, whatever the file holds is held. If the process dies, the hold
    ends. Raises UsageError, InvalidStateError, BusyError.
    """
    from taoprofiles.errors import NotFoundError
    from taoprofiles.operations import holding

    context = Context()
    made = holding.hold(context, name, reason=reason, pid=os.getpid(), timeout=timeout)
    try:
        yield made
    finally:
        try:
            holding.release(context, made.id, timeout=timeout)
        except NotFoundError:
            pass  # somebody released it by its id already
