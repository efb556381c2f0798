"""A queue of waiting commands: each has a ticket, a file that it holds locked; a ticket nobody holds counts no more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.storage import best_effort, files, liveness_lock
from taoprofiles.storage.locks import Lock

if TYPE_CHECKING:
    from types import TracebackType

    from taoprofiles.storage.paths import Context


class Ticket:
    """``with Ticket(context, "use") as mine: …`` stands in the queue of that name, behind all that are in it."""

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._folder = os.path.join(context.queue, name)
        self._name = ""
        self._claim = -1

    def __enter__(self) -> Ticket:
        files.make_folder(self._folder)
        with Lock(self._context.lock):
            number = max((int(name.partition("-")[0]) for name in self._names()), default=0) + 1
            self._name = f"{number:012}-{os.getpid()}"
            self._claim = liveness_lock.claim(os.path.join(self._folder, self._name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        best_effort.forget(os.path.join(self._folder, self._name))
        os.close(self._claim)

    def ahead(self) -> list[int]:
        """Give the pids of those who stand before us, the first one first; tickets that nobody holds are taken away."""
        found = []
        for name in self._names():
            if name >= self._name:
                break
            path = os.path.join(self._folder, name)
            if liveness_lock.claimed(path):
                found.append(int(name.partition("-")[2]))
            else:
                best_effort.forget(path)
        return found

    def _names(self) -> list[str]:
        names = sorted(os.listdir(self._folder))
        return [name for name in names if name.replace("-", "").isdigit() and "-" in name]
