"""Watching a run's containers by the engine's events: which there are, and what their tasks exit with.

The launcher itself exits with 0 whatever becomes of the task (run_container in docker_handler.py of every version from
0.1.21 to 6.26.3), and the container is removed at once, so the event ``exec_die`` is the only witness.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.system import processes
from taoprofiles.system.engine import Engine, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

REPLAY = 1.0
"""Seconds of events that are asked for again after a break; what was taken already is known by its stamp."""


class Container:
    """One of the run's containers. ``status`` is what its last task exited with, None while that is not known."""

    __slots__ = ("has_tasks", "id", "over", "status", "task")

    def __init__(self, container_id: str) -> None:
        self.id = container_id
        self.has_tasks = False
        self.task: str | None = None
        self.status: int | None = None
        self.over = False


class Monitor(threading.Thread):
    """Follows the events until the process ends. ``appeared`` is called, in this thread, with each new container."""

    def __init__(
        self,
        environ: Mapping[str, str],
        hold_id: str,
        *,
        appeared: Callable[[dict[str, Any]], None],
        tick: Callable[[], None],
    ) -> None:
        super().__init__(daemon=True, name="taoprof-monitor")
        self._engine = Engine(environ)
        self._hold_id = hold_id
        self._appeared, self._tick = appeared, tick
        self._since = time.time()
        self._taken: deque[tuple[object, ...]] = deque(maxlen=1000)
        self._known: dict[str, Container | None] = {}
        self._unsure: set[str] = set()
        self._changed = threading.Condition()
        self.listening = threading.Event()
        self.problem = ""
        self.absent = False

    @property
    def containers(self) -> list[Container]:
        """The run's containers, in the order in which they were started."""
        return [container for container in list(self._known.values()) if container is not None]

    def run(self) -> None:
        """Follow the events; where the stream breaks, begin again a little before that."""
        while True:
            try:
                for event in self._engine.events(self._since):
                    self.listening.set()
                    self.problem = ""
                    self._tick()
                    if event is not None:
                        self._take(event)
            except EngineError as error:
                with self._changed:
                    self.problem, self.absent = str(error), error.absent
                    self._changed.notify_all()
            self.listening.set()
            self._tick()
            time.sleep(0.5)

    def wait_for_exit(self, seconds: float, *, expect_one: bool = False) -> None:
        """Wait until the fate of every container is known, ``seconds`` at most; with ``expect_one`` also for the first.

        Where the engine does not answer, there is nothing to wait for.
        """

        def known() -> bool:
            fates = [one.status is not None and one.over for one in self.containers]
            return all(fates) and (bool(fates) or not expect_one or bool(self.problem))

        with self._changed:
            self._changed.wait_for(known, seconds)

    def _take(self, event: dict[str, Any]) -> None:
        name, action, status = event["Id"], event["Action"], event["ExitCode"]
        self._since = event["Stamp"] / 1e9 - REPLAY
        key = (event["Stamp"], name, action, event["Task"])
        if key in self._taken:
            return
        self._taken.append(key)
        container = self._ours(name, action)
        if container is None:
            return
        with self._changed:
            if action.startswith("exec_"):
                container.has_tasks = True
            if action == "exec_start" and container.task is None:
                container.task = event["Task"]  # the launcher's own; a later one is somebody looking into the container
            if action == "exec_die" and status is not None and container.task in (None, event["Task"]):
                container.status = status
            if action in ("die", "destroy"):
                container.over = True
                if status is not None and not container.has_tasks:
                    container.status = status  # the task is the container's own command: docker run
            self._changed.notify_all()

    def _ours(self, container_id: str, action: str) -> Container | None:
        known = self._known.get(container_id)
        unsure = container_id in self._unsure
        if known is not None or (action not in ("start", "exec_create", "exec_start") and not unsure):
            return known
        if container_id in self._known and action == "start":
            return None
        try:
            seen = self._engine.inspect(container_id)
        except EngineError:
            self._unsure.add(container_id)  # asked again at its next event
            return None
        self._unsure.discard(container_id)
        if seen is None:
            return None
        if not self._is_marked(seen) and not (action != "start" and self._has_our_client(container_id)):
            self._known.setdefault(container_id, None)
            return None
        container = self._known[container_id] = Container(container_id)
        self._appeared(seen)
        return container

    def _is_marked(self, seen: dict[str, Any]) -> bool:
        return f"{RUN_VARIABLE}={self._hold_id}" in seen["Env"]

    def _has_our_client(self, container_id: str) -> bool:
        """Whether the docker exec in it is of our process tree: a run on the shared file leaves no mark inside."""
        return any(
            process.container == container_id and processes.environment(process.pid).get(RUN_VARIABLE) == self._hold_id
            for process in processes.scan()
        )
