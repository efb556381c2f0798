"""The switch: the mapping file becomes another profile's mapping, wholly or not at all, and nothing is lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles import prompt
from taoprofiles.errors import InvalidStateError, NotFoundError, TaoprofError
from taoprofiles.holds.hold import blocking_holds
from taoprofiles.holds.liveness import find_active_holds
from taoprofiles.holds.manage import held_error, record_release
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import atomic, files
from taoprofiles.storage.files import MAPPING_LIMIT
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.switching import preflight
from taoprofiles.switching.status import previous

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taoprofiles.mounts.mapping import Change
    from taoprofiles.storage.atomic import FileAttributes
    from taoprofiles.storage.journal import Entry
    from taoprofiles.storage.paths import Context


class Switch:
    """What a switch did, or with ``dry_run`` would do.

    ``name`` and ``previous`` are profiles (None: no profile's mapping); ``changed`` is false where all was as wanted;
    ``changes`` is what differs in the mapping; ``folders`` were made; ``kept`` is the history entry under which a
    mapping that no profile had made was kept, None where there was none; ``secrets`` names variables of the container
    that hold secrets, whatever they are called; ``unseen`` is what could not be looked at
    when asking whose work needs the mapping.
    """

    __slots__ = ("changed", "changes", "folders", "kept", "name", "previous", "secrets", "unseen", "wanted")

    def __init__(self, name: str | None, previous: str | None) -> None:
        self.name, self.previous = name, previous
        self.changed = False
        self.changes: list[Change] = []
        self.folders: list[str] = []
        self.kept: int | None = None
        self.wanted: dict[str, Any] = {}
        self.secrets: set[str] = set()
        self.unseen: list[str] = []


def use(
    context: Context,
    name: str,
    *,
    dry_run: bool = False,
    mkdir: bool = False,
    check: bool = True,
    release: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Switch:
    """Switch the mapping file to the profile ``name``; "-" is the one before. ``timeout`` (s) is for the lock.

    ``check`` refuses a mapping with which a run would go wrong for certain.

    ``release`` is the id of a hold that must not stand in the way; it is let go of in the same step, if it is there.

    Raises NotFoundError, InvalidProfileError (also for missing source folders, all of them at once), HeldError where
    work that goes on needs another mapping, InvalidStateError, BusyError, and TaoprofError for what the system refuses.
    After any of them the mapping file is as it was.
    """
    store = Store(context)
    if name != "-":
        store.text(name)  # a name that is not there is told before anything is made or waited for
    if dry_run:
        return _Transaction(context).plan(name, mkdir=mkdir, check=check)
    with Lock(context.lock, timeout):
        return switch(context, name, mkdir=mkdir, check=check, release=release)


def switch(
    context: Context, name: str, *, mkdir: bool = False, check: bool = True, release: str | None = None
) -> Switch:
    """Do what ``use`` does. Needs the lock."""
    transaction = _Transaction(context)
    done = transaction.plan(name, mkdir=mkdir, check=check, may_write=True, release=release)
    if done.changed:
        assert done.name is not None  # noqa: S101 - for the type checker: a plan has a name
        preflight.make(done.folders)
        done.kept = transaction.write("use", done.name, mapping.to_bytes(done.wanted))
    transaction.write_note(done)
    return done


def bring_back(context: Context, entry: Entry) -> Switch:
    """Give the mapping file the content that it had before ``entry``. Needs the lock. Raises as ``use`` does."""
    history = History(context)
    wanted = None if entry.before is None else history.content(entry.before)
    transaction = _Transaction(context)
    older = (e for e in history.mappings(transaction.content) if e.id < entry.id)
    name = next((e.profile for e in older if e.after == entry.before), None)
    done = Switch(name, transaction.previous)
    if transaction.content != wanted or name != transaction.previous:
        back = name or f"the mapping before entry {entry.id}"
        hint = "'taoprof status' lists who; when it has ended, or after 'taoprof release ID', undo again"
        done.unseen = transaction.ask_holders(wanted, back, may_write=True, hint=hint)
        done.changed = True
        done.kept = transaction.write("undo", name, wanted)
    return done


def rewrite(context: Context, wanted: bytes, *, seen: bytes, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Mend the mapping file of no profile, from ``seen``, what it held when it was judged, to ``wanted``.

    Raises as ``use`` does, and InvalidStateError where it holds something else by now.
    """
    with Lock(context.lock, timeout):
        transaction = _Transaction(context)
        if transaction.content != seen:
            raise InvalidStateError(f"'{context.mapping_file}' was changed meanwhile", hint="taoprof check")
        transaction.ask_holders(wanted, "the mended mapping", may_write=True)
        transaction.write("mend", None, wanted)


def put_back(
    context: Context,
    wanted: bytes,
    profile: str | None,
    *,
    link: str | None,
    like: FileAttributes | None,
    writer: str | None,
    follow: Callable[[int], None],
) -> int:
    """Put the mapping that is held back over what another program wrote; give the entry whose undoing brings that back.

    ``link`` and ``like`` are what the file was before (see ``atomic.replace``); ``writer`` who wrote. ``follow`` is
    given a descriptor of each file that was replaced, into which a program may still be writing. Needs the lock.
    Raises TaoprofError: then all is as the other program left it.
    """
    transaction = _Transaction(context, writer=writer, is_foreign=True)
    transaction.follow = follow
    return transaction.write("restore", profile, wanted, link=link, like=like) or 0


def take_in(context: Context, content: bytes | None, *, writer: str | None) -> int | None:
    """Keep what another program wrote as the mapping that is now in force, of no profile; give its entry.

    None where the file holds something else than ``content`` by now, or that is what was in force. Needs the lock.
    Raises TaoprofError.
    """
    if files.read_mapping_file(context) != content:
        return None
    return History(context).take_in(content, writer=writer)


def keep_late(context: Context, content: bytes) -> int:
    """Keep what a program wrote into a file that had been replaced already, as ``put_back`` does. Needs the lock."""
    history = History(context)
    last = history.last_mapping()
    if last is None:
        raise TaoprofError("the history has gone away")
    digest = history.keep(content)
    found = _mapping_entry("found", None, last.after, digest)
    return history.record([found, _mapping_entry("restore", last.profile, digest, last.after)])[1]


def recover(context: Context) -> None:
    """Clear up what a killed switch or restore left, and keep what it replaced unseen. Needs the lock."""
    _Transaction(context).clear_up()


def kept_note(kept: int | None) -> list[str]:
    """Tell how to get back a mapping that no profile had made, and that was replaced; nothing for none."""
    what = "the mapping that was there, which no profile had made, is kept"
    return [] if kept is None else [f"{what}: 'taoprof undo {kept}' brings it back"]


class _Transaction:
    """Reads once, decides, and writes: the history first, then the file."""

    def __init__(self, context: Context, *, writer: str | None = None, is_foreign: bool = False) -> None:
        self._context = context
        self._writer = writer
        self.follow: Callable[[int], None] | None = None
        self._store = Store(context)
        self._history = History(context)
        self.content = files.read_mapping_file(context)
        # A guard knows more than the history tells: that the last entry was carried out, and the file is now as it was
        # before that because the same was written once more.
        self._entry = None if is_foreign else self._history.in_force(self.content)
        self.previous = self._entry.profile if self._entry else None
        self._note: bytes | None = None

    def plan(
        self, name: str, *, mkdir: bool, check: bool, may_write: bool = False, release: str | None = None
    ) -> Switch:
        if name == "-":
            before = previous(self._context, self.content, self.previous)
            if before is None:
                raise NotFoundError("there is no previous profile to go back to", hint="'taoprof list' shows all")
            name = before
        text = self._store.text(name)
        renderer = self._store.renderer(name, text, may_write=may_write)
        self._note = None if renderer.asks_environment else text
        done = Switch(name, self.previous)
        done.wanted = renderer.mapping()
        done.secrets = renderer.secrets()[1]
        done.folders = preflight.to_make(self._context, done.wanted, name=name, mkdir=mkdir, check=check)
        content = mapping.to_bytes(done.wanted)
        done.changed = name != self.previous or not mapping.same(self.content, content)
        if self.content != content:
            now = _parsed(self.content)
            if now.get("Envs"):  # what the other profile calls a secret is one in its mapping
                done.secrets |= self._store.secret_env(self.previous)
            done.changes = mapping.changes(now, done.wanted, secrets=done.secrets)
        if done.changed:
            done.unseen = self.ask_holders(content, name, may_write=may_write, release=release)
        return done

    def ask_holders(
        self, wanted: bytes | None, name: str, *, may_write: bool, release: str | None = None, hint: str = ""
    ) -> list[str]:
        """Raise HeldError if somebody's work needs another mapping than ``wanted``; give what could not be seen."""
        if mapping.same(self.content, wanted):
            return []
        stock = find_active_holds(self._context, self.content, may_write=may_write)
        released = None if release is None else stock.find(release)
        if released is not None:
            released.released = True
        holders = blocking_holds(stock.holds, mapping.digest(wanted or b""))
        if holders:
            raise held_error(name, holders, hint=hint)
        if released is not None and may_write:
            record_release(self._context, released)
        return stock.unseen

    def write(
        self,
        action: str,
        profile: str | None,
        wanted: bytes | None,
        *,
        link: str | None = "",
        like: FileAttributes | None = None,
    ) -> int | None:
        """Record and replace; return the number of the entry that kept a foreign mapping, if any."""
        self._keep_what_a_killed_switch_replaced()
        before = None if self.content is None else self._history.keep(self.content)
        if os.path.lexists(self._context.seal):
            from taoprofiles.switching.seal import Seal

            Seal(self._context).take_off()  # so that the new file gets the mode of the old one; a guard seals it again
        after = None if wanted is None else self._history.keep(wanted)
        found = self._history.found(before, writer=self._writer) if self._entry is None else None
        entries = [found] if found else []
        entries.append(_mapping_entry(action, profile, before, after))
        late: int | None
        if before == after:
            _, last_id = self._history.record(entries)
            landed, late = wanted, None
        else:
            last_id, (landed, late) = self._history.record_and(
                entries, lambda: self._replace(wanted, entries[-1], link, like)
            )
        if landed != wanted:
            raise TaoprofError(
                f"'{self._context.mapping_file}' was overwritten by another program in the moment of the switch",
                hint="'taoprof status' tells what it holds now",
            )
        foreign = self.previous is None and self.content is not None
        return late or (last_id if foreign else None)

    def clear_up(self) -> None:
        """Do what ``write`` would do about a killed one, and no more."""
        self._keep_what_a_killed_switch_replaced()
        atomic.remove_leftovers(self._context.mapping_file)

    def _replace(
        self, wanted: bytes | None, entry: dict[str, Any], link: str | None, like: FileAttributes | None
    ) -> tuple[bytes | None, int | None]:
        """Replace the file, as ``entry`` says; give what it holds then, read back.

        What another program wrote after we had read the file is kept, and put into its order; then the number of the
        entry under which it was kept is given too. All of it happens while the old file can still be put back.
        """
        path, history = self._context.mapping_file, self._history
        landed: list[bytes | None] = []
        late: list[int] = []

        def placed(old: bytes | None) -> None:
            if old is not None and old != self.content:
                digest = history.keep(old)
                found = _mapping_entry("found", None, entry["after"], digest)
                late.append(history.record([found, {**entry, "before": digest}])[1])
            landed.append(files.read(path, MAPPING_LIMIT))

        if wanted is None:
            atomic.delete(path, on_deleted=placed)
        else:
            atomic.replace(path, wanted, on_replaced=placed, link=link, attributes=like, follow=self.follow)
        return landed[-1] if landed else None, late[0] if late else None

    def _keep_what_a_killed_switch_replaced(self) -> None:
        """Keep what another program wrote in the moment of a switch that was killed before it could look."""
        content = atomic.read_backup(self._context.mapping_file)
        last = self._history.last_mapping()
        if content is None or last is None or self._history.knows(content):
            return
        digest = self._history.keep(content)
        again = _mapping_entry(last.action, last.profile, digest, last.after)
        self._history.record([_mapping_entry("found", None, last.after, digest), again])

    def write_note(self, done: Switch) -> None:
        """Write the note for the prompt, unless the answer depends on the environment."""
        if done.name is not None and self._note is not None and (done.changed or prompt.read(self._context) is None):
            content = mapping.to_bytes(done.wanted) if done.changed else self.content or b""
            prompt.write(self._context, "active", done.name, profile=self._note, mapping=content)


def _mapping_entry(action: str, profile: str | None, before: str | None, after: str | None) -> dict[str, Any]:
    return {"action": action, "target": "mapping", "profile": profile, "before": before, "after": after}


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        return {} if content is None else mapping.parse(content, "the mapping file")
    except InvalidStateError:
        return {"not JSON": "…"}
