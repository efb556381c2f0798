"""Questions to other programs: each has an end in time and in size, whatever the program does."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LIMIT = 4 << 20
"""Bytes of an answer that are read; a program that says more is ended."""


class CompletedCommand(NamedTuple):
    """What a program answered. ``problem`` is "" where it came to an end by itself, whatever its ``status``."""

    status: int
    out: str
    err: str
    problem: str = ""


def run_bounded(command: Sequence[str], environ: Mapping[str, str], seconds: float) -> CompletedCommand:
    """Run a program that asks nobody anything, for so long at the most. Never raises.

    subprocess's own timeout waits for whoever has the pipe, which a child of the program may have for ever; here the
    whole session is ended, and no pipe waited for.
    """
    try:
        process = subprocess.Popen(  # noqa: S603
            list(command),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return CompletedCommand(-1, "", "", f"it cannot be started: {(error.strerror or str(error)).lower()}")
    except ValueError:  # a NUL in a path or a variable
        return CompletedCommand(-1, "", "", "it cannot be started: no such name")
    with process:
        said, problem = _read(process, time.monotonic() + seconds)
        if problem:
            _end(process)
        status = process.wait()
    out, err = (text.decode("utf-8", "replace") for text in said)
    return CompletedCommand(status, out, err, problem or "")


def _read(process: subprocess.Popen[bytes], end: float) -> tuple[list[bytes], str]:
    said = [b"", b""]
    with selectors.DefaultSelector() as selector:
        for number, pipe in enumerate((process.stdout, process.stderr)):
            assert pipe is not None  # noqa: S101 # both are asked for
            selector.register(pipe, selectors.EVENT_READ, number)
        while selector.get_map():
            left = end - time.monotonic()
            if left <= 0:
                return said, "it does not answer"
            # A child that outlives the program may keep the pipes: what the program had to say has been said by then.
            for key, _ in selector.select(min(left, 0.2)):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                said[key.data] += chunk
                if len(said[key.data]) > _LIMIT:
                    return said, "its answer has no end"
            if process.poll() is not None and not selector.select(0):
                break
    while process.poll() is None:
        if time.monotonic() >= end:
            return said, "it does not come to an end"
        time.sleep(0.005)
    return said, ""


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.kill()
