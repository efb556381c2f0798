"""The task in a container, by the engine's events: its command, its exit status, and when it ended.

The launcher itself exits with 0 whatever happens to the task (run_container in docker_handler.py of every version from
0.1.21 to 6.26.3), and the container is removed at once, so only the event ``exec_die`` has the task's exit status.
"""

from __future__ import annotations

from typing import Any


class ContainerTask:
    """A container of a run, and the task in it.

    - ``id``: the container's; ``task``, ``command``: the id and the words of the launcher's own ``docker exec``, the
      first in the container
    - ``status``: the exit status of the task, None while it is unknown; ``ended``: when it, or the container, ended
      (seconds since 1970 by the engine's clock)
    - ``is_over``: whether the container has ended
    """

    def __init__(self, container_id: str, task: str | None = None) -> None:
        self.id, self.task = container_id, task
        self.command: list[str] = []
        self.status: int | None = None
        self.ended: float | None = None
        self.is_over = False

    def handle(self, event: dict[str, Any], *, is_docker_run: bool) -> bool:
        """Take over what an event (``engine.parse_event``) says; return whether it is the start of the task.

        ``is_docker_run``: the task is the container's own command, not a ``docker exec`` in it.
        """
        action, status = event["Action"], event["ExitCode"]
        is_start = action == "exec_start" and self.task is None  # later ones are users who inspect the container
        if is_start:
            self.task, self.command = event["Task"], event["Command"].split()
        if action == "exec_die" and status is not None and self.task in (None, event["Task"]):
            self.status, self.ended = status, event["Stamp"] / 1e9
        if action in ("die", "destroy"):
            self.is_over = True
            self.ended = self.ended or event["Stamp"] / 1e9
            if status is not None and is_docker_run:
                self.status = status
        return is_start
