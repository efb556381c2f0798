"""A session: this very process, a notebook's kernel or a program, has a profile for as long as it lives.

Its environment gets the profile's variables, the launcher's own mounts file or the shared one, and the mark by which
what it starts is known; the hold ends with the process, or with what it started, if that goes on.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.holds.liveness import HEARTBEAT, find_active_holds
from taoprofiles.holds.records import HoldRecords
from taoprofiles.runs.run import PROFILE_VARIABLE, RunOptions, prepare
from taoprofiles.storage import files
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from taoprofiles.runs.run import Run

_OWN = (PROFILE_VARIABLE, RUN_VARIABLE, "LAUNCHER_MOUNTS")

NAME_VARIABLE = "JPY_SESSION_NAME"
"""Where Jupyter's server tells a kernel which notebook it belongs to (jupyter_server 2.0 and later)."""


_lock = threading.RLock()
"""Threads begin and end sessions one after the other: of two that begin at once, one would never be released."""

EXIT_LOCK_TIMEOUT = 1.0
"""Seconds to wait for the lock when the process ends: the next command writes down what could not be."""


class Session:
    """A profile in use by this process: ``name``, ``variables``, ``shared``, ``hold``; ``release`` ends it.

    ``mapping`` is the profile's, ``wanted`` what the mounts file is to hold; ``secrets`` names the variables, and those
    of the container, whose values must not be shown; ``given`` is all that the environment gets (None: is without).
    """

    def __init__(self, context: Context, name: str, run: Run, environ: MutableMapping[str, str]) -> None:
        self.name, self.hold, self.shared = name, run.hold, run.hold.shared
        self.mapping, self.wanted = run.rendered, run.wanted
        self.notes = list(run.notes)
        self._context, self._claim, self._environ = context, run.claim, environ
        self._process = os.getpid()
        self._over = threading.Event()
        self.variables, self.secrets = run.variables, run.secrets
        self.given = {key: run.environ.get(key) for key in (*self.variables, *_OWN)}
        self._before: dict[str, str | None] = {}

    def enter(self) -> None:
        """Let it begin."""
        self._before = {key: self._environ.get(key) for key in self.given}
        _put(self._environ, self.given)
        threading.Thread(target=self._beat, daemon=True, name="taoprof-session").start()
        atexit.register(self._at_exit)

    @property
    def mounts_file(self) -> str:
        """The mounts file that a launcher started from here reads."""
        return self._context.mapping_file if self.shared else HoldRecords(self._context).mounts_path(self.hold.id)

    @property
    def is_over(self) -> bool:
        """Whether it has been released."""
        return self._over.is_set()

    def overridden(self) -> dict[str, str | None]:
        """Give each variable that is not as the profile has it any more, with what it is now."""
        return {
            key: self._environ.get(key)
            for key, value in self.given.items()
            if self._environ.get(key) != value and not self.is_over
        }

    def restored(self) -> dict[str, str | None]:
        """Give what ``release`` puts back into the environment; what was set to something else meanwhile stays."""
        return {key: old for key, old in self._before.items() if self._environ.get(key) == self.given[key]}

    def has_work(self) -> bool:
        """Whether something that was started from here is still at work: a process, or a container."""
        marked = (mark for pid, mark in processes.marked(self._context.uid, RUN_VARIABLE) if pid != self._process)
        if self.hold.id in marked:
            return True
        found = find_active_holds(self._context, files.read_mapping_file(self._context)).find(self.hold.id)
        return found is not None and found.container is not None

    def surroundings(self) -> dict[str, str]:
        """Give the environment as it would be without this session: what a profile may refer to."""
        environ = dict(self._environ)
        _put(environ, {} if self.is_over else self.restored())
        return environ

    def release(self, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """End the session: the environment becomes what it was, and the hold ends, unless work of it goes on.

        Raises nothing: where the end cannot be written down within ``timeout`` (s), the next command does it.
        """
        if self.detach():
            self.record_end(timeout)

    def detach(self) -> bool:
        """Do all of the end that waits for nobody, which ``note_end`` is for; tell whether it was still to be done."""
        with _lock:
            # In a process that was forked, the session is still the parent's.
            if self._over.is_set() or os.getpid() != self._process:
                return False
            self._over.set()
            try:
                _put(self._environ, self.restored())
            finally:
                os.close(self._claim)
            atexit.unregister(self._at_exit)
            return True

    def record_end(self, timeout: float) -> None:
        """Write the end down."""
        try:
            with Lock(self._context.lock, timeout):
                content = files.read_mapping_file(self._context)
                find_active_holds(self._context, content, may_write=True)  # what is over by now goes into the journal
        except TaoprofError:
            pass

    def _at_exit(self) -> None:
        self.release(timeout=EXIT_LOCK_TIMEOUT)

    def __enter__(self) -> Session:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release."""
        self.release()

    def _beat(self) -> None:
        """Show other hosts that share the home that the work lives."""
        while not self._over.wait(HEARTBEAT):
            HoldRecords(self._context).send_heartbeat(self.hold)


_current: list[Session] = []


def current() -> Session | None:
    """Give the session of this process, None where there is none."""
    mine = [one for one in _current if not one.is_over]
    return mine[-1] if mine else None


def _forked() -> None:
    """Begin anew in a child: its parent's session is not its own to end, and its other threads are not there."""
    global _lock  # noqa: PLW0603 - a thread of the parent may have had it
    _lock = threading.RLock()
    _current.clear()


os.register_at_fork(after_in_child=_forked)


def begin(
    name: str,
    environ: MutableMapping[str, str],
    *,
    home: str | None = None,
    shared: bool = False,
    mkdir: bool = False,
    check: bool = True,
    timeout: float = DEFAULT_TIMEOUT,
) -> Session:
    """Give this process a profile, in the place of the one that it has; ``environ`` is the process's environment.

    ``home`` stands for HOME in it, which a notebook's cell may have changed. Raises as ``runs.prepare`` does; then
    everything is as it was.
    """
    with _lock:
        before = current()
        context = Context((before.surroundings() if before else dict(environ)) | ({"HOME": home} if home else {}))
        # Our own hold on the shared file is in nobody's way, if it is only us that hold it.
        release = before.hold.id if before is not None and before.shared and not before.has_work() else None
        wish = RunOptions(shared=shared, mkdir=mkdir, check=check, release=release, allow_overlap=True)
        reason = os.path.basename(environ.get(NAME_VARIABLE, "")) or os.path.basename(sys.argv[0]) or "python"
        run = prepare(context, name, [], kind="notebook", reason=reason, wish=wish, timeout=timeout)
        made = Session(context, name, run, environ)
        try:
            if before is not None:
                before.detach()
            made.enter()
        except BaseException:  # an interrupt: else the hold would live as long as this process
            made.detach()
            raise
        _current[:] = [made]
    if before is not None:
        before.record_end(timeout)  # last of all: to be interrupted in it does no harm
    return made


def _put(environ: MutableMapping[str, str], values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
