"""Monitoring a run's containers by the engine's events: which ones it has, and the exit statuses of their tasks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import RUN_VARIABLE, ContainerTask
from taoprofiles.system import processes
from taoprofiles.system.engine import Engine, EngineError

if TYPE_CHECKING:
    from taoprofiles.runs.run import Run

REPLAY = 1.0
"""Seconds of events that are requested again after the stream broke; events that come twice count once."""


class Monitor(threading.Thread):
    """Follows the events until the process ends, and tells ``run`` about its containers, in this thread.

    ``task`` is ``Hold.task``.
    """

    def __init__(self, environ: Mapping[str, str], hold_id: str, run: Run, task: str | None = None) -> None:
        super().__init__(daemon=True, name="taoprof-monitor")
        self._engine = Engine(environ)
        self._hold_id, self._run, self._task = hold_id, run, task
        self._since = time.time()
        self._handled: deque[tuple[object, ...]] = deque(maxlen=1000)
        self._known: dict[str, ContainerTask | None] = {}  # None: another's
        self._unknown: set[str] = set()
        self._changed = threading.Condition()
        self.listening = threading.Event()
        self.problem = ""
        self.absent = False
        self.stopped = threading.Event()

    @property
    def containers(self) -> list[ContainerTask]:
        """The run's containers, in the order in which they were started."""
        return [container for container in list(self._known.values()) if container is not None]

    def run(self) -> None:
        """Follow the events until ``stopped`` is set; if the stream breaks, start again a little before that."""
        failures = 0
        while not self.stopped.is_set():
            try:
                for event in self._engine.events(self._since):
                    self.listening.set()
                    self.problem, failures = "", 0
                    self._run.tick()
                    if self.stopped.is_set():
                        break
                    if event is not None:
                        self._handle(event)
            except EngineError as error:
                with self._changed:
                    self.problem, self.absent = str(error), error.absent
                    self._changed.notify_all()
            self.listening.set()
            self._run.tick()
            failures += 1
            self.stopped.wait(0.5 if failures < 20 else 5)  # a notebook may be open for days, without an engine

    def wait_until_over(self, seconds: float, *, expect_one: bool = False, ids: Collection[str] | None = None) -> None:
        """Wait, ``seconds`` at most, until every container has exited; with ``expect_one``, also for the first one.

        With ``ids``, only these containers count. If the engine does not answer, no first one is waited for.
        """

        def is_over() -> bool:
            exited = [
                container.is_over and (container.status is not None or container.task is None)
                for container in self.containers
                if ids is None or container.id in ids
            ]
            return all(exited) and (bool(exited) or not expect_one or bool(self.problem))

        with self._changed:
            self._changed.wait_for(is_over, seconds)

    def _handle(self, event: dict[str, Any]) -> None:
        container_id, action = event["Id"], event["Action"]
        self._since = event["Stamp"] / 1e9 - REPLAY
        key = (event["Stamp"], container_id, action, event["Task"])
        if key in self._handled:
            return
        self._handled.append(key)
        container = self._own_container(container_id, action, has_label=event["Run"] == self._hold_id)
        if container is None:
            return
        was_over = container.is_over
        with self._changed:
            is_task = container.handle(event)
            self._changed.notify_all()
        if is_task:
            self._run.task_started(container)
        if container.is_over and not was_over:
            self._run.container_ended(container)

    def _own_container(self, container_id: str, action: str, *, has_label: bool) -> ContainerTask | None:
        container = self._known.get(container_id)
        is_first_event = action in ("start", "exec_create", "exec_start") or container_id in self._unknown
        if container is not None or not is_first_event or (container_id in self._known and action == "start"):
            return container
        try:
            facts = self._engine.inspect(container_id)
            is_own = facts is not None and f"{RUN_VARIABLE}={self._hold_id}" in facts["Env"]
            is_own = is_own or (facts is not None and action != "start" and self._has_own_client(container_id))
        except (EngineError, TaoprofError):
            self._unknown.add(container_id)  # to be inspected at its next event
            return None
        self._unknown.discard(container_id)
        if facts is None:
            if has_label:  # it was removed before it could be inspected; its end is still to come
                self._known[container_id] = ContainerTask(container_id, self._task)
            return self._known.get(container_id)
        if not is_own:
            self._known.setdefault(container_id, None)
            return None
        container = self._known[container_id] = ContainerTask(container_id, self._task)
        self._run.container_started(facts)
        return container

    def _has_own_client(self, container_id: str) -> bool:
        """Check whether the run started the docker exec in a container. With the shared file it has no run tag."""
        return any(
            process.container == container_id and processes.environment(process.pid).get(RUN_VARIABLE) == self._hold_id
            for process in processes.scan()
        )
