"""Ways to run taoprof, inside this process, on a terminal, as a user who is not root, and checks of what it shows."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock
from xml.etree import ElementTree

from taoprofiles.cli import main
from tests.support.home import Home, forked


class CommandResult(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def envelope(self) -> dict:
        return json.loads(self.out)


def call(
    home: Home, *argv: str, environ: dict[str, str] | None = None, stdin: bytes = b"", cwd: Path | None = None
) -> CommandResult:
    """Run a command line in this process, with the home's environment and captured streams."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    standard_input = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    before = Path.cwd()
    os.chdir(cwd or home.root)
    try:
        with (
            mock.patch.dict(os.environ, {**home.environ, **(environ or {})}, clear=True),
            mock.patch.object(sys, "stdin", standard_input),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                status = main.run(list(argv))
            except SystemExit as end:
                status = int(end.code or 0)
    finally:
        os.chdir(before)
    return CommandResult(status, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]


class Terminal:
    """A process on a pseudo-terminal. What is waited for must come, or the test fails with what came instead."""

    def __init__(self, argv: list[str], *, environ: dict[str, str], cwd: Path, columns: int = 200) -> None:
        self._fd, slave = pty.openpty()
        self.resize(columns)
        self.output = b""
        self.sent = ""
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={"TERM": "xterm", **environ},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def settings(self) -> list:
        return termios.tcgetattr(self._fd)

    def send(self, text: str) -> None:
        self.sent = text
        os.write(self._fd, text.encode())

    def wait_for(self, text: str, *, timeout: float = 20) -> str:
        """Read until ``text`` has come since the last wait, and give all up to it."""
        wanted, end = text.encode(), time.monotonic() + timeout
        while wanted not in self.output:
            assert time.monotonic() < end, f"waited for {text!r}, saw {self.output!r}"
            assert self._read(0.2), f"ended before {text!r}, after {self.output!r}"
        before, _, self.output = self.output.partition(wanted)
        return (before + wanted).decode("utf-8", "replace")

    def finish(self) -> tuple[int, bytes]:
        """Read to the end; return the exit status and what has come since the last wait.

        Ctrl-C is typed again every two seconds, as a person does: Python does not notice a signal that arrives
        just before it begins to read the terminal.
        """
        end, again = time.monotonic() + 20, time.monotonic() + 2
        while self._read(0.2):
            assert time.monotonic() < end, f"does not end; saw {self.output!r}"
            if self.sent == "\x03" and time.monotonic() > again:
                self.send("\x03")
                again += 2
        return self.process.wait(20), self.output

    def _read(self, timeout: float) -> bool:
        if not select.select([self._fd], [], [], timeout)[0]:
            return True
        try:
            chunk = os.read(self._fd, 1 << 16)
        except OSError:  # EIO: the last one who had the terminal open has gone
            return False
        self.output += chunk
        return bool(chunk)


def can_be_shown(line: str) -> bool:
    """Check whether a terminal shows a line as it is: no-break and wide spaces too, which Python would escape."""
    return line.replace("\u00a0", " ").replace("\u3000", " ").isprintable()


def one_clear_error(answer: CommandResult | subprocess.CompletedProcess[str], status: int, *texts: str) -> None:
    """Check that a command failed as it should: one error line, no traceback, nothing on stdout, and these texts."""
    if isinstance(answer, subprocess.CompletedProcess):
        answer = CommandResult(answer.returncode, answer.stdout, answer.stderr)
    assert "Traceback" not in answer.err, answer.err
    assert (answer.status, answer.out) == (status, ""), answer
    lines = answer.err.splitlines()
    errors = [line for line in lines if line.startswith("taoprof: error: ")]
    assert len(errors) == 1, answer
    others = [line for line in lines if line not in errors and not line.startswith(("  ", "hint: ", "taoprof: "))]
    assert not others, others
    assert all(can_be_shown(line) and len(line) < 1000 for line in lines), "a line that no terminal should be given"
    for text in texts:
        assert text in answer.err, answer.err


UNKNOWN = 54_321
"""A user id that no password database has."""


def give(home: Home) -> None:
    if os.geteuid() == 0:
        for path in [home.root, *home.root.rglob("*")]:
            os.chown(path, UNKNOWN, UNKNOWN, follow_symlinks=False)


def as_them(home: Home, *words: str, environ: dict[str, str] | None = None) -> CommandResult:
    """Run a command as them, with all its modules loaded: the interpreter may stand where only root can read."""
    return do_as_them(home, lambda: main.run(list(words)), environ)


def do_as_them(home: Home, do: Callable[[], int], environ: dict[str, str] | None = None) -> CommandResult:
    """Do something else as them; the exit status is what it returns."""

    def become_and_run() -> int:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(*[UNKNOWN] * 3)
            os.setresuid(*[UNKNOWN] * 3)
        return do()

    done = forked(become_and_run, home.environ if environ is None else environ, home.root)
    return CommandResult(done.returncode, done.stdout.decode(), done.stderr.decode())


ELEMENTS = {"svg", "title", "desc", "style", "rect", "line", "polygon", "text"}
ATTRIBUTES = {
    *"class fill stroke x y x1 x2 y1 y2 width height rx points viewBox role textLength lengthAdjust".split(),
    *"font-size font-family font-weight stroke-width stroke-dasharray".split(),
    "{http://www.w3.org/XML/1998/namespace}space",
}


def drawing_texts(drawing: str) -> list[str]:
    """Parse a drawing, check that it has nothing but known elements, and return its texts."""
    root = ElementTree.fromstring(drawing)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= ELEMENTS
    assert {name for element in root.iter() for name in element.attrib} <= ATTRIBUTES
    assert root.get("role") == "img"
    return [element.text or "" for element in root.iter() if element.tag.endswith(("}text", "}title", "}desc"))]
