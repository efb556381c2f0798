"""Watching folders with watchdog: a path in them has changed, or has been opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileOpenedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from taoprofiles.storage import files

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

NAMES = (FileCreatedEvent, FileDeletedEvent, FileMovedEvent)
"""Files are created, deleted and replaced; not their contents and times."""
CONTENTS = (*NAMES, FileModifiedEvent, FileAttribEvent, FileClosedEvent)
"""The same, and changes of contents and modes."""
OPENED = (FileOpenedEvent,)
FOLDERS = (DirCreatedEvent, DirDeletedEvent, DirMovedEvent)


class Watch(NamedTuple):
    """A folder to watch, the events, and the callback, which gets the path and whether it was only opened."""

    folder: str
    events: tuple[type[FileSystemEvent], ...]
    callback: Callable[[str, bool], None]


class Watches:
    """Watches folders. Callbacks run in a thread of watchdog; ``overflow`` is called when events were lost."""

    def __init__(self, overflow: Callable[[], None]) -> None:
        self._observer: BaseObserver | None = None
        self._armed: dict[str, object] = {}
        logging.getLogger("watchdog").addHandler(_Overflow(overflow))

    def arm(self, wanted: Iterable[Watch]) -> None:
        """Watch these folders, as far as they exist, and no others.

        Raises OSError if the kernel has no more watches; then nothing is watched.
        """
        self.disarm()
        observer = Observer()
        try:
            observer.start()
            for folder, events, handler in _merged(wanted):
                self._armed[folder] = _identity(folder)
                observer.schedule(handler, folder, event_filter=list(events), follow_symlink=True)
        except OSError:
            observer.stop()
            self._armed.clear()
            raise
        self._observer = observer

    def disarm(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
        self._observer = None
        self._armed.clear()

    def are_right(self, wanted: Iterable[Watch]) -> bool:
        """Check whether these folders are watched and have not been replaced."""
        return {folder: _identity(folder) for folder, _, _ in _merged(wanted)} == self._armed


class _Handler(FileSystemEventHandler):
    def __init__(self, watches: list[Watch]) -> None:
        self._watches = watches

    def dispatch(self, event: FileSystemEvent) -> None:
        for watch in self._watches:
            if isinstance(event, watch.events):
                for path in (event.src_path, event.dest_path):
                    if path:
                        watch.callback(os.fsdecode(path), isinstance(event, FileOpenedEvent))


def _merged(wanted: Iterable[Watch]) -> Iterator[tuple[str, set[type[FileSystemEvent]], _Handler]]:
    """Yield each existing folder once: of two names of one folder, the kernel keeps only the last one's events."""
    by_identity: dict[object, list[Watch]] = {}
    for watch in wanted:
        if os.path.isdir(watch.folder):
            by_identity.setdefault(_identity(watch.folder), []).append(watch)
    for watches in by_identity.values():
        yield watches[0].folder, {event for watch in watches for event in watch.events}, _Handler(watches)


class _Overflow(logging.Handler):
    """Calls ``callback`` when the kernel's event queue overflowed, which watchdog only logs: events were lost."""

    def __init__(self, callback: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._callback = callback

    def emit(self, record: logging.LogRecord) -> None:
        self._callback()


def _identity(folder: str) -> object:
    status = files.stat_or_none(folder)
    return status and (status.st_dev, status.st_ino)
