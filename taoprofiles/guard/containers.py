"""Follows the container engine: its events only trigger a look, its complete list is what counts."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from taoprofiles.holds.liveness import Containers
from taoprofiles.system import processes
from taoprofiles.system.engine import PATIENCE, Engine, EngineError

if TYPE_CHECKING:
    from taoprofiles.guard.watcher import WakeQueue
    from taoprofiles.storage.paths import Context

CHANGES = ("start", "die", "destroy", "pause", "unpause", "rename")
"""Event actions that may change the list; the many others (exec_create, top, …) do not."""


class ContainerWatcher(threading.Thread):
    """Keeps ``containers`` up to date and puts "engine" into ``queue`` when it has changed.

    The list is requested on each connection, each change, and every ``interval`` seconds, so users of ``containers``
    never wait for an engine. An engine that does not answer is tried again after 1, 2, 4 … ``interval`` seconds, and
    at once after ``wake``; until then the last known containers count as running.
    """

    def __init__(self, context: Context, interval: float, queue: WakeQueue) -> None:
        super().__init__(daemon=True, name="taoprof-engine")
        self._context, self._interval, self._queue = context, interval, queue
        self._woken = threading.Event()
        self._last = 0.0
        self.containers = Containers(context, 0.0, failed="it has not answered yet")
        self.has_looked = threading.Event()

    def wake(self) -> None:
        """Retry at once to reach an engine that could not be reached."""
        self._woken.set()

    def run(self) -> None:
        """Follow the engine until the process ends."""
        delay = 1.0
        while True:
            self._woken.clear()
            try:
                if not self.has_looked.is_set():
                    self._refresh()
                start = time.monotonic()
                for event in Engine(self._context.environ).events(time.time(), idle=self._interval):
                    is_due = time.monotonic() - self._last >= self._interval
                    if (event is None or event["Action"] in CHANGES or is_due) and not self._refresh():
                        break  # the stream of an engine that does not answer may never end: connect again
                    delay = 1.0
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
        containers = Containers(self._context, time.monotonic() + PATIENCE, known=known)
        containers.inspect_all()
        self._update(containers)
        return containers.complete

    def _update(self, containers: Containers) -> None:
        before = self.containers
        if not containers.complete:
            containers.assume_unchanged(before, processes.shim_container_ids())
        self.containers = containers
        self.has_looked.set()
        if _signature(containers) != _signature(before):
            self._queue.put("engine")


def _signature(containers: Containers) -> object:
    return (containers.ids, containers.complete, containers.absent, containers.unseen)
