"""The switch transaction: replace the mapping file by another profile's mapping, atomically, and lose nothing; undo."""

import os
import time
from contextlib import suppress
from typing import Any, NamedTuple

from taoprofiles import current_cache
from taoprofiles.errors import InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.holds.hold import AGENT, blocking_holds
from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Source, Store
from taoprofiles.storage import atomic, files
from taoprofiles.storage.files import MAPPING_LIMIT
from taoprofiles.storage.journal import CONTENT_LIMIT, Entry, History
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.storage.paths import Context
from taoprofiles.switching import preflight
from taoprofiles.switching.status import find_previous, get_status
from taoprofiles.system import processes

SWITCH_WRITER_TIMEOUT = 0.3
"""Seconds to wait, before and after the file is replaced, for a program that is writing it."""

RECENT = 5.0
"""Seconds since another program wrote the file within which it is reported that it may be about to write more."""

LATE = 60.0
"""Seconds since the last write into a replaced file within which a program may be about to write more.

For file systems of which the kernel cannot tell whether a program has a file open for writing (NFS, FUSE). Where it
can, a replaced file stays as long as one has.
"""

LATE_INTERVAL = 0.2
"""Seconds between two checks of a file that a program is writing, and until the guard deletes any replaced file."""

UNKNOWN_INTERVAL = 1.0
"""Seconds between two checks of a file of which the kernel cannot tell whether a program has it open."""

NEVER = float("inf")


class SwitchResult:
    """The result of a switch, or with ``dry_run`` what it would do."""

    def __init__(self, name: str, previous: str | None) -> None:
        self.name, self.previous = name, previous  # profiles; None for an unmanaged mapping
        self.changed = False  # whether there was anything to do
        self.changes: list[mapping.Difference] = []
        self.folders: list[str] = []  # those that were created
        self.saved_entry: int | None = None  # its undo restores an unmanaged mapping that was replaced
        self.wanted: dict[str, Any] = {}  # the mapping of ``name``
        self.secrets: set[str] = set()  # its variables that hold secrets
        self.unchecked: list[str] = []  # what could not be examined while searching for holds
        self.limits: list[str] = []  # what the launcher cannot do


def switch_profile(
    context: Context,
    name: str,
    *,
    dry_run: bool = False,
    mkdir: bool = False,
    check: bool = True,
    release: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> SwitchResult:
    """Switch the mapping file to the profile ``name``; "-" is the previous one.

    ``mkdir`` creates missing source folders; ``check`` refuses a mapping with which a run would certainly fail;
    ``release`` is the id of a hold to release in the same step, if it exists; ``timeout`` (s) is for the lock.

    Raises NotFoundError, InvalidProfileError (which names all missing source folders), HeldError if a run that is
    still active needs another mapping, InvalidStateError, BusyError, and TaoprofError for errors of the system. After
    any of them the mapping file is unchanged.
    """
    store = Store(context)
    if name != "-" and not os.path.lexists(store.path(name)):
        store.text(name, to_use=True)  # it raises: before anything is waited for
    transaction = _Transaction(context)
    if dry_run:
        return transaction.plan(name, mkdir=mkdir, check=check, release=release)
    answered = None
    with suppress(TaoprofError):  # reported under the lock
        answered = store.renderer(transaction.resolve(name)).mapping()
    if answered is not None:
        preflight.require_answer(answered)  # before the lock: a dead file server must not block other commands
    with Lock(context.lock, timeout):
        return switch_locked(context, name, mkdir=mkdir, check=check, release=release, answered=answered)


def switch_locked(
    context: Context,
    name: str,
    *,
    mkdir: bool = False,
    check: bool,
    release: str | None,
    answered: dict[str, Any] | None,
) -> SwitchResult:
    """Switch as ``switch_profile`` does. Needs the lock. ``answered`` is a mapping whose sources have just answered."""
    _begin(context)
    transaction = _Transaction(context)
    result = transaction.plan(name, mkdir=mkdir, check=check, may_write=True, release=release, answered=answered)
    with preflight.make_folders(result.folders):
        if result.changed:
            result.saved_entry = transaction.write("use", result.name, mapping.to_bytes(result.wanted))
    if result.changed and transaction.has_writer is not False:
        doubt = "is still" if transaction.has_writer else "may still be"
        what = "what it writes from now on is lost"
        if transaction.is_kept:
            what = "the next 'use' or 'undo', or the guard, stores what it writes from now on"
        result.unchecked.append(f"another program {doubt} writing the replaced file: {what}")
    transaction.write_current_cache(result)
    return result


class Undo(NamedTuple):
    """What ``undo`` restores: the state before ``entry``; ``name`` is the profile that is active then, or None."""

    entry: Entry
    name: str | None

    @property
    def is_of_mapping(self) -> bool:
        """Check whether the mapping file is restored, and not a profile."""
        return self.entry.target == "mapping" and self.entry.was is None


def find_undo(context: Context, number: str | None) -> Undo:
    """Return what ``undo`` restores for the history entry ``number``, or for the last change.

    If another program was the last to change the mapping file, that change is recorded first, and is the last one.
    Raises NotFoundError, InvalidStateError.
    """
    with Lock(context.lock):
        return _find_undo(context, number)


def undo(context: Context, number: str | None) -> Undo:
    """Restore the mapping file, or a profile, as it was before the history entry ``number``, or before the last change.

    Undoing an undo brings the change back. Raises as ``find_undo`` and ``switch_profile`` do.
    """
    from taoprofiles.profiles import manage  # it imports tomlkit

    history, store = History(context), Store(context)
    with Lock(context.lock):
        _begin(context)
        plan = _find_undo(context, number)
        entry, name = plan.entry, plan.entry.profile or ""
        if plan.is_of_mapping:
            _undo_mapping(context, plan)
            return plan
        if entry.was is not None:
            manage.move(context, "undo", name, entry.was)
            return plan
        now = store.text_or_none(name)
        wanted = None if entry.before is None else history.load_content(entry.before)
        if wanted is None and get_status(context).name == name:
            raise UsageError(
                f"'{name}' is the active profile, and undoing this would remove it",
                hint="switch to another profile first",
            )
        if wanted is None:
            manage.require_not_extended(store, name)
        elif now is not None:
            manage.check_extending(store, name, wanted)

        def do() -> None:
            if wanted is None:
                files.remove(store.path(name))
            else:
                store.write(name, wanted, expected=now)

        if now != wanted:
            history.record_and([manage.entry_of(context, "undo", name, now, wanted)], do)
        return plan


def _undo_mapping(context: Context, plan: Undo) -> None:
    entry, name = plan
    wanted = None if entry.before is None else History(context).load_content(entry.before)
    transaction = _Transaction(context)
    if transaction.content != wanted or name != transaction.previous:
        target = f"'{name}'" if name else f"the mapping before entry {entry.id}"
        hint = "'taoprof status' lists the holds; undo again when they have ended, or after 'taoprof release ID'"
        transaction.require_free(wanted, target, may_write=True, hint=hint)
        transaction.write("undo", name, wanted)


def purge(context: Context) -> None:
    """Forget all that can be undone, the contents stored for it, caches, rejected edits and logs: they hold secrets.

    The mapping file and the profiles stay as they are, and so does the active profile. Raises UsageError while there
    are active holds, whose mapping must stay known; TaoprofError.
    """
    from taoprofiles.profiles import kernels

    history = History(context)
    with Lock(context.lock):
        _begin(context)
        content = files.read_mapping_file(context)
        active = find_active_holds(context, content, may_write=True).holds
        if any(not hold.released and hold.kind != AGENT for hold in active):
            raise UsageError("the history cannot be purged while there are holds", hint="'taoprof status' lists them")
        if history.last_mapping() is not None and history.current_entry(content) is None:
            history.record_external_change(content)  # or it would be found later, as a change after the purge
        kernels.forget_removed(context)
        kept = {f"{hold.id}.log" for hold in active}
        paths = history.compact(0)
        for folder in (context.cache, os.path.join(context.cache, "templates"), context.rejected, context.logs):
            paths += [os.path.join(folder, name) for name in files.names_in(folder) if name not in kept]
        files.remove_all(paths)


def replace_content(context: Context, wanted: bytes, *, expected: bytes) -> None:
    """Replace the content ``expected`` of an unmanaged mapping file by the fixed content ``wanted``.

    Raises as ``switch_profile`` does, and InvalidStateError if the file no longer has that content.
    """
    with Lock(context.lock):
        _begin(context)
        transaction = _Transaction(context)
        if transaction.content != expected:
            raise InvalidStateError(f"'{context.mapping_file}' has changed in the meantime", hint="taoprof check")
        hint = "'taoprof status' lists the holds; try again when they have ended, or after 'taoprof release ID'"
        transaction.require_free(wanted, "the fixed mapping", may_write=True, hint=hint)
        transaction.write("fix", None, wanted)


def _begin(context: Context) -> None:
    """Store what replaced files have, and wait a moment for a program that is writing the mapping file."""
    recover(context)
    with suppress(OSError), files.opened(context.mapping_file, os.O_RDONLY | os.O_NONBLOCK) as fd:
        processes.wait_for_writer(fd, SWITCH_WRITER_TIMEOUT)


def restore(
    context: Context,
    wanted: bytes,
    profile: str | None,
    *,
    link: str | None,
    attributes: atomic.FileAttributes | None,
    writer: str | None,
) -> int:
    """Restore the held mapping after another program has replaced it; return the entry whose undo reverts that.

    ``link`` and ``attributes`` are those of ``atomic.replace``; ``writer`` is the other program. It is not waited for:
    the guard calls ``recover`` again. Needs the lock. Raises TaoprofError: then the file is as the other program left
    it.
    """
    transaction = _Transaction(context, writer=writer, grace=LATE_INTERVAL)
    return transaction.write("restore", profile, wanted, link=link, attributes=attributes) or 0


def recover(context: Context, *, grace: float = 0.0) -> tuple[list[int], float]:
    """Store what other programs wrote into replaced files, and delete those files into which nobody writes any longer.

    Return the history entries whose undo restores what was stored, and after how many seconds the next call is due
    (``NEVER`` if there is nothing left to check).

    The files of a killed switch or guard are among them. ``grace`` is for how long (s) each file stays anyway: a
    program that opened it just before it was replaced may not have it open for writing yet. Needs the lock. Raises
    TaoprofError.
    """
    history, interval = History(context), NEVER
    entries: list[int] = []

    def is_over(fd: int) -> bool:
        nonlocal interval
        history.note_interrupted()
        # In this order: a program that ends in between has written everything before the content is read.
        is_written, status, now = processes.is_being_written(fd), os.fstat(fd), time.time()
        in_place = files.stat_or_none(context.mapping_file)
        if in_place is not None and os.path.samestat(status, in_place):
            return True  # it was not replaced
        if is_written:
            interval = min(interval, LATE_INTERVAL if now - status.st_ctime < LATE else NEVER)
            return False
        content = files.read_open(fd, CONTENT_LIMIT, context.mapping_file)
        if content and not history.has_content(content):
            last = next(history.mappings(files.read_mapping_file(context)), None)
            if last is None:
                return False  # the history was deleted: it is recorded with the next switch
            change = _entry(last.action, last.profile, None, last.after)
            entries.append(_record_overwritten(history, content, change))
        if is_written is None and abs(now - status.st_mtime) < LATE:
            interval = min(interval, UNKNOWN_INTERVAL)
            return False
        if abs(now - status.st_ctime) < grace:
            interval = min(interval, LATE_INTERVAL)
            return False
        return True

    atomic.collect_replaced(context.mapping_file, is_over)
    return entries, interval


def kept_message(saved_entry: int | None) -> list[str]:
    """Return the message about an unmanaged mapping that was replaced, if any (``SwitchResult.saved_entry``)."""
    if saved_entry is None:
        return []
    what = "the previous mapping came from another program; it was saved in the history"
    return [f"{what}. To restore it: taoprof undo {saved_entry}"]


class _Transaction:
    """Reads the mapping file once, decides, and writes: the history first, then the file."""

    def __init__(self, context: Context, *, writer: str | None = None, grace: float = 0.0) -> None:
        self._context = context
        self._writer, self._grace = writer, grace
        self._store = Store(context)
        self._history = History(context)
        self.content = files.read_mapping_file(context)
        self._entry = self._history.current_entry(self.content)
        self.previous = self._entry.profile if self._entry else None
        self._cached_source: Source | None = None
        self._project_file: str | None = None
        self._change: dict[str, Any] = {}  # the entry of what is being done
        self._content_now: bytes | None = None
        self._late: int | None = None
        self.has_writer: bool | None = False
        self.is_kept = False

    def resolve(self, name: str) -> str:
        """Return the profile that ``name`` means; "-" is the previous one. Raises NotFoundError."""
        profile = find_previous(self._context, self.content, self.previous) if name == "-" else name
        if profile is None:
            raise NotFoundError("there is no previous profile to go back to", hint="taoprof list")
        return profile

    def plan(
        self,
        name: str,
        *,
        mkdir: bool,
        check: bool,
        may_write: bool = False,
        release: str | None = None,
        answered: dict[str, Any] | None = None,
    ) -> SwitchResult:
        name = self.resolve(name)
        source = self._store.source(name)
        renderer = self._store.renderer(name, source, may_write=may_write)
        self._cached_source = None if renderer.depends_on_environment else source
        self._project_file = renderer.project_file
        result = SwitchResult(name, self.previous)
        result.wanted = renderer.mapping()
        result.secrets = renderer.secrets()[1]
        result.limits = preflight.explain_read_only(renderer, result.wanted)
        keys = (("gpus", renderer.template["gpus"]), ("image", renderer.template["images"]))
        if unused := [key for key, value in keys if value]:
            result.limits.append(f"a plain tao ignores {' and '.join(unused)} of the profile; 'taoprof run' does not")
        if result.wanted != answered:
            preflight.require_answer(result.wanted)
        result.folders = preflight.check_mapping(self._context, result.wanted, name=name, mkdir=mkdir, check=check)
        content = mapping.to_bytes(result.wanted)
        result.changed = name != self.previous or not mapping.same(self.content, content)
        if self.content != content:
            current = _parsed(self.content)
            if current.get("Envs"):  # secrets of the previous profile are in its mapping
                result.secrets |= self._store.secret_env(current, self.previous)
            result.changes = mapping.changes(current, result.wanted, secrets=result.secrets)
        if result.changed:
            result.unchecked = self.require_free(content, name, may_write=may_write, release=release)
        return result

    def require_free(
        self, wanted: bytes | None, name: str, *, may_write: bool, release: str | None = None, hint: str = ""
    ) -> list[str]:
        """Raise HeldError if an active hold needs another mapping; return what could not be examined."""
        if mapping.same(self.content, wanted):
            return []
        active = find_active_holds(self._context, self.content, may_write=may_write)
        if not active.holds:
            return active.unchecked
        from taoprofiles.holds import manage

        released = manage.mark_released(active, release) if release is not None and active.find(release) else None
        holders = blocking_holds(active.holds, mapping.digest(wanted or b""))
        if holders:
            raise manage.held_error(name, holders, hint=hint)
        if released is not None and may_write:
            manage.record_release(self._context, released)
        return active.unchecked

    def write(
        self,
        action: str,
        profile: str | None,
        wanted: bytes | None,
        *,
        link: str | None = atomic.KEEP_LINK,
        attributes: atomic.FileAttributes | None = None,
    ) -> int | None:
        """Record and replace; return the entry whose undo restores an unmanaged mapping, if one was replaced."""
        before = None if self.content is None else self._history.store_content(self.content)
        if os.path.lexists(self._context.seal):
            from taoprofiles.switching.guard_files import Seal

            Seal(self._context).remove()  # so that the new file gets the old mode
        after = None if wanted is None else self._history.store_content(wanted)
        change = self._history.external_entry(self.content, writer=self._writer) if self._entry is None else None
        entry = _entry(action, profile, before, after)
        entries = [change, entry] if change else [entry]
        if before == after:
            last_id = self._history.record(entries)
            self._content_now = wanted
        else:
            self._change = entry
            last_id, _ = self._history.record_and(entries, lambda: self._replace(wanted, link, attributes))
        with suppress(OSError, TaoprofError):  # the change is done, and the next one tries again
            recover(self._context, grace=self._grace)
        if self._content_now != wanted:
            raise TaoprofError(
                f"'{self._context.mapping_file}' was overwritten by another program during the switch",
                hint="taoprof status",
            )
        foreign = self.previous is None and self.content is not None
        return self._late or (last_id if foreign else None)

    def _replace(self, wanted: bytes | None, link: str | None, attributes: atomic.FileAttributes | None) -> None:
        path, check = self._context.mapping_file, self._check_replaced
        if wanted is None:
            atomic.delete(path, on_deleted=check)
        else:
            atomic.replace(path, wanted, on_replaced=check, link=link, attributes=attributes, keep=True)

    def _check_replaced(self, fd: int | None) -> None:
        """Store what another program wrote after we had read the file, and read the new file back.

        ``fd`` is the old file, which can still be restored.
        """
        path = self._context.mapping_file
        if fd is not None:
            has_writer = processes.wait_for_writer(fd, 0.0 if self._grace else SWITCH_WRITER_TIMEOUT)
            status = os.fstat(fd)
            self.is_kept = status.st_nlink > 0
            old = files.read_open(fd, CONTENT_LIMIT, path)
            # On a file system that cannot tell, only what another program wrote just now may be incomplete.
            is_recent = abs(time.time() - status.st_mtime) < RECENT
            is_doubtful = is_recent and (self._entry is None or old != self.content)
            self.has_writer = has_writer if has_writer is not None or is_doubtful else False
            if old != self.content:
                number = _record_overwritten(self._history, old, self._change)
                self._late = self._late or number
        self._content_now = files.read(path, MAPPING_LIMIT)

    def write_current_cache(self, result: SwitchResult) -> None:
        """Write the cached answer of ``current``, unless the answer depends on the environment."""
        is_stale = result.changed or current_cache.read(self._context) is None
        if self._cached_source is not None and is_stale:
            content = mapping.to_bytes(result.wanted) if result.changed else self.content or b""
            texts, project = self._cached_source.files(), self._project_file
            current_cache.write(self._context, "active", result.name, texts, project_file=project, mapping=content)


def _entry(action: str, profile: str | None, before: str | None, after: str | None) -> dict[str, Any]:
    return {"action": action, "target": "mapping", "profile": profile, "before": before, "after": after}


def _record_overwritten(history: History, content: bytes, entry: dict[str, Any]) -> int:
    """Record that ``content`` of another program was replaced, by the change ``entry``; return the last entry's id."""
    digest = history.store_content(content)
    return history.record([_entry("found", None, entry["after"], digest), {**entry, "before": digest}])


def _find_undo(context: Context, number: str | None) -> Undo:
    history, content = History(context), files.read_mapping_file(context)
    if number is None and _is_last_change_external(context, history, content):
        history.record_external_change(content)
    for entry, took_effect in history.timeline(content):
        if str(entry.id) != number and not (number is None and took_effect):
            continue
        is_mapping = entry.target == "mapping"
        older = (e for e in history.mappings(content) if e.id < entry.id and e.after == entry.before and e.has_after)
        origin = next(older, None) if is_mapping and not entry.dropped else None
        # Older versions marked an entry whose contents they dropped by nothing but two equal ones.
        is_marked = is_mapping and entry.was is None and entry.before == entry.after and origin is None
        if entry.dropped or is_marked:
            raise InvalidStateError(f"the history no longer has what was before entry {entry.id}")
        if entry.before is not None and entry.was is None:
            history.load_content(entry.before)  # it raises, if the content is lost
        return Undo(entry, origin.profile if origin else None)
    if number is None:
        raise TaoprofError("there is nothing to undo: the history is empty")
    raise NotFoundError(f"the history has no entry '{number}'", hint="'taoprof history' lists them")


def _is_last_change_external(context: Context, history: History, content: bytes | None) -> bool:
    """Check whether another program changed the mapping file after the last entry."""
    last = next(history.newest_first(), None)
    if last is None or history.last_mapping() is None or history.current_entry(content) is not None:
        return False
    try:
        return last.target == "mapping" or os.stat(context.mapping_file).st_mtime > last.time
    except OSError:
        return True  # removed


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        return {} if content is None else mapping.parse(content, "the mapping file")
    except InvalidStateError:
        return {"not JSON": "…"}
