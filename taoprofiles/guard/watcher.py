"""Wakes the guard: the queue of events, and what fills it: folder watches, or polling, and the container engine."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from watchdog import events
from watchdog.observers import Observer

from taoprofiles.errors import TaoprofError, reason_of
from taoprofiles.holds.liveness import Containers
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.system.engine import TIMEOUT, Engine, EngineError

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

POLL_INTERVAL = 0.25
"""Seconds between two polls of the files' times if the kernel gives no watches."""

CHANGES = ("start", "die", "destroy", "pause", "unpause", "rename")
"""Event actions that may change the list; the many others (exec_create, top, …) do not."""

logger = logging.getLogger(__name__)

NAMES = (events.FileCreatedEvent, events.FileDeletedEvent, events.FileMovedEvent)
"""Files are created, deleted and replaced; not their contents and times."""
CONTENTS = (*NAMES, events.FileModifiedEvent, events.FileAttribEvent, events.FileClosedEvent)
"""The same, and changes of contents and modes."""
OPENED = (events.FileOpenedEvent,)
FOLDERS = (events.DirCreatedEvent, events.DirDeletedEvent, events.DirMovedEvent)


class Watch(NamedTuple):
    """A folder to watch, the kinds of events, and what is put into the queue for those of ``names`` (empty: any)."""

    folder: str
    kinds: tuple[type[events.FileSystemEvent], ...]
    wakes: str
    names: tuple[str, ...] = ()


class _Handler(events.FileSystemEventHandler):
    """Puts the events of one folder into the queue, in a thread of watchdog."""

    def __init__(self, queue: WakeQueue, watches: list[Watch]) -> None:
        self._queue, self._watches = queue, watches

    def dispatch(self, event: events.FileSystemEvent) -> None:
        names = [os.path.basename(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        for watch in self._watches:
            if isinstance(event, watch.kinds) and (not watch.names or not set(watch.names).isdisjoint(names)):
                self._queue.put("opened" if isinstance(event, events.FileOpenedEvent) else watch.wakes)


class _Overflow(logging.Handler):
    """Puts "changed" into the queue when the kernel's event queue overflowed, which watchdog only logs."""

    def __init__(self, queue: WakeQueue) -> None:
        super().__init__(logging.WARNING)
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put("changed")


def _identity(folder: str) -> object:
    status = files.stat_or_none(folder)
    return status and (status.st_dev, status.st_ino)


class WakeQueue:
    """Event names that threads and signals put, and a descriptor that becomes readable when there are some.

    "changed": check everything; "opened": a launcher may have started; "folders": watch the folders again;
    "engine": the containers, or the tasks of runs in them, have changed; "ended": a process with a hold has ended.
    """

    def __init__(self) -> None:
        # A deque and not a set that is swapped: a thread that has just read the old set would add to it too late.
        self._events: deque[str] = deque()
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._reader.fileno()

    def put(self, event: str) -> None:
        """Add an event and wake the reader."""
        self._events.append(event)
        with suppress(BlockingIOError):  # the buffer is full, so the reader wakes up anyway
            self._writer.send(b".")

    def take(self) -> set[str]:
        """Return all events and remove them."""
        with suppress(BlockingIOError):
            self._reader.recv(1 << 16)
        taken = set()
        while self._events:
            taken.add(self._events.popleft())
        return taken


class MappingWatcher:
    """Watches the folders of the mapping file and the holds, and puts events into ``queue``.

    ``degraded`` is "", or why nothing can be watched; then ``poll`` must be called.
    """

    def __init__(self, context: Context, queue: WakeQueue) -> None:
        self._context, self._queue = context, queue
        self._observer: BaseObserver | None = None
        self._watched: dict[object, list[Watch]] = {}
        logging.getLogger("watchdog").addHandler(_Overflow(queue))
        self._stats: list[tuple[int, int, int]] = []
        self.degraded = ""

    def arm(self) -> None:
        """Watch the folders that exist now; log it if the kernel gives no watches, and when it does so again."""
        for _ in range(10):
            self._arm()
            if self.degraded or self.is_current():
                break  # every later change causes an event; otherwise a symlink changed before it was watched

    def is_current(self) -> bool:
        """Check whether the watched folders are still the ones that have these names."""
        return self._wanted() == self._watched

    def poll(self) -> bool:
        """Check whether the mapping file or the folder of holds has changed since the last poll."""
        stats = []
        for path in (self._context.mapping_file, files.real_path(self._context.mapping_file), self._context.holds):
            try:
                stat = os.lstat(path)
                stats.append((stat.st_ino, stat.st_size, stat.st_ctime_ns))
            except OSError:
                stats.append((0, 0, 0))
        before, self._stats = self._stats, stats
        return before != stats

    def _arm(self) -> None:
        with suppress(TaoprofError):  # on a read-only home, the folders that exist are watched
            files.make_folder(self._context.holds)
        self._disarm()
        wanted = self._wanted()
        try:
            self._observer = Observer()
            self._observer.start()
            for watches in wanted.values():
                kinds = list({kind for watch in watches for kind in watch.kinds})
                handler = _Handler(self._queue, watches)
                self._observer.schedule(handler, watches[0].folder, event_filter=kinds, follow_symlink=True)
        except OSError as error:  # the kernel has no more watches
            self._disarm()
            reason = reason_of(error)
            if not self.degraded:
                logger.warning(
                    "inotify is not available (%s): polling %g times a second instead; its limits: sysctl fs.inotify",
                    reason,
                    1 / POLL_INTERVAL,
                )
            self.degraded = f"polling without watches ({reason})"
        else:
            self._watched = wanted
            if self.degraded:
                logger.info("inotify is available again")
            self.degraded = ""

    def _disarm(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            if self._observer.is_alive():  # it has started
                self._observer.join(5)
        self._observer = None
        self._watched = {}

    def _wanted(self) -> dict[object, list[Watch]]:
        """Return the watches by the identity of their folder: the kernel keeps one set of events for each folder."""
        home, path = self._context.home, self._context.mapping_file
        watches = [
            Watch(os.path.dirname(file), CONTENTS + OPENED + FOLDERS, "changed", (os.path.basename(file),))
            for file in dict.fromkeys((path, files.real_path(path)))
        ]
        # Only names: each check renews the heartbeats of the holds, which changes the files' times.
        watches.append(Watch(self._context.holds, NAMES, "changed"))
        # Each launcher reads config.json there, before anything else.
        watches.append(Watch(os.path.join(home, ".docker"), OPENED, "changed", ("config.json",)))
        names = (os.path.basename(home), ".docker", ".config", ".local")
        watches += [Watch(folder, FOLDERS, "folders", names) for folder in (home, os.path.dirname(home))]
        wanted: dict[object, list[Watch]] = {}
        for watch in watches:
            if os.path.isdir(watch.folder):
                wanted.setdefault(_identity(watch.folder), []).append(watch)
        return wanted


class ContainerWatcher(threading.Thread):
    """Keeps ``containers`` up to date and puts "engine" into ``queue`` when it has changed.

    Events only trigger a new request of the complete list. It is requested on each connection, each change, and every
    ``interval`` seconds, so users of ``containers`` never wait for an engine. An engine that does not answer is tried
    again after 1, 2, 4 … ``interval`` seconds, and at once after ``wake``; until then the last known containers count
    as running.
    """

    def __init__(self, context: Context, interval: float, queue: WakeQueue) -> None:
        super().__init__(daemon=True, name="taoprof-engine")
        self._context, self._interval, self._queue = context, interval, queue
        self._woken = threading.Event()
        self._last = 0.0
        self.containers = Containers(context, 0.0, failed="it has not answered yet")
        self.has_listed = threading.Event()

    def wake(self) -> None:
        """Retry at once to reach an engine that could not be reached."""
        self._woken.set()

    def run(self) -> None:
        """Follow the engine until the process ends."""
        delay = 1.0
        while True:
            self._woken.clear()
            try:
                if not self.has_listed.is_set():
                    self._refresh()
                start = time.monotonic()
                for event in Engine(self._context.environ).events(time.time(), idle=self._interval):
                    is_due = time.monotonic() - self._last >= self._interval
                    if (event is None or event["Action"] in CHANGES or is_due) and not self._refresh():
                        break  # the stream of an engine that does not answer may never end: connect again
                    delay = 1.0
                    if event is not None and event["Action"] == "exec_die" and self.containers.run_tag(event["Id"]):
                        self._queue.put("engine")
                if time.monotonic() - start < 1:
                    self._woken.wait(delay)
            except EngineError:
                self._refresh()
                self._woken.wait(delay)
                delay = min(delay * 2, self._interval)
            except Exception as error:  # noqa: BLE001 - an unexpected error must not end the thread
                self._update(Containers(self._context, 0.0, failed=repr(error)))
                self._woken.wait(self._interval)

    def _refresh(self) -> bool:
        """Request the list again; return whether the engine answered everything."""
        self._last = time.monotonic()
        known = {id: container for id, container in self.containers.inspect_all().items() if container}
        containers = Containers(self._context, time.monotonic() + TIMEOUT, known=known)
        containers.inspect_all()
        self._update(containers)
        return containers.complete

    def _update(self, containers: Containers) -> None:
        before = self.containers
        if not containers.complete and not containers.absent:
            containers.assume_unchanged(before)
        self.containers = containers
        self.has_listed.set()
        if _signature(containers) != _signature(before):
            self._queue.put("engine")


def _signature(containers: Containers) -> object:
    return (containers.ids, containers.complete, containers.absent, containers.unchecked)
