"""Stopping one piece of work of one's own, and nobody else's."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from taoprofiles.errors import NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import RUN_VARIABLE, Hold
from taoprofiles.holds.manage import active_holds
from taoprofiles.system import processes
from taoprofiles.system.engine import Engine, EngineError

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context


def stop(context: Context, hold_id: str) -> Hold:
    """Stop the container of a run, or its processes where there is none yet; the hold ends by itself.

    A notebook's kernel goes on: what is stopped is what its cells started. Raises NotFoundError, UsageError where there
    is nothing to stop, or on another host, TaoprofError where the engine refuses.
    """
    hold = active_holds(context).find(hold_id)
    if hold is None:
        raise NotFoundError(f"there is no run '{hold_id}'", hint="'taoprof status' lists what runs now")
    if hold.kind == "manual":
        raise UsageError(f"'{hold_id}' is a hold by hand, and nothing runs", hint=f"'taoprof release {hold_id}'")
    if hold.place != processes.place():
        raise UsageError(f"'{hold_id}' runs on {hold.host}: stop it there")
    if hold.container:
        try:
            if not Engine(context.environ, address=hold.engine).stop(hold.container):
                raise NotFoundError(f"container {hold.container[:6]} is gone already")
        except EngineError as error:
            raise TaoprofError(f"container {hold.container[:6]} could not be stopped: {error}") from None
    if hold.kind == "found" and hold.container:
        return hold  # its launcher ends with it
    pids = [pid for pid, mark in processes.marked(context.uid, RUN_VARIABLE) if mark == hold.id]
    if hold.kind == "found" and processes.alive(hold.pid, hold.start):
        pids.append(hold.pid)
    if hold.kind == "notebook" and not (pids or hold.container):
        raise UsageError(f"notebook '{hold.reason}' runs nothing now", hint="its kernel is shut down in Jupyter")
    for pid in pids:
        try:
            # An interactive shell ignores SIGTERM, and ends when its terminal hangs up.
            if pid != os.getpid():
                os.kill(pid, signal.SIGHUP if hold.kind == "shell" else signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            pass  # it has just ended, or is another user's by now
    return hold
