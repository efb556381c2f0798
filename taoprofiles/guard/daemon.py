"""The guard as a process: waits for hints, lets the guard look, and keeps systemd, the journal and the desktop told.

Wake-ups while nothing happens: the tick (TICK, or half of the watchdog's time), one of the engine's thread in the same
time, and the retry of an engine that does not answer (after 1 s, then twice as long each time, up to TICK).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING

from taoprofiles.cli.output import note, printable
from taoprofiles.errors import BusyError, TaoprofError
from taoprofiles.guard import config, desktop
from taoprofiles.guard.container_watcher import Following
from taoprofiles.guard.guard import Guard
from taoprofiles.guard.settings import Settings
from taoprofiles.guard.status import Guards
from taoprofiles.guard.watcher import GLANCE, Watchpost
from taoprofiles.launcher.argv import parse_launcher_argv
from taoprofiles.system import processes
from taoprofiles.system.sd_notify import Supervisor
from taoprofiles.version import VERSION

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

TICK = 20.0
"""Seconds between two looks while nothing happens: runs give signs of life in that time (operations/stock.py)."""

OPENED = 0.25
"""Seconds between two looks for new launchers while files are opened all the time."""

AGAIN = 0.1
"""Seconds until a look is made again for which the lock was not to be had."""

START = 5.0
"""Seconds that the engine, and a command that has the lock, have before READY is told all the same."""

NEVER = float("inf")
_LEVELS = {"alert": 4, "warning": 4, "notice": 5, "info": 6, "debug": 7}


class Hints:
    """What woke the loop: words, added by other threads and by signals, and a descriptor to wait on."""

    def __init__(self) -> None:
        # Not a set that is taken away as a whole: a thread that has just got hold of it would add to it too late.
        self._words: deque[str] = deque()
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Give the descriptor."""
        return self._woken.fileno()

    def add(self, word: str) -> None:
        """Wake the loop with a word."""
        self._words.append(word)
        try:
            self._wake.send(b".")
        except BlockingIOError:
            pass  # so many wishes are waiting that it will wake

    def take(self) -> set[str]:
        """Give the words that there are, and begin anew."""
        try:
            self._woken.recv(1 << 16)
        except BlockingIOError:
            pass
        words = set()
        while self._words:
            words.add(self._words.popleft())
        return words


class Daemon:
    """One guard process. ``run`` it once, in the main thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._supervisor = Supervisor(context.environ)
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            context.environ.pop(name, None)  # what we start is not the service
        self._guards = Guards(context, processes.place())
        self._hints = Hints()
        self._settings, self._fault = Settings(), ""
        self._engine = Following(context, TICK, lambda: self._hints.add("engine"))
        self._guard = Guard(context, self._settings, lambda: self._engine.containers, self._say)
        self._post = Watchpost(context, self._hints.add, self._say)
        self._notices: list[subprocess.Popen[bytes]] = []
        self._launchers: set[tuple[int, int | None]] = set()
        self._ends: dict[tuple[int, int], int] = {}
        self._claim = -1
        self._stops = self._has_begun = False
        self._complaint = self._status = ""
        watchdog = self._supervisor.watchdog
        self._tick = TICK if watchdog is None else min(TICK, watchdog / 2)
        # When what is due, by the monotonic clock.
        self._next_tick = self._last_search = 0.0
        self._next_look = self._next_search = NEVER
        self._backoff = AGAIN

    def run(self) -> None:
        """Guard the file until SIGTERM or SIGINT. Raises GuardedError where another guard does, TaoprofError."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "_stops", True))
        signal.signal(signal.SIGHUP, lambda *_: self._hints.add("settings"))
        # A read lease (world/writers.py) is broken, with this signal, by a writer that comes in the same moment.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._claim = self._guards.begin()
        self._read_settings()
        self._engine.start()
        self._post.arm()
        end = time.monotonic() + START
        while not self._stops and not self._engine.looked.wait(0.05) and time.monotonic() < end:
            pass
        if not self._stops:
            self._look()
        while not self._stops and self._next_look < NEVER and not self._complaint and time.monotonic() < end:
            time.sleep(AGAIN)  # another command has the lock
            self._look()
        self._say("info", f"taoprofiles {VERSION} guards {self._context.short(self._context.mapping_file)}")
        self._supervisor.tell(READY="1")
        while not self._stops:
            self._step()
        self._supervisor.tell(STOPPING="1")
        try:
            if self._guards.is_ours(self._claim):
                self._guard.end()
        except Exception as error:  # noqa: BLE001 - it ends, whatever nobody thought of
            self._say("warning", f"the seal stays, and the next taoprof command takes it off: {error}")

    def _step(self) -> None:
        words = self._wait()
        now = time.monotonic()
        if "settings" in words:
            self._read_settings()
        if now >= self._next_tick:
            self._next_tick = now + self._tick
            self._notices = [one for one in self._notices if one.poll() is None]
            words.add("tick")
        self._require_claim()
        if words & {"tick", "folders", "changed"} and not self._post.is_right():
            self._post.arm()
        if now >= self._next_look or (self._post.blind and self._post.glance()):
            words.add("changed")
        if words & {"tick", "changed", "engine", "ended", "settings", "folders"} or self._has_new_launcher(words):
            self._look()
        self._supervisor.tell(WATCHDOG="1")

    def _wait(self) -> set[str]:
        """Wait for a hint, for the end of a process that holds, or until something is due."""
        now = time.monotonic()
        due = min(self._next_tick, self._next_look, self._next_search)
        if self._post.blind:
            due = min(due, now + GLANCE)
        poller = select.poll()
        witness = self._guard.witness
        for end in (self._hints.fileno(), *self._ends.values(), *([] if witness.fd is None else [witness.fd])):
            poller.register(end, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(max(0.0, due - now) * 1000)}
        witness.listen()
        words = self._hints.take()
        return words | {"ended"} if ready & set(self._ends.values()) else words

    def _look(self) -> None:
        self._next_look = NEVER
        before = self._complaint
        self._guard.problem = "; ".join(part for part in (self._complaint, self._post.blind, self._fault) if part)
        try:
            if not self._has_begun:
                self._guard.begin()
                self._has_begun = True
            self._guard.look()
            self._complaint = ""
            if before:
                self._next_look = time.monotonic() + AGAIN  # so that it is published no longer
            self._backoff = AGAIN
        except BusyError:
            self._next_look = time.monotonic() + AGAIN
        except TaoprofError as error:
            self._complain(error.message)
        except Exception as error:  # noqa: BLE001 - whatever nobody thought of, the next look must come
            self._complain(f"a fault of the guard itself: {error!r}")
        ends = self._guard.next_end()
        self._next_look = min(self._next_look, self._guard.due, NEVER if ends is None else time.monotonic() + ends)
        self._mind_the_ends()
        status = printable("; ".join(part for part in (self._guard.line, self._guard.problem) if part))
        if status != self._status and self._supervisor.tell(STATUS=status):
            self._status = status

    def _complain(self, message: str) -> None:
        """Say once what hinders the look, which is tried again after a while that grows with each time."""
        if message != self._complaint:
            self._say("warning", message)
        self._complaint = message
        self._backoff = min(self._backoff * 2, self._tick)
        self._next_look = time.monotonic() + self._backoff

    def _has_new_launcher(self, words: set[str]) -> bool:
        """Search for a launcher that has started, now or soon after a file was opened that launchers open.

        The mapping file itself is not opened for that: it would be the next hint, without end.
        """
        now = time.monotonic()
        if "opened" in words:
            self._next_search = min(self._next_search, max(now, self._last_search + OPENED))
        if now < self._next_search:
            return False
        self._last_search, self._next_search = now, NEVER
        before, self._launchers = self._launchers, _launchers()
        if self._launchers <= before:
            return False
        self._engine.nudge()
        return True

    def _mind_the_ends(self) -> None:
        """Have a descriptor of each process whose end may be the end of a hold."""
        wanted = set(self._guard.watched())
        for process in self._ends.keys() - wanted:
            os.close(self._ends.pop(process))
        for process in wanted - self._ends.keys():
            try:
                self._ends[process] = os.pidfd_open(process[0])
            except ProcessLookupError:
                self._hints.add("ended")  # in this moment
            except OSError:
                pass  # no descriptor is to be had: the next tick sees it

    def _require_claim(self) -> None:
        """Raise TaoprofError if our state folder has been moved or deleted, or the home is no longer mounted."""
        if not self._guards.is_ours(self._claim):
            state = self._context.state
            raise TaoprofError(f"'{state}' has been moved, deleted or unmounted; the guard stops")

    def _read_settings(self) -> None:
        try:
            self._settings, self._fault = config.load(self._context), ""
        except TaoprofError as error:
            self._fault = ": ".join([error.message, "; ".join(error.problems)] if error.problems else [error.message])
            self._say("warning", f"{self._fault}; what was in force before stays so")
        self._guard.use(self._settings)

    def _say(self, level: str, line: str) -> None:
        mark = f"<{_LEVELS[level]}>" if self._supervisor.keeps_journal else time.strftime("%H:%M:%S ")
        try:
            note(mark + line)
        except OSError:
            pass  # the log is on a full disk, or its reader has gone: the guard goes on
        if level == "alert" and self._settings.notices:
            shown = desktop.notice("taoprof: a training's mapping", printable(line), self._context.environ)
            self._notices += [shown] if shown else []


def _launchers() -> set[tuple[int, int | None]]:
    return {(one.pid, processes.start_time(one.pid)) for one in processes.scan() if parse_launcher_argv(one.argv)}
