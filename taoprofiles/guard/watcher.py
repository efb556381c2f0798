"""Wakes the guard: the queue of events, and the folder watches that fill it, or polling where there are none."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import files
from taoprofiles.system import folder_watch
from taoprofiles.system.folder_watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taoprofiles.storage.paths import Context

POLL_INTERVAL = 0.25
"""Seconds between two polls of the files' times where the kernel gives no watches."""

logger = logging.getLogger(__name__)


class WakeQueue:
    """Event names that threads and signals put, and a descriptor that becomes readable when there are some.

    "changed": look at everything; "opened": a launcher may have started; "folders": watch the folders again;
    "engine": the containers have changed; "ended": a process with a hold has ended.
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
        try:
            self._writer.send(b".")
        except BlockingIOError:
            pass  # so many bytes are waiting that the reader wakes up anyway

    def take(self) -> set[str]:
        """Return all events and remove them."""
        try:
            self._reader.recv(1 << 16)
        except BlockingIOError:
            pass
        events = set()
        while self._events:
            events.add(self._events.popleft())
        return events


class MappingWatcher:
    """Watches the folders of the mapping file, the holds and the profiles, and puts events into ``queue``.

    ``degraded`` is "", or why nothing can be watched; then ``poll`` must be called.
    """

    def __init__(self, context: Context, queue: WakeQueue) -> None:
        self._context, self._queue = context, queue
        self._watches = folder_watch.Watches(lambda: queue.put("changed"))
        self._target = files.real_path(context.mapping_file)
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
        target = files.real_path(self._context.mapping_file)
        return target == self._target and self._watches.are_right(self._wanted())

    def poll(self) -> bool:
        """Return whether the mapping file or the folder of holds has changed since the last poll."""
        stats = []
        for path in (self._context.mapping_file, self._target, self._context.holds):
            try:
                stat = os.lstat(path)
                stats.append((stat.st_ino, stat.st_size, stat.st_ctime_ns))
            except OSError:
                stats.append((0, 0, 0))
        before, self._stats = self._stats, stats
        return before != stats

    def _arm(self) -> None:
        self._target = files.real_path(self._context.mapping_file)
        for folder in (self._context.holds, self._context.profiles):
            try:
                files.make_folder(folder)
            except TaoprofError:
                pass  # on a read-only home, the folders that exist are watched
        try:
            self._watches.arm(self._wanted())
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if not self.degraded:
                logger.warning(
                    "the kernel gives no more watches (%s): polling %g times a second; see 'sysctl fs.inotify'",
                    reason,
                    1 / POLL_INTERVAL,
                )
            self.degraded = f"polling without watches ({reason})"
        else:
            if self.degraded:
                logger.info("the kernel gives watches again")
            self.degraded = ""

    def _wanted(self) -> Iterator[Watch]:
        context, home = self._context, self._context.home
        path = context.mapping_file
        events = folder_watch.CONTENTS + folder_watch.OPENED + folder_watch.FOLDERS
        for file in dict.fromkeys((path, files.real_path(path))):
            yield Watch(os.path.dirname(file), events, self._on_file(os.path.basename(file)))
        # Only names: each look renews the heartbeats of the holds, which changes the files' times.
        yield Watch(context.holds, folder_watch.NAMES, self._on_change)
        yield Watch(context.profiles, folder_watch.CONTENTS, self._on_change)
        # Each launcher reads config.json there, before anything else.
        yield Watch(os.path.join(home, ".docker"), folder_watch.OPENED, self._on_file("config.json"))
        for folder in (home, os.path.dirname(home)):
            yield Watch(folder, folder_watch.FOLDERS, self._on_folders)

    def _on_file(self, name: str) -> Callable[[str, bool], None]:
        def on_event(path: str, was_opened: bool) -> None:
            if os.path.basename(path) == name:
                self._queue.put("opened" if was_opened else "changed")

        return on_event

    def _on_change(self, path: str, was_opened: bool) -> None:
        self._queue.put("changed")

    def _on_folders(self, path: str, was_opened: bool) -> None:
        if os.path.basename(path) in (os.path.basename(self._context.home), ".docker", ".config", ".local"):
            self._queue.put("folders")
