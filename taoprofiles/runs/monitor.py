"""Monitoring a run's containers by the engine's events: which ones it has, and the exit statuses of their tasks.

The launcher itself exits with 0 whatever happens to the task (run_container in docker_handler.py of every version from
0.1.21 to 6.26.3), and the container is removed at once, so only the event ``exec_die`` has the task's exit status.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.system import processes
from taoprofiles.system.engine import Engine, EngineError

REPLAY = 1.0
"""Seconds of events that are requested again after the stream broke; events that come twice count once."""


@dataclass(slots=True)
class Container:
    """A container of the run. ``status`` is the exit status of its last task, None while it is unknown.

    ``task`` is the id of the launcher's own ``docker exec``; ``has_tasks`` tells whether there was any.
    """

    id: str
    has_tasks: bool = False
    task: str | None = None
    status: int | None = None
    over: bool = False


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
        self._handled: deque[tuple[object, ...]] = deque(maxlen=1000)
        self._known: dict[str, Container | None] = {}  # None: another's
        self._unknown: set[str] = set()
        self._changed = threading.Condition()
        self.listening = threading.Event()
        self.problem = ""
        self.absent = False

    @property
    def containers(self) -> list[Container]:
        """The run's containers, in the order in which they were started."""
        return [container for container in list(self._known.values()) if container is not None]

    def run(self) -> None:
        """Follow the events; if the stream breaks, start again a little before that."""
        while True:
            try:
                for event in self._engine.events(self._since):
                    self.listening.set()
                    self.problem = ""
                    self._tick()
                    if event is not None:
                        self._handle(event)
            except EngineError as error:
                with self._changed:
                    self.problem, self.absent = str(error), error.absent
                    self._changed.notify_all()
            self.listening.set()
            self._tick()
            time.sleep(0.5)

    def wait_for_exit(self, seconds: float, *, expect_one: bool = False) -> None:
        """Wait, ``seconds`` at most, until every container has exited; with ``expect_one``, also for the first one.

        If the engine does not answer, this does not wait for a first one.
        """

        def is_over() -> bool:
            exited = [container.status is not None and container.over for container in self.containers]
            return all(exited) and (bool(exited) or not expect_one or bool(self.problem))

        with self._changed:
            self._changed.wait_for(is_over, seconds)

    def _handle(self, event: dict[str, Any]) -> None:
        container_id, action, status = event["Id"], event["Action"], event["ExitCode"]
        self._since = event["Stamp"] / 1e9 - REPLAY
        key = (event["Stamp"], container_id, action, event["Task"])
        if key in self._handled:
            return
        self._handled.append(key)
        container = self._own_container(container_id, action)
        if container is None:
            return
        with self._changed:
            if action.startswith("exec_"):
                container.has_tasks = True
            if action == "exec_start" and container.task is None:
                container.task = event["Task"]  # later ones are users who inspect the container
            if action == "exec_die" and status is not None and container.task in (None, event["Task"]):
                container.status = status
            if action in ("die", "destroy"):
                container.over = True
                if status is not None and not container.has_tasks:
                    container.status = status  # docker run: the task is the container's own command
            self._changed.notify_all()

    def _own_container(self, container_id: str, action: str) -> Container | None:
        container = self._known.get(container_id)
        is_first_event = action in ("start", "exec_create", "exec_start") or container_id in self._unknown
        if container is not None or not is_first_event or (container_id in self._known and action == "start"):
            return container
        try:
            facts = self._engine.inspect(container_id)
        except EngineError:
            self._unknown.add(container_id)  # to be inspected at its next event
            return None
        self._unknown.discard(container_id)
        if facts is None:
            return None
        has_tag = f"{RUN_VARIABLE}={self._hold_id}" in facts["Env"]
        if not has_tag and (action == "start" or not self._has_own_client(container_id)):
            self._known.setdefault(container_id, None)
            return None
        container = self._known[container_id] = Container(container_id)
        self._appeared(facts)
        return container

    def _has_own_client(self, container_id: str) -> bool:
        """Check whether the run started the docker exec in a container. With the shared file it has no run tag."""
        return any(
            process.container == container_id and processes.environment(process.pid).get(RUN_VARIABLE) == self._hold_id
            for process in processes.scan()
        )
