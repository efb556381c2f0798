"""Undo: restoring the mapping file, or a profile, as it was before an entry of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.errors import NotFoundError, TaoprofError, UsageError
from taoprofiles.profiles import manage
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.storage.journal import Entry, History
from taoprofiles.storage.locks import DEFAULT_TIMEOUT, Lock
from taoprofiles.switching.status import get_status
from taoprofiles.switching.switch import restore_before

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context


def undo(context: Context, number: str | None, *, timeout: float = DEFAULT_TIMEOUT) -> tuple[Entry, str | None]:
    """Restore the mapping file, or a profile, as it was before the history entry ``number``, or before the last one.

    Returns the entry and, for the mapping file, the name of the profile that is active now. Undoing an undo brings the
    change back. Raises NotFoundError, TaoprofError.
    """
    history, store = History(context), Store(context)
    with Lock(context.lock, timeout):
        entry = _entry_to_undo(context, number)
        name = entry.profile or ""
        if entry.target == "mapping" and entry.was is None:
            return entry, restore_before(context, entry).name
        if entry.was is not None:
            manage.move(context, "undo", name, entry.was)
            return entry, None
        now = store.text_or_none(name)
        wanted = None if entry.before is None else history.content(entry.before)
        if wanted is None and get_status(context).name == name:
            raise UsageError(
                f"'{name}' is the active profile, and undoing this would remove it",
                hint="switch to another profile first",
            )

        def do() -> None:
            if wanted is None:
                files.remove(store.path(name))
            else:
                store.write(name, wanted, expected=now)

        if now != wanted:
            history.record_and([manage.entry_of(context, "undo", name, now, wanted)], do)
        return entry, None


def _entry_to_undo(context: Context, number: str | None) -> Entry:
    for entry, took_effect in History(context).timeline(files.read_mapping_file(context)):
        if str(entry.id) == number or (number is None and took_effect):
            return entry
    if number is None:
        raise TaoprofError("there is nothing to undo: the history is empty")
    raise NotFoundError(f"the history has no entry '{number}'", hint="'taoprof history' lists them")
