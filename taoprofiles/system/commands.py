"""Run other programs with limits of time and output, whatever they do, also over ssh on the machine of an engine."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from taoprofiles.errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator


_LIMIT = 4 << 20
"""Bytes of output that are read; a program that writes more is killed."""


class CompletedCommand(NamedTuple):
    """The result of a program; ``problem`` is "" if it ended by itself, whatever its exit ``status``.

    ``is_missing``: it could not be started.
    """

    status: int
    out: str
    err: str
    problem: str = ""
    is_missing: bool = False


def run_bounded(
    command: Sequence[str], environ: Mapping[str, str], seconds: float, *, stdin: bytes | int = b""
) -> CompletedCommand:
    """Run a program, whose input is ``stdin``, bytes or a descriptor, for at most ``seconds``. Never raises.

    subprocess's own timeout waits until the pipe is closed, which a child of the program may keep for ever; here the
    whole session is killed and no pipe is waited for.
    """
    source = subprocess.DEVNULL if isinstance(stdin, bytes) else stdin
    try:
        if stdin and isinstance(stdin, bytes):
            source, target = os.pipe()
            threading.Thread(target=_write_all, args=(target, stdin), daemon=True).start()
        process = subprocess.Popen(  # noqa: S603
            list(command),
            env=dict(environ),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in a path or a variable; no thread can be started
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        return CompletedCommand(-1, "", "", f"it cannot be started: {reason}", is_missing=True)
    finally:
        if source >= 0 and isinstance(stdin, bytes):
            os.close(source)
    with process:
        try:
            output, problem = _read(process, seconds)
        except BaseException:  # such as Ctrl-C, which does not reach its session
            _end(process)
            raise
        if problem:
            _end(process)
        status = process.wait()
    out, err = (text.decode("utf-8", "replace") for text in output)
    return CompletedCommand(status, out, err, problem)


def _write_all(pipe: int, data: bytes) -> None:
    """Write ``data`` into a pipe, as far as it is read, and close it."""
    with suppress(BrokenPipeError):
        while data:
            data = data[os.write(pipe, data) :]
    os.close(pipe)


def _read(process: subprocess.Popen[bytes], seconds: float) -> tuple[list[bytes], str]:
    output, end = [b"", b""], time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for number, pipe in enumerate((process.stdout, process.stderr)):
            assert pipe is not None  # noqa: S101 # both are asked for
            selector.register(pipe, selectors.EVENT_READ, number)
        while selector.get_map():
            left = end - time.monotonic()
            if left <= 0:
                return output, f"it did not finish within {seconds:g} s"
            # A child that outlives the program may keep the pipes: the program itself has written everything.
            for key, _ in selector.select(min(left, 0.2)):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                output[key.data] += chunk
                if len(output[key.data]) > _LIMIT:
                    return output, f"its output exceeds {_LIMIT >> 20} MB"
            if process.poll() is not None and not selector.select(0):
                break
    while process.poll() is None:
        if time.monotonic() >= end:
            return output, f"it did not exit within {seconds:g} s"
        time.sleep(0.005)
    return output, ""


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise SystemExit, so that this process undoes what it has begun before it ends.

    Not those that are ignored (nohup) or have a handler; and Python allows no other thread than the main one to do it.
    """

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.kill()


_LOGIN_TIMEOUT = 10.0
"""Seconds for a login and its answer."""


def login_words(address: str) -> list[str]:
    """Return the arguments of ``ssh`` that log in to the machine of an engine, [] for an address that is not ssh's."""
    try:
        parts = urlsplit(address)
        host, port, user = parts.hostname or "", parts.port, parts.username
    except ValueError:
        return []
    if parts.scheme != "ssh" or not host:
        return []
    return [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), "--", host]


def find_missing(address: str, paths: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], str]:
    """Return which paths do not exist on the machine of an engine, and "", or why that cannot be told.

    Only an address of ssh can be asked, and only if it needs no password.
    """
    if not paths:
        return [], ""
    login = login_words(address)
    if not login:
        return [], "its files cannot be looked at from here"
    tests = f'for path in {shlex.join(paths)}; do if [ -e "$path" ]; then echo yes; else echo no; fi; done'
    command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *login, tests]
    result = run_bounded(command, environ, _LOGIN_TIMEOUT)
    answers = result.out.split()[-len(paths) :]  # a login may print something before
    if result.problem or result.status != 0 or len(answers) < len(paths) or set(answers) - {"yes", "no"}:
        lines = result.err.strip().splitlines() or [f"exit status {result.status}"]
        return [], result.problem or f"ssh: {lines[-1][:200]}"
    return [path for path, answer in zip(paths, answers, strict=True) if answer == "no"], ""
