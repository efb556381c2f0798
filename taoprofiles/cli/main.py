"""The command ``taoprof``: runs one command line and turns every error into one clear message."""

from __future__ import annotations

import gc
import os
import sys

from taoprofiles import current_cache

_SIGINT, _SIGPIPE = 2, 13  # importing signal would take 3 ms

_COLLECTOR_THRESHOLD = 50_000
"""Objects before the garbage collector runs: most commands end with fewer, and a run may last for days."""


def main() -> None:
    """Run the command line and exit with its status: 0 done … 7 busy, 128+n for a signal."""
    gc.set_threshold(_COLLECTOR_THRESHOLD)
    _open_streams()
    status = run(sys.argv[1:])
    try:
        sys.stderr.flush()
    except OSError:
        pass
    # Not sys.exit: it would first free every object, which takes 9 ms. 'run' has flushed stdout.
    os._exit(status)


def run(argv: list[str]) -> int:
    """Run one command line, without the program's name, and return its exit status."""
    try:
        try:
            status = 0
            if not _answer_prompt(argv):
                from taoprofiles.cli import dispatch  # not for the prompt

                status = dispatch.run_command(argv)
        except SystemExit as end:  # argparse has printed a help
            status = int(end.code or 0)
        sys.stdout.flush()
        return _die_of_interrupt() if status == 128 + _SIGINT else status  # exit status of a run's command
    except KeyboardInterrupt:
        return _die_of_interrupt()
    except BrokenPipeError:
        _discard_output()  # the reader has gone (| head)
        return 128 + _SIGPIPE
    except OSError as error:
        # Errors of other files are TaoprofErrors: this one is about stdout, on a full disk for example.
        from taoprofiles.cli import output
        from taoprofiles.errors import TaoprofError, reason_of

        _discard_output()
        hint = "the command itself has succeeded" if getattr(error, "is_answer", False) else ""
        failure = TaoprofError(f"cannot write the output: {reason_of(error)}", hint=hint)
        return output.emit_error("", failure, as_json=False)


def _answer_prompt(argv: list[str]) -> bool:
    try:
        line = current_cache.answer(argv)
    except Exception:  # noqa: BLE001 - whatever is wrong, the command itself reports it
        return False
    if line is not None:
        sys.stdout.write(line + "\n")
    return line is not None


def _open_streams() -> None:
    """Open the standard streams that the caller has closed (``>&-``), and make them accept any character.

    Otherwise the next file that is opened would take the place of a stream, and messages would be written into it.
    """
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


def _discard_output() -> None:
    # Python would try to write the rest of the buffer, and complain again, while it shuts down.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _die_of_interrupt() -> int:
    import signal

    # A shell ends its script only if the command died of the signal; an exit status would not show that.
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    return 128 + _SIGINT
