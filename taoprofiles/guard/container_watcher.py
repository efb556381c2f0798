"""What the container engine has, followed all the time: its events are hints, its full list is the truth."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from taoprofiles.holds.liveness import Containers
from taoprofiles.system import processes
from taoprofiles.system.engine import PATIENCE, Engine, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.storage.paths import Context

CHANGES = ("start", "die", "destroy", "pause", "unpause", "rename")
"""The actions after which the list may be another one; the many others (exec_create, top, …) change nothing in it."""


class Following(threading.Thread):
    """Keeps ``containers`` as the engine last told, and calls ``changed``, in this thread, when that is news.

    The list is asked for on each connection, each change, and every ``seconds``. Those who use ``containers`` never
    wait for an engine. Where there is no engine, or none that answers, it is tried again after 1, 2, 4 … ``seconds``,
    and at once when ``nudge`` is called; until then what was there counts as there.
    """

    def __init__(self, context: Context, seconds: float, changed: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="taoprof-engine")
        self._context, self._seconds, self._changed = context, seconds, changed
        self._nudged = threading.Event()
        self._last = 0.0
        self.containers = Containers(context, 0.0, failed="it has not answered yet")
        self.looked = threading.Event()

    def nudge(self) -> None:
        """Try at once to reach an engine that could not be reached."""
        self._nudged.set()

    def run(self) -> None:
        """Follow the engine until the process ends."""
        wait = 1.0
        while True:
            self._nudged.clear()
            try:
                if not self.looked.is_set():
                    self._look()
                begun = time.monotonic()
                for event in Engine(self._context.environ).events(time.time(), idle=self._seconds):
                    is_due = time.monotonic() - self._last >= self._seconds
                    if (event is None or event["Action"] in CHANGES or is_due) and not self._look():
                        break  # the stream of an engine that does not answer may never end: begin anew
                    wait = 1.0
                if time.monotonic() - begun < 1:
                    self._nudged.wait(wait)
            except EngineError:
                self._look()
                self._nudged.wait(wait)
                wait = min(wait * 2, self._seconds)
            except Exception as error:  # noqa: BLE001 - the guard's eyes must not close for what nobody thought of
                self._take(Containers(self._context, 0.0, failed=repr(error)))
                self._nudged.wait(self._seconds)

    def _look(self) -> bool:
        """Ask for the list anew; false where not all was answered."""
        self._last = time.monotonic()
        before = self.containers
        known = {one: seen for one, seen in before.inspect_all().items() if seen}
        fresh = Containers(self._context, time.monotonic() + PATIENCE, known=known)
        fresh.inspect_all()
        self._take(fresh)
        return fresh.complete

    def _take(self, fresh: Containers) -> None:
        before = self.containers
        if not fresh.complete:
            fresh.assume_unchanged(before, processes.shim_container_ids())
        self.containers = fresh
        self.looked.set()
        if self._gist(fresh) != self._gist(before):
            self._changed()

    @staticmethod
    def _gist(seen: Containers) -> object:
        return (seen.ids, seen.complete, seen.absent, seen.unseen)
