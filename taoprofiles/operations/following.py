"""What the container engine has, followed all the time: its events are hints, its full list is the truth."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from taoprofiles.operations.containers import Containers
from taoprofiles.world.engine import PATIENCE, Engine, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.state.paths import Context

CHANGES = ("start", "die", "destroy", "pause", "unpause", "rename")
"""The actions after which the list may be another one; the many others (exec_create, top, …) change nothing in it."""


class Following(threading.Thread):
    """Keeps ``containers`` as the engine last told, and calls ``changed``, in this thread, when that is news.

    The list is asked for on each connection, each change, and every ``seconds``. Those who use ``containers`` never
    wait for an engine; it is None before the first look. Where there is no engine, or none that answers, it is tried
    again after 1, 2, 4 … ``seconds``, and at once when ``nudge`` is called.
    """

    def __init__(self, context: Context, seconds: float, changed: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="taoprof-engine")
        self._context, self._seconds, self._changed = context, seconds, changed
        self._nudged = threading.Event()
        self.containers: Containers | None = None
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
                for event in Engine(self._context.environ).events(time.time(), idle=self._seconds):
                    if event is None or event["Action"] in CHANGES:
                        self._look()
                    wait = 1.0
            except EngineError:
                self._look()
            self._nudged.wait(wait)
            wait = min(wait * 2, self._seconds)

    def _look(self) -> None:
        before = self.containers.look_at_all() if self.containers else {}
        known = {one: seen for one, seen in before.items() if seen}
        fresh = Containers(self._context, time.monotonic() + PATIENCE, known=known)
        fresh.look_at_all()
        is_news = self._gist(fresh) != self._gist(self.containers)
        self.containers = fresh
        self.looked.set()
        if is_news:
            self._changed()

    @staticmethod
    def _gist(seen: Containers | None) -> object:
        return seen and (seen.ids, seen.was_seen, seen.absent, seen.unseen)
