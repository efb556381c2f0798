"""Taking stock: whose work is alive on this host, and on others that share the home, and what it needs.

Nothing is believed because it is recent. A run lives while a process that inherited its claim lives, or one that
carries its mark in the environment, or a container that does. Work that taoprofiles did not start is found by its
launcher process and by its container's mounts. What cannot be seen counts as alive.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidStateError
from taoprofiles.holds.containers import Containers
from taoprofiles.holds.hold import OWN_KINDS, PROFILE_LABEL, RUN_LABEL, RUN_VARIABLE, STATE_LABEL, Hold
from taoprofiles.holds.records import Holds
from taoprofiles.launcher.argv import parse_launcher_argv
from taoprofiles.masking import without_secrets
from taoprofiles.mounts import mapping
from taoprofiles.storage.journal import History
from taoprofiles.system import processes
from taoprofiles.system.engine import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from taoprofiles.storage.paths import Context
    from taoprofiles.system.processes import Process

LEASE = 120.0
"""Seconds without a sign of life, as watched from here, after which another host's work counts as gone."""

BEAT = 20.0
"""Seconds between the signs of life that a run gives."""

IMPATIENCE = 0.3
"""Seconds that other engines than the usual one have together where somebody waits who must not wait: a guard."""

_KNOWN = 20
"""Mappings of the past by which a container is recognised; one that has run longer than that many switches is rare."""


class ActiveHolds:
    """``holds``: all that lives, the oldest first. ``unseen``: what could not be looked at, one line each."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self.unseen: list[str] = []

    def find(self, hold_id: str) -> Hold | None:
        """Give the hold with exactly that id; found work also by its container's."""
        for hold in self.holds:
            if hold_id == hold.id or (hold.kind == "found" and hold.container and hold_id == _container_id(hold)):
                return hold
        return None


def find_active_holds(
    context: Context,
    content: bytes | None,
    *,
    may_write: bool = False,
    engine: Containers | None = None,
    damaged: dict[str, str] | None = None,
) -> ActiveHolds:
    """Look at records, processes and containers. ``content`` is the mapping file's.

    ``engine`` is what is known of the engine already; without it, the engine is asked. With ``may_write`` the lock is
    held, and records of what is gone are taken away. Raises InvalidStateError for a record that is damaged: what it was
    about may still be at work; with ``damaged`` it is put there instead, by its id.
    """
    return _Look(context, content, may_write=may_write, engine=engine).stock(damaged)


def seconds_held(hold: Hold, here: str) -> float:
    """For how long a hold by hand has been there: by the time since boot, which no clock change touches.

    After a reboot, and on another host, there is only the clock.
    """
    if hold.place == here and not hold.pid:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - hold.start / os.sysconf("SC_CLK_TCK")
    return time.time() - hold.since


class _Look:
    def __init__(self, context: Context, content: bytes | None, *, may_write: bool, engine: Containers | None) -> None:
        self._context = context
        self._content = content
        self._may_write = may_write
        self._records = Holds(context)
        self._stock = ActiveHolds()
        self._end = time.monotonic() + (PATIENCE if engine is None else IMPATIENCE)
        self._processes = processes.scan()  # before the containers: a launcher that ends meanwhile has left its own
        self._engine = engine or Containers(context, self._end)
        self._others: dict[str, Containers] = {}
        self._past: list[tuple[dict[str, str], str, str | None]] | None = None
        self._mark: tuple[str | None, str] | None = None

    def stock(self, damaged: dict[str, str] | None) -> ActiveHolds:
        records = self._records.all(damaged)
        if self._may_write:
            self._records.sweep()
        runs = {hold.id: hold for hold in records if hold.kind in OWN_KINDS}
        found = self._processes
        clients = {process.container: process for process in found if process.container is not None}
        containers = self._engine.listed()
        with_container: dict[str, str] = {}
        loose: list[tuple[dict[str, Any], str | None, str | None]] = []
        for container in containers:
            labels = container.get("Labels", {})
            owner = self._labelled(labels, runs) if STATE_LABEL in labels else self._owner(container, runs, clients)
            if isinstance(owner, Hold):
                with_container[owner.id] = container["Id"]
                owner.container, owner.image, owner.phase = container["Id"], container["Image"], "bound"
            elif owner is not None:
                loose.append((container, *owner))
        self._keep_living(records, with_container)
        for container, digest, profile in loose:
            self._stock.holds.append(self._found_container(container, digest, profile, clients.get(container["Id"])))
        self._found_launchers(found, runs)
        self._apply_releases([hold for hold in records if hold.kind == "found"])
        self._stock.holds.sort(key=lambda hold: (hold.since, hold.id))
        # After all has been asked; a copy, since a guard goes on with the same engine in its next look.
        self._stock.unseen[:0] = self._engine.unseen
        return self._stock

    # Containers

    def _labelled(self, labels: dict[str, str], runs: dict[str, Hold]) -> Hold | tuple[None, str | None] | None:
        """Tell as ``_owner``, by our labels. There is no digest: what the launcher did not start reads no mapping."""
        if labels.get(STATE_LABEL) != self._context.state:
            return None
        return runs.get(labels[RUN_LABEL]) if RUN_LABEL in labels else (None, labels.get(PROFILE_LABEL))

    def _owner(
        self, container: dict[str, Any], runs: dict[str, Hold], clients: dict[str, Process]
    ) -> Hold | tuple[str, str | None] | None:
        """Tell whose a container is: a run's, or found work of ours with (digest, profile), or none of ours."""
        binds = container["Binds"]
        client = clients.get(container["Id"])
        if client is not None and client.uid not in (self._context.uid, 0):
            return None  # somebody else's, by the docker exec that works in it
        for run in runs.values():
            if run.container == container["Id"]:
                return run
            if _inside(dict(run.mounts), binds) and self._engine.mark_of(container["Id"]) == run.id:
                return run
        if client is not None:
            started_by = runs.get(processes.environment(client.pid).get(RUN_VARIABLE, ""))
            if started_by is not None and (started_by.shared or _inside(dict(started_by.mounts), binds)):
                return started_by
        known = self._known(binds)
        if known is None or self._engine.mark_of(container["Id"]) is not None:
            return None  # also an isolated run's, whose record somebody took away
        return known if self._engine.is_launchers(container["Id"]) else None

    def _known(self, binds: dict[str, str]) -> tuple[str, str | None] | None:
        """Find the mapping whose mounts a container has: the file's own first, then those of the past."""
        if _inside(mapping.mounts(self._content), binds):
            return self._current()
        if self._past is None:
            self._past = list(self._past_mappings())
        return next(((digest, name) for mounts, digest, name in self._past if _inside(mounts, binds)), None)

    def _past_mappings(self) -> Iterator[tuple[dict[str, str], str, str | None]]:
        history = History(self._context)
        seen: set[str] = set()
        mappings = (entry for entry in history.newest_first() if entry.target == "mapping" and entry.after is not None)
        for entry in itertools.islice(mappings, 50 * _KNOWN):
            if entry.after is None or entry.after in seen or len(seen) == _KNOWN:
                continue
            seen.add(entry.after)
            try:
                content = history.content(entry.after)
            except InvalidStateError:
                continue
            yield mapping.mounts(content), mapping.digest(content), entry.profile

    def _current(self) -> tuple[str, str | None]:
        """Give the digest of the mapping file and the profile that made it."""
        if self._mark is None:
            content = self._content
            entry = History(self._context).in_force(content)
            self._mark = (entry.profile if entry else None, mapping.digest(content or b""))
        return self._mark[1], self._mark[0]

    def _found_container(
        self, container: dict[str, Any], digest: str | None, profile: str | None, client: Process | None
    ) -> Hold:
        command = client.argv[client.argv.index(container["Id"]) + 1 :] if client else [container["Image"]]
        return Hold(
            id=f"c{container['Id'][:6]}",
            kind="found",
            phase="bound",
            shared=digest is not None,
            digest=digest,
            profile=profile,
            user=self._context.user,
            host=os.uname().nodename,
            place=processes.place(),
            pid=client.pid if client else 0,
            start=(processes.start_time(client.pid) or 0) if client else 0,
            command=without_secrets(command),
            engine=self._engine.address,
            container=container["Id"],
            image=container["Image"],
            since=container["Created"] or time.time(),
        )

    # Processes

    def _found_launchers(self, found: list[Process], runs: dict[str, Hold]) -> None:
        parents = {one.container: set(processes.ancestors(one.pid)) for one in found if one.container}
        for process in found:
            launch = parse_launcher_argv(process.argv) if process.uid == self._context.uid else None
            start = None if launch is None else processes.start_time(process.pid)
            if launch is None or start is None:
                continue  # no launcher, somebody else's, or ended since
            environ = processes.environment(process.pid)
            if not environ and not processes.has_command_line(process.pid):
                continue  # in its last moment: it has given up its memory already, and reads no file any more
            run = runs.get(environ.get(RUN_VARIABLE, ""))
            if (run is not None and run.shared) or not self._reads_the_file(environ, process.pid):
                continue  # the run itself holds, or this one has a file of its own
            container = next((one for one, above in parents.items() if process.pid in above), None)
            bound = self._stock.find(f"c{container[:6]}") if container else self._orphan(process)
            hold = bound or Hold(kind="found", shared=True, user=self._context.user, host=os.uname().nodename)
            if bound is None:
                hold.digest, hold.profile = self._current()
                self._stock.holds.append(hold)
            hold.id, hold.pid, hold.start, hold.command = (
                f"p{process.pid}",
                process.pid,
                start,
                without_secrets(launch.words),
            )
            hold.place = processes.place()
            hold.since = processes.epoch(start) or hold.since
            hold.folder = processes.folder(process.pid)

    def _orphan(self, process: Process) -> Hold | None:
        """Find the container of a launcher whose docker exec has ended: it waits for the container to stop."""
        start = processes.epoch(processes.start_time(process.pid)) or 0.0
        orphans = [
            hold
            for hold in self._stock.holds
            if hold.kind == "found" and hold.shared and not hold.pid and hold.since >= start - 1
        ]
        return orphans[0] if len(orphans) == 1 else None

    def _reads_the_file(self, environ: dict[str, str], pid: int) -> bool:
        """Whether a launcher with this environment reads the shared mapping file."""
        if environ.get("TAO_DOCKER_DISABLE") == "1":
            return False  # it runs the task in place, and reads no mounts (builder.py, 4.0.0 and later)
        home = environ.get("HOME", self._context.home)
        path = environ.get("LAUNCHER_MOUNTS", "~/.tao_mounts.json")
        if path == "~" or path.startswith("~/"):
            path = home + path[1:]
        if not os.path.isabs(path):
            path = os.path.join(processes.folder(pid) or "/", path)
        return os.path.realpath(path) == os.path.realpath(self._context.mapping_file)

    # Records

    def _keep_living(self, records: list[Hold], with_container: dict[str, str]) -> None:
        here = processes.place()
        marked: set[str] | None = None
        for hold in records:
            if hold.kind == "found":
                continue
            if hold.kind == "manual":
                living = self._manual_lives(hold, here)
            elif hold.id in with_container:
                living = True  # its container is there to be seen, wherever and whenever it was started
            elif hold.place != here:
                living = self._lives_elsewhere(hold, here)
            else:
                living = self._records.claimed(hold)
                if not living:
                    if marked is None:
                        marked = {mark for _, mark in processes.marked(self._context.uid, RUN_VARIABLE)}
                    living = hold.id in marked or self._may_be_in_a_container(hold)
            if living:
                self._stock.holds.append(hold)
                if hold.place == here and hold.kind != "manual":
                    self._records.beat(hold)
            elif self._may_write and (hold.place == here or processes.rebooted(hold.place, here)):
                # Another host's record that has run out counts no more, and stays: if that host is only cut off, its
                # launcher may still have to read the mounts file that is kept beside the record.
                hold.ended = time.time()
                self._records.end(hold)

    def _may_be_in_a_container(self, hold: Hold) -> bool:
        """Whether a run that has no process any more may still have a container: not to be seen, or on its own engine.

        Where there is no engine at all, only a container that was seen before counts: with live-restore it goes on
        while dockerd restarts, and its socket is away for that time.
        """
        if hold.engine is None or hold.engine == self._engine.address:
            return not self._engine.was_seen and (not self._engine.absent or hold.container is not None)
        if hold.engine not in self._others:
            self._others[hold.engine] = Containers(
                self._context, self._end, address=hold.engine, unseen=self._stock.unseen
            )
        other = self._others[hold.engine]
        if hold.container is not None:
            seen = other.inspect(hold.container)
            return seen is not None and seen.get("Running", True)
        ours = any(other.mark_of(container["Id"]) == hold.id for container in other.listed())
        return ours or (not other.was_seen and not other.absent)

    def _manual_lives(self, hold: Hold, here: str) -> bool:
        if hold.until is not None and seconds_held(hold, here) >= hold.until - hold.since:
            return False
        if not hold.pid or processes.rebooted(hold.place, here):
            return not hold.pid
        if hold.place != here:
            return True  # no process gives signs of its life, so only its own host can tell that it has ended
        return processes.alive(hold.pid, hold.start)

    def _lives_elsewhere(self, hold: Hold, here: str) -> bool:
        """Whether another host's work is alive: until its sign of life has not changed for LEASE seconds.

        The clocks of two hosts are never compared: what counts is for how long this one has seen the same sign.
        """
        if processes.rebooted(hold.place, here):
            # Nothing here outlives a reboot; a container on another machine's engine does.
            far = hold.engine is not None and not hold.engine.startswith("unix:")
            return far and self._may_be_in_a_container(hold)
        from taoprofiles.holds.heartbeats import HeartbeatObserver

        leases = HeartbeatObserver(self._context, here)
        return leases.seconds_unchanged(hold.id, self._records.last_beat(hold), may_write=self._may_write) < LEASE

    def _apply_releases(self, releases: list[Hold]) -> None:
        for release in releases:
            here = [hold for hold in self._stock.holds if hold.kind == "found" and hold.is_same(release)]
            for hold in here:
                hold.released = True
            if not here and self._may_write and (self._engine.was_seen or self._engine.absent):
                self._records.end(release)


def _inside(wanted: dict[str, str], binds: dict[str, str]) -> bool:
    return bool(wanted) and wanted.items() <= binds.items()


def _container_id(hold: Hold) -> str:
    return f"c{(hold.container or '')[:6]}"
