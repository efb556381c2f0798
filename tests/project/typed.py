"""Run a command on a terminal and type the answers to its questions: ``typed.py COMMAND ANSWER…``, for the pages."""

from __future__ import annotations

import os
import pty
import sys

QUESTION_ENDS = (b": ", b"] ")


def main(command: str, *answers: str) -> int:
    waiting = list(answers)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("bash", ["bash", "-c", command])
    output = b""
    while True:
        try:
            chunk = os.read(terminal, 1 << 16)
        except OSError:  # EIO: the last one who had the terminal open has gone
            break
        if not chunk:
            break
        output += chunk
        if waiting and output.endswith(QUESTION_ENDS):
            os.write(terminal, f"{waiting.pop(0)}\n".encode())
    sys.stdout.write(output.decode().replace("\r\n", "\n"))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
