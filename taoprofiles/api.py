"""What other Python programs call: typed, without printing, errors as exceptions (``taoprofiles.errors``)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.errors import UsageError
from taoprofiles.storage.locks import DEFAULT_TIMEOUT
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status as situation
from taoprofiles.switching import switch as switching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taoprofiles.holds.hold import Hold
    from taoprofiles.runs.session import Session
    from taoprofiles.switching.status import Situation
    from taoprofiles.switching.switch import Switch

_TEXT = "a text", (str,)
_NUMBER = "a number of seconds", (int, float)
_TRUTH = "True or False", (bool,)

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


def use(
    name: str, *, shared: bool = False, mkdir: bool = False, check: bool = True, timeout: float = DEFAULT_TIMEOUT
) -> Session:
    """Give this process the profile ``name``, as ``%taoprof use`` does in a notebook.

    ``os.environ`` gets the profile's variables, and ``LAUNCHER_MOUNTS`` a mounts file of this process's own; with
    ``shared`` the shared file becomes the profile's instead. It is held until the process ends, another ``use``, or
    ``release()`` of what is returned, which is a context manager too. ``mkdir`` makes source folders that are missing;
    ``check`` refuses what would go wrong for certain, as ``taoprof check`` tells; ``timeout`` (s) is for another
    taoprof command that is at work.

    Raises NotFoundError, InvalidProfileError (also for missing source folders), HeldError, InvalidStateError,
    BusyError.
    """
    from taoprofiles.runs import session

    _expect(_TEXT, name=name)
    _expect(_TRUTH, shared=shared, mkdir=mkdir, check=check)
    _expect(_NUMBER, timeout=timeout)
    return session.begin(name, os.environ, shared=shared, mkdir=mkdir, check=check, timeout=timeout)


def switch(
    name: str, *, dry_run: bool = False, mkdir: bool = False, check: bool = True, timeout: float = DEFAULT_TIMEOUT
) -> Switch:
    """Switch the shared mapping file to the profile ``name``, as ``taoprof use`` does; "-" is the one before.

    Nothing is held. See ``operations.switch.use`` for what it raises.
    """
    _expect(_TEXT, name=name)
    _expect(_TRUTH, dry_run=dry_run, mkdir=mkdir, check=check)
    _expect(_NUMBER, timeout=timeout)
    return switching.use(Context(), name, dry_run=dry_run, mkdir=mkdir, check=check, timeout=timeout)


def current() -> Situation:
    """Tell which profile the shared file has: ``.name`` and ``.state`` (active, drifted, unmanaged, none)."""
    return situation.look(Context())


def run(
    name: str,
    command: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    shared: bool = False,
    gpus: str | None = None,
    image: str | None = None,
    mkdir: bool = False,
    check: bool = True,
    allow_overlap: bool = False,
    wait: float | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    say: Callable[[str], None] | None = None,
) -> Finished:
    """Run a command with a profile, beside all others, and wait for its end, as ``taoprof run`` does.

    The command's output goes where this process's does. With ``image`` there is no launcher, but ``docker run`` of that
    image, and with a terminal where this process has one. ``wait`` is how long (s) to wait for what is in the way, at
    the most; ``say`` is told what is worth telling meanwhile. A task that fails is a status, not an exception.

    Raises as ``use``, CannotRenderError for what no image's container can have, and ``operations.runs.CommandError``
    where the command cannot be started.
    """
    from taoprofiles.holds.waiting import wait_until_free
    from taoprofiles.runs import run as runs

    messages: list[str] = []

    def tell(text: str) -> None:
        messages.append(text)
        if say is not None:
            say(text)

    _expect(_TEXT, name=name, **{key: text for key, text in (("gpus", gpus), ("image", image)) if text is not None})
    _expect(_TRUTH, shared=shared, mkdir=mkdir, check=check, allow_overlap=allow_overlap)
    _expect(_NUMBER, timeout=timeout, **({} if wait is None else {"wait": wait}))
    if say is not None and not callable(say):
        raise UsageError(f"say must be a function, not {say!r}")
    words = _words(command)
    context = Context()
    options = runs.RunOptions(
        mkdir=mkdir,
        check=check,
        allow_overlap=allow_overlap,
        shared=shared,
        gpus=gpus,
        image=image,
        terminal=os.isatty(0) and os.isatty(1),
    )

    def attempt() -> runs.Run:
        return runs.prepare(context, name, words, options=options, timeout=timeout)

    prepared = attempt() if wait is None else wait_until_free(context, "run", attempt, seconds=wait, say=tell)
    status = prepared.finish(prepared.start(words, say=tell))
    hold = prepared.hold
    return Finished(hold.id, status, hold.container, list(hold.differences), messages)


@contextmanager
def hold(name: str | None = None, *, reason: str, timeout: float = DEFAULT_TIMEOUT) -> Iterator[Hold]:
    """Hold the shared mapping file as it is for the length of a ``with`` block, as ``taoprof hold`` does.

    ``name`` must be the active profile; without it, whatever the file holds is held. If the process dies, the hold
    ends. Raises UsageError, InvalidStateError, BusyError.
    """
    from taoprofiles.errors import NotFoundError
    from taoprofiles.holds import manage

    _expect(_TEXT, reason=reason, **({} if name is None else {"name": name}))
    _expect(_NUMBER, timeout=timeout)
    context = Context()
    made = manage.hold(context, name, reason=reason, pid=os.getpid(), timeout=timeout)
    try:
        yield made
    finally:
        try:
            manage.release(context, made.id, timeout=timeout)
        except NotFoundError:
            pass  # somebody released it by its id already


def _expect(kind: tuple[str, tuple[type, ...]], **given: object) -> None:
    """Refuse what is of another type: deep inside it would be an error without sense, or a record nobody can read."""
    told, types = kind
    for name, value in given.items():
        if not isinstance(value, types) or value != value:  # noqa: PLR0124 - NaN: no time would ever be later
            raise UsageError(f"{name} must be {told}, not {value!r:.60}")


def _words(command: object) -> list[str]:
    """Give a command's words as texts; a path is one, too."""
    if isinstance(command, (str, os.PathLike)):
        command = [command]
    listed = list(command) if isinstance(command, (list, tuple)) else [None]
    words = [os.fspath(word) if isinstance(word, (str, os.PathLike)) else None for word in listed]
    if not words:
        raise UsageError("there is no command to run")
    texts = [word for word in words if isinstance(word, str)]
    if len(texts) < len(words):
        raise UsageError(f"command must be a list of texts, not {command!r:.60}")
    return texts
