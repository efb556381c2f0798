"""Which folders are watched, what an event in them means, and what is done where the kernel gives no watches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import files
from taoprofiles.system import folder_watch
from taoprofiles.system.folder_watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taoprofiles.storage.paths import Context

GLANCE = 0.25
"""Seconds between two glances at the files' times where the kernel gives no watches."""


class Watchpost:
    """Turns events into hints: "changed" (look at everything), "opened" (a launcher may have started), "folders".

    ``hint`` is called in a thread of watchdog. ``blind`` says why nothing can be watched, "" while all is.
    """

    def __init__(self, context: Context, hint: Callable[[str], None], say: Callable[[str, str], None]) -> None:
        self._context, self._hint, self._say = context, hint, say
        self._watches = folder_watch.Watches(lambda: hint("changed"))
        self._target = files.real_path(context.mapping_file)
        self._seen: list[tuple[int, int, int]] = []
        self.blind = ""

    def arm(self) -> None:
        """Watch the folders that there are now; say so where the kernel gives no more watches."""
        for _ in range(10):
            self._arm()
            if self.blind or self.is_right():
                break  # whatever changes from now on is told of; else a symlink was swapped before it was watched

    def _arm(self) -> None:
        self._target = files.real_path(self._context.mapping_file)
        for folder in (self._context.holds, self._context.profiles):
            try:
                files.make_folder(folder)
            except TaoprofError:
                pass  # a home that cannot be written to: what is there is watched
        try:
            self._watches.arm(self._wanted())
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if not self.blind:
                self._say(
                    "warning",
                    f"the kernel gives no more watches ({reason}): the file is looked at {1 / GLANCE:g} times a second "
                    "instead; 'sysctl fs.inotify' shows the limits",
                )
            self.blind = f"without watches ({reason})"
        else:
            if self.blind:
                self._say("info", "the kernel gives watches again")
            self.blind = ""

    def disarm(self) -> None:
        """Watch nothing."""
        self._watches.disarm()

    def is_right(self) -> bool:
        """Whether the folders that are watched are still those that have these names."""
        target = files.real_path(self._context.mapping_file)
        return target == self._target and self._watches.are_right(self._wanted())

    def glance(self) -> bool:
        """Whether the mapping file or the folder of holds has another time than at the last glance."""
        seen = []
        for path in (self._context.mapping_file, self._target, self._context.holds):
            try:
                status = os.lstat(path)
                seen.append((status.st_ino, status.st_size, status.st_ctime_ns))
            except OSError:
                seen.append((0, 0, 0))
        before, self._seen = self._seen, seen
        return before != seen

    def _wanted(self) -> Iterator[Watch]:
        context, home = self._context, self._context.home
        path = context.mapping_file
        for one in dict.fromkeys((path, files.real_path(path))):
            events = folder_watch.CONTENTS + folder_watch.OPENED + folder_watch.FOLDERS
            yield Watch(os.path.dirname(one), events, self._told_of(os.path.basename(one)))
        # Not the times of the files there: each look gives signs of life.
        yield Watch(context.holds, folder_watch.NAMES, self._changed)
        yield Watch(context.profiles, folder_watch.CONTENTS, self._changed)
        # Each launcher reads config.json there, before all else.
        yield Watch(os.path.join(home, ".docker"), folder_watch.OPENED, self._told_of("config.json"))
        for folder in (home, os.path.dirname(home)):
            yield Watch(folder, folder_watch.FOLDERS, self._folders_changed)

    def _told_of(self, name: str) -> Callable[[str, bool], None]:
        def told(path: str, was_opened: bool) -> None:
            if os.path.basename(path) == name:
                self._hint("opened" if was_opened else "changed")

        return told

    def _changed(self, path: str, was_opened: bool) -> None:
        self._hint("changed")

    def _folders_changed(self, path: str, was_opened: bool) -> None:
        if os.path.basename(path) in (os.path.basename(self._context.home), ".docker", ".config", ".local"):
            self._hint("folders")
