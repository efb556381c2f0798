"""The preparation of a run: profile and options are checked, GPUs reserved, the record and the mounts file written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.holds.hold import RUN_VARIABLE, Hold, new_hold
from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.holds.manage import Request, wait_until_free
from taoprofiles.holds.records import HoldRecords, JobRecords, Notifications
from taoprofiles.launcher.argv import launcher_words, parse_launcher_argv, parse_runner, unwrapped
from taoprofiles.launcher.host import runs_in_ci, runs_without_docker
from taoprofiles.masking import mask_command
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.rules.command_paths import CommandContext, find_host_results
from taoprofiles.rules.start import find_missing_program
from taoprofiles.runs import direct, notify, resources
from taoprofiles.runs.foreground import COMMAND_NOT_FOUND, NOT_EXECUTABLE, CommandError
from taoprofiles.runs.run import Run
from taoprofiles.storage import atomic, files
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.switching import preflight
from taoprofiles.switching.switch import kept_message, switch_locked
from taoprofiles.system import processes
from taoprofiles.system.engine import Engine, find_endpoint
from taoprofiles.system.gpus import Gpu, is_count, parse_gpus, to_indices

if TYPE_CHECKING:
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
    kind: str = "run",
    reason: str = "",
    options: RunOptions | None = None,
    turn: Turn | None = None,
    run_type: type[Run] = Run,
) -> Run:
    """Render the profile, check that nothing blocks the run, and create its hold; nothing is started yet.

    ``kind`` is that of the hold, ``run_type`` the type of the result. Raises HeldError for a results folder or a GPU
    that an active run uses (with ``shared`` also as ``switch.switch_profile`` does), InvalidProfileError,
    NotFoundError, UsageError, CannotRenderError, BusyError, CommandError.
    """
    plan = _Plan(context, name, command, options or RunOptions(), kind)
    options, renderer = plan.options, plan.renderer
    folders, unchecked = plan.check(kind if kind != "notebook" else "kernel" if run_type is Run else "use")
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
        warnings += resources.reserve(
            hold, active, options.own_gpus, gpus, retry=plan.waiting_command(hold),
            waiting=turn.ahead if turn else (), allow_overlap=options.allow_overlap,
        )  # fmt: skip
        run.notes = [f"warning: {warning}" for warning in warnings]
        if options.image is None and plan.runner is None and not runs_in_ci(run.environ):
            hold.task = None  # else the container's own command is the task
        # The record first: no switch may happen without it. The run itself blocks none, since it needs the new mapping.
        with preflight.make_folders(folders), plan.recorded(run, targets, turn):
            plan.give_mapping(run)
            if kind == "run":  # last: an agent takes a record that exists for a launch
                image = hold.image or options.image or renderer.image(command)
                JobRecords(context).create(hold, image=image, wanted=renderer.job_record)
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

    ``say`` is called with what it waits for. Raises what ``prepare`` and ``get_request`` do.
    """
    if wait is None:
        return prepare(context, name, command, options=options)
    request = get_request(context, name, command, options)

    def attempt(ahead: Sequence[Request]) -> Run:
        return prepare(context, name, command, options=options, turn=Turn(ahead))

    return wait_until_free(context, request, attempt, seconds=wait, say=say)


def get_request(context: Context, name: str, command: list[str], options: RunOptions) -> Request:
    """Return what a run will need, for the queue.

    What is wrong now is refused now, and not after hours in the queue. Raises InvalidProfileError, NotFoundError,
    UsageError and CommandError.
    """
    plan = _Plan(context, name, command, options)
    plan.choose_targets()
    plan.check("run")
    options = plan.options
    path = {**context.environ, **plan.renderer.variables()}.get("PATH")
    is_here = options.image is None and options.on is None and plan.runner is None
    if is_here and (missing := find_missing_program(command, path, name)):
        raise CommandError(missing[0], COMMAND_NOT_FOUND, missing[1])
    hold = plan.new_hold()
    wanted = None if options.own_gpus is None else parse_gpus(options.own_gpus)
    gpus = resources.ask_driver(context.environ, options.own_gpus, [])
    resources.require_gpus(options.own_gpus, gpus)
    if isinstance(wanted, list):
        wanted = to_indices(wanted, gpus)
    results = [] if options.allow_overlap else hold.results
    return Request(name, hold.command, mapping=options.shared, results=results, gpus=wanted)


class _Plan:
    """A run that is being prepared: its profile, rendered, and its options with the profile's image and GPUs.

    ``runner`` is the command, if it is one of a source tree's runner, which reads the shared mapping file; ``words``
    are the options that were given, for hints.
    """

    def __init__(self, context: Context, name: str, command: list[str], options: RunOptions, kind: str = "run") -> None:
        self.context, self.name, self.command, self.kind = context, name, command, kind
        self._store = Store(context)
        self._source = self._store.source(name)
        self.renderer = self._store.renderer(name, self._source)
        self.runner = parse_runner(command) if kind == "run" else None
        self.words = options.to_words() if kind == "run" else []
        self.options = self._complete(options) if kind == "run" else options
        self._validate()
        self.rendered = self.renderer.mapping()

    def _complete(self, options: RunOptions) -> RunOptions:
        """Return the options with what the profile and the command decide. Raises UsageError."""
        renderer, runner, is_host_only = self.renderer, self.runner, options.image == NO_IMAGE
        image, gpus = None if is_host_only else options.image, options.gpus
        is_launcher = launcher_words(unwrapped(self.command)) is not None
        if options.image is None and not (options.shared or is_launcher or runner):
            image = renderer.image(self.command)
        if gpus is None and (not options.shared or runner) and not (is_host_only and renderer.gpus == "none"):
            gpus = renderer.gpus
        if runner is not None and not options.shared:
            if image is not None or options.on is not None:
                raise UsageError(f"{runner.name} starts its own image, on this machine: leave out --image and --on")
            direct.require_mapping(self.context, self.name, renderer, runner, self.words)
        return replace(options, image=image, gpus=gpus, shared=options.shared or runner is not None)

    def _validate(self) -> None:
        """Raise UsageError for options that exclude each other."""
        options = self.options
        is_elsewhere = options.image is not None or options.on is not None
        if options.shared and is_elsewhere:
            option = "--image" if options.on is None else "--on"
            raise UsageError(
                f"{option} cannot be combined with --shared: without the launcher nothing reads the shared file"
            )
        if options.shared and options.gpus not in (None, "all") and self.runner is None:
            raise UsageError("--gpus cannot be combined with --shared: it needs the run's own mounts file")
        if options.gpus == "none" and not is_elsewhere:
            raise UsageError("--gpus none needs --image: the launcher gives its container every GPU")

    def check(self, doing: str) -> tuple[list[str], list[str]]:
        """Refuse what would certainly fail, and return the folders to create, and what was not checked."""
        options = self.options
        if options.on == "kubernetes":
            return [], []  # the folders are not this machine's
        self._require_engine()
        preflight.require_answer(self.rendered)
        attempt = preflight.Attempt(doing, self.command if doing == "run" else (), self.words)
        if options.image is None and options.on is None:
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
        starts = self.kind == "run" and (options.image is not None or is_launcher)
        if starts and options.on is None and options.check and endpoint.is_denied:
            message = f"cannot start '{self.name}': permission denied: this user may not use the engine"
            raise CommandError(f"{message} at {endpoint.address}", NOT_EXECUTABLE, "taoprof doctor")

    def waiting_command(self, hold: Hold) -> str:
        """Return the command of a run that waits; in the place of a command with a secret is the word COMMAND."""
        shown = self.command if hold.command == self.command else []
        return f"taoprof run {self.name} {preflight.to_arguments(shown, [*self.words, '--wait'])}"

    def choose_targets(self) -> tuple[list[str], list[str]]:
        """Return who is told at the end, and warnings about them. Raises UsageError."""
        wanted = self.options.notify if self.kind == "run" else [notify.NONE]
        return notify.choose_targets(self.renderer, wanted, self.context.environ)

    def new_hold(self, reason: str = "") -> Hold:
        """Return the hold of this process for the run; its secrets are masked."""
        context, renderer, on = self.context, self.renderer, self.options.on
        is_run, mounts = self.kind == "run", mapping.mounted(self.rendered)
        task = CommandContext(mounts, renderer.variables(), context.environ, reads_specs=on != "kubernetes")
        return new_hold(
            context,
            self.kind,
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
            results=find_host_results(self.command, task) if is_run else [],
            gpus=resources.visible_in_container(self.rendered) if is_run and on is None else None,
        )

    def set_command(self, run: Run) -> bool:
        """Set the command of a job or of ``docker run``; return False for a run with another command.

        It is called twice: without the run's id, to refuse what is wrong before anything is written, and with it.
        """
        if self.options.on is not None:
            from taoprofiles.runs import cluster

            cluster.plan_job(run, self.renderer, self.command, self.options)
            return True
        if self.options.image is not None:
            wanted = resources.with_tag(self.rendered, run.hold)
            direct.use_docker(run, self.renderer, self.command, self.options, wanted)
            return True
        return False

    def ask_driver(self, hold: Hold) -> list[Gpu]:
        """Return the GPUs, if the run needs to know them; jobs of clusters that may have ended are asked for as well.

        Not under the lock: without persistence mode the driver takes seconds.
        """
        records = HoldRecords(self.context)
        if self.options.on is not None or any(record.cluster for record in records.all({})):
            from taoprofiles.runs import cluster

            cluster.refresh_writers(self.context, hold)
        own_gpus = self.options.own_gpus
        return resources.ask_driver(self.context.environ, own_gpus, [] if own_gpus is None else records.all({}))

    @contextmanager
    def recorded(self, run: Run, targets: list[str], turn: Turn | None) -> Iterator[None]:
        """Write the record of the run; an error in the block undoes that. Needs the lock."""
        records, hold = HoldRecords(self.context), run.hold
        on_end = self.renderer.hook("on_end") if self.kind == "run" else ""
        if turn is None or turn.hold is None:
            run.liveness_fd = records.create(hold, targets=targets, on_end=on_end)
        else:
            hold.id, run.liveness_fd, run.was_queued = turn.hold.id, turn.liveness_fd, True
            Notifications(self.context).register(hold.id, targets, on_end)
            records.write(hold)
        run.environ[RUN_VARIABLE] = hold.id
        try:
            yield
        except BaseException:
            if turn is None or turn.hold is None:
                os.close(run.liveness_fd)
                records.delete(hold.id)
            else:
                records.write(turn.hold)
                Notifications(self.context).register(hold.id, targets, "")
            raise

    def give_mapping(self, run: Run) -> None:
        """Switch the shared mapping file, write the run's own mounts file, or make its command. Needs the lock."""
        context, options, hold = self.context, self.options, run.hold
        if options.shared and self._store.source(self.name) != self._source:
            raise TaoprofError(f"profile '{self.name}' was changed at this moment", hint="run the command again")
        if self.set_command(run):
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
