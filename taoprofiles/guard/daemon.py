"""``taoprofd``: the guard as a process. It waits for events, has the guard check, and reports to systemd and the log.

Wake-ups while nothing happens: the tick (TICK, or half of systemd's watchdog time), the engine's thread with the same
interval, and the retries: of an engine that does not answer, and of a status that the service manager did not receive.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from taoprofiles import VERSION
from taoprofiles.errors import BusyError, TaoprofError, reason_of
from taoprofiles.guard.guard import Guard, Options
from taoprofiles.guard.service import make_parser
from taoprofiles.guard.watcher import POLL_INTERVAL, ContainerWatcher, MappingWatcher, WakeQueue
from taoprofiles.holds.liveness import HEARTBEAT
from taoprofiles.launcher.argv import parse_launcher_argv
from taoprofiles.masking import printable
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.switching import guard_files
from taoprofiles.switching.switch import NEVER
from taoprofiles.system import processes
from taoprofiles.system.systemd import Notifier

TICK = HEARTBEAT
"""Seconds between two checks while nothing happens: each check renews the heartbeats of the holds."""

SEARCH_INTERVAL = 0.25
"""Seconds between two searches for new launchers while files are opened all the time."""

RETRY = 0.1
"""Seconds until a check is repeated that did not get the lock."""

STATUS_RETRY = 1.0
"""Seconds until a status is sent again that the service manager did not receive: its queue may be full."""

START_TIMEOUT = 5.0
"""Seconds for the engine before READY=1 is sent anyway."""

PIDFDS = 256
"""Limit of the processes whose end wakes the guard, each by a descriptor; the tick notices the end of the others.

At most a quarter of the descriptors that the process may have.
"""

_PRIORITIES = {logging.ERROR: 4, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Priorities of sd-daemon(3). What is logged as an error is also shown by the user's next command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``taoprofd`` with the arguments ``argv``, those of the process by default; return the exit status."""
    parser = make_parser()
    parser.set_defaults(**Options()._asdict())
    args = parser.parse_args(argv)
    try:
        context = Context()
        if not args.unseal:
            Daemon(context, Options(args.seal, args.restores)).run()
        elif guard_files.unseal(context):
            _print("the mapping file is writable again")
    except TaoprofError as error:
        _print(f"taoprofd: error: {error.message}")
        for problem in error.problems:
            _print(f"  {problem}")
        if error.hint:
            _print(f"hint: {error.hint}")
        return error.status
    return 0


def _print(line: str) -> None:
    # The log is on a full disk, its reader is gone, or stderr is closed: the guard goes on.
    with suppress(OSError, AttributeError):
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()


class _LogHandler(logging.Handler):
    """Writes the log to stderr, with priorities if that is systemd's journal; errors are kept for the next command."""

    def __init__(self, context: Context, *, has_journal: bool) -> None:
        super().__init__(logging.DEBUG)
        self._context = context
        self._has_journal = has_journal

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        _print(f"<{_PRIORITIES[record.levelno]}>{line}" if self._has_journal else f"{time.strftime('%H:%M:%S')} {line}")
        if record.levelno >= logging.ERROR:  # only a check logs errors, and it has the lock
            files.add_message(self._context, f"guard: {time.strftime('%Y-%m-%d %H:%M:%S')} {line}")


logger = logging.getLogger("taoprofiles.guard")


class Daemon:
    """One guard process. Call ``run`` once, in the main thread."""

    def __init__(self, context: Context, options: Options) -> None:
        self._context = context
        self._notifier = Notifier(context.environ)
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            context.environ.pop(name, None)  # child processes are not the service
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(_LogHandler(context, has_journal=self._notifier.keeps_journal))
        self._queue = WakeQueue()
        self._engine = ContainerWatcher(context, TICK, self._queue)
        self._guard = Guard(context, options)
        self._watcher = MappingWatcher(context, self._queue)
        self._launchers: set[tuple[int, int | None]] = set()
        self._pidfds: dict[tuple[int, int], int] = {}
        self._ended: set[tuple[int, int]] = set()
        self._stop_requested = self._is_recovered = False
        self._problem = self._status = self._sent_status = ""
        watchdog = self._notifier.watchdog
        self._tick = TICK if watchdog is None else min(TICK, watchdog / 2)
        # When what is due, in seconds of the monotonic clock.
        self._next_tick = self._last_search = 0.0
        self._next_check = self._next_search = self._next_report = NEVER
        self._backoff = RETRY

    def run(self) -> None:
        """Guard the file until SIGTERM or SIGINT.

        Raises GuardRunningError if another guard is running, and TaoprofError if the home or the state folder is not
        there, or goes away: the service manager then starts the guard again.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)
        if not files.folder_exists(self._context.home):
            raise TaoprofError(f"'{self._context.home}' does not exist")
        liveness_fd = self._guard.files.acquire()
        files.never_create(self._context.home, self._context.state)
        self._start()
        while not self._stop_requested:
            events = self._wait()
            if not self._guard.files.is_current(liveness_fd):
                break
            self._step(events)
        self._notifier.notify(STOPPING="1")
        try:
            self._guard.end()
        except Exception as error:  # noqa: BLE001 - the process ends, whatever happens
            logger.warning("the mapping file stays read-only until the next taoprof command: %s", error)
        if not self._stop_requested:
            raise TaoprofError(f"'{self._context.home}', or the state folder in it, was moved, deleted or unmounted")

    def _request_stop(self, *_: object) -> None:
        self._stop_requested = True

    def _start(self) -> None:
        self._engine.start()
        end = time.monotonic() + START_TIMEOUT
        while not self._stop_requested and not self._engine.has_listed.wait(0.05) and time.monotonic() < end:
            pass
        if not self._stop_requested:
            self._step({"changed"})
        logger.info("taoprofiles %s guards %s", VERSION, self._context.short(self._context.mapping_file))
        self._notifier.notify(READY="1")

    def _step(self, events: set[str]) -> None:
        """Check if that is due. An error is logged once, and the check is repeated after a growing delay."""
        problem, delay = "", RETRY
        try:
            if self._is_due(events):
                self._check()
        except BusyError:
            pass
        except TaoprofError as error:
            problem = error.message
        except OSError as error:  # no descriptor is left, say: the guard goes on
            problem = f"the check failed: {reason_of(error)}"
        except Exception as error:  # noqa: BLE001 - and whatever else
            problem = f"internal error of the guard: {error!r}"
        else:
            delay = NEVER
        if problem:
            if problem != self._problem:
                logger.warning("%s", problem)
            self._problem = problem
            delay = self._backoff = min(self._backoff * 2, self._tick)
        self._next_check = min(self._next_check, time.monotonic() + delay)
        self._report()

    def _report(self) -> None:
        """Send the service manager a sign of life, with the status if it has changed."""
        status = {} if self._status == self._sent_status else {"STATUS": self._status}
        self._next_report = NEVER
        if self._notifier.notify(WATCHDOG="1", **status):
            self._sent_status = self._status
        elif status:
            self._next_report = time.monotonic() + STATUS_RETRY

    def _is_due(self, events: set[str]) -> bool:
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + self._tick
            events.add("tick")
        if now >= self._next_check:
            self._next_check = NEVER
            events.add("changed")
        if events & {"tick", "folders", "changed"} and not self._watcher.is_current():
            self._watcher.arm()
        if self._watcher.degraded and self._watcher.poll():
            events.add("changed")
        return bool(events & {"tick", "changed", "engine", "ended", "folders"}) or self._has_new_launcher(events)

    def _wait(self) -> set[str]:
        """Wait for an event, for the end of a process with a hold, or until something is due."""
        now = time.monotonic()
        due = min(self._next_tick, self._next_check, self._next_search, self._next_report)
        if self._watcher.degraded:
            due = min(due, now + POLL_INTERVAL)
        poller = select.poll()
        for fd in (self._queue.fileno(), *self._pidfds.values()):
            poller.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(max(0.0, due - now) * 1000)}
        events = self._queue.take()
        return events | {"ended"} if ready & set(self._pidfds.values()) else events

    def _check(self) -> None:
        self._next_check = NEVER
        problem = "; ".join(part for part in (self._problem, self._watcher.degraded) if part)
        try:
            if not self._is_recovered:
                self._guard.begin()
                self._is_recovered = True
            self._guard.check(self._engine.containers, problem)
            self._watch_processes()
            if self._problem:
                self._next_check = time.monotonic() + RETRY  # so that the problem is not published any longer
            self._problem, self._backoff = "", RETRY
        finally:
            self._next_check = min(self._next_check, self._guard.next_check())
            self._status = printable("; ".join(part for part in (self._guard.line, problem) if part))

    def _has_new_launcher(self, events: set[str]) -> bool:
        """Search for a launcher that has started, now or soon after a file was opened that launchers open.

        The search does not open the mapping file itself: that would cause the next event, in an endless loop.
        """
        now = time.monotonic()
        if "opened" in events:
            self._next_search = min(self._next_search, max(now, self._last_search + SEARCH_INTERVAL))
        if now < self._next_search:
            return False
        self._last_search, self._next_search = now, NEVER
        before = self._launchers
        self._launchers = {
            (process.pid, processes.start_time(process.pid))
            for process in processes.scan()
            if parse_launcher_argv(process.argv) is not None
        }
        if self._launchers <= before:
            return False
        self._engine.wake()
        return True

    def _watch_processes(self) -> None:
        """Open a pidfd of each process whose end may be the end of a hold, and close the others.

        One that ended during the check causes another check, but only one: a hold may outlive its process.
        """
        limit = min(PIDFDS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        watched = set(self._guard.watched_processes())
        ended = {process for process in watched if not processes.alive(*process)}
        if not ended <= self._ended:
            self._queue.put("ended")
        self._ended = ended
        wanted = set(list(watched - ended)[:limit])
        for process in self._pidfds.keys() - wanted:
            os.close(self._pidfds.pop(process))
        for process in wanted - self._pidfds.keys():
            descriptor = processes.open_pidfd(process[0])
            if descriptor is not None:  # without one, the next tick notices the end
                self._pidfds[process] = descriptor


if __name__ == "__main__":
    sys.exit(main())
