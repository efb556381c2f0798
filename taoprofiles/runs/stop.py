"""Stopping a run: its container, or its processes if it has none."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from taoprofiles.errors import NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import AGENT, RUN_VARIABLE, Hold
from taoprofiles.holds.liveness import ActiveHolds
from taoprofiles.holds.manage import active_holds
from taoprofiles.runs import cluster
from taoprofiles.runs.lookup import match_id
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes
from taoprofiles.system.engine import Engine, EngineError


def stop(context: Context, hold_id: str) -> Hold:
    """Stop the container of a run, or its processes if it has none; then its hold ends by itself.

    Of a notebook, only what its cells started is stopped, not the kernel. Raises what ``find_stoppable`` does, and
    TaoprofError if the engine refuses, ClusterError if a cluster does.
    """
    hold = find_stoppable(context, active_holds(context), hold_id)
    if hold.cluster is not None:
        cluster.cancel(context, hold)
        return hold
    if hold.container:
        try:
            if not Engine(context.environ, address=hold.engine).stop(hold.container):
                raise NotFoundError(f"container {hold.container[:6]} does not exist any more")
        except EngineError as error:
            raise TaoprofError(f"container {hold.container[:6]} could not be stopped: {error}") from None
        if hold.kind == "found":
            return hold  # its launcher ends with it
    pids = _processes(context, hold)
    if not pids and hold.kind == "run" and processes.alive(hold.pid, hold.start):
        pids = [hold.pid]  # its command has not been started yet
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):  # it has just ended; the pid may be another user's by now
            if pid != os.getpid():
                # An interactive shell ignores SIGTERM, and exits on SIGHUP, as when its terminal closes.
                os.kill(pid, signal.SIGHUP if hold.kind == "shell" else signal.SIGTERM)
    return hold


def find_stoppable(context: Context, active: ActiveHolds, hold_id: str) -> Hold:
    """Return the hold whose work can be stopped; its id may be shortened, "-" is the newest run.

    Raises NotFoundError, UsageError if there is nothing to stop or it is on another host.
    """
    candidates = [hold for hold in active.holds if hold.kind == "run" or hold_id != "-"]
    hold = active.find(hold_id) or match_id(candidates, hold_id)
    if hold.cluster is not None:
        cluster.refresh(context, [hold])
        if hold.ended is not None:
            active.holds.remove(hold)
            return find_stoppable(context, active, hold_id)
    hold_id = hold.id
    if hold.kind == "manual":
        raise UsageError(f"'{hold_id}' is a manual hold without a command", hint=f"'taoprof release {hold_id}'")
    if hold.kind == AGENT:
        raise UsageError(
            f"'{hold_id}' is a container of NVIDIA's agent, which keeps the record of its job '{hold.job}'",
            hint=f"let the agent cancel the job; or, without it: docker stop {(hold.container or '')[:12]}",
        )
    if hold.cluster is None and hold.host_id != processes.host_id():
        raise UsageError(f"'{hold_id}' runs on {hold.host}: stop it there")
    if hold.kind == "notebook" and not (hold.container or _processes(context, hold)):
        raise UsageError(f"notebook '{hold.reason}' has no running task", hint="shut its kernel down in Jupyter")
    return hold


def _processes(context: Context, hold: Hold) -> list[int]:
    pids = [pid for pid, tag in processes.with_variable(context.uid, RUN_VARIABLE) if tag == hold.id]
    if hold.kind == "found" and processes.alive(hold.pid, hold.start):
        pids.append(hold.pid)
    return pids
