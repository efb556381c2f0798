"""Runs: a command with a profile's variables and its own mounts file, held for as long as its work is alive.

Also its signals and its terminal, and the monitor that follows the engine's events: which containers it has, and the
exit statuses of their tasks.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import TaoprofError, UsageError, reason_of
from taoprofiles.holds.hold import RUN_VARIABLE, ContainerTask, Hold, without_run_tag
from taoprofiles.holds.liveness import HEARTBEAT
from taoprofiles.holds.logs import RunLog, trim
from taoprofiles.holds.queue import wait_for_exit
from taoprofiles.holds.records import HoldRecords
from taoprofiles.launcher import probes, simulation
from taoprofiles.launcher.argv import parse_launcher_argv, unwrapped
from taoprofiles.launcher.behaviour import runs_without_docker
from taoprofiles.launcher.quoting import quote_argv
from taoprofiles.rules.start import explain_not_found
from taoprofiles.runs import notify
from taoprofiles.runs.progress import find_reported_failure
from taoprofiles.runs.tee import copied_output
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context, to_bytes
from taoprofiles.system import processes
from taoprofiles.system.engine import Engine, EngineError

if TYPE_CHECKING:
    from taoprofiles.profiles.rendering import Renderer


COMMAND_NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""The exit statuses of a shell for such a command."""

_SHELLS = frozenset("bash dash fish ksh sh tcsh zsh".split())

_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class CommandError(TaoprofError):
    """The command cannot be started; the exit status is a shell's."""

    code = "no-command"

    def __init__(self, message: str, status: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@contextmanager
def forwarded_signals() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Forward signals to the command that the yielded function is called with, also those that came before.

    SIGINT and SIGQUIT of the terminal reach the whole process group anyway, so here they are caught only. They are not
    ignored, since the command would inherit that; what is ignored already (nohup) stays so for both.
    """
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def handle(number: int, _: object) -> None:
        if number not in (signal.SIGINT, signal.SIGQUIT):
            if started:
                started[0].send_signal(number)
            else:
                early.append(number)

    def forward_to(process: subprocess.Popen[bytes]) -> None:
        started.append(process)
        for number in early:
            process.send_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows no other thread to set handlers
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield forward_to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminal_input(is_needed: bool) -> Iterator[int | None]:
    """Yield the descriptor of a new terminal to use as standard input, or None to inherit the present one.

    Under nohup, cron or CI, the launcher's ``docker exec -it`` fails at once ("the input device is not a TTY"), and the
    launcher reports success. ``"tty": false`` in the mounts file is no way out: the launcher starts the image's shell
    without a standard input, so without a terminal the shell, and with it the container, ends before the task starts.
    """
    if not is_needed:
        yield None
        return
    controller, terminal = os.openpty()
    # The launcher keeps it open too: without it the terminal hangs up when we are killed, and 'docker exec' ends.
    os.set_inheritable(controller, True)
    try:
        yield terminal
    finally:
        os.close(terminal)
        os.close(controller)


def wait_for_session(uid: int, run_id: str) -> None:
    """Wait for what a run's command left behind in the session of this process, before their terminal hangs up.

    Such as the ``docker exec`` of a launcher that was killed: it goes on to write the task's output into the log.
    """
    session, own = os.getsid(0), os.getpid()
    while True:
        pids: list[int] = []
        with suppress(TaoprofError):  # no more files can be opened: it looks again later
            tagged = processes.with_variable(uid, RUN_VARIABLE)
            pids = [pid for pid, tag in tagged if tag == run_id and pid != own and processes.session(pid) == session]
            if not pids:
                return
        wait_for_exit(pids, HEARTBEAT)


REPLAY = 1.0
"""Seconds of events that are requested again after the stream broke; events that come twice count once."""


class Monitor(threading.Thread):
    """Follows the events until the process ends, and tells ``run`` about its containers, in this thread."""

    def __init__(self, run: Run) -> None:
        super().__init__(daemon=True, name="taoprof-monitor")
        self._engine = Engine(without_run_tag(run.environ))  # for the client of an engine behind ssh
        self._hold_id, self._run, self._task = run.hold.id, run, run.hold.task
        self._since = time.time()
        self._handled: deque[tuple[object, ...]] = deque(maxlen=1000)
        self._known: dict[str, ContainerTask | None] = {}  # None: another's
        self._unknown: set[str] = set()
        self._changed = threading.Condition()
        self.listening = threading.Event()
        self.problem = ""
        self.absent = False
        self.stopped = threading.Event()

    @property
    def containers(self) -> list[ContainerTask]:
        """The run's containers, in the order in which they were started."""
        return [container for container in list(self._known.values()) if container is not None]

    def run(self) -> None:
        """Follow the events until ``stopped`` is set; if the stream breaks, start again a little before that."""
        failures = 0
        while not self.stopped.is_set():
            try:
                for event in self._engine.events(self._since):
                    self.listening.set()
                    self.problem, failures = "", 0
                    self._run.tick()
                    if self.stopped.is_set():
                        break
                    if event is not None:
                        self._handle(event)
            except EngineError as error:
                with self._changed:
                    self.problem, self.absent = str(error), error.absent
                    self._changed.notify_all()
            self.listening.set()
            self._run.tick()
            failures += 1
            self.stopped.wait(0.5 if failures < 20 else 5)  # a notebook may be open for days, without an engine

    def wait_until_over(self, seconds: float, *, expect_one: bool = False, ids: Collection[str] | None = None) -> None:
        """Wait, ``seconds`` at most, until every container has exited; with ``expect_one``, also for the first one.

        With ``ids``, only these containers count. If the engine does not answer, no first one is waited for.
        """

        def is_over() -> bool:
            exited = [
                container.is_over and (container.status is not None or container.task is None)
                for container in self.containers
                if ids is None or container.id in ids
            ]
            return all(exited) and (bool(exited) or not expect_one or bool(self.problem))

        with self._changed:
            self._changed.wait_for(is_over, seconds)

    def _handle(self, event: dict[str, Any]) -> None:
        container_id, action = event["Id"], event["Action"]
        self._since = event["Stamp"] / 1e9 - REPLAY
        key = (event["Stamp"], container_id, action, event["Task"])
        if key in self._handled:
            return
        self._handled.append(key)
        container = self._own_container(container_id, action, has_label=event["Run"] == self._hold_id)
        if container is None:
            return
        was_over = container.is_over
        with self._changed:
            is_task = container.handle(event)
            self._changed.notify_all()
        if is_task:
            self._run.task_started(container)
        if container.is_over and not was_over:
            self._run.container_ended(container)

    def _own_container(self, container_id: str, action: str, *, has_label: bool) -> ContainerTask | None:
        container = self._known.get(container_id)
        is_first_event = action in ("start", "exec_create", "exec_start") or container_id in self._unknown
        if container is not None or not is_first_event or (container_id in self._known and action == "start"):
            return container
        try:
            facts = self._engine.inspect(container_id)
            is_own = facts is not None and f"{RUN_VARIABLE}={self._hold_id}" in facts["Env"]
            is_own = is_own or (facts is not None and action != "start" and self._has_own_client(container_id))
        except (EngineError, TaoprofError):
            self._unknown.add(container_id)  # to be inspected at its next event
            return None
        self._unknown.discard(container_id)
        if facts is None:
            if has_label:  # it was removed before it could be inspected; its end is still to come
                self._known[container_id] = ContainerTask(container_id, self._task)
            return self._known.get(container_id)
        if not is_own:
            self._known.setdefault(container_id, None)
            return None
        container = self._known[container_id] = ContainerTask(container_id, self._task)
        self._run.container_started(facts)
        return container

    def _has_own_client(self, container_id: str) -> bool:
        """Check whether the run started the docker exec in a container. With the mapping file it has no run tag."""
        return any(
            process.container == container_id and processes.environment(process.pid).get(RUN_VARIABLE) == self._hold_id
            for process in processes.scan()
        )


PROFILE_VARIABLE = "TAOPROF_PROFILE"
"""The environment variable with the profile's name in a run and in a shell, for prompts."""

EXIT_TIMEOUT = 3.0
"""Seconds to wait for the engine's events about the end of the task after the launcher has ended."""

KILLED = 128 + 9
"""The exit status of a command that was ended by SIGKILL."""

DOCKER_REFUSED, NO_CONTAINER = 125, range(125, 128)
"""The exit statuses of ``docker run`` if no container was started; the second also has those of a shell."""


class Run:
    """A run that has a hold and has not been started yet: call ``start`` once, then ``finish``.

    - ``hold``; ``liveness_fd``: the descriptor that keeps it alive
    - ``variables``: the profile's
    - ``rendered``: the profile's mapping; ``wanted``: what the containers are to get; with the run tag if isolated
    - ``environ``: the environment of the command; ``argv``: ``docker run`` in place of the command, if not None
    - ``is_runner``: that is not a docker command, but a source tree's runner, which always exits with 0
    - ``notes``: warnings for the user
    - ``job_text``, ``job_secrets``: what the client of a cluster gets: a script or manifest, and the secrets' values
    - ``log``: has its output, None for a shell or a kernel
    - ``was_queued``: its id is known already, so that its end is recorded even if its command cannot be started
    """

    def __init__(self, context: Context, hold: Hold, renderer: Renderer) -> None:
        self.context, self.hold, self.liveness_fd = context, hold, -1
        self.variables = renderer.variables()
        self._secret_values = [value for _, value in renderer.secret_values()]
        self.rendered = self.wanted = renderer.mapping()
        self.environ = {**context.environ, **self.variables, PROFILE_VARIABLE: hold.profile or ""}
        self.argv: list[str] | None = None
        self.job_text = ""
        self.job_secrets: dict[str, str] = {}
        self.notes: list[str] = []
        self.on_start = renderer.template["on_start"]
        self.log: RunLog | None = None
        self.was_queued = False
        self._is_log_complete = True
        self._is_launcher = self.is_runner = False
        self._sender: subprocess.Popen[bytes] | None = None
        self._heartbeat = time.monotonic()
        self._say: Callable[[str], None] = lambda text: None
        self.monitor: Monitor

    def shell_command(self, shell: str) -> list[str]:
        """Return the command for an interactive shell with the user's own settings and a prefix in its prompt."""
        kind, folder = os.path.basename(shell), os.path.join(os.path.dirname(__file__), "shells")
        if kind == "bash":
            return [shell, "--rcfile", os.path.join(folder, "bashrc"), "-i"]
        if kind == "zsh":
            self.environ["TAOPROF_ZDOTDIR"] = self.environ.get("ZDOTDIR", self.context.home)
            self.environ["ZDOTDIR"] = os.path.join(folder, "zsh")
            return [shell, "-i"]
        if kind == "fish":
            return [shell, "-C", f"source {shlex.quote(os.path.join(folder, 'prompt.fish'))}"]
        self.environ["PS1"] = f"(taoprof:{self.hold.profile}) $ "
        return [shell]

    def watch(self, say: Callable[[str], None]) -> None:
        """Follow the engine's events about the containers of the run; ``say`` is called with warnings."""
        self._say = say
        self.monitor = Monitor(self)
        self.monitor.start()

    def start(
        self,
        command: list[str],
        *,
        say: Callable[[str], None],
        stdout: int | None = None,
        on_started: Callable[[], None] | None = None,
    ) -> int:
        """Run the command in the foreground; return its exit status, 128+n if signal n ended it.

        It stays in this process group, so the terminal's signals and job control reach it directly; signals that only
        this process gets are forwarded. ``say`` is called with messages meanwhile. ``on_started`` is that of a detached
        run, all of whose output goes into the log; it is called when the command has been started. Raises CommandError,
        and then deletes the hold.
        """
        if self.hold.kind == "run":
            self.log = RunLog(self.context, self.hold.id)
        launch = parse_launcher_argv(unwrapped(command))
        self._is_launcher = launch is not None and launch.task[:1] not in ("", "-")
        try:
            for text in self.notes:
                say(text)
            self.run_on_start(say)
            self.watch(say)
            self.monitor.listening.wait(2)  # an event before that would be missed
            return self._execute(self.argv or command, stdout, on_started)
        except BaseException as error:  # such as an exception of ``say``
            if self.was_queued:
                raise  # ``start._Starter`` records its end
            if isinstance(error, CommandError):
                self.discard()
            self.release_liveness()  # or the hold would live as long as this process
            raise

    def run_on_start(self, say: Callable[[str], None]) -> None:
        """Run the profile's hook, if it has one and this is no shell or kernel; ``say`` is called if that fails."""
        if not self.on_start or self.hold.kind != "run":
            return
        try:
            problem = notify.run_hook("on_start", self.on_start, self.hold, self.context.environ)
        except (KeyboardInterrupt, SystemExit):
            self.discard()
            raise
        if problem:
            say(f"warning: {problem}")

    def discard(self) -> None:
        """Delete the hold of work that has not started. Raises nothing: what stays, the next command ends."""
        if self.log is not None:
            self.log.delete()
        with suppress(TaoprofError), Lock(self.context.lock):
            HoldRecords(self.context).delete(self.hold.id)
        self.release_liveness()  # the record goes first: a guard would record its end as that of a run

    def finish(self, status: int) -> int:
        """Record the end, unless work is still running; return the exit status of the task itself.

        A failure of the command comes first; if it reports success, the first task that did not end with 0 counts.
        """
        # A docker command that is killed ends before the engine reports its container.
        # A launcher that was killed may have asked for one a moment before.
        expect_one = status not in NO_CONTAINER if self.argv else self._is_launcher and status in (0, KILLED)
        self.monitor.wait_until_over(EXIT_TIMEOUT, expect_one=expect_one)
        containers = self.monitor.containers
        running = [container for container in containers if not container.is_over and self.is_running(container.id)]
        if self.argv is None:
            status = self._task_status(status, containers, running)
        elif status == 0:  # of each container with Podman 4.3 and --rm, and of each with a source tree's runner
            status = next((container.status for container in containers if container.status), 0)
            if self.is_runner and not containers:
                status = 1
                self._say("it exited with 0, but started no container: the run is treated as failed (exit status 1)")
        elif status == DOCKER_REFUSED and not containers:
            self._say(f"the engine did not start the container (exit status {DOCKER_REFUSED})")
        is_over = False
        try:
            # Under the lock: a command that finds the hold without a process would record an end of unknown status.
            with Lock(self.context.lock):
                self.release_liveness()
                is_over = self._end_hold(status, running)
        except TaoprofError as error:  # a full disk must not hide how the training ended
            self._say(f"warning: the end of the run could not be recorded: {error.message}")
        finally:
            self.release_liveness()
        try:  # until the end has been told and ``on_end`` has run
            if self._sender is not None:
                self._sender.wait(notify.TIME_LIMIT)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            self._say("the notification or 'on_end' is still running in the background")
        has_report = is_over and status == 0 and self.hold.results  # a status file is in a results folder
        with suppress(TaoprofError):  # other holds that cannot be listed must not replace the exit status
            if has_report and (failure := find_reported_failure(self.hold, HoldRecords(self.context).all({}))):
                self._say(f"warning: the task exited with 0, but {failure}")
        if is_over and self.log is not None and self._is_log_complete:
            self.log.mask(self._secret_values)
        return status

    def _end_hold(self, status: int, running: list[ContainerTask]) -> bool:
        """End the hold, unless work is still running; return whether it has ended."""
        if running or self._has_processes():
            what = f"container {running[0].id[:6]}" if running else "a process of the run"
            self._say(f"{what} is still running, so the hold stays: 'taoprof stop {self.hold.id}' stops it")
            if not any(container.task for container in running):
                # Of the command, for whoever records the end of what it has left behind.
                HoldRecords(self.context).update(self.hold, status=status)
            return False
        self.hold.ended, self.hold.status = time.time(), status
        self._sender = HoldRecords(self.context).end(self.hold, attended=True)
        return True

    def release_liveness(self) -> None:
        """Close the descriptor that keeps the hold alive; the command may have inherited it."""
        if self.liveness_fd >= 0:
            os.close(self.liveness_fd)
            self.liveness_fd = -1

    def _execute(self, command: list[str], stdout: int | None, on_started: Callable[[], None] | None) -> int:
        is_shell = os.path.basename(command[0]) in _SHELLS and all(word.startswith("-") for word in command[1:])
        # None in a shell in which somebody types
        log = None if on_started or (is_shell and os.isatty(0)) else self.log
        try:
            wants_terminal = self.wanted.get("DockerOptions", {}).get("tty") is not False
            with (
                forwarded_signals() as forward_to,
                terminal_input(self._is_launcher and wants_terminal and not processes.has_terminal()) as stdin,
                copied_output(log, stdout, self.context.environ, self._say) as tee,
            ):
                # Other descriptors that the caller has open for the command, such as <(…), are inherited too.
                os.set_inheritable(self.liveness_fd, True)
                program = unwrapped(command)[:1]
                words = quote_argv(command, self.environ, lambda: probes.version_of(program[0], self.environ))
                environ = {to_bytes(name): to_bytes(value) for name, value in self.environ.items()}
                process = subprocess.Popen(  # noqa: S603
                    list(map(to_bytes, words)),
                    env=environ,
                    close_fds=False,
                    stdin=stdin,
                    stdout=tee.stdout if tee else stdout,
                    stderr=tee.stderr if tee else None,
                )  # fmt: skip
                if tee:
                    tee.close()
                forward_to(process)
                if on_started:
                    on_started()
                status = process.wait()
                if on_started:
                    wait_for_session(self.context.uid, self.hold.id)
            self._is_log_complete = tee is None or tee.is_complete
        except FileNotFoundError:
            message, hint = f"command not found: '{command[0]}'", "install Docker's command line, such as docker.io"
            if self.is_runner:
                hint = "it is a function of a source tree: source scripts/envsetup.sh there"
            elif self.argv is None:
                message, hint = explain_not_found(command, self.environ.get("PATH"), self.hold.profile or "NAME")
            raise CommandError(message, COMMAND_NOT_FOUND, hint) from None
        except UsageError as error:
            raise CommandError(error.message, error.status, error.hint) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL or no text, from a program that uses the API
            reason = reason_of(error)
            raise CommandError(f"'{command[0]}' cannot be started: {reason}", NOT_EXECUTABLE, "") from None
        return status if status >= 0 else 128 - status

    def _task_status(self, status: int, containers: list[ContainerTask], running: list[ContainerTask]) -> int:
        """Return the task's exit status. The launcher's own is 0 whatever happens to the task."""
        if status != 0:
            if (
                self._is_launcher
                and not containers
                and status < DOCKER_REFUSED
                and not runs_without_docker(self.environ)
            ):
                self._say(
                    f"the launcher ended (exit status {status}) without a container. To find the reason: taoprof doctor"
                )
            return status
        problem, unknown = self.monitor.problem, "cannot determine whether the task succeeded: {}"
        failed = next((container for container in containers if container.status != 0), None)
        if failed is not None and (failed.status is not None or failed in running):
            return failed.status or 1
        if failed is not None and failed.is_over and failed.task is None and not failed.is_docker_run:
            message = f"the task did not start: container {failed.id[:6]} ended without it"
        elif failed is not None:
            message = unknown.format(problem or "the engine did not report it")
        elif self._is_launcher and not containers and not runs_without_docker(self.environ):
            nothing = "no task started in its container" if self.hold.shared else "it started no container"
            message = unknown.format(problem or nothing)
        else:
            if problem and not self.monitor.absent and not containers:
                self._say(f"cannot query the container engine ({problem}); the exit status of the task is unknown")
            elif self._is_launcher and not containers:
                self._say("the launcher exits with 0 also if its task fails: TAO_DOCKER_DISABLE hides the exit status")
            return 0
        self._say(f"{message}. The launcher always exits with 0, so the run is treated as failed (exit status 1)")
        if not self._is_launcher and not processes.has_terminal():
            self._say("a launcher that a script starts needs a terminal: script -qec 'COMMAND' /dev/null")
        return 1

    def _has_processes(self) -> bool:
        """Check whether a process of the run is alive: one that inherited the descriptor, or has only the run tag."""
        try:
            tags = {tag for _, tag in processes.with_variable(self.context.uid, RUN_VARIABLE)}
            return HoldRecords(self.context).is_locked(self.hold) or self.hold.id in tags
        except (OSError, TaoprofError):  # such as no more descriptors; the next command finds out
            return True

    def is_running(self, container_id: str) -> bool:
        """Check whether a container is running. What cannot be asked counts."""
        try:
            container = Engine(self.environ).inspect(container_id)
        except EngineError:
            return True
        return bool(container and container["Running"])

    def container_started(self, facts: dict[str, Any]) -> None:
        """Record a new container, and warn at once if it differs from what the profile asks for."""
        container_id, differences = facts["Id"], simulation.differences(self.wanted, facts, self.environ)
        warnings = list(differences)
        try:
            with Lock(self.context.lock):
                HoldRecords(self.context).update(
                    self.hold, container=container_id, image=facts["Image"], phase="bound", differences=differences,
                    task=self.hold.task and None,
                )  # fmt: skip
        except TaoprofError as error:
            warnings.append(f"the container could not be recorded: {error.message}")
        for warning in warnings:
            self._say(f"warning: container {container_id[:6]}: {warning}")

    def task_started(self, container: ContainerTask) -> None:
        """Record which ``docker exec`` is the task, for whoever finds the run without this process and the launcher."""
        # A task "" is the container's own command: there is no docker exec to record.
        if self.hold.task is None and self.hold.container == container.id:
            with suppress(TaoprofError), Lock(self.context.lock):
                HoldRecords(self.context).update(self.hold, task=container.task or None)

    def container_ended(self, container: ContainerTask) -> None:
        """Handle the end of a container: nothing, since ``finish`` looks at all of them."""

    def tick(self) -> None:
        """Keep the log short, and send a heartbeat to other hosts if it is time; called every few seconds."""
        if self.log is not None:
            trim(self.log.path)
        if time.monotonic() - self._heartbeat >= HEARTBEAT:
            self._heartbeat = time.monotonic()
            HoldRecords(self.context).send_heartbeat(self.hold)
