"""A guard at work in a scratch home, and the service manager that it tells what it does, played by a socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from taoprofiles.holds import manage
from taoprofiles.storage.journal import History
from tests.support.engine import LoggedProcess, new_log, until
from tests.support.home import Home, find_command

FOREIGN = b'{"Mounts": []}'
"""What a program that knows nothing of taoprofiles writes."""


class GuardProcess(LoggedProcess):
    """``with GuardProcess(home) as guard: …`` runs a guard, from READY=1 on, and ends it by SIGTERM."""

    def __init__(
        self,
        home: Home,
        *,
        environ: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
    ) -> None:
        self.home = home
        self.notifications: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._address = f"taoprofiles-test-{os.getpid()}-{time.monotonic_ns()}"
        self._socket.bind("\0" + self._address)
        self._socket.setblocking(False)
        words = [*prefix, find_command("taoprofd"), *options]
        environ = {**home.environ, "NOTIFY_SOCKET": f"@{self._address}", **(environ or {})}
        super().__init__(new_log(home.root.parent, "guard"), words, environ, home.root)

    def __enter__(self) -> GuardProcess:
        until(
            lambda: self.has_notified("READY=1") or self.process.poll() is not None,
            "it is ready",
            details=self.log_text,
        )
        assert self.process.poll() is None, self.log_text()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.end(10)
        self._socket.close()

    def has_notified(self, what: str) -> bool:
        """Return whether the guard has sent that line to the service manager."""
        while True:
            try:
                self.notifications += self._socket.recv(1 << 16).decode().split("\n")
            except BlockingIOError:
                return what in self.notifications

    def wait_for_loops(self, steps: int) -> None:
        """Wait until it has gone through its loop as many times more."""
        self.has_notified("")
        before = self.notifications.count("WATCHDOG=1")
        until(
            lambda: not self.has_notified("") and self.notifications.count("WATCHDOG=1") >= before + steps,
            "it goes on",
            details=self.log_text,
        )

    @property
    def status(self) -> str:
        """The status line that was sent last."""
        self.has_notified("")
        return next(
            (line.removeprefix("STATUS=") for line in reversed(self.notifications) if line.startswith("STATUS=")), ""
        )

    def until_sealed(self) -> None:
        until(lambda: is_sealed(self.home.mapping_file), "it is sealed", details=self.log_text)

    def until_unsealed(self) -> None:
        until(lambda: not is_sealed(self.home.mapping_file), "it is not sealed", details=self.log_text)

    def hold(self, seconds: float | None = None) -> str:
        """Hold the mapping, and wait until it is sealed."""
        hold = manage.hold(self.home.context, None, reason="a test", seconds=seconds)
        self.until_sealed()
        return hold.id

    def known(self) -> dict[str, Any]:
        """What it publishes."""
        paths = [path for path in (self.home.state / "guard").glob("*.json") if path.name != "seal.json"]
        return json.loads(paths[0].read_text()) if paths else {}


def is_sealed(path: Path) -> bool:
    return not path.stat().st_mode & 0o222


def held(home: Home) -> str:
    return manage.hold(home.context, None, reason="a test").id


def kept(home: Home, content: bytes) -> bool:
    """Check whether the history has a content."""
    return History(home.context).has_content(content)


def replaced(home: Home, content: bytes = FOREIGN) -> None:
    """Write as a careful program does: rename over the file, whatever its mode."""
    fresh = home.root / "fresh"
    fresh.write_bytes(content)
    fresh.replace(home.mapping_file)
