"""The command ``taoprof``: finds the verb, loads only what it needs, and turns every error into one clear message."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its status: 0 done … 7 busy, 128+n for a signal."""
    _open_streams()
    sys.exit(run(sys.argv[1:]))


def daemon() -> NoReturn:
    """Be the command ``taoprofd``, which is ``taoprof daemon``."""
    _open_streams()
    sys.exit(run(["daemon", *sys.argv[1:]]))


def run(argv: list[str]) -> int:
    """Run one command line, without the program's name, and return its exit status."""
    try:
        try:
            status = _answer_prompt() if argv in (["current"], ["current", "--short"]) else None
            if status is None:
                from taoprofiles.cli import parser

                status = parser.run(argv)
        except SystemExit as end:  # argparse has printed a help
            status = int(end.code or 0)
        sys.stdout.flush()
        return _die_of(signal.SIGINT) if status == 128 + signal.SIGINT else status  # of a run's command
    except KeyboardInterrupt:
        return _die_of(signal.SIGINT)
    except BrokenPipeError:
        _drop_answer()  # what reads it has gone (| head)
        return 128 + signal.SIGPIPE
    except OSError as error:
        # Whatever is wrong with a file was told by ``files``; what is left is the answer itself, on a full disk.
        from taoprofiles.cli import output
        from taoprofiles.errors import TaoprofError

        _drop_answer()
        reason = (error.strerror or str(error)).lower()
        return output.emit_error("", TaoprofError(f"the answer could not be written: {reason}"), as_json=False)


def _open_streams() -> None:
    # Where the caller has closed one of the three (>&-), the next file that is opened would take its place, and be
    # written to as if it were the terminal.
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            break
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    sys.stdin = sys.stdin or os.fdopen(0)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # what a terminal cannot show


def _answer_prompt() -> int | None:
    """Answer ``current`` from the note of the last switch; None where it must be worked out."""
    from taoprofiles.cli import output
    from taoprofiles.cli.result import Result
    from taoprofiles.errors import TaoprofError
    from taoprofiles.storage import locks, prompt_cache
    from taoprofiles.storage.paths import Context

    try:
        context = Context()
        if locks.is_orphaned(context.seal, context.guard):
            return None  # a guard that was killed has left its seal, which every command takes off
        name = prompt_cache.active(context)
    except TaoprofError:
        return None
    if name is None:
        return None
    return output.emit("current", Result({}, [name]), as_json=False)


def _drop_answer() -> None:
    # Python would write what is left in the buffer, and complain once more, while it shuts down.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _die_of(number: int) -> int:
    # A shell stops its script only if the command died of the signal; a plain exit status would not tell it.
    sys.stdout.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
