"""A session: this process itself, a notebook's kernel or a program, has a profile for as long as it lives.

Its environment gets the profile's variables, the path of its own mounts file or of the shared one, and the run tag by
which what it starts is recognised. The hold ends with the process, or with what it started if that is still running.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.holds.liveness import HEARTBEAT, find_active_holds
from taoprofiles.holds.records import HoldRecords
from taoprofiles.runs.run import PROFILE_VARIABLE, Run, RunOptions, prepare
from taoprofiles.storage import files
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes

_OWN_VARIABLES = (PROFILE_VARIABLE, RUN_VARIABLE, "LAUNCHER_MOUNTS")

NAME_VARIABLE = "JPY_SESSION_NAME"
"""The path of a kernel's notebook, set by Jupyter's server (jupyter_server 2.0 and later)."""

EXIT_LOCK_TIMEOUT = 1.0
"""Seconds to wait for the lock when the process exits; without it, the next command records the end."""

_lock = threading.RLock()
"""Makes threads begin and end sessions one by one: of two that begin at once, one would never be released."""

_sessions: list[Session] = []


class Session:
    """A profile in use by this process; ``release`` ends it.

    - ``name``, ``hold``, ``shared``, ``notes``, ``variables``, ``secrets``: see ``runs.run.Run``
    - ``mapping``: the profile's; ``wanted``: the content of the mounts file
    - ``assigned``: everything that the environment gets; None for a variable that is unset
    """

    def __init__(self, context: Context, name: str, run: Run, environ: MutableMapping[str, str]) -> None:
        self.name, self.hold, self.shared = name, run.hold, run.hold.shared
        self.mapping, self.wanted = run.rendered, run.wanted
        self.notes = list(run.notes)
        self.variables, self.secrets = run.variables, run.secrets
        self.assigned = {key: run.environ.get(key) for key in (*self.variables, *_OWN_VARIABLES)}
        self._context, self._claim, self._environ = context, run.claim, environ
        self._process = os.getpid()
        self._ended = threading.Event()
        self._before: dict[str, str | None] = {}

    def enter(self) -> None:
        """Change the environment, and end the session when the process exits."""
        self._before = {key: self._environ.get(key) for key in self.assigned}
        _update(self._environ, self.assigned)
        threading.Thread(target=self._send_heartbeats, daemon=True, name="taoprof-session").start()
        atexit.register(self.release, timeout=EXIT_LOCK_TIMEOUT)

    @property
    def mounts_file(self) -> str:
        """The mounts file that a launcher reads which is started from here."""
        return self._context.mapping_file if self.shared else HoldRecords(self._context).mounts_path(self.hold.id)

    @property
    def is_over(self) -> bool:
        """True if the session has been released."""
        return self._ended.is_set()

    def overridden(self) -> dict[str, str | None]:
        """Return the current value of each variable that was changed since the session began."""
        return {
            key: self._environ.get(key)
            for key, value in self.assigned.items()
            if self._environ.get(key) != value and not self.is_over
        }

    def restored(self) -> dict[str, str | None]:
        """Return the values that ``release`` restores: of all variables that were not changed since."""
        return {key: old for key, old in self._before.items() if self._environ.get(key) == self.assigned[key]}

    def has_work(self) -> bool:
        """Check whether a process or a container that was started from here is still running."""
        tags = (tag for pid, tag in processes.with_variable(self._context.uid, RUN_VARIABLE) if pid != self._process)
        if self.hold.id in tags:
            return True
        hold = find_active_holds(self._context, files.read_mapping_file(self._context)).find(self.hold.id)
        return hold is not None and hold.container is not None

    def surroundings(self) -> dict[str, str]:
        """Return the environment without this session's changes, to which a profile may refer."""
        environ = dict(self._environ)
        _update(environ, {} if self.is_over else self.restored())
        return environ

    def release(self, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """End the session: restore the environment, and end the hold unless its work is still running.

        Raises nothing: what cannot be recorded within ``timeout`` (s), the next command records.
        """
        if self.detach():
            self.record_end(timeout)

    def detach(self) -> bool:
        """End the session without recording it, which needs a lock; return whether it had not ended yet."""
        with _lock:
            # In a forked process, the session is still the parent's.
            if self._ended.is_set() or os.getpid() != self._process:
                return False
            self._ended.set()
            try:
                _update(self._environ, self.restored())
            finally:
                os.close(self._claim)
            atexit.unregister(self.release)
            return True

    def record_end(self, timeout: float) -> None:
        """Record the end, as every search that may write does for ended work. Raises nothing."""
        with suppress(TaoprofError), Lock(self._context.lock, timeout):
            find_active_holds(self._context, files.read_mapping_file(self._context), may_write=True)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _send_heartbeats(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            HoldRecords(self._context).send_heartbeat(self.hold)


def current() -> Session | None:
    """Return the session of this process, or None."""
    return next((session for session in reversed(_sessions) if not session.is_over), None)


def _reset_after_fork() -> None:
    """Forget the session, which is the parent's, and the lock, which a thread of the parent may have."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    _sessions.clear()


os.register_at_fork(after_in_child=_reset_after_fork)


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
    """Make this process use a profile in place of its present one; ``environ`` is the process's environment.

    ``home`` replaces HOME, which a notebook's cell may have changed. Raises what ``run.prepare`` does; then nothing has
    changed.
    """
    with _lock:
        before = current()
        context = Context((before.surroundings() if before else dict(environ)) | ({"HOME": home} if home else {}))
        # The previous session's hold on the shared file does not block this one, unless its work is still running.
        release = before.hold.id if before is not None and before.shared and not before.has_work() else None
        options = RunOptions(shared=shared, mkdir=mkdir, check=check, release=release, allow_overlap=True)
        reason = os.path.basename(environ.get(NAME_VARIABLE, "")) or os.path.basename(sys.argv[0]) or "python"
        run = prepare(context, name, [], kind="notebook", reason=reason, options=options, timeout=timeout)
        session = Session(context, name, run, environ)
        try:
            if before is not None:
                before.detach()
            session.enter()
        except BaseException:  # such as KeyboardInterrupt: or the hold would live as long as this process
            session.detach()
            raise
        _sessions[:] = [session]
    if before is not None:
        before.record_end(timeout)  # last, since an interrupt here does no harm
    return session


def _update(environ: MutableMapping[str, str], values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
