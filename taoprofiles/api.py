"""The Python interface: typed functions that print nothing and raise the exceptions of ``taoprofiles.errors``.

Everywhere, ``timeout`` is how long (s) to wait for another taoprof command that is running, ``mkdir`` creates source
folders that do not exist, and ``check=False`` skips the checks that ``taoprof check`` makes.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

from taoprofiles.errors import NotFoundError, UsageError
from taoprofiles.storage.locks import DEFAULT_TIMEOUT
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status
from taoprofiles.switching import switch as switching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taoprofiles.holds.hold import Hold
    from taoprofiles.runs.session import Session
    from taoprofiles.switching.status import Status
    from taoprofiles.switching.switch import SwitchResult

__all__ = ["Finished", "current", "hold", "run", "switch", "use"]


class Finished(NamedTuple):
    """A run that has ended: its id, the exit status of its task, its container (None without one).

    ``differences`` are those between the container and its profile, ``messages`` what was reported during the run.
    """

    id: str
    status: int
    container: str | None
    differences: list[str]
    messages: list[str]


def use(
    name: str, *, shared: bool = False, mkdir: bool = False, check: bool = True, timeout: float = DEFAULT_TIMEOUT
) -> Session:
    """Use a profile in this process, as ``%taoprof use`` does in a notebook.

    ``os.environ`` gets the variables of the profile, and ``LAUNCHER_MOUNTS`` names a mounts file of this process; with
    ``shared``, the shared mapping file is switched instead. The hold ends with the process, with another ``use``, or
    with ``release()`` of the returned session, which is also a context manager.

    Raises NotFoundError, InvalidProfileError (also for source folders that do not exist), HeldError,
    InvalidStateError, BusyError.
    """
    from taoprofiles.runs import session

    _check_types(name=name, shared=shared, mkdir=mkdir, check=check, timeout=timeout)
    return session.begin(name, os.environ, shared=shared, mkdir=mkdir, check=check, timeout=timeout)


def switch(
    name: str, *, dry_run: bool = False, mkdir: bool = False, check: bool = True, timeout: float = DEFAULT_TIMEOUT
) -> SwitchResult:
    """Switch the shared mapping file to a profile ("-" is the previous one), as ``taoprof use`` does.

    Nothing is held afterwards. With ``dry_run``, nothing is changed. Raises the errors of ``use``.
    """
    _check_types(name=name, dry_run=dry_run, mkdir=mkdir, check=check, timeout=timeout)
    return switching.switch_profile(Context(), name, dry_run=dry_run, mkdir=mkdir, check=check, timeout=timeout)


def current() -> Status:
    """Return which profile is active: ``.name`` and ``.state`` (active, drifted, unmanaged, none)."""
    return status.get_status(Context())


class RunKeywords(TypedDict, total=False):
    """Keyword arguments of ``run``, with the meaning of the same options of ``taoprof run``."""

    shared: bool
    gpus: str | None
    notify: Sequence[str] | None
    image: str | None
    mkdir: bool
    check: bool
    allow_overlap: bool


def run(
    name: str,
    command: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    wait: float | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    say: Callable[[str], None] | None = None,
    **options: Unpack[RunKeywords],
) -> Finished:
    """Run a command with a profile and wait for its end, as ``taoprof run`` does.

    The command's output goes where the output of this process goes. With ``image``, ``docker run`` of that image runs
    the command. ``allow_overlap`` permits another run that writes to the same results folder. ``wait`` is how long (s)
    to wait until the run is no longer refused; ``say`` is called with each message. A task that fails is a status, not
    an exception.

    Raises the errors of ``use``, CannotRenderError for what a container without the launcher cannot have, and
    ``runs.run.CommandError`` if the command cannot be started.
    """
    from taoprofiles.runs.start import RunOptions, prepare_when_free

    messages: list[str] = []

    def report(text: str) -> None:
        messages.append(text)
        if say is not None:
            say(text)

    given = {key: value for key, value in options.items() if value is not None}
    _check_types(name=name, timeout=timeout, wait=0 if wait is None else wait, **given)
    if say is not None and not callable(say):
        raise UsageError(f"say must be a function, not {say!r:.60}")
    argv, context = _to_argv(command), Context()
    run_options = RunOptions(terminal=os.isatty(0) and os.isatty(1), timeout=timeout, **options)
    prepared = prepare_when_free(context, name, argv, run_options, wait=wait, say=report)
    exit_status = prepared.finish(prepared.start(argv, say=report))
    record = prepared.hold
    return Finished(record.id, exit_status, record.container, list(record.differences), messages)


@contextmanager
def hold(name: str | None = None, *, reason: str, timeout: float = DEFAULT_TIMEOUT) -> Iterator[Hold]:
    """Hold the shared mapping file as it is for the length of a ``with`` block, as ``taoprof hold`` does.

    ``name`` must be the active profile; without it, whatever the file contains is held. The hold also ends with the
    process. Raises UsageError, InvalidStateError, BusyError.
    """
    from taoprofiles.holds import manage

    _check_types(reason=reason, name="" if name is None else name, timeout=timeout)
    context = Context()
    record = manage.hold(context, name, reason=reason, pid=os.getpid(), timeout=timeout)
    try:
        yield record
    finally:
        with suppress(NotFoundError):  # it was released by its id
            manage.release(context, record.id, timeout=timeout)


_TEXT, _SECONDS = ((str,), "a string"), ((int, float), "a number of seconds")
_ARGUMENT_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("name", "reason", "gpus", "image"), _TEXT),
    **dict.fromkeys(("timeout", "wait"), _SECONDS),
    "notify": ((list, tuple), "a list of strings"),
}
"""The types of arguments, each with its description; all others are bool."""


def _check_types(**arguments: object) -> None:
    """Raise UsageError for an argument of another type, which would otherwise fail far away, or in a stored record."""
    for name, value in arguments.items():
        types, expected = _ARGUMENT_TYPES.get(name, ((bool,), "True or False"))
        if not isinstance(value, types) or value != value:  # noqa: PLR0124 - NaN: no time would ever be later
            raise UsageError(f"{name} must be {expected}, not {value!r:.60}")


def _to_argv(command: object) -> list[str]:
    """Return a command as a list of strings. Raises UsageError."""
    parts = [command] if isinstance(command, (str, os.PathLike)) else command
    if not parts or not isinstance(parts, (list, tuple)) or not all(isinstance(x, (str, os.PathLike)) for x in parts):
        raise UsageError(f"command must be a list of strings, not {command!r:.60}")
    return [os.fsdecode(part) for part in parts]
