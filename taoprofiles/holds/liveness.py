"""The search for active holds: whose work is alive, on this host and on others that share the home, and what it needs.

Nothing counts as alive because it is recent. A run is alive while a process that inherited its lock is, or a process
with its run tag in the environment, or a container with it. Work that taoprofiles did not start is found by its
launcher process and by its container's mounts. What cannot be checked counts as alive.
"""

import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import AGENT, OWN_KINDS, QUEUED, RUN_VARIABLE, ContainerTask, Hold, new_hold, seconds_held
from taoprofiles.holds.logs import RunLog, trim
from taoprofiles.holds.records import HoldRecords, Notifications
from taoprofiles.launcher.argv import parse_launcher_argv, parse_runner
from taoprofiles.launcher.behaviour import find_mounts_file, is_tao_image, runs_without_docker
from taoprofiles.masking import mask_command
from taoprofiles.mounts import mapping
from taoprofiles.storage.journal import Entry, History
from taoprofiles.storage.paths import Context
from taoprofiles.system import filesystem, processes
from taoprofiles.system.engine import (
    ABSENT,
    AGENT_LABELS,
    AGENT_RESULTS,
    DENIED,
    PROFILE_LABEL,
    RUN_LABEL,
    STATE_LABEL,
    Engine,
    EngineError,
    find_endpoint,
)
from taoprofiles.system.processes import Process

LEASE = 120.0
"""Seconds without a new heartbeat, as observed from here, after which another host's work counts as ended."""

HEARTBEAT = 20.0
"""Seconds between the heartbeats of a run."""

GUARD_TIMEOUT = 0.3
"""Seconds for all engines but the usual one together when the guard searches, which must not block."""

REPORT_TIMEOUT = 3.0
"""Seconds after the end of a container in which its engine may still report the exit status of the task in it."""


class Containers:
    """Asks one engine once for its list, and once about each container; after one failure it is not asked again.

    ``end`` is the deadline for all answers, by the monotonic clock. ``known`` are earlier results of ``inspect``:
    nothing that is used of them changes in a container's life, except ``Running``. ``failed`` is why the engine is not
    to be asked at all.
    """

    def __init__(
        self,
        context: Context,
        end: float,
        *,
        address: str | None = None,
        unchecked: list[str] | None = None,
        known: Mapping[str, dict[str, Any] | None] | None = None,
        failed: str = "",
    ) -> None:
        self._context = context
        self._engine = Engine(context.environ, end=end, address=address)
        self._inspected: dict[str, dict[str, Any] | None] = dict(known or {})
        self._listed: list[dict[str, Any]] | None = None
        self.unchecked = [] if unchecked is None else unchecked  # what could not be asked, one line each
        self.ids: set[str] = set()  # of all running containers, once they have been listed
        self.address = self._engine.address
        self.complete = not failed  # whether the engine answered everything
        self.absent = False  # whether there is no engine at all
        self.denied = False  # whether this user may not ask it, an engine of this machine
        if failed:
            self._listed = []
            self.unchecked.append(f"the container engine at {self.address} cannot be asked: {failed}")

    def running(self) -> list[dict[str, Any]]:
        """Return the containers that mount something of this host or have our labels; none if the engine is silent."""
        if self._listed is None:
            self._listed = []
            try:
                containers = self._engine.containers()
                self.ids = {container["Id"] for container in containers}
                self._listed = [container for container in containers if container["Binds"] or container["Labels"]]
            except EngineError as error:
                self.complete, self.absent = False, error.absent
                self.denied = error.kind == DENIED and self.address.startswith("unix:")
                if not error.absent:
                    self.unchecked.append(
                        f"cannot query the container engine at {self.address}: {error}; containers that need the "
                        "mapping may go unnoticed. To find the reason: taoprof doctor"
                    )
        return self._listed

    def assume_unchanged(self, before: "Containers") -> None:
        """Take over the list of ``before``: that the engine did not answer does not prove that a container ended."""
        self._listed = list(before.running())
        self.ids = {container["Id"] for container in self._listed}

    def inspect_all(self) -> dict[str, dict[str, Any] | None]:
        """Inspect every container that ``running`` returns; return the results, for a later ``known``."""
        if not self.complete:
            return self._inspected
        return {container["Id"]: self.inspect(container["Id"]) for container in self.running()}

    def inspect(self, container_id: str) -> dict[str, Any] | None:
        """Return ``engine.container`` of a container; {} if the engine is silent, None if there is none."""
        if container_id not in self._inspected:
            try:
                self._inspected[container_id] = self._engine.inspect(container_id) if self.complete else {}
            except EngineError as error:
                self.complete = False
                self._inspected[container_id] = {}
                self.unchecked.append(f"container {container_id[:6]} could not be inspected: {error}")
        return self._inspected[container_id]

    def run_tag(self, container_id: str) -> str | None:
        """Return the id of the run in a container's environment; None if it has none."""
        return _environment(self.inspect(container_id)).get(RUN_VARIABLE)

    def may_be_launcher_container(self, container_id: str) -> bool:
        """Check whether a launcher may have started a container for this user. What cannot be inspected counts.

        Every launcher requests all GPUs (DeviceRequest -1), and 6.25.11 and later identify themselves. Podman does not
        keep such requests, so there the image counts. A container that runs as another user id belongs to that user,
        although the projects of two users may mount the same folders.
        """
        container = self.inspect(container_id)
        if not container:
            return container is not None
        is_launchers = container["Gpus"] == "all" or "TAO_CLIENT_TYPE=launcher" in container["Env"]
        is_others = is_another_users(container, self._context.uid)
        return (is_launchers or is_tao_image(container["Image"])) and not is_others


class ActiveHolds:
    """What is active, as far as it could be seen.

    ``others`` are containers with GPUs on the same engine that are not this user's, or are not known to be; of each
    only ``user`` ("" if unknown), ``container``, ``gpus`` and ``since``.
    """

    def __init__(self) -> None:
        self.holds: list[Hold] = []  # the oldest first
        self.others: list[Hold] = []
        self.unchecked: list[str] = []  # what could not be checked, one line each
        self.unproved: set[str] = set()  # ids of holds whose process has ended, and whose container cannot be seen

    def find(self, hold_id: str) -> Hold | None:
        """Return the hold with this id; work of kind "found" has a second one, made from its container's."""
        for hold in self.holds:
            if hold_id == hold.id or (hold.kind == "found" and hold.container and hold_id == _found_id(hold.container)):
                return hold
        return None


def find_active_holds(
    context: Context,
    content: bytes | None,
    *,
    may_write: bool = False,
    engine: Containers | None = None,
    damaged: dict[str, str] | None = None,
    others: bool = False,
) -> ActiveHolds:
    """Return the active holds, by the records, processes and containers. ``content`` is the mapping file's.

    ``engine`` is what is known about the engine already; without it, the engine is asked. With ``may_write``, the
    caller has the lock, and records of ended work are deleted. Raises InvalidStateError for a damaged record, since its
    work may be alive; with ``damaged``, its error message is put there instead, by the id of the hold. With
    ``others``, the containers of other users are listed too, which takes one question to the engine for each.
    """
    return _Search(context, content, may_write=may_write, others=others, engine=engine).run(damaged)


class _RequiredMapping(NamedTuple):
    """The mapping that work needs which taoprofiles did not start; ``digest`` is None if it reads no mapping file."""

    digest: str | None
    profile: str | None
    content: str | None = None


class _Search:
    """One search. The processes are listed before the containers: a launcher that ends in between left a container."""

    def __init__(
        self, context: Context, content: bytes | None, *, may_write: bool, others: bool, engine: Containers | None
    ) -> None:
        self._context, self._content = context, content
        self._may_write, self._others = may_write, others
        self._here = processes.host_id()
        self._records = HoldRecords(context)
        self._active = ActiveHolds()
        self._end = time.monotonic() + (find_endpoint(context.environ).timeout if engine is None else GUARD_TIMEOUT)
        self._processes = processes.scan()
        self._clients = {process.container: process for process in self._processes if process.container is not None}
        self._engine = engine or Containers(context, self._end)
        self._other_engines: dict[str, Containers] = {}
        self._history = History(context).past_mappings()
        self._known_needs: list[tuple[dict[str, str], _RequiredMapping]] = []

    def run(self, damaged: dict[str, str] | None) -> ActiveHolds:
        records = self._records.all(damaged)
        if self._may_write:
            self._records.delete_leftovers()
            Notifications(self._context).start_missing_senders()
        runs = {hold.id: hold for hold in records if hold.kind in OWN_KINDS}
        with_container: set[str] = set()
        containers: list[Hold] = []
        for container in self._engine.running():
            if job := _agent_job(container):
                self._add_agent(container, job)
                continue
            owner = self._owner(container, runs)
            if isinstance(owner, Hold):
                with_container.add(owner.id)
                self._bind(owner, container)
            elif owner is not None:
                containers.append(self._found_container(container, owner))
            else:
                self._add_other(container)
        for hold in records:
            if hold.kind != "found":
                self._keep_if_alive(hold, has_container=hold.id in with_container)
        self._active.holds += containers
        self._add_launchers(runs)
        self._apply_releases([hold for hold in records if hold.kind == "found"])
        self._active.holds.sort(key=lambda hold: (hold.since, hold.id))
        self._active.unchecked += [
            f"{filesystem.no_answer(path)}; containers that have it mounted may go unnoticed"
            for path in filesystem.unanswered(mapping.sources(self._content))
        ]
        self._active.unchecked += [
            f"the process of hold {hold_id} has ended, but a container of it may still be running. If it is over: "
            f"taoprof release {hold_id}"
            for hold_id in sorted(self._active.unproved)
        ]
        # Last, when everything has been asked. Inserted, not assigned: a guard uses the same engine object again.
        self._active.unchecked[:0] = self._engine.unchecked
        return self._active

    # Containers

    def _owner(self, container: dict[str, Any], runs: dict[str, Hold]) -> Hold | _RequiredMapping | None:
        """Return the run that a container belongs to, what it needs if it is other work of this user, or None."""
        labels = container.get("Labels", {})
        if STATE_LABEL not in labels:
            return self._owner_of_launcher_container(container, runs)
        if labels[STATE_LABEL] != self._context.state:
            return None
        # It was started without a launcher, so nothing in it reads the mapping file.
        return runs.get(labels[RUN_LABEL]) if RUN_LABEL in labels else _RequiredMapping(None, labels.get(PROFILE_LABEL))

    def _owner_of_launcher_container(
        self, container: dict[str, Any], runs: dict[str, Hold]
    ) -> Hold | _RequiredMapping | None:
        binds, client = container["Binds"], self._clients.get(container["Id"])
        if client is not None and client.uid not in (self._context.uid, 0):
            return None  # another user's, whose docker exec works in it
        for run in runs.values():
            if run.container == container["Id"]:
                return run
            if _has_mounts(binds, dict(run.mounts)) and self._engine.run_tag(container["Id"]) == run.id:
                return run
        if client is not None:
            started_by = runs.get(processes.environment(client.pid).get(RUN_VARIABLE, ""))
            if started_by is not None and (started_by.shared or _has_mounts(binds, dict(started_by.mounts))):
                return started_by
        is_tagged = self._engine.run_tag(container["Id"]) is not None  # an isolated run's whose record is gone
        if is_tagged or not self._engine.may_be_launcher_container(container["Id"]):
            return None
        return next((needs for mounts, needs in self._all_needs() if _has_mounts(binds, mounts)), None)

    def _all_needs(self) -> Iterator[tuple[dict[str, str], _RequiredMapping]]:
        """Yield the mounts of this mapping and of each past one, and what work needs that has them.

        The history is read only once, and only as far as a container has no newer mounts.
        """
        yield mapping.mounted(self._content), self._current_needs
        yield from self._known_needs
        for entry, content in self._history:
            self._known_needs.append((mapping.mounted(content), _required(content, entry)))
            yield self._known_needs[-1]

    @functools.cached_property
    def _current_needs(self) -> _RequiredMapping:
        return _required(self._content or b"", History(self._context).current_entry(self._content))

    @functools.cached_property
    def _tagged(self) -> dict[str, list[int]]:
        """The processes with a run tag, also those in the containers of this user, by the tag."""
        tagged: dict[str, list[int]] = {}
        for pid, tag in processes.with_variable(self._context.uid, RUN_VARIABLE):
            tagged.setdefault(tag, []).append(pid)
        return tagged

    def _add_other(self, container: dict[str, Any]) -> None:
        if not self._others:
            return
        facts = self._engine.inspect(container["Id"]) or {}
        visible = _environment(facts).get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus = [gpu for gpu in visible if gpu] or facts.get("Gpus")
        if gpus:
            client, user = self._clients.get(container["Id"]), facts["User"].partition(":")[0]
            name = processes.user_name(client.uid) if client is not None and client.uid else user
            name = processes.user_name(int(name)) if name.isdigit() else name
            since = container["Created"] or time.time()
            other = Hold(kind="found", user=name, container=container["Id"], gpus=gpus, since=since)
            self._active.others.append(other)

    def _add_agent(self, container: dict[str, Any], job: str) -> None:
        """Add the container of an agent: what it uses counts, but it needs no mapping and is not ours to stop."""
        facts = self._engine.inspect(container["Id"])
        if facts is None:
            return  # it has just ended
        if is_another_users(facts, self._context.uid):
            self._add_other(container)
            return
        command, labels, mounts = facts.get("Command", []), container["Labels"], container["Binds"]
        results = self._find_results(command or ["train"], mounts, {"RESULTS_DIR": "/results"})
        results += [labels[AGENT_RESULTS]] if labels.get(AGENT_RESULTS, "").startswith("/") else []
        hold = new_hold(self._context, AGENT, **self._container_fields(container), job=job, results=results)
        hold.command = mask_command(command) or hold.command
        hold.gpus, hold.mounts = facts.get("Gpus") or None, [list(pair) for pair in mounts.items()]
        self._active.holds.append(hold)

    def _found_container(self, container: dict[str, Any], needs: _RequiredMapping) -> Hold:
        hold = self._new_found_hold(needs, **self._container_fields(container))
        client = self._clients.get(container["Id"])
        if client is not None:
            hold.pid, hold.start = client.pid, processes.start_time(client.pid) or 0
            hold.command = mask_command(client.argv[client.argv.index(container["Id"]) + 1 :])
        return hold

    def _container_fields(self, container: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a hold that each container of the list gives."""
        return {
            "id": _found_id(container["Id"]),
            "phase": "bound",
            "container": container["Id"],
            "image": container["Image"],
            "engine": self._engine.address,
            "since": container["Created"] or time.time(),
            "command": [container["Image"]],
        }

    def _new_found_hold(self, needs: _RequiredMapping, **fields: Any) -> Hold:
        return new_hold(self._context, "found", shared=needs.digest is not None, **needs._asdict(), **fields)

    # Processes

    def _add_launchers(self, runs: dict[str, Hold]) -> None:
        """Add the launchers that read the mapping file, each to its container's hold if it has one already."""
        client_parents = {
            container_id: set(processes.ancestors(client.pid)) for container_id, client in self._clients.items()
        }
        for process in self._processes:
            is_own = process.uid == self._context.uid
            launch = (parse_launcher_argv(process.argv) or parse_runner(process.argv)) if is_own else None
            start = None if launch is None else processes.start_time(process.pid)
            if launch is None or start is None or not self._holds_mapping_file(process, runs):
                continue
            container_id = next((key for key, parents in client_parents.items() if process.pid in parents), None)
            hold = self._active.find(_found_id(container_id)) if container_id else self._container_without_client(start)
            if hold is None:
                hold = self._new_found_hold(self._current_needs)
                self._active.holds.append(hold)
            hold.id, hold.pid, hold.start = f"p{process.pid}", process.pid, start
            hold.command, hold.folder = mask_command(launch.words), processes.folder(process.pid)
            hold.since = processes.epoch(start) or hold.since
            binds = (self._engine.inspect(hold.container) or {}).get("Binds") if hold.container else None
            hold.results = self._find_results(launch.words, binds or mapping.mounted(self._content), {})

    def _find_results(self, words: list[str], mounts: Mapping[str, str], variables: Mapping[str, str]) -> list[str]:
        """Return the folders on the host to which a command writes that taoprofiles did not start."""
        from taoprofiles.rules.command_paths import CommandContext, find_host_results  # not for 'use' where none runs

        return find_host_results(words, CommandContext(mounts, variables, self._context.environ))

    def _holds_mapping_file(self, process: Process, runs: dict[str, Hold]) -> bool:
        """Check whether a launcher process needs the mapping file, and no run that it belongs to holds it already."""
        environ = processes.environment(process.pid)
        if not environ and not processes.has_command_line(process.pid):
            return False  # it is exiting: the kernel has freed its memory, so it reads no file any more
        run = runs.get(environ.get(RUN_VARIABLE, ""))
        if not environ and self._is_in_isolated_run(process, runs):
            return False
        # With TAO_DOCKER_DISABLE it runs the task in place, and reads no mounts (builder.py, 4.0.0 and later).
        if (run is not None and run.shared) or runs_without_docker(environ):
            return False
        if parse_runner(process.argv) is not None:
            environ.pop("LAUNCHER_MOUNTS", None)  # which a runner does not read
        path = find_mounts_file({"HOME": self._context.home, **environ}, processes.folder(process.pid) or "/")
        real, own = filesystem.real_paths([path, self._context.mapping_file])
        return real == own

    def _is_in_isolated_run(self, process: Process, runs: dict[str, Hold]) -> bool:
        """Check whether a process has an ancestor that is a run with a mounts file of its own.

        The kernel lets nobody but root read the environment of a process whose group differs, as after 'newgrp docker'.
        """
        started = {(run.pid, run.start) for run in runs.values() if run.host_id == self._here and not run.shared}
        return any((pid, processes.start_time(pid)) in started for pid in processes.ancestors(process.pid))

    def _container_without_client(self, launcher_start: int) -> Hold | None:
        """Return the container of a launcher whose docker exec has ended: it waits for the container to stop."""
        earliest = (processes.epoch(launcher_start) or 0.0) - 1
        waiting = [hold for hold in self._active.holds if hold.kind == "found" and hold.shared and not hold.pid]
        candidates = [hold for hold in waiting if hold.since >= earliest]
        return candidates[0] if len(candidates) == 1 else None

    # Records

    def _keep_if_alive(self, hold: Hold, *, has_container: bool) -> None:
        is_here = hold.host_id == self._here
        is_idle = self._is_idle(hold)
        if (has_container or self._is_alive(hold)) and not is_idle:
            self._active.holds.append(hold)
            if is_here and hold.kind != "manual":
                self._records.send_heartbeat(hold)
                trim(RunLog(self._context, hold.id).path)  # the run's own process may have been killed
        elif self._may_write and (is_here or processes.rebooted(hold.host_id, self._here)):
            # The record of another host whose lease has expired no longer counts, but stays: if that host is only
            # disconnected, its launcher may still have to read the mounts file beside the record.
            hold.ended = time.time()
            if self._set_outcome(hold, is_idle=is_idle):
                self._end_record(hold)
            else:
                hold.ended = None
                self._active.holds.append(hold)

    def _bind(self, run: Hold, container: dict[str, Any]) -> None:
        """Set the container of a run, and record it if the run's own process cannot do that any more."""
        before, run.container, run.image, run.phase = run.container, container["Id"], container["Image"], "bound"
        if self._may_write and run.container != before and not processes.alive(run.pid, run.start):
            run.task = run.task and None
            self._records.write(run)

    def _is_idle(self, hold: Hold) -> bool:
        """Check whether nothing but the idle shell is left in the container of a launcher that was killed.

        It would run for ever, since it was for the launcher to start the task in it, and to stop it afterwards.
        """
        container_id, is_exec = hold.container, hold.kind == "run" and hold.task != ""
        if container_id is None or not is_exec or hold.host_id != self._here or self._records.is_locked(hold):
            return False
        if not all(processes.is_in_group(pid, container_id) for pid in self._tagged.get(hold.id, ())):
            return False
        try:
            container = self._engine_of(hold).inspect(container_id)  # now: known answers may be older
        except EngineError:
            return False
        return container is not None and container["Running"] and container["Execs"] == []

    def _set_outcome(self, hold: Hold, *, is_idle: bool) -> bool:
        """Set how a run ended whose own process was killed, as far as its engine knows; return False to ask again.

        A container that ``is_idle`` is killed, as the launcher would have stopped it.
        """
        if hold.kind != "run" or hold.container is None:
            return True
        task = ContainerTask(hold.container, hold.task)
        engine = self._engine_of(hold)
        try:
            for event in engine.past_events(hold.container):
                task.handle(event)
            if is_idle:
                engine.kill(hold.container)
        except EngineError as error:
            return error.kind in (ABSENT, DENIED)  # denied: there is no process of the container
        now = hold.ended or time.time()
        if hold.status is None and task.ended is not None:
            if task.status is None and 0 <= now - task.ended < REPORT_TIMEOUT:
                return False
            hold.status, hold.ended = task.status, min(now, max(hold.since, task.ended))
        return True

    def _engine_of(self, hold: Hold) -> Engine:
        return Engine(self._context.environ, end=self._end, address=hold.engine)

    def _is_alive(self, hold: Hold) -> bool:
        if hold.kind == "manual":
            return self._is_manual_alive(hold)
        if hold.cluster is not None:
            return True  # no process or container of this machine tells; runs/jobs.py asks the cluster
        if hold.host_id != self._here:
            return self._is_alive_elsewhere(hold)
        has_process = self._records.is_locked(hold) or hold.id in self._tagged
        return has_process or (hold.phase != QUEUED and self._may_have_container(hold))

    def _is_manual_alive(self, hold: Hold) -> bool:
        if hold.until is not None and seconds_held(hold) >= hold.until - hold.since:
            return False
        if not hold.pid:
            return True
        if hold.host_id == self._here:
            return processes.alive(hold.pid, hold.start)
        # The process sends no heartbeats, so only its own host knows when it has ended.
        return not processes.rebooted(hold.host_id, self._here)

    def _is_alive_elsewhere(self, hold: Hold) -> bool:
        """Check whether another host's work is alive: until LEASE seconds after its last heartbeat."""
        if processes.rebooted(hold.host_id, self._here):
            # No process survives a reboot; a container on another machine's engine does.
            is_remote = hold.engine is not None and not hold.engine.startswith("unix:")
            return is_remote and self._may_have_container(hold)
        return self._records.seconds_since_heartbeat(hold, may_write=self._may_write) < LEASE

    def _may_have_container(self, hold: Hold) -> bool:
        """Check whether a run without processes may have a container that was not listed."""
        has_container = self._has_container(hold)
        if has_container is None:
            self._active.unproved.add(hold.id)
        return has_container is not False

    def _has_container(self, hold: Hold) -> bool | None:
        """Check whether a run has a container that was not listed; None if that cannot be determined.

        That is one on another engine, or any if the engine does not answer. If there is no engine at all, only a
        container that was seen before counts: with live-restore it keeps running while dockerd restarts.
        """
        if hold.engine is None or hold.engine == self._engine.address:
            if self._engine.complete or (self._engine.absent and hold.container is None):
                return False
            return self._has_container_here(hold) if self._engine.denied else None
        if hold.engine not in self._other_engines:
            other = Containers(self._context, self._end, address=hold.engine, unchecked=self._active.unchecked)
            self._other_engines[hold.engine] = other
        other = self._other_engines[hold.engine]
        if hold.container is not None:
            container = other.inspect(hold.container)
            return container is not None and container.get("Running")
        has_tag = any(other.run_tag(container["Id"]) == hold.id for container in other.running())
        return has_tag or (False if other.complete or other.absent else None)

    def _has_container_here(self, hold: Hold) -> bool | None:
        """Check by the processes of this machine whether a run has a container, for a user who may not ask the engine.

        A container that has been started since the run may be its own. None if that cannot be determined.
        """
        starts = processes.container_starts()
        if starts is not None and hold.container is not None:
            return hold.container in starts
        return False if starts is not None and all(start < hold.start for start in starts.values()) else None

    def _apply_releases(self, releases: list[Hold]) -> None:
        """Mark the found work that the user released; delete the releases of ended work."""
        for release in releases:
            released = [hold for hold in self._active.holds if hold.kind == "found" and hold.is_same(release)]
            for hold in released:
                hold.released = True
            if not released and self._may_write and (self._engine.complete or self._engine.absent):
                self._end_record(release)

    def _end_record(self, hold: Hold) -> None:
        try:
            self._records.end(hold)
        except TaoprofError as error:
            self._active.unchecked.append(f"hold {hold.id} has ended, but {error.message}")


def _required(content: bytes, entry: Entry | None) -> _RequiredMapping:
    return _RequiredMapping(mapping.digest(content), entry and entry.profile, entry and entry.after)


def _has_mounts(binds: dict[str, str], mounts: dict[str, str]) -> bool:
    return bool(mounts) and mounts.items() <= binds.items()


def _agent_job(container: dict[str, Any]) -> str:
    """Return the id of the job for which an agent started a container, "" for any other container."""
    labels = container["Labels"]
    return "" if STATE_LABEL in labels else next((labels[name] for name in AGENT_LABELS if labels.get(name)), "")


def _environment(facts: dict[str, Any] | None) -> dict[str, str]:
    return dict(item.partition("=")[::2] for item in (facts or {}).get("Env", []))


def _found_id(container_id: str) -> str:
    return f"c{container_id[:6]}"


def is_another_users(facts: dict[str, Any], uid: int) -> bool:
    """Check whether a container runs as another user id: it belongs to that user. Root's may be anybody's."""
    user = str(facts.get("User", "")).partition(":")[0]
    return user.isdigit() and int(user) not in (uid, 0) and uid != 0
