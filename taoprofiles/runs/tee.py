"""The log of a run in the foreground: a process that copies what the command prints, as tee(1) does.

It is not the process of ``taoprof run``, so SIGKILL of that one breaks neither the command's output nor its log. Only
output passes through it: the command keeps its standard input, its controlling terminal, its session and its process
group, so keys, signals and job control reach it directly, and nothing has to be restored if a process is killed. Where
the output is a terminal, the command gets another one with the same size and settings, else a pipe.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from taoprofiles.errors import TaoprofError, reason_of
from taoprofiles.holds.hold import without_run_tag
from taoprofiles.holds.logs import LOG_LIMIT, RunLog, trim

DRAIN_TIMEOUT = 2.0
"""Seconds without progress to wait for, when the command has ended and is being copied: a pager may read no further."""

START_TIMEOUT = 30.0
"""Seconds that the process may take to start: a busy machine must not let a short command end without its output."""

_PROGRESS, _DONE = b"+", b"."
"""What the process sends when it has started and while its end is awaited; when everything has been copied."""

_CHUNK = 1 << 16
_TRIM_INTERVAL = LOG_LIMIT // 16
_SYNC_INTERVAL = 0.05
"""Seconds between two comparisons of the two terminals while the command has changed the settings of its own."""

_IGNORED = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTOU, signal.SIGPIPE
)  # fmt: skip
"""They are meant for the command, whose last words are still to be copied."""


@contextmanager
def copied_output(
    log: RunLog | None, stdout: int | None, environ: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[Tee | None]:
    """Yield a copy of a command's output into ``log``, and at the end wait for it; None if nothing is copied."""
    tee = None
    try:
        if log is not None:
            tee = Tee(log.path, log.create(), 1 if stdout is None else stdout, environ)
    except (TaoprofError, OSError) as error:
        reason = error.message if isinstance(error, TaoprofError) else reason_of(error)
        say(f"warning: the run has no log: {reason}")
    try:
        yield tee
    finally:
        if tee is not None:
            tee.close()
            tee.is_complete = tee.finish()


class Tee:
    """The side of ``taoprof run``: starts the process, and waits for it.

    - ``stdout``, ``stderr``: the descriptors that the command gets, None for those of this process
    - ``is_complete``: the log has all that was printed; known at the end
    """

    stdout: int | None = None
    stderr: int | None = None
    is_complete = False

    def __init__(self, log_path: str, log_fd: int, stdout: int, environ: Mapping[str, str]) -> None:
        """Start the process, which copies to ``log_fd`` (closed here) and to ``stdout`` and 2. Raises OSError."""
        self._ends = ExitStack()
        self._control, control = socket.socketpair()
        with ExitStack() as theirs:
            theirs.callback(os.close, log_fd)
            theirs.callback(control.close)
            try:
                pairs = self._open_pairs(stdout, theirs)
                fds = [log_fd, control.fileno(), *(fd for pair in pairs for fd in pair)]
                setup = json.dumps([log_path, *fds[:2], *((*pair, _settings(pair[0])) for pair in pairs)])
                # A Ctrl-C before it ignores SIGINT would end it.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
                try:
                    self._process = subprocess.Popen(  # noqa: S603
                        [sys.executable, "-P", "-m", "taoprofiles.runs.tee", setup],
                        env=without_run_tag(environ),
                        stdin=subprocess.DEVNULL,
                        pass_fds=fds,
                    )
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
            except BaseException:
                self._ends.close()
                self._control.close()
                raise

    def _open_pairs(self, stdout: int, theirs: ExitStack) -> list[tuple[int, int]]:
        """Open a terminal or a pipe for each output; what is the same file has the same one, so the order stays."""
        pairs: list[tuple[int, int]] = []
        for name, target in (("stdout", stdout), ("stderr", 2)):
            try:
                status = os.fstat(target)
            except OSError:  # closed: it is for the command too
                continue
            if pairs and os.path.samestat(status, os.fstat(stdout)):
                self.stderr = self.stdout
                continue
            source, end = _new_terminal(target) if os.isatty(target) else os.pipe()
            theirs.callback(os.close, source)
            self._ends.callback(os.close, end)
            setattr(self, name, end)
            pairs.append((source, target))
        return pairs

    def close(self) -> None:
        """Close the ends that only the command needs, so that the end of its output is noticed."""
        self._ends.close()

    def finish(self) -> bool:
        """Wait until what the command has printed by now is copied; return whether nothing of it is missing."""
        with self._control:
            self._control.shutdown(socket.SHUT_WR)
            self._control.settimeout(START_TIMEOUT)
            with suppress(OSError):
                while word := self._control.recv(1):
                    if word == _DONE:
                        return True
                    self._control.settimeout(DRAIN_TIMEOUT)
        return False


def _new_terminal(like: int) -> tuple[int, int]:
    """Return the two ends of a new terminal with the settings of another one; it changes no byte of what is printed."""
    controller, terminal = os.openpty()
    settings = _settings(like)
    settings[1] &= ~termios.OPOST  # the other one does it
    _set(terminal, settings)
    _copy_size(like, terminal)
    return controller, terminal


def _settings(terminal: int) -> list[int]:
    """Return the settings of a terminal: four words of flags, then the control characters; [] for another file."""
    if not os.isatty(terminal):
        return []
    *flags, _, _, characters = termios.tcgetattr(terminal)
    return [*flags, *(ord(value) if isinstance(value, bytes) else value for value in characters)]


def _set(terminal: int, settings: Sequence[int]) -> None:
    speeds = termios.tcgetattr(terminal)[4:6]
    termios.tcsetattr(terminal, termios.TCSANOW, [*settings[:4], *speeds, list(settings[4:])])


def _copy_size(source: int, target: int) -> bool:
    """Set a terminal to the size of another one; return whether its size was different."""
    size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
    if size == fcntl.ioctl(target, termios.TIOCGWINSZ, bytes(8)):
        return False
    fcntl.ioctl(target, termios.TIOCSWINSZ, size)
    return True


class _Copy:
    """Copies one output; ``source`` is -1 when it has ended, ``target`` when nothing can be written to it any more."""

    def __init__(self, source: int, target: int, settings: list[int]) -> None:
        self.source, self.target = source, target
        self._is_terminal = bool(settings)
        self._original = self._settings = settings

    @property
    def has_changed(self) -> bool:
        """Check whether the command has changed the settings of its terminal."""
        return self._settings != self._original

    def read(self) -> bytes:
        """Return what the command has printed, b"" at the end."""
        try:
            return os.read(self.source, _CHUNK)
        except OSError:  # EIO: nobody has the terminal open any more
            return b""

    def write(self, chunk: bytes) -> None:
        """Write to the target. If that fails, the command must notice, unless its terminal was closed."""
        try:
            if self.target >= 0:
                _write_all(self.target, chunk)
        except OSError as error:
            self.target = -1
            if not self._is_terminal:
                self.close()
                if error.errno != errno.EPIPE:
                    _warn(f"cannot write the output of the command: {reason_of(error)}")

    def close(self) -> None:
        """Stop copying; the command gets SIGPIPE if it prints more."""
        os.close(self.source)
        self.source = -1

    def sync(self) -> None:
        """Copy the size of the user's terminal to the command's, and the settings that the command changed back to it.

        Programs that use curses set the terminal of their output.
        """
        if not self._is_terminal or -1 in (self.source, self.target):
            return
        with suppress(OSError, termios.error):
            is_resized = _copy_size(self.target, self.source)
            with suppress(OSError):  # not the terminal of this session, which has no jobs then
                if os.tcgetpgrp(self.target) != os.getpgrp():  # the shell has the terminal meanwhile
                    self._settings = self._original
                    return
            if is_resized:
                os.killpg(0, signal.SIGWINCH)  # the command may have asked for the size before it was right
            settings = _settings(self.source)
            if settings != self._settings:
                _set(self.target, self._merged(settings))
                self._settings = settings

    def _merged(self, settings: list[int]) -> list[int]:
        """Return the target's settings with the changes that the command made in its own terminal."""
        merged = _settings(self.target)
        for number, (before, after) in enumerate(zip(self._settings, settings, strict=True)):
            changed = before ^ after if number < 4 else 0xFF * (before != after)
            merged[number] = (merged[number] & ~changed) | (after & changed)
        return merged


def _write_all(fd: int, data: bytes) -> None:
    """Write everything, also to a descriptor that does not block."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [])


def _warn(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"taoprof: warning: {text}\n".encode())


class _Copier:
    """The process that copies; to ``log`` is written until that fails once."""

    def __init__(self, log_path: str, log: int, control: int, copies: Iterable[_Copy]) -> None:
        self._log_path, self._log, self._control = log_path, log, control
        self._written = 0
        self._copies = {copy.source: copy for copy in copies}
        self._poller = select.poll()
        self._resized, wakeup = os.pipe()  # a handler would miss a signal that comes just before poll()
        os.set_blocking(wakeup, False)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for fd in (control, self._resized, *self._copies):
            self._poller.register(fd, select.POLLIN)

    def run(self) -> None:
        """Copy until all outputs have ended."""
        is_awaited = False
        self._send(_PROGRESS)
        while self._copies:
            has_changed = any(copy.has_changed for copy in self._copies.values())
            ready = self._poller.poll(0 if is_awaited else _SYNC_INTERVAL * 1000 if has_changed else None)
            if is_awaited and not ready:
                is_awaited = False
                self._send(_DONE)
            for fd, _ in ready:
                if fd == self._control:  # the command has ended, or taoprof was killed
                    self._poller.unregister(fd)
                    is_awaited = True
                elif fd == self._resized:
                    os.read(fd, _CHUNK)
                else:
                    self._copy(fd)
            if not ready or self._resized in dict(ready):
                for copy in self._copies.values():
                    copy.sync()
            if is_awaited:
                self._send(_PROGRESS)
        self._send(_DONE)

    def _copy(self, fd: int) -> None:
        copy = self._copies[fd]
        if chunk := copy.read():
            self._write_log(chunk)
            copy.write(chunk)
        copy.sync()
        if not chunk:
            copy.close()
        if copy.source < 0:
            self._poller.unregister(fd)
            del self._copies[fd]

    def _write_log(self, chunk: bytes) -> None:
        try:
            if self._log >= 0:
                _write_all(self._log, chunk)
        except OSError as error:
            _warn(f"the log of the run ends here: {reason_of(error)}")
            self._log = -1
        self._written += len(chunk)
        if self._written >= _TRIM_INTERVAL:
            self._written = 0
            trim(self._log_path)

    def _send(self, word: bytes) -> None:
        with suppress(OSError):  # taoprof was killed, or waits no longer
            os.write(self._control, word)


def main(argv: Sequence[str]) -> None:
    """Copy the output of one run; the argument is what ``Tee`` passes."""
    log_path, log, control, *outputs = json.loads(argv[0])
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    copier = _Copier(log_path, log, control, [_Copy(*output) for output in outputs])
    if all(target != 1 for _, target, _ in outputs):
        os.close(1)  # whoever reads it waits for the end of taoprof alone
    copier.run()


if __name__ == "__main__":
    main(sys.argv[1:])
