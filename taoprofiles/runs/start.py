"""The start of a run: profile and options are checked, GPUs reserved, the record and the mounts file written.

A detached run is a process that waits for the run's command in a session of its own, with a log and no terminal. With
``--wait`` it first waits in the queue. The run then has a record of its own from the beginning, in the phase "queued",
so that it is found, followed, stopped and ended like any other.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.holds.hold import QUEUED, RUN_VARIABLE, Hold, new_hold
from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.holds.logs import RunLog
from taoprofiles.holds.queue import Request, wait_until_free
from taoprofiles.holds.records import HoldRecords, JobRecords, Notifications
from taoprofiles.launcher.argv import launcher_words, parse_launcher_argv, parse_runner, unwrapped
from taoprofiles.launcher.behaviour import runs_in_ci, runs_without_docker
from taoprofiles.masking import mask_command
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.rules.command_paths import CommandContext, find_host_results
from taoprofiles.rules.start import find_missing_program
from taoprofiles.runs import direct, jobs, notify, resources
from taoprofiles.runs.run import COMMAND_NOT_FOUND, NOT_EXECUTABLE, CommandError, Run
from taoprofiles.storage import atomic, files
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.switching import preflight
from taoprofiles.switching.switch import kept_message, switch_locked
from taoprofiles.system import processes
from taoprofiles.system.engine import Engine, find_endpoint
from taoprofiles.system.gpus import Gpu, is_count, parse_gpus, to_indices
from taoprofiles.system.systemd import SCOPE_TIMEOUT, Manager, NoManagerError, lingers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taoprofiles.storage.paths import Context


NO_IMAGE = "none"
"""In place of an image: the command runs on this machine, although the profile has an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of a run.

    - ``mkdir``: create missing source folders; ``check``: refuse what would certainly fail
    - ``allow_overlap``: start even if another run writes to the same results folder
    - ``shared``: use the shared mapping file; ``release``: the id of a hold that does not block that switch
    - ``gpus``: see ``gpus.parse_gpus``; None is what the profile says
    - ``notify``: who is told at the end, in place of the profile's ``notify``: see ``notify.choose_targets``
    - ``image``: run a container of this image without the launcher; ``terminal``: with a terminal in it. None is the
      profile's image, unless the command is a launcher; NO_IMAGE a command of this machine
    - ``on``: run it as a job of this cluster, "slurm" or "kubernetes"
    - ``detach``: it is to run in the background; ``timeout``: seconds to wait for the lock
    """

    mkdir: bool = False
    check: bool = True
    allow_overlap: bool = False
    shared: bool = False
    gpus: str | None = None
    release: str | None = None
    notify: Sequence[str] | None = None
    image: str | None = None
    on: str | None = None
    terminal: bool = False
    detach: bool = False
    timeout: float = DEFAULT_TIMEOUT

    @property
    def is_elsewhere(self) -> bool:
        """Check whether the command runs without the launcher: in a container of ``image``, or on a cluster."""
        return self.image is not None or self.on is not None

    @property
    def own_gpus(self) -> str | None:
        """Return ``gpus`` as far as they are this machine's: a cluster chooses its own."""
        return self.gpus if self.on is None else None

    def to_words(self) -> list[str]:
        """Return the options as words of a command line to paste; the address of a notification is left out."""
        named = [("--notify", word if word in (notify.NONE, notify.DESKTOP) else "…") for word in self.notify or ()]
        valued = (("--gpus", self.gpus), ("--image", self.image), ("--on", self.on), *named)
        flags = (("--mkdir", self.mkdir), ("--shared", self.shared), ("--detach", self.detach))
        words = [word for option, value in valued if value is not None for word in (option, value)]
        return words + [option for option, is_given in flags if is_given]


class Turn(NamedTuple):
    """The turn of a run that waits in the queue.

    ``ahead`` are the requests before it, whose GPUs are left to them. ``hold`` and ``liveness_fd`` are those of a
    detached run, which has its record since it waits.
    """

    ahead: Sequence[Request]
    hold: Hold | None = None
    liveness_fd: int = -1


def prepare(
    context: Context,
    name: str,
    command: list[str],
    *,
    doing: str = "run",
    reason: str = "",
    options: RunOptions | None = None,
    turn: Turn | None = None,
    run_type: type[Run] = Run,
) -> Run:
    """Render the profile, check that nothing blocks the run, and create its hold; nothing is started yet.

    ``doing`` is what is to be started: "run", "shell", "kernel", or "use" for this process itself; ``run_type`` is the
    type of the result. Raises HeldError for a results folder or a GPU that an active run uses (with ``shared`` also as
    ``switch.switch_profile`` does), InvalidProfileError, NotFoundError, UsageError, CannotRenderError, BusyError,
    CommandError.
    """
    plan = _Plan(context, name, command, options or RunOptions(), doing)
    options, renderer = plan.options, plan.renderer
    folders, unchecked = plan.check()
    targets, warnings = plan.choose_targets()
    hold = plan.new_hold(reason)
    run = run_type(context, hold, renderer)
    plan.set_command(run)  # first, so that nothing is done if it is refused
    gpus = plan.ask_driver(hold)
    if turn is None:  # else ``get_request`` has done it, and a driver may respond again
        resources.require_gpus(options.own_gpus, gpus)
    with Lock(context.lock, options.timeout):
        mapping_file, others = files.read_mapping_file(context), is_count(options.own_gpus)
        active = find_active_holds(context, mapping_file, may_write=True, others=others)
        warnings += [*unchecked, *([] if options.on else active.unchecked)]
        # In the place of a command with a secret is the word COMMAND.
        retry = preflight.to_arguments(command if hold.command == command else [], [*plan.words, "--wait"])
        warnings += resources.reserve(
            hold, active, options.own_gpus, gpus, retry=f"taoprof run {name} {retry}",
            waiting=turn.ahead if turn else (), allow_overlap=options.allow_overlap,
        )  # fmt: skip
        run.notes = [f"warning: {warning}" for warning in warnings]
        if options.image is None and plan.runner is None and not runs_in_ci(run.environ):
            hold.task = None  # else the container's own command is the task
        # The record first: no switch may happen without it. The run itself blocks none, since it needs the new mapping.
        with preflight.make_folders(folders), plan.recorded(run, targets, turn):
            plan.give_mapping(run)
            if plan.is_run:  # last: an agent takes a record that exists for a launch
                image = hold.image or options.image or renderer.image(command)
                JobRecords(context).create(hold, image=image, wanted=renderer.template["job_record"])
    return run


def prepare_when_free(
    context: Context,
    name: str,
    command: list[str],
    options: RunOptions,
    *,
    wait: float | None,
    say: Callable[[str], None],
) -> Run:
    """Prepare a run, with ``wait`` as soon as nothing blocks it, or give up after so many seconds.

    ``say`` is called with what it waits for. Raises what ``prepare`` does.
    """
    if wait is None:
        return prepare(context, name, command, options=options)
    request = _Plan(context, name, command, options).get_request()

    def attempt(ahead: Sequence[Request]) -> Run:
        return prepare(context, name, command, options=options, turn=Turn(ahead))

    return wait_until_free(context, request, attempt, seconds=wait, say=say)


class _Plan:
    """A run that is being prepared: its profile, rendered, and its options with the profile's image and GPUs.

    ``runner`` is the command, if it is one of a source tree's runner, which reads the shared mapping file; ``words``
    are the options that were given, for hints.
    """

    def __init__(
        self, context: Context, name: str, command: list[str], options: RunOptions, doing: str = "run"
    ) -> None:
        self.context, self.name, self.command, self.doing = context, name, command, doing
        self.is_run = doing == "run"
        self._store = Store(context)
        self._source = self._store.source(name)
        self.renderer = self._store.renderer(name, self._source)
        self.runner = parse_runner(command) if self.is_run else None
        self.words = options.to_words() if self.is_run else []
        self.options = self._complete(options) if self.is_run else options
        self.rendered = self.renderer.mapping()

    def _complete(self, options: RunOptions) -> RunOptions:
        """Return the options with what the profile and the command decide.

        Raises UsageError for options that exclude each other.
        """
        renderer, runner, is_host_only = self.renderer, self.runner, options.image == NO_IMAGE
        image, gpus = None if is_host_only else options.image, options.gpus
        is_launcher = launcher_words(unwrapped(self.command)) is not None
        if options.image is None and not (options.shared or is_launcher or runner):
            image = renderer.image(self.command)
        own_gpus = renderer.template["gpus"]
        if gpus is None and (not options.shared or runner) and not (is_host_only and own_gpus == "none"):
            gpus = own_gpus
        if runner is not None and not options.shared:
            if image is not None or options.on is not None:
                raise UsageError(f"{runner.name} starts its own image, on this machine: leave out --image and --on")
            context = self.context
            if not mapping.same(files.read_mapping_file(context), mapping.to_bytes(renderer.mapping())):
                words = preflight.to_arguments(runner.words, [*self.words, "--shared"])
                raise UsageError(
                    f"{runner.name} reads only {context.short(context.mapping_file)}, which has another mapping",
                    hint=f"to switch it: taoprof run {self.name} {words}",
                )
        options = replace(options, image=image, gpus=gpus, shared=options.shared or runner is not None)
        if options.shared and options.is_elsewhere:
            option = "--image" if options.on is None else "--on"
            raise UsageError(
                f"{option} cannot be combined with --shared: without the launcher nothing reads the mapping file"
            )
        if options.shared and gpus not in (None, "all") and runner is None:
            raise UsageError("--gpus cannot be combined with --shared: it needs the run's own mounts file")
        if gpus == "none" and not options.is_elsewhere:
            raise UsageError("--gpus none needs --image: the launcher gives its container every GPU")
        return options

    def check(self) -> tuple[list[str], list[str]]:
        """Refuse what would certainly fail, and return the folders to create, and what was not checked."""
        options = self.options
        if options.on == "kubernetes":
            return [], []  # the folders are not this machine's
        self._require_engine()
        preflight.require_answer(self.rendered)
        attempt = preflight.Attempt(self.doing, self.command if self.is_run else (), self.words)
        if not options.is_elsewhere:
            folders = preflight.check_mapping(
                self.context, self.rendered, name=self.name, mkdir=options.mkdir, check=options.check, attempt=attempt,
                variables=self.renderer.variables(),
            )  # fmt: skip
            return folders, []
        return preflight.check_direct_run(
            self.context, self.renderer, attempt, image=options.image, gpus=options.gpus, mkdir=options.mkdir,
            check=options.check, on_cluster=options.on is not None,
        )  # fmt: skip

    def _require_engine(self) -> None:
        """Raise CommandError for a container that this user may not start: a detached run would only log that."""
        environ = {**self.context.environ, **self.renderer.variables()}  # the command's
        options, endpoint = self.options, find_endpoint(environ)
        is_launcher = parse_launcher_argv(self.command) is not None and not runs_without_docker(environ)
        starts = self.is_run and (options.image is not None or is_launcher)
        if starts and options.on is None and options.check and endpoint.is_denied:
            message = f"cannot start '{self.name}': permission denied: this user may not use the engine"
            raise CommandError(f"{message} at {endpoint.address}", NOT_EXECUTABLE, "taoprof doctor")

    def choose_targets(self) -> tuple[list[str], list[str]]:
        """Return who is told at the end, and warnings about them. Raises UsageError."""
        wanted = self.options.notify if self.is_run else [notify.NONE]
        return notify.choose_targets(self.renderer, wanted, self.context.environ)

    def new_hold(self, reason: str = "") -> Hold:
        """Return the hold of this process for the run; its secrets are masked."""
        context, renderer, on = self.context, self.renderer, self.options.on
        mounts = mapping.mounted(self.rendered)
        task = CommandContext(mounts, renderer.variables(), context.environ, reads_specs=on != "kubernetes")
        return new_hold(
            context,
            "notebook" if self.doing in ("kernel", "use") else self.doing,
            profile=self.name,
            reason=reason,
            shared=self.options.shared,
            folder=context.folder,
            since=time.time(),
            pid=os.getpid(),
            start=processes.start_time(os.getpid()) or 0,
            command=mask_command(self.command, [value for _, value in renderer.secret_values()]),
            engine=Engine(context.environ).address if on is None else None,
            cluster=on,
            digest=mapping.digest(mapping.to_bytes(self.rendered)),
            mounts=[list(pair) for pair in mounts.items()],
            results=find_host_results(self.command, task) if self.is_run else [],
            gpus=resources.visible_in_container(self.rendered) if self.is_run and on is None else None,
        )

    def set_command(self, run: Run) -> None:
        """Set the command of a job or of ``docker run``, if the run is one.

        It is called twice: without the run's id, to refuse what is wrong before anything is written, and with it.
        """
        if self.options.on is not None:
            jobs.plan_job(run, self.renderer, self.command, self.options)
        elif self.options.image is not None:
            wanted = resources.with_tag(self.rendered, run.hold)
            direct.use_docker(run, self.renderer, self.command, self.options, wanted)

    def get_request(self) -> Request:
        """Return what the run will need, for the queue.

        What is wrong now is refused now, and not after hours in the queue. Raises what ``prepare`` does.
        """
        options = self.options
        self.choose_targets()
        self.check()
        path = {**self.context.environ, **self.renderer.variables()}.get("PATH")
        is_here = not options.is_elsewhere and self.runner is None
        if is_here and (missing := find_missing_program(self.command, path, self.name)):
            raise CommandError(missing[0], COMMAND_NOT_FOUND, missing[1])
        hold = self.new_hold()
        wanted = None if options.own_gpus is None else parse_gpus(options.own_gpus)
        gpus = resources.ask_driver(self.context.environ, options.own_gpus, [])
        resources.require_gpus(options.own_gpus, gpus)
        if isinstance(wanted, list):
            wanted = to_indices(wanted, gpus)
        results = [] if options.allow_overlap else hold.results
        return Request(self.name, hold.command, mapping=options.shared, results=results, gpus=wanted)

    def ask_driver(self, hold: Hold) -> list[Gpu]:
        """Return the GPUs, if the run needs to know them; jobs of clusters that may have ended are asked for as well.

        Not under the lock: without persistence mode the driver takes seconds.
        """
        records = HoldRecords(self.context)
        if self.options.on is not None or any(record.cluster for record in records.all({})):
            jobs.refresh_writers(self.context, hold)
        own_gpus = self.options.own_gpus
        return resources.ask_driver(self.context.environ, own_gpus, [] if own_gpus is None else records.all({}))

    @contextmanager
    def recorded(self, run: Run, targets: list[str], turn: Turn | None) -> Iterator[None]:
        """Write the record of the run; an error in the block undoes that. Needs the lock."""
        records, hold, queued = HoldRecords(self.context), run.hold, turn.hold if turn else None
        on_end = self.renderer.template["on_end"] if self.is_run else ""
        if turn is None or queued is None:
            run.liveness_fd = records.create(hold, targets=targets, on_end=on_end)
        else:
            hold.id, run.liveness_fd, run.was_queued = queued.id, turn.liveness_fd, True
            Notifications(self.context).register(hold.id, targets, on_end)
            records.write(hold)
        run.environ[RUN_VARIABLE] = hold.id
        try:
            yield
        except BaseException:
            if queued is None:
                os.close(run.liveness_fd)
                records.delete(hold.id)
            else:
                records.write(queued)
                Notifications(self.context).register(hold.id, targets, "")
            raise

    def give_mapping(self, run: Run) -> None:
        """Switch the shared mapping file, write the run's own mounts file, or make its command. Needs the lock."""
        context, options, hold = self.context, self.options, run.hold
        if options.shared and self._store.source(self.name) != self._source:
            raise TaoprofError(f"profile '{self.name}' was changed at this moment", hint="run the command again")
        self.set_command(run)
        if options.is_elsewhere:
            return
        run.notes += preflight.explain_read_only(self.renderer, run.rendered)
        records = HoldRecords(context)
        if options.shared:
            hold.content = History(context).store_content(mapping.to_bytes(run.rendered))
            records.write(hold)
            switched = switch_locked(
                context, self.name, check=options.check, release=options.release, answered=run.rendered
            )
            run.notes += kept_message(switched.saved_entry)
            run.environ.pop("LAUNCHER_MOUNTS", None)
        else:
            run.wanted = resources.with_tag(run.rendered, hold, set_gpus=True)
            run.environ["LAUNCHER_MOUNTS"] = path = records.mounts_path(hold.id)
            atomic.replace(path, mapping.to_bytes(run.wanted))
        if self.runner is not None:
            direct.use_runner(run, self.renderer, self.runner, resources.with_tag(run.rendered, hold))


class DetachedRun(NamedTuple):
    """A detached run that has begun.

    - ``id``; ``gpus``: those that it got; ``unit``: its systemd unit, None if it has none
    - ``waiting``: for what it waits in the queue, as a message; "" if its command has been started
    """

    id: str
    gpus: list[str] | str | None
    unit: str | None
    waiting: str = ""


_ERROR_FIELDS = ("message", "problems", "hint", "code", "status", "more")
"""What is reported of an error."""


class _Stopped(BaseException):
    """The run got SIGTERM before its command was started."""


def start_detached(run: Run, command: list[str], *, say: Callable[[str], None]) -> DetachedRun:
    """Start a prepared run that goes on without this process. ``say`` is called in the new process, for its log.

    Raises what ``Run.start`` does, and TaoprofError; then the run does not exist.
    """
    return _Starter(run.context, run.hold, run.liveness_fd, command, say).start(lambda: run)


def start_queued(
    context: Context, name: str, command: list[str], options: RunOptions, *, seconds: float, say: Callable[[str], None]
) -> DetachedRun:
    """Start a run as soon as nothing blocks it, without this process; if that is not now, it waits in the queue.

    After ``seconds``, which may be infinite, it gives up. Raises what ``prepare`` and ``Run.start`` do, as far as that
    is known before it has to wait; then the run does not exist.
    """
    plan = _Plan(context, name, command, options)
    request, pid = plan.get_request(), os.getpid()
    hold = new_hold(
        context, "run", phase=QUEUED, profile=name, command=request.command, folder=context.folder, since=time.time(),
        pid=pid, start=processes.start_time(pid) or 0,
    )  # fmt: skip
    # Without on_end: what ends in the queue has not begun.
    targets, _ = plan.choose_targets()
    with Lock(context.lock):
        liveness_fd = HoldRecords(context).create(hold, targets=targets)
    request = request._replace(run=hold.id)
    starter = _Starter(context, hold, liveness_fd, command, say)

    def attempt(ahead: Sequence[Request]) -> Run:
        return prepare(context, name, command, options=options, turn=Turn(ahead, hold, liveness_fd))

    return starter.start(
        lambda: wait_until_free(context, request, attempt, seconds=seconds, say=starter.report_waiting)
    )


class _Starter:
    """Starts a detached run whose hold has been recorded: it forks, and both processes use this object."""

    def __init__(
        self, context: Context, hold: Hold, liveness_fd: int, command: list[str], say: Callable[[str], None]
    ) -> None:
        self._context, self._hold, self._liveness_fd = context, hold, liveness_fd
        self._command, self._say = command, say
        self._log = RunLog(context, hold.id)
        self._unit: str | None = None
        self._is_started = False
        self._pipe: IO[str]

    def start(self, get_run: Callable[[], Run]) -> DetachedRun:
        """Fork; the new process calls ``get_run`` and starts the command. Return what it reports, or raise it."""
        try:
            log_fd = self._log.create()
            reader, writer = os.pipe()
            sys.stdout.flush(), sys.stderr.flush()
            child = os.fork()
        except BaseException:
            self._delete_record()
            os.close(self._liveness_fd)
            raise
        if child == 0:
            self._pipe = os.fdopen(writer, "w")
            self._run_child(get_run, log_fd)
        for fd in (writer, log_fd, self._liveness_fd):  # what keeps the hold alive is the child's copy
            os.close(fd)
        with open(reader, "rb") as pipe:
            report = json.loads(pipe.read() or b"null")
        if report is None:
            hint = "'taoprof status' shows whether something of it is still running"
            raise TaoprofError(f"run {self._hold.id} was killed while it was being started", hint=hint)
        if "message" in report:
            error = TaoprofError("")
            vars(error).update(report)
            raise error
        return DetachedRun(self._hold.id, **report)

    def report_waiting(self, message: str) -> None:
        """Report to the process that started this one, and in the log, that the run waits."""
        self._say(message)
        self._report(gpus=None, unit=self._unit, waiting=message)

    def _run_child(self, get_run: Callable[[], Run], log_fd: int) -> NoReturn:
        """Get the run, start its command and wait for it, in the new process; exit with the run's status."""
        status = 70
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log_fd, 1), os.dup2(log_fd, 2)
            _close_all_but(0, 1, 2, self._pipe.fileno(), self._liveness_fd)
            status = self._supervise(get_run)
        except _Stopped:
            status = 128 + signal.SIGTERM
            self._say("stopped before the command was started")
            self._end_queued(status)
        except TaoprofError as error:
            status = error.status
            if self._pipe.closed:
                self._say("\n  ".join([f"error: {error.message}", *error.problems]))
                self._end_queued(status)
            else:
                self._log.delete()
                self._delete_record()
                self._report(**{name: getattr(error, name) for name in _ERROR_FIELDS})
        except Exception as error:  # noqa: BLE001 - a fault of this program: its traceback goes into the log
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(status)

    def _supervise(self, get_run: Callable[[], Run]) -> int:
        if self._hold.phase == QUEUED:
            signal.signal(signal.SIGTERM, self._stop)
        if lingers(self._context.uid):
            self._unit = _enter_unit(self._context, self._hold, self._say)
        self._hold.pid, self._hold.start = os.getpid(), processes.start_time(os.getpid()) or 0
        with Lock(self._context.lock):
            HoldRecords(self._context).write(self._hold)
        run = get_run()
        return run.finish(run.start(self._command, say=self._say, on_started=lambda: self._set_started(run)))

    def _stop(self, *_: object) -> None:
        if not self._is_started:  # else ``Run.start`` forwards the signal, or the command has ended already
            raise _Stopped

    def _set_started(self, run: Run) -> None:
        self._is_started = True
        self._report(gpus=run.hold.gpus, unit=self._unit)

    def _end_queued(self, status: int) -> None:
        """Record the end of a run whose command was not started, but whose id is known."""
        with suppress(TaoprofError), Lock(self._context.lock):
            records = HoldRecords(self._context)
            hold = records.get(self._hold.id)
            if hold is not None and not self._is_started:
                hold.ended, hold.status = time.time(), status
                records.end(hold)

    def _delete_record(self) -> None:
        with suppress(TaoprofError), Lock(self._context.lock):
            HoldRecords(self._context).delete(self._hold.id)

    def _report(self, **report: Any) -> None:
        with suppress(OSError, ValueError), self._pipe:  # whoever started it may be gone; a second report is none
            json.dump(report, self._pipe)


def _enter_unit(context: Context, hold: Hold, say: Callable[[str], None]) -> str | None:
    """Put this process into a systemd unit of its own, outside of the login session; return its name.

    It is a scope, not a service: a service would have the user manager's environment, groups and limits instead of
    the shell's, and everybody who may ask systemd for its properties would see the variables that it is given.
    """
    unit = f"taoprof-run-{hold.id}.scope"
    try:
        Manager(context.environ, SCOPE_TIMEOUT).enter_scope(unit, f"taoprof run {hold.profile} ({hold.id})")
    except NoManagerError:
        return None
    except TaoprofError as error:
        say(f"warning: the run has no systemd unit: {error.message}")
        return None
    return unit


def _close_all_but(*kept: int) -> None:
    """Close what the caller has open, such as a pipe whose reader would wait for the end of the run."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))
