"""A session: this process itself, a notebook's kernel or a program, has a profile for as long as it lives.

Its environment gets the profile's variables, the path of its own mounts file or of the shared one, and the run tag by
which what it starts is recognised. The hold ends with the process, or with what it started if that is still running.

``taoprof run NAME -- PYTHON -m ipykernel_launcher …`` becomes such a kernel: the process is replaced, not the kernel's
parent, so pid, signals and the parent that the kernel watches are those of a plain kernel. If the profile cannot be
used, it becomes a kernel whose cells say why.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, cast

from taoprofiles.errors import InvalidStateError, NotFoundError, TaoprofError, UsageError, reason_of
from taoprofiles.holds.hold import (
    RUN_VARIABLE,
    ContainerTask,
    Hold,
    results_conflicts,
    shorten_command,
    without_run_tag,
)
from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.holds.records import HoldRecords
from taoprofiles.masking import mask_command
from taoprofiles.mounts import mapping
from taoprofiles.profiles import kernels
from taoprofiles.profiles.store import Store
from taoprofiles.rules.command_paths import CommandContext, find_host_results
from taoprofiles.runs import kernel_program
from taoprofiles.runs.resources import require_free_results
from taoprofiles.runs.run import EXIT_TIMEOUT, PROFILE_VARIABLE, Run
from taoprofiles.runs.start import RunOptions, prepare
from taoprofiles.storage import files
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.storage.paths import Context, to_bytes
from taoprofiles.system import processes

if TYPE_CHECKING:
    from taoprofiles.profiles.rendering import Renderer
    from taoprofiles.runs.kernel_program import ProfileKernel


_OWN_VARIABLES = (PROFILE_VARIABLE, RUN_VARIABLE, "LAUNCHER_MOUNTS")

NAME_VARIABLE = "JPY_SESSION_NAME"
"""The path of a kernel's notebook, set by Jupyter's server (jupyter_server 2.0 and later)."""

EXIT_LOCK_TIMEOUT = 1.0
"""Seconds to wait for the lock when the process exits; without it, the next command records the end."""

_lock = threading.RLock()
"""Makes threads begin and end sessions one by one: of two that begin at once, one would never be released."""

_sessions: list[Session] = []


class Session(Run):
    """A profile in use by this process; ``release`` ends it.

    - ``name``, ``shared``: those of the hold; ``secrets``: the names of secret variables (see ``Renderer.secrets``)
    - ``assigned``: everything that the environment gets; None for a variable that is unset
    - ``may_overlap``: whether it may start a training that writes to the results folder of another one
    """

    def __init__(self, context: Context, hold: Hold, renderer: Renderer) -> None:
        super().__init__(context, hold, renderer)
        self.name, self.shared, self.secrets = hold.profile or "", hold.shared, renderer.secrets()
        self.assigned: dict[str, str | None] = {}
        self._process = os.getpid()
        self._ended = threading.Event()
        self._environ: MutableMapping[str, str] = {}
        self._before: dict[str, str | None] = {}
        self._tasks: dict[str, Hold] = {}  # the running ones by container, as the journal of runs gets them
        self._starting: list[str] = []  # the results folders of trainings that have no container yet
        self._reported: set[str] = set()
        self._messages: list[str] = []
        self.may_overlap = False

    def enter(
        self, environ: MutableMapping[str, str], assigned: dict[str, str | None], before: dict[str, str | None]
    ) -> None:
        """End the session when the process exits; ``environ`` is changed from ``before`` to ``assigned``."""
        self._environ, self.assigned, self._before = environ, assigned, before
        self.watch(self._messages.append)
        atexit.register(self.release, timeout=EXIT_LOCK_TIMEOUT)

    @property
    def mounts_file(self) -> str:
        """The mounts file that a launcher reads which is started from here."""
        return self.context.mapping_file if self.shared else HoldRecords(self.context).mounts_path(self.hold.id)

    @property
    def is_over(self) -> bool:
        """Check whether the session has been released."""
        return self._ended.is_set()

    def overridden(self) -> dict[str, str | None]:
        """Return the current value of each variable that was changed since the session began."""
        return {
            key: self._environ.get(key)
            for key, value in self.assigned.items()
            if self._environ.get(key) != value and not self.is_over
        }

    def values_to_restore(self) -> dict[str, str | None]:
        """Return the values that ``release`` restores: of all variables that were not changed since."""
        return {key: old for key, old in self._before.items() if self._environ.get(key) == self.assigned[key]}

    def has_work(self) -> bool:
        """Check whether a process or a container that was started from here is still running."""
        tags = (tag for pid, tag in processes.with_variable(self.context.uid, RUN_VARIABLE) if pid != self._process)
        if self.hold.id in tags:
            return True
        hold = find_active_holds(self.context, files.read_mapping_file(self.context)).find(self.hold.id)
        return hold is not None and hold.container is not None

    def original_environ(self) -> dict[str, str]:
        """Return the environment without this session's changes, to which a profile may refer."""
        environ = dict(self._environ)
        _update(environ, {} if self.is_over else self.values_to_restore())
        return environ

    def release(self, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """End the session: restore the environment, and end the hold unless its work is still running.

        Raises nothing: what cannot be recorded within ``timeout`` (s), the next command records.
        """
        if self.end_without_record():
            self.record_end(timeout)

    def end_without_record(self) -> bool:
        """End the session without recording it, which needs a lock; return whether it had not ended yet."""
        with _lock:
            # In a forked process, the session is still the parent's.
            if self._ended.is_set() or os.getpid() != self._process:
                return False
            self._ended.set()
            try:
                _update(self._environ, self.values_to_restore())
            finally:
                os.close(self.liveness_fd)
            atexit.unregister(self.release)
            return True

    def record_end(self, timeout: float) -> None:
        """Record the end, as every search that may write does for ended work. Raises nothing."""
        with suppress(TaoprofError), Lock(self.context.lock, timeout):
            find_active_holds(self.context, files.read_mapping_file(self.context), may_write=True)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # The containers that were started from here

    def require_free_results(self, words: list[str]) -> None:
        """Raise HeldError if a launcher command that is about to start here writes where another run is writing.

        Until its container exists, or ``forget_unstarted``, no other run may write there either.
        """
        results = [] if self.may_overlap else self._results(words, {**self.variables, **self._environ})
        if results:
            hint = "choose another folder with -r, or wait until it has ended"
            with Lock(self.context.lock):
                require_free_results(self.hold, self._other_holds(), results, hint=hint)
                self._starting += results
                self._write_record()

    def forget_unstarted(self) -> None:
        """Free the results folders of trainings whose launchers have ended without a container."""
        with suppress(TaoprofError):  # what cannot be looked at may be running: the next cell looks again
            if self._starting and not self.has_work():
                self._starting.clear()
                self._update_record()

    def task_started(self, container: ContainerTask) -> None:
        """Record the command of a task and its results folders, which no other run may write meanwhile."""
        results = self._results(container.command, self.variables)
        fields = {"since": time.time(), "command": self._command(container), "results": results}
        task = Hold(**{**self.hold.as_dict(), **fields, "container": container.id})
        with suppress(TaoprofError):
            for other, folder in results_conflicts(self._other_holds(), results):
                self._messages.append(f"warning: another training is also writing to '{folder}': {other.line()}")
        self._tasks[container.id] = task
        self._starting = [folder for folder in self._starting if folder not in results]
        self._update_record()

    def container_ended(self, container: ContainerTask) -> None:
        """Record how a task ended."""
        task = self._tasks.pop(container.id, None)
        if task is not None:
            task.ended, task.status = time.time(), container.status
        self._update_record(task)

    def tick(self) -> None:
        """Send a heartbeat to other hosts, if it is time; after the session, stop when the last container has ended."""
        super().tick()
        if self.is_over and all(container.is_over for container in self.monitor.containers):
            self.monitor.stopped.set()

    def containers(self) -> set[str]:
        """Return the ids of the containers that were started from here until now."""
        return {container.id for container in self.monitor.containers}

    def take_ended(self) -> list[tuple[str, bool, str]]:
        """Return each container that has ended since the last call: its id, whether it succeeded, and a message."""
        monitor = self.monitor
        running = [container.id for container in monitor.containers if not container.is_over]
        # The engine's events about one that has just ended may be on their way.
        recently_ended = {container_id for container_id in running if not self.is_running(container_id)}
        monitor.wait_until_over(EXIT_TIMEOUT, ids=recently_ended)
        ended = [task for task in monitor.containers if task.is_over and task.id not in self._reported]
        self._reported.update(task.id for task in ended)
        return [(task.id, task.status == 0, self._outcome(task)) for task in ended]

    def take_messages(self) -> list[str]:
        """Return the warnings about containers since the last call."""
        messages, self._messages[:] = list(self._messages), []
        return messages

    def _results(self, words: list[str], variables: Mapping[str, str]) -> list[str]:
        return find_host_results(words, CommandContext(dict(self.hold.mounts), variables, self.context.environ))

    def _other_holds(self) -> list[Hold]:
        holds = find_active_holds(self.context, files.read_mapping_file(self.context)).holds
        return [hold for hold in holds if hold.id != self.hold.id and not hold.released]

    def _outcome(self, container: ContainerTask) -> str:
        name = f"container {container.id[:6]}"
        if container.status is None and container.task is None:
            return f"{name} ended before a task had started in it"
        status = "an unknown exit status" if container.status is None else f"exit status {container.status}"
        command = shorten_command(self._command(container)) or "a task"
        return f"'{command}' ended with {status} ({name})"

    def _command(self, container: ContainerTask) -> list[str]:
        return mask_command(container.command, self._secret_values)

    def _update_record(self, ended: Hold | None = None) -> None:
        """Write which tasks are running now to the record, and ``ended`` to the journal of runs."""
        try:
            with Lock(self.context.lock):
                if ended is not None:
                    HoldRecords(self.context).add_ended(ended)
                self._write_record()
        except TaoprofError as error:
            self._messages.append(f"warning: the tasks of this notebook could not be recorded: {error.message}")

    def _write_record(self) -> None:
        """Write to the record what is running now. Needs the lock. Raises TaoprofError."""
        running = list(self._tasks.values())
        results = self._starting + [folder for task in running for folder in task.results]
        newest = running[-1] if running else None
        HoldRecords(self.context).update(
            self.hold, results=results, command=newest.command if newest else [],
            container=newest.container if newest else None, phase="bound" if newest else "pending",
        )  # fmt: skip


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

    ``home`` replaces HOME, which a notebook's cell may have changed. Raises what ``prepare`` does; then nothing has
    changed.
    """
    with _lock:
        before = current()
        context = Context((before.original_environ() if before else dict(environ)) | ({"HOME": home} if home else {}))
        # The previous session's hold on the mapping file does not block this one, unless its work is still running.
        release = before.hold.id if before is not None and before.shared and not before.has_work() else None
        options = RunOptions(
            shared=shared, mkdir=mkdir, check=check, release=release, allow_overlap=True, timeout=timeout
        )
        reason = os.path.basename(environ.get(NAME_VARIABLE, "")) or os.path.basename(sys.argv[0]) or "python"
        run = prepare(context, name, [], doing="use", reason=reason, options=options, run_type=Session)
        session = cast("Session", run)
        session.may_overlap = not check
        try:
            if before is not None:
                before.end_without_record()
            assigned = {key: session.environ.get(key) for key in (*session.variables, *_OWN_VARIABLES)}
            session.enter(environ, assigned, {key: environ.get(key) for key in assigned})
            _update(environ, assigned)
        except BaseException:  # such as KeyboardInterrupt: or the hold would live as long as this process
            session.end_without_record()
            raise
        _sessions[:] = [session]
    if before is not None:
        before.record_end(timeout)  # last, since an interrupt here does no harm
    return session


def adopt(kernel: ProfileKernel, environ: MutableMapping[str, str]) -> None:
    """Make the profile that this kernel was started with its session. Raises TaoprofError."""
    with _lock:
        original = dict(environ)
        _update(original, kernel.before)
        context = Context(original)
        hold = HoldRecords(context).get(kernel.run)
        if hold is None:
            raise InvalidStateError(f"hold {kernel.run} of this kernel was released")
        session = Session(context, hold, Store(context).renderer(kernel.profile))
        session.liveness_fd, session.environ = kernel.fd, dict(environ)
        content = files.read(session.mounts_file, files.MAPPING_LIMIT)
        if content is not None:  # the profile may have changed since
            session.wanted = mapping.parse(content, session.mounts_file)
            envs = [item for item in session.wanted.get("Envs", []) if item["variable"] != RUN_VARIABLE]
            rest = {key: value for key, value in session.wanted.items() if key != "Envs"}
            session.rendered = rest | ({"Envs": envs} if envs else {})
        session.variables = {name: kernel.assigned[name] or "" for name in session.variables if name in kernel.assigned}
        session.enter(environ, kernel.assigned, kernel.before)
        _sessions[:] = [session]


def _update(environ: MutableMapping[str, str], values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value


def is_kernel_command(command: list[str], options: RunOptions) -> bool:
    """Check whether a run is a kernel with its own mounts file."""
    return command[1:3] == ["-m", "ipykernel_launcher"] and not options.shared and not (options.image or options.on)


def start_kernel(context: Context, name: str, command: list[str], options: RunOptions) -> NoReturn:
    """Become the kernel. Raises TaoprofError only if no Python with ipykernel is left that could show the reason."""
    python = command[0]
    try:
        problem, _ = kernels.python_problem(python, context.environ)
        if problem:
            raise UsageError(
                f"'{python}' cannot run a kernel: {problem}",
                hint=f"to choose another Python: taoprof kernel install {name} --python PATH",
            )
        reason = os.path.basename(context.environ.get(NAME_VARIABLE, "")) or "kernel"
        run = prepare(context, name, [], doing="kernel", reason=reason, options=options)
        try:
            os.set_inheritable(run.liveness_fd, True)
            before = {name: context.environ.get(name) for name in (*run.variables, PROFILE_VARIABLE, "LAUNCHER_MOUNTS")}
            settings = {"profile": run.hold.profile, "run": run.hold.id, "fd": run.liveness_fd, "before": before}
            # The commands beside its Python and 'taoprof' are on PATH.
            folders = context.environ.get("PATH", os.defpath).split(os.pathsep)
            folders = [folder for folder in (os.path.dirname(python),) if folder not in folders] + folders
            folders += [folder for folder in (os.path.dirname(kernels.taoprof()),) if folder not in folders]
            environ = {**without_run_tag(run.environ), "PATH": os.pathsep.join(folders)}
            _exec_kernel(python, command[3:], environ, settings)
        except BaseException:
            run.discard()
            raise
    except TaoprofError as error:
        _exec_failing_kernel(context, name, command, error)


def _exec_kernel(
    python: str, arguments: list[str], environ: Mapping[str, str], settings: Mapping[str, object]
) -> NoReturn:
    environ = {**environ, kernel_program.SETTINGS: json.dumps(settings)}
    encoded = {to_bytes(name): to_bytes(value) for name, value in environ.items()}
    try:
        os.execve(python, [python, kernel_program.__file__, *arguments], encoded)  # noqa: S606
    except (OSError, ValueError) as error:
        raise TaoprofError(f"'{python}' cannot be started: {reason_of(error)}") from None


def _exec_failing_kernel(context: Context, name: str, command: list[str], error: TaoprofError) -> NoReturn:
    """Become a kernel whose cells fail with the error. The server's own Python has ipykernel if no other has it."""
    if isinstance(error, NotFoundError):
        error.hint = f"'taoprof list' shows all; to remove this kernel: taoprof kernel remove {name}"
    text = "; ".join([error.message, *error.problems]) + (f". hint: {error.hint}" if error.hint else "")
    settings = {"error": f"{text}. Then restart the kernel"}
    server = files.try_read(f"/proc/{os.getppid()}/cmdline", 1 << 20)[0].partition(b"\0")[0].decode(errors="replace")
    for candidate in (command[0], sys.executable, server, "python3"):
        python = shutil.which(candidate, path=context.environ.get("PATH"))
        if python is not None and not kernels.python_problem(python, context.environ)[0]:
            _exec_kernel(python, command[3:], context.environ, settings)
    raise error
