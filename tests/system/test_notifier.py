"""What the guard tells the service manager goes to it, and nobody waits for it."""

from __future__ import annotations

import socket
from pathlib import Path

from taoprofiles.system.systemd import Notifier


def test_notifying_the_manager_does_not_wait(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"})
        assert notifier.watchdog == 2
        notifier.notify(READY="1", STATUS="well")
        assert manager.recv(100) == b"READY=1\nSTATUS=well"
        for _ in range(1000):
            notifier.notify(WATCHDOG="1")  # its queue has ten places, and nobody reads
    Notifier({}).notify(READY="1")
    assert Notifier({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog is None, "it is another process's"
    assert Notifier({"WATCHDOG_USEC": "nonsense"}).watchdog is None
