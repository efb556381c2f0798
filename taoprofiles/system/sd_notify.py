"""What a service tells systemd: sd_notify(3), which is one datagram to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """The service manager that started this process; where there is none, nothing is told and nothing fails."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog: float | None = int(usec) / 1e6 if for_us and usec.isdigit() and int(usec) else None
        """Seconds within which a sign of life must come; None where none is asked for."""
        self.keeps_journal = "JOURNAL_STREAM" in environ
        """Whether what is written to stderr goes to the journal, which reads ``<LEVEL>`` at the start of a line."""

    def notify(self, **variables: str) -> bool:
        """Tell it, for example, READY="1"; true where that was heard, or nobody is to be told.

        Only for READY a manager that does not listen is waited for, a second.
        """
        if not self._address:
            return True
        # A line for each: what is told must not be able to tell something else.
        text = "\n".join(f"{name}={' '.join(value.splitlines())}" for name, value in variables.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(1 if "READY" in variables else 0)
                connection.sendto(text.encode("utf-8", "backslashreplace"), self._address)
            return True
        except OSError:
            return False  # a manager that is busy or gone is no reason to stop the work
