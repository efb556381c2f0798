"""Which folders are watched, what an event in them means, and what is done where the kernel gives no watches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.state import files
from taoprofiles.world import watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from watchdog.events import FileSystemEvent

    from taoprofiles.state.paths import Context

GLANCE = 0.25
"""Seconds between two glances at the files' times where the kernel gives no watches."""


class Watchpost:
    """Turns events into hints: "changed" (look at everything), "opened" (a launcher may have started), "folders".

    ``hint`` is called in a thread of watchdog. ``blind`` says why nothing can be watched, "" while all is.
    """

    def __init__(self, context: Context, hint: Callable[[str], None], say: Callable[[str, str], None]) -> None:
        self._context, self._hint, self._say = context, hint, say
        self._watches = watching.Watches(self._happened)
        self._target = os.path.realpath(context.mapping_file)
        self._seen: list[tuple[int, int, int]] = []
        self.blind = ""

    def arm(self) -> None:
        """Watch the folders that there are now; say so where the kernel gives no more watches."""
        self._target = os.path.realpath(self._context.mapping_file)
        for folder in (self._context.holds, self._context.profiles):
            try:
                files.make_folder(folder)
            except TaoprofError:
                pass  # a home that cannot be written to: what is there is watched
        try:
            self._watches.arm(self._folders())
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
        target = os.path.realpath(self._context.mapping_file)
        return target == self._target and self._watches.are_right(folder for folder, _ in self._folders())

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

    def _folders(self) -> Iterator[tuple[str, tuple[type[FileSystemEvent], ...]]]:
        path, home = self._context.mapping_file, self._context.home
        for folder in dict.fromkeys((os.path.dirname(path), os.path.dirname(os.path.realpath(path)))):
            yield folder, watching.CONTENTS + watching.OPENED + watching.FOLDERS
        yield self._context.holds, watching.NAMES  # not their times: each look gives signs of life there
        yield self._context.profiles, watching.CONTENTS
        yield os.path.join(home, ".docker"), watching.OPENED  # each launcher reads config.json there, before all else
        yield os.path.dirname(home), watching.FOLDERS

    def _happened(self, path: str, was_opened: bool) -> None:
        context = self._context
        folder, name = os.path.split(path)
        if path in ("", context.mapping_file, self._target):
            self._hint("opened" if was_opened else "changed")
        elif was_opened:
            if name == "config.json":
                self._hint("opened")
        elif folder in (context.holds, context.profiles):
            self._hint("changed")
        elif path == context.home or (folder == context.home and name in (".docker", ".config", ".local")):
            self._hint("folders")
