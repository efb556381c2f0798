"""Runs: a command with a profile's variables and a mounts file of its own, held for as long as its work lives."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.holds.hold import OWN_KINDS, RUN_VARIABLE, Hold
from taoprofiles.holds.liveness import HEARTBEAT, find_active_holds
from taoprofiles.holds.manage import new_hold
from taoprofiles.holds.records import HoldRecords
from taoprofiles.launcher.quoting import quote_argv
from taoprofiles.masking import without_secrets
from taoprofiles.mounts import comparison, mapping, paths
from taoprofiles.profiles.store import Store
from taoprofiles.runs import resources
from taoprofiles.runs.docker_run import Direct
from taoprofiles.runs.monitor import Monitor
from taoprofiles.storage import atomic, files
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.switching import preflight
from taoprofiles.switching.switch import kept_note, switch
from taoprofiles.system import gpus, processes
from taoprofiles.system.engine import Engine, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.storage.paths import Context

PROFILE_VARIABLE = "TAOPROF_PROFILE"
"""In the environment of a run and a shell: the profile's name, for prompts."""

SETTLE = 3.0
"""Seconds to wait for the engine's word on how the task ended, after the launcher has."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""The exit statuses that a shell gives for such a command."""

REFUSED, _NONE = 125, range(125, 128)
"""What ``docker run`` exits with where no container was started; the second with those of a shell."""


class CommandError(TaoprofError):
    """The command to run cannot be started; the exit status is a shell's."""

    code = "no-command"

    def __init__(self, message: str, status: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class RunOptions:
    """What a run asks for beside its profile and its command.

    ``gpus``: see ``sharing.parse_gpus``; ``release``: a hold that must not stand in the way, and ``check``, as in
    ``switch.use``; ``image``: no launcher, but a container of this image; ``terminal``: with a terminal in it.
    """

    __slots__ = ("allow_overlap", "check", "gpus", "image", "mkdir", "release", "shared", "terminal")

    def __init__(
        self,
        *,
        mkdir: bool = False,
        check: bool = True,
        allow_overlap: bool = False,
        shared: bool = False,
        gpus: str | None = None,
        release: str | None = None,
        image: str | None = None,
        terminal: bool = False,
    ) -> None:
        self.mkdir, self.allow_overlap, self.shared, self.gpus = mkdir, allow_overlap, shared, gpus
        self.release, self.check, self.image, self.terminal = release, check, image, terminal


class Run:
    """A run that has been given its hold and not been started yet. ``start`` it once, then ``finish`` it.

    ``environ`` is what its command gets, the profile's ``variables`` in it (``secrets`` names what is secret: see
    ``Renderer``); ``rendered`` is the profile's mapping, and ``wanted`` what its containers are to have, which for an
    isolated run has its mark too. ``argv`` is what is started in the place of the command: ``docker run``.
    """

    def __init__(
        self, context: Context, hold: Hold, claim: int, wanted: dict[str, Any], environ: dict[str, str]
    ) -> None:
        self._context, self.hold, self.claim = context, hold, claim
        self.wanted, self.environ = wanted, environ
        self.argv: list[str] | None = None
        self.notes: list[str] = []
        self.variables: dict[str, str] = {}
        self.secrets: tuple[set[str], set[str]] = (set(), set())
        self.rendered = wanted
        self._beaten = time.monotonic()
        self._say: Callable[[str], None] = lambda text: None
        self._monitor = Monitor(environ, hold.id, appeared=self._bind, tick=self._beat)

    def start(self, command: list[str], *, say: Callable[[str], None], stdout: int | None = None) -> int:
        """Run the command in the foreground; return what it exits with, 128+n where signal n ended it.

        It stays in our process group, so that the terminal's signals and its job control are its own; what is sent to
        us alone is handed on. ``say`` is told what is worth telling meanwhile. Raises CommandError.
        """
        self._say, command = say, self.argv or command
        for text in self.notes:
            say(text)
        self._monitor.start()
        self._monitor.listening.wait(2)  # the container must not start before we listen
        process: subprocess.Popen[bytes] | None = None
        early: list[int] = []

        def hand_on(number: int, _: object) -> None:
            if process is None:
                early.append(number)
            else:
                process.send_signal(number)

        # Handlers, not SIG_IGN, which the command would inherit. Ctrl-C and Ctrl-\\ come to the whole group anyhow.
        # What is ignored already (nohup, a script's background) stays so for both.
        handlers: dict[signal.Signals, Any] = {signal.SIGINT: _nothing, signal.SIGQUIT: _nothing}
        handlers |= {signal.SIGTERM: hand_on, signal.SIGHUP: hand_on, signal.SIGUSR1: hand_on, signal.SIGUSR2: hand_on}
        handlers = {number: to for number, to in handlers.items() if signal.getsignal(number) is not signal.SIG_IGN}
        if threading.current_thread() is not threading.main_thread():
            handlers = {}  # only the main thread may have any (a program that calls us from another one)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            # Whatever the caller has open for the command, such as <(…), stays open; our own are closed by exec.
            os.set_inheritable(self.claim, True)
            words = quote_argv(command, self.environ)
            process = subprocess.Popen(words, env=self.environ, close_fds=False, stdout=stdout)  # noqa: S603
            for number in early:
                process.send_signal(number)
            status = process.wait()
        except FileNotFoundError:
            hint = "the command stands behind '--', as in 'taoprof run NAME -- tao model …'"
            hint = "install Docker's command line, such as Debian's docker.io" if self.argv else hint
            raise CommandError(f"there is no command '{command[0]}'", NOT_FOUND, hint) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL, or no text, from a program that calls us
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise CommandError(f"'{command[0]}' cannot be started: {reason}", NOT_EXECUTABLE, "") from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return status if status >= 0 else 128 - status

    def finish(self, status: int, *, is_launcher: bool) -> int:
        """Record the end, unless the work goes on; return the exit status of the task itself.

        The command's own failure counts first; where it says that all is well, the last task that it started does.
        """
        # A docker command that is killed is gone before the engine tells of its container; one without any says so.
        self._monitor.wait_for_exit(
            SETTLE, expect_one=status not in _NONE if self.argv else is_launcher and status == 0
        )
        ours = self._monitor.containers
        going_on = [one for one in ours if not one.over and self._runs(one.id)]
        if self.argv is not None:
            if status == REFUSED and not ours:
                self._say(f"the engine did not start the container (exit status {REFUSED})")
        elif status == 0 and ours:
            last = ours[-1].status
            if last is None and not going_on:
                self._say_unknown(self._monitor.problem or "the engine did not tell")
            status = 1 if last is None else last
        elif status == 0 and is_launcher and self._monitor.absent:
            self._say("there is no engine here: the exit status is the launcher's own")
        elif status == 0 and is_launcher and self.environ.get("TAO_DOCKER_DISABLE") != "1":
            self._say_unknown(self._monitor.problem or "no container of it was seen")
            status = 1
        elif status == 0 and self._monitor.problem and not self._monitor.absent:
            self._say(f"the engine could not be asked ({self._monitor.problem}): how a task ended is not known")
        os.close(self.claim)
        if going_on or self._has_processes():
            what = f"container {going_on[0].id[:6]}" if going_on else "a process of it"
            self._say(f"{what} goes on, so the hold stays: 'taoprof stop {self.hold.id}' ends it")
            return status
        self.hold.ended, self.hold.status = time.time(), status
        try:
            with Lock(self._context.lock):
                HoldRecords(self._context).end(self.hold)
        except TaoprofError as error:  # a full disk must not hide how the training ended
            self._say(f"warning: the end of the run could not be recorded: {error.message}")
        return status

    def _say_unknown(self, reason: str) -> None:
        self._say(
            f"the task's own exit status could not be seen ({reason}); the launcher's is 0 whatever happens, so this "
            "counts as failed"
        )

    def give_up(self) -> None:
        """Take the hold away of a run whose command could not be started."""
        os.close(self.claim)
        with Lock(self._context.lock):
            HoldRecords(self._context).delete(self.hold.id)

    def _has_processes(self) -> bool:
        """Whether a process of the run goes on: one that inherited the claim, or one that only has the mark."""
        marks = (mark for _, mark in processes.marked(self._context.uid, RUN_VARIABLE))
        return HoldRecords(self._context).is_locked(self.hold) or self.hold.id in marks

    def _runs(self, container: str) -> bool:
        try:
            seen = Engine(self.environ).inspect(container)
        except EngineError:
            return True
        return bool(seen and seen["Running"])

    def _bind(self, seen: dict[str, Any]) -> None:
        """Note the container, and say at once if it is not what the profile asked for."""
        told = comparison.differences(self.wanted, seen, self.environ)
        about = {"container": seen["Id"], "image": seen["Image"], "phase": "bound", "differences": told}
        try:
            with Lock(self._context.lock):
                # Read anew: somebody may have released it meanwhile, or taken the record away.
                noted = HoldRecords(self._context).get(self.hold.id)
                for hold in (self.hold, noted):
                    for name, value in about.items():
                        if hold is not None:
                            setattr(hold, name, value)
                if noted is not None:
                    HoldRecords(self._context).write(noted)
        except TaoprofError as error:
            told = [*told, f"the container could not be noted: {error.message}"]
        for line in told:
            self._say(f"warning: container {seen['Id'][:6]}: {line}")

    def _beat(self) -> None:
        if time.monotonic() - self._beaten >= HEARTBEAT:
            self._beaten = time.monotonic()
            HoldRecords(self._context).send_heartbeat(self.hold)


def prepare(
    context: Context,
    name: str,
    command: list[str],
    *,
    kind: str = "run",
    reason: str = "",
    wish: RunOptions | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Run:
    """Render the profile, make sure that nobody is in the way, and hold; nothing has been started then.

    Raises HeldError for a results folder or a GPU that a live run has (with ``shared`` also as ``switch.use`` does),
    InvalidProfileError, NotFoundError, UsageError, BusyError.
    """
    wish = wish or RunOptions()
    store = Store(context)
    text = store.text(name)
    renderer = store.renderer(name, text)
    variables, wanted = renderer.variables(), renderer.mapping()
    missing = preflight.to_make(
        context, wanted, name=name, mkdir=wish.mkdir, check=wish.check, doing="use" if kind == "notebook" else kind,
        command=[] if kind != "run" or wish.image else command, variables=variables,
    )  # fmt: skip
    mounts = mapping.mounted(wanted)
    hold = new_hold(context, kind)
    hold.profile, hold.shared, hold.pid, hold.reason = name, wish.shared, os.getpid(), reason
    secrets = renderer.secrets()
    hold.command = without_secrets(command, [variables[variable] for variable in secrets[0]])
    hold.start, hold.engine = processes.start_time(hold.pid) or 0, Engine(context.environ).address
    hold.digest, hold.mounts = mapping.digest(mapping.to_bytes(wanted)), [list(pair) for pair in mounts.items()]
    _check(wish)
    straight = Direct.of(context, hold, renderer, wish.image, command, has_terminal=wish.terminal)
    present = gpus.indices() if wish.gpus is not None and isinstance(resources.parse_gpus(wish.gpus), int) else None
    hold.results = paths.host_paths(paths.results_folders(command, variables), mounts) if kind == "run" else []
    with Lock(context.lock, timeout):
        content = files.read_mapping_file(context)
        stock = find_active_holds(context, content, may_write=True)
        living = [one for one in stock.holds if one.kind in OWN_KINDS and not one.released]
        if not wish.allow_overlap:
            resources.check_results(name, hold, living)
        hold.gpus = resources.choose_gpus(
            name, wish.gpus, present, [one for one in living if processes.same_machine(one.place, hold.place)]
        )
        preflight.make(missing)
        records = HoldRecords(context)
        notes = [f"warning: {text}" for text in stock.unseen]
        environ = {**context.environ, **variables, PROFILE_VARIABLE: name}
        own = argv = None
        if hold.gpus and hold.gpus != "all" and wish.image is None:
            _set_env(wanted, "CUDA_VISIBLE_DEVICES", ",".join(hold.gpus))
        claim = records.create(hold)  # before the switch, which must not be done if this fails; it is in nobody's way
        environ[RUN_VARIABLE] = hold.id
        try:
            if wish.shared:
                notes += _switched(context, name, text, wish)
                environ.pop("LAUNCHER_MOUNTS", None)
            else:
                own = _with_mark(wanted, hold.id)
                if straight is not None:
                    argv = straight.docker_run(own, environ, notes)
                else:
                    environ["LAUNCHER_MOUNTS"] = _own_file(records, hold, own)
        except BaseException:
            os.close(claim)
            records.delete(hold.id)
            raise
    run = Run(context, hold, claim, own or wanted, environ)
    run.notes, run.variables, run.rendered, run.secrets, run.argv = notes, variables, wanted, secrets, argv
    return run


def _set_env(wanted: dict[str, Any], name: str, value: str) -> None:
    others = [item for item in wanted.get("Envs", []) if item["variable"] != name]
    wanted["Envs"] = [*others, {"variable": name, "value": value}]


def _check(wish: RunOptions) -> None:
    if wish.shared and wish.image is not None:
        raise UsageError("without the launcher nothing reads the shared file, so --image does not go with --shared")
    if wish.shared and wish.gpus not in (None, "all"):
        raise UsageError("--gpus needs a mounts file of the run's own, so it does not go with --shared")
    if wish.gpus == "none" and wish.image is None:
        raise UsageError("the launcher gives its container every GPU, so --gpus none needs --image")


def _switched(context: Context, name: str, text: bytes, wish: RunOptions) -> list[str]:
    if Store(context).text(name) != text:
        raise TaoprofError(f"profile '{name}' was changed in this moment", hint="run the command again")
    return kept_note(switch(context, name, check=wish.check, release=wish.release).kept)


def _own_file(records: HoldRecords, hold: Hold, own: dict[str, Any]) -> str:
    atomic.replace(records.mounts_path(hold.id), mapping.to_bytes(own))
    return records.mounts_path(hold.id)


def _with_mark(wanted: dict[str, Any], hold_id: str) -> dict[str, Any]:
    """Give the mapping with the run's mark in the container's environment, by which its container is known."""
    marked = {"Mounts": wanted["Mounts"], "Envs": wanted.get("Envs", []), **wanted}
    _set_env(marked, RUN_VARIABLE, hold_id)
    return marked


def _nothing(*_: object) -> None:
    pass
