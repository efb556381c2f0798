"""The logs of runs: what their commands print, in ``logs/ID.log``.

The command of a detached run writes into the file itself: no process of ours has to live for that, and nothing is lost
if one is killed. The output of a run in the foreground is copied by a process of its own (``runs/tee.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from taoprofiles.errors import NotFoundError, TaoprofError
from taoprofiles.masking import MASK, MIN_SECRET_LENGTH, is_secret_argument, mask_text
from taoprofiles.storage import files
from taoprofiles.storage.files import to_taoprof_error
from taoprofiles.storage.paths import Context

LOG_LIMIT = 16 << 20
"""Bytes; of a log that has become longer, the older half is dropped."""

KEPT_LOGS = 100
"""Logs that are kept: those of the newest runs."""

_LINE_LIMIT = 1 << 20
_LAST_LINE_LIMIT = 1 << 13


class RunLog:
    """The log of one run."""

    def __init__(self, context: Context, run_id: str) -> None:
        self._context = context
        self.path = os.path.join(context.logs, f"{run_id}.log")

    def create(self) -> int:
        """Create the file, delete those of the oldest runs, and return the descriptor to append to."""
        files.make_folder(self._context.logs)
        fd = files.open_to_append(self.path)
        self._delete_oldest()
        return fd

    def delete(self) -> None:
        """Delete the file, as for work that never started."""
        files.unlink_quietly(self.path)

    def mask(self, secrets: Iterable[str]) -> None:
        """Replace the file of a run that is over by one without secrets. Errors are ignored."""
        with suppress(TaoprofError, OSError):  # such as a log that somebody has deleted
            reader = LogReader(self.path, secrets)
            files.write_cache(self.path, b"".join([*iter(reader.read, b""), reader.rest()]))

    def _delete_oldest(self) -> None:
        names = files.names_in(self._context.logs)
        if len(names) > KEPT_LOGS:
            logs = {name: files.stat_or_none(os.path.join(self._context.logs, name)) for name in names}
            ages = sorted((status.st_mtime, name) for name, status in logs.items() if status is not None)
            for _, name in ages[: len(names) - KEPT_LOGS]:
                record = os.path.join(self._context.holds, f"{name.removesuffix('.log')}.json")
                with suppress(TaoprofError):  # it may be active: the next run tries again
                    if not files.exists(record):
                        files.unlink_quietly(os.path.join(self._context.logs, name))


def trim(path: str) -> None:
    """Drop the older half of a log if it is too long. Errors are ignored."""
    status = files.stat_or_none(path)
    if status is not None and status.st_blocks * 512 > LOG_LIMIT:
        files.drop_beginning(path, LOG_LIMIT // 2)


class LogReader:
    """Reads a log from its beginning, with secrets masked; it may be written and trimmed meanwhile.

    Raises NotFoundError if there is none, TaoprofError.
    """

    _incomplete = b""

    def __init__(self, path: str, secrets: Iterable[str]) -> None:
        self._set_secrets(secrets)
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise NotFoundError(f"there is no log '{path}'") from None
        except OSError as error:
            raise to_taoprof_error(path, "read", error) from error
        self._position = 0
        self._skip_to(os.fstat(self._fd).st_size - LOG_LIMIT)

    def __del__(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)

    def read(self) -> bytes:
        """Return the next complete lines, b"" if there are none now."""
        while True:
            chunk = self._next_chunk()
            self._incomplete += chunk
            # A progress bar ends its lines with "\r"; one at the very end may be the first half of "\r\n".
            end = max(self._incomplete.rfind(b"\n"), self._incomplete[:-1].rfind(b"\r")) + 1
            if end == 0 and len(self._incomplete) > _LINE_LIMIT:
                end = len(self._incomplete)
            if end or not chunk:
                lines, self._incomplete = self._incomplete[:end], self._incomplete[end:]
                return self._masked(lines)

    def _set_secrets(self, secrets: Iterable[str]) -> None:
        self._values = sorted((value for value in secrets if len(value) >= MIN_SECRET_LENGTH), key=len, reverse=True)

    def set_over(self) -> None:
        """Prepare for the last read: the run is over."""

    def _next_chunk(self) -> bytes:
        self._skip_to(self._position)
        chunk = os.pread(self._fd, 1 << 18, self._position)
        self._position += len(chunk)
        return chunk

    def last_line(self) -> str:
        """Return the last line that is not blank, "" if there is none near the end; a progress bar is many lines."""
        size = os.fstat(self._fd).st_size
        end = os.pread(self._fd, _LAST_LINE_LIMIT, max(0, size - _LAST_LINE_LIMIT))
        pieces = [piece for piece in end.replace(b"\r", b"\n").replace(b"\0", b"").split(b"\n") if piece.strip()]
        return self._masked(pieces[-1]).decode("utf-8", "replace").strip() if pieces else ""

    def rest(self) -> bytes:
        """Return the line that is not complete."""
        rest, self._incomplete = self._incomplete, b""
        return self._masked(rest)

    def _skip_to(self, position: int) -> None:
        """Go on at ``position``, or after the part that was dropped since, at the beginning of a line."""
        size = os.fstat(self._fd).st_size
        if size < self._position:  # all of it was dropped
            self._position, self._incomplete, position = 0, b"", 0
        try:
            start = os.lseek(self._fd, max(position, 0), os.SEEK_DATA)
        except OSError:  # ENXIO: no more data; EINVAL: a file system without holes
            start = min(max(position, 0), size)
        if start > self._position:
            chunk = os.pread(self._fd, _LINE_LIMIT, start)
            self._position, self._incomplete = start + chunk.find(b"\n") + 1, b""

    def _masked(self, lines: bytes) -> bytes:
        text = lines.replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
        for value in self._values:
            text = text.replace(value, MASK)
        if "=" in text or ":" in text:
            text = "".join(_mask_line(line) for line in text.splitlines(keepends=True))
        return text.encode("utf-8", "surrogateescape")


def _mask_line(line: str) -> str:
    """Return a line with its secrets masked: also those of a spec, which TAO's tasks print as ``key: value``."""
    key, colon, value = line.partition(": ")
    if colon and is_secret_argument(key.strip()) and value.strip() not in ("", "null", "None", MASK):
        ending = line[len(line.rstrip("\r\n")) :]
        return f"{key}{colon}{MASK}{ending}"
    return mask_text(line)
