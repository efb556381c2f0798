"""Folders watched by watchdog: something has happened to a path, or a path has been opened."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
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
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from watchdog.observers.api import BaseObserver

# watchdog holds what was moved back for half a second, and all that comes after it, to find out where it was moved to.
# Whoever replaces the mapping file moves a file, and must be answered within 50 ms.
InotifyMoveEventGrouper.delay = 0

NAMES = (FileCreatedEvent, FileDeletedEvent, FileMovedEvent)
"""Files come, go and are replaced. Not what is written into them, nor their times."""
CONTENTS = (*NAMES, FileModifiedEvent, FileClosedEvent)
"""And what is written into files, and their modes."""
OPENED = (FileOpenedEvent,)
FOLDERS = (DirCreatedEvent, DirDeletedEvent, DirMovedEvent)


class Watches(FileSystemEventHandler):
    """Tells ``told(path, was_opened)``, in a thread of watchdog, of each event in the folders that are watched."""

    def __init__(self, told: Callable[[str, bool], None]) -> None:
        self._told = told
        self._observer: BaseObserver | None = None
        self._armed: dict[str, tuple[int, int]] = {}
        logging.getLogger("watchdog").addHandler(_Overflow(lambda: told("", False)))

    def arm(self, wanted: Iterable[tuple[str, tuple[type[FileSystemEvent], ...]]]) -> None:
        """Watch these folders, those that are there, and no others any more.

        Raises OSError where the kernel gives no more watches; then nothing is watched.
        """
        self.disarm()
        observer = Observer()
        try:
            observer.start()
            for folder, events in wanted:
                if os.path.isdir(folder):
                    status = os.stat(folder)
                    observer.schedule(self, folder, event_filter=list(events))
                    self._armed[folder] = (status.st_dev, status.st_ino)
        except OSError:
            observer.stop()
            self._armed.clear()
            raise
        self._observer = observer

    def disarm(self) -> None:
        """Watch nothing any more."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
        self._observer = None
        self._armed.clear()

    def are_right(self, wanted: Iterable[str]) -> bool:
        """Whether the folders are watched, and are still the ones that have these names."""
        return {folder: _identity(folder) for folder in wanted if os.path.isdir(folder)} == self._armed

    def dispatch(self, event: FileSystemEvent) -> None:
        """Hand on an event; watchdog calls this."""
        was_opened = isinstance(event, FileOpenedEvent)
        for path in (event.src_path, event.dest_path):
            if path:
                self._told(os.fsdecode(path), was_opened)


class _Overflow(logging.Handler):
    """watchdog only logs that the kernel's queue ran over: then anything may have happened."""

    def __init__(self, happened: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._happened = happened

    def emit(self, record: logging.LogRecord) -> None:
        self._happened()


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)
